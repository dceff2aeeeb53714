"""r20: a service defines how many tasks run; r21: it feeds its target groups; r23: a load balancer cannot be added later;
r91: to scale, change the number of tasks."""

import uuid

import botocore.exceptions
import pytest

from conftest import Image, default_network, eventually, register, task


@pytest.fixture
def ecs(platform):
    client = platform.client("ecs")
    client.create_cluster()
    return client


@pytest.fixture
def name(ecs):
    """A name for a service and its family; the service is gone afterwards."""
    name = f"r20-{uuid.uuid4().hex[:8]}"
    yield name
    try:
        ecs.delete_service(service=name, force=True)
    except botocore.exceptions.ClientError:
        return
    eventually(lambda: ecs.describe_services(services=[name])["services"][0]["status"] == "INACTIVE", 90)


def container(image, script="sleep 600", **more):
    # A shell as process 1 ignores SIGTERM.
    return {"name": "app", "image": image, "entryPoint": ["/bin/sh", "-c"], "command": [script], "stopTimeout": 2, **more}


def create(platform, name, count, **more):
    return platform.client("ecs").create_service(
        serviceName=name,
        taskDefinition=name,
        desiredCount=count,
        launchType="FARGATE",
        networkConfiguration=default_network(platform),
        **more,
    )["service"]


def service(platform, name):
    return platform.client("ecs").describe_services(services=[name])["services"][0]


def running(platform, name):
    """The tasks of a service that are RUNNING."""
    ecs = platform.client("ecs")
    arns = ecs.list_tasks(serviceName=name)["taskArns"]
    tasks = ecs.describe_tasks(tasks=arns)["tasks"] if arns else []
    return [found for found in tasks if found["lastStatus"] == "RUNNING"]


def stable(platform, name, timeout=90):
    """Waits for the steady state as `aws ecs wait services-stable` does, and a little more exactly."""

    def reached():
        found = service(platform, name)
        return found if len(found["deployments"]) == 1 and found["runningCount"] == found["desiredCount"] and found["pendingCount"] == 0 else None

    return eventually(reached, timeout)


def messages(platform, name):
    return [event["message"] for event in service(platform, name)["events"]]


