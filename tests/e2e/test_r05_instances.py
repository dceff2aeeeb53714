"""EC2 instances: what they are, what they are told, and how they end."""

import json
import os
import pathlib
import subprocess

import botocore.exceptions
import pytest

from conftest import Image, Platform, default_network, eventually, wait_for as wait_for_task
from instances import console, describe, joined, launch, profile, said, terminate, wait_for

TOKEN = 'T=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 300" http://169.254.169.254/latest/api/token)\n'
ASK = 'ask() { curl -s -H "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/$1; }\n'


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
def launched(platform):
    """Launches instances that are terminated at the test's end."""
    mine = []

    def make(*arguments, **more):
        instances = launch(platform, *arguments, **more)
        mine.extend(instances)
        return instances[0] if len(instances) == 1 else instances

    yield make
    terminate(platform, mine)


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]


def test_r05_an_instance_is_a_machine_of_its_own(platform, launched):
    secret = pathlib.Path("/var/tmp/longshore-e2e-secret")
    secret.write_text("of the host")
    disk = os.stat("/").st_dev
    try:
        instance = launched(
            "echo host=$(hostname) one=$(cat /proc/1/comm) processors=$(nproc)\n"
            "for place in /root /home/ec2-user /var/tmp; do echo $place has $(ls -A $place | wc -l); done\n"
            f"ls {platform.directory} 2>&1\n"
            f"mknod /tmp/disk b {os.major(disk)} {os.minor(disk)} && dd if=/tmp/disk of=/dev/null bs=512 count=1 2>&1 | tail -1\n"
            "touch /usr/mine 2>&1; touch /etc/mine && echo wrote\n"
            "df --output=size -BG / | tail -1\n"
        )
        printed = said(platform, instance, "cloud-init: finished")
        shown = wait_for(platform, instance, "running")
    finally:
        secret.unlink()
    assert f"host={shown['PrivateDnsName'].split('.')[0]}" in printed
    assert "one=longshore" in printed
    for place in ("/root", "/home/ec2-user", "/var/tmp"):
        assert f"{place} has 0" in printed
    assert f"cannot access '{platform.directory}'" in printed
    assert "Operation not permitted" in printed, printed
    assert "'/usr/mine': Read-only file system" in printed and "wrote" in printed
    size = next(int(line.strip().rstrip("G")) for line in printed.splitlines() if line.strip().endswith("G"))
    assert 25 <= size <= 30
    # Its limits are its type's: t3.micro has 2 vCPUs and 1 GiB.
    assert "processors=2" in printed
    assert shown["InstanceType"] == "t3.micro" and shown["Placement"]["AvailabilityZone"].startswith("us-east-1")
    assert shown["RootDeviceName"] == "/dev/xvda" and shown["PublicIpAddress"].startswith("198.1")


def test_r06_user_data_of_several_parts_runs_in_its_order(platform, launched):
    message = (
        'Content-Type: multipart/mixed; boundary="==X=="\nMIME-Version: 1.0\n\n'
        "--==X==\nContent-Type: text/x-shellscript\n\n#!/bin/bash\necho second as $(id -un) from $BASH\nexit 3\n"
        "--==X==\nContent-Type: text/cloud-boothook\n\necho first in $INSTANCE_ID\n"
        "--==X==\nContent-Type: text/cloud-config\n\npackages: [git]\n"
        "--==X==--\n"
    )
    instance = launched(message)
    printed = said(platform, instance, "cloud-init: finished")
    assert printed.index(f"first in {instance}") < printed.index("second as root from /bin/bash")
    assert "part-001 of the user data failed: exit status: 3" in printed
    assert "user data of the kind 'text/cloud-config' is not run" in printed
    # Scripts run at the first boot, boothooks at every one.
    platform.client("ec2").stop_instances(InstanceIds=[instance])
    wait_for(platform, instance, "stopped")
    platform.client("ec2").start_instances(InstanceIds=[instance])
    wait_for(platform, instance, "running")
    # The console begins anew with each boot.
    again = eventually(lambda: "second as root" not in console(platform, instance) and said(platform, instance, "cloud-init: finished"))
    assert f"first in {instance}" in again and "second as root" not in again


