"""Which container instance gets a task, and what is said when none does. The agents speak the protocol and run nothing."""

import collections

import botocore.exceptions
import pytest

from agent import Agent
from conftest import eventually

ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]


@pytest.fixture
def cluster(platform, request):
    """A cluster of the test's own; whatever is left in it is taken away."""
    ecs, name = platform.client("ecs"), f"placement-{request.node.name[:60].replace('[', '-').replace(']', '')}"
    ecs.create_cluster(clusterName=name)
    yield name
    for service in ecs.list_services(cluster=name)["serviceArns"]:
        ecs.delete_service(cluster=name, service=service, force=True)
    for instance in ecs.list_container_instances(cluster=name)["containerInstanceArns"]:
        ecs.deregister_container_instance(cluster=name, containerInstance=instance, force=True)


def register(platform, family, memory=256, cpu=128, port=None, host_port=None, mode=None, **more):
    """A task definition for container instances; gives its ARN."""
    container = {"name": "app", "image": "busybox", "memory": memory, "cpu": cpu}
    if port:
        container["portMappings"] = [{"containerPort": port, **({"hostPort": host_port} if host_port is not None else {})}]
    definition = {"family": family, "containerDefinitions": [container], **({"networkMode": mode} if mode else {}), **more}
    return platform.client("ecs").register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]


def run(platform, cluster, definition, count=1, **more):
    return platform.client("ecs").run_task(cluster=cluster, taskDefinition=definition, count=count, launchType="EC2", **more)


def refused(call):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call()
    return error.value.response["Error"]


def hosts_of(answer):
    return collections.Counter(task["containerInstanceArn"] for task in answer["tasks"])


def test_r11_without_a_host_port_several_copies_share_an_instance(platform, cluster):
    agent = Agent(platform, cluster)
    definition = register(platform, "dynamic", port=80)
    answer = run(platform, cluster, definition, 3)
    assert answer["failures"] == [] and hosts_of(answer) == {agent.arn: 3}
    first = answer["tasks"][0]
    assert (first["launchType"], first["lastStatus"], first["cpu"], first["memory"]) == ("EC2", "PENDING", "128", "256")
    assert first["attachments"] == [] and "platformVersion" not in first and "ephemeralStorage" not in first
    ecs = platform.client("ecs")

    def running():
        found = ecs.describe_tasks(cluster=cluster, tasks=[task["taskArn"] for task in answer["tasks"]])["tasks"]
        return found if {task["lastStatus"] for task in found} == {"RUNNING"} else None

    ports = {task["containers"][0]["networkBindings"][0]["hostPort"] for task in eventually(running)}
    assert len(ports) == 3 and min(ports) >= 32768
    sent = agent.sent[0]
    assert (sent["networkMode"], sent["containers"][0]["portMappings"]) == ("bridge", [{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}])
    assert "cpu" not in sent and "memory" not in sent, "a task without a size has no limits"
    instance = ecs.describe_container_instances(cluster=cluster, containerInstances=[agent.arn])["containerInstances"][0]
    remaining = {resource["name"]: resource for resource in instance["remainingResources"]}
    assert (remaining["CPU"]["integerValue"], remaining["MEMORY"]["integerValue"]) == (2048 - 3 * 128, 1900 - 3 * 256)
    assert ports <= {int(port) for port in remaining["PORTS"]["stringSetValue"]}
    assert (instance["runningTasksCount"], instance["agentConnected"]) == (3, True)
    statistics = ecs.describe_clusters(clusters=[cluster], include=["STATISTICS"])["clusters"][0]["statistics"]
    assert {"name": "runningEC2TasksCount", "value": "3"} in statistics

    ecs.stop_task(cluster=cluster, task=first["taskArn"])
    eventually(lambda: ecs.describe_tasks(cluster=cluster, tasks=[first["taskArn"]])["tasks"][0]["lastStatus"] == "STOPPED")


def test_r12_a_fixed_host_port_is_had_once_per_instance(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES[:2]]
    definition = register(platform, "fixed", port=80, host_port=8080)
    answer = run(platform, cluster, definition, 3)
    assert hosts_of(answer) == {agent.arn: 1 for agent in agents}
    assert {(failure["arn"], failure["reason"]) for failure in answer["failures"]} == {(agent.arn, "RESOURCE:PORTS") for agent in agents}
    reserved = register(platform, "reserved", port=22, host_port=22)
    assert {failure["reason"] for failure in run(platform, cluster, reserved)["failures"]} == {"RESOURCE:PORTS"}


