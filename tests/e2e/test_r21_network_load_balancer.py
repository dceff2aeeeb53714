"""Network load balancers: their API, and TCP connections through them to a service on Fargate."""

import collections
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

import botocore.exceptions
import pytest

from conftest import Image, Platform, busybox, default_network, eventually, register, run_task
from conftest import wait_for as wait_for_task
from instances import launch, terminate, wait_for

# Says which task it is and whom it sees, then sends back what comes.
ECHO = b"""#!/bin/sh
socket=$(ls -l /proc/$$/fd/0 | /bin/busybox tr -dc '0-9[]\\n' | /bin/busybox sed 's/.*\\[//; s/\\].*//')
echo "$(hostname) $(grep -hs " $socket " /proc/net/tcp /proc/net/tcp6 | awk '{print $3}')"
exec cat
"""
# Says what came before anything else.
PREAMBLE = b"#!/bin/sh\nhead -c 28 | /bin/busybox od -An -v -tx1 | /bin/busybox tr -d ' \\n'\n"
CHECK = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2, "UnhealthyThresholdCount": 2}


def name():
    return f"t-{uuid.uuid4().hex[:12]}"


def refused(code, call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response["Error"]["Message"]


def forward(*groups):
    return [{"Type": "forward", "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": group, "Weight": 1} for group in groups]}}]


def as_map(answer):
    return {pair["Key"]: pair["Value"] for pair in answer["Attributes"]}


class Stack:
    def __init__(self, platform):
        self.platform = platform
        self.elbv2, self.ec2, self.ecs = (platform.client(service) for service in ("elbv2", "ec2", "ecs"))
        self.subnets = self.ec2.describe_subnets()["Subnets"]
        self.vpc = self.subnets[0]["VpcId"]
        self.arn, self.host = None, None
        self.port = 9000

    def group(self, port=7000, addresses=(), attributes=None, **more):
        made = self.elbv2.create_target_group(Name=name(), Protocol="TCP", Port=port, VpcId=self.vpc, TargetType="ip", **{**CHECK, **more})
        arn = made["TargetGroups"][0]["TargetGroupArn"]
        if attributes:
            self.attributes(arn, attributes)
        if addresses:
            self.elbv2.register_targets(TargetGroupArn=arn, Targets=[{"Id": address} for address in addresses])
        return arn

    def attributes(self, group, changes):
        pairs = [{"Key": key, "Value": value} for key, value in changes.items()]
        return self.elbv2.modify_target_group_attributes(TargetGroupArn=group, Attributes=pairs)

    def attributes_of(self, arn, changes):
        self.elbv2.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": key, "Value": value} for key, value in changes.items()])

    def nodes(self, arn):
        """The addresses of a load balancer's nodes."""
        description = f"ELB {arn.split('loadbalancer/')[1]}"
        found = self.ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": [description]}])["NetworkInterfaces"]
        return [one["PrivateIpAddress"] for one in found]

    def listen(self, group, healthy=2):
        """A port of the load balancer that leads to a target group."""
        self.port += 1
        self.elbv2.create_listener(LoadBalancerArn=self.arn, Protocol="TCP", Port=self.port, DefaultActions=forward(group))
        eventually(lambda: self.states(group) == ["healthy"] * healthy, timeout=60)
        eventually(lambda: self.opens(self.port))
        return self.port

    def opens(self, port):
        try:
            socket.create_connection((self.host, port), timeout=5).close()
            return True
        except OSError:
            return False

    def health(self, group):
        shown = self.elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return {found["Target"]["Id"]: found["TargetHealth"]["State"] for found in shown}

    def states(self, group):
        return list(self.health(group).values())

    def connect(self, port):
        """A connection, with the task that it led to and the address that the task sees."""
        connection = socket.create_connection((self.host, port), timeout=20)
        reader = connection.makefile("rb")
        task, seen = reader.readline().decode().split()
        # The kernel writes addresses as hexadecimal numbers in its own byte order.
        address = bytes.fromhex(seen.split(":")[0][-8:])[::-1]
        return connection, reader, task, socket.inet_ntoa(address)

    def reached(self, port, times=24):
        found = collections.Counter()
        for _ in range(times):
            connection, _, task, _ = self.connect(port)
            found[task] += 1
            connection.close()
        return found


