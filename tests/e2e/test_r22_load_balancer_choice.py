"""Which target a request gets: weights, sticky sessions, requests in flight, slow start. Through a real load balancer to real tasks."""

import collections
import http.client
import os
import signal
import subprocess

import botocore.exceptions
import pytest

from conftest import Platform, eventually
from test_r2x_load_balancer_traffic import Stack, forward, refuses

# Answers when its client has long gone.
HOLD = b"""#!/bin/sh
sleep 300
"""
LOGIN = b"""#!/bin/sh
printf 'Content-Type: text/plain\\r\\nSet-Cookie: SID=1; Path=/\\r\\n\\r\\n'
echo "name=$NAME"
"""
WEEK = 604800


@pytest.fixture(scope="module")
def stack():
    platform = Platform(hosts=True)
    try:
        yield Stack(platform.start(), scripts={"hold": HOLD, "login": LOGIN})
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture(scope="module")
def balancer(stack):
    return stack.balancer()


class Front:
    """A listener of its own, and a client of it."""

    def __init__(self, stack, balancer, actions):
        self.stack, self.host, self.arn = stack, balancer["DNSName"], balancer["LoadBalancerArn"]
        taken = stack.elbv2.describe_listeners(LoadBalancerArn=self.arn)["Listeners"]
        self.port = max([8000, *(found["Port"] for found in taken)]) + 1
        made = stack.elbv2.create_listener(LoadBalancerArn=self.arn, Protocol="HTTP", Port=self.port, DefaultActions=actions)
        self.listener = made["Listeners"][0]["ListenerArn"]
        eventually(lambda: not refuses(self.host, self.port))

    def modify(self, actions):
        self.stack.elbv2.modify_listener(ListenerArn=self.listener, DefaultActions=actions)

    def ask(self, cookie="", page="who"):
        """A request on a connection of its own: the name of the task that answers, and the cookies that it sets."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request("GET", f"/cgi-bin/{page}", headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            lines = response.read().decode().splitlines()
            assert response.status == 200, (response.status, lines)
            return next(line[5:] for line in lines if line.startswith("name=")), response.headers.get_all("Set-Cookie") or []
        finally:
            connection.close()

    def who(self, cookie=""):
        return self.ask(cookie)[0]

    def count(self, rounds, cookie=""):
        return collections.Counter(self.who(cookie) for _ in range(rounds))

    def hold(self):
        """A request that is not answered."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        connection.request("GET", "/cgi-bin/hold")
        return connection


def jar(cookies):
    """What a client sends back."""
    return "; ".join(cookie.split(";")[0] for cookie in cookies)


def attributes(stack, group, **pairs):
    """Sets attributes, with `__` for a dot; gives all."""
    given = [{"Key": key.replace("__", "."), "Value": value} for key, value in pairs.items()]
    shown = stack.elbv2.modify_target_group_attributes(TargetGroupArn=group, Attributes=given)["Attributes"]
    assert shown == stack.elbv2.describe_target_group_attributes(TargetGroupArn=group)["Attributes"]
    return {pair["Key"]: pair["Value"] for pair in shown}


def refused(code, call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response["Error"]["Message"]


def kept(actions, seconds):
    """The same with clients kept with their group."""
    config = {**actions[0]["ForwardConfig"], "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": seconds}}
    return [{**actions[0], "ForwardConfig": config}]


def test_r22_weights_change_without_cutting_connections(stack, balancer):
    a, b, none = stack.target_group("a"), stack.target_group("b"), stack.target_group()
    front = Front(stack, balancer, forward((a, 3), (b, 1), (none, 0)))
    stack.until_healthy(a, 1), stack.until_healthy(b, 1)
    seen = eventually(lambda: (counted := front.count(40)) and counted["b"] and counted)
    assert 28 <= seen["a"] <= 32 and seen["a"] + seen["b"] == 40, seen
    connection = http.client.HTTPConnection(front.host, front.port, timeout=30)
    names = set()
    for weights in ((3, 1), (0, 5), (1, 0)):
        front.modify(forward((a, weights[0]), (b, weights[1])))
        wanted = {name for name, weight in zip("ab", weights) if weight}
        eventually(lambda: set(front.count(12)) == wanted)
        # One connection through all of it: a new one would have another port.
        connection.request("GET", "/cgi-bin/who")
        body = connection.getresponse().read().decode()
        assert body.startswith("name=") and body.split()[0][5:] in wanted, body
        names.add(connection.sock.getsockname())
    assert len(names) == 1, names
    connection.close()


