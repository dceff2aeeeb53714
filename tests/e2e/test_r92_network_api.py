"""EC2's network calls as boto3 and the AWS CLI make them: what a region has from the start, what is refused and how."""

import json

import botocore.exceptions
import pytest


@pytest.fixture
def ec2(platform):
    return platform.client("ec2")


@pytest.fixture
def vpc(ec2):
    """A VPC with one subnet, removed at the end of the test."""
    made = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    ec2.create_subnet(VpcId=made, CidrBlock="10.7.1.0/24", AvailabilityZone="us-east-1b")
    yield made
    for group in ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [made]}])["SecurityGroups"]:
        if group["GroupName"] != "default":
            ec2.delete_security_group(GroupId=group["GroupId"])
    for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [made]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=made)


def refused(code, call, **arguments):
    """Expects an error of this code; gives its text."""
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] == code, raised.value
    return raised.value.response["Error"]["Message"]


def test_r92_a_region_has_a_default_vpc_from_its_first_use(platform):
    for region in ("us-east-1", "eu-central-1"):
        ec2 = platform.client("ec2", region)
        [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        assert vpc["CidrBlock"] == "172.31.0.0/16"
        subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
        zones = {subnet["AvailabilityZone"]: subnet["CidrBlock"] for subnet in subnets if subnet["DefaultForAz"]}
        assert zones == {f"{region}a": "172.31.0.0/20", f"{region}b": "172.31.16.0/20", f"{region}c": "172.31.32.0/20"}
        assert [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]] == sorted(zones)
        [table] = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}, {"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["RouteTables"]
        [gateway] = ec2.describe_internet_gateways(Filters=[{"Name": "attachment.vpc-id", "Values": [vpc["VpcId"]]}])["InternetGateways"]
        routes = {route["DestinationCidrBlock"]: route["GatewayId"] for route in table["Routes"]}
        assert routes == {"172.31.0.0/16": "local", "0.0.0.0/0": gateway["InternetGatewayId"]}
        [group] = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
        assert group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == group["GroupId"]
        assert group["IpPermissionsEgress"][0]["IpRanges"][0]["CidrIp"] == "0.0.0.0/0"
        acls = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["NetworkAcls"]
        assert [acl["IsDefault"] for acl in acls] == [True]
        attributes = {one["AttributeName"]: one["AttributeValues"][0]["AttributeValue"] for one in ec2.describe_account_attributes()["AccountAttributes"]}
        assert attributes["default-vpc"] == vpc["VpcId"]


def test_r92_the_cli_reads_subnets_and_groups(platform):
    subnets = json.loads(platform.aws("ec2", "describe-subnets", "--output", "json"))["Subnets"]
    assert len([subnet for subnet in subnets if subnet["DefaultForAz"]]) == 3
    assert platform.aws("ec2", "describe-regions", "--query", "Regions[?RegionName=='us-east-1'].RegionName", "--output", "text").strip() == "us-east-1"


def test_r92_unknown_things_are_refused_with_amazons_codes(ec2):
    assert "vpc-00000000000000000" in refused("InvalidVpcID.NotFound", ec2.describe_vpcs, VpcIds=["vpc-00000000000000000"])
    refused("InvalidSubnetID.NotFound", ec2.describe_subnets, SubnetIds=["subnet-00000000000000000"])
    refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=["sg-00000000000000000"])
    refused("InvalidNetworkInterfaceID.NotFound", ec2.describe_network_interfaces, NetworkInterfaceIds=["eni-00000000000000000"])
    text = refused("InvalidParameterValue", ec2.describe_vpcs, Filters=[{"Name": "nonsense", "Values": ["x"]}])
    assert "nonsense" in text
    refused("DryRunOperation", ec2.create_vpc, CidrBlock="10.0.0.0/16", DryRun=True)
    text = refused("InvalidParameterValue", ec2.create_vpc, CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)
    assert "AmazonProvidedIpv6CidrBlock" in text
    for block in ("10.0.0.0/8", "127.0.0.0/16", "169.254.0.0/16", "0.0.0.0/16", "240.0.0.0/16"):
        refused("InvalidVpc.Range", ec2.create_vpc, CidrBlock=block)
    own = ec2.allocate_address()
    refused("InvalidVpc.Range", ec2.create_vpc, CidrBlock=own["PublicIp"] + "/28")
    ec2.release_address(AllocationId=own["AllocationId"])
    refused("UnsupportedOperation", ec2.describe_snapshots)


