"""Spot Instances: how they are asked for, and how one is interrupted, with Amazon's notice and ECS's draining."""

import json
import subprocess
import time

import botocore.exceptions
import pytest

from conftest import LONGSHORE, Image, Platform, eventually, wait_for as wait_for_task
from instances import describe, image_id, joined, launch, profile, said, terminate, wait_for

SPOT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}}
# The two minutes take eight seconds.
RATE = 15


@pytest.fixture(scope="module")
def platform():
    platform = Platform("--clock-rate", str(RATE))
    try:
        platform.start()
        yield platform
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture
def launched(platform):
    mine = []

    def make(*arguments, **more):
        instances = launch(platform, *arguments, **more)
        mine.extend(instances)
        return instances

    yield make
    terminate(platform, mine)


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]


def reclaim(platform, instance):
    return subprocess.run([LONGSHORE, "spot", "reclaim", instance, "--data-dir", platform.data], capture_output=True, text=True)


def test_r05_spot_instances_are_asked_for_with_the_options_there_are(platform, launched):
    ec2 = platform.client("ec2")
    common = {"ImageId": image_id(platform), "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    for options, word in [
        ({"MaxPrice": "0.01"}, "MaxPrice"),
        ({"BlockDurationMinutes": 60}, "BlockDurationMinutes"),
        ({"SpotInstanceType": "persistent"}, "persistent"),
        ({"InstanceInterruptionBehavior": "stop"}, "stop"),
        ({"InstanceInterruptionBehavior": "hibernate"}, "hibernate"),
    ]:
        error = refused(ec2.run_instances, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": options}, **common)
        assert word.lower() in error["Message"].lower().replace("_", ""), (word, error)
    template = ec2.create_launch_template(LaunchTemplateName="spot", LaunchTemplateData={"ImageId": image_id(platform), "InstanceMarketOptions": SPOT})["LaunchTemplate"]
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"])["LaunchTemplateVersions"]
    assert version["LaunchTemplateData"]["InstanceMarketOptions"] == SPOT
    (plain,) = launched()
    (spot,) = [one["InstanceId"] for one in ec2.run_instances(LaunchTemplate={"LaunchTemplateName": "spot"}, MinCount=1, MaxCount=1, InstanceType="t3.micro")["Instances"]]
    try:
        wait_for(platform, plain, "running")
        wait_for(platform, spot, "running")
        assert "InstanceLifecycle" not in describe(platform, plain)
        found = ec2.describe_instances(Filters=[{"Name": "instance-lifecycle", "Values": ["spot"]}])["Reservations"]
        assert [one["InstanceId"] for reservation in found for one in reservation["Instances"]] == [spot]
        error = refused(ec2.stop_instances, InstanceIds=[spot])
        assert error["Code"] == "UnsupportedOperation" and "one-time" in error["Message"]
        done = reclaim(platform, plain)
        assert done.returncode == 1 and "not a Spot Instance" in done.stderr, done
        done = reclaim(platform, "i-00000000000000000")
        assert done.returncode == 1 and "InvalidInstanceID.NotFound" in done.stderr, done
    finally:
        terminate(platform, [spot])


def test_r31_an_interrupted_spot_instance_drains_and_its_tasks_move(platform, launched):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="spot")
    container = {"name": "app", "image": Image(platform, "spot").uri, "memory": 64, "command": ["sleep", "600"], "stopTimeout": 2}
    ecs.register_task_definition(family="spot", requiresCompatibilities=["EC2"], networkMode="bridge", containerDefinitions=[container])
    join = "echo ECS_CLUSTER=spot >> /etc/ecs/ecs.config\necho ECS_ENABLE_SPOT_INSTANCE_DRAINING=true >> /etc/ecs/ecs.config\n"
    watch = (
        'T=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 3000" http://169.254.169.254/latest/api/token)\n'
        'ask() { curl -s -w " %{http_code}" -H "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/meta-data/$1; }\n'
        'echo "cycle $(ask instance-life-cycle)"; echo "before $(ask spot/instance-action)"\n'
        '(while sleep 0.3; do echo "notice $(ask spot/instance-action)"; echo "time $(ask spot/termination-time)"; done) &\n'
    )
    (spot,) = launched(join + watch, role=profile(platform), InstanceMarketOptions=SPOT)
    joined(platform, "spot", 1)
    ecs.create_service(cluster="spot", serviceName="web", taskDefinition="spot", desiredCount=2, launchType="EC2")

    def running():
        arns = ecs.list_tasks(cluster="spot", serviceName="web")["taskArns"]
        tasks = ecs.describe_tasks(cluster="spot", tasks=arns)["tasks"] if arns else []
        return [task for task in tasks if task["lastStatus"] == "RUNNING"]

    before = eventually(lambda: running() if len(running()) == 2 else None)
    (plain,) = launched(join, role=profile(platform))
    members = {member["ec2InstanceId"]: member["containerInstanceArn"] for member in joined(platform, "spot", 2)}
    assert {task["containerInstanceArn"] for task in before} == {members[spot]}
    printed = said(platform, spot, "before ")
    assert "cycle spot 200" in printed and '"action"' not in printed, printed
    began = time.monotonic()
    done = reclaim(platform, spot)
    assert done.returncode == 0 and spot in done.stdout, done
    end = done.stdout.split()[-1]
    # Asked again, it keeps its time.
    assert reclaim(platform, spot).stdout.split()[-1] == end
    status = lambda: ecs.describe_container_instances(cluster="spot", containerInstances=[members[spot]])["containerInstances"][0]["status"]
    eventually(lambda: status() == "DRAINING", 120 / RATE)
    assert describe(platform, spot)["State"]["Name"] == "running"
    printed = said(platform, spot, "notice {")
    notice = next(line for line in printed.splitlines() if line.startswith("notice {"))
    assert json.loads(notice.split(" ", 1)[1].rsplit(" ", 1)[0]) == {"action": "terminate", "time": end}
    assert f"time {end} 200" in said(platform, spot, f"time {end}")
    gone = wait_for(platform, spot, "terminated")
    assert time.monotonic() - began > 120 / RATE - 1
    assert gone["StateReason"] == {"Code": "Server.SpotInstanceTermination", "Message": "Server.SpotInstanceTermination: Spot instance termination"}
    after = eventually(lambda: running() if len(running()) == 2 else None)
    assert {task["containerInstanceArn"] for task in after} == {members[plain]}
    for task in before:
        # They were stopped by the drain, not lost with the instance.
        stopped = wait_for_task(platform, task["taskArn"], "STOPPED", cluster="spot")
        assert "terminated" not in stopped["stoppedReason"], stopped["stoppedReason"]
    ecs.delete_service(cluster="spot", service="web", force=True)
