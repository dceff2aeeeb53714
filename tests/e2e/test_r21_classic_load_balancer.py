"""Classic Load Balancers: their API, what they do with instances, and an ECS service behind one."""

import collections
import http.client
import socket
import uuid

import botocore.exceptions
import pytest

from conftest import EXECUTION_ROLE, Image, Platform, eventually
from instances import joined, launch, profile, terminate, wait_for

CHECK = {"Interval": 5, "Timeout": 2, "UnhealthyThreshold": 2, "HealthyThreshold": 2}


def name():
    return f"c-{uuid.uuid4().hex[:12]}"


def refused(code, call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response["Error"]["Message"]


def listener(protocol, port, instance_port, **more):
    return {"Protocol": protocol, "LoadBalancerPort": port, "InstancePort": instance_port, **more}


def described(elb, balancer):
    return elb.describe_load_balancers(LoadBalancerNames=[balancer])["LoadBalancerDescriptions"][0]


def states(elb, balancer):
    """State and description of each instance."""
    found = elb.describe_instance_health(LoadBalancerName=balancer)["InstanceStates"]
    return {one["InstanceId"]: (one["State"], one["Description"]) for one in found}


IN = ("InService", "N/A")
FAILED = ("OutOfService", "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.")


@pytest.fixture
def made(platform):
    """Makes load balancers in the shared platform that are gone afterwards."""
    elb = platform.client("elb")
    names = []

    def make(*listeners, **more):
        names.append(name())
        more = more or {"AvailabilityZones": ["us-east-1a"]}
        elb.create_load_balancer(LoadBalancerName=names[-1], Listeners=list(listeners) or [listener("HTTP", 80, 8080)], **more)
        return names[-1]

    yield make
    for one in names:
        elb.delete_load_balancer(LoadBalancerName=one)


def test_r21_a_classic_load_balancer_is_shown_as_amazon_shows_it(platform, made):
    elb, ec2 = platform.client("elb"), platform.client("ec2")
    subnets = {subnet["AvailabilityZone"]: subnet for subnet in ec2.describe_subnets()["Subnets"]}
    balancer = made(listener("http", 80, 8080), listener("TCP", 90, 9090, InstanceProtocol="tcp"), AvailabilityZones=["us-east-1b"], Tags=[{"Key": "a", "Value": "1"}])
    found = described(elb, balancer)
    assert found["DNSName"].startswith(f"{balancer}-") and found["CanonicalHostedZoneName"] == found["DNSName"]
    assert found["Scheme"] == "internet-facing" and found["VPCId"] == subnets["us-east-1b"]["VpcId"]
    assert found["AvailabilityZones"] == ["us-east-1b"] and found["Subnets"] == [subnets["us-east-1b"]["SubnetId"]]
    assert [one["Listener"] for one in found["ListenerDescriptions"]] == [
        {"Protocol": "HTTP", "LoadBalancerPort": 80, "InstanceProtocol": "HTTP", "InstancePort": 8080},
        {"Protocol": "TCP", "LoadBalancerPort": 90, "InstanceProtocol": "TCP", "InstancePort": 9090},
    ]
    assert found["HealthCheck"] == {"Target": "TCP:8080", "Interval": 30, "Timeout": 5, "UnhealthyThreshold": 2, "HealthyThreshold": 10}
    assert found["Instances"] == [] and found["SourceSecurityGroup"]["GroupName"] == "default"
    interfaces = ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": [f"ELB {balancer}"]}])["NetworkInterfaces"]
    assert [interface["SubnetId"] for interface in interfaces] == found["Subnets"]

    # The same again gives the same; anything else under its name is refused.
    same = [listener("TCP", 90, 9090), listener("HTTP", 80, 8080)]
    create = elb.create_load_balancer
    again = create(LoadBalancerName=balancer, Listeners=same, AvailabilityZones=["us-east-1b"])
    assert again["DNSName"] == found["DNSName"]
    message = refused("DuplicateLoadBalancerName", create, LoadBalancerName=balancer, Listeners=same[:1], AvailabilityZones=["us-east-1b"])
    assert message == f"Load Balancer named {balancer} already exists and it is configured with different parameters."

    elb.create_load_balancer_listeners(LoadBalancerName=balancer, Listeners=[listener("HTTP", 80, 8080), listener("HTTP", 81, 8080)])
    refused("DuplicateListener", elb.create_load_balancer_listeners, LoadBalancerName=balancer, Listeners=[listener("HTTP", 80, 8081)])
    elb.delete_load_balancer_listeners(LoadBalancerName=balancer, LoadBalancerPorts=[90, 7])
    assert [one["Listener"]["LoadBalancerPort"] for one in described(elb, balancer)["ListenerDescriptions"]] == [80, 81]

    zones = elb.enable_availability_zones_for_load_balancer(LoadBalancerName=balancer, AvailabilityZones=["us-east-1a", "us-east-1b"])
    assert zones["AvailabilityZones"] == ["us-east-1a", "us-east-1b"]
    attached = elb.attach_load_balancer_to_subnets(LoadBalancerName=balancer, Subnets=[subnets["us-east-1c"]["SubnetId"]])
    assert sorted(attached["Subnets"]) == sorted(subnet["SubnetId"] for subnet in subnets.values())
    group = ec2.create_security_group(GroupName=name(), Description="x", VpcId=found["VPCId"])["GroupId"]
    assert elb.apply_security_groups_to_load_balancer(LoadBalancerName=balancer, SecurityGroups=[group])["SecurityGroups"] == [group]
    assert described(elb, balancer)["SecurityGroups"] == [group]
    elb.apply_security_groups_to_load_balancer(LoadBalancerName=balancer, SecurityGroups=found["SecurityGroups"])
    ec2.delete_security_group(GroupId=group)
    check = {**CHECK, "Target": "HTTP:8080/health?x=1"}
    assert elb.configure_health_check(LoadBalancerName=balancer, HealthCheck=check)["HealthCheck"] == check
    assert described(elb, balancer)["HealthCheck"] == check

    elb.add_tags(LoadBalancerNames=[balancer], Tags=[{"Key": "b", "Value": "2"}])
    elb.remove_tags(LoadBalancerNames=[balancer], Tags=[{"Key": "a"}])
    assert elb.describe_tags(LoadBalancerNames=[balancer])["TagDescriptions"] == [{"LoadBalancerName": balancer, "Tags": [{"Key": "b", "Value": "2"}]}]

    attributes = elb.describe_load_balancer_attributes(LoadBalancerName=balancer)["LoadBalancerAttributes"]
    assert attributes["ConnectionDraining"] == {"Enabled": False, "Timeout": 300}
    assert attributes["ConnectionSettings"] == {"IdleTimeout": 60} and attributes["AccessLog"] == {"Enabled": False}
    modify = lambda **changes: elb.modify_load_balancer_attributes(LoadBalancerName=balancer, LoadBalancerAttributes=changes)
    changed = modify(ConnectionDraining={"Enabled": True, "Timeout": 7}, ConnectionSettings={"IdleTimeout": 9})["LoadBalancerAttributes"]
    assert changed["ConnectionDraining"] == {"Enabled": True, "Timeout": 7} and changed["ConnectionSettings"] == {"IdleTimeout": 9}
    assert elb.describe_load_balancer_attributes(LoadBalancerName=balancer)["LoadBalancerAttributes"] == changed
    assert "CrossZoneLoadBalancing" in refused("ValidationError", modify, CrossZoneLoadBalancing={"Enabled": False})
    assert "AccessLog" in refused("ValidationError", modify, AccessLog={"Enabled": True, "S3BucketName": "b"})
    refused("ValidationError", modify, ConnectionSettings={"IdleTimeout": 4000})
    assert modify(AdditionalAttributes=[{"Key": "elb.http.desyncmitigationmode", "Value": "defensive"}])
    refused("ValidationError", modify, AdditionalAttributes=[{"Key": "elb.http.desyncmitigationmode", "Value": "strictest"}])


def test_r21_classic_load_balancers_and_their_successors_do_not_see_each_other(platform, made):
    elb, elbv2, ecs = (platform.client(service) for service in ("elb", "elbv2", "ecs"))
    balancer = made()
    arn = f"arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/{balancer}"
    assert all(found["LoadBalancerName"] != balancer for found in elbv2.describe_load_balancers()["LoadBalancers"])
    assert all(found["TargetGroupName"] != balancer for found in elbv2.describe_target_groups()["TargetGroups"])
    refused("LoadBalancerNotFound", elbv2.describe_load_balancers, Names=[balancer])
    refused("ValidationError", elbv2.create_listener, LoadBalancerArn=arn, Protocol="HTTP", Port=99, DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}])
    refused("ValidationError", elbv2.describe_tags, ResourceArns=[arn])
    refused("ValidationError", elbv2.delete_load_balancer, LoadBalancerArn=arn)
    refused("ValidationError", elbv2.describe_load_balancers, LoadBalancerArns=[arn])
    assert described(elb, balancer)["LoadBalancerName"] == balancer
    # Two of a name, one of each kind.
    subnets = [subnet["SubnetId"] for subnet in platform.client("ec2").describe_subnets()["Subnets"]]
    other = elbv2.create_load_balancer(Name=balancer, Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    elbv2.delete_load_balancer(LoadBalancerArn=other)
    ecs.create_cluster(clusterName="classic-api")
    ecs.register_task_definition(family=balancer, networkMode="bridge", containerDefinitions=[{"name": "web", "image": "x", "memory": 64, "portMappings": [{"containerPort": 80, "hostPort": 80}]}])
    by_arn = [{"targetGroupArn": arn, "containerName": "web", "containerPort": 80}]
    assert "does not exist" in refused("InvalidParameterException", ecs.create_service, cluster="classic-api", serviceName="s", taskDefinition=balancer, desiredCount=0, launchType="EC2", loadBalancers=by_arn)


def test_r21_classic_errors_are_amazons(platform, made):
    elb, ec2 = platform.client("elb"), platform.client("ec2")
    zones = {"AvailabilityZones": ["us-east-1a"]}
    create = lambda *listeners, **more: elb.create_load_balancer(**{"LoadBalancerName": name(), "Listeners": list(listeners) or [listener("HTTP", 80, 80)], **zones, **more})
    with pytest.raises(botocore.exceptions.ClientError, match="HTTPS"):
        create(listener("HTTPS", 443, 80, SSLCertificateId="arn:aws:iam::1:server-certificate/x"))
    with pytest.raises(botocore.exceptions.ClientError, match="SSL"):
        create(listener("SSL", 443, 80))
    refused("InvalidConfigurationRequest", create, Listeners=[listener("HTTP", 80, 80, InstanceProtocol="TCP")])
    refused("UnsupportedProtocol", create, Listeners=[listener("UDP", 53, 53)])
    refused("DuplicateListener", create, Listeners=[listener("HTTP", 80, 80), listener("TCP", 80, 80)])
    refused("ValidationError", create, LoadBalancerName="a_b")
    refused("ValidationError", create, AvailabilityZones=["us-east-1z"])
    refused("ValidationError", create, AvailabilityZones=[])
    refused("InvalidScheme", create, Scheme="sideways")
    refused("SubnetNotFound", create, AvailabilityZones=[], Subnets=["subnet-00000000000000000"])
    refused("InvalidSecurityGroup", create, SecurityGroups=["sg-00000000000000000"])
    nobody = {"LoadBalancerName": "nobody"}
    for call, more in [
        (elb.describe_instance_health, {}),
        (elb.describe_load_balancer_attributes, {}),
        (elb.register_instances_with_load_balancer, {"Instances": []}),
        (elb.delete_load_balancer_listeners, {"LoadBalancerPorts": [80]}),
        (elb.configure_health_check, {"HealthCheck": {**CHECK, "Target": "TCP:80"}}),
    ]:
        assert refused("LoadBalancerNotFound", call, **nobody, **more) == "There is no ACTIVE Load Balancer named 'nobody'"
    elb.delete_load_balancer(**nobody)
    balancer = made()
    for target in ("HTTP:80", "TCP:80/x", "TCP:0", "HTTPS:443/", "80"):
        refused("ValidationError", elb.configure_health_check, LoadBalancerName=balancer, HealthCheck={**CHECK, "Target": target})
    refused("ValidationError", elb.configure_health_check, LoadBalancerName=balancer, HealthCheck={**CHECK, "Target": "TCP:80", "Timeout": 5})
    ghost = [{"InstanceId": "i-00000000000000000"}]
    for call in (elb.register_instances_with_load_balancer, elb.deregister_instances_from_load_balancer, elb.describe_instance_health):
        refused("InvalidInstance", call, LoadBalancerName=balancer, Instances=ghost)
    other = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=other, CidrBlock="10.77.1.0/24", AvailabilityZone="us-east-1b")["Subnet"]["SubnetId"]
    try:
        refused("InvalidConfigurationRequest", elb.attach_load_balancer_to_subnets, LoadBalancerName=balancer, Subnets=[subnet])
    finally:
        ec2.delete_subnet(SubnetId=subnet)
        ec2.delete_vpc(VpcId=other)
    pages = elb.get_paginator("describe_load_balancers").paginate(PaginationConfig={"PageSize": 1})
    mine = {balancer, made(), made()}
    assert mine <= {found["LoadBalancerName"] for page in pages for found in page["LoadBalancerDescriptions"]}


