"""What an instance has few of: GPUs, each of which one container has, and network interfaces, as many as its type can have."""

import os
import signal
import time

import botocore.exceptions
import pytest

from amazons_agent import AmazonsAgent
from conftest import Image, Platform, default_network, eventually, wait_for as wait_for_task
from instances import joined, launch, profile, terminate

GPUS = ["GPU-00000000-0000-0000-0000-00000000000a", "GPU-00000000-0000-0000-0000-00000000000b"]
NO_PLACE = "was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance "


@pytest.fixture(scope="module")
def platform():
    platform = Platform()
    try:
        platform.start()
        yield platform
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture
def cluster(platform, request):
    ecs, name = platform.client("ecs"), request.node.name[:60]
    ecs.create_cluster(clusterName=name)
    yield name
    for service in ecs.list_services(cluster=name)["serviceArns"]:
        ecs.delete_service(cluster=name, service=service, force=True)
    for instance in ecs.list_container_instances(cluster=name)["containerInstanceArns"]:
        ecs.deregister_container_instance(cluster=name, containerInstance=instance, force=True)


def on_ec2(platform, cluster, **more):
    """Amazon's agent on an instance of EC2, registered and connected; the agent and its session."""
    agent = AmazonsAgent(platform, cluster, capabilities=["ecs.capability.task-eni"], **more)
    agent.capabilities.remove("ecs.capability.external")
    agent.register()
    session = agent.acs()
    agent.greeted(session)
    return agent, session


def gpus(count):
    return [{"type": "GPU", "value": str(count)}]


def define(platform, family, *more, mode="bridge", **container):
    containers = [{"name": "app", "image": "example.com/app:1", "memory": 64, **container}, *more]
    made = platform.client("ecs").register_task_definition(family=family, networkMode=mode, containerDefinitions=containers)
    return made["taskDefinition"]


def run(platform, cluster, family, count=1, **more):
    return platform.client("ecs").run_task(cluster=cluster, taskDefinition=family, count=count, launchType="EC2", **more)


def resources(platform, agent):
    """The ids of GPUs as registered and as remaining."""
    answer = platform.client("ecs").describe_container_instances(cluster=agent.cluster, containerInstances=[agent.arn])
    [instance] = answer["containerInstances"]
    found = []
    for kind in ("registeredResources", "remainingResources"):
        [resource] = [resource for resource in instance[kind] if resource["name"] == "GPU"]
        assert resource["type"] == "STRINGSET"
        found.append(resource["stringSetValue"])
    return found


def over(agent, task):
    """The agent says that a task has ended."""
    container = {"containerName": "app", "exitCode": 137, "runtimeId": "d" * 64, "status": "STOPPED", "networkBindings": []}
    agent.report(task, "STOPPED", [container], executionStoppedAt=time.time())


def event(platform, cluster, service):
    """Waits for what a service says of a task that found no place."""

    def told():
        [found] = platform.client("ecs").describe_services(cluster=cluster, services=[service])["services"]
        return next((one["message"] for one in found["events"] if "unable to place" in one["message"]), None)

    return eventually(told)


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]