def test_r05_an_instance_is_told_what_it_is(platform, launched):
    role = profile(platform, "told")
    instance = launched(
        TOKEN + ASK + "for path in instance-id ami-id instance-type placement/availability-zone local-ipv4 tags/instance/Name; do\n"
        "echo $path=$(ask meta-data/$path); done\n"
        "echo document=$(ask dynamic/instance-identity/document | tr -d '\\n ')\n"
        "echo roles=$(ask meta-data/iam/security-credentials/)\n"
        "echo code=$(ask meta-data/iam/security-credentials/told | grep -o 'Success')\n"
        "echo first=$(ask user-data | head -1)\n"
        "echo without=$(curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/instance-id)\n"
        "echo forged=$(curl -s -o /dev/null -w '%{http_code}' -H 'X-aws-ec2-metadata-token: x' http://169.254.169.254/latest/meta-data/)\n",
        role=role,
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "told"}]}],
    )
    printed = said(platform, instance, "cloud-init: finished")
    shown = wait_for(platform, instance, "running")
    told = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert told["instance-id"] == instance and told["ami-id"] == shown["ImageId"] and told["instance-type"] == "t3.micro"
    assert told["placement/availability-zone"] == shown["Placement"]["AvailabilityZone"]
    assert told["local-ipv4"] == shown["PrivateIpAddress"] and told["tags/instance/Name"] == "told"
    document = json.loads(told["document"])
    assert (document["instanceId"], document["region"], document["accountId"]) == (instance, "us-east-1", "123456789012")
    assert (told["roles"], told["code"], told["first"]) == ("told", "Success", "#!/bin/sh")
    assert (told["without"], told["forged"]) == ("401", "401")


def test_r30_an_agent_registers_with_the_role_of_its_instance(platform, launched):
    platform.client("ecs").create_cluster(clusterName="roles")
    instance = launched("echo ECS_CLUSTER=roles >> /etc/ecs/ecs.config\necho 'ECS_INSTANCE_ATTRIBUTES={\"stack\": \"prod\"}' >> /etc/ecs/ecs.config\n", role=profile(platform))
    (member,) = joined(platform, "roles", 1)
    shown = describe(platform, instance)
    assert member["ec2InstanceId"] == instance
    attributes = {attribute["name"]: attribute.get("value") for attribute in member["attributes"]}
    assert attributes["ecs.instance-type"] == "t3.micro" and attributes["ecs.ami-id"] == shown["ImageId"]
    assert attributes["ecs.availability-zone"] == shown["Placement"]["AvailabilityZone"]
    assert (attributes["ecs.vpc-id"], attributes["ecs.subnet-id"]) == (shown["VpcId"], shown["SubnetId"])
    assert attributes["stack"] == "prod"
    registered = {resource["name"]: resource.get("integerValue") for resource in member["registeredResources"]}
    assert registered["CPU"] == 2048 and 900 < registered["MEMORY"] <= 1024
    # Without a role it says why it does not register.
    lonely = launched("echo ECS_CLUSTER=roles >> /etc/ecs/ecs.config\n")
    said(platform, lonely, "cloud-init: finished")
    assert len(joined(platform, "roles", 1)) == 1


def test_r05_the_hop_limit_keeps_a_bridge_task_from_a_token(platform, launched):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="hops")
    image = Image(platform, "hops").uri
    script = (
        "printf 'PUT /latest/api/token HTTP/1.1\\r\\nHost: x\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\nConnection: close\\r\\n\\r\\n'"
        " | busybox timeout 5 busybox nc 169.254.169.254 80 | grep -q '200 OK'"
    )
    ecs.register_task_definition(
        family="hops",
        requiresCompatibilities=["EC2"],
        networkMode="bridge",
        containerDefinitions=[{"name": "app", "image": image, "memory": 64, "command": ["sh", "-c", script]}],
    )
    role, exits = profile(platform), {}
    for hops in (1, 2):
        launched("echo ECS_CLUSTER=hops >> /etc/ecs/ecs.config\n" + f"echo 'ECS_INSTANCE_ATTRIBUTES={{\"hops\": \"{hops}\"}}' >> /etc/ecs/ecs.config\n", role=role, MetadataOptions={"HttpPutResponseHopLimit": hops})
    joined(platform, "hops", 2)
    for hops in (1, 2):
        answer = ecs.run_task(cluster="hops", taskDefinition="hops", launchType="EC2", placementConstraints=[{"type": "memberOf", "expression": f"attribute:hops == {hops}"}])
        assert answer["failures"] == []
        stopped = wait_for_task(platform, answer["tasks"][0]["taskArn"], "STOPPED", cluster="hops")
        exits[hops] = stopped["containers"][0]["exitCode"]
    assert exits[1] != 0 and exits[2] == 0


