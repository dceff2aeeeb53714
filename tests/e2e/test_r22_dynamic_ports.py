"""EC2 instances as targets of load balancers, and tasks at their random ports."""

import re

import botocore.exceptions
import pytest

import walkthrough
from conftest import eventually
from instances import launch, terminate, wait_for


def test_r22_r24_the_walk_through_runs_as_written(tmp_path):
    out = walkthrough.run("dynamic-ports.md", tmp_path)
    # Three ports of one instance, which nobody may reach yet.
    refused = re.findall(r"^(i-[0-9a-f]{17})\t(\d+)\tunhealthy\tTarget\.Timeout\tRequest timed out$", out, re.M)
    assert len({port for _, port in refused}) == 3, out
    assert len({machine for machine, _ in refused}) == 1, out
    assert all(32768 <= int(port) <= 60999 for _, port in refused), out
    # The load balancer goes round all three.
    answers = re.findall(r"^answered by (\w+)$", out, re.M)
    assert len(answers) == 6 and len(set(answers)) == 3, out


def targets(elbv2, group):
    """Each registered target's id and port, with its state and reason."""
    found = elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    return {
        (one["Target"]["Id"], one["Target"]["Port"]): (one["TargetHealth"]["State"], one["TargetHealth"].get("Reason"))
        for one in found
    }


def test_r22_instances_are_targets_by_their_ids(platform):
    elbv2, ec2 = platform.client("elbv2"), platform.client("ec2")
    subnets = ec2.describe_subnets()["Subnets"]
    vpc = subnets[0]["VpcId"]
    made = elbv2.create_target_group(Name="by-id", Protocol="HTTP", Port=8080, VpcId=vpc, HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2)
    assert made["TargetGroups"][0]["TargetType"] == "instance"
    group = made["TargetGroups"][0]["TargetGroupArn"]
    balancer = elbv2.create_load_balancer(Name="by-id", Subnets=[subnet["SubnetId"] for subnet in subnets])["LoadBalancers"][0]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    elbv2.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=forward)
    script = "mkdir /www; hostname > /www/index.html; cd /www; setsid python3 -m http.server 8080 >/dev/null 2>&1 </dev/null &\n"
    [machine] = launch(platform, script)
    try:
        wait_for(platform, machine, "running")
        register = elbv2.register_targets

        def refused(code, *ids):
            with pytest.raises(botocore.exceptions.ClientError) as error:
                register(TargetGroupArn=group, Targets=[{"Id": one} for one in ids])
            assert error.value.response["Error"]["Code"] == code, error.value
            return error.value.response["Error"]["Message"]

        assert "Instance ID '10.0.0.1' is not valid" in refused("ValidationError", "10.0.0.1")
        assert refused("InvalidTarget", machine, "i-00000000000000000").endswith(": 'i-00000000000000000'")
        other = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        elsewhere = elbv2.create_target_group(Name="elsewhere", Protocol="HTTP", Port=80, VpcId=other)["TargetGroups"][0]["TargetGroupArn"]
        with pytest.raises(botocore.exceptions.ClientError, match="not in the target group VPC"):
            register(TargetGroupArn=elsewhere, Targets=[{"Id": machine}])
        elbv2.delete_target_group(TargetGroupArn=elsewhere)
        ec2.delete_vpc(VpcId=other)

        register(TargetGroupArn=group, Targets=[{"Id": machine}, {"Id": machine, "Port": 9}])
        eventually(lambda: targets(elbv2, group) == {(machine, 8080): ("healthy", None), (machine, 9): ("unhealthy", "Target.FailedHealthChecks")}, 60)
        elbv2.deregister_targets(TargetGroupArn=group, Targets=[{"Id": machine, "Port": 9}])
        assert targets(elbv2, group)[machine, 9] == ("draining", "Target.DeregistrationInProgress")

        # One that is stopped gets nothing, one that is terminated is deregistered.
        ec2.stop_instances(InstanceIds=[machine])
        wait_for(platform, machine, "stopped")
        assert targets(elbv2, group)[machine, 8080] == ("unused", "Target.InvalidState")
        assert "not in a running state" in refused("InvalidTarget", machine)
        terminate(platform, [machine])
        assert targets(elbv2, group) == {}
    finally:
        terminate(platform, [machine])
        elbv2.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])


def test_r21_target_types_belong_to_network_modes(platform):
    ecs, elbv2, ec2 = platform.client("ecs"), platform.client("elbv2"), platform.client("ec2")
    vpc = ec2.describe_subnets()["Subnets"][0]["VpcId"]
    ecs.create_cluster(clusterName="modes")
    groups = {
        kind: elbv2.create_target_group(Name=f"modes-{kind}", Protocol="HTTP", Port=80, VpcId=vpc, TargetType=kind)["TargetGroups"][0]["TargetGroupArn"]
        for kind in ("ip", "instance")
    }
    container = {"name": "web", "image": "x", "memory": 64, "portMappings": [{"containerPort": 80}]}
    for mode in ("bridge", "host", "none", "awsvpc"):
        ecs.register_task_definition(family=mode, networkMode=mode, containerDefinitions=[container])

    def refused(mode, kind, launch_type="EC2"):
        with pytest.raises(ecs.exceptions.InvalidParameterException) as error:
            ecs.create_service(
                cluster="modes", serviceName="s", taskDefinition=mode, desiredCount=1, launchType=launch_type,
                loadBalancers=[{"targetGroupArn": groups[kind], "containerName": "web", "containerPort": 80}],
            )
        return error.value.response["Error"]["Message"]

    for mode in ("bridge", "host", "none"):
        assert refused(mode, "ip") == (
            f"The provided target group {groups['ip']} has target type ip, which is incompatible with the {mode} "
            "network mode specified in the task definition."
        )
    assert "does not have an associated load balancer" in refused("bridge", "instance")
    assert "EXTERNAL" in refused("bridge", "instance", "EXTERNAL")
