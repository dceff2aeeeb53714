"""What the end-to-end tests share: a platform of their own, and the tools that talk to it.

Tests see the platform only from outside: its command line, the AWS CLI, boto3, docker, podman, skopeo, curl. Names of
tests carry the row of the requirements that they show (`test_r83_…`).
"""

import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import boto3
import botocore.config
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGSHORE = os.environ.get("LONGSHORE", str(ROOT / "target/release/longshore"))
ACCOUNT = "123456789012"


# Below what the kernel gives out by itself, so that nobody has a port between being found free and being used; each
# process of tests begins somewhere else.
PORTS = itertools.cycle(random.sample(range(10_000, 30_000), 20_000))


def free_port():
    """A port of loopback that nobody uses."""
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def eventually(check, timeout=60, interval=0.1):
    """Calls `check` until it gives something true, and gives that; its last exception or value when time is up."""
    end = time.monotonic() + timeout
    while True:
        try:
            value, error = check(), None
        except Exception as raised:  # The last one is shown when time is up.
            value, error = None, raised
        if value:
            return value
        if time.monotonic() > end:
            if error:
                raise error
            raise AssertionError(f"still {value!r} after {timeout} s: {check}")
        time.sleep(interval)


class Platform:
    """A running `longshore up` with a data directory and a port of its own."""

    def __init__(self, *options, directory=None, port=None, environment=None, hosts=False, listen="127.0.0.1", prefix=()):
        self.directory = directory or tempfile.mkdtemp(prefix="longshore-e2e-")
        self.data = os.path.join(self.directory, "data")
        self.port = port or free_port()
        # Load balancers' names resolve on this host only with the block in /etc/hosts.
        self.options = options if hosts else ("--no-hosts", *options)
        self.environment = environment or {}
        self.log_path = os.path.join(self.directory, "log")
        self.process = None
        # A command that runs the platform's, such as `unshare`.
        self.prefix = prefix
        self.listen = f"{listen}:{self.port}"
        self.endpoint = f"http://{self.listen}" if listen.startswith("127.") else f"https://{self.listen}"

    def start(self):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [*self.prefix, LONGSHORE, "up", "--data-dir", self.data, "--listen", self.listen, *self.options],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            text=True,
            start_new_session=True,
        )
        line = self.process.stdout.readline()
        assert line == f"ready {self.endpoint}\n", f"{line!r}\n{self.log()[-4000:]}"
        return self

    def log(self):
        return pathlib.Path(self.log_path).read_text(errors="replace")

    def stop(self):
        """A clean stop, as Ctrl-C does; gives the exit code."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self):
        """As a crash: nothing gets a chance to clean up."""
        self.process.kill()
        self.process.wait()

    def purge(self):
        """Leaves nothing, whatever happened before."""
        subprocess.run([LONGSHORE, "down", "--data-dir", self.data, "--purge"], check=True, capture_output=True, timeout=120)
        shutil.rmtree(self.directory, ignore_errors=True)

    def child(self, role):
        """The pid of one of the platform's processes: `server`, `host` or `agent`."""
        import json

        return json.loads(pathlib.Path(self.data, "run", f"{role}.pid").read_text())["pid"]

    @property
    def keys(self):
        text = pathlib.Path(self.data, "credentials").read_text()
        pairs = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
        return pairs["aws_access_key_id"], pairs["aws_secret_access_key"]

    def client(self, service, region="us-east-1", **arguments):
        """A boto3 client; signed with the root key unless told otherwise."""
        key, secret = self.keys
        credentials = {"aws_access_key_id": key, "aws_secret_access_key": secret, **arguments}
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            # What the SDK would refuse by itself is the platform's to refuse.
            config=botocore.config.Config(retries={"max_attempts": 0}, parameter_validation=False),
            **credentials,
        )

    def env(self, region="us-east-1", **more):
        """The environment that `longshore env` prints."""
        key, secret = self.keys
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": region,
            "AWS_PAGER": "",
            "PATH": f"{pathlib.Path(os.sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            **more,
        }

    def aws(self, *arguments, region="us-east-1", check=True, **more):
        """Runs the AWS CLI; gives what it prints."""
        done = subprocess.run(["aws", *arguments], env=self.env(region), capture_output=True, text=True, timeout=300, **more)
        if check:
            assert done.returncode == 0, f"aws {' '.join(arguments)}: {done.stderr}"
            return done.stdout
        return done

    def registry(self, region="us-east-1"):
        """The registry's name for `docker push`."""
        return f"{ACCOUNT}.dkr.ecr.{region}.localhost:{self.port}"


