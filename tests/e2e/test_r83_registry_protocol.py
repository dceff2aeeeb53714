"""The OCI distribution protocol as clients speak it to the running registry: asking, ranges, mounts, lists, referrers,
deletions, and how long a login lasts."""

import datetime
import json
import uuid

import pytest

from conftest import eventually
from test_r83_registry_durability import Client, digest_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def client(platform):
    return Client(platform, f"protocol/{uuid.uuid4().hex[:8]}")


def push(client, content):
    status, headers, _ = client.send("POST", f"/v2/{client.repository}/blobs/uploads/?digest={digest_of(content)}", content)
    assert status == 201 and headers["Docker-Content-Digest"] == digest_of(content)
    return {"digest": digest_of(content), "size": len(content)}


def put(client, reference, **more):
    """Puts an image of one layer; gives its digest."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **push(client, b"{}")},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **push(client, b"layer")}],
        **more,
    }
    body = json.dumps(manifest).encode()
    status, headers, text = client.send("PUT", f"/v2/{client.repository}/manifests/{reference or digest_of(body)}", body, **{"Content-Type": MANIFEST})
    assert status == 201, text
    assert headers["Docker-Content-Digest"] == digest_of(body)
    return digest_of(body), headers


def test_r83_blobs_are_asked_for_and_read_in_parts(client):
    content = bytes(range(256)) * 1000
    push(client, content)
    path = f"/v2/{client.repository}/blobs/{digest_of(content)}"
    status, headers, body = client.send("HEAD", path)
    assert (status, headers["Content-Length"], headers["Docker-Content-Digest"], body) == (200, "256000", digest_of(content), b"")
    status, headers, body = client.send("GET", path, Range="bytes=1000-1999")
    assert (status, headers["Content-Range"], body) == (206, "bytes 1000-1999/256000", content[1000:2000])
    assert client.send("GET", path, Range="bytes=255990-")[2] == content[-10:]
    assert client.send("GET", path, Range="bytes=256000-")[0] == 416
    assert client.send("HEAD", f"/v2/{client.repository}/blobs/{digest_of(b'none')}")[0] == 404


def test_r83_a_layer_is_mounted_from_another_repository(platform, client):
    other = Client(platform, f"{client.repository}-other")
    push(client, b"shared")
    digest = digest_of(b"shared")
    assert other.blob(digest)[0] == 404
    status, headers, _ = other.send("POST", f"/v2/{other.repository}/blobs/uploads/?mount={digest}&from={client.repository}")
    assert status == 201 and headers["Location"].endswith(f"/v2/{other.repository}/blobs/{digest}")
    assert other.blob(digest)[2] == b"shared"
    # What is not there is to be uploaded.
    assert other.send("POST", f"/v2/{other.repository}/blobs/uploads/?mount={digest_of(b'x')}&from={client.repository}")[0] == 202


def test_r83_tags_are_listed_in_pages_and_images_deleted(client):
    digests = {tag: put(client, tag, annotations={"of": tag})[0] for tag in ("a", "b", "c")}
    tags = f"/v2/{client.repository}/tags/list"
    assert json.loads(client.send("GET", tags)[2]) == {"name": client.repository, "tags": ["a", "b", "c"]}
    _, headers, body = client.send("GET", f"{tags}?n=2")
    assert json.loads(body)["tags"] == ["a", "b"]
    following = headers["Link"].split(">")[0].lstrip("<")
    assert json.loads(client.send("GET", following)[2])["tags"] == ["c"]
    status, headers, body = client.send("GET", f"/v2/{client.repository}/manifests/a", Accept=MANIFEST)
    assert (status, headers["Content-Type"], digest_of(body)) == (200, MANIFEST, digests["a"])
    assert client.send("HEAD", f"/v2/{client.repository}/manifests/{digests['a']}")[0] == 200
    assert client.send("DELETE", f"/v2/{client.repository}/manifests/{digests['a']}")[0] == 202
    assert client.send("HEAD", f"/v2/{client.repository}/manifests/a")[0] == 404
    assert json.loads(client.send("GET", tags)[2])["tags"] == ["b", "c"]
    # An upload that was begun can be given up.
    location = client.begin()
    assert client.send("PATCH", location, b"half")[0] == 202
    assert client.send("DELETE", location)[0] == 204
    assert client.send("GET", location)[0] == 404


def test_r83_referrers_point_at_their_subject(client):
    subject, _ = put(client, "app")
    about = {"mediaType": MANIFEST, "digest": subject, "size": 1}
    signature, headers = put(client, None, subject=about, artifactType="application/signature")
    assert headers["OCI-Subject"] == subject
    put(client, None, subject=about, artifactType="application/sbom")
    referrers = lambda query="": json.loads(client.send("GET", f"/v2/{client.repository}/referrers/{subject}{query}")[2])
    assert {one["artifactType"] for one in referrers()["manifests"]} == {"application/signature", "application/sbom"}
    found = referrers("?artifactType=application/signature")["manifests"]
    assert [one["digest"] for one in found] == [signature]


def test_r82_a_login_lasts_twelve_hours(platform, own_platform):
    until = platform.client("ecr").get_authorization_token()["authorizationData"][0]["expiresAt"]
    left = (until - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert 12 * 3600 - 60 < left <= 12 * 3600
    # A fast clock: half a day is over in seconds.
    platform = own_platform("--clock-rate", "10000")
    client = Client(platform, "demo")
    assert client.send("GET", "/v2/")[0] == 200
    status, _, body = eventually(lambda: [answer for answer in [client.send("GET", "/v2/")] if answer[0] != 200], timeout=20)[0]
    assert status in (401, 403) and "Your authorization token has expired. Reauthenticate and try again." in body.decode(), body