@pytest.fixture(scope="module")
def bare():
    platform = Platform(hosts=True)
    try:
        yield Stack(platform.start())
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture(scope="module")
def stack(bare):
    """A service of two tasks behind a network load balancer without security groups."""
    files = {**busybox(), "bin/echo-back": (ECHO, 0o755), "bin/preamble": (PREAMBLE, 0o755), "www/up": (b"up\n", 0o644)}
    image = Image(bare.platform, "echo", files=files).uri
    opened = bare.ec2.create_security_group(GroupName="echo", Description="open", VpcId=bare.vpc)["GroupId"]
    ports = [{"IpProtocol": "tcp", "FromPort": 7000, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    bare.ec2.authorize_security_group_ingress(GroupId=opened, IpPermissions=ports)
    bare.opened = opened
    made = bare.elbv2.create_load_balancer(Name="net", Type="network", Subnets=[subnet["SubnetId"] for subnet in bare.subnets])["LoadBalancers"][0]
    bare.arn, bare.host = made["LoadBalancerArn"], made["DNSName"]
    bare.attributes_of(bare.arn, {"load_balancing.cross_zone.enabled": "true"})
    bare.service_group = bare.group()
    bare.elbv2.create_listener(LoadBalancerArn=bare.arn, Protocol="TCP", Port=7000, DefaultActions=forward(bare.service_group))
    command = "nc -ll -p 7001 -e /bin/preamble & httpd -p 8080 -h /www; exec nc -ll -p 7000 -e /bin/echo-back"
    container = {"name": "echo", "image": image, "command": ["sh", "-c", command], "portMappings": [{"containerPort": 7000}]}
    definition = bare.definition = register(bare.platform, "echo", container)
    network = default_network(bare.platform)
    network["awsvpcConfiguration"]["securityGroups"] = [opened]
    bare.ecs.create_cluster(clusterName="default")
    balancers = [{"targetGroupArn": bare.service_group, "containerName": "echo", "containerPort": 7000}]
    bare.ecs.create_service(serviceName="echo", taskDefinition=definition, desiredCount=2, launchType="FARGATE", networkConfiguration=network, loadBalancers=balancers)
    eventually(lambda: bare.states(bare.service_group) == ["healthy"] * 2, timeout=90)
    bare.addresses = sorted(bare.health(bare.service_group))
    return bare


def test_r21_a_network_load_balancer_is_shown_as_amazon_shows_it(bare):
    create = bare.elbv2.create_load_balancer
    one = [bare.subnets[0]["SubnetId"]]
    made = create(Name="shown", Type="network", Subnets=one)["LoadBalancers"][0]
    arn = made["LoadBalancerArn"]
    assert ":loadbalancer/net/shown/" in arn and made["Type"] == "network" and made["SecurityGroups"] == []
    assert made["DNSName"] == f"shown-{arn.rsplit('/', 1)[1]}.elb.us-east-1.longshore.internal"
    attributes = as_map(bare.elbv2.describe_load_balancer_attributes(LoadBalancerArn=arn))
    assert attributes["load_balancing.cross_zone.enabled"] == "false" and "idle_timeout.timeout_seconds" not in attributes
    refused("InvalidConfigurationRequest", bare.elbv2.set_security_groups, LoadBalancerArn=arn, SecurityGroups=["sg-1"])
    assert "'gateway'" in refused("ValidationError", create, Name=name(), Type="gateway", Subnets=one)
    refused("DuplicateLoadBalancerName", create, Name="shown", Subnets=[subnet["SubnetId"] for subnet in bare.subnets])
    group = bare.elbv2.describe_target_groups(TargetGroupArns=[bare.group()])["TargetGroups"][0]
    assert group["Protocol"] == group["HealthCheckProtocol"] == "TCP" and "ProtocolVersion" not in group and "Matcher" not in group
    fresh = bare.elbv2.create_target_group(Name=name(), Protocol="TCP", Port=1, VpcId=bare.vpc, TargetType="instance")["TargetGroups"][0]
    numbers = [fresh[key] for key in ("HealthCheckIntervalSeconds", "HealthCheckTimeoutSeconds", "HealthyThresholdCount", "UnhealthyThresholdCount")]
    assert numbers == [30, 10, 5, 2]
    http = bare.elbv2.create_target_group(Name=name(), Protocol="TCP", Port=1, VpcId=bare.vpc, HealthCheckProtocol="HTTP")["TargetGroups"][0]
    assert (http["HealthCheckTimeoutSeconds"], http["Matcher"]["HttpCode"], http["HealthCheckPath"]) == (6, "200-399", "/")
    bare.elbv2.delete_load_balancer(LoadBalancerArn=arn)


def test_r21_what_does_not_go_together_is_refused(bare):
    elbv2 = bare.elbv2
    two = [subnet["SubnetId"] for subnet in bare.subnets[:2]]
    net, app = (elbv2.create_load_balancer(Name=name(), Type=kind, Subnets=two)["LoadBalancers"][0]["LoadBalancerArn"] for kind in ("network", "application"))
    tcp = bare.group()
    http = elbv2.create_target_group(Name=name(), Protocol="HTTP", Port=80, VpcId=bare.vpc)["TargetGroups"][0]["TargetGroupArn"]
    listen = lambda arn, protocol, actions: {"LoadBalancerArn": arn, "Protocol": protocol, "Port": 80, "DefaultActions": actions}
    fixed = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}]
    create = elbv2.create_listener
    refused("IncompatibleProtocols", create, **listen(net, "TCP", forward(http)))
    refused("IncompatibleProtocols", create, **listen(app, "HTTP", forward(tcp)))
    refused("UnsupportedProtocol", create, **listen(net, "HTTP", forward(tcp)))
    refused("UnsupportedProtocol", create, **listen(app, "TCP", forward(http)))
    refused("InvalidLoadBalancerAction", create, **listen(net, "TCP", fixed))
    for protocol in ("TLS", "UDP", "TCP_UDP"):
        assert protocol in refused("ValidationError", create, **listen(net, protocol, forward(tcp)))
        assert protocol in refused("ValidationError", elbv2.create_target_group, Name=name(), Protocol=protocol, Port=1, VpcId=bare.vpc)
    made = create(**listen(net, "TCP", forward(tcp)))["Listeners"][0]
    assert made["Protocol"] == "TCP" and ":listener/net/" in made["ListenerArn"]
    condition = [{"Field": "path-pattern", "Values": ["/x"]}]
    refused("ValidationError", elbv2.create_rule, ListenerArn=made["ListenerArn"], Priority=1, Conditions=condition, Actions=forward(tcp))
    assert as_map(elbv2.describe_listener_attributes(ListenerArn=made["ListenerArn"])) == {"tcp.idle_timeout.seconds": "350"}
    refused("ValidationError", elbv2.create_target_group, Name=name(), Protocol="HTTP", Port=1, VpcId=bare.vpc, HealthCheckProtocol="TCP")
    assert as_map(elbv2.describe_target_group_attributes(TargetGroupArn=tcp))["preserve_client_ip.enabled"] == "false"
    with pytest.raises(botocore.exceptions.ClientError, match="preserve_client_ip.enabled"):
        bare.attributes(tcp, {"preserve_client_ip.enabled": "yes"})
    by_id = elbv2.create_target_group(Name=name(), Protocol="TCP", Port=1, VpcId=bare.vpc)["TargetGroups"][0]["TargetGroupArn"]
    assert as_map(elbv2.describe_target_group_attributes(TargetGroupArn=by_id))["preserve_client_ip.enabled"] == "true"
    assert as_map(bare.attributes(by_id, {"preserve_client_ip.enabled": "false"}))["preserve_client_ip.enabled"] == "false"
    with pytest.raises(botocore.exceptions.ClientError, match="slow_start"):
        bare.attributes(tcp, {"slow_start.duration_seconds": "30"})
    [elbv2.delete_load_balancer(LoadBalancerArn=arn) for arn in (net, app)]


