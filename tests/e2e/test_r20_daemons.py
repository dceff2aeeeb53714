"""r20: a daemon service has one task on each container instance that is for it. The agents speak the protocol and run nothing."""

import collections

import pytest

from agent import Agent
from conftest import eventually
from test_r40_placement import ZONES, cluster, refused, register  # noqa: F401 (a fixture)


def create(platform, cluster, definition, **more):
    ecs = platform.client("ecs")
    asked = {"launchType": "EC2", "schedulingStrategy": "DAEMON", **more}
    return ecs.create_service(cluster=cluster, serviceName="daemon", taskDefinition=definition, **asked)["service"]


def service(platform, cluster, name="daemon"):
    return platform.client("ecs").describe_services(cluster=cluster, services=[name])["services"][0]


def tasks(platform, cluster, name="daemon"):
    """The service's tasks that shall run and do."""
    ecs = platform.client("ecs")
    arns = ecs.list_tasks(cluster=cluster, serviceName=name)["taskArns"]
    found = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return [task for task in found if task["lastStatus"] == "RUNNING"]


def hosts(platform, cluster, name="daemon"):
    return collections.Counter(task["containerInstanceArn"] for task in tasks(platform, cluster, name))


def one_on_each(platform, cluster, agents):
    """Waits until exactly these have one task, and the service says so."""

    def reached():
        found = service(platform, cluster)
        counts = (found["desiredCount"], found["runningCount"], found["pendingCount"], len(found["deployments"]))
        return counts == (len(agents), len(agents), 0, 1) and hosts(platform, cluster) == {agent.arn: 1 for agent in agents}

    return eventually(reached)


def test_r20_each_instance_has_one_task_also_those_that_come_later(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES[:2]]
    ecs = platform.client("ecs")
    made = create(platform, cluster, register(platform, "daemon"))
    assert made["schedulingStrategy"] == "DAEMON"
    shares = made["deploymentConfiguration"]
    assert (shares["minimumHealthyPercent"], shares["maximumPercent"]) == (0, 100)
    one_on_each(platform, cluster, agents)
    eventually(lambda: "(service daemon) has reached a steady state." in [event["message"] for event in service(platform, cluster)["events"]])
    agents.append(Agent(platform, cluster, zone=ZONES[2]))
    one_on_each(platform, cluster, agents)

    # What stops comes again, on the same instance.
    victim = tasks(platform, cluster)[0]
    ecs.stop_task(cluster=cluster, task=victim["taskArn"])
    eventually(lambda: victim["taskArn"] not in [task["taskArn"] for task in tasks(platform, cluster)])
    one_on_each(platform, cluster, agents)

    # An instance that goes takes its task along.
    gone = agents.pop()
    ecs.deregister_container_instance(cluster=cluster, containerInstance=gone.arn, force=True)
    one_on_each(platform, cluster, agents)

    ecs.create_service(cluster=cluster, serviceName="replica", taskDefinition=register(platform, "replica"), desiredCount=0, launchType="EC2")
    for strategy, name in (("DAEMON", "daemon"), ("REPLICA", "replica")):
        listed = ecs.list_services(cluster=cluster, schedulingStrategy=strategy)["serviceArns"]
        assert [arn.rsplit("/", 1)[1] for arn in listed] == [name]
    # It need not be scaled to zero before.
    assert ecs.delete_service(cluster=cluster, service="daemon")["service"]["status"] == "DRAINING"
    eventually(lambda: service(platform, cluster)["status"] == "INACTIVE")
    assert tasks(platform, cluster) == []