def test_r20_the_desired_count_is_kept_and_events_tell(platform, ecs, image, name):
    register(platform, name, container(image))
    made = create(platform, name, 2)
    assert (made["status"], made["desiredCount"], made["launchType"]) == ("ACTIVE", 2, "FARGATE")
    assert made["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    platform.aws("ecs", "wait", "services-stable", "--services", name)
    eventually(lambda: f"(service {name}) has reached a steady state." in messages(platform, name))
    before = {found["taskArn"] for found in running(platform, name)}
    assert len(before) == 2
    assert all(found["group"] == f"service:{name}" and found["startedBy"].startswith("ecs-svc/") for found in running(platform, name))
    victim = sorted(before)[0]
    ecs.stop_task(task=victim)

    def replaced():
        now = {found["taskArn"] for found in running(platform, name)}
        return now if len(now) == 2 and victim not in now else None

    assert len(eventually(replaced) & before) == 1
    texts = messages(platform, name)
    assert any(text.startswith(f"(service {name}) has started ") for text in texts)
    assert f"(service {name}) (deployment {made['deployments'][0]['id']}) deployment completed." in texts


def test_r91_two_to_five_to_one_means_exactly_that_many(platform, ecs, image, name):
    register(platform, name, container(image))
    create(platform, name, 2)
    for count in (2, 5, 1, 0, 1):
        ecs.update_service(service=name, desiredCount=count)
        eventually(lambda: len(running(platform, name)) == count and stable(platform, name), 90)
    assert service(platform, name)["deployments"][0]["desiredCount"] == 1


def test_r20_an_update_rolls_to_the_new_revision(platform, ecs, image, name):
    register(platform, name, container(image))
    create(platform, name, 2)
    stable(platform, name)
    new = register(platform, name, container(image, "sleep 601"))
    seen = set()
    updated = ecs.update_service(service=name, taskDefinition=name)["service"]
    assert [deployment["status"] for deployment in updated["deployments"]] == ["PRIMARY", "ACTIVE"]

    def rolled():
        found = running(platform, name)
        seen.add(len(found))
        return len(found) == 2 and {one["taskDefinitionArn"] for one in found} == {new} and stable(platform, name)

    assert eventually(rolled, 90)["taskDefinition"] == new
    # 100 % of two tasks stayed, 200 % were never exceeded.
    assert min(seen) >= 2 and max(seen) <= 4
    tasks = {found["taskArn"] for found in running(platform, name)}
    ecs.update_service(service=name, forceNewDeployment=True)
    eventually(lambda: stable(platform, name) and len(running(platform, name)) == 2 and not tasks & {t["taskArn"] for t in running(platform, name)}, 90)


def test_r20_a_task_that_never_starts_is_not_tried_in_a_loop(platform, ecs, image, name):
    register(platform, name, container(image.replace("busybox:", "busybox:no-such-")))
    create(platform, name, 1)
    eventually(lambda: service(platform, name)["deployments"][0]["failedTasks"] >= 2, 60)
    stopped = ecs.list_tasks(serviceName=name, desiredStatus="STOPPED")["taskArns"]
    assert len(stopped) < 10
    assert task(platform, stopped[0])["stopCode"] == "TaskFailedToStart"


def test_r20_the_end_of_a_service(platform, ecs, image, name):
    register(platform, name, container(image))
    create(platform, name, 1)
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="Creation of service was not idempotent."):
        create(platform, name, 1)
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="scaled above 0"):
        ecs.delete_service(service=name)
    with pytest.raises(ecs.exceptions.ClusterContainsServicesException):
        ecs.delete_cluster(cluster="default")
    stable(platform, name)
    ecs.update_service(service=name, desiredCount=0)
    assert ecs.delete_service(service=name)["service"]["status"] == "DRAINING"
    platform.aws("ecs", "wait", "services-inactive", "--services", name)
    assert running(platform, name) == []
    assert all(name not in arn for arn in ecs.list_services(maxResults=100)["serviceArns"])
    with pytest.raises(ecs.exceptions.ServiceNotActiveException):
        ecs.update_service(service=name, desiredCount=1)
    with pytest.raises(ecs.exceptions.ServiceNotFoundException, match="Service not found."):
        ecs.update_service(service="no-such", desiredCount=1)
    assert ecs.describe_services(services=["no-such"])["failures"][0]["reason"] == "MISSING"


@pytest.mark.parametrize(
    "field, change",
    [
        ("strategy other than ROLLING", {"deploymentConfiguration": {"strategy": "BLUE_GREEN"}}),
        ("serviceRegistries", {"serviceRegistries": [{"registryArn": "x"}]}),
        ("deploymentController CODE_DEPLOY", {"deploymentController": {"type": "CODE_DEPLOY"}}),
        ("enableExecuteCommand", {"enableExecuteCommand": True}),
    ],
)
def test_r20_what_comes_later_is_refused_by_name(platform, image, name, field, change):
    register(platform, name, container(image))
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        create(platform, name, 0, **change)
    assert raised.value.response["Error"]["Message"].endswith(field)


@pytest.fixture
def target_group(platform):
    """A target group of type ip; gone afterwards."""
    elb = platform.client("elbv2")
    vpc = platform.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    group = elb.create_target_group(
        Name=f"tg-{uuid.uuid4().hex[:8]}",
        Protocol="HTTP",
        Port=80,
        VpcId=vpc,
        TargetType="ip",
        HealthCheckIntervalSeconds=5,
        HealthCheckTimeoutSeconds=2,
        HealthyThresholdCount=2,
    )["TargetGroups"][0]
    elb.modify_target_group_attributes(
        TargetGroupArn=group["TargetGroupArn"], Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "1"}]
    )
    yield group["TargetGroupArn"]
    elb.delete_target_group(TargetGroupArn=group["TargetGroupArn"])


@pytest.fixture
def balancer(platform, target_group):
    """A load balancer that forwards to it: its DNS name."""
    elb = platform.client("elbv2")
    subnets = [subnet["SubnetId"] for subnet in platform.client("ec2").describe_subnets()["Subnets"]]
    made = elb.create_load_balancer(Name=f"lb-{uuid.uuid4().hex[:8]}", Subnets=subnets)["LoadBalancers"][0]
    listener = elb.create_listener(
        LoadBalancerArn=made["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": target_group}],
    )["Listeners"][0]
    yield made
    elb.delete_listener(ListenerArn=listener["ListenerArn"])
    elb.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