def test_r10_tasks_of_an_instance_have_interfaces_or_ranges_of_ports(platform, launched):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="own")
    image = Image(platform, "own").uri
    serve = "mkdir /w; echo mine > /w/index.html; exec httpd -f -p 80 -h /w"
    container = {"name": "app", "image": image, "memory": 64, "command": ["sh", "-c", serve], "stopTimeout": 2}
    ecs.register_task_definition(family="own", requiresCompatibilities=["EC2"], networkMode="awsvpc", containerDefinitions=[container])
    ranged = {**container, "portMappings": [{"containerPortRange": "8000-8003"}]}
    ecs.register_task_definition(family="ranged", requiresCompatibilities=["EC2"], networkMode="bridge", containerDefinitions=[ranged])
    launched("echo ECS_CLUSTER=own >> /etc/ecs/ecs.config\n", role=profile(platform))
    joined(platform, "own", 1)
    answer = ecs.run_task(cluster="own", taskDefinition="own", launchType="EC2", networkConfiguration=default_network(platform))
    assert answer["failures"] == []
    task = wait_for_task(platform, answer["tasks"][0]["taskArn"], "RUNNING", cluster="own")
    address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    # Another instance of the VPC reaches it by its own address: both have the default security group.
    other = launched(f"curl -s --max-time 10 http://{address}/ && echo reached\n")
    printed = said(platform, other, "cloud-init: finished")
    assert "mine\nreached" in printed, printed
    answer = ecs.run_task(cluster="own", taskDefinition="ranged", launchType="EC2")
    assert answer["failures"] == []
    task = wait_for_task(platform, answer["tasks"][0]["taskArn"], "RUNNING", cluster="own")
    (binding,) = task["containers"][0]["networkBindings"]
    first, last = map(int, binding["hostPortRange"].split("-"))
    assert binding["containerPortRange"] == "8000-8003" and last - first == 3 and "hostPort" not in binding