@pytest.fixture(scope="session")
def platform():
    """One platform for all tests that leave it as they found it."""
    platform = Platform()
    try:
        yield platform.start()
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture
def own_platform():
    """Makes platforms that belong to one test: to be killed, restarted or filled. Gone at its end."""
    made = []

    def make(*options, **arguments):
        platform = Platform(*options, **arguments)
        made.append(platform)
        return platform.start()

    yield make
    for platform in made:
        platform.purge()


def layer_of(files):
    """A gzipped tar of `{path: (bytes, mode)}`, the same for the same files."""
    import gzip
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue(), gzip.compress(raw.getvalue(), 1, mtime=0)


class Image:
    """Pushes an image made of files, or of a layer or several as (tar, packed tar), through the registry's HTTP API, so that a test
    needs no docker for it."""

    def __init__(self, platform, repository, tag="latest", files=None, config=None, region="us-east-1", layer=None, layers=None, architecture="amd64"):
        import base64
        import hashlib
        import json
        import urllib.request

        ecr = platform.client("ecr", region)
        try:
            ecr.create_repository(repositoryName=repository)
        except ecr.exceptions.RepositoryAlreadyExistsException:
            pass
        token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        assert base64.b64decode(token).startswith(b"AWS:")
        digest = lambda content: "sha256:" + hashlib.sha256(content).hexdigest()
        layers = layers or [layer or layer_of(files or busybox())]
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], **(config or {})},
                "rootfs": {"type": "layers", "diff_ids": [digest(raw) for raw, _ in layers]},
            }
        ).encode()

        def send(method, path, body=b"", content_type="application/octet-stream"):
            request = urllib.request.Request(
                path if path.startswith("http") else f"{platform.endpoint}{path}",
                data=body,
                method=method,
                headers={
                    "Authorization": f"Basic {token}",
                    "Content-Type": content_type,
                    "Host": f"{ACCOUNT}.dkr.ecr.{region}.localhost:{platform.port}",
                },
            )
            return urllib.request.urlopen(request)

        for blob in (*(packed for _, packed in layers), config):
            location = send("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
            path = location[location.index("/v2/") :]
            send("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest(blob)}", blob)
        media = "application/vnd.oci.image."
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media + "manifest.v1+json",
                "config": {"mediaType": media + "config.v1+json", "digest": digest(config), "size": len(config)},
                "layers": [{"mediaType": media + "layer.v1.tar+gzip", "digest": digest(packed), "size": len(packed)} for _, packed in layers],
            }
        ).encode()
        send("PUT", f"/v2/{repository}/manifests/{tag}", manifest, media + "manifest.v1+json")
        self.digest = digest(manifest)
        self.uri = f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com/{repository}:{tag}"