def test_r22_a_client_keeps_its_target_until_that_goes(stack, balancer):
    group = stack.target_group("a", "b")
    front = Front(stack, balancer, forward((group, 1)))
    stack.until_healthy(group, 2)
    shown = attributes(stack, group, stickiness__enabled="true", stickiness__lb_cookie__duration_seconds="3600", deregistration_delay__timeout_seconds="5")
    assert (shown["stickiness.type"], shown["stickiness.lb_cookie.duration_seconds"]) == ("lb_cookie", "3600")
    first, cookies = eventually(lambda: (answer := front.ask()) and answer[1] and answer)
    assert [cookie.split("=")[0] for cookie in cookies] == ["AWSALB", "AWSALBCORS"]
    assert cookies[0].endswith(" GMT; Path=/") and "; Expires=" in cookies[0], cookies
    assert cookies[1].endswith("; Path=/; SameSite=None; Secure"), cookies
    cookie = jar(cookies)
    assert front.count(20, cookie) == {first: 20}
    # Without it, and with one that nobody has made, targets take turns.
    assert front.count(10) == {"a": 5, "b": 5}
    value = cookies[0].split("=")[1].split(";")[0]
    forged = value[:8] + ("A" if value[8] != "A" else "B") + value[9:]
    assert front.count(10, f"AWSALB={forged}") == {"a": 5, "b": 5}

    # It outlives the load balancer's process.
    pids = subprocess.run(["pgrep", "-f", f"balancer --load-balancer {front.arn}"], capture_output=True, text=True).stdout.split()
    assert len(pids) == 1, pids
    os.kill(int(pids[0]), signal.SIGKILL)
    eventually(lambda: not refuses(front.host, front.port) and front.who())
    eventually(lambda: len(front.count(4)) == 2)
    assert front.count(20, cookie) == {first: 20}

    # A target that is being deregistered gets nothing new, sticky or not.
    stack.elbv2.deregister_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses[first]}])
    other = {"a": "b", "b": "a"}[first]
    name, moved = eventually(lambda: (answer := front.ask(cookie)) and answer[0] == other and answer)
    eventually(lambda: stack.addresses[first] not in stack.health(group))
    stack.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses[first]}])
    stack.until_healthy(group, 2)
    eventually(lambda: len(front.count(4)) == 2)
    assert front.count(10, jar(moved)) == {other: 10}


def test_r22_an_applications_cookie_keeps_a_client(stack, balancer):
    group = stack.target_group("a", "b")
    front = Front(stack, balancer, forward((group, 1)))
    stack.until_healthy(group, 2)
    shown = attributes(stack, group, stickiness__enabled="true", stickiness__type="app_cookie", stickiness__app_cookie__cookie_name="SID", stickiness__app_cookie__duration_seconds="600")
    assert shown["stickiness.app_cookie.duration_seconds"] == "600"
    first, cookies = eventually(lambda: (answer := front.ask(page="login")) and len(answer[1]) == 2 and answer)
    assert [cookie.split("=")[0] for cookie in cookies] == ["SID", "AWSALBAPP"]
    # Only the application begins a session, and the client must send both cookies.
    assert front.ask()[1] == []
    assert front.count(12, jar(cookies)) == {first: 12}
    assert len(front.count(8, jar(cookies[1:]))) == 2
    assert [cookie.split("=")[0] for cookie in front.ask(jar(cookies))[1]] == ["AWSALBAPP"]


def test_r22_a_client_keeps_its_target_group(stack, balancer):
    a, b = stack.target_group("a"), stack.target_group("b")
    actions = kept(forward((a, 1), (b, 1)), 900)
    front = Front(stack, balancer, actions)
    shown = stack.elbv2.describe_listeners(ListenerArns=[front.listener])["Listeners"][0]["DefaultActions"]
    assert shown[0]["ForwardConfig"] == actions[0]["ForwardConfig"]
    stack.until_healthy(a, 1), stack.until_healthy(b, 1)
    eventually(lambda: len(front.count(6)) == 2)
    name, cookies = front.ask()
    assert [cookie.split("=")[0] for cookie in cookies] == ["AWSALBTG", "AWSALBTGCORS"]
    assert front.count(12, jar(cookies)) == {name: 12}
    # In a rule it is the same.
    condition = [{"Field": "path-pattern", "Values": ["/cgi-bin/*"]}]
    rule = stack.elbv2.create_rule(ListenerArn=front.listener, Priority=1, Conditions=condition, Actions=kept(forward((b, 1), (a, 9)), 60))["Rules"][0]
    assert rule["Actions"][0]["ForwardConfig"]["TargetGroupStickinessConfig"] == {"Enabled": True, "DurationSeconds": 60}
    assert front.count(12, jar(cookies)) == {name: 12}
    # A group of weight 0 gets nothing.
    weights = {"a": (b, 1), "b": (a, 1)}[name], {"a": (a, 0), "b": (b, 0)}[name]
    stack.elbv2.modify_rule(RuleArn=rule["RuleArn"], Actions=kept(forward(*weights), 60))
    eventually(lambda: front.who(jar(cookies)) != name)