def test_r04_host_mode_tasks_have_their_role_unless_the_instance_says_no(platform, launched):
    ecs, iam = platform.client("ecs"), platform.client("iam")
    ecs.create_cluster(clusterName="hostroles")
    iam.create_role(RoleName="of-the-task", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}))
    role = "arn:aws:iam::123456789012:role/of-the-task"
    ask = "wget -q -O - http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI | grep -q " + role + " && exit 7"
    container = {"name": "app", "image": Image(platform, "hostroles").uri, "memory": 64, "command": ["sh", "-c", ask]}
    ecs.register_task_definition(family="hostroles", requiresCompatibilities=["EC2"], networkMode="host", taskRoleArn=role, containerDefinitions=[container])
    other = launched(
        "cat /var/lib/ecs/ecs.config\necho ECS_CLUSTER=hostroles >> /etc/ecs/ecs.config\n"
        "for variable in TASK_IAM_ROLE_NETWORK_HOST TASK_ENI AWSLOGS_EXECUTIONROLE_OVERRIDE; do echo ECS_ENABLE_$variable=false >> /etc/ecs/ecs.config; done\n"
        "echo 'ECS_AVAILABLE_LOGGING_DRIVERS=[\"none\"]' >> /etc/ecs/ecs.config\n",
        role=profile(platform),
    )
    # What is switched off by ecs.config is not there, though the image switched it on.
    optional = ("com.amazonaws.ecs.capability.task-iam-role-network-host", "ecs.capability.task-eni", "ecs.capability.execution-role-awslogs", "com.amazonaws.ecs.capability.logging-driver.awslogs")
    (member,) = joined(platform, "hostroles", 1)
    assert "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true" in said(platform, other, "cloud-init: finished")
    names = {attribute["name"] for attribute in member["attributes"]}
    assert not names & set(optional), names
    answer = ecs.run_task(cluster="hostroles", taskDefinition="hostroles", launchType="EC2")
    assert answer["tasks"] == [] and [failure["reason"] for failure in answer["failures"]] == ["ATTRIBUTE"], answer
    instance = launched("echo ECS_CLUSTER=hostroles >> /etc/ecs/ecs.config\n", role=profile(platform))
    (member,) = [one for one in joined(platform, "hostroles", 2) if one["ec2InstanceId"] == instance]
    names = {attribute["name"] for attribute in member["attributes"]}
    assert set(optional) <= names and not [name for name in names if "efs" in name], names
    answer = ecs.run_task(cluster="hostroles", taskDefinition="hostroles", launchType="EC2")
    assert answer["failures"] == [], answer
    stopped = wait_for_task(platform, answer["tasks"][0]["taskArn"], "STOPPED", cluster="hostroles")
    assert stopped["containers"][0]["exitCode"] == 7, stopped
    assert stopped["containerInstanceArn"] == member["containerInstanceArn"]
    # Nobody but the instance itself is led there.
    address = describe(platform, instance)["PrivateIpAddress"]
    group = describe(platform, instance)["SecurityGroups"][0]["GroupId"]
    assert group == describe(platform, other)["SecurityGroups"][0]["GroupId"]
    outside = launched(
        f"curl -s --max-time 3 http://{address}:51679/v2/credentials/x || echo port refused\n"
        f"ip route add 169.254.170.2 via {address} || echo no route\ncurl -s --max-time 3 http://169.254.170.2/v2/credentials/x || echo address refused\n"
    )
    printed = said(platform, outside, "cloud-init: finished")
    assert "port refused" in printed and "address refused" in printed, printed


def test_r03_an_agent_says_whether_its_container_runtime_works(platform, launched):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="health")
    instance = launched("echo ECS_CLUSTER=health >> /etc/ecs/ecs.config\n", role=profile(platform))
    (member,) = joined(platform, "health", 1)

    def health(status):
        (shown,) = ecs.describe_container_instances(cluster="health", containerInstances=[member["containerInstanceArn"]], include=["CONTAINER_INSTANCE_HEALTH"])["containerInstances"]
        return shown["healthStatus"] if shown["healthStatus"]["overallStatus"] == status else None

    def inside(*command):
        subprocess.run(["nsenter", "-t", str(first_process(platform, instance)), "-m", *command], check=True)

    shown = eventually(lambda: health("OK"))
    (detail,) = shown["details"]
    assert detail["type"] == "CONTAINER_RUNTIME" and detail["lastStatusChange"] <= detail["lastUpdated"]
    # No container can be made where nothing can be written.
    containers = "/var/lib/ecs/data/containers"
    inside("mount", "--bind", containers, containers)
    inside("mount", "-o", "remount,bind,ro", containers)
    impaired = eventually(lambda: health("IMPAIRED"), 60)
    assert impaired["details"][0]["lastStatusChange"] > detail["lastStatusChange"]
    inside("umount", containers)
    assert eventually(lambda: health("OK"), 60)["details"][0]["lastStatusChange"] > impaired["details"][0]["lastStatusChange"]


def first_process(platform, instance):
    """The instance's process 1, as the host sees it."""
    listed = subprocess.run(["pgrep", "-x", "-f", ".*guest-init.*"], capture_output=True, text=True).stdout.split()
    name = describe(platform, instance)["PrivateDnsName"].split(".")[0]
    for pid in listed:
        hostname = subprocess.run(["nsenter", "-t", pid, "-u", "hostname"], capture_output=True, text=True).stdout.strip()
        if hostname.split(".")[0] == name:
            return int(pid)
    raise AssertionError(f"{instance} has no process: {listed}")


