"""Each Fargate task's own interface, with real packets: what security groups let through, what they drop, what is
reached from the host, and what is left of it when host or platform die."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

from conftest import Image, busybox, eventually, register, wait_for

SERVER = ["httpd", "-f", "-p", "8080", "-h", "/www"]


class Network:
    """A platform with an image, and tasks in security groups of their own."""

    def __init__(self, platform):
        self.platform = platform
        self.ec2, self.ecs = platform.client("ec2"), platform.client("ecs")
        self.ecs.create_cluster(clusterName="default")
        self.image = Image(platform, "net", files={**busybox(), "www/index.html": (b"web\n", 0o644)}).uri
        self.vpc = self.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        self.subnet = self.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]["SubnetId"]

    def group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"]

    def allow(self, group, port, **peer):
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peer}
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])

    def run(self, name, command, groups, public="DISABLED"):
        definition = register(self.platform, name, {"name": "main", "image": self.image, "command": command, "essential": True})
        network = {"awsvpcConfiguration": {"subnets": [self.subnet], "securityGroups": groups, "assignPublicIp": public}}
        answer = self.ecs.run_task(taskDefinition=definition, launchType="FARGATE", networkConfiguration=network)
        assert answer["failures"] == [], answer
        return answer["tasks"][0]["taskArn"]

    def serve(self, name, groups, public="DISABLED"):
        """A web server at port 8080; gives its task's interface."""
        return self.interface(wait_for(self.platform, self.run(name, SERVER, groups, public), "RUNNING"))

    def interface(self, task):
        """The interface of a task, as EC2 shows it."""
        details = {one["name"]: one["value"] for one in task["attachments"][0]["details"]}
        [interface] = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])["NetworkInterfaces"]
        assert interface["PrivateIpAddress"] == details["privateIPv4Address"]
        return interface

    def ends(self, name, groups, script, public="DISABLED"):
        """Runs a shell script in a task; gives its exit code."""
        task = wait_for(self.platform, self.run(name, ["sh", "-c", script], groups, public), "STOPPED", timeout=90)
        return task["containers"][0].get("exitCode")


def fetch(address, timeout=2):
    """What is served at an address from the host; `None` when packets are dropped."""
    try:
        return urllib.request.urlopen(f"http://{address}:8080/", timeout=timeout).read().decode()
    except (urllib.error.URLError, TimeoutError) as error:
        assert "timed out" in str(error) or "No route" in str(error), error
        return None


def names(platform):
    """The platform's network namespaces."""
    prefix = f"ls-{instance(platform)}-"
    return [name for name in os.listdir("/run/netns") if name.startswith(prefix)] if os.path.isdir("/run/netns") else []


def instance(platform):
    text = open(os.path.join(platform.data, "id")).read().strip()
    return text.removeprefix("ls-")


@pytest.fixture
def network(own_platform):
    return Network(own_platform())


def test_r92_security_groups_drop_real_packets_between_tasks(network):
    clients, servers = network.group("clients"), network.group("servers")
    network.allow(servers, 8080, UserIdGroupPairs=[{"GroupId": clients}])
    interface = network.serve("server", [servers])
    assert interface["Groups"] == [{"GroupId": servers, "GroupName": "servers"}]
    assert interface["Status"] == "in-use" and interface["RequesterManaged"] is True
    address = interface["PrivateIpAddress"]
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 8080 | grep -q web"
    assert network.ends("allowed", [clients], ask) == 0
    assert network.ends("refused", [servers], ask) == 1
    # The task sees the address and the hardware address that EC2 shows.
    own = network.run("own", ["sh", "-c", "trap exit TERM; while :; do sleep 0.2; done"], [clients])
    task = wait_for(network.platform, own, "RUNNING")
    shown = network.interface(task)
    path = f"/run/netns/ls-{instance(network.platform)}-{shown['NetworkInterfaceId']}"
    links = subprocess.run(["nsenter", f"--net={path}", "ip", "-j", "address", "show", "eth0"], capture_output=True, text=True, check=True).stdout
    [link] = json.loads(links)
    assert link["address"] == shown["MacAddress"]
    assert [one["local"] for one in link["addr_info"] if one["family"] == "inet"] == [shown["PrivateIpAddress"]]
    # A stopped task's interface goes, in EC2 and in the kernel.
    network.ecs.stop_task(task=own)
    wait_for(network.platform, own, "STOPPED")
    eventually(lambda: not os.path.exists(path))


def test_r92_a_public_address_answers_from_the_host(network):
    group = network.group("public")
    network.allow(group, 8080, IpRanges=[{"CidrIp": "0.0.0.0/0"}])
    public = network.serve("public", [group], public="ENABLED")["Association"]["PublicIp"]
    assert eventually(lambda: fetch(public)) == "web\n"
    network.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
    eventually(lambda: fetch(public, 0.5) is None)
    assert "Association" not in network.serve("private", [group])


def test_r92_the_platform_is_reached_from_every_task_and_the_world_from_few(network):
    closed = network.group("closed")
    network.ec2.revoke_security_group_egress(GroupId=closed, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
    # Neither group rules nor a missing way out keep a task from the platform and its resolver.
    script = f"nc -w 3 169.254.169.252 {network.platform.port} < /dev/null && nslookup ip-172-31-0-9.ec2.internal 169.254.169.253"
    assert network.ends("endpoint", [closed], script) == 0
    assert network.ends("world", [closed], "nc -w 2 203.0.113.1 443 < /dev/null") == 1


def test_r92_traffic_flows_on_while_host_is_killed_and_comes_back(network):
    group = network.group("steady")
    network.allow(group, 8080, IpRanges=[{"CidrIp": "0.0.0.0/0"}])
    public = network.serve("steady", [group], public="ENABLED")["Association"]["PublicIp"]
    assert eventually(lambda: fetch(public)) == "web\n"
    before = network.platform.child("host")
    os.kill(before, signal.SIGKILL)
    assert fetch(public) == "web\n"
    eventually(lambda: network.platform.child("host") != before)
    assert fetch(public) == "web\n"
    # What it makes afterwards works as before.
    second = network.serve("second", [group], public="ENABLED")["Association"]["PublicIp"]
    assert eventually(lambda: fetch(second)) == "web\n"
    assert fetch(public) == "web\n"


def test_r92_nothing_is_left_in_the_kernel(network):
    group = network.group("gone")
    network.serve("gone", [group], public="ENABLED")
    own = instance(network.platform)
    assert len(names(network.platform)) >= 2
    assert network.platform.stop() == 0
    assert names(network.platform) == []
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert f"ls{own}" not in links
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert f"ls_{own}" not in tables
