"""r90: no instances to provision, only task definitions; r93: tasks get the CPU and memory of their definition."""

import uuid

import botocore.exceptions
import pytest

from conftest import EXECUTION_ROLE, default_network, eventually, log_lines, logging, register, run_task, task, wait_for


@pytest.fixture
def ecs(platform):
    client = platform.client("ecs")
    client.create_cluster()
    return client


@pytest.fixture
def family():
    return f"r90-{uuid.uuid4().hex[:8]}"


def shell(image, script, **more):
    # A shell as process 1 ignores SIGTERM unless it traps it.
    return {"name": "app", "image": image, "entryPoint": ["/bin/sh", "-c"], "command": [script], "stopTimeout": 2, **more}


def test_r90_a_task_lives_from_provisioning_to_stopped(platform, ecs, image, family):
    definition = register(platform, family, shell(image, "trap 'exit 7' TERM; while :; do sleep 0.05; done"))
    network = default_network(platform)
    answer = ecs.run_task(taskDefinition=family, launchType="FARGATE", networkConfiguration=network, tags=[{"key": "a", "value": "b"}])
    made = answer["tasks"][0]
    assert answer["failures"] == []
    assert (made["lastStatus"], made["desiredStatus"], made["launchType"]) == ("PROVISIONING", "RUNNING", "FARGATE")
    assert (made["cpu"], made["memory"], made["platformVersion"]) == ("256", "512", "1.4.0")
    assert made["group"] == f"family:{family}" and made["taskDefinitionArn"] == definition
    assert "containerInstanceArn" not in made
    arn = made["taskArn"]
    ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    running = task(platform, arn)
    details = {pair["name"]: pair["value"] for pair in running["attachments"][0]["details"]}
    assert running["attachments"][0]["status"] == "ATTACHED"
    assert details["networkInterfaceId"].startswith("eni-")
    assert running["containers"][0]["networkInterfaces"][0]["privateIpv4Address"] == details["privateIPv4Address"]
    assert running["containers"][0]["imageDigest"].startswith("sha256:")
    assert running["connectivity"] == "CONNECTED"
    assert running["createdAt"] <= running["pullStartedAt"] <= running["startedAt"]
    assert arn in ecs.list_tasks(family=family)["taskArns"]
    # Nobody sees the host.
    assert ecs.list_container_instances()["containerInstanceArns"] == []
    assert all("longshore" not in arn for arn in ecs.list_clusters()["clusterArns"])

    ecs.stop_task(task=arn, reason="enough")
    ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    stopped = task(platform, arn)
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    assert stopped["containers"][0]["exitCode"] == 7
    assert stopped["attachments"][0]["status"] == "DELETED"
    assert stopped["startedAt"] <= stopped["stoppingAt"] <= stopped["stoppedAt"]
    assert arn not in ecs.list_tasks(family=family)["taskArns"]
    assert arn in ecs.list_tasks(family=family, desiredStatus="STOPPED")["taskArns"]
    ec2 = platform.client("ec2")
    with pytest.raises(botocore.exceptions.ClientError, match="NotFound"):
        ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])


def test_r90_why_tasks_stop(platform, ecs, image, family):
    register(platform, family, shell(image, "exit 3"))
    ended = wait_for(platform, run_task(platform, family), "STOPPED")
    assert (ended["stopCode"], ended["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")
    assert ended["containers"][0]["exitCode"] == 3
    register(platform, family, shell(image.replace("busybox:", "busybox:no-such-"), "true"))
    failed = wait_for(platform, run_task(platform, family), "STOPPED")
    assert failed["stopCode"] == "TaskFailedToStart"
    assert "CannotPullContainerError" in failed["stoppedReason"]
    assert "startedAt" not in failed


def test_r90_overrides_and_idempotency(platform, ecs, image, family):
    group = f"/r90/{family}"
    platform.client("logs").create_log_group(logGroupName=group)
    container = shell(image, "echo default", environment=[{"name": "A", "value": "1"}], logConfiguration=logging(group))
    register(platform, family, container)
    overrides = {"containerOverrides": [{"name": "app", "command": ["echo changed $A $B"], "environment": [{"name": "B", "value": "2"}]}]}
    request = dict(
        taskDefinition=family,
        launchType="FARGATE",
        networkConfiguration=default_network(platform),
        overrides=overrides,
        clientToken=uuid.uuid4().hex,
        startedBy="r90",
    )
    first = ecs.run_task(**request)["tasks"][0]["taskArn"]
    assert [found["taskArn"] for found in ecs.run_task(**request)["tasks"]] == [first]
    with pytest.raises(botocore.exceptions.ClientError, match="ConflictException"):
        ecs.run_task(**{**request, "startedBy": "other"})
    assert first in ecs.list_tasks(startedBy="r90")["taskArns"] + ecs.list_tasks(startedBy="r90", desiredStatus="STOPPED")["taskArns"]
    wait_for(platform, first, "STOPPED")
    stream = f"test/app/{first.rsplit('/', 1)[1]}"
    assert eventually(lambda: log_lines(platform, group, stream)) == ["changed 1 2"]
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="Override for container named x"):
        ecs.run_task(**{**request, "clientToken": "", "overrides": {"containerOverrides": [{"name": "x"}]}})


