"""The agent with Docker Engine's containers instead of its own, as Amazon's has them: first as a process beside the engine,
then as a container in it."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

import pytest

from conftest import EXECUTION_ROLE, LONGSHORE, Image, Platform, eventually, log_lines, logging, task, wait_for
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
    try:
        yield machine
    finally:
        done = machine.teardown("--runtime", "docker")
        left = engine.run("ps", "-aq").stdout
    assert done.returncode == 0 and left == "", done.stderr + left
    assert "ls_docker" not in machine.run("nft", "list", "tables")


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


def run(platform, definition, **more):
    answer = platform.client("ecs").run_task(cluster=CLUSTER, taskDefinition=definition, launchType="EXTERNAL", **more)
    assert answer["failures"] == [], answer["failures"]
    return [one["taskArn"] for one in answer["tasks"]]


def start(platform, definition, **more):
    return [wait_for(platform, arn, "RUNNING", cluster=CLUSTER) for arn in run(platform, definition, **more)]


def stop(platform, tasks):
    for one in tasks:
        platform.client("ecs").stop_task(cluster=CLUSTER, task=one["taskArn"])
    return [wait_for(platform, one["taskArn"], "STOPPED", cluster=CLUSTER) for one in tasks]


def port_of(task):
    return task["containers"][0]["networkBindings"][0]["hostPort"]


def fetch(address, port):
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as answer:
        return answer.read().decode().strip()


def inspect(engine, identifier):
    return json.loads(engine.run("inspect", identifier).stdout)[0]


def logged(group):
    return logging(group, **{"awslogs-create-group": "true"})


def lines_of(platform, group, task, count, container="app"):
    """What a container printed, once it is so many lines."""
    lines = lambda: log_lines(platform, group, f"test/{container}/{task['taskArn'].rsplit('/', 1)[1]}")
    return eventually(lambda: lines() if len(lines()) >= count else None)


def test_r03_the_instance_offers_what_docker_can(machine, agent, engine):
    instance = machine.instance()
    names = {attribute["name"] for attribute in instance["attributes"]}
    assert {"ecs.capability.external", "com.amazonaws.ecs.capability.task-iam-role", "com.amazonaws.ecs.capability.logging-driver.awslogs"} <= names
    assert not {"ecs.capability.task-eni", "ecs.capability.container-port-range"} & names
    version = engine.run("version", "--format", "{{.Server.Version}}").stdout.strip()
    assert version in instance["versionInfo"]["dockerVersion"]


def test_r03_a_task_is_a_container_of_docker(platform, agent, engine, image):
    definition = define(
        platform, "own", image, mode="host", ports=[{"containerPort": 8081}], script=SERVE.replace("-p 80", "-p 8081"),
        user="0:7", dockerLabels={"shelf": "3"}, ulimits=[{"name": "nofile", "softLimit": 2000, "hardLimit": 3000}],
        linuxParameters={"initProcessEnabled": True, "capabilities": {"drop": ["MKNOD"]}},
        memoryReservation=32,
    )
    tasks = start(platform, definition)
    container = tasks[0]["containers"][0]
    found = inspect(engine, container["runtimeId"])
    assert found["Id"] == container["runtimeId"] and found["Name"].startswith("/ecs-own-1-app-")
    assert (found["Config"]["Image"], found["Config"]["User"]) == (image, "0:7")
    labels = found["Config"]["Labels"]
    assert labels["com.amazonaws.ecs.task-arn"] == tasks[0]["taskArn"] and labels["com.amazonaws.ecs.container-name"] == "app"
    assert (labels["com.amazonaws.ecs.task-definition-family"], labels["com.amazonaws.ecs.task-definition-version"]) == ("own", "1")
    assert (labels["com.amazonaws.ecs.cluster"].rsplit("/")[-1], labels["shelf"]) == (CLUSTER, "3")
    host = found["HostConfig"]
    assert (host["Memory"], host["MemoryReservation"], host["CpuShares"], host["NetworkMode"]) == (64 << 20, 32 << 20, 64, "host")
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (False, ["MKNOD"])
    assert [(one["Name"], one["Soft"], one["Hard"]) for one in host["Ulimits"]] == [("nofile", 2000, 3000)]
    assert container["imageDigest"].startswith("sha256:") and port_of(tasks[0]) == 8081
    eventually(lambda: fetch(agent.address, 8081) == "own")
    stop(platform, tasks)
    eventually(lambda: engine.run("ps", "-aq").stdout == "")


def test_r03_copies_have_ports_of_their_own_and_find_who_is_linked(platform, agent, engine, image):
    asks = {
        "name": "asks", "image": image, "memory": 32, "links": ["app:web"], "logConfiguration": logged("/linked"), "essential": False,
        "dependsOn": [{"containerName": "app", "condition": "HEALTHY"}], "entryPoint": ["/bin/sh", "-c"], "command": ["wget -qO- http://web/"],
    }
    check = {"command": ["CMD-SHELL", "wget -qO /dev/null http://127.0.0.1/"], "interval": 5, "retries": 3, "timeout": 3}
    tasks = start(platform, define(platform, "shared", image, healthCheck=check, others=[asks]), count=2)
    ports = {next(one for one in each["containers"] if one["name"] == "app")["networkBindings"][0]["hostPort"] for each in tasks}
    assert len(ports) == 2 and min(ports) >= 32768
    for port in ports:
        assert eventually(lambda: fetch(agent.address, port)) == "shared"
    for each in tasks:
        assert lines_of(platform, "/linked", each, 1, "asks") == ["shared"]
        assert eventually(lambda: task(platform, each["taskArn"], CLUSTER)["healthStatus"]) == "HEALTHY"
    stop(platform, tasks)


def test_r03_a_container_of_docker_knows_itself_and_has_its_role(platform, agent, image):
    script = "sha256sum < $AWS_CA_BUNDLE; for of in $ECS_CONTAINER_METADATA_URI_V4/task http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; do wget -qO- $of; echo; done; sleep 600"
    for mode in ("bridge", "host"):
        definition = define(platform, f"knows-{mode}", image, mode=mode, ports=[], script=script, role=EXECUTION_ROLE, logConfiguration=logged("/knows"))
        tasks = start(platform, definition)
        authority, *documents = lines_of(platform, "/knows", tasks[0], 3)
        assert authority.split()[0] == hashlib.sha256(pathlib.Path(platform.data, "keys", "ca.pem").read_bytes()).hexdigest()
        document, credentials = (json.loads(text) for text in documents)
        assert (document["TaskARN"], document["LaunchType"], document["Family"]) == (tasks[0]["taskArn"], "EXTERNAL", f"knows-{mode}")
        assert document["Containers"][0]["DockerName"].startswith(f"ecs-knows-{mode}-1-app-")
        keys = {"aws_access_key_id": credentials["AccessKeyId"], "aws_secret_access_key": credentials["SecretAccessKey"], "aws_session_token": credentials["Token"]}
        who = platform.client("sts", **keys).get_caller_identity()["Arn"]
        assert f"assumed-role/ecsTaskExecutionRole/{tasks[0]['taskArn'].rsplit('/', 1)[1]}" in who
        stop(platform, tasks)


def test_r03_a_container_of_docker_is_stopped_in_time_and_its_end_is_told(platform, agent, engine, image):
    polite = define(platform, "polite", image, mode="none", ports=[], script="trap 'printf bye; exit 7' TERM; ip -o link | wc -l; while :; do sleep 0.1; done", logConfiguration=logged("/polite"), readonlyRootFilesystem=True, linuxParameters={})
    deaf = define(platform, "deaf", image, ports=[], script="trap '' TERM; while :; do sleep 0.1; done", linuxParameters={})
    tasks = [*start(platform, polite), *start(platform, deaf)]
    assert lines_of(platform, "/polite", tasks[0], 1) == ["1"]
    assert inspect(engine, tasks[0]["containers"][0]["runtimeId"])["HostConfig"]["ReadonlyRootfs"]
    stopped = stop(platform, tasks)
    assert [one["containers"][0]["exitCode"] for one in stopped] == [7, 137]
    assert lines_of(platform, "/polite", tasks[0], 2) == ["1", "bye"]
    short = run(platform, define(platform, "short", image, ports=[], script="exit 3"))
    ended = wait_for(platform, short[0], "STOPPED", cluster=CLUSTER)
    assert (ended["containers"][0]["exitCode"], ended["stopCode"]) == (3, "EssentialContainerExited")


def test_r03_what_docker_cannot_is_refused_by_name(platform, agent, image):
    ecs = platform.client("ecs")
    ranged = define(platform, "ranged", image, ports=[{"containerPortRange": "8000-8003"}])
    refused = ecs.run_task(cluster=CLUSTER, taskDefinition=ranged, launchType="EXTERNAL")
    assert [one["reason"] for one in refused["failures"]] == ["ATTRIBUTE"]
    absent = run(platform, define(platform, "absent", image.replace("/busybox", "/absent"), ports=[]))
    reason = wait_for(platform, absent[0], "STOPPED", cluster=CLUSTER)["containers"][0]["reason"]
    assert reason.startswith("CannotPullContainerError"), reason
    wrong = run(platform, define(platform, "wrong", image, ports=[], entryPoint=["/no/such/program"], linuxParameters={}))
    reason = wait_for(platform, wrong[0], "STOPPED", cluster=CLUSTER)["containers"][0]["reason"]
    assert reason.startswith("CannotStartContainerError") and "/no/such/program" in reason, reason
    taken = define(platform, "taken", image, ports=[{"containerPort": 80, "hostPort": 8082}])
    holder = subprocess.Popen([*agent.inside, sys.executable, "-c", "import socket, time; s = socket.create_server(('', 8082)); print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        reason = wait_for(platform, run(platform, taken)[0], "STOPPED", cluster=CLUSTER)["containers"][0]["reason"]
        assert reason.startswith("CannotStartContainerError"), reason
    finally:
        holder.kill()
        holder.wait()


def test_r03_limits_of_a_whole_task(platform, agent, engine, image):
    other = {"name": "other", "image": image, "memory": 32, "command": ["/bin/sh", "-c", "sleep 600"], "linuxParameters": {"initProcessEnabled": True}}
    script = "f=/sys/fs/cgroup; cat $f/memory/memory.limit_in_bytes $f/memory.max 2>/dev/null; sleep 600"
    tasks = start(platform, define(platform, "whole", image, ports=[], script=script, others=[other], task={"cpu": "256", "memory": "128"}))
    parents = {inspect(engine, one["runtimeId"])["HostConfig"]["CgroupParent"] for one in tasks[0]["containers"]}
    assert len(parents) == 1 and parents.pop().startswith("/longshore/")
    stop(platform, tasks)


def test_r03_containers_of_docker_run_on_while_the_agent_is_away(platform, agent, engine, image):
    on = start(platform, define(platform, "on", image, logConfiguration=logged("/on"), script="echo one; " + SERVE))
    ends = start(platform, define(platform, "ends", image, ports=[], script="while [ ! -e /end ]; do sleep 0.1; done; echo more; printf last; exit 5", logConfiguration=logged("/ends")))
    agent.kill()
    assert fetch(agent.address, port_of(on[0])) == "on"
    engine.run("exec", ends[0]["containers"][0]["runtimeId"], "touch", "/end")
    eventually(lambda: not inspect(engine, ends[0]["containers"][0]["runtimeId"])["State"]["Running"])
    agent.start()
    assert agent.instance()["containerInstanceArn"] == on[0]["containerInstanceArn"], "the same instance as before"
    ended = wait_for(platform, ends[0]["taskArn"], "STOPPED", cluster=CLUSTER)
    assert ended["containers"][0]["exitCode"] == 5
    assert lines_of(platform, "/ends", ends[0], 2) == ["more", "last"]
    now = task(platform, on[0]["taskArn"], CLUSTER)
    assert now["lastStatus"] == "RUNNING" and now["containers"][0]["runtimeId"] == on[0]["containers"][0]["runtimeId"]
    assert fetch(agent.address, port_of(now)) == "on"
    stop(platform, on)
    assert lines_of(platform, "/on", on[0], 1) == ["one"]
    eventually(lambda: engine.run("ps", "-aq").stdout == "")


def test_r03_the_agent_outlives_the_engine(platform, agent, engine, image):
    tasks = start(platform, define(platform, "with-it", image))
    engine.end()
    engine.start()
    ended = wait_for(platform, tasks[0]["taskArn"], "STOPPED", cluster=CLUSTER)
    assert ended["stopCode"] == "EssentialContainerExited"
    tasks = start(platform, define(platform, "after-it", image))
    assert eventually(lambda: fetch(agent.address, port_of(tasks[0]))) == "after-it"
    stop(platform, tasks)


@pytest.fixture
def other_machine(lan, platform):
    return lan.machine(platform, CLUSTER, started=False)


def test_r03_the_agent_is_an_image_that_docker_runs(platform, other_machine, image, tmp_path):
    """As Amazon documents it for its own agent, with this platform's endpoint, authority and keys."""
    archive = tmp_path / "agent.tar"
    subprocess.run([LONGSHORE, "agent-image", str(archive)], check=True, timeout=120)
    engine = Engine(other_machine)
    data, log = tmp_path / "data", tmp_path / "log"
    environment = {
        "ECS_CLUSTER": CLUSTER, "ECS_BACKEND_HOST": f"https://{platform.listen}", "AWS_DEFAULT_REGION": "us-east-1", "AWS_CA_BUNDLE": "/ca.pem",
        "ECS_INSTANCE_ATTRIBUTES": json.dumps({"place": "container"}), "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "1s",
        **{name: value for name, value in platform.env().items() if name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
    }
    ecs = platform.client("ecs")

    def instance():
        arns = ecs.list_container_instances(cluster=CLUSTER, filter="attribute:place == container")["containerInstanceArns"]
        found = ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)["containerInstances"] if arns else []
        return next((one for one in found if one["agentConnected"]), None)

    try:
        assert "longshore-agent:latest" in engine.run("load", "--input", str(archive)).stdout
        engine.run(
            "run", "--detach", "--name", "ecs-agent", "--restart", "on-failure:10", "--network", "host", "--cap-add", "NET_ADMIN",
            "--volume", f"{engine.socket.removeprefix('unix://')}:/var/run/docker.sock", "--volume", f"{log}:/log", "--volume", f"{data}:/data",
            "--volume", "/sys/fs/cgroup:/sys/fs/cgroup", "--volume", f"{platform.data}/keys/ca.pem:/ca.pem:ro",
            *(part for name, value in environment.items() for part in ("--env", f"{name}={value}")), "longshore-agent",
        )
        try:
            registered = eventually(instance, timeout=30)["containerInstanceArn"]
        except BaseException:
            print(engine.run("logs", "ecs-agent", check=False).stderr)
            raise
        here = [{"type": "memberOf", "expression": "attribute:place == container"}]
        script = "wget -qO- http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; echo; " + SERVE
        tasks = start(platform, define(platform, "inside", image, script=script, role=EXECUTION_ROLE, logConfiguration=logged("/inside")), placementConstraints=here)
        assert tasks[0]["containerInstanceArn"] == registered
        assert eventually(lambda: fetch(other_machine.address, port_of(tasks[0]))) == "inside"
        assert json.loads(lines_of(platform, "/inside", tasks[0], 1)[0])["AccessKeyId"]
        engine.run("restart", "--time", "5", "ecs-agent")
        assert eventually(instance, timeout=30)["containerInstanceArn"] == registered
        stop(platform, tasks)
        eventually(lambda: engine.run("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["ecs-agent"])
        secret = environment["AWS_SECRET_ACCESS_KEY"]
        said = engine.run("logs", "ecs-agent")
        assert "found Docker Engine" in said.stdout + said.stderr and secret not in said.stdout + said.stderr
    finally:
        engine.run("stop", "ecs-agent", check=False)
        options = [option for volume in (f"{engine.socket.removeprefix('unix://')}:/var/run/docker.sock", f"{data}:/data", "/sys/fs/cgroup:/sys/fs/cgroup") for option in ("--volume", volume)]
        down = engine.run("run", "--rm", "--network", "host", "--cap-add", "NET_ADMIN", *options, "longshore-agent", "--teardown", check=False)
        engine.stop()
    assert down.returncode == 0, down.stderr
