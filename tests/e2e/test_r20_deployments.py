"""r20: deployments that fail are ended by the circuit breaker, rolled back and remembered; a rolling update under load
loses no request."""

import re
import threading
import time
import urllib.request

import botocore.exceptions
import pytest

import walkthrough
from conftest import Image, busybox, default_network, eventually, register
from test_r20_services import container, create, ecs, messages, name, running, service, stable  # noqa: F401 (fixtures)

BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}


def history(ecs, name):
    """The service's deployments in full, the newest first."""
    briefs = ecs.list_service_deployments(service=name)["serviceDeployments"]
    arns = [brief["serviceDeploymentArn"] for brief in briefs]
    full = ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"]
    return sorted(full, key=lambda one: arns.index(one["serviceDeploymentArn"]))


def test_r20_a_failed_deployment_is_rolled_back_and_remembered(platform, ecs, image, name):
    good = register(platform, name, container(image))
    made = create(platform, name, 2, deploymentConfiguration=BREAKER)
    breaker = made["deploymentConfiguration"]["deploymentCircuitBreaker"]
    assert breaker == {
        "enable": True,
        "rollback": True,
        "resetOnHealthyTask": True,
        "thresholdConfiguration": {"type": "BOUNDED_PERCENT", "value": 50},
    }
    first = made["deployments"][0]["id"]
    stable(platform, name)
    before = {one["taskArn"] for one in running(platform, name)}

    bad = register(platform, name, container(image.replace("busybox:", "busybox:no-such-")))
    updated = ecs.update_service(service=name, taskDefinition=name)["service"]
    failed = updated["deployments"][0]["id"]
    eventually(lambda: f"(service {name}) rolling back to deployment {first}." in messages(platform, name), 90)
    back = stable(platform, name)
    assert f"(service {name}) (deployment {failed}) deployment failed: tasks failed to start." in messages(platform, name)
    [primary] = back["deployments"]
    assert (primary["id"], primary["taskDefinition"], back["taskDefinition"]) == (first, good, good)
    # Those that were there are there still.
    assert {one["taskArn"] for one in running(platform, name)} == before
    eventually(lambda: service(platform, name)["deployments"][0]["rolloutState"] == "COMPLETED")

    newest, oldest = history(ecs, name)
    assert oldest["status"] == "SUCCESSFUL" and oldest["sourceServiceRevisions"] == []
    assert (newest["status"], newest["deploymentCircuitBreaker"]["status"]) == ("ROLLBACK_SUCCESSFUL", "TRIGGERED")
    assert newest["deploymentCircuitBreaker"]["failureCount"] >= newest["deploymentCircuitBreaker"]["threshold"] == 3
    assert newest["statusReason"] == newest["rollback"]["reason"] == "ECS deployment circuit breaker: tasks failed to start."
    assert [one["arn"] for one in newest["sourceServiceRevisions"]] == [newest["rollback"]["serviceRevisionArn"]]
    revisions = [newest["targetServiceRevision"]["arn"], newest["rollback"]["serviceRevisionArn"]]
    shown = ecs.describe_service_revisions(serviceRevisionArns=revisions)["serviceRevisions"]
    assert [one["taskDefinition"] for one in shown] == [bad, good]
    assert shown[1]["containerImages"][0]["imageDigest"].startswith("sha256:") and "imageDigest" not in shown[0]["containerImages"][0]
    listed = ecs.list_service_deployments(service=name, status=["SUCCESSFUL"])["serviceDeployments"]
    assert [one["serviceDeploymentArn"] for one in listed] == [oldest["serviceDeploymentArn"]]


def test_r20_without_rollback_a_failed_deployment_stops(platform, ecs, image, name):
    register(platform, name, container(image))
    breaker = {"enable": True, "rollback": False, "thresholdConfiguration": {"type": "COUNT", "value": 2}}
    create(platform, name, 1, deploymentConfiguration={"deploymentCircuitBreaker": breaker})
    stable(platform, name)
    before = running(platform, name)[0]["taskArn"]
    register(platform, name, container(image.replace("busybox:", "busybox:no-such-")))
    ecs.update_service(service=name, taskDefinition=name)
    reason = "ECS deployment circuit breaker: tasks failed to start."
    eventually(lambda: service(platform, name)["deployments"][0]["rolloutState"] == "FAILED", 90)
    found = service(platform, name)
    assert found["deployments"][0]["rolloutStateReason"] == reason and found["deployments"][0]["failedTasks"] == 2
    # No more is started, what ran runs on.
    tried = len(ecs.list_tasks(serviceName=name, desiredStatus="STOPPED")["taskArns"])
    time.sleep(5)
    assert len(ecs.list_tasks(serviceName=name, desiredStatus="STOPPED")["taskArns"]) == tried
    assert [one["taskArn"] for one in running(platform, name)] == [before]
    assert history(ecs, name)[0]["status"] == "STOPPED"
    # The next one that works takes its place.
    new = register(platform, name, container(image, "sleep 602"))
    ecs.update_service(service=name, taskDefinition=name)
    eventually(lambda: [one["taskDefinitionArn"] for one in running(platform, name)] == [new] and stable(platform, name), 90)