def test_r92_subnets_are_parts_of_their_vpc(ec2, vpc):
    refused("InvalidSubnet.Conflict", ec2.create_subnet, VpcId=vpc, CidrBlock="10.7.1.128/25")
    refused("InvalidSubnet.Range", ec2.create_subnet, VpcId=vpc, CidrBlock="10.8.1.0/24")
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.2.0/28")["Subnet"]
    assert subnet["AvailableIpAddressCount"] == 11
    interface = ec2.create_network_interface(SubnetId=subnet["SubnetId"], PrivateIpAddress="10.7.2.9")["NetworkInterface"]
    assert interface["MacAddress"].startswith("0a:") and interface["Status"] == "available"
    assert ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"][0]["AvailableIpAddressCount"] == 10
    refused("InvalidIPAddress.InUse", ec2.create_network_interface, SubnetId=subnet["SubnetId"], PrivateIpAddress="10.7.2.9")
    refused("InvalidParameterValue", ec2.create_network_interface, SubnetId=subnet["SubnetId"], PrivateIpAddress="10.7.2.1")
    refused("DependencyViolation", ec2.delete_subnet, SubnetId=subnet["SubnetId"])
    refused("DependencyViolation", ec2.delete_vpc, VpcId=vpc)
    ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])


def test_r92_rules_have_ids_and_no_doubles(ec2, vpc):
    group = ec2.create_security_group(GroupName="web", Description="web servers", VpcId=vpc)["GroupId"]
    refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="web", Description="again", VpcId=vpc)
    http = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "all"}]}
    [rule] = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[http])["SecurityGroupRules"]
    assert rule["SecurityGroupRuleId"].startswith("sgr-") and rule["CidrIpv4"] == "0.0.0.0/0"
    text = refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[http])
    assert text == 'the specified rule "peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW" already exists'
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}])
    ec2.modify_security_group_rules(
        GroupId=group,
        SecurityGroupRules=[{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": {"IpProtocol": "tcp", "FromPort": 81, "ToPort": 82, "CidrIpv4": "10.0.0.0/8"}}],
    )
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    shown = {(one["IsEgress"], one["IpProtocol"], one["FromPort"], one.get("CidrIpv4")) for one in rules}
    assert shown == {(True, "-1", -1, "0.0.0.0/0"), (False, "tcp", 81, "10.0.0.0/8"), (False, "-1", -1, None)}
    ports = [{**http, "FromPort": port, "ToPort": port} for port in range(1000, 1012)]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=ports)
    pages = ec2.get_paginator("describe_security_group_rules").paginate(
        Filters=[{"Name": "group-id", "Values": [group]}], PaginationConfig={"PageSize": 5}
    )
    sizes, paged = zip(*((len(page["SecurityGroupRules"]), page["SecurityGroupRules"]) for page in pages))
    assert sizes == (5, 5, 5) and len({one["SecurityGroupRuleId"] for page in paged for one in page}) == 15
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=ports)
    refused("InvalidPermission.NotFound", ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=[http])
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    refused("InvalidParameterValue", ec2.authorize_security_group_ingress, GroupId=group, CidrIp="10.0.0.0/33", IpProtocol="tcp", FromPort=1, ToPort=1)
    default = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["defau*"]}])["SecurityGroups"][0]
    refused("CannotDelete", ec2.delete_security_group, GroupId=default["GroupId"])
    ec2.authorize_security_group_ingress(GroupId=default["GroupId"], IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}])
    refused("DependencyViolation", ec2.delete_security_group, GroupId=group)
    ec2.revoke_security_group_ingress(GroupId=default["GroupId"], IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}])


