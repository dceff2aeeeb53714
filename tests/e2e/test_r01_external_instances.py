"""Machines of one's own in a cluster: the agent joins from elsewhere over TLS, and what is placed on it runs there."""

import hashlib
import json
import pathlib
import urllib.request

import pytest

from conftest import EXECUTION_ROLE, Image, Platform, eventually, log_lines, logging, wait_for
from machine import Network

CLUSTER = "anywhere"

# Answers each request with the name it was started with and what it sees of its own surroundings.
SERVE = 'mkdir /w; echo "$NAME" > /w/index.html; exec httpd -f -p 80 -h /w'


@pytest.fixture(scope="module")
def lan():
    network = Network()
    yield network
    network.remove()


@pytest.fixture(scope="module")
def platform(lan):
    """A platform that listens where other machines reach it."""
    platform = Platform(listen=lan.address)
    try:
        # What is on this host reaches it without TLS too, but these tests are about those that are not.
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
    found = lan.machine(platform, CLUSTER, "--availability-zone", "us-east-1b", "--instance-attribute", "rack=7", "--memory", "2000")
    found.instance()
    return found


def define(platform, family, image, mode="bridge", ports=({"containerPort": 80},), script=SERVE, role=None, **more):
    container = {
        "name": "app", "image": image, "memory": 64, "cpu": 64, "entryPoint": ["/bin/sh", "-c"], "command": [script],
        "environment": [{"name": "NAME", "value": family}], "portMappings": list(ports),
        "linuxParameters": {"initProcessEnabled": True}, "stopTimeout": 2, **more,
    }
    answer = platform.client("ecs").register_task_definition(
        **({"taskRoleArn": role} if role else {}), family=family, networkMode=mode, executionRoleArn=EXECUTION_ROLE, containerDefinitions=[container], requiresCompatibilities=["EXTERNAL"],
    )
    return answer["taskDefinition"]["taskDefinitionArn"]


def start(platform, definition, **more):
    answer = platform.client("ecs").run_task(cluster=CLUSTER, taskDefinition=definition, launchType="EXTERNAL", **more)
    assert answer["failures"] == [], answer["failures"]
    return [wait_for(platform, task["taskArn"], "RUNNING", cluster=CLUSTER) for task in answer["tasks"]]


def stop(platform, tasks):
    for task in tasks:
        platform.client("ecs").stop_task(cluster=CLUSTER, task=task["taskArn"])
    for task in tasks:
        wait_for(platform, task["taskArn"], "STOPPED", cluster=CLUSTER)


def port_of(task):
    return task["containers"][0]["networkBindings"][0]["hostPort"]


def fetch(address, port):
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as answer:
        return answer.read().decode().strip()


def test_r04_a_machine_joins_from_elsewhere_and_says_what_it_is(platform, machine):
    instance = machine.instance()
    attributes = {attribute["name"]: attribute.get("value") for attribute in instance["attributes"]}
    assert (attributes["rack"], attributes["ecs.availability-zone"], attributes["ecs.os-type"]) == ("7", "us-east-1b", "linux")
    assert "ecs.capability.external" in attributes and "ecs.capability.task-eni" not in attributes
    registered = {resource["name"]: resource for resource in instance["registeredResources"]}
    assert registered["MEMORY"]["integerValue"] == 2000 and registered["CPU"]["integerValue"] % 1024 == 0
    assert {"22", "51678"} <= set(registered["PORTS"]["stringSetValue"])
    assert instance["versionInfo"]["agentVersion"] and instance["status"] == "ACTIVE"


def test_r11_copies_share_a_machine_each_on_a_port_of_its_own(platform, machine, image):
    tasks = start(platform, define(platform, "shared", image), count=3)
    assert all(task["launchType"] == "EXTERNAL" for task in tasks)
    ports = [port_of(task) for task in tasks]
    assert len(set(ports)) == 3 and min(ports) >= 32768
    for port in ports:
        eventually(lambda: fetch(machine.address, port) == "shared")
        assert machine.run("curl", "-s", f"http://127.0.0.1:{port}/").strip() == "shared", "from the machine itself"
    stop(platform, tasks)
    with pytest.raises(OSError):
        fetch(machine.address, ports[0])


