"""Availability-zone rebalancing: tasks come back to a zone that was away, and the service never has fewer than it shall."""

import threading

import botocore.exceptions
import pytest

from conftest import EXECUTION_ROLE, Image, default_network, eventually, register
from instances import joined, launch, profile, terminate, wait_for

CLUSTER = "zones"
SERVE = {"entryPoint": ["/bin/sh", "-c"], "command": ["exec httpd -f -p 80 -h /"], "stopTimeout": 2}


@pytest.fixture
def ecs(platform):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName=CLUSTER)
    return ecs


def bridged(platform, family, **more):
    container = {"name": "app", "image": Image(platform, "busybox").uri, "memory": 32, "portMappings": [{"containerPort": 80}], **SERVE}
    definition = platform.client("ecs").register_task_definition(
        family=family, networkMode="bridge", executionRoleArn=EXECUTION_ROLE, containerDefinitions=[container], requiresCompatibilities=["EC2"], **more
    )
    return definition["taskDefinition"]["taskDefinitionArn"]


def delete(ecs, service):
    ecs.delete_service(cluster=CLUSTER, service=service, force=True)
    eventually(lambda: ecs.describe_services(cluster=CLUSTER, services=[service])["services"][0]["status"] == "INACTIVE")


def described(ecs, service):
    return ecs.describe_services(cluster=CLUSTER, services=[service])["services"][0]


def events(ecs, service):
    """What the service has said, the oldest first."""
    return [event["message"] for event in reversed(described(ecs, service)["events"])]


def zones(ecs, service):
    """How many RUNNING tasks each zone has."""
    arns = ecs.list_tasks(cluster=CLUSTER, serviceName=service)["taskArns"]
    tasks = ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"] if arns else []
    found = [task["availabilityZone"] for task in tasks if task["lastStatus"] == "RUNNING" and task["desiredStatus"] == "RUNNING"]
    return {zone: found.count(zone) for zone in sorted(set(found))}


class Watch:
    """Looks at a service again and again, until asked for the fewest tasks that it saw running."""

    def __init__(self, ecs, service):
        self.seen, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self.look, args=(ecs, service))
        self.thread.start()

    def look(self, ecs, service):
        while not self.over.is_set():
            # One call: a task that comes between listing and describing would be missed, while the one that it replaces is gone.
            self.seen.append(described(ecs, service)["runningCount"])

    def fewest(self):
        self.over.set()
        self.thread.join()
        return min(self.seen)


def test_r20_tasks_return_to_a_zone_that_was_away(platform, ecs):
    role = profile(platform)
    script = f"echo ECS_CLUSTER={CLUSTER} >> /etc/ecs/ecs.config\n"
    machines = []
    for zone in "ab":
        machines += launch(platform, script, role=role, Placement={"AvailabilityZone": f"us-east-1{zone}"})
    try:
        joined(platform, CLUSTER, 2)
        made = ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition=bridged(platform, "zoned"), desiredCount=4, launchType="EC2")
        assert made["service"]["availabilityZoneRebalancing"] == "ENABLED"
        eventually(lambda: zones(ecs, "web") == {"us-east-1a": 2, "us-east-1b": 2})
        ec2 = platform.client("ec2")
        ec2.stop_instances(InstanceIds=machines[1:])
        wait_for(platform, machines[1], "stopped")
        # The registration of the stopped instance remains, so the zone is there, but nothing can be started in it.
        full = "(service web) is unable to place a task in us-east-1b because no container instance met all of its requirements."
        eventually(lambda: zones(ecs, "web") == {"us-east-1a": 4} and full in events(ecs, "web"))
        watch = Watch(ecs, "web")
        try:
            ec2.start_instances(InstanceIds=machines[1:])
            eventually(lambda: zones(ecs, "web") == {"us-east-1a": 2, "us-east-1b": 2}, 120)
        finally:
            fewest = watch.fewest()
        assert fewest == 4, watch.seen
        over = "(service web) is AZ balanced with 2 tasks in us-east-1a and 2 tasks in us-east-1b."
        eventually(lambda: over in events(ecs, "web"))
        said = events(ecs, "web")
        begun = "(service web) is not AZ balanced with 4 tasks in us-east-1a and 0 in us-east-1b. AZ Rebalancing in progress."
        assert said.count(begun) == said.count(full) == said.count(over) == 1, said
        came = [text for text in said if "tasks in us-east-1b to AZ Rebalance: (task " in text]
        went = [text for text in said if "running tasks in us-east-1a due to AZ rebalancing: (task " in text]
        assert came and went, said
        assert said.index(begun) < said.index(came[0]) < said.index(went[0]) < said.index(over), said
        assert described(ecs, "web")["runningCount"] == 4
        delete(ecs, "web")
    finally:
        terminate(platform, machines)