def test_r40_each_gpu_has_one_container(platform, cluster):
    ecs = platform.client("ecs")
    agent, session = on_ec2(platform, cluster, gpus=GPUS)
    assert resources(platform, agent) == [GPUS, GPUS]
    defined = define(platform, "one-gpu", resourceRequirements=gpus(1))
    assert defined["containerDefinitions"][0]["resourceRequirements"] == gpus(1)
    assert defined["compatibilities"] == ["EXTERNAL", "EC2"]
    described = ecs.describe_task_definition(taskDefinition="one-gpu")["taskDefinition"]
    assert described["containerDefinitions"] == defined["containerDefinitions"]

    answer = run(platform, cluster, "one-gpu", 3)
    assert answer["failures"] == [{"arn": agent.arn, "reason": "RESOURCE:GPU"}]
    arns = [task["taskArn"] for task in answer["tasks"]]
    held = {task["taskArn"]: task["containers"][0]["gpuIds"] for task in ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]}
    assert sorted(held.values()) == [[gpu] for gpu in GPUS]
    assert resources(platform, agent) == [GPUS, []]
    sent = {}
    while len(sent) < 2:
        sent |= {task["arn"]: task for task in agent.payload(session)["tasks"]}
    for arn in arns:
        assert sent[arn]["associations"] == [{"name": held[arn][0], "type": "gpu", "containers": ["app"]}]
        # Amazon's agent sets it itself, from the associations.
        assert "NVIDIA_VISIBLE_DEVICES" not in sent[arn]["containers"][0]["environment"]
    # A task that needs none still fits, and has none.
    define(platform, "no-gpu")
    [plain] = run(platform, cluster, "no-gpu")["tasks"]
    assert "gpuIds" not in plain["containers"][0]
    assert "associations" not in agent.payload(session)["tasks"][0]

    # A service says why, and goes on when one is free: not when a task is to stop, but when it has.
    ecs.create_service(cluster=cluster, serviceName="learner", taskDefinition="one-gpu", desiredCount=1, launchType="EC2")
    text = event(platform, cluster, "learner")
    assert text.startswith(f'(service learner) {NO_PLACE}{agent.arn.rsplit("/", 1)[1]}) encountered error "RESOURCE:GPU".'), text
    ecs.stop_task(cluster=cluster, task=arns[0])
    stop = agent.payload(session)["tasks"][0]
    assert (stop["arn"], stop["desiredStatus"]) == (arns[0], "STOPPED")
    assert run(platform, cluster, "one-gpu")["failures"] == [{"arn": agent.arn, "reason": "RESOURCE:GPU"}]
    over(agent, arns[0])
    [next_one] = agent.payload(session)["tasks"]
    assert [one["name"] for one in next_one["associations"]] == held[arns[0]]
    # What has stopped still says what it had.
    [stopped] = ecs.describe_tasks(cluster=cluster, tasks=[arns[0]])["tasks"]
    assert (stopped["lastStatus"], stopped["containers"][0]["gpuIds"]) == ("STOPPED", held[arns[0]])
    assert resources(platform, agent) == [GPUS, []]
    # The agent starts again, then the control plane dies, and the tasks keep theirs.
    agent.register()
    assert resources(platform, agent) == [GPUS, []]
    server = platform.child("server")
    os.kill(server, signal.SIGKILL)
    eventually(lambda: platform.child("server") != server and ecs.list_clusters())
    assert resources(platform, agent) == [GPUS, []]
    agent.greeted(agent.acs(send_credentials=False))
    eventually(lambda: run(platform, cluster, "one-gpu")["failures"] == [{"arn": agent.arn, "reason": "RESOURCE:GPU"}])


def test_r40_containers_of_a_task_share_no_gpu(platform, cluster):
    ecs = platform.client("ecs")
    none, _first = on_ec2(platform, cluster)
    agent, session = on_ec2(platform, cluster, gpus=GPUS)
    aside = {"name": "aside", "image": "example.com/app:1", "memory": 64, "resourceRequirements": gpus(1)}
    define(platform, "pair", aside, resourceRequirements=gpus(1))
    answer = run(platform, cluster, "pair")
    [task] = answer["tasks"]
    assert task["containerInstanceArn"] == agent.arn
    assert [(one["name"], one["gpuIds"]) for one in task["containers"]] == [("app", GPUS[:1]), ("aside", GPUS[1:])]
    [sent] = agent.payload(session)["tasks"]
    assert [(one["name"], one["containers"]) for one in sent["associations"]] == [(GPUS[0], ["app"]), (GPUS[1], ["aside"])]
    assert {failure["arn"]: failure["reason"] for failure in run(platform, cluster, "pair")["failures"]} == {
        agent.arn: "RESOURCE:GPU", none.arn: "RESOURCE:GPU",
    }
    ecs.stop_task(cluster=cluster, task=task["taskArn"])
    over(agent, task["taskArn"])

    # An override counts in place of the definition; StartTask asks the same.
    change = {"containerOverrides": [{"name": "app", "resourceRequirements": gpus(2)}]}
    start = lambda overrides, **more: ecs.start_task(cluster=cluster, containerInstances=[agent.arn], taskDefinition="pair", overrides=overrides, **more)
    eventually(lambda: resources(platform, agent)[1] == GPUS)
    assert start(change)["failures"] == [{"arn": agent.arn, "reason": "RESOURCE:GPU"}]
    define(platform, "plain")
    [task] = run(platform, cluster, "plain", overrides=change)["tasks"]
    assert task["containers"][0]["gpuIds"] == GPUS and task["overrides"]["containerOverrides"] == [{"name": "app", "resourceRequirements": gpus(2)}]