def test_r12_a_port_of_the_machine_is_had_once(platform, machine, image):
    definition = define(platform, "once", image, ports=[{"containerPort": 80, "hostPort": 8080}])
    tasks = start(platform, definition)
    eventually(lambda: fetch(machine.address, 8080) == "once")
    again = platform.client("ecs").run_task(cluster=CLUSTER, taskDefinition=definition, launchType="EXTERNAL")
    assert [failure["reason"] for failure in again["failures"]] == ["RESOURCE:PORTS"]
    stop(platform, tasks)


def test_r03_a_task_can_have_the_machines_own_network_or_none(platform, machine, image):
    tasks = start(platform, define(platform, "own", image, mode="host", ports=[{"containerPort": 8081}], script=SERVE.replace("-p 80", "-p 8081")))
    assert port_of(tasks[0]) == 8081
    eventually(lambda: fetch(machine.address, 8081) == "own")
    stop(platform, tasks)
    alone = define(platform, "alone", image, mode="none", ports=[], script="ip -o link | wc -l; sleep 600", logConfiguration=logging("/alone", **{"awslogs-create-group": "true"}))
    tasks = start(platform, alone)
    task_id = tasks[0]["taskArn"].rsplit("/", 1)[1]
    assert eventually(lambda: log_lines(platform, "/alone", f"test/app/{task_id}")) == ["1"]
    stop(platform, tasks)


def test_r03_a_task_knows_itself_and_has_its_role(platform, machine, image):
    script = 'sha256sum < $AWS_CA_BUNDLE; echo $AWS_ENDPOINT_URL; for of in $ECS_CONTAINER_METADATA_URI_V4/task http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; do wget -qO- $of; echo; done; sleep 600'
    definition = define(platform, "knows", image, script=script, role=EXECUTION_ROLE, logConfiguration=logging("/knows", **{"awslogs-create-group": "true"}))
    tasks = start(platform, definition)
    task_id = tasks[0]["taskArn"].rsplit("/", 1)[1]
    lines = lambda: log_lines(platform, "/knows", f"test/app/{task_id}")
    authority, endpoint, *documents = eventually(lambda: lines() if len(lines()) == 4 else None)
    assert authority.split()[0] == hashlib.sha256(pathlib.Path(platform.data, "keys", "ca.pem").read_bytes()).hexdigest()
    assert endpoint == f"https://{platform.listen}"
    document, credentials = (json.loads(text) for text in documents)
    assert (document["TaskARN"], document["LaunchType"], document["Family"]) == (tasks[0]["taskArn"], "EXTERNAL", "knows")
    keys = {"aws_access_key_id": credentials["AccessKeyId"], "aws_secret_access_key": credentials["SecretAccessKey"], "aws_session_token": credentials["Token"]}
    assert f"assumed-role/ecsTaskExecutionRole/{task_id}" in platform.client("sts", **keys).get_caller_identity()["Arn"]
    stop(platform, tasks)


def test_r03_tasks_run_on_while_the_agent_is_away(platform, machine, image):
    tasks = start(platform, define(platform, "on", image))
    machine.kill()
    eventually(lambda: not platform.client("ecs").describe_container_instances(cluster=CLUSTER, containerInstances=[tasks[0]["containerInstanceArn"]])["containerInstances"][0]["agentConnected"])
    assert fetch(machine.address, port_of(tasks[0])) == "on"
    refused = platform.client("ecs").run_task(cluster=CLUSTER, taskDefinition="on", launchType="EXTERNAL")
    assert [failure["reason"] for failure in refused["failures"]] == ["AGENT"]
    machine.start()
    assert machine.instance()["containerInstanceArn"] == tasks[0]["containerInstanceArn"], "the same instance as before"
    assert fetch(machine.address, port_of(tasks[0])) == "on"
    stop(platform, tasks)


def test_r03_the_agent_answers_about_itself(platform, machine, image):
    tasks = start(platform, define(platform, "introspected", image))
    metadata = json.loads(machine.run("curl", "-s", "http://127.0.0.1:51678/v1/metadata"))
    assert (metadata["Cluster"], metadata["ContainerInstanceArn"]) == (CLUSTER, tasks[0]["containerInstanceArn"])
    listed = json.loads(machine.run("curl", "-s", "http://127.0.0.1:51678/v1/tasks"))["Tasks"]
    assert tasks[0]["taskArn"] in [task["Arn"] for task in listed if task["KnownStatus"] == "RUNNING"]
    stop(platform, tasks)