def serving(image):
    script = "mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec /bin/busybox httpd -f -p 80 -h /tmp/www"
    return container(image, script.replace("mkdir", "/bin/busybox mkdir"), portMappings=[{"containerPort": 80}])


def test_r21_a_target_group_without_a_load_balancer_is_refused(platform, image, name, target_group):
    register(platform, name, serving(image))
    balancers = [{"targetGroupArn": target_group, "containerName": "app", "containerPort": 80}]
    with pytest.raises(botocore.exceptions.ClientError, match="does not have an associated load balancer."):
        create(platform, name, 1, loadBalancers=balancers)


def test_r21_the_service_feeds_its_target_group(platform, ecs, image, name, target_group, balancer):
    register(platform, name, serving(image))
    balancers = [{"targetGroupArn": target_group, "containerName": "app", "containerPort": 80}]
    for wrong, text in (({"containerName": "x"}, "container x does not exist"), ({"containerPort": 81}, "container port 81")):
        with pytest.raises(botocore.exceptions.ClientError, match=text):
            create(platform, name, 1, loadBalancers=[{**balancers[0], **wrong}])
    create(platform, name, 2, loadBalancers=balancers)
    elb = platform.client("elbv2")

    def states():
        health = elb.describe_target_health(TargetGroupArn=target_group)["TargetHealthDescriptions"]
        return sorted((one["Target"]["Id"], one["TargetHealth"]["State"]) for one in health)

    eventually(lambda: [state for _, state in states()] == ["healthy", "healthy"], 90)
    addresses = sorted(found["containers"][0]["networkInterfaces"][0]["privateIpv4Address"] for found in running(platform, name))
    assert [address for address, _ in states()] == addresses
    eventually(lambda: f"(service {name}) has reached a steady state." in messages(platform, name))
    assert any("registered 1 targets in (target-group" in text for text in messages(platform, name))

    # Rolling on: targets come and go with the tasks.
    ecs.update_service(service=name, forceNewDeployment=True)
    eventually(lambda: stable(platform, name) and [state for _, state in states()] == ["healthy", "healthy"] and not set(addresses) & {a for a, _ in states()}, 120)
    assert any("has begun draining connections on 1 tasks." in text for text in messages(platform, name))
    ecs.update_service(service=name, desiredCount=0)
    eventually(lambda: states() == [] and running(platform, name) == [], 60)


def test_r23_a_load_balancer_cannot_be_added_later(platform, ecs, image, name, target_group, balancer):
    register(platform, name, serving(image))
    create(platform, name, 0)
    balancers = [{"targetGroupArn": target_group, "containerName": "app", "containerPort": 80}]
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="--allow-load-balancer-updates"):
        ecs.update_service(service=name, loadBalancers=balancers)
    assert service(platform, name)["loadBalancers"] == []
    # Repeating what is there is no change.
    ecs.update_service(service=name, loadBalancers=[])


