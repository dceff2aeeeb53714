"""Elastic Load Balancing's API through boto3 and the AWS CLI: what is refused, how, and what is shown."""

import json
import uuid

import botocore.exceptions
import pytest

from conftest import eventually


def name():
    return f"t-{uuid.uuid4().hex[:12]}"


def refused(code, call, **arguments):
    """The message with which a call is refused under this code."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response["Error"]["Message"]


@pytest.fixture(scope="module")
def elbv2(platform):
    return platform.client("elbv2")


@pytest.fixture(scope="module")
def subnets(platform):
    found = platform.client("ec2").describe_subnets()["Subnets"]
    return sorted(found, key=lambda subnet: subnet["AvailabilityZone"])


@pytest.fixture(scope="module")
def vpc(subnets):
    return subnets[0]["VpcId"]


@pytest.fixture
def balancer(elbv2, subnets):
    made = elbv2.create_load_balancer(Name=name(), Subnets=[subnet["SubnetId"] for subnet in subnets[:2]])["LoadBalancers"][0]
    yield made
    elbv2.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


@pytest.fixture
def group(elbv2, vpc):
    made = elbv2.create_target_group(Name=name(), Protocol="HTTP", Port=8080, VpcId=vpc, TargetType="ip")["TargetGroups"][0]
    yield made
    elbv2.delete_target_group(TargetGroupArn=made["TargetGroupArn"])


def fixed(code="200", **more):
    return {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": code, **more}}


@pytest.fixture
def listener(elbv2, balancer):
    made = elbv2.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[fixed()])
    return made["Listeners"][0]


def test_r21_a_load_balancer_has_an_interface_in_each_subnet_and_becomes_active(platform, elbv2, subnets, balancer):
    arn = balancer["LoadBalancerArn"]
    identifier = arn.rsplit("/", 1)[1]
    assert arn == f"arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/{balancer['LoadBalancerName']}/{identifier}"
    assert len(identifier) == 16
    assert balancer["DNSName"] == f"{balancer['LoadBalancerName']}-{identifier}.us-east-1.elb.longshore.internal"
    assert balancer["State"]["Code"] == "provisioning"
    assert balancer["Scheme"] == "internet-facing" and balancer["Type"] == "application" and balancer["IpAddressType"] == "ipv4"
    assert [zone["ZoneName"] for zone in balancer["AvailabilityZones"]] == ["us-east-1a", "us-east-1b"]
    filters = [{"Name": "description", "Values": [f"ELB app/{balancer['LoadBalancerName']}/{identifier}"]}]
    interfaces = platform.client("ec2").describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
    assert sorted(found["SubnetId"] for found in interfaces) == sorted(subnet["SubnetId"] for subnet in subnets[:2])
    assert all(found["RequesterManaged"] for found in interfaces)
    elbv2.get_waiter("load_balancer_available").wait(LoadBalancerArns=[arn], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    listed = json.loads(platform.aws("elbv2", "describe-load-balancers", "--names", balancer["LoadBalancerName"], "--output", "json"))
    assert listed["LoadBalancers"][0]["State"]["Code"] == "active"
    elbv2.delete_load_balancer(LoadBalancerArn=arn)
    elbv2.delete_load_balancer(LoadBalancerArn=arn)
    assert platform.client("ec2").describe_network_interfaces(Filters=filters)["NetworkInterfaces"] == []
    assert "not found" in refused("LoadBalancerNotFound", elbv2.describe_load_balancers, LoadBalancerArns=[arn])


def test_r21_creating_the_same_again_gives_it_back_and_another_is_refused(elbv2, subnets, balancer):
    same = {"Name": balancer["LoadBalancerName"], "Subnets": [subnet["SubnetId"] for subnet in subnets[:2]]}
    assert elbv2.create_load_balancer(**same)["LoadBalancers"][0]["LoadBalancerArn"] == balancer["LoadBalancerArn"]
    message = refused("DuplicateLoadBalancerName", elbv2.create_load_balancer, **same, Scheme="internal")
    assert message == f"A load balancer with the same name '{balancer['LoadBalancerName']}' exists, but with different settings"


def test_r21_what_a_load_balancer_cannot_be_is_refused_by_name(elbv2, subnets):
    two = [subnet["SubnetId"] for subnet in subnets[:2]]
    create = elbv2.create_load_balancer
    assert "'gateway'" in refused("ValidationError", create, Name=name(), Subnets=two, Type="gateway")
    assert "IpAddressType" in refused("ValidationError", create, Name=name(), Subnets=two, IpAddressType="dualstack")
    assert "two different Availability Zones" in refused("ValidationError", create, Name=name(), Subnets=two[:1])
    assert "alphanumeric" in refused("ValidationError", create, Name="a_b", Subnets=two)
    assert "subnet-0" in refused("SubnetNotFound", create, Name=name(), Subnets=[two[0], "subnet-0"])
    assert "sg-0" in refused("InvalidSecurityGroup", create, Name=name(), Subnets=two, SecurityGroups=["sg-0"])
    message = refused("InvalidConfigurationRequest", create, Name=name(), Subnets=[two[0], two[0]])
    assert "same Availability Zone" in message


def test_r21_subnets_and_security_groups_change(platform, elbv2, subnets, vpc, balancer):
    arn = balancer["LoadBalancerArn"]
    changed = elbv2.set_subnets(LoadBalancerArn=arn, Subnets=[subnet["SubnetId"] for subnet in subnets[1:3]])
    assert [zone["ZoneName"] for zone in changed["AvailabilityZones"]] == ["us-east-1b", "us-east-1c"]
    ec2 = platform.client("ec2")
    security_group = ec2.create_security_group(GroupName=name(), Description="test", VpcId=vpc)["GroupId"]
    elbv2.set_security_groups(LoadBalancerArn=arn, SecurityGroups=[security_group])
    shown = elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]
    assert shown["SecurityGroups"] == [security_group]
    filters = [{"Name": "group-id", "Values": [security_group]}]
    assert len(ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]) == 2


def test_r21_attributes_are_acted_on_or_refused_by_name(elbv2, balancer, group):
    arn = balancer["LoadBalancerArn"]
    as_map = lambda answer: {pair["Key"]: pair["Value"] for pair in answer["Attributes"]}
    before = as_map(elbv2.describe_load_balancer_attributes(LoadBalancerArn=arn))
    assert before["idle_timeout.timeout_seconds"] == "60" and before["deletion_protection.enabled"] == "false"
    change = lambda key, value: elbv2.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": key, "Value": value}])
    assert as_map(change("idle_timeout.timeout_seconds", "7"))["idle_timeout.timeout_seconds"] == "7"
    for key, value in before.items():
        change(key, value)
    assert "access_logs.s3.enabled" in refused("ValidationError", lambda: change("access_logs.s3.enabled", "true"))
    refused("ValidationError", lambda: change("nothing.like.it", "1"))
    change("deletion_protection.enabled", "true")
    assert "deletion protection" in refused("OperationNotPermitted", elbv2.delete_load_balancer, LoadBalancerArn=arn)
    change("deletion_protection.enabled", "false")
    target_group = group["TargetGroupArn"]
    of_group = as_map(elbv2.describe_target_group_attributes(TargetGroupArn=target_group))
    assert of_group["deregistration_delay.timeout_seconds"] == "300" and of_group["stickiness.enabled"] == "false"
    anomalies = [{"Key": "load_balancing.algorithm.anomaly_mitigation", "Value": "on"}]
    message = refused("ValidationError", elbv2.modify_target_group_attributes, TargetGroupArn=target_group, Attributes=anomalies)
    assert "load_balancing.algorithm.anomaly_mitigation" in message


def test_r21_target_groups_have_amazons_defaults_and_refusals(elbv2, vpc, group):
    shown = {key: group[key] for key in ("HealthCheckPath", "HealthCheckPort", "HealthCheckIntervalSeconds", "HealthCheckTimeoutSeconds", "HealthyThresholdCount", "UnhealthyThresholdCount", "Matcher", "ProtocolVersion", "LoadBalancerArns")}
    assert shown == {
        "HealthCheckPath": "/",
        "HealthCheckPort": "traffic-port",
        "HealthCheckIntervalSeconds": 30,
        "HealthCheckTimeoutSeconds": 5,
        "HealthyThresholdCount": 5,
        "UnhealthyThresholdCount": 2,
        "Matcher": {"HttpCode": "200"},
        "ProtocolVersion": "HTTP1",
        "LoadBalancerArns": [],
    }
    create = elbv2.create_target_group
    good = {"Protocol": "HTTP", "Port": 80, "VpcId": vpc, "TargetType": "ip"}
    refused("DuplicateTargetGroupName", create, **{**good, "Name": group["TargetGroupName"]})
    for refusal, wrong in {
        "'lambda'": {"TargetType": "lambda"},
        "'GRPC'": {"ProtocolVersion": "GRPC"},
        "'UDP'": {"Protocol": "UDP"},
        "vpc-0": {"VpcId": "vpc-0"},
        "begin with a '/'": {"HealthCheckPath": "x"},
        "greater than the timeout": {"HealthCheckIntervalSeconds": 5},
        "'600'": {"Matcher": {"HttpCode": "600"}},
    }.items():
        assert refusal in refused("ValidationError", create, **{**good, "Name": name(), **wrong})
    changed = elbv2.modify_target_group(TargetGroupArn=group["TargetGroupArn"], HealthCheckPath="/up", Matcher={"HttpCode": "200-299"})
    assert changed["TargetGroups"][0]["HealthCheckPath"] == "/up" and changed["TargetGroups"][0]["Matcher"] == {"HttpCode": "200-299"}
    missing = group["TargetGroupArn"][:-1] + "x"
    assert refused("TargetGroupNotFound", elbv2.describe_target_groups, TargetGroupArns=[missing]) == "One or more target groups not found"


def test_r21_targets_are_registered_shown_and_deregistered(elbv2, subnets, group):
    arn = group["TargetGroupArn"]
    address = subnets[0]["CidrBlock"].rsplit(".", 1)[0] + ".200"
    elbv2.register_targets(TargetGroupArn=arn, Targets=[{"Id": address}, {"Id": address, "Port": 9000}])
    shown = elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    assert sorted(found["Target"]["Port"] for found in shown) == [8080, 9000]
    for found in shown:
        assert found["Target"]["AvailabilityZone"] == subnets[0]["AvailabilityZone"]
        assert found["TargetHealth"] == {
            "State": "unused",
            "Reason": "Target.NotInUse",
            "Description": "Target group is not configured to receive traffic from the load balancer",
        }
    other = elbv2.describe_target_health(TargetGroupArn=arn, Targets=[{"Id": address, "Port": 1}])["TargetHealthDescriptions"]
    assert other[0]["TargetHealth"]["Reason"] == "Target.NotRegistered"
    elbv2.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": address}])
    assert elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"] == []
    register = lambda **target: elbv2.register_targets(TargetGroupArn=arn, Targets=[target])
    refused("ValidationError", register, Id="i-0123456789abcdef0")
    refused("InvalidTarget", register, Id="8.8.8.8", AvailabilityZone="all")
    assert "'all'" in refused("InvalidTarget", register, Id="192.168.200.1")
    # What is not registered is deregistered all the same.
    elbv2.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": address}])


def test_r21_listeners_have_ports_of_their_own(elbv2, balancer, listener, group):
    arn = balancer["LoadBalancerArn"]
    assert listener["ListenerArn"].startswith(arn.replace(":loadbalancer/", ":listener/") + "/")
    create = lambda **more: elbv2.create_listener(**{"LoadBalancerArn": arn, "Protocol": "HTTP", "Port": 81, "DefaultActions": [fixed()], **more})
    assert create(Port=80)["Listeners"][0]["ListenerArn"] == listener["ListenerArn"]
    assert "already exists on this port" in refused("DuplicateListener", create, Port=80, DefaultActions=[fixed("404")])
    assert "certificate" in refused("ValidationError", create, Protocol="HTTPS")
    assert "'TLS'" in refused("UnsupportedProtocol", create, Protocol="TLS")
    refused("UnsupportedProtocol", create, Protocol="TCP")
    refused("TargetGroupNotFound", create, DefaultActions=[{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"][:-1] + "x"}])
    second = create()["Listeners"][0]
    page = elbv2.describe_listeners(LoadBalancerArn=arn, PageSize=1)
    rest = elbv2.describe_listeners(LoadBalancerArn=arn, Marker=page["NextMarker"])
    assert {page["Listeners"][0]["Port"], rest["Listeners"][0]["Port"]} == {80, 81} and "NextMarker" not in rest
    forward = [{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}]
    changed = elbv2.modify_listener(ListenerArn=second["ListenerArn"], Port=82, DefaultActions=forward)["Listeners"][0]
    assert changed["Port"] == 82 and changed["DefaultActions"][0]["TargetGroupArn"] == group["TargetGroupArn"]
    assert elbv2.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"][0]["LoadBalancerArns"] == [arn]
    assert "in use" in refused("ResourceInUse", elbv2.delete_target_group, TargetGroupArn=group["TargetGroupArn"])
    elbv2.delete_listener(ListenerArn=second["ListenerArn"])
    refused("ListenerNotFound", elbv2.delete_listener, ListenerArn=second["ListenerArn"])


def test_r21_a_target_group_has_one_load_balancer(elbv2, subnets, listener, group):
    forward = [{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}]
    elbv2.modify_listener(ListenerArn=listener["ListenerArn"], DefaultActions=forward)
    other = elbv2.create_load_balancer(Name=name(), Subnets=[subnet["SubnetId"] for subnet in subnets[:2]])["LoadBalancers"][0]
    try:
        create = {"LoadBalancerArn": other["LoadBalancerArn"], "Protocol": "HTTP", "Port": 80, "DefaultActions": forward}
        assert "more than one load balancer" in refused("TargetGroupAssociationLimit", elbv2.create_listener, **create)
    finally:
        elbv2.delete_load_balancer(LoadBalancerArn=other["LoadBalancerArn"])
        elbv2.modify_listener(ListenerArn=listener["ListenerArn"], DefaultActions=[fixed()])


def test_r21_rules_are_ordered_by_priority(elbv2, listener):
    arn = listener["ListenerArn"]
    path = lambda value: [{"Field": "path-pattern", "Values": [value]}]
    create = lambda **more: elbv2.create_rule(**{"ListenerArn": arn, "Priority": 10, "Conditions": path("/a"), "Actions": [fixed()], **more})["Rules"][0]
    ten, five = create(), create(Priority=5, Conditions=path("/b"))
    assert refused("PriorityInUse", create) == "Priority '10' is currently in use"
    priorities = lambda: [rule["Priority"] for rule in elbv2.describe_rules(ListenerArn=arn)["Rules"]]
    assert priorities() == ["5", "10", "default"]
    pairs = [{"RuleArn": ten["RuleArn"], "Priority": 5}, {"RuleArn": five["RuleArn"], "Priority": 10}]
    elbv2.set_rule_priorities(RulePriorities=pairs)
    rules = elbv2.describe_rules(ListenerArn=arn)["Rules"]
    assert [rule["RuleArn"] for rule in rules[:2]] == [ten["RuleArn"], five["RuleArn"]]
    default = rules[2]["RuleArn"]
    assert rules[2]["IsDefault"] and elbv2.describe_rules(RuleArns=[default])["Rules"][0]["Priority"] == "default"
    refused("OperationNotPermitted", elbv2.delete_rule, RuleArn=default)
    refused("OperationNotPermitted", elbv2.modify_rule, RuleArn=default, Conditions=path("/c"))
    changed = elbv2.modify_rule(RuleArn=ten["RuleArn"], Conditions=path("/c"), Actions=[fixed("404")])["Rules"][0]
    assert changed["Conditions"][0]["Values"] == ["/c"] and changed["Actions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    elbv2.delete_rule(RuleArn=ten["RuleArn"])
    refused("RuleNotFound", elbv2.delete_rule, RuleArn=ten["RuleArn"])
    assert priorities() == ["10", "default"]


def test_r21_rules_that_cannot_be_are_refused(elbv2, listener):
    good = {"ListenerArn": listener["ListenerArn"], "Priority": 1, "Conditions": [{"Field": "path-pattern", "Values": ["/"]}], "Actions": [fixed()]}
    create = elbv2.create_rule
    condition = lambda field, **more: {"Conditions": [{"Field": field, **more}]}
    for wrong in (
        {"Priority": 0},
        condition("cookie", Values=["x"]),
        condition("source-ip", SourceIpConfig={"Values": ["10.0.0.1"]}),
        condition("path-pattern", Values=["a b"]),
        condition("http-header", HttpHeaderConfig={"HttpHeaderName": "a b", "Values": ["x"]}),
        condition("path-pattern", PathPatternConfig={"RegexValues": ["^/x"]}),
        {"Actions": [fixed("302")]},
        {"Actions": [fixed(ContentType="image/png")]},
        {"Actions": [{"Type": "authenticate-oidc"}]},
    ):
        refused("ValidationError", create, **{**good, **wrong})
    loop = {"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_301"}}
    assert "loop" in refused("InvalidLoadBalancerAction", create, **{**good, "Actions": [loop]})


def test_r21_tags_are_kept_on_everything(elbv2, balancer, listener, group):
    arns = [balancer["LoadBalancerArn"], listener["ListenerArn"], group["TargetGroupArn"]]
    elbv2.add_tags(ResourceArns=arns, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    elbv2.remove_tags(ResourceArns=arns[:1], TagKeys=["a"])
    shown = {found["ResourceArn"]: {tag["Key"]: tag["Value"] for tag in found["Tags"]} for found in elbv2.describe_tags(ResourceArns=arns)["TagDescriptions"]}
    assert shown == {arns[0]: {"b": "2"}, arns[1]: {"a": "1", "b": "2"}, arns[2]: {"a": "1", "b": "2"}}
    refused("DuplicateTagKeys", elbv2.add_tags, ResourceArns=arns, Tags=[{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}])


def test_r21_lists_have_pages(elbv2, subnets):
    two = [subnet["SubnetId"] for subnet in subnets[:2]]
    made = [elbv2.create_load_balancer(Name=name(), Subnets=two)["LoadBalancers"][0]["LoadBalancerArn"] for _ in range(3)]
    try:
        pages = elbv2.get_paginator("describe_load_balancers").paginate(PaginationConfig={"PageSize": 2})
        listed = [found["LoadBalancerArn"] for page in pages for found in page["LoadBalancers"]]
        assert set(made) <= set(listed) and len(listed) == len(set(listed))
    finally:
        for arn in made:
            elbv2.delete_load_balancer(LoadBalancerArn=arn)


def test_r21_limits_are_those_that_hold(elbv2):
    limits = {limit["Name"]: limit["Max"] for limit in elbv2.describe_account_limits()["Limits"]}
    assert limits["listeners-per-application-load-balancer"] == "50" and limits["targets-per-target-group"] == "1000"