def test_r20_a_service_runs_on_machines_of_ones_own(lan, platform, machine, image):
    other = lan.machine(platform, CLUSTER, "--availability-zone", "us-east-1a")
    other.instance()
    ecs = platform.client("ecs")
    ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition=define(platform, "web", image), desiredCount=4, launchType="EXTERNAL")
    described = lambda: ecs.describe_services(cluster=CLUSTER, services=["web"])["services"][0]
    eventually(lambda: described()["runningCount"] == 4)

    def placed():
        arns = ecs.list_tasks(cluster=CLUSTER, serviceName="web")["taskArns"]
        return [task for task in ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"] if task["lastStatus"] == "RUNNING"]

    where = [task["containerInstanceArn"] for task in placed()]
    assert sorted(where.count(arn) for arn in set(where)) == [2, 2], "spread over the zones"
    instance = other.instance()["containerInstanceArn"]
    ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[instance], status="DRAINING")
    eventually(lambda: len(placed()) == 4 and all(task["containerInstanceArn"] != instance for task in placed()))
    eventually(lambda: not ecs.list_tasks(cluster=CLUSTER, containerInstance=instance, desiredStatus="RUNNING")["taskArns"])
    gone = lambda: ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[instance])["containerInstances"][0]
    eventually(lambda: (gone()["runningTasksCount"], gone()["remainingResources"]) == (0, gone()["registeredResources"]))
    ecs.deregister_container_instance(cluster=CLUSTER, containerInstance=instance)
    ecs.delete_service(cluster=CLUSTER, service="web", force=True)
    eventually(lambda: not ecs.list_tasks(cluster=CLUSTER)["taskArns"])


def test_r06_the_agents_configuration_file_decides_the_cluster(lan, platform, tmp_path):
    config = tmp_path / "ecs.config"
    config.write_text(f"# The cluster.\nECS_CLUSTER={CLUSTER}\nECS_RESERVED_MEMORY=100\nECS_INSTANCE_ATTRIBUTES={{\"stack\": \"prod\"}}\n")
    machine = lan.machine(platform, CLUSTER, "--config", str(config), named=False)
    instance = machine.instance()
    assert {"name": "stack", "value": "prod"} in instance["attributes"]
    platform.client("ecs").deregister_container_instance(cluster=CLUSTER, containerInstance=instance["containerInstanceArn"])


def test_r03_teardown_leaves_nothing_on_the_machine(lan, platform, image):
    machine = lan.machine(platform, CLUSTER, "--instance-attribute", "leaving=yes")
    instance = machine.instance()["containerInstanceArn"]
    here = [{"type": "memberOf", "expression": "attribute:leaving == yes"}]
    tasks = start(platform, define(platform, "left", image), placementConstraints=here)
    assert fetch(machine.address, port_of(tasks[0])) == "left"
    links = lambda: [line.split()[0] for line in machine.run("ip", "-br", "link").splitlines()]
    assert len(links()) > 2 and "ls_agent" in machine.run("nft", "list", "tables")
    done = machine.teardown()
    assert done.returncode == 0, done.stderr
    assert sorted(link.split("@")[0] for link in links()) == ["eth0", "lo"] and machine.run("nft", "list", "tables") == ""
    # The platform learns of it when the instance is taken out.
    platform.client("ecs").deregister_container_instance(cluster=CLUSTER, containerInstance=instance, force=True)
    wait_for(platform, tasks[0]["taskArn"], "STOPPED", cluster=CLUSTER)


def test_r04_bad_newcomers_are_told_why(lan, platform):
    stranger = lan.machine(platform, "no-such-cluster")
    assert stranger.agent.wait(timeout=30) != 0
    assert "Cluster not found" in open(stranger.log).read()
    forger = lan.machine(platform, CLUSTER, environment={"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert forger.agent.wait(timeout=30) != 0
    assert "signature" in open(forger.log).read().lower()