def test_r90_overrides_are_bound_by_the_task(platform, ecs, image, family):
    group = f"/r90o/{family}"
    platform.client("logs").create_log_group(logGroupName=group)
    register(platform, family, shell(image, "echo kept", logConfiguration=logging(group)))
    request = dict(taskDefinition=family, launchType="FARGATE", networkConfiguration=default_network(platform))

    def refusal(**overrides):
        with pytest.raises(botocore.exceptions.ClientError) as raised:
            ecs.run_task(**request, overrides=overrides)
        return raised.value.response["Error"]["Message"]

    assert refusal(containerOverrides=[{"name": "app", "memory": 1024}]) == "The 'memory' setting for container 'app' is greater than for the task."
    assert "total 'cpu'" in refusal(containerOverrides=[{"name": "app", "cpu": 512}])
    assert "more than one override" in refusal(containerOverrides=[{"name": "app"}, {"name": "app", "cpu": 1}])
    assert refusal(taskRoleArn="arn:aws:iam::123456789012:role/nobody").startswith("ECS was unable to assume the role 'arn:aws:iam::123456789012:role/nobody'")
    assert refusal(taskRoleArn="arn:aws:s3:::bucket") == "Role is not valid"
    # With a larger task the same container fits; an empty command is none.
    larger = {"cpu": "512", "memory": "2 GB", "containerOverrides": [{"name": "app", "memory": 1024, "command": []}]}
    arn = ecs.run_task(**request, overrides=larger)["tasks"][0]["taskArn"]
    ended = wait_for(platform, arn, "STOPPED")
    assert (ended["memory"], ended["containers"][0]["memory"], ended["containers"][0]["exitCode"]) == ("2048", "1024", 0)
    assert eventually(lambda: log_lines(platform, group, f"test/app/{arn.rsplit('/', 1)[1]}")) == ["kept"]


def test_r90_a_token_stands_for_one_request(platform, ecs, image, family):
    register(platform, family, shell(image, "sleep 600"))
    request = dict(taskDefinition=family, launchType="FARGATE", networkConfiguration=default_network(platform), clientToken=uuid.uuid4().hex)
    arn = ecs.run_task(**request)["tasks"][0]["taskArn"]
    with pytest.raises(botocore.exceptions.ClientError, match="ConflictException"):
        ecs.run_task(**request, group="other")
    assert ecs.run_task(**request)["tasks"][0]["taskArn"] == arn
    ecs.stop_task(task=arn)


def test_r90_a_task_whose_essential_container_never_starts_never_runs(platform, ecs, image, family):
    slow = {**shell(image, "sleep 600", startTimeout=2), "name": "slow", "essential": False}
    register(platform, family, slow, shell(image, "true", dependsOn=[{"containerName": "slow", "condition": "SUCCESS"}]))
    ended = wait_for(platform, run_task(platform, family), "STOPPED")
    assert (ended["stopCode"], ended["stoppedReason"]) == ("TaskFailedToStart", "Task failed to start")
    reasons = {one["name"]: one.get("reason", "") for one in ended["containers"]}
    assert reasons["app"].endswith("dependency [slow] for target [app] has timed out.")
    assert "startedAt" not in ended


