"""EC2 instances as tests launch them: from the ECS-optimized image, with a role for their agents."""

import json

from conftest import eventually

IMAGE = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
POLICY = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"


def profile(platform, name="ecsInstanceRole"):
    """An instance profile with a role; its name."""
    iam = platform.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    try:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        iam.attach_role_policy(RoleName=name, PolicyArn=POLICY)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    return name


def image_id(platform):
    """The ECS-optimized image, found as Amazon documents it."""
    return platform.client("ssm").get_parameters(Names=[IMAGE])["Parameters"][0]["Value"]


def launch(platform, script="", count=1, kind="t3.micro", role=None, image=None, **more):
    """Launches instances, of the ECS-optimized image unless told otherwise; gives their ids."""
    if role:
        more["IamInstanceProfile"] = {"Name": role}
    if script:
        more["UserData"] = script if script.startswith(("Content-Type", "#")) else f"#!/bin/sh\n{script}"
    answer = platform.client("ec2").run_instances(ImageId=image or image_id(platform), InstanceType=kind, MinCount=count, MaxCount=count, **more)
    return [instance["InstanceId"] for instance in answer["Instances"]]


def describe(platform, instance):
    """The instance as DescribeInstances shows it."""
    return platform.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def wait_for(platform, instance, state, timeout=60):
    """Waits until the instance has a state; gives the instance."""

    def reached():
        found = describe(platform, instance)
        assert found["State"]["Name"] in (state, "pending", "running", "stopping", "shutting-down"), found
        return found if found["State"]["Name"] == state else None

    return eventually(reached, timeout)


def console(platform, instance):
    """What the instance has printed so far."""
    return platform.client("ec2").get_console_output(InstanceId=instance).get("Output", "")


def said(platform, instance, text, timeout=60):
    """Waits until the instance has printed a text; gives all it has printed."""

    def reached():
        printed = console(platform, instance)
        assert text in printed, printed
        return printed

    return eventually(reached, timeout)


def terminate(platform, instances):
    """Terminates instances and waits until nothing is left of them."""
    if instances:
        platform.client("ec2").terminate_instances(InstanceIds=instances)
        for instance in instances:
            wait_for(platform, instance, "terminated")


def joined(platform, cluster, count, timeout=90):
    """Waits until so many instances of a cluster are connected; gives them as DescribeContainerInstances shows them."""
    ecs = platform.client("ecs")

    def reached():
        arns = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
        found = ecs.describe_container_instances(cluster=cluster, containerInstances=arns)["containerInstances"] if arns else []
        connected = [instance for instance in found if instance["agentConnected"]]
        return connected if len(connected) == count else None

    return eventually(reached, timeout)
