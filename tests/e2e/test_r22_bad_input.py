"""What nobody should ask of a load balancer or a service behind one, asked from outside."""

import socket

import pytest

from conftest import Platform, eventually, register
from test_r2x_load_balancer_api import fixed, name, refused
from test_r2x_load_balancer_traffic import Stack, forward, request

REDIRECT = b"#!/bin/sh\nprintf 'Status: 302 Found\\r\\nLocation: /\\r\\nContent-Type: text/plain\\r\\n\\r\\n'\n"
HANG = b"#!/bin/sh\nsleep 600\n"
BOTH_100 = "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."


@pytest.fixture(scope="module")
def stack():
    platform = Platform(hosts=True)
    try:
        yield Stack(platform.start(), scripts={"redirect": REDIRECT, "hang": HANG})
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture(scope="module")
def web(stack):
    """A load balancer whose port 80 forwards to both tasks."""
    made, group = stack.balancer(), stack.target_group("a", "b")
    listener = stack.elbv2.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=forward((group, 1)))
    stack.until_healthy(group, 2)
    eventually(lambda: answers(made["DNSName"]), timeout=60)
    return made, group, listener["Listeners"][0]["ListenerArn"]


def answers(host):
    try:
        return request(host)[0] == 200
    except OSError:
        return False


def service(stack, group, **more):
    settings = {
        "cluster": "default", "serviceName": name(), "taskDefinition": stack.definition, "desiredCount": 0, "launchType": "FARGATE",
        "networkConfiguration": stack.network, "loadBalancers": [{"targetGroupArn": group, "containerName": "web", "containerPort": 8080}],
    }
    return {**settings, **more}


def test_r22_percentages_that_block_a_deployment_are_refused_or_told_of(stack):
    ecs = stack.platform.client("ecs")
    alone = service(stack, None, loadBalancers=[])
    blocking = {"minimumHealthyPercent": 100, "maximumPercent": 100}
    assert refused("InvalidParameterException", ecs.create_service, **alone, deploymentConfiguration=blocking) == BOTH_100
    for wrong in ({"minimumHealthyPercent": 101}, {"maximumPercent": 99}, {"minimumHealthyPercent": -1}):
        refused("InvalidParameterException", ecs.create_service, **alone, deploymentConfiguration=wrong)
    # Half of one task is one at least, and one and a half is one at most: allowed, and cannot go on. The event says so.
    made = ecs.create_service(**{**alone, "desiredCount": 1}, deploymentConfiguration={"minimumHealthyPercent": 50, "maximumPercent": 150})["service"]
    which = {"cluster": "default", "service": made["serviceName"]}
    shown = lambda: ecs.describe_services(cluster="default", services=[made["serviceName"]])["services"][0]
    try:
        assert refused("InvalidParameterException", ecs.update_service, **which, deploymentConfiguration=blocking) == BOTH_100
        eventually(lambda: shown()["runningCount"] == 1, timeout=60)
        before = ecs.list_tasks(cluster="default", serviceName=made["serviceName"])["taskArns"]
        ecs.update_service(**which, forceNewDeployment=True)
        told = (
            f"(service {made['serviceName']}) was unable to stop or start tasks during a deployment because of the service deployment configuration. "
            "Update the minimumHealthyPercent or maximumPercent value and try again."
        )
        eventually(lambda: any(event["message"] == told for event in shown()["events"]), timeout=60)
        assert ecs.list_tasks(cluster="default", serviceName=made["serviceName"])["taskArns"] == before
        ecs.update_service(**which, deploymentConfiguration={"minimumHealthyPercent": 0, "maximumPercent": 150})
        replaced = lambda: ecs.list_tasks(cluster="default", serviceName=made["serviceName"])["taskArns"] not in ([], before)
        eventually(lambda: replaced() and shown()["runningCount"] == 1 and len(shown()["deployments"]) == 1, timeout=120)
    finally:
        ecs.delete_service(**which, force=True)


def test_r22_target_groups_that_do_not_fit_a_service_are_refused(stack, web):
    ecs = stack.platform.client("ecs")
    other = stack.ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    groups = [
        stack.elbv2.create_target_group(Name=name(), Protocol="HTTP", Port=80, VpcId=vpc, TargetType=kind)["TargetGroups"][0]["TargetGroupArn"]
        for vpc, kind in ((stack.vpc, "instance"), (other, "ip"), (stack.vpc, "ip"))
    ]
    container = {"name": "web", "image": "x", "portMappings": [{"containerPort": 8080}]}
    mapped = {"taskDefinition": register(stack.platform, "mapped", container)}
    told = [refused("InvalidParameterException", ecs.create_service, **service(stack, group, **mapped)) for group in groups]
    assert "target type instance, which is incompatible with the awsvpc network mode" in told[0]
    assert "is not in the VPC" in told[1]
    assert "does not have an associated load balancer" in told[2]
    listener = {"LoadBalancerArn": web[0]["LoadBalancerArn"], "Protocol": "HTTP", "Port": 81, "DefaultActions": forward((groups[1], 1))}
    assert "different VPCs" in refused("InvalidConfigurationRequest", stack.elbv2.create_listener, **listener)
    assert "already exists on this port" in refused("DuplicateListener", stack.elbv2.create_listener, **{**listener, "Port": 80, "DefaultActions": [fixed()]})