def test_r20_an_instance_must_satisfy_the_constraints_and_have_room(platform, cluster):
    red = Agent(platform, cluster, attributes={"color": "red"})
    blue = Agent(platform, cluster, attributes={"color": "blue"})
    small = Agent(platform, cluster, attributes={"color": "red"}, memory=100)
    ecs = platform.client("ecs")
    constraint = lambda color: [{"type": "memberOf", "expression": f"attribute:color == {color}"}]
    create(platform, cluster, register(platform, "colored"), placementConstraints=constraint("red"))
    one_on_each(platform, cluster, [red])
    # Running tasks that no longer satisfy them go.
    ecs.update_service(cluster=cluster, service="daemon", placementConstraints=constraint("blue"))
    one_on_each(platform, cluster, [blue])
    assert small.sent == []


def test_r20_an_update_replaces_each_task_within_the_minimum(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES]
    ecs = platform.client("ecs")
    create(platform, cluster, register(platform, "updated"), deploymentConfiguration={"minimumHealthyPercent": 66})
    one_on_each(platform, cluster, agents)
    old = {task["taskArn"] for task in tasks(platform, cluster)}
    kept = sorted(old)[0]
    ecs.update_task_protection(cluster=cluster, tasks=[kept], protectionEnabled=True)
    new = register(platform, "updated")
    ecs.update_service(cluster=cluster, service="daemon", taskDefinition=new)
    fewest, most = [], []

    def all_but_the_protected():
        found = tasks(platform, cluster)
        fewest.append(len(found))
        most.extend(hosts(platform, cluster).values())
        return len(found) == 3 and old & {task["taskArn"] for task in found} == {kept}

    eventually(all_but_the_protected)
    eventually(lambda: any("was unable to stop or start tasks during a deployment" in event["message"] for event in service(platform, cluster)["events"]))
    ecs.update_task_protection(cluster=cluster, tasks=[kept], protectionEnabled=False)
    one_on_each(platform, cluster, agents)
    assert {task["taskDefinitionArn"] for task in tasks(platform, cluster)} == {new}
    assert min(fewest) >= 2 and max(most) == 1, (fewest, most)


def test_r20_the_daemon_leaves_a_draining_instance_last(platform, cluster):
    agents = [Agent(platform, cluster, zone=zone) for zone in ZONES[:2]]
    ecs = platform.client("ecs")
    create(platform, cluster, register(platform, "draining"))
    one_on_each(platform, cluster, agents)
    alone = ecs.start_task(cluster=cluster, taskDefinition=register(platform, "alone"), containerInstances=[agents[0].arn])["tasks"][0]["taskArn"]
    ecs.update_container_instances_state(cluster=cluster, containerInstances=[agents[0].arn], status="DRAINING")
    eventually(lambda: service(platform, cluster)["desiredCount"] == 1)
    assert hosts(platform, cluster) == {agent.arn: 1 for agent in agents}, "another task is still there"
    ecs.stop_task(cluster=cluster, task=alone)
    one_on_each(platform, cluster, agents[1:])
    ecs.update_container_instances_state(cluster=cluster, containerInstances=[agents[0].arn], status="ACTIVE")
    one_on_each(platform, cluster, agents)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"desiredCount": 1}, "does not support a desired count"),
        ({"placementStrategy": [{"type": "random"}]}, "does not support placement strategies"),
        ({"deploymentConfiguration": {"maximumPercent": 200}}, "does not support values above 100 for maximumPercent"),
    ],
    ids=["desired-count", "strategy", "maximum"],
)
def test_r20_what_a_daemon_service_cannot_have(platform, cluster, wrong, words):
    definition = register(platform, "wrong")
    error = refused(lambda: create(platform, cluster, definition, **wrong))
    assert error["Code"] == "InvalidParameterException" and words in error["Message"], error


def test_r20_there_are_no_daemons_on_fargate(platform, cluster):
    ecs = platform.client("ecs")
    definition = ecs.register_task_definition(
        family="no-daemon", networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512",
        containerDefinitions=[{"name": "app", "image": "busybox"}],
    )["taskDefinition"]["taskDefinitionArn"]
    error = refused(lambda: create(platform, cluster, definition, launchType="FARGATE"))
    assert error["Code"] == "InvalidParameterException" and "not supported with the FARGATE launch type" in error["Message"]