def test_r90_what_cannot_be_run_says_why(platform, ecs, image, family):
    register(platform, family, shell(image, "true"))
    network = default_network(platform)

    def refusal(**change):
        request = {"taskDefinition": family, "launchType": "FARGATE", "networkConfiguration": network, **change}
        with pytest.raises(botocore.exceptions.ClientError) as raised:
            ecs.run_task(**{key: value for key, value in request.items() if value is not None})
        error = raised.value.response["Error"]
        return f"{error['Code']}: {error['Message']}"

    assert refusal(cluster="nowhere") == "ClusterNotFoundException: Cluster not found."
    assert refusal(taskDefinition="no-such") == "ClientException: TaskDefinition not found."
    assert refusal(launchType="EC2") == "InvalidParameterException: No Container Instances were found in your cluster."
    assert "Network Configuration must be provided" in refusal(networkConfiguration=None)
    assert "Specifying both a launch type and capacity provider strategy is not supported" in refusal(
        capacityProviderStrategy=[{"capacityProvider": "FARGATE"}]
    )
    assert "not supported with FARGATE" in refusal(placementStrategy=[{"type": "random"}])
    assert "not supported with FARGATE" in refusal(placementConstraints=[{"type": "distinctInstance"}])
    assert "PlatformUnknownException" in refusal(platformVersion="9.9.9")
    assert "does not exist" in refusal(networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}})
    assert "enableExecuteCommand" in refusal(enableExecuteCommand=True)
    missing = f"arn:aws:ecs:us-east-1:123456789012:task/default/{'0' * 32}"
    answer = ecs.describe_tasks(tasks=[missing])
    assert (answer["tasks"], answer["failures"]) == ([], [{"arn": missing, "reason": "MISSING"}])
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="The referenced task was not found."):
        ecs.stop_task(task="0" * 32)


def test_r93_memory_is_never_promised_beyond_the_host(platform, ecs, image, family):
    register(platform, family, shell(image, "sleep 600"), cpu="16384", memory="122880")
    network = default_network(platform)
    answer = ecs.run_task(taskDefinition=family, launchType="FARGATE", networkConfiguration=network, count=10)
    for made in answer["tasks"]:
        ecs.stop_task(task=made["taskArn"])
    reasons = {failure["reason"] for failure in answer["failures"]}
    assert len(answer["tasks"]) + len(answer["failures"]) == 10
    assert reasons == {"Capacity is unavailable at this time. Please try again later or in a different availability zone"}


def test_r93_the_limit_is_a_limit(platform, ecs, image, family):
    group = f"/r93/{family}"
    platform.client("logs").create_log_group(logGroupName=group)
    hungry = "echo start; x=$(dd if=/dev/zero bs=1M count=900 2>/dev/null | tr '\\0' x); echo never"
    container = shell(image, hungry.replace("tr ", "/bin/busybox tr "), logConfiguration=logging(group))
    register(platform, family, container, cpu="256", memory="512")
    ended = wait_for(platform, run_task(platform, family), "STOPPED", timeout=120)
    assert ended["containers"][0]["exitCode"] == 137
    assert "OutOfMemoryError" in ended["containers"][0]["reason"]
    stream = f"test/app/{ended['taskArn'].rsplit('/', 1)[1]}"
    assert eventually(lambda: log_lines(platform, group, stream)) == ["start"]


def test_r90_depends_on_and_health(platform, ecs, image, family):
    group = f"/r90d/{family}"
    platform.client("logs").create_log_group(logGroupName=group)
    first = {**shell(image, "sleep 0.3; echo first", logConfiguration=logging(group)), "name": "first", "essential": False}
    checked = {
        **shell(image, "sleep 1; touch /tmp/ok; sleep 600", logConfiguration=logging(group)),
        "name": "checked",
        "healthCheck": {"command": ["CMD-SHELL", "test -f /tmp/ok"], "interval": 5, "timeout": 2, "retries": 3},
        "dependsOn": [{"containerName": "first", "condition": "SUCCESS"}],
    }
    last = {
        **shell(image, "echo last; sleep 600", logConfiguration=logging(group)),
        "name": "last",
        "dependsOn": [{"containerName": "checked", "condition": "HEALTHY"}],
    }
    register(platform, family, first, checked, last)
    arn = run_task(platform, family)
    wait_for(platform, arn, "RUNNING", timeout=60)
    healthy = eventually(lambda: [found for found in [task(platform, arn)] if found["containers"][1]["healthStatus"] == "HEALTHY"])[0]
    assert healthy["containers"][0]["exitCode"] == 0
    ecs.stop_task(task=arn)
    wait_for(platform, arn, "STOPPED")