def test_r20_fargate_tasks_move_to_a_zone_that_is_added(platform, ecs):
    app = {"name": "app", "image": Image(platform, "busybox").uri, **SERVE}
    definition = register(platform, "zoned-fargate", app)
    subnets = {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in platform.client("ec2").describe_subnets()["Subnets"]}
    network = default_network(platform)
    network["awsvpcConfiguration"]["subnets"] = [subnets["us-east-1a"], subnets["us-east-1b"]]
    made = ecs.create_service(
        cluster=CLUSTER, serviceName="fargate", taskDefinition=definition, desiredCount=3, launchType="FARGATE", networkConfiguration=network, availabilityZoneRebalancing="DISABLED"
    )
    assert made["service"]["availabilityZoneRebalancing"] == "DISABLED"
    eventually(lambda: "(service fargate) has reached a steady state." in events(ecs, "fargate"))
    # What goes at a scale-in leaves the zones in balance; one task is protected, so its zone keeps both of its own.
    ecs.update_service(cluster=CLUSTER, service="fargate", desiredCount=2)
    eventually(lambda: zones(ecs, "fargate") == {"us-east-1a": 1, "us-east-1b": 1})
    ecs.update_service(cluster=CLUSTER, service="fargate", desiredCount=4)
    eventually(lambda: zones(ecs, "fargate") == {"us-east-1a": 2, "us-east-1b": 2})
    arns = ecs.list_tasks(cluster=CLUSTER, serviceName="fargate")["taskArns"]
    tasks = ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"]
    kept = [task["taskArn"] for task in tasks if task["availabilityZone"] == "us-east-1a"]
    answer = ecs.update_task_protection(cluster=CLUSTER, tasks=kept, protectionEnabled=True)
    assert answer["failures"] == [] and len(kept) == 2
    ecs.update_service(cluster=CLUSTER, service="fargate", desiredCount=2)
    eventually(lambda: zones(ecs, "fargate") == {"us-east-1a": 2})
    # Off balance, but nothing of it may be stopped: not a task is started in vain.
    updated = ecs.update_service(cluster=CLUSTER, service="fargate", availabilityZoneRebalancing="ENABLED")
    assert updated["service"]["availabilityZoneRebalancing"] == "ENABLED"
    assert ecs.update_service(cluster=CLUSTER, service="fargate", desiredCount=2)["service"]["availabilityZoneRebalancing"] == "ENABLED"
    ecs.update_task_protection(cluster=CLUSTER, tasks=kept[:1], protectionEnabled=False)
    eventually(lambda: zones(ecs, "fargate") == {"us-east-1a": 1, "us-east-1b": 1})
    assert kept[1] in ecs.list_tasks(cluster=CLUSTER, serviceName="fargate")["taskArns"]
    assert len([text for text in events(ecs, "fargate") if "to AZ Rebalance" in text]) == 1
    delete(ecs, "fargate")


def test_r20_what_rebalancing_does_not_go_together_with(platform, ecs):
    definition = bridged(platform, "unzoned")

    def create(name="idle", **more):
        arguments = {"taskDefinition": definition, "desiredCount": 0, "launchType": "EC2", **more}
        return ecs.create_service(cluster=CLUSTER, serviceName=name, **arguments)["service"]["availabilityZoneRebalancing"]

    def refused(call, **more):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call(availabilityZoneRebalancing="ENABLED", **more)
        assert error.value.response["Error"]["Code"] == "InvalidParameterException", error.value
        return error.value.response["Error"]["Message"]

    zone, by_instance = ({"type": "spread", "field": field} for field in ("attribute:ecs.availability-zone", "instanceId"))
    in_a = [{"type": "memberOf", "expression": "attribute:ecs.availability-zone == us-east-1a"}]
    halves = {"maximumPercent": 100, "minimumHealthyPercent": 50}
    cases = [
        ({"placementStrategy": [by_instance, zone]}, "placement strategy"),
        ({"placementStrategy": [{"type": "binpack", "field": "memory"}]}, "placement strategy"),
        ({"deploymentConfiguration": halves}, "maximumPercent"),
        ({"placementConstraints": in_a}, "placement constraints"),
        ({"taskDefinition": bridged(platform, "unzoned-too", placementConstraints=in_a)}, "placement constraints"),
    ]
    for number, (more, word) in enumerate(cases):
        assert word in refused(create, **more), more
        assert create(f"idle-{number}", **more) == "DISABLED", more
        delete(ecs, f"idle-{number}")
    with pytest.raises(botocore.exceptions.ClientError, match="daemon"):
        ecs.create_service(cluster=CLUSTER, serviceName="idle", taskDefinition=definition, launchType="EC2", schedulingStrategy="DAEMON", availabilityZoneRebalancing="ENABLED")
    with pytest.raises(botocore.exceptions.ClientError, match="availabilityZoneRebalancing"):
        create(availabilityZoneRebalancing="SOMETIMES")
    assert create(placementStrategy=[zone, by_instance]) == "ENABLED"
    update = lambda **more: ecs.update_service(cluster=CLUSTER, service="idle", **more)["service"]["availabilityZoneRebalancing"]
    assert "maximumPercent" in refused(update, deploymentConfiguration=halves)
    with pytest.raises(botocore.exceptions.ClientError, match="maximumPercent"):
        update(deploymentConfiguration=halves)
    assert update(deploymentConfiguration=halves, availabilityZoneRebalancing="DISABLED") == "DISABLED"
    assert update() == "DISABLED"
    delete(ecs, "idle")