def test_r12_a_service_says_why_it_found_no_place(platform, cluster):
    agent = Agent(platform, cluster)
    ecs = platform.client("ecs")
    definition = register(platform, "fixed-service", port=80, host_port=8080)
    made = ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=2, launchType="EC2")["service"]
    assert (made["launchType"], made["placementConstraints"]) == ("EC2", []) and "platformVersion" not in made

    def explained():
        service = ecs.describe_services(cluster=cluster, services=["web"])["services"][0]
        texts = [event["message"] for event in service["events"]]
        return service if any("unable to place" in text for text in texts) else None

    service = eventually(explained)
    text = next(event["message"] for event in service["events"] if "unable to place" in event["message"])
    assert text.startswith(
        "(service web) was unable to place a task because no container instance met all of its requirements. "
        f"The closest matching (container-instance {agent.id}) is already using a port required by your task."
    ), text
    assert eventually(lambda: ecs.describe_services(cluster=cluster, services=["web"])["services"][0]["runningCount"] == 1)
    # Another instance, and it goes on by itself.
    Agent(platform, cluster, zone="us-east-1b")
    eventually(lambda: ecs.describe_services(cluster=cluster, services=["web"])["services"][0]["runningCount"] == 2)


def test_r40_an_instance_without_cpu_or_memory_or_agent_says_so(platform, cluster):
    small = Agent(platform, cluster, cpu=256, memory=400)
    cases = {"cpu": register(platform, "much-cpu", cpu=512), "memory": register(platform, "much-memory", memory=512)}
    for resource, definition in cases.items():
        answer = run(platform, cluster, definition)
        assert answer["failures"] == [{"arn": small.arn, "reason": f"RESOURCE:{resource.upper()}"}], resource
    small.disconnect()
    definition = register(platform, "little", memory=32, cpu=0)
    eventually(lambda: run(platform, cluster, definition)["failures"] == [{"arn": small.arn, "reason": "AGENT"}])
    small.connect()
    eventually(lambda: not run(platform, cluster, definition)["failures"])
    platform.client("ecs").update_container_instances_state(cluster=cluster, containerInstances=[small.arn], status="DRAINING")
    error = refused(lambda: run(platform, cluster, definition))
    assert error["Message"] == "No Container Instances were found in your cluster.", "a draining instance takes nothing"


def test_r40_an_empty_cluster_is_an_error_of_the_request(platform, cluster):
    error = refused(lambda: run(platform, cluster, register(platform, "nowhere")))
    assert (error["Code"], error["Message"]) == ("InvalidParameterException", "No Container Instances were found in your cluster.")


def test_r40_what_an_instance_cannot_do_is_an_attribute_it_lacks(platform, cluster):
    agent = Agent(platform, cluster)
    awsvpc = register(platform, "interface", mode="awsvpc")
    subnets = platform.client("ec2").describe_subnets()["Subnets"]
    network = {"awsvpcConfiguration": {"subnets": [subnets[0]["SubnetId"]]}}
    assert run(platform, cluster, awsvpc, networkConfiguration=network)["failures"] == [{"arn": agent.arn, "reason": "ATTRIBUTE"}]
    error = refused(lambda: run(platform, cluster, register(platform, "plain"), networkConfiguration=network))
    assert error["Message"] == "Network Configuration is not valid for the given networkMode of this task definition."


def test_r41_constraints_hold(platform, cluster):
    red = [Agent(platform, cluster, zone=zone, attributes={"color": "red"}) for zone in ZONES[:2]]
    blue = Agent(platform, cluster, zone=ZONES[2], attributes={"color": "blue"})
    definition = register(platform, "constrained")
    member_of = lambda expression: [{"type": "memberOf", "expression": expression}]
    assert set(hosts_of(run(platform, cluster, definition, 4, placementConstraints=member_of("attribute:color == red")))) <= {agent.arn for agent in red}
    assert hosts_of(run(platform, cluster, definition, 2, placementConstraints=member_of("attribute:color != red"))) == {blue.arn: 2}
    distinct = run(platform, cluster, definition, 4, group="apart", placementConstraints=[{"type": "distinctInstance"}])
    assert sorted(hosts_of(distinct).values()) == [1, 1, 1] and len(distinct["failures"]) == 3
    own = register(platform, "own", placementConstraints=member_of("attribute:ecs.availability-zone == us-east-1c"))
    assert hosts_of(run(platform, cluster, own, 3)) == {blue.arn: 3}
    nobody = run(platform, cluster, definition, placementConstraints=member_of("attribute:color == green"))
    assert len(nobody["failures"]) == 3
    error = refused(lambda: run(platform, cluster, definition, placementConstraints=member_of("attribute:color == ")))
    assert error["Code"] == "InvalidParameterException" and "expression" in error["Message"]