def test_r20_tasks_of_an_instance_that_dies_are_replaced(platform, launched):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="dies")
    image = Image(platform, "dies").uri
    ecs.register_task_definition(
        family="dies",
        requiresCompatibilities=["EC2"],
        networkMode="bridge",
        containerDefinitions=[{"name": "app", "image": image, "memory": 64, "command": ["sleep", "600"], "stopTimeout": 2}],
    )
    instances = launched("echo ECS_CLUSTER=dies >> /etc/ecs/ecs.config\n", count=2, role=profile(platform))
    joined(platform, "dies", 2)
    ecs.create_service(cluster="dies", serviceName="web", taskDefinition="dies", desiredCount=4, launchType="EC2", placementStrategy=[{"type": "spread", "field": "instanceId"}])

    def running():
        arns = ecs.list_tasks(cluster="dies", serviceName="web")["taskArns"]
        tasks = ecs.describe_tasks(cluster="dies", tasks=arns)["tasks"] if arns else []
        return [task for task in tasks if task["lastStatus"] == "RUNNING"]

    before = eventually(lambda: running() if len(running()) == 4 else None)
    victim = instances[0]
    os.kill(first_process(platform, victim), 9)
    wait_for(platform, victim, "stopped")
    lost = [task["taskArn"] for task in before if any(member["containerInstanceArn"] == task["containerInstanceArn"] and member["ec2InstanceId"] == victim for member in members(platform, "dies"))]
    assert len(lost) == 2
    for arn in lost:
        assert wait_for_task(platform, arn, "STOPPED", cluster="dies")["stoppedReason"] == f"Host EC2 (instance {victim}) terminated."
    eventually(lambda: len(running()) == 4)
    # It can be started again, comes back as the instance it was, and the tasks that it had are not there twice.
    platform.client("ec2").start_instances(InstanceIds=[victim])
    wait_for(platform, victim, "running")
    joined(platform, "dies", 2)
    assert len(running()) == 4
    ecs.delete_service(cluster="dies", service="web", force=True)


def members(platform, cluster):
    ecs = platform.client("ecs")
    arns = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
    return ecs.describe_container_instances(cluster=cluster, containerInstances=arns)["containerInstances"]


def test_r05_user_data_that_never_ends_can_be_ended(platform, launched):
    instance = launched("echo waiting\nsleep 100000\n")
    said(platform, instance, "waiting")
    platform.client("ec2").terminate_instances(InstanceIds=[instance])
    wait_for(platform, instance, "terminated")


def test_r05_an_instance_can_switch_itself_off(platform, launched):
    instance = launched("poweroff\n")
    shown = wait_for(platform, instance, "stopped")
    assert shown["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    gone = launched("poweroff\n", InstanceInitiatedShutdownBehavior="terminate")
    wait_for(platform, gone, "terminated")


def test_r05_bad_requests_are_told_why(platform):
    ec2 = platform.client("ec2")
    image = platform.client("ssm").get_parameters(Names=["/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"])["Parameters"][0]["Value"]
    common = {"MinCount": 1, "MaxCount": 1}
    error = refused(ec2.run_instances, ImageId="ami-00000000000000000", InstanceType="t3.micro", **common)
    assert error["Code"] == "InvalidAMIID.NotFound" and "ami-00000000000000000" in error["Message"]
    error = refused(ec2.run_instances, ImageId=image, InstanceType="t3.enormous", **common)
    assert error["Code"] == "InvalidParameterValue" and "t3.enormous" in error["Message"]
    error = refused(ec2.run_instances, ImageId=image, InstanceType="t3.micro", IamInstanceProfile={"Name": "nobody"}, **common)
    assert error["Code"] == "InvalidParameterValue" and "nobody" in error["Message"]
    error = refused(ec2.run_instances, ImageId=image, InstanceType="t3.micro", UserData="x" * 20_000, **common)
    assert error["Code"] == "InvalidParameterValue" and "16384" in error["Message"]
    assert refused(ec2.terminate_instances, InstanceIds=["i-00000000000000000"])["Code"] == "InvalidInstanceID.NotFound"
    assert ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running", "pending"]}])["Reservations"] == []
