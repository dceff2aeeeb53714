"""Real container engines against the registry: Docker Engine, podman and skopeo, and both of Amazon's logins."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

import pytest

from conftest import Platform, eventually
from docker_engine import Docker


@pytest.fixture(scope="module")
def named():
    """A platform whose registry's names resolve on this host."""
    platform = Platform(hosts=True)
    try:
        platform.start()
        # The names come to /etc/hosts a moment after the API is ready.
        eventually(lambda: socket.gethostbyname(platform.registry("eu-west-1").split(":")[0]))
        yield platform
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture(scope="module")
def docker():
    docker = Docker()
    try:
        yield docker
    finally:
        docker.stop()


def shell(platform, docker, command, region="us-east-1"):
    """Runs a line of shell as a user would write it."""
    environment = {**platform.env(region), **docker.environment}
    done = subprocess.run(["bash", "-c", f"set -eo pipefail; {command}"], env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def make(platform, name, region="us-east-1"):
    ecr = platform.client("ecr", region)
    try:
        ecr.create_repository(repositoryName=name)
    except ecr.exceptions.RepositoryAlreadyExistsException:
        pass
    return f"{platform.registry(region)}/{name}"


def password(platform, region="us-east-1"):
    return platform.aws("ecr", "get-login-password", region=region).strip()


def test_r81_the_first_command_lines_login_works_as_written(named, docker):
    code, output = shell(named, docker, "$(aws ecr get-login --no-include-email --region eu-west-1)")
    assert code == 0 and "Login Succeeded" in output, output
    uri = make(named, "login-one", "eu-west-1")
    docker.build(f"{uri}:v1", 1000)
    docker.run("push", f"{uri}:v1")


@pytest.mark.parametrize("aws", ["aws", "/usr/bin/aws --endpoint-url $AWS_ENDPOINT_URL"], ids=["v1", "v2"])
def test_r82_the_second_command_lines_login_works_as_written(named, docker, aws):
    host = named.registry("eu-west-1")
    command = f"{aws} ecr get-login-password --region eu-west-1 | docker login --username AWS --password-stdin {host}"
    code, output = shell(named, docker, command)
    assert code == 0 and "Login Succeeded" in output, output
    code, output = shell(named, docker, f"echo wrong | docker login --username AWS --password-stdin {host}")
    assert code != 0 and "401 Unauthorized" in output, output


def test_r83_docker_pushes_and_pulls(named, docker):
    uri = make(named, "team/docker")
    docker.run("login", "--username", "AWS", "--password-stdin", named.registry(), input=password(named))
    image = docker.build(f"{uri}:v1", 30_000_000)
    docker.run("push", f"{uri}:v1")
    assert "Layer already exists" in docker.run("push", f"{uri}:v1").stdout
    # What one repository has, another one gets without its bytes being sent again.
    other = make(named, "team/mounted")
    docker.run("tag", f"{uri}:v1", f"{other}:v1")
    assert "Mounted from team/docker" in docker.run("push", f"{other}:v1").stdout
    docker.run("rmi", f"{other}:v1")
    docker.run("rmi", f"{uri}:v1")
    docker.run("pull", f"{uri}:v1")
    assert docker.run("images", "--quiet", "--no-trunc", f"{uri}:v1").stdout.strip() == image

    refused = docker.run("pull", f"{uri}:none", check=False)
    assert "manifest unknown: Requested image not found" in refused.stderr
    missing = f"{named.registry()}/nowhere:v1"
    docker.run("tag", f"{uri}:v1", missing)
    refused = docker.run("push", missing, check=False)
    assert "name unknown: The repository with name 'nowhere' does not exist in the registry" in refused.stderr + refused.stdout

    named.client("ecr").put_image_tag_mutability(repositoryName="team/docker", imageTagMutability="IMMUTABLE")
    docker.build(f"{uri}:v1", 1000)
    refused = docker.run("push", f"{uri}:v1", check=False)
    assert "tag invalid: The image tag 'v1' already exists in the 'team/docker' repository" in refused.stderr + refused.stdout
    docker.run("logout", named.registry())
    assert "no basic auth credentials" in docker.run("pull", f"{uri}:v1", check=False).stderr


def test_r83_skopeo_copies_between_repositories(named, docker):
    source, target = make(named, "skopeo/source"), make(named, "skopeo/target")
    docker.run("login", "--username", "AWS", "--password-stdin", named.registry(), input=password(named))
    docker.build(f"{source}:v1", 100_000)
    docker.run("push", f"{source}:v1")
    credentials = f"AWS:{password(named)}"

    def skopeo(*arguments):
        done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    both = ["--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", credentials, "--dest-creds", credentials]
    skopeo("copy", *both, f"docker://{source}:v1", f"docker://{target}:v2")
    skopeo("copy", *both, "--format", "oci", f"docker://{source}:v1", f"docker://{target}:oci")
    one = ["--tls-verify=false", "--creds", credentials]
    assert json.loads(skopeo("list-tags", *one, f"docker://{target}"))["Tags"] == ["oci", "v2"]
    digests = [json.loads(skopeo("inspect", *one, f"docker://{image}"))["Digest"] for image in (f"{source}:v1", f"{target}:v2")]
    assert digests[0] == digests[1]
    skopeo("delete", *one, f"docker://{target}:oci")
    assert json.loads(skopeo("list-tags", *one, f"docker://{target}"))["Tags"] == ["v2"]


@pytest.fixture
def podman():
    """Runs podman with a storage of its own, which must have a short path."""
    directory = tempfile.mkdtemp(prefix="ls-pod-")
    at = lambda name: os.path.join(directory, name)
    environment = {**os.environ, "REGISTRY_AUTH_FILE": at("auth.json")}

    def run(*arguments, **more):
        command = ["podman", "--root", at("root"), "--runroot", at("run"), "--storage-driver", "vfs", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    for mounted in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        point = mounted.split()[1]
        if point.startswith(directory):
            subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def test_r83_podman_pushes_and_pulls(named, docker, podman):
    uri = make(named, "team/podman")
    docker.run("login", "--username", "AWS", "--password-stdin", named.registry(), input=password(named))
    docker.build(f"{uri}:v1", 100_000)
    docker.run("push", f"{uri}:v1")
    podman("login", "--tls-verify=false", "--username", "AWS", "--password-stdin", named.registry(), input=password(named))
    podman("pull", "--tls-verify=false", f"{uri}:v1")
    podman("tag", f"{uri}:v1", f"{uri}:v2")
    podman("push", "--tls-verify=false", f"{uri}:v2")
    tags = {image.get("imageTag") for image in named.client("ecr").list_images(repositoryName="team/podman")["imageIds"]}
    assert {"v1", "v2"} <= tags