def test_r22_the_idle_target_is_preferred(stack, balancer):
    group = stack.target_group("a", "b")
    front = Front(stack, balancer, forward((group, 1)))
    stack.until_healthy(group, 2)
    # Cookies, which these clients do not keep, show that the change has arrived.
    attributes(stack, group, load_balancing__algorithm__type="least_outstanding_requests", stickiness__enabled="true")
    eventually(lambda: front.ask()[1])
    first = front.hold()
    [idle] = eventually(lambda: len(seen := front.count(8)) == 1 and list(seen))
    assert front.count(20) == {idle: 20}
    # The next goes there; then both have one.
    second = front.hold()
    eventually(lambda: len(front.count(8)) == 2)
    assert min(front.count(20).values()) >= 5
    # A client that goes takes its request with it: the other target has one more now.
    first.close()
    [busy] = eventually(lambda: len(seen := front.count(8)) == 1 and list(seen))
    assert busy != idle and front.count(20) == {busy: 20}
    second.close()
    eventually(lambda: len(front.count(8)) == 2)


def test_r22_a_newcomer_starts_slowly(stack, balancer):
    group = stack.target_group("a")
    front = Front(stack, balancer, forward((group, 1)))
    stack.until_healthy(group, 1)
    assert attributes(stack, group, slow_start__duration_seconds="900")["slow_start.duration_seconds"] == "900"
    eventually(lambda: front.count(2) == {"a": 2})
    stack.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses["b"]}])
    stack.until_healthy(group, 2)
    seen = front.count(60)
    # A quarter would be its share after five minutes.
    assert seen["b"] <= 15, seen
    attributes(stack, group, slow_start__duration_seconds="0")
    eventually(lambda: front.count(20)["b"] == 10)


def test_r22_attributes_are_checked_as_amazon_does(stack, balancer):
    elbv2, group = stack.elbv2, stack.target_group()
    before = {pair["Key"]: pair["Value"] for pair in elbv2.describe_target_group_attributes(TargetGroupArn=group)["Attributes"]}
    assert before == {
        "deregistration_delay.timeout_seconds": "300",
        "stickiness.enabled": "false",
        "stickiness.type": "lb_cookie",
        "stickiness.lb_cookie.duration_seconds": "86400",
        "stickiness.app_cookie.cookie_name": "",
        "stickiness.app_cookie.duration_seconds": "86400",
        "load_balancing.algorithm.type": "round_robin",
        "load_balancing.algorithm.anomaly_mitigation": "off",
        "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
        "slow_start.duration_seconds": "0",
        "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
        "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
    }
    modify = lambda **pairs: attributes(stack, group, **pairs)
    for key, value in before.items():
        assert modify(**{key: value}) == before
    for key, value in (
        ("load_balancing.algorithm.type", "weighted_random"),
        ("slow_start.duration_seconds", "29"),
        ("stickiness.lb_cookie.duration_seconds", str(WEEK + 1)),
        ("stickiness.app_cookie.cookie_name", "AWSALBTG"),
        ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "2"),
    ):
        message = refused("ValidationError", modify, **{key: value})
        assert key in message and value in message, message
    slow = {"slow_start.duration_seconds": "30", "load_balancing.algorithm.type": "least_outstanding_requests"}
    assert refused("InvalidConfigurationRequest", modify, **slow).startswith("You cannot enable both slow start and least outstanding requests")
    nameless = {"stickiness.enabled": "true", "stickiness.type": "app_cookie"}
    assert refused("InvalidConfigurationRequest", modify, **nameless) == "You must set an application cookie name to enable stickiness of type 'app_cookie'"
    # Nothing of a refused request is done.
    assert modify(**{"stickiness.enabled": "false"}) == before

    front = Front(stack, balancer, forward((group, 1), (stack.target_group(), 1)))
    sticky = {"stickiness.enabled": "true"}
    assert f"group stickiness disabled ({front.listener}). You must enable group stickiness" in refused("InvalidConfigurationRequest", modify, **sticky)
    plain = forward((group, 1), (stack.target_group(), 999))
    for seconds in (0, WEEK + 1):
        message = refused("ValidationError", front.modify, actions=kept(plain, seconds))
        assert message == "Target group stickiness duration must be between 1 and 604800 seconds"
    front.modify(kept(plain, WEEK))
    modify(**sticky)
    assert "You must enable group stickiness" in refused("InvalidConfigurationRequest", front.modify, actions=plain)
    for weight in (-1, 1000):
        refused("ValidationError", front.modify, actions=forward((group, weight)))
    six = [(stack.target_group(), 1) for _ in range(6)]
    refused("TooManyTargetGroups", front.modify, actions=forward(*six))