def test_r92_what_a_default_vpcs_group_does_not_have_is_told_instead_of_revoked(ec2):
    group = ec2.create_security_group(GroupName="lenient", Description="in the default VPC")["GroupId"]
    rule = lambda port: {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule(80)])
    answer = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule(80), rule(81)])
    assert [one["FromPort"] for one in answer["RevokedSecurityGroupRules"]] == [80]
    assert [one["FromPort"] for one in answer["UnknownIpPermissions"]] == [81]
    ec2.delete_security_group(GroupId=group)


def test_r92_routes_and_gateways(ec2, vpc):
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    gateway = ec2.create_internet_gateway(TagSpecifications=[{"ResourceType": "internet-gateway", "Tags": [{"Key": "Name", "Value": "out"}]}])["InternetGateway"]
    assert gateway["Tags"] == [{"Key": "Name", "Value": "out"}]
    igw = gateway["InternetGatewayId"]
    refused("InvalidParameterValue", ec2.create_route, RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=igw)
    ec2.attach_internet_gateway(InternetGatewayId=igw, VpcId=vpc)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=igw)
    [subnet] = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])["AssociationId"]
    address = ec2.allocate_address()
    assert address["PublicIp"].startswith("198.1")
    nat = ec2.create_nat_gateway(SubnetId=subnet["SubnetId"], AllocationId=address["AllocationId"])["NatGateway"]
    ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat["NatGatewayId"]])
    refused("InvalidIPAddress.InUse", ec2.release_address, AllocationId=address["AllocationId"])
    refused("DependencyViolation", ec2.detach_internet_gateway, InternetGatewayId=igw, VpcId=vpc)
    private = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=private, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat["NatGatewayId"])
    ec2.delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])
    routes = ec2.describe_route_tables(RouteTableIds=[private])["RouteTables"][0]["Routes"]
    assert {route["DestinationCidrBlock"]: route["State"] for route in routes} == {"10.7.0.0/16": "active", "0.0.0.0/0": "blackhole"}
    ec2.release_address(AllocationId=address["AllocationId"])
    refused("DependencyViolation", ec2.delete_route_table, RouteTableId=table)
    ec2.disassociate_route_table(AssociationId=association)
    for made in (table, private):
        ec2.delete_route_table(RouteTableId=made)
    ec2.detach_internet_gateway(InternetGatewayId=igw, VpcId=vpc)
    ec2.delete_internet_gateway(InternetGatewayId=igw)


def test_r92_tags_and_pages(ec2, vpc):
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.7.9.{number * 16}/28")["Subnet"]["SubnetId"] for number in range(7)]
    ec2.create_tags(Resources=subnets, Tags=[{"Key": "team", "Value": "a"}])
    ec2.delete_tags(Resources=subnets[:1], Tags=[{"Key": "team"}])
    paginator = ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "tag:team", "Values": ["a"]}], PaginationConfig={"PageSize": 5})
    pages = [[subnet["SubnetId"] for subnet in page["Subnets"]] for page in paginator]
    assert [len(page) for page in pages] == [5, 1]
    assert sorted(sum(pages, [])) == sorted(subnets[1:])
    tags = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": subnets}])["Tags"]
    assert {tag["ResourceType"] for tag in tags} == {"subnet"} and len(tags) == 6
    paged = ec2.get_paginator("describe_tags").paginate(Filters=[{"Name": "key", "Values": ["team"]}], PaginationConfig={"PageSize": 5})
    assert [len(page["Tags"]) for page in paged] == [5, 1]
    refused("InvalidNextToken", ec2.describe_subnets, MaxResults=5, NextToken="nonsense")