def test_r40_what_gpus_cannot_be_is_refused_by_name(platform, cluster):
    ecs = platform.client("ecs")
    register = lambda **more: refused(ecs.register_task_definition, family="refused", **more)
    container = lambda *requirements: [{"name": "app", "image": "example.com/app:1", "memory": 64, "resourceRequirements": list(requirements)}]
    for value in ("0", "-1", "1.5", "many"):
        error = register(containerDefinitions=container({"type": "GPU", "value": value}))
        assert error["Code"] == "ClientException" and "positive integer" in error["Message"], error
    error = register(containerDefinitions=container({"type": "InferenceAccelerator", "value": "device_1"}))
    assert "resourceRequirements of type InferenceAccelerator" in error["Message"]
    fargate = {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512"}
    error = register(containerDefinitions=container(*gpus(1)), **fargate)
    assert error["Message"] == "Tasks using the Fargate launch type do not support GPU resource requirements."
    ecs.register_task_definition(family="fargate", containerDefinitions=container(), **fargate)
    overrides = {"containerOverrides": [{"name": "app", "resourceRequirements": gpus(1)}]}
    error = refused(ecs.run_task, cluster=cluster, taskDefinition="fargate", launchType="FARGATE", overrides=overrides, networkConfiguration=default_network(platform))
    assert error["Message"] == "Tasks using the Fargate launch type do not support GPU resource requirements."
    # No instance here has a GPU, so that no type that has one can be launched.
    error = refused(launch, platform=platform, kind="g4dn.xlarge")
    assert (error["Code"], error["Message"]) == ("InvalidParameterValue", "Invalid value 'g4dn.xlarge' for InstanceType.")


def test_r40_the_type_says_how_many_tasks_have_interfaces(platform, cluster):
    define(platform, "interface", mode="awsvpc")
    network = default_network(platform)
    for kind, most in (("t3.micro", 1), ("m5.large", 2), ("none.such", 5), (None, 5)):
        agent, _session = on_ec2(platform, cluster, properties={"ecs.instance-type": kind} if kind else None)
        answer = run(platform, cluster, "interface", 5, networkConfiguration=network)
        full = [{"arn": agent.arn, "reason": "RESOURCE:ENI"}] * (most < 5)
        assert (len(answer["tasks"]), answer["failures"]) == (most, full), kind
        platform.client("ecs").deregister_container_instance(cluster=cluster, containerInstance=agent.arn, force=True)


def test_r40_an_instance_has_one_interface_for_a_task(platform, cluster):
    """A real one, whose type can have two interfaces."""
    ecs = platform.client("ecs")
    instances = launch(platform, f"echo ECS_CLUSTER={cluster} >> /etc/ecs/ecs.config\n", kind="t3.micro", role=profile(platform))
    try:
        [instance] = joined(platform, cluster, 1)
        host = instance["containerInstanceArn"]
        container = {"image": Image(platform, "interfaces").uri, "command": ["sleep", "600"], "stopTimeout": 2}
        define(platform, "own", mode="awsvpc", **container)
        define(platform, "shared", **container)
        network = default_network(platform)
        answer = run(platform, cluster, "own", 2, networkConfiguration=network)
        assert answer["failures"] == [{"arn": host, "reason": "RESOURCE:ENI"}]
        [first] = answer["tasks"]
        wait_for_task(platform, first["taskArn"], "RUNNING", cluster=cluster)
        # Tasks without one of their own fit; such as need a GPU never do: our own agent has none.
        assert run(platform, cluster, "shared")["failures"] == []
        define(platform, "gpu", resourceRequirements=gpus(1))
        assert run(platform, cluster, "gpu")["failures"] == [{"arn": host, "reason": "RESOURCE:GPU"}]

        ecs.create_service(cluster=cluster, serviceName="web", taskDefinition="own", desiredCount=1, launchType="EC2", networkConfiguration=network)
        text = event(platform, cluster, "web")
        assert text.startswith(f'(service web) {NO_PLACE}{host.rsplit("/", 1)[1]}) encountered error "RESOURCE:ENI".'), text
        ecs.stop_task(cluster=cluster, task=first["taskArn"])
        eventually(lambda: ecs.describe_services(cluster=cluster, services=["web"])["services"][0]["runningCount"] == 1, 60)
    finally:
        terminate(platform, instances)