def test_r23_unless_the_operator_allows_it(own_platform):
    platform = own_platform("--allow-load-balancer-updates")
    ecs, elb = platform.client("ecs"), platform.client("elbv2")
    ecs.create_cluster()
    register(platform, "web", {"name": "app", "image": "i", "portMappings": [{"containerPort": 80}]})
    create(platform, "web", 0)
    vpc = platform.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    group = elb.create_target_group(Name="tg", Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip")["TargetGroups"][0]["TargetGroupArn"]
    balancers = [{"targetGroupArn": group, "containerName": "app", "containerPort": 80}]
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="does not have an associated load balancer."):
        ecs.update_service(service="web", loadBalancers=balancers)
    subnets = [subnet["SubnetId"] for subnet in platform.client("ec2").describe_subnets()["Subnets"]]
    made = elb.create_load_balancer(Name="lb", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    elb.create_listener(LoadBalancerArn=made, Protocol="HTTP", Port=80, DefaultActions=forward)
    updated = ecs.update_service(service="web", loadBalancers=balancers)["service"]
    assert updated["loadBalancers"] == balancers
    assert [deployment["status"] for deployment in updated["deployments"]] == ["PRIMARY", "ACTIVE"]


def test_r20_all_tasks_of_a_deployment_run_the_image_its_tag_meant_first(platform, ecs, name):
    def push(version):
        return Image(platform, name, tag="live", config={"Labels": {"version": version}})

    first = push("1")
    register(platform, name, container(first.uri))
    create(platform, name, 1)
    stable(platform, name)
    second = push("2")
    assert second.uri == first.uri and second.digest != first.digest
    ecs.update_service(service=name, desiredCount=3)
    stable(platform, name)
    containers = [found["containers"][0] for found in running(platform, name)]
    assert [c["imageDigest"] for c in containers] == [first.digest] * 3
    # The tag is what was asked for, and what is shown.
    assert {c["image"] for c in containers} == {first.uri}

    # A new deployment asks again.
    ecs.update_service(service=name, forceNewDeployment=True)
    stable(platform, name)
    assert [found["containers"][0]["imageDigest"] for found in running(platform, name)] == [second.digest] * 3

    # Who does not want that gets what the tag means each time.
    register(platform, name, container(first.uri, versionConsistency="disabled"))
    ecs.update_service(service=name, taskDefinition=name, desiredCount=1)
    stable(platform, name)
    third = push("3")
    ecs.update_service(service=name, desiredCount=2)
    stable(platform, name)
    digests = sorted(found["containers"][0]["imageDigest"] for found in running(platform, name))
    assert digests == sorted([second.digest, third.digest])
    shown = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["containerDefinitions"][0]
    assert shown["versionConsistency"] == "disabled"
    with pytest.raises(botocore.exceptions.ClientError, match="versionConsistency"):
        register(platform, name, container(first.uri, versionConsistency="sometimes"))


def test_r20_platform_version_and_strategy_are_kept_as_given(platform, ecs, image, name):
    register(platform, name, container(image))
    ecs.create_cluster(clusterName=name, capacityProviders=["FARGATE"])
    strategy = [{"capacityProvider": "FARGATE", "weight": 7, "base": 2}]
    network = default_network(platform)
    made = ecs.create_service(
        cluster=name,
        serviceName=name,
        taskDefinition=name,
        desiredCount=0,
        networkConfiguration=network,
        capacityProviderStrategy=strategy,
        platformVersion="1.4.0",
    )["service"]
    assert made["capacityProviderStrategy"] == made["deployments"][0]["capacityProviderStrategy"] == strategy
    assert made["platformVersion"] == "1.4.0" and "launchType" not in made
    updated = ecs.update_service(cluster=name, service=name, platformVersion="LATEST")["service"]
    assert updated["platformVersion"] == "LATEST" and updated["capacityProviderStrategy"] == strategy
    assert updated["deployments"][0]["id"] != made["deployments"][0]["id"]
    ecs.delete_service(cluster=name, service=name)
    eventually(lambda: ecs.describe_services(cluster=name, services=[name])["services"][0]["status"] == "INACTIVE")
    ecs.delete_cluster(cluster=name)


def test_r20_an_inactive_service_is_told_but_not_changed(platform, ecs, image, name):
    definition = register(platform, name, container(image))
    create(platform, name, 0)
    ecs.delete_service(service=name)
    eventually(lambda: service(platform, name)["status"] == "INACTIVE")
    over = service(platform, name)
    assert (over["taskDefinition"], over["launchType"], over["deployments"]) == (definition, "FARGATE", [])
    with pytest.raises(ecs.exceptions.ServiceNotActiveException, match="Service was not ACTIVE."):
        ecs.update_service(service=name, desiredCount=1)
    assert ecs.delete_service(service=name, force=True)["service"]["status"] == "INACTIVE"
    with pytest.raises(ecs.exceptions.ServiceNotFoundException):
        ecs.update_service(service="no-such", desiredCount=1)


def test_r20_a_service_whose_role_is_gone_says_so(platform, ecs, image, name):
    role = f"arn:aws:iam::123456789012:role/{name}"
    register(platform, name, container(image), taskRoleArn=role)
    create(platform, name, 1)
    eventually(lambda: any(f"failed to launch a task with (error ECS was unable to assume the role '{role}'" in text for text in messages(platform, name)))
    assert running(platform, name) == []