def busybox():
    """The files of a tiny image: Debian's static busybox under the names that tests use."""
    program = pathlib.Path("/bin/busybox").read_bytes()
    files = {"bin/busybox": (program, 0o755)}
    applets = ("sh", "cat", "echo", "sleep", "true", "false", "id", "ls", "env", "wget", "nc", "httpd", "dd", "kill", "ps", "hostname", "ip", "seq", "touch", "test", "mount", "head", "grep", "yes", "date", "nslookup", "ping", "awk", "usleep", "trap")
    for applet in applets:
        files[f"bin/{applet}"] = (f"#!/bin/busybox sh\nexec /bin/busybox {applet} \"$@\"\n".encode(), 0o755)
    # A shell that is not itself a script of a shell.
    files["bin/sh"] = (program, 0o755)
    files["etc/passwd"] = (b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n", 0o644)
    files["etc/group"] = (b"root:x:0:\napp:x:1000:\n", 0o644)
    files["tmp/.keep"] = (b"", 0o644)
    return files


@pytest.fixture(scope="session")
def image(platform):
    """An image with busybox in the shared platform's registry: its name for a task definition."""
    return Image(platform, "busybox").uri


def default_network(platform, region="us-east-1", public="DISABLED"):
    """awsvpcConfiguration in the default VPC."""
    subnets = platform.client("ec2", region).describe_subnets()["Subnets"]
    return {"awsvpcConfiguration": {"subnets": [subnet["SubnetId"] for subnet in subnets], "assignPublicIp": public}}


EXECUTION_ROLE = f"arn:aws:iam::{ACCOUNT}:role/ecsTaskExecutionRole"


def register(platform, family, *containers, region="us-east-1", **more):
    """Registers a Fargate task definition of these containers; gives its ARN."""
    definition = {
        "family": family,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": EXECUTION_ROLE,
        "containerDefinitions": list(containers),
        **more,
    }
    return platform.client("ecs", region).register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]


def logging(group, region="us-east-1", prefix="test", **options):
    """A container's awslogs configuration."""
    options = {"awslogs-group": group, "awslogs-region": region, "awslogs-stream-prefix": prefix, **options}
    return {"logDriver": "awslogs", "options": options}


def register_instance(ecs, cluster, zone, kind, **more):
    """Registers a container instance as an agent does; gives its ARN."""
    attributes = {"ecs.availability-zone": zone, "ecs.instance-type": kind, **more}
    answer = ecs.register_container_instance(
        cluster=cluster,
        totalResources=[{"name": name, "type": "INTEGER", "integerValue": 2048} for name in ("CPU", "MEMORY")],
        attributes=[{"name": name, **({"value": value} if value else {})} for name, value in attributes.items()],
    )
    return answer["containerInstance"]["containerInstanceArn"]


def run_task(platform, definition, cluster="default", region="us-east-1", public="DISABLED", **more):
    """Runs one Fargate task; gives its ARN."""
    ecs = platform.client("ecs", region)
    ecs.create_cluster(clusterName=cluster)
    network = default_network(platform, region, public)
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, launchType="FARGATE", networkConfiguration=network, **more)
    assert answer["failures"] == [], answer
    return answer["tasks"][0]["taskArn"]


def task(platform, arn, cluster="default", region="us-east-1"):
    """The task as DescribeTasks shows it."""
    return platform.client("ecs", region).describe_tasks(cluster=cluster, tasks=[arn])["tasks"][0]


def wait_for(platform, arn, status, cluster="default", region="us-east-1", timeout=60):
    """Waits until a task has a status; gives the task."""

    def reached():
        found = task(platform, arn, cluster, region)
        if found["lastStatus"] == "STOPPED" and status != "STOPPED":
            raise AssertionError(f"the task stopped: {found.get('stoppedReason')} {[(c.get('reason'), c.get('exitCode')) for c in found['containers']]}")
        return found if found["lastStatus"] == status else None

    return eventually(reached, timeout)


def log_lines(platform, group, stream, region="us-east-1"):
    """All messages of a log stream, in order."""
    logs = platform.client("logs", region)
    lines, token = [], None
    while True:
        more = {"nextToken": token} if token else {}
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **more)
        lines += [event["message"] for event in page["events"]]
        if page["nextForwardToken"] == token:
            return lines
        token = page["nextForwardToken"]
