"""r90: images of any OCI registry, pulled through the task's own network: with a public address or a NAT gateway, not
without; by a mirror where the operator names one.

The world outside is a network namespace beyond the host: a real registry there (Debian's docker-registry) under the names
of well-known ones, with a certificate authority that the operator trusts, and a resolver that knows those names.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid

import pytest

from conftest import LONGSHORE, Platform, busybox, default_network, eventually, layer_of, wait_for

# A block for documentation (RFC 5737): nobody is there.
HERE, REGISTRY, RESOLVER = "198.51.100.1", "198.51.100.10", "198.51.100.53"
NAMES = ("public.ecr.aws", "ghcr.io", "registry-1.docker.io")

# Answers every question for an address with the registry's, and says that other records do not exist.
DNS = """
import socket, sys
address = socket.inet_aton(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], 53))
    while True:
        query, asker = server.recvfrom(4096)
        end = query.index(0, 12) + 5
        found = query[end - 4 : end - 2] == b"\\0\\1"
        answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + address if found else b""
        head = query[:2] + b"\\x81\\x80" + b"\\0\\1" + (b"\\0\\1" if found else b"\\0\\0") + b"\\0\\0\\0\\0"
        server.sendto(head + query[12:end] + answer, asker)
"""


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class World:
    """A network beyond the host, with registries and a resolver in it."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="longshore-world-")
        self.name = f"lsw{uuid.uuid4().hex[:6]}"
        self.processes = []
        try:
            self.build()
        except BaseException:
            self.remove()
            raise

    def build(self):
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "address", "add", f"{HERE}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        inside = ("ip", "-n", self.name)
        for address in (REGISTRY, RESOLVER):
            run(*inside, "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run(*inside, "link", "set", link, "up")
        self.certificates()
        self.registry("secure", f"{REGISTRY}:443", {"certificate": self.at("server.pem"), "key": self.at("server.key")})
        self.registry("mirror", f"{REGISTRY}:5000")
        self.start(sys.executable, "-c", DNS, RESOLVER, REGISTRY)
        pathlib.Path(self.at("resolv.conf")).write_text(f"nameserver {RESOLVER}\n")
        for port in (443, 5000):
            eventually(lambda: socket.create_connection((REGISTRY, port), timeout=1).close() is None)

    def at(self, name):
        return os.path.join(self.directory, name)

    def start(self, *command):
        log = open(self.at("log"), "ab")
        self.processes.append(subprocess.Popen(["ip", "netns", "exec", self.name, *command], stdout=log, stderr=log))

    def certificates(self):
        """An authority, and a certificate of it for all names."""
        new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        run(*new, "-subj", "/CN=world", "-keyout", self.at("ca.key"), "-out", self.at("ca.pem"))
        names = ",".join([*(f"DNS:{name}" for name in NAMES), f"IP:{REGISTRY}"])
        signed = ("-CA", self.at("ca.pem"), "-CAkey", self.at("ca.key"), "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE")
        run(*new, "-subj", "/CN=registry", *signed, "-keyout", self.at("server.key"), "-out", self.at("server.pem"))

    def registry(self, name, address, tls=None):
        configuration = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": self.at(name)}}, "http": {"addr": address, **({"tls": tls} if tls else {})}}
        # What is JSON is YAML.
        pathlib.Path(self.at(f"{name}.yml")).write_text(json.dumps(configuration))
        self.start("docker-registry", "serve", self.at(f"{name}.yml"))

    def push(self, reference, word):
        """An image that says a word, pushed by skopeo from a directory in OCI's layout."""
        digest = lambda content: hashlib.sha256(content).hexdigest()
        layout = pathlib.Path(self.at(f"layout-{uuid.uuid4().hex}"))
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def blob(content, kind):
            (blobs / digest(content)).write_bytes(content)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest(content)}", "size": len(content)}

        raw, packed = layer_of({**busybox(), "word": (word.encode(), 0o644)})
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["grep", "-q", word, "/word"]}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(raw)}"]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [blob(packed, "layer.v1.tar+gzip")],
        }
        index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
        (layout / "index.json").write_text(json.dumps(index))
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{reference}")

    def remove(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(timeout=20)
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        subprocess.run(["ip", "link", "delete", self.name], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def world():
    world = World()
    try:
        for name in ("team/app", "library/app"):
            world.push(f"{REGISTRY}:443/{name}:v1", "secure")
        world.push(f"{REGISTRY}:5000/library/app:v1", "mirror")
        yield world
    finally:
        world.remove()


@pytest.fixture(scope="module")
def outside(world):
    """Makes platforms whose host asks the world's resolver and trusts its authority, by a path from where they are
    started. The file of the resolver is theirs alone: a mount namespace of their own has it."""
    made = []

    def make(*options):
        mounted = f"mount --bind {world.at('resolv.conf')} /etc/resolv.conf && cd {world.at('.')} && exec \"$@\""
        prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh")
        platform = Platform(*options, prefix=prefix, environment={"SSL_CERT_FILE": "ca.pem"})
        made.append(platform)
        return platform.start()

    yield make
    for platform in made:
        platform.purge()


@pytest.fixture(scope="module")
def platform(outside):
    platform = outside("--registry-mirror", f"docker.io=http://{REGISTRY}:5000")
    platform.client("ecs").create_cluster()
    yield platform
    assert platform.stop() == 0, platform.log()[-4000:]


def begin(platform, image, network, **container):
    """Runs an image in a network; gives the task's ARN."""
    ecs = platform.client("ecs")
    family = f"outside-{uuid.uuid4().hex[:8]}"
    # Neither an execution role nor anything else is needed for a public image.
    definition = {"family": family, "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512"}
    ecs.register_task_definition(**definition, containerDefinitions=[{"name": "main", "image": image, **container}])
    answer = ecs.run_task(taskDefinition=family, launchType="FARGATE", networkConfiguration=network)
    assert answer["failures"] == [], answer
    return answer["tasks"][0]["taskArn"]


def ended(platform, arn):
    """A task's exit code, or why it did not start."""
    task = wait_for(platform, arn, "STOPPED", timeout=90)
    return task["containers"][0].get("exitCode", task.get("stoppedReason"))


def test_r90_an_image_of_another_registry_needs_a_way_out(platform):
    public, private = default_network(platform, public="ENABLED"), default_network(platform)
    # By its address there is nothing to look up: the connection itself goes nowhere. Begun first, since it takes five tries.
    by_address = begin(platform, f"{REGISTRY}:443/team/app:v1", private)
    for image in ("public.ecr.aws/team/app:v1", "ghcr.io/team/app:v1"):
        assert ended(platform, begin(platform, image, public, command=["grep", "-q", "secure", "/word"])) == 0
    head = "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref "
    assert ended(platform, begin(platform, "public.ecr.aws/team/app:v1", private)) == (
        head + 'public.ecr.aws/team/app:v1: failed to do request: Head "https://public.ecr.aws/v2/team/app/manifests/v1": '
        "dial tcp: lookup public.ecr.aws: i/o timeout"
    )
    assert ended(platform, begin(platform, "public.ecr.aws/team/app:none", public)) == (
        head.replace("5 time", "1 time") + "public.ecr.aws/team/app:none: public.ecr.aws/team/app:none: not found"
    )
    assert ended(platform, by_address) == (
        head + f'{REGISTRY}:443/team/app:v1: failed to do request: Head "https://{REGISTRY}:443/v2/team/app/manifests/v1": '
        f"dial tcp {REGISTRY}:443: i/o timeout"
    )


def test_r90_a_nat_gateway_is_a_way_out(platform):
    ec2 = platform.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]
    public = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    private = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="172.31.200.0/24")["Subnet"]["SubnetId"]
    network = {"awsvpcConfiguration": {"subnets": [private], "assignPublicIp": "DISABLED"}}
    allocation = ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = ec2.create_nat_gateway(SubnetId=public, AllocationId=allocation)["NatGateway"]["NatGatewayId"]
    table = ec2.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=private)
    image = "ghcr.io/team/app:v1"
    assert "i/o timeout" in ended(platform, begin(platform, image, network))
    eventually(lambda: ec2.describe_nat_gateways(NatGatewayIds=[gateway])["NatGateways"][0]["State"] == "available")
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway)
    assert ended(platform, begin(platform, image, network, command=["grep", "-q", "secure", "/word"])) == 0


def test_r90_a_mirror_stands_for_its_registry(platform):
    # The operator's mirror is asked by the host itself, as ECR is: the task needs no way out for it.
    private = default_network(platform)
    for image in ("app:v1", "docker.io/library/app:v1"):
        assert ended(platform, begin(platform, image, private, command=["grep", "-q", "mirror", "/word"])) == 0
    missing = ended(platform, begin(platform, "nothing:v1", private))
    assert missing.startswith("CannotPullContainerError: ") and missing.endswith("docker.io/library/nothing:v1: not found"), missing


def test_r90_without_a_mirror_docker_hub_is_asked(outside):
    platform = outside()
    platform.client("ecs").create_cluster()
    public = default_network(platform, public="ENABLED")
    assert ended(platform, begin(platform, "app:v1", public, command=["grep", "-q", "secure", "/word"])) == 0
    assert platform.stop() == 0, platform.log()[-4000:]


def test_a_mistaken_mirror_is_refused(tmp_path):
    command = [LONGSHORE, "up", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--registry-mirror", "docker.io"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "--registry-mirror docker.io: write REGISTRY=URL" in done.stderr
