"""The agent with Docker Engine's containers instead of its own, as Amazon's has them: first as a process beside the engine,
then as a container in it."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.request

import pytest

from conftest import EXECUTION_ROLE, LONGSHORE, Image, Platform, eventually, log_lines, logging, wait_for
from docker_engine import Docker
from machine import Network

CLUSTER = "anywhere"
SERVE = 'mkdir /w; echo "$NAME" > /w/index.html; exec httpd -f -p 80 -h /w'


class Engine(Docker):
    """A Docker Engine on a machine of its own, with a bridge of its own."""

    def __init__(self, machine):
        self.machine = machine
        super().__init__(prefix=machine.inside, network=())


@pytest.fixture(scope="module")
def lan():
    network = Network()
    yield network
    network.remove()


@pytest.fixture(scope="module")
def platform(lan):
    platform = Platform(listen=lan.address)
    try:
        platform.start()
        platform.endpoint = f"http://127.0.0.1:{platform.port}"
        platform.client("ecs").create_cluster(clusterName=CLUSTER)
        yield platform
    finally:
        platform.stop()
        platform.purge()


@pytest.fixture(scope="module")
def image(platform):
    return Image(platform, "busybox").uri


@pytest.fixture(scope="module")
def machine(lan, platform):
    """A machine without an agent yet."""
    return lan.machine(platform, CLUSTER, "--runtime", "docker", "--memory", "2000", started=False)


@pytest.fixture(scope="module")
def engine(machine):
    engine = Engine(machine)
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def agent(machine, engine):
    """The agent as a process of the machine."""
    machine.environment = {"DOCKER_HOST": engine.socket, "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "1s"}
    machine.start()
    machine.instance()
    yield machine
    if machine.agent.poll() is None:
        machine.stop()


def define(platform, family, image, mode="bridge", ports=({"containerPort": 80},), script=SERVE, role=None, others=(), task=None, **more):
    container = {
        "name": "app", "image": image, "memory": 64, "cpu": 64, "entryPoint": ["/bin/sh", "-c"], "command": [script],
        "environment": [{"name": "NAME", "value": family}], "portMappings": list(ports),
        "linuxParameters": {"initProcessEnabled": True}, "stopTimeout": 2, **more,
    }
    answer = platform.client("ecs").register_task_definition(
        **({"taskRoleArn": role} if role else {}), **(task or {}), family=family, networkMode=mode, executionRoleArn=EXECUTION_ROLE,
        containerDefinitions=[container, *others], requiresCompatibilities=["EXTERNAL"],
    )
    return answer["taskDefinition"]["taskDefinitionArn"]


def start(platform, definition, **more):
    answer = platform.client("ecs").run_task(cluster=CLUSTER, taskDefinition=definition, launchType="EXTERNAL", **more)
    assert answer["failures"] == [], answer["failures"]
    return [wait_for(platform, task["taskArn"], "RUNNING", cluster=CLUSTER) for task in answer["tasks"]]


def stop(platform, tasks):
    for task in tasks:
        platform.client("ecs").stop_task(cluster=CLUSTER, task=task["taskArn"])
    return [wait_for(platform, task["taskArn"], "STOPPED", cluster=CLUSTER) for task in tasks]


def port_of(task):
    return task["containers"][0]["networkBindings"][0]["hostPort"]


def fetch(address, port):
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as answer:
        return answer.read().decode().strip()


def inspect(engine, identifier):
    return json.loads(engine.run("inspect", identifier).stdout)[0]


def test_r03_a_task_is_a_container_of_docker(platform, agent, engine, image):
    tasks = start(platform, define(platform, "own", image, mode="host", ports=[{"containerPort": 8081}], script=SERVE.replace("-p 80", "-p 8081")))
    container = tasks[0]["containers"][0]
    found = inspect(engine, container["runtimeId"])
    assert found["Id"] == container["runtimeId"] and found["Name"].startswith("/ecs-own-1-app-")
    assert found["Config"]["Image"] == image
    labels = found["Config"]["Labels"]
    assert labels["com.amazonaws.ecs.task-arn"] == tasks[0]["taskArn"] and labels["com.amazonaws.ecs.container-name"] == "app"
    assert (labels["com.amazonaws.ecs.task-definition-family"], labels["com.amazonaws.ecs.task-definition-version"]) == ("own", "1")
    assert (found["HostConfig"]["Memory"], found["HostConfig"]["CpuShares"], found["HostConfig"]["NetworkMode"]) == (64 << 20, 64, "host")
    assert container["imageDigest"].startswith("sha256:") and port_of(tasks[0]) == 8081
    eventually(lambda: fetch(agent.address, 8081) == "own", timeout=10)
    stopped = stop(platform, tasks)
    assert stopped[0]["containers"][0]["exitCode"] in (0, 137, 143)
    eventually(lambda: engine.run("ps", "-aq").stdout == "", timeout=20)