def test_r22_rules_and_listeners_have_limits(stack):
    elbv2, made = stack.elbv2, stack.balancer()
    arn = made["LoadBalancerArn"]
    create = lambda port: elbv2.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=port, DefaultActions=[fixed("404")])["Listeners"][0]["ListenerArn"]
    listeners = [create(1000 + number) for number in range(50)]
    assert "50" in refused("TooManyListeners", elbv2.create_listener, LoadBalancerArn=arn, Protocol="HTTP", Port=999, DefaultActions=[fixed()])
    rule = lambda number, listener: elbv2.create_rule(
        ListenerArn=listener, Priority=number, Actions=[fixed(MessageBody=str(number), ContentType="text/plain")],
        Conditions=[{"Field": "path-pattern", "Values": [f"/*/{number}?", f"/{number}"]}, {"Field": "host-header", "Values": ["*.example.com"]}],
    )
    # They are counted over all listeners of a load balancer.
    for number in range(1, 101):
        rule(number, listeners[number % 2])
    for listener in listeners[:3]:
        with pytest.raises(elbv2.exceptions.TooManyRulesException):
            rule(50_000, listener)
    pages = elbv2.get_paginator("describe_rules").paginate(ListenerArn=listeners[0], PaginationConfig={"PageSize": 20})
    priorities = [found["Priority"] for page in pages for found in page["Rules"]]
    assert priorities == [str(number) for number in range(2, 101, 2)] + ["default"]
    # All of them are open, and the last rule is found as well as the first.
    ask = lambda port, path: request(made["DNSName"], path, port=port, headers={"Host": "a.example.com"})[::2]
    eventually(lambda: ask(1000, "/100") == (200, "100"), timeout=60)
    assert ask(1001, "/1") == (200, "1") and ask(1000, "/x/y/22z") == (200, "22") and ask(1049, "/100")[0] == 404
    elbv2.delete_load_balancer(LoadBalancerArn=arn)


def test_r22_health_checks_that_are_redirected_or_hang(stack, web):
    groups = {
        "redirected": stack.target_group("a", HealthCheckPath="/cgi-bin/redirect"),
        "taken": stack.target_group("a", HealthCheckPath="/cgi-bin/redirect", Matcher={"HttpCode": "200-399"}),
        "hanging": stack.target_group("a", HealthCheckPath="/cgi-bin/hang"),
    }
    rule = stack.elbv2.create_rule(
        ListenerArn=web[2], Priority=1, Conditions=[{"Field": "path-pattern", "Values": ["/nowhere"]}],
        Actions=forward(*((group, 1) for group in groups.values())),
    )["Rules"][0]["RuleArn"]
    wanted = {
        "redirected": {"State": "unhealthy", "Reason": "Target.ResponseCodeMismatch", "Description": "Health checks failed with these codes: [302]"},
        "taken": {"State": "healthy"},
        "hanging": {"State": "unhealthy", "Reason": "Target.Timeout", "Description": "Request timed out"},
    }
    eventually(lambda: {kind: next(iter(stack.health(group).values())) for kind, group in groups.items()} == wanted, timeout=60)
    stack.elbv2.delete_rule(RuleArn=rule)


def test_r22_unfinished_requests_keep_nobody_else_waiting(stack, web):
    host = web[0]["DNSName"]
    openings = (b"GET / HT", b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nx", b"")
    held = []
    try:
        for number in range(400):
            connection = socket.create_connection((host, 80), timeout=60)
            connection.sendall(openings[number % len(openings)])
            held.append(connection)
        assert all(answers(host) for _ in range(20))
        # One more byte on each of them is no reason to be nicer to them.
        for connection in held:
            connection.sendall(b"x")
        assert all(answers(host) for _ in range(20))
    finally:
        for connection in held:
            connection.close()
    assert answers(host)


def raw(host, request):
    with socket.create_connection((host, 80), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer.decode(errors="replace")


def test_r22_requests_with_two_ends_are_refused(stack, web):
    host = web[0]["DNSName"]
    smuggled = b"GET /cgi-bin/who HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    for wrong in (b"Content-Length: 0\r\nContent-Length: 5", b"Content-Length : 0", b"Transfer-Encoding: gzip, chunked", b"X: a\r\n folded", b"Host: other"):
        answer = raw(host, b"POST / HTTP/1.1\r\nHost: h\r\n" + wrong + b"\r\n\r\n" + smuggled)
        assert answer.startswith("HTTP/1.1 400 ") and "name=" not in answer, (wrong, answer)
    answer = raw(host, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(smuggled), smuggled))
    assert answer.count("HTTP/1.1 ") == 1 and "name=" not in answer, answer
    mode = lambda value: {"LoadBalancerArn": web[0]["LoadBalancerArn"], "Attributes": [{"Key": "routing.http.desync_mitigation_mode", "Value": value}]}
    stack.elbv2.modify_load_balancer_attributes(**mode("defensive"))
    for other in ("monitor", "strictest", "nonsense"):
        assert "routing.http.desync_mitigation_mode" in refused("ValidationError", stack.elbv2.modify_load_balancer_attributes, **mode(other))
