"""Real requests through real load balancers to tasks on Fargate: rules, health, failures, and serving on while others die."""

import collections
import http.client
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import Image, Platform, busybox, default_network, eventually, register, run_task, wait_for

# Answers a health check, tunnels everything else as a WebSocket server would: what comes is sent back.
TUNNEL = b"""#!/bin/sh
read -r first
while read -r line; do [ "${#line}" -le 1 ] && break; done
case "$first" in
  *"/health "*) printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' ;;
  *"/silent "*) sleep 60 ;;
  *"/broken "*) exit 0 ;;
  *) printf 'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n'; exec cat ;;
esac
"""
WHO = b"""#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "name=$NAME"
env
"""
SLOW = b"""#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
sleep 4
echo "slow=$NAME"
"""


class Stack:
    """Tasks a and b, a load balancer before them, and what a test needs to change them. `scripts` are more of their pages."""

    def __init__(self, platform, scripts={}):
        self.platform = platform
        self.elbv2, ec2 = platform.client("elbv2"), platform.client("ec2")
        files = {
            **busybox(),
            "www/index.html": (b"hello\n", 0o644),
            "www/cgi-bin/who": (WHO, 0o755),
            "www/cgi-bin/slow": (SLOW, 0o755),
            "bin/tunnel": (TUNNEL, 0o755),
            **{f"www/cgi-bin/{name}": (script, 0o755) for name, script in scripts.items()},
        }
        image = Image(platform, "web", files=files).uri
        self.vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        self.subnets = ec2.describe_subnets()["Subnets"]
        self.group = ec2.create_security_group(GroupName="web", Description="open", VpcId=self.vpc)["GroupId"]
        self.open = {"GroupId": self.group, "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}
        ec2.authorize_security_group_ingress(**self.open)
        self.ec2 = ec2
        self.network = default_network(platform)
        self.network["awsvpcConfiguration"]["securityGroups"] = [self.group]
        command = "nc -ll -p 9000 -e /bin/tunnel & exec httpd -f -p 8080 -h /www"
        self.definition = register(platform, "web", {"name": "web", "image": image, "command": ["sh", "-c", command]})
        self.tasks = {name: self.run(name) for name in ("a", "b")}
        self.addresses = {name: self.address(arn) for name, arn in self.tasks.items()}
        self.counter = 0

    def run(self, name):
        ecs = self.platform.client("ecs")
        ecs.create_cluster(clusterName="default")
        overrides = {"containerOverrides": [{"name": "web", "environment": [{"name": "NAME", "value": name}]}]}
        answer = ecs.run_task(cluster="default", taskDefinition=self.definition, launchType="FARGATE", networkConfiguration=self.network, overrides=overrides)
        assert answer["failures"] == [], answer
        return answer["tasks"][0]["taskArn"]

    def address(self, arn):
        found = wait_for(self.platform, arn, "RUNNING")
        details = found["attachments"][0]["details"]
        return next(detail["value"] for detail in details if detail["name"] == "privateIPv4Address")

    def target_group(self, *names, port=8080, register=True, **more):
        self.counter += 1
        settings = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2, "UnhealthyThresholdCount": 2, **more}
        made = self.elbv2.create_target_group(Name=f"group-{self.counter}", Protocol="HTTP", Port=port, VpcId=self.vpc, TargetType="ip", **settings)
        arn = made["TargetGroups"][0]["TargetGroupArn"]
        if names:
            self.elbv2.register_targets(TargetGroupArn=arn, Targets=[{"Id": self.addresses[name]} for name in names])
        return arn

    def balancer(self, **more):
        self.counter += 1
        subnets = [subnet["SubnetId"] for subnet in self.subnets]
        made = self.elbv2.create_load_balancer(Name=f"web-{self.counter}", Subnets=subnets, SecurityGroups=[self.group], **more)["LoadBalancers"][0]
        self.elbv2.get_waiter("load_balancer_available").wait(LoadBalancerArns=[made["LoadBalancerArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        return made

    def health(self, group):
        shown = self.elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return {found["Target"]["Id"]: found["TargetHealth"] for found in shown}

    def until_healthy(self, group, count):
        return eventually(lambda: [h["State"] for h in self.health(group).values()] == ["healthy"] * count, timeout=60)


def forward(*groups):
    config = [{"TargetGroupArn": group, "Weight": weight} for group, weight in groups]
    return [{"Type": "forward", "ForwardConfig": {"TargetGroups": config}}]


def request(host, path="/", port=80, method="GET", headers=None, body=None, timeout=30):
    """One request on a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode(errors="replace")
    finally:
        connection.close()


def who(host, **more):
    """The name of the task that answers; the status where it is not 200."""
    status, _, body = request(host, "/cgi-bin/who", **more)
    return next((line[5:] for line in body.splitlines() if line.startswith("name=")), status)


@pytest.fixture(scope="module")
def stack():
    platform = Platform(hosts=True)
    try:
        yield Stack(platform.start())
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture(scope="module")
def web(stack):
    """A load balancer whose port 80 forwards to both tasks."""
    made = stack.balancer()
    group = stack.target_group("a", "b")
    listener = stack.elbv2.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=forward((group, 1)))
    stack.until_healthy(group, 2)
    eventually(lambda: not refuses(made["DNSName"]))
    return made["DNSName"], group, listener["Listeners"][0]["ListenerArn"], made["LoadBalancerArn"]


def rules(stack, listener, *pairs):
    """Adds rules; gives their ARNs."""
    made = []
    for priority, (condition, action) in enumerate(pairs, start=1):
        action = action if isinstance(action, list) else [action]
        answer = stack.elbv2.create_rule(ListenerArn=listener, Priority=priority, Conditions=[condition], Actions=action)
        made.append(answer["Rules"][0]["RuleArn"])
    return made


def fixed(body):
    return {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "ContentType": "text/plain", "MessageBody": body}}


def test_r22_requests_reach_every_target_by_the_load_balancers_name(web):
    host, *_ = web
    seen = collections.Counter(who(host) for _ in range(20))
    assert seen == {"a": 10, "b": 10}, seen


def test_r22_targets_see_who_asked(web):
    host, *_ = web
    _, headers, body = request(host, "/cgi-bin/who", headers={"X-Forwarded-For": "9.9.9.9"})
    lines = dict(line.split("=", 1) for line in body.splitlines() if "=" in line)
    assert lines["HTTP_X_FORWARDED_FOR"].startswith("9.9.9.9, 127.")
    assert lines["HTTP_X_FORWARDED_PROTO"] == "http" and lines["HTTP_X_FORWARDED_PORT"] == "80"
    assert lines["HTTP_X_AMZN_TRACE_ID"].startswith("Root=1-") and lines["HTTP_HOST"] == host


def test_r22_rules_send_requests_by_every_kind_of_condition(stack, web):
    host, _, listener, _ = web
    made = rules(
        stack,
        listener,
        ({"Field": "path-pattern", "Values": ["/path/*"]}, fixed("path")),
        ({"Field": "host-header", "Values": ["*.example.com"]}, fixed("host")),
        ({"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "X-Kind", "Values": ["ad*"]}}, fixed("header")),
        ({"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["DELETE"]}}, fixed("method")),
        ({"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "v", "Value": "2"}]}}, fixed("query")),
        ({"Field": "source-ip", "SourceIpConfig": {"Values": ["203.0.113.0/24"]}}, fixed("nobody")),
        (
            {"Field": "path-pattern", "Values": ["/old/*"]},
            {"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_301", "Path": "/new/#{path}", "Port": "8443", "Protocol": "HTTPS"}},
        ),
    )
    try:
        body = lambda *arguments, **more: request(host, *arguments, **more)[2]
        eventually(lambda: body("/path/x") == "path")
        eventually(lambda: body(headers={"Host": "www.example.com"}) == "host")
        eventually(lambda: body(headers={"X-Kind": "Admin"}) == "header")
        eventually(lambda: body(method="DELETE") == "method")
        eventually(lambda: body("/?a=1&V=2") == "query")
        eventually(lambda: request(host, "/old/x?y=1")[0] == 301)
        status, headers, _ = request(host, "/old/x?y=1")
        location = {key.lower(): value for key, value in headers.items()}["location"]
        assert location == f"https://{host}:8443/new/old/x?y=1"
        assert body("/").startswith("hello")
        stack.elbv2.modify_rule(RuleArn=made[5], Conditions=[{"Field": "source-ip", "SourceIpConfig": {"Values": ["127.0.0.0/8"]}}])
        eventually(lambda: body("/") == "nobody")
    finally:
        for rule in made:
            stack.elbv2.delete_rule(RuleArn=rule)
    eventually(lambda: request(host)[2].startswith("hello"))


def test_r22_weights_split_requests(stack, web):
    host, _, listener, _ = web
    a, b = stack.target_group("a"), stack.target_group("b")
    condition = {"Field": "path-pattern", "Values": ["/cgi-bin/who"]}
    made = rules(stack, listener, (condition, forward((a, 90), (b, 10))))
    try:
        stack.until_healthy(a, 1), stack.until_healthy(b, 1)
        seen = collections.Counter(who(host) for _ in range(50))
        assert 40 <= seen["a"] <= 48 and seen["a"] + seen["b"] == 50, seen
    finally:
        stack.elbv2.delete_rule(RuleArn=made[0])


def test_r22_unhealthy_targets_get_nothing_and_say_why(stack, web):
    host, group, _, _ = web
    mixed = stack.target_group("a", HealthCheckPath="/cgi-bin/who")
    nobody = stack.subnets[0]["CidrBlock"].rsplit(".", 1)[0] + ".250"
    stack.elbv2.register_targets(TargetGroupArn=mixed, Targets=[{"Id": stack.addresses["b"], "Port": 9000}, {"Id": nobody}])
    made = rules(stack, web[2], ({"Field": "path-pattern", "Values": ["/cgi-bin/*"]}, forward((mixed, 1))))
    try:
        # The tunnel answers 101 to anything but /health; nobody does not answer at all.
        eventually(lambda: {h["State"] for h in stack.health(mixed).values()} == {"healthy", "unhealthy"} and stack.health(mixed)[stack.addresses["b"]].get("Reason", "").startswith("Target."), timeout=60)
        eventually(lambda: stack.health(mixed)[nobody].get("Reason") in ("Target.Timeout", "Target.FailedHealthChecks"), timeout=60)
        assert {who(host) for _ in range(12)} == {"a"}
        stack.elbv2.modify_target_group(TargetGroupArn=mixed, HealthCheckPath="/no-such-page")
        eventually(lambda: stack.health(mixed)[stack.addresses["a"]] == {"State": "unhealthy", "Reason": "Target.ResponseCodeMismatch", "Description": "Health checks failed with these codes: [404]"}, timeout=60)
    finally:
        stack.elbv2.delete_rule(RuleArn=made[0])


def test_r22_a_draining_target_finishes_what_it_has(stack, web):
    host, _, listener, _ = web
    group = stack.target_group("a", "b")
    stack.elbv2.modify_target_group_attributes(TargetGroupArn=group, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "8"}])
    made = rules(stack, listener, ({"Field": "path-pattern", "Values": ["/cgi-bin/*"]}, forward((group, 1))))
    try:
        stack.until_healthy(group, 2)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(request(host, "/cgi-bin/slow"))) for _ in range(4)]
        [thread.start() for thread in threads]
        time.sleep(0.5)
        stack.elbv2.deregister_targets(TargetGroupArn=group, Targets=[{"Id": stack.addresses["b"]}])
        draining = stack.health(group)[stack.addresses["b"]]
        assert (draining["State"], draining["Reason"]) == ("draining", "Target.DeregistrationInProgress")
        time.sleep(0.3)
        assert {who(host) for _ in range(10)} == {"a"}
        [thread.join() for thread in threads]
        assert sorted(body.strip() for _, _, body in answers) == ["slow=a", "slow=a", "slow=b", "slow=b"], answers
        eventually(lambda: stack.addresses["b"] not in stack.health(group))
    finally:
        stack.elbv2.delete_rule(RuleArn=made[0])


def test_r22_failures_have_amazons_statuses(stack):
    made = stack.balancer()
    host, arn = made["DNSName"], made["LoadBalancerArn"]
    stack.elbv2.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": "idle_timeout.timeout_seconds", "Value": "2"}])
    empty, tunnel = stack.target_group(), stack.target_group("a", port=9000, HealthCheckPath="/health")
    listen = lambda port, group: stack.elbv2.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=port, DefaultActions=forward((group, 1)))
    listen(80, empty), listen(81, tunnel)
    stack.until_healthy(tunnel, 1)
    eventually(lambda: not refuses(host) and not refuses(host, 81))
    status, headers, body = request(host)
    server = {key.lower(): value for key, value in headers.items()}["server"]
    assert server == "awselb/2.0" and "<h1>503 Service Temporarily Unavailable</h1>" in body
    assert request(host, "/broken", port=81)[0] == 502
    started = time.monotonic()
    assert request(host, "/silent", port=81)[0] == 504
    assert time.monotonic() - started > 1.5
    stack.elbv2.delete_load_balancer(LoadBalancerArn=arn)
    eventually(lambda: refuses(host))


def refuses(host, port=80):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return False
    except OSError:
        return True


def test_r22_websockets_are_tunnelled(stack, web):
    host, _, _, arn = web
    group = stack.target_group("b", port=9000, HealthCheckPath="/health")
    listener = stack.elbv2.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=90, DefaultActions=forward((group, 1)))["Listeners"][0]
    try:
        stack.until_healthy(group, 1)
        eventually(lambda: not refuses(host, 90))
        with socket.create_connection((host, 90), timeout=10) as tunnel:
            tunnel.sendall(f"GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += tunnel.recv(4096)
            assert head.startswith(b"HTTP/1.1 101"), head
            for word in (b"one", b"two", b"three"):
                tunnel.sendall(word)
                assert tunnel.recv(4096) == word
    finally:
        stack.elbv2.delete_listener(ListenerArn=listener["ListenerArn"])


def test_r22_http2_with_prior_knowledge(web):
    host, *_ = web
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version}", f"http://{host}/"], capture_output=True, text=True, timeout=30)
    assert done.stdout == "hello\n2", done


def test_r22_tasks_reach_the_load_balancer_by_its_name(stack, web):
    host, *_ = web
    platform = stack.platform
    definition = register(platform, "client", {"name": "client", "image": f"{stack_image(stack)}", "command": ["sh", "-c", f"wget -q -O - http://{host}/ | grep hello"]})
    arn = run_task(platform, definition)
    stopped = wait_for(platform, arn, "STOPPED")
    assert stopped["containers"][0]["exitCode"] == 0, stopped


def test_r22_an_internal_load_balancer_is_reached_within_the_vpc_only(stack):
    made = stack.balancer(Scheme="internal")
    stack.elbv2.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[fixed("inside")])
    script = f"until wget -q -O - http://{made['DNSName']}/ | grep inside; do sleep 0.2; done"
    arn = run_task(stack.platform, register(stack.platform, "inside", {"name": "client", "image": stack_image(stack), "command": ["sh", "-c", script]}))
    assert wait_for(stack.platform, arn, "STOPPED")["containers"][0]["exitCode"] == 0
    # It has no name and no address on the host.
    with pytest.raises(OSError):
        request(made["DNSName"], timeout=2)
    stack.elbv2.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


def stack_image(stack):
    shown = stack.platform.client("ecs").describe_task_definition(taskDefinition=stack.definition)
    return shown["taskDefinition"]["containerDefinitions"][0]["image"]


def test_r24_security_groups_decide_who_reaches_the_load_balancer(stack, web):
    host, *_ = web
    stack.ec2.revoke_security_group_ingress(**stack.open)
    try:
        eventually(lambda: refuses(host))
    finally:
        stack.ec2.authorize_security_group_ingress(**stack.open)
    eventually(lambda: not refuses(host) and request(host)[0] == 200, timeout=60)


def test_r22_it_serves_while_the_control_plane_is_killed_and_restarted(stack, web):
    host, group, *_ = web
    platform = stack.platform
    failures, stop = [], threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                status, _, _ = request(host, timeout=5)
                if status != 200:
                    failures.append(status)
            except OSError as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    [thread.start() for thread in threads]
    try:
        for _ in range(3):
            os.kill(platform.child("server"), signal.SIGKILL)
            time.sleep(1)
        eventually(lambda: stack.until_healthy(group, 2), timeout=60)
        time.sleep(1)
    finally:
        stop.set()
        [thread.join() for thread in threads]
    assert failures == []
    # What is changed after the restart is taken up by the process that lived through it.
    listener = stack.elbv2.create_listener(LoadBalancerArn=web[3], Protocol="HTTP", Port=8088, DefaultActions=[fixed("later")])
    eventually(lambda: request(host, port=8088)[2] == "later")
    stack.elbv2.delete_listener(ListenerArn=listener["Listeners"][0]["ListenerArn"])


def test_r22_a_killed_balancer_comes_back_even_without_the_control_plane(stack, web):
    host, group, _, arn = web
    found = subprocess.run(["pgrep", "-f", f"balancer --load-balancer {arn}"], capture_output=True, text=True)
    pids = [int(pid) for pid in found.stdout.split()]
    assert len(pids) == 1, found
    os.kill(stack.platform.child("server"), signal.SIGKILL)
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not refuses(host) and request(host)[0] == 200)
    stack.until_healthy(group, 2)
