"""Container instances that stay away: for hours of platform time, and for longer than the operator lets them."""

import os
import signal
import time
import urllib.error
import urllib.request

import pytest

from conftest import EXECUTION_ROLE, Image, Platform, eventually, wait_for
from machine import Network, run

CLUSTER = "away"
# Says when it was started, so that another copy is told from this one.
SERVE = "mkdir /w; date +%s%N > /w/index.html; exec httpd -f -p 80 -h /w"


@pytest.fixture
def lan():
    network = Network()
    yield network
    network.remove()


@pytest.fixture
def fast(lan):
    """Makes platforms whose clock runs a thousand times as fast, where machines reach them."""
    made = []

    def make(*options):
        platform = Platform("--clock-rate", "1000", *options, listen=lan.address)
        made.append(platform)
        platform.start()
        platform.endpoint = f"http://127.0.0.1:{platform.port}"
        platform.client("ecs").create_cluster(clusterName=CLUSTER)
        container = {
            "name": "app", "image": Image(platform, "busybox").uri, "memory": 64, "entryPoint": ["/bin/sh", "-c"],
            "command": [SERVE], "portMappings": [{"containerPort": 80}], "stopTimeout": 2,
        }
        platform.client("ecs").register_task_definition(family="web", networkMode="bridge", executionRoleArn=EXECUTION_ROLE, containerDefinitions=[container], requiresCompatibilities=["EXTERNAL"])
        return platform

    yield make
    for platform in made:
        platform.stop()
        platform.purge()


def fetch(machine, task):
    port = task["containers"][0]["networkBindings"][0]["hostPort"]
    with urllib.request.urlopen(f"http://{machine.address}:{port}/", timeout=5) as answer:
        return answer.read().decode().strip()


def test_r03_tasks_run_through_hours_without_the_control_plane(lan, fast):
    platform = fast()
    machine = lan.machine(platform, CLUSTER)
    instance = machine.instance()["containerInstanceArn"]
    ecs = platform.client("ecs")
    ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition="web", desiredCount=1, launchType="EXTERNAL")
    (arn,) = eventually(lambda: ecs.list_tasks(cluster=CLUSTER, serviceName="web")["taskArns"])
    task = wait_for(platform, arn, "RUNNING", cluster=CLUSTER)
    started = fetch(machine, task)
    link = f"{lan.name}{machine.address.rsplit('.')[-1]}"
    run("ip", "link", "set", link, "down")
    os.kill(platform.child("server"), signal.SIGKILL)
    # More than three hours of the platform's time.
    time.sleep(12)
    eventually(lambda: not ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[instance])["containerInstances"][0]["agentConnected"])
    run("ip", "link", "set", link, "up")
    assert machine.instance()["containerInstanceArn"] == instance
    assert fetch(machine, task) == started, "the very same container"
    assert ecs.list_tasks(cluster=CLUSTER, serviceName="web")["taskArns"] == [arn]
    assert wait_for(platform, arn, "RUNNING", cluster=CLUSTER)["taskArn"] == arn


def test_r20_an_instance_that_stays_away_is_given_up_if_the_operator_says_so(lan, fast):
    # An hour, which takes 3.6 s.
    platform = fast("--lost-instance-after", "3600")
    machines = [lan.machine(platform, CLUSTER, "--availability-zone", f"us-east-1{zone}") for zone in "ab"]
    instances = [machine.instance()["containerInstanceArn"] for machine in machines]
    ecs = platform.client("ecs")
    ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition="web", desiredCount=2, launchType="EXTERNAL")

    def running():
        arns = ecs.list_tasks(cluster=CLUSTER, serviceName="web")["taskArns"]
        found = ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"] if arns else []
        return [task for task in found if task["lastStatus"] == "RUNNING"]

    before = eventually(lambda: running() if len(running()) == 2 else None)
    (lost,) = [task for task in before if task["containerInstanceArn"] == instances[0]]
    machines[0].kill()
    stopped = wait_for(platform, lost["taskArn"], "STOPPED", cluster=CLUSTER)
    assert "has not been connected for too long" in stopped["stoppedReason"]
    replaced = eventually(lambda: running() if len(running()) == 2 else None)
    assert {task["containerInstanceArn"] for task in replaced} == {instances[1]}
    assert fetch(machines[0], lost), "cut off, it still runs there"
    # It returns as what it was, and what was given up is ended there.
    machines[0].start()
    assert machines[0].instance()["containerInstanceArn"] == instances[0]

    def refused():
        try:
            fetch(machines[0], lost)
        except (urllib.error.URLError, OSError):
            return True

    eventually(refused)
    assert {task["taskArn"] for task in running()} == {task["taskArn"] for task in replaced}
