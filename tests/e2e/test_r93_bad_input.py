"""Bad input on the running platform: each mistake gets an error that names its cause, nothing is half-made, and every
process stays up."""

import gzip
import io
import json
import os
import pathlib
import socket
import subprocess
import tarfile
import tempfile
import time
import uuid

import botocore.auth
import pytest

from conftest import Image, busybox, default_network, eventually, register, run_task, wait_for
from test_r83_registry_durability import Client, digest_of
from test_wire_platform import ecs_headers, raw, signed


@pytest.fixture(scope="module", autouse=True)
def nobody_dies(platform):
    """All of this leaves every process as it was."""
    before = {role: platform.child(role) for role in ("server", "host", "agent")}
    yield
    assert {role: platform.child(role) for role in before} == before


class Dated(botocore.auth.SigV4Auth):
    """Signs as of another time."""

    def __init__(self, *arguments, shift=0):
        super().__init__(*arguments)
        self.shift = shift

    def add_auth(self, request):
        moment = time.gmtime(time.time() + self.shift)
        request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", moment)
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        self._inject_signature_to_request(request, self.signature(self.string_to_sign(request, canonical), request))


def test_r93_expired_and_early_signatures_are_refused(platform):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    who = b"Action=GetCallerIdentity&Version=2011-06-15"
    status, _, body = signed(platform, "ecs", headers=ecs_headers(), signer=Dated, shift=-240)
    assert status == 200, body
    for shift, text in ((-360, "Signature expired: "), (360, "Signature not yet current: ")):
        status, _, body = signed(platform, "ecs", headers=ecs_headers(), signer=Dated, shift=shift)
        assert status == 400 and json.loads(body)["__type"].endswith("InvalidSignatureException") and text in body, body
        status, _, body = signed(platform, "sts", who, headers=form, signer=Dated, shift=shift)
        assert status == 403 and "<Code>SignatureDoesNotMatch</Code>" in body and text in body, body
    # A presigned address lives as long as it says.
    client = platform.client("sts")
    url = client.generate_presigned_url("get_caller_identity", HttpMethod="GET", ExpiresIn=1).removeprefix(platform.endpoint)
    assert raw(platform, "GET", url, {})[0] == 200
    eventually(lambda: raw(platform, "GET", url, {})[0] == 403)
    assert "Signature expired" in raw(platform, "GET", url, {})[2]