class Stack:
    """A platform whose load balancers' names resolve, and a security group that lets everybody in."""

    def __init__(self, platform):
        self.platform = platform
        self.elb, self.ec2, self.ecs = (platform.client(service) for service in ("elb", "ec2", "ecs"))
        self.subnets = [subnet["SubnetId"] for subnet in self.ec2.describe_subnets()["Subnets"]]
        vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        self.group = self.ec2.create_security_group(GroupName="open", Description="open", VpcId=vpc)["GroupId"]
        everybody = [{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=everybody)

    def balancer(self, target, *listeners):
        made = name()
        host = self.elb.create_load_balancer(LoadBalancerName=made, Listeners=list(listeners), Subnets=self.subnets, SecurityGroups=[self.group])["DNSName"]
        self.elb.configure_health_check(LoadBalancerName=made, HealthCheck={**CHECK, "Target": target})
        return made, host


@pytest.fixture(scope="module")
def stack():
    platform = Platform(hosts=True)
    try:
        yield Stack(platform.start())
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


def get(host, port=80, path="/"):
    """The status and body of an answer; the error's name where there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, None
    finally:
        connection.close()


def answers(host, port=80, times=12):
    return collections.Counter(get(host, port)[1] for _ in range(times))


def test_r21_requests_and_connections_go_to_instances_in_service_only(stack):
    elb, ec2 = stack.elb, stack.ec2
    balancer, host = stack.balancer("TCP:8080", listener("HTTP", 80, 8080), listener("TCP", 81, 8080))
    script = "mkdir /www; hostname > /www/index.html; cd /www; setsid python3 -m http.server 8080 >/dev/null 2>&1 </dev/null &\n"
    machines = launch(stack.platform, script, count=2, SecurityGroupIds=[stack.group])
    named = [{"InstanceId": machine} for machine in machines]
    try:
        for machine in machines:
            wait_for(stack.platform, machine, "running")
        # Nobody is there yet: no answer but the load balancer's own.
        eventually(lambda: get(host) == (503, get(host)[1]))
        assert get(host, 81)[1] is None
        registered = elb.register_instances_with_load_balancer(LoadBalancerName=balancer, Instances=named)
        assert sorted(one["InstanceId"] for one in registered["Instances"]) == sorted(machines)
        eventually(lambda: states(elb, balancer) == {machine: IN for machine in machines})
        eventually(lambda: len(answers(host)) == 2 and None not in answers(host))
        eventually(lambda: len(answers(host, 81, 40)) == 2 and None not in answers(host, 81))

        # Failing its checks, an instance gets nothing, even if there is no other.
        elb.configure_health_check(LoadBalancerName=balancer, HealthCheck={**CHECK, "Target": "HTTP:8080/missing"})
        eventually(lambda: states(elb, balancer) == {machine: FAILED for machine in machines})
        eventually(lambda: get(host)[0] == 503 and get(host, 81)[1] is None)
        elb.configure_health_check(LoadBalancerName=balancer, HealthCheck={**CHECK, "Target": "HTTP:8080/"})
        eventually(lambda: states(elb, balancer) == {machine: IN for machine in machines})
        eventually(lambda: get(host)[0] == 200 and get(host, 81)[0] == 200)

        # Open connections go on through connection draining; what is left of them at its end is cut.
        attributes = {"ConnectionDraining": {"Enabled": True, "Timeout": 20}, "ConnectionSettings": {"IdleTimeout": 3600}}
        elb.modify_load_balancer_attributes(LoadBalancerName=balancer, LoadBalancerAttributes=attributes)
        asking, silent = (socket.create_connection((host, 81), timeout=60) for _ in range(2))
        for connection in (asking, silent):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        left = elb.deregister_instances_from_load_balancer(LoadBalancerName=balancer, Instances=named)
        assert left["Instances"] == []
        draining = elb.describe_instance_health(LoadBalancerName=balancer, Instances=named)["InstanceStates"]
        assert {one["Description"] for one in draining} == {"Instance deregistration currently in progress."}
        eventually(lambda: get(host)[0] == 503, 15)
        asking.sendall(b"\r\n")
        assert b" 200 " in asking.makefile("rb").readline()
        try:
            cut = silent.recv(1)
        except ConnectionResetError:
            cut = b""
        assert cut == b""
        asking.close(), silent.close()
        gone = "Instance is not currently registered with the LoadBalancer."
        described_gone = lambda: {one["Description"] for one in elb.describe_instance_health(LoadBalancerName=balancer, Instances=named)["InstanceStates"]}
        eventually(lambda: described_gone() == {gone})

        # A new listener leads to the same instances, and one that is deleted to nobody.
        elb.register_instances_with_load_balancer(LoadBalancerName=balancer, Instances=named[:1])
        elb.create_load_balancer_listeners(LoadBalancerName=balancer, Listeners=[listener("HTTP", 82, 8080)])
        eventually(lambda: get(host, 82)[0] == 200)
        elb.delete_load_balancer_listeners(LoadBalancerName=balancer, LoadBalancerPorts=[82])
        eventually(lambda: get(host, 82)[1] is None)

        ec2.stop_instances(InstanceIds=machines[:1])
        wait_for(stack.platform, machines[0], "stopped")
        assert states(elb, balancer) == {machines[0]: ("OutOfService", "Instance is in stopped state.")}
        terminate(stack.platform, machines)
        assert described(elb, balancer)["Instances"] == []
    finally:
        terminate(stack.platform, machines)
        elb.delete_load_balancer(LoadBalancerName=balancer)
    refused("LoadBalancerNotFound", elb.describe_load_balancers, LoadBalancerNames=[balancer])


def test_r21_a_service_stands_behind_a_classic_load_balancer(stack):
    elb, ecs, platform = stack.elb, stack.ecs, stack.platform
    ecs.create_cluster(clusterName="classic")
    balancer, host = stack.balancer("HTTP:8080/", listener("HTTP", 80, 8080))
    serve = "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    container = {
        "name": "web", "image": Image(platform, "busybox").uri, "memory": 64, "entryPoint": ["/bin/sh", "-c"], "command": [serve],
        "portMappings": [{"containerPort": 80, "hostPort": 8080}], "stopTimeout": 2,
    }

    def define(family, mode="bridge", **changes):
        one = {**container, **changes}
        return ecs.register_task_definition(family=family, networkMode=mode, executionRoleArn=EXECUTION_ROLE, containerDefinitions=[one])["taskDefinition"]["taskDefinitionArn"]

    classic = [{"loadBalancerName": balancer, "containerName": "web", "containerPort": 80}]
    arguments = {"cluster": "classic", "launchType": "EC2", "desiredCount": 2, "loadBalancers": classic}
    create = lambda definition, **more: ecs.create_service(**{**arguments, "serviceName": "web", "taskDefinition": definition, **more})["service"]
    wrong = lambda definition, **more: refused("InvalidParameterException", create, definition=definition, **more)
    assert "dynamic port mapping" in wrong(define("dynamic", portMappings=[{"containerPort": 80}]))
    assert "awsvpc network mode" in wrong(define("awsvpc", "awsvpc", portMappings=[{"containerPort": 80}]), networkConfiguration={"awsvpcConfiguration": {"subnets": stack.subnets}})
    definition = define("web")
    assert "named nobody" in wrong(definition, loadBalancers=[{**classic[0], "loadBalancerName": "nobody"}])
    assert "container port 81" in wrong(definition, loadBalancers=[{**classic[0], "containerPort": 81}])
    assert "Classic" in wrong(definition, availabilityZoneRebalancing="ENABLED")

    role = profile(platform)
    machines = launch(platform, "echo ECS_CLUSTER=classic >> /etc/ecs/ecs.config\n", count=2, role=role, SecurityGroupIds=[stack.group])
    try:
        joined(platform, "classic", 2)
        service = create(definition)
        assert service["loadBalancers"] == classic and service["availabilityZoneRebalancing"] == "DISABLED"
        events = lambda: [event["message"] for event in ecs.describe_services(cluster="classic", services=["web"])["services"][0]["events"]]
        both = lambda: states(elb, balancer) == {machine: IN for machine in machines}
        eventually(both)
        eventually(lambda: len(answers(host)) == 2 and None not in answers(host))
        eventually(lambda: "(service web) has reached a steady state." in events())
        assert events().count(f"(service web) registered 1 instances in (elb {balancer})") == 2

        # A task less is an instance less; it comes back with its task.
        ecs.update_service(cluster="classic", service="web", desiredCount=1)
        eventually(lambda: len(described(elb, balancer)["Instances"]) == 1)
        assert f"(service web) deregistered 1 instances in (elb {balancer})" in events()
        eventually(lambda: list(states(elb, balancer).values()) == [IN] and len(answers(host)) == 1)
        ecs.update_service(cluster="classic", service="web", desiredCount=2)
        eventually(both)
        eventually(lambda: len(answers(host)) == 2 and None not in answers(host))

        # Nor does a task that somebody stops leave its instance in service; its successor brings it back.
        registered = events().count(f"(service web) registered 1 instances in (elb {balancer})")
        [stopped, *_] = ecs.list_tasks(cluster="classic", serviceName="web")["taskArns"]
        ecs.stop_task(cluster="classic", task=stopped)
        eventually(lambda: events().count(f"(service web) registered 1 instances in (elb {balancer})") == registered + 1)
        eventually(both)
        eventually(lambda: len(answers(host)) == 2 and None not in answers(host))

        # One that fails the load balancer's checks is replaced.
        check = lambda path: elb.configure_health_check(LoadBalancerName=balancer, HealthCheck={**CHECK, "Target": f"HTTP:8080{path}"})
        check("/missing")
        said = f"is unhealthy in (elb {balancer}) due to (reason {FAILED[1]})"
        eventually(lambda: any(text.endswith(said) and "(instance i-" in text for text in events()), 120)
        check("/")
        eventually(both, 120)
        # An update goes one instance after the other, which lets the new task have the port.
        ecs.update_service(cluster="classic", service="web", taskDefinition=define("web"), deploymentConfiguration={"minimumHealthyPercent": 50, "maximumPercent": 100})
        newest = lambda: ecs.describe_services(cluster="classic", services=["web"])["services"][0]
        eventually(lambda: len(newest()["deployments"]) == 1 and newest()["deployments"][0]["rolloutState"] == "COMPLETED", 120)
        eventually(both)
        changes = {"taskDefinition": define("web", portMappings=[{"containerPort": 80}])}
        assert "dynamic port mapping" in refused("InvalidParameterException", ecs.update_service, cluster="classic", service="web", **changes)
        ecs.delete_service(cluster="classic", service="web", force=True)
        eventually(lambda: described(elb, balancer)["Instances"] == [])
        eventually(lambda: newest()["status"] == "INACTIVE")
    finally:
        terminate(platform, machines)
        elb.delete_load_balancer(LoadBalancerName=balancer)
