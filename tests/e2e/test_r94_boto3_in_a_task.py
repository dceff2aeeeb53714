"""r94: boto3 inside a Fargate task calls the platform as the task's role, with no configuration at all.

The image holds this machine's own Python and the environment's boto3: their files, at the paths they have here, with the
libraries that `ldd` names.
"""

import json
import pathlib
import re
import site
import subprocess
import sys
import sysconfig
import time
import uuid

import pytest

from conftest import ACCOUNT, Image, eventually, log_lines, logging, register, run_task, wait_for

# What boto3 needs and imports, and of botocore's data only what the script calls.
PACKAGES = ("boto3", "botocore", "jmespath", "dateutil", "urllib3", "s3transfer", "six.py")
SERVICES = ("sts", "ecs", "logs")
UNUSED = ("site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "__pycache__", "dist-packages")

SCRIPT = """
import json, os, sys

import boto3, botocore.exceptions
try:
    me = boto3.client("sts").get_caller_identity()
except botocore.exceptions.NoCredentialsError as error:
    print(json.dumps({"error": type(error).__name__}))
    sys.exit(4)
cluster = boto3.client("ecs").describe_clusters()["clusters"][0]["clusterName"]
logs = boto3.client("logs")
logs.put_log_events(logGroupName=os.environ["GROUP"], logStreamName="own", logEvents=[{"timestamp": int(os.environ["NOW"]), "message": "from boto3"}])
print(json.dumps({"arn": me["Arn"], "cluster": cluster, "region": boto3.session.Session().region_name}))
"""


def add(files, path, name=None):
    """A file of this machine, under its own path or another name."""
    path = pathlib.Path(path)
    files[(name or str(path)).lstrip("/")] = (path.read_bytes(), path.stat().st_mode & 0o755 | 0o444)


def libraries(programs):
    """The shared libraries that these programs are linked with, the dynamic loader included."""
    found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True).stdout
    return set(re.findall(r"(/\S+) \(0x", found))


def python_with_boto3():
    """Everything that `import boto3` needs here, as files of an image."""
    files = {}
    interpreter = pathlib.Path(sys.executable).resolve()
    stdlib = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in stdlib.rglob("*"):
        parts = path.relative_to(stdlib).parts
        if path.is_file() and not set(parts) & set(UNUSED) and not parts[0].startswith("config-"):
            add(files, path)
    add(files, interpreter)
    add(files, interpreter, "bin/python3")
    for library in libraries([interpreter, *stdlib.glob("lib-dynload/*.so")]):
        add(files, library)
    packages = pathlib.Path(site.getsitepackages()[0])
    for package in PACKAGES:
        found = packages / package
        for path in found.rglob("*") if found.is_dir() else [found]:
            parts = path.relative_to(packages).parts
            data = parts[:2] == ("botocore", "data") and len(parts) > 3 and parts[2] not in SERVICES
            if path.is_file() and not data and "__pycache__" not in parts:
                add(files, path, f"site/{path.relative_to(packages)}")
    files["script.py"] = (SCRIPT.encode(), 0o644)
    files["tmp/.keep"] = (b"", 0o644)
    return files


@pytest.fixture(scope="module")
def python_image(platform):
    environment = ["PATH=/bin", "PYTHONPATH=/site", f"PYTHONHOME={sys.base_prefix}", "PYTHONDONTWRITEBYTECODE=1"]
    config = {"Env": environment, "Entrypoint": ["/bin/python3", "/script.py"]}
    return Image(platform, "python-boto3", files=python_with_boto3(), config=config).uri


def run(platform, image, group, **definition):
    """Runs the script; gives its task, its exit code and what it printed."""
    now = str(int(time.time() * 1000))
    environment = [{"name": "GROUP", "value": group}, {"name": "NOW", "value": now}]
    container = {"name": "main", "image": image, "environment": environment, "logConfiguration": logging(group)}
    arn = run_task(platform, register(platform, f"boto3-{uuid.uuid4().hex[:8]}", container, cpu="1024", memory="2048", **definition))
    ended = wait_for(platform, arn, "STOPPED", timeout=120)
    lines = eventually(lambda: log_lines(platform, group, f"test/main/{arn.rsplit('/', 1)[1]}"), 10)
    return arn, ended["containers"][0].get("exitCode"), lines


@pytest.fixture
def group(platform):
    name = f"/boto3/{uuid.uuid4().hex[:8]}"
    logs = platform.client("logs")
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="own")
    yield name
    logs.delete_log_group(logGroupName=name)


def test_r94_boto3_in_a_task_is_the_tasks_role(platform, python_image, group):
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}], "Version": "2012-10-17"}
    role = f"boto3-{uuid.uuid4().hex[:8]}"
    iam = platform.client("iam")
    role_arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    arn, code, lines = run(platform, python_image, group, taskRoleArn=role_arn)
    assert code == 0, lines
    assert json.loads(lines[-1]) == {
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{arn.rsplit('/', 1)[1]}",
        "cluster": "default",
        "region": "us-east-1",
    }
    assert log_lines(platform, group, "own") == ["from boto3"]
    iam.delete_role(RoleName=role)


def test_r94_boto3_in_a_task_without_a_role_has_no_credentials(platform, python_image, group):
    # Not the execution role's, nor those of the host or of another task.
    _, code, lines = run(platform, python_image, group)
    assert (code, json.loads(lines[-1])) == (4, {"error": "NoCredentialsError"}), lines