def test_r20_a_deployment_can_be_stopped_by_hand(platform, ecs, image, name):
    good = register(platform, name, container(image))
    create(platform, name, 1)
    stable(platform, name)
    eventually(lambda: service(platform, name)["deployments"][0]["rolloutState"] == "COMPLETED")
    # Healthy in half an hour: the deployment stays open.
    check = {"command": ["CMD-SHELL", "false"], "interval": 300, "startPeriod": 300}
    register(platform, name, container(image, healthCheck=check))
    updated = ecs.update_service(service=name, taskDefinition=name)["service"]
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="stopType"):
        ecs.stop_service_deployment(serviceDeploymentArn=updated["currentServiceDeployment"], stopType="ABORT")
    ecs.stop_service_deployment(serviceDeploymentArn=updated["currentServiceDeployment"])
    eventually(lambda: stable(platform, name)["taskDefinition"] == good and "currentServiceDeployment" not in service(platform, name), 90)
    assert history(ecs, name)[0]["status"] == "ROLLBACK_SUCCESSFUL"
    with pytest.raises(ecs.exceptions.ClientException, match="ROLLBACK_SUCCESSFUL"):
        ecs.stop_service_deployment(serviceDeploymentArn=updated["currentServiceDeployment"])
    with pytest.raises(ecs.exceptions.ServiceDeploymentNotFoundException):
        ecs.stop_service_deployment(serviceDeploymentArn=updated["currentServiceDeployment"][:-1] + "x")
    # Something newer takes the place of what is on its way.
    for script in ("sleep 603", "sleep 604"):
        register(platform, name, container(image, script))
        ecs.update_service(service=name, taskDefinition=name)
    assert history(ecs, name)[1]["status"] == "STOPPED"


def test_r20_the_walk_through_runs_as_written(tmp_path):
    out = walkthrough.run("rolling-update.md", tmp_path)
    assert re.search(r"^the load balancer answers: version one$", out, re.M), out
    assert re.search(r"^the load balancer answers: version two$", out, re.M), out
    assert re.search(r"^ROLLBACK_SUCCESSFUL\tTRIGGERED\tECS deployment circuit breaker: tasks failed to start\.$", out, re.M), out
    assert out.rstrip().splitlines()[-1].startswith("the load balancer still answers: version two"), out


class Load:
    """Requests at a constant rate, each on a connection and a thread of its own: a slow answer holds back no other."""

    def __init__(self, url, rate):
        self.url, self.pause = url, 1 / rate
        self.failed, self.answers, self.sent = [], {}, 0
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        start, requests = time.monotonic(), []
        while not self.over.is_set():
            self.sent += 1
            requests.append(threading.Thread(target=self.one))
            requests[-1].start()
            time.sleep(max(0, start + self.sent * self.pause - time.monotonic()))
        for request in requests:
            request.join()

    def one(self):
        try:
            with urllib.request.urlopen(self.url, timeout=20) as response:
                text = response.read().decode().strip()
            with self.lock:
                self.answers[text] = self.answers.get(text, 0) + 1
        except OSError as error:
            with self.lock:
                self.failed.append(repr(error))


SERVE = "mkdir -p /www; echo {} > /www/index.html; exec httpd -f -p 80 -h /www"


def test_r20_a_rolling_update_under_load_loses_no_request(own_platform):
    platform, name = own_platform(hosts=True), "load"
    ecs, elbv2, ec2 = (platform.client(service) for service in ("ecs", "elbv2", "ec2"))
    ecs.create_cluster()
    files = busybox() | {"bin/mkdir": (b'#!/bin/busybox sh\nexec /bin/busybox mkdir "$@"\n', 0o755)}
    image = Image(platform, name, files=files).uri
    subnets = ec2.describe_subnets()["Subnets"]
    vpc, group = subnets[0]["VpcId"], ec2.create_security_group(GroupName=name, Description="open")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=80, ToPort=80, CidrIp="0.0.0.0/0")
    balancer = elbv2.create_load_balancer(Name=name, Subnets=[one["SubnetId"] for one in subnets], SecurityGroups=[group])["LoadBalancers"][0]
    checks = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2}
    targets = elbv2.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip", **checks)["TargetGroups"][0]["TargetGroupArn"]
    elbv2.modify_target_group_attributes(TargetGroupArn=targets, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "5"}])
    forward = [{"Type": "forward", "TargetGroupArn": targets}]
    elbv2.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=forward)
    network = default_network(platform)
    network["awsvpcConfiguration"]["securityGroups"] = [group]
    port = [{"containerPort": 80}]
    register(platform, name, container(image, SERVE.format("v0"), portMappings=port))
    balanced = [{"targetGroupArn": targets, "containerName": "app", "containerPort": 80}]
    ecs.create_service(
        serviceName=name, taskDefinition=name, desiredCount=3, launchType="FARGATE", networkConfiguration=network, loadBalancers=balanced
    )
    eventually(lambda: service(platform, name)["deployments"][0]["rolloutState"] == "COMPLETED", 120)
    with Load(f"http://{balancer['DNSName']}/", rate=40) as load:
        eventually(lambda: load.answers.get("v0"))
        for version in ("v1", "v2", "v3"):
            register(platform, name, container(image, SERVE.format(version), portMappings=port))
            ecs.update_service(service=name, taskDefinition=name)
            eventually(lambda: service(platform, name)["deployments"][0]["rolloutState"] == "COMPLETED", 180)
    assert load.failed == [], (len(load.failed), load.sent, load.failed[:5])
    assert set(load.answers) == {"v0", "v1", "v2", "v3"} and sum(load.answers.values()) == load.sent
