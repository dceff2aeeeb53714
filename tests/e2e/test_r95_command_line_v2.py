"""Amazon's second command line (Debian's package, by its path) against the platform: it follows logs, waits for tasks and
services. Its version does not know AWS_ENDPOINT_URL yet, so that the address is an option."""

import contextlib
import queue
import re
import subprocess
import threading
import uuid

import pytest

from conftest import default_network, logging, register, run_task, wait_for

AWS = "/usr/bin/aws"


def command(platform, *arguments):
    return [AWS, "--endpoint-url", platform.endpoint, *arguments]


def aws(platform, *arguments):
    """Runs it; gives what it prints."""
    done = subprocess.run(command(platform, *arguments), env=platform.env(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"aws {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def following(platform, *arguments):
    """Runs it in the background; gives a queue of the lines that it prints."""
    process = subprocess.Popen(command(platform, *arguments), env={**platform.env(), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line.rstrip("\n"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()
        thread.join()
        process.stdout.close()


@pytest.fixture(scope="module", autouse=True)
def stable(platform, image):
    """A service that has just been made, and the command that waits for it: it looks every fifteen seconds."""
    name = f"v2-{uuid.uuid4().hex[:6]}"
    register(platform, name, {"name": "app", "image": image, "command": ["sleep", "600"], "stopTimeout": 2})
    subnets = default_network(platform)["awsvpcConfiguration"]["subnets"]
    network = f"awsvpcConfiguration={{subnets=[{','.join(subnets)}],assignPublicIp=ENABLED}}"
    aws(platform, "ecs", "create-cluster")
    aws(platform, "ecs", "create-service", "--service-name", name, "--task-definition", name, "--desired-count", "2", "--launch-type", "FARGATE", "--network-configuration", network)
    waiting = subprocess.Popen(command(platform, "ecs", "wait", "services-stable", "--services", name), env=platform.env())
    yield name, waiting
    waiting.kill()
    waiting.wait()
    aws(platform, "ecs", "delete-service", "--service", name, "--force")


@pytest.fixture
def group(platform):
    name = f"/v2/{uuid.uuid4().hex[:8]}"
    platform.client("logs").create_log_group(logGroupName=name)
    yield name
    platform.client("logs").delete_log_group(logGroupName=name)


def test_r95_logs_tail_follows_a_running_task(platform, image, group):
    assert aws(platform, "--version").startswith("aws-cli/2.")
    script = "trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.3; done"
    container = {"name": "app", "image": image, "command": ["sh", "-c", script], "logConfiguration": logging(group)}
    arn = run_task(platform, register(platform, f"tail-{uuid.uuid4().hex[:6]}", container))
    stream = f"test/app/{arn.rsplit('/', 1)[1]}"
    aws(platform, "ecs", "wait", "tasks-running", "--tasks", arn)
    assert wait_for(platform, arn, "RUNNING")
    with following(platform, "logs", "tail", group, "--follow") as lines:
        seen = []
        # It looks every five seconds: what comes with its second look was written while it followed.
        while len(seen) < 25:
            line = lines.get(timeout=30)
            found = re.fullmatch(rf"(?:\x1b\[\d+m)?\d{{4}}-\d\d-\d\dT[\d:.]+\+00:00(?:\x1b\[0m)? (?:\x1b\[\d+m)?{stream}(?:\x1b\[0m)? line (\d+)", line)
            assert found, line
            seen.append(int(found[1]))
    assert seen == list(range(1, len(seen) + 1))
    aws(platform, "ecs", "stop-task", "--task", arn)
    assert wait_for(platform, arn, "STOPPED")["stopCode"] == "UserInitiated"
    # Without --follow it ends by itself; a time of the past is its default of ten minutes, a pattern chooses.
    assert aws(platform, "logs", "tail", group, "--format", "short", "--filter-pattern", '"line 7"').endswith(" line 7\n")


def test_r20_services_stable_is_waited_for(platform, stable):
    name, waiting = stable
    assert waiting.wait(timeout=120) == 0
    shown = aws(platform, "ecs", "describe-services", "--services", name, "--query", "services[0].[runningCount,desiredCount,length(deployments)]", "--output", "text")
    assert shown == "2\t2\t1\n"