def test_r21_a_service_answers_through_it(stack):
    assert sorted(stack.reached(7000).values())[0] > 0 and len(stack.reached(7000)) == 2
    interfaces = stack.ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": ["ELB net/net/*"]}])["NetworkInterfaces"]
    own = {found["PrivateIpAddress"] for found in interfaces}
    _, _, _, seen = stack.connect(7000)
    assert seen in own, (seen, own)


def test_r21_targets_learn_of_the_client_by_the_proxy_protocol(stack):
    group = stack.group(7001, stack.addresses, {"proxy_protocol_v2.enabled": "true"})
    port = stack.listen(group)

    def header():
        with socket.create_connection((stack.host, port), timeout=20) as connection:
            own = connection.getsockname()
            return own, bytes.fromhex(connection.makefile("rb").read().decode())

    own, came = header()
    assert came[:16] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", came
    assert (socket.inet_ntoa(came[16:20]), struct.unpack(">H", came[24:26])[0]) == own
    assert struct.unpack(">H", came[26:28])[0] == port


# Connects from where it runs, and says from which address and what comes first.
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as connection:
    print(*connection.getsockname(), connection.makefile().readline())
"""


class Client:
    """A task whose network interface tests connect from."""

    def __init__(self, stack):
        self.stack, self.task = stack, run_task(stack.platform, stack.definition)
        shown = wait_for_task(stack.platform, self.task, "RUNNING")
        details = {detail["name"]: detail["value"] for detail in shown["attachments"][0]["details"]}
        self.address = details["privateIPv4Address"]
        platform = open(os.path.join(stack.platform.data, "id")).read().strip().removeprefix("ls-")
        self.namespace = f"/run/netns/ls-{platform}-{details['networkInterfaceId']}"

    def ask(self, node, port):
        """The address and port that it connects from, and the words of the target's first line."""
        command = ["nsenter", f"--net={self.namespace}", sys.executable, "-c", ASK, node, str(port)]
        address, own_port, *words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        return (address, int(own_port)), words

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.ecs.stop_task(task=self.task)


def test_r21_targets_see_their_clients_address(stack):
    group = stack.group(7000, stack.addresses, {"preserve_client_ip.enabled": "true"})
    port = stack.listen(group)
    nodes = stack.nodes(stack.arn)
    assert len(nodes) == len(stack.subnets)
    # A client within the VPC, whose security group nobody lets in but the load balancer.
    with Client(stack) as client:

        def ask(node):
            own, (_, seen) = client.ask(node, port)
            seen_address, seen_port = seen.split(":")
            return own, (socket.inet_ntoa(bytes.fromhex(seen_address[-8:])[::-1]), int(seen_port, 16))

        for node in nodes:
            for _ in range(6):
                own, seen = ask(node)
                assert own[0] == client.address and seen == own
        # Connections from the host itself have no address that a target could answer to.
        assert stack.connect(port)[3] in nodes
        # It is the client's address that security groups see now: without a rule for it nothing is let in.
        rule = lambda block: [{"IpProtocol": "tcp", "FromPort": 7000, "ToPort": 8080, "IpRanges": [{"CidrIp": block}]}]
        stack.ec2.revoke_security_group_ingress(GroupId=stack.opened, IpPermissions=rule("0.0.0.0/0"))
        only = [rule(f"{node}/32") for node in nodes]
        try:
            for permissions in only:
                stack.ec2.authorize_security_group_ingress(GroupId=stack.opened, IpPermissions=permissions)
            eventually(lambda: not answers(ask, nodes[0]), timeout=60)
            eventually(lambda: stack.states(group) == ["healthy"] * 2, timeout=60)
            stack.attributes(group, {"preserve_client_ip.enabled": "false"})
            eventually(lambda: answers(ask, nodes[0]), timeout=60)
            assert ask(nodes[0])[1][0] in nodes
        finally:
            stack.ec2.authorize_security_group_ingress(GroupId=stack.opened, IpPermissions=rule("0.0.0.0/0"))
        # The process has kept one right of root's, and no other.
        [status] = [text for text in map(status_of, os.listdir("/proc")) if stack.arn in text[0]]
        rights = dict(line.split(":\t") for line in status[1].splitlines())
        assert rights["Uid"].split() == ["64580"] * 4 and rights["NoNewPrivs"] == "1", rights
        assert {kind: int(rights[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {"Inh": 0, "Prm": 1 << 13, "Eff": 1 << 13, "Amb": 0}


def answers(ask, node):
    try:
        return bool(ask(node))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False


def status_of(pid):
    """A process's command line and status, if it is one of a load balancer."""
    try:
        command = open(f"/proc/{pid}/cmdline").read().split("\0")
        return (command, open(f"/proc/{pid}/status").read()) if "balancer" in command else ([], "")
    except OSError:
        return [], ""


def test_r21_sticky_clients_keep_their_target(stack):
    port = stack.listen(stack.group(7000, stack.addresses, {"stickiness.enabled": "true"}))
    assert len(stack.reached(port)) == 1


def test_r21_health_checks_turn_and_all_unhealthy_fails_open(stack):
    group = stack.group(7000, stack.addresses, HealthCheckProtocol="HTTP", HealthCheckPort="8080", HealthCheckPath="/up")
    port = stack.listen(group)
    stack.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses[0], "Port": 1}])
    stack.elbv2.modify_target_group(TargetGroupArn=group, HealthCheckPath="/none")
    eventually(lambda: set(stack.states(group)) == {"unhealthy"}, timeout=60)
    stack.elbv2.deregister_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses[0], "Port": 1}])
    assert len(stack.reached(port)) == 2
    stack.elbv2.modify_target_group(TargetGroupArn=group, HealthCheckPath="/up")
    eventually(lambda: sorted(set(stack.states(group)) - {"draining"}) == ["healthy"], timeout=60)
    closed = stack.group(7077, stack.addresses)
    stack.elbv2.create_listener(LoadBalancerArn=stack.arn, Protocol="TCP", Port=7077, DefaultActions=forward(closed))
    eventually(lambda: stack.states(closed) == ["unhealthy"] * 2, timeout=60)


@pytest.mark.parametrize("cut", ["false", "true"])
def test_r21_a_draining_target_keeps_what_it_has(stack, cut):
    attributes = {"deregistration_delay.timeout_seconds": "12", "deregistration_delay.connection_termination.enabled": cut}
    group = stack.group(7000, stack.addresses, attributes)
    port = stack.listen(group)
    held = {}
    while len(held) < 2:
        connection, reader, task, _ = stack.connect(port)
        held[task] = (connection, reader)
    stack.elbv2.deregister_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses[0]}])
    assert stack.health(group)[stack.addresses[0]] == "draining"

    def alive(task):
        connection, reader = held[task]
        try:
            connection.sendall(b"still there?\n")
            return reader.readline() == b"still there?\n"
        except OSError:
            return False

    eventually(lambda: len(stack.reached(port, times=8)) == 1)
    assert stack.health(group)[stack.addresses[0]] == "draining"
    assert all(alive(task) for task in held)
    eventually(lambda: stack.addresses[0] not in stack.health(group))
    stays = next(iter(stack.reached(port)))
    gone = next(task for task in held if task != stays)
    if cut == "true":
        eventually(lambda: not alive(gone))
    else:
        time.sleep(1)
        assert alive(gone)
    assert alive(stays)
    [connection.close() for connection, _ in held.values()]


def test_r21_much_goes_both_ways_intact_and_half_closes_are_passed_on(stack):
    connection, reader, _, _ = stack.connect(7000)
    block = os.urandom(1 << 20)
    sent = hashlib.sha256()

    def send():
        for _ in range(64):
            sent.update(block)
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    came, count = hashlib.sha256(), 0
    while part := reader.read(1 << 16):
        came.update(part)
        count += len(part)
    thread.join()
    assert count == 64 << 20 and came.digest() == sent.digest()


# Says whom it sees.
SEES = """setsid python3 -c '
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(("%s %s\\n" % self.client_address).encode())
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("", 8080), Handler).serve_forever()
' >/dev/null 2>&1 </dev/null &
"""


def test_r21_instances_are_targets_over_tcp_and_see_their_clients_address(stack):
    group = stack.elbv2.create_target_group(Name=name(), Protocol="TCP", Port=8080, VpcId=stack.vpc, TargetType="instance", **CHECK)["TargetGroups"][0]["TargetGroupArn"]
    # Instance, load balancer and client are in the default group, which lets its own in.
    default = stack.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])["SecurityGroups"][0]["GroupId"]
    subnets = [subnet["SubnetId"] for subnet in stack.subnets]
    made = stack.elbv2.create_load_balancer(Name=name(), Type="network", Subnets=subnets, SecurityGroups=[default])["LoadBalancers"][0]
    assert made["SecurityGroups"] == [default]
    stack.attributes_of(made["LoadBalancerArn"], {"load_balancing.cross_zone.enabled": "true"})
    stack.elbv2.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="TCP", Port=80, DefaultActions=forward(group))
    [machine] = launch(stack.platform, SEES)
    try:
        wait_for(stack.platform, machine, "running")
        stack.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": machine}])
        eventually(lambda: stack.health(group) == {machine: "healthy"}, timeout=60)
        with Client(stack) as client:
            for node in stack.nodes(made["LoadBalancerArn"]):
                own, seen = client.ask(node, 80)
                assert own == (seen[0], int(seen[1])) and own[0] == client.address
    finally:
        terminate(stack.platform, [machine])
        stack.elbv2.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])