def test_r42_strategies_choose(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES for _ in range(2)]
    zone_of = {agent.arn: ZONES[index // 2] for index, agent in enumerate(agents)}
    definition = register(platform, "strategies", memory=128)

    def zones(answer):
        return collections.Counter(zone_of[arn] for arn in hosts_of(answer).elements())

    packed = run(platform, cluster, definition, 6, group="packed", placementStrategy=[{"type": "binpack", "field": "memory"}])
    assert len(hosts_of(packed)) == 1
    spread = run(platform, cluster, definition, 6, group="spread", placementStrategy=[{"type": "spread", "field": "attribute:ecs.availability-zone"}])
    assert zones(spread) == dict.fromkeys(ZONES, 2)
    each = run(platform, cluster, definition, 6, group="each", placementStrategy=[{"type": "spread", "field": "instanceId"}])
    assert sorted(hosts_of(each).values()) == [1] * 6


def test_r43_strategies_in_order(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES for _ in range(2)]
    zone_of = {agent.arn: ZONES[index // 2] for index, agent in enumerate(agents)}
    definition = register(platform, "mixed", memory=128)
    strategy = [{"type": "spread", "field": "attribute:ecs.availability-zone"}, {"type": "binpack", "field": "memory"}]
    answer = run(platform, cluster, definition, 9, placementStrategy=strategy)
    hosts = hosts_of(answer)
    assert sorted(hosts.values()) == [3, 3, 3] and {zone_of[arn] for arn in hosts} == set(ZONES)


def test_r42_a_service_keeps_its_strategy_and_shows_it(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES]
    ecs = platform.client("ecs")
    definition = register(platform, "kept", memory=128)
    packed = [{"type": "binpack", "field": "MEMORY"}]
    made = ecs.create_service(
        cluster=cluster, serviceName="kept", taskDefinition=definition, desiredCount=3, launchType="EC2",
        placementStrategy=packed, placementConstraints=[{"type": "memberOf", "expression": "attribute:ecs.availability-zone != us-east-1c"}],
    )["service"]
    assert made["placementStrategy"] == packed and made["placementConstraints"][0]["type"] == "memberOf"
    tasks = lambda: ecs.list_tasks(cluster=cluster, serviceName="kept")["taskArns"]
    eventually(lambda: ecs.describe_services(cluster=cluster, services=["kept"])["services"][0]["runningCount"] == 3)
    used = {task["containerInstanceArn"] for task in ecs.describe_tasks(cluster=cluster, tasks=tasks())["tasks"]}
    assert len(used) == 1 and used <= {agent.arn for agent in agents[:2]}
    updated = ecs.update_service(cluster=cluster, service="kept", placementStrategy=[], placementConstraints=[{"type": "distinctInstance"}])["service"]
    assert (updated["placementStrategy"], updated["placementConstraints"]) == ([], [{"type": "distinctInstance"}])
    assert len(updated["deployments"]) == 1, "where tasks go is no new deployment"


def test_r42_by_default_a_service_spreads_over_zones(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES]
    ecs = platform.client("ecs")
    definition = register(platform, "default-spread", memory=128)
    ecs.create_service(cluster=cluster, serviceName="wide", taskDefinition=definition, desiredCount=6, launchType="EC2")
    eventually(lambda: ecs.describe_services(cluster=cluster, services=["wide"])["services"][0]["runningCount"] == 6)
    arns = ecs.list_tasks(cluster=cluster, serviceName="wide")["taskArns"]
    on = collections.Counter(task["containerInstanceArn"] for task in ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"])
    assert on == {agent.arn: 2 for agent in agents}


def test_r45_fargate_takes_no_placement(platform, cluster):
    ecs = platform.client("ecs")
    definition = ecs.register_task_definition(
        family="on-fargate", networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512",
        containerDefinitions=[{"name": "app", "image": "busybox"}],
    )["taskDefinition"]["taskDefinitionArn"]
    for more, words in (
        ({"placementStrategy": [{"type": "random"}]}, "Placement strategies are not supported with FARGATE launch type."),
        ({"placementConstraints": [{"type": "distinctInstance"}]}, "Placement constraints are not supported with FARGATE launch type."),
    ):
        error = refused(lambda: ecs.run_task(cluster=cluster, taskDefinition=definition, launchType="FARGATE", **more))
        assert error["Message"] == words
    error = refused(lambda: ecs.run_task(cluster=cluster, taskDefinition=register(platform, "not-fargate"), launchType="FARGATE"))
    assert error["Message"] == "Task definition does not support launch_type FARGATE."


def test_r04_a_task_is_started_where_one_says(platform, cluster):
    one, two = Agent(platform, cluster), Agent(platform, cluster, memory=100)
    ecs = platform.client("ecs")
    definition = register(platform, "started")
    answer = ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[one.arn, two.id, "f" * 32])
    assert [task["containerInstanceArn"] for task in answer["tasks"]] == [one.arn]
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:MEMORY", "MISSING"]
    error = refused(lambda: ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[]))
    assert error["Code"] == "InvalidParameterException"


def test_r04_a_draining_instance_is_left_within_the_percentages(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES[:2]]
    ecs = platform.client("ecs")
    definition = register(platform, "moved", memory=128)
    ecs.create_service(cluster=cluster, serviceName="moved", taskDefinition=definition, desiredCount=4, launchType="EC2")
    described = lambda: ecs.describe_services(cluster=cluster, services=["moved"])["services"][0]
    eventually(lambda: described()["runningCount"] == 4)
    ecs.update_container_instances_state(cluster=cluster, containerInstances=[agents[0].arn], status="DRAINING")
    fewest = []

    def moved():
        fewest.append(described()["runningCount"])
        arns = ecs.list_tasks(cluster=cluster, serviceName="moved")["taskArns"]
        on = collections.Counter(task["containerInstanceArn"] for task in ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"])
        return on == {agents[1].arn: 4}

    eventually(moved)
    assert min(fewest) >= 4, fewest