def evil(*entries):
    """A layer as (tar, packed tar) of ordinary files and these entries."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, (data, mode) in busybox().items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
        for name, kind, link, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size, entry.mode = kind, link, len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue(), gzip.compress(content.getvalue(), 1)


def outcome(platform, image, **container):
    """Runs an image; gives the exit code, or why it did not start."""
    container = {"name": "main", "image": image, **container}
    ended = wait_for(platform, run_task(platform, register(platform, f"bad-{uuid.uuid4().hex[:8]}", container)), "STOPPED")
    return ended["containers"][0].get("exitCode", ended["containers"][0].get("reason"))


def test_r93_layers_that_reach_out_are_refused_and_touch_nothing(platform):
    victim = pathlib.Path(tempfile.mkdtemp(prefix="longshore-victim-"))
    target = victim / "file"
    target.write_text("untouched")
    up = "../" * 20 + str(target).lstrip("/")
    cases = {
        "absolute": ("an absolute path", [(str(target), tarfile.REGTYPE, "", b"evil")]),
        "parent": ('".."', [(up, tarfile.REGTYPE, "", b"evil")]),
        "hardlink": ("a hard link out of the layer", [("link", tarfile.LNKTYPE, str(target), b"")]),
        "device": ("a device node", [("disk", tarfile.BLKTYPE, "", b"")]),
    }
    for name, (reason, entries) in cases.items():
        said = outcome(platform, Image(platform, f"evil/{name}", layer=evil(*entries)).uri, command=["true"])
        assert str(said).startswith("CannotPullContainerError: ") and reason in said, (name, said)
    # A symbolic link may point anywhere, as in every image: inside the container it means the container's own file, and
    # what a layer writes through it stays within the layer.
    through = [("out", tarfile.SYMTYPE, str(victim), b""), ("out/file", tarfile.REGTYPE, "", b"evil")]
    said = outcome(platform, Image(platform, "evil/symlink", layer=evil(*through)).uri, command=["grep", "evil", f"{victim}/file"])
    assert said in (0, 1) or str(said).startswith("CannotPullContainerError: "), said
    assert target.read_text() == "untouched" and os.listdir(victim) == ["file"]
    target.unlink()
    victim.rmdir()


def test_r93_a_layer_that_explodes_is_refused(platform):
    # Zeros: four times the allowed ratio of packed to unpacked.
    zeros = io.BytesIO()
    with tarfile.open(fileobj=zeros, mode="w") as archive:
        entry = tarfile.TarInfo("zeros")
        entry.size = 64 << 20
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    said = outcome(platform, Image(platform, "evil/bomb", layer=(zeros.getvalue(), gzip.compress(zeros.getvalue()))).uri, command=["true"])
    assert str(said).startswith("CannotPullContainerError: ") and "to 1" in said, said


def test_r93_an_image_that_is_not_what_it_says_is_refused(platform):
    raw_layer, packed = evil()
    said = outcome(platform, Image(platform, "evil/lie", layer=(raw_layer + b"x", packed)).uri, command=["true"])
    assert str(said).startswith("CannotPullContainerError: ") and "sha256:" in said, said
    said = outcome(platform, Image(platform, "evil/garbage", layer=(raw_layer, b"this is no archive")).uri, command=["true"])
    assert str(said).startswith("CannotPullContainerError: "), said


def test_r93_an_image_without_an_entry_point_says_so(platform, image):
    said = outcome(platform, image)
    assert str(said).startswith("CannotCreateContainerError: ") and "no command specified" in said.lower(), said


def test_r93_pushes_that_do_not_add_up_leave_nothing(platform):
    client = Client(platform, f"bad-{uuid.uuid4().hex[:8]}")
    wrong = digest_of(b"something else")
    errors = lambda answer: (answer[0], [error["code"] for error in json.loads(answer[2])["errors"]])
    answer = client.send("POST", f"/v2/{client.repository}/blobs/uploads/?digest={wrong}", b"content")
    assert errors(answer) == (400, ["DIGEST_INVALID"])
    location = client.begin()
    assert client.send("PATCH", location, b"content")[0] == 202
    assert errors(client.send("PUT", f"{location}?digest={wrong}")) == (400, ["DIGEST_INVALID"])
    assert client.blob(wrong)[0] == client.blob(digest_of(b"content"))[0] == 404
    # Out of order.
    location = client.begin()
    assert client.send("PATCH", location, b"content", **{"Content-Range": "5-11"})[0] == 416
    # A manifest must have everything it names.
    media = "application/vnd.oci.image.manifest.v1+json"
    of = lambda kind, content: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(content), "size": len(content)}
    manifest = {"schemaVersion": 2, "mediaType": media, "config": of("config.v1+json", b"{}"), "layers": [of("layer.v1.tar", b"nowhere")]}
    put = lambda body, kind=media: client.send("PUT", f"/v2/{client.repository}/manifests/v1", body, **{"Content-Type": kind})
    answer = put(json.dumps(manifest).encode())
    assert errors(answer) == (400, ["MANIFEST_BLOB_UNKNOWN"]) and digest_of(b"nowhere") in answer[2].decode()
    for body in (b"{", b"[]", b'{"schemaVersion": 1}', b"\xff"):
        status, codes = errors(put(body))
        assert status == 400 and codes == ["MANIFEST_INVALID"], (body, codes)
    assert client.send("GET", f"/v2/{client.repository}/manifests/v1")[0] == 404
    assert platform.client("ecr").list_images(repositoryName=client.repository)["imageIds"] == []


def test_r93_a_port_taken_on_the_host_is_named(own_platform):
    platform = own_platform(hosts=True)
    elbv2 = platform.client("elbv2")
    subnets = default_network(platform)["awsvpcConfiguration"]["subnets"]
    made = elbv2.create_load_balancer(Name="taken", Subnets=subnets)["LoadBalancers"][0]
    group = made["SecurityGroups"][0]
    platform.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
    arn = made["LoadBalancerArn"]
    state = lambda: elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["State"]
    said = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "ContentType": "text/plain", "MessageBody": "here"}}
    with socket.socket() as taken:
        # Someone else has the port at every address of the host.
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        elbv2.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=port, DefaultActions=[said])
        eventually(lambda: state()["Code"] == "active_impaired")
        assert f":{port}" in state()["Reason"] and "already taken" in state()["Reason"], state()
    eventually(lambda: state() == {"Code": "active"})
    eventually(lambda: subprocess.run(["curl", "-sS", f"http://{made['DNSName']}:{port}/"], capture_output=True, text=True, timeout=10).stdout == "here")
