"""r20: the desired count is kept, and what was acknowledged is done, while the platform's own processes die."""

import hashlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import botocore.exceptions

from conftest import Image, busybox, default_network, eventually, register
from test_r83_registry_durability import Client


def test_r20_the_count_is_kept_while_the_platform_dies(own_platform):
    platform = own_platform()
    image = Image(platform, "busybox").uri
    script = {"entryPoint": ["/bin/sh", "-c"], "command": ["sleep 600"], "stopTimeout": 2}
    register(platform, "web", {"name": "app", "image": image, **script})
    ecs = platform.client("ecs")
    ecs.create_cluster()
    network = default_network(platform)
    ecs.create_service(serviceName="web", taskDefinition="web", desiredCount=3, launchType="FARGATE", networkConfiguration=network)

    def running():
        arns = ecs.list_tasks(serviceName="web")["taskArns"]
        tasks = ecs.describe_tasks(tasks=arns)["tasks"] if arns else []
        return {task["taskArn"] for task in tasks if task["lastStatus"] == "RUNNING"}

    before = eventually(lambda: running() if len(running()) == 3 else None)
    for role in ("server", "agent", "host"):
        os.kill(platform.child(role), signal.SIGKILL)
        # Nothing is restarted or doubled.
        assert eventually(lambda: running() if len(running()) == 3 else None) == before
    victim = sorted(before)[0]
    # A stop that was acknowledged is carried out by who comes after.
    ecs.stop_task(task=victim)
    os.kill(platform.child("server"), signal.SIGKILL)
    after = eventually(lambda: running() if len(running()) == 3 and victim not in running() else None)
    assert len(after & before) == 2
    ecs.update_service(service="web", desiredCount=1)
    os.kill(platform.child("server"), signal.SIGKILL)
    assert len(eventually(lambda: running() if len(running()) == 1 else None) & after) == 1
    platform.stop()


class Load:
    """Work that goes on in threads until the end: requests through a load balancer, RunTask, pushes. A call that fails is
    made again, as every client does; what was acknowledged is written down."""

    def __init__(self, platform, host, network):
        self.ecs, self.host, self.network = platform.client("ecs"), host, network
        self.answered, self.failures, self.tasks, self.blobs, self.retried = 0, [], [], [], 0
        self.over = threading.Event()
        self.registry = Client(platform, "pushed")
        work = (self.ask, self.ask, self.run_tasks, self.push)
        self.threads = [threading.Thread(target=self.repeat, args=(one,)) for one in work]
        for thread in self.threads:
            thread.start()

    def repeat(self, work):
        while not self.over.is_set():
            work()

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def ask(self):
        try:
            with urllib.request.urlopen(f"http://{self.host}/", timeout=5) as answer:
                assert answer.read() == b"hello\n"
            self.answered += 1
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
        time.sleep(0.01)

    def run_tasks(self):
        request = {"taskDefinition": "short", "launchType": "FARGATE", "networkConfiguration": self.network, "startedBy": "load", "clientToken": uuid.uuid4().hex}
        answer = self.until_acknowledged(lambda: self.ecs.run_task(**request))
        assert answer["failures"] == [], answer
        self.tasks.append(answer["tasks"][0]["taskArn"])
        time.sleep(0.4)

    def push(self):
        content = os.urandom(2_000_000)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()

        def one():
            location = self.registry.begin()
            for part in (content[:1_000_000], content[1_000_000:]):
                assert self.registry.send("PATCH", location, part)[0] == 202
                time.sleep(0.05)
            return self.registry.send("PUT", f"{location}?digest={digest}")[0] == 201

        assert self.until_acknowledged(one)
        self.blobs.append(content)

    def until_acknowledged(self, call):
        end = time.monotonic() + 60
        while True:
            try:
                return call()
            except (OSError, http.client.HTTPException, botocore.exceptions.BotoCoreError, AssertionError) as error:
                assert time.monotonic() < end, error
                self.retried += 1
                time.sleep(0.1)


def processes(arns):
    """The pids of all processes in these tasks."""
    found = subprocess.run(["find", "/sys/fs/cgroup", "-name", "cgroup.procs"], capture_output=True, text=True).stdout.split()
    ours = [path for path in found if any(arn.rsplit("/", 1)[1] in path for arn in arns)]
    return {pid for path in ours for pid in pathlib.Path(path).read_text().split()}


def is_well(platform):
    try:
        with urllib.request.urlopen(f"{platform.endpoint}/health", timeout=2) as page:
            return json.load(page)["status"] == "ok"
    except urllib.error.HTTPError:
        return False


def balancer(arn):
    found = subprocess.run(["pgrep", "-f", f"balancer --load-balancer {arn}"], capture_output=True, text=True).stdout.split()
    return int(found[0]) if len(found) == 1 else None


def test_r20_each_process_dies_under_load_and_nothing_acknowledged_is_lost(own_platform):
    platform = own_platform(hosts=True)
    image = Image(platform, "busybox", files={**busybox(), "www/index.html": (b"hello\n", 0o644)}).uri
    ecs, elbv2, ec2 = platform.client("ecs"), platform.client("elbv2"), platform.client("ec2")
    ecs.create_cluster()
    network = default_network(platform)
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
    network["awsvpcConfiguration"]["securityGroups"] = [group]
    made = elbv2.create_load_balancer(Name="web", Subnets=network["awsvpcConfiguration"]["subnets"], SecurityGroups=[group])["LoadBalancers"][0]
    targets = elbv2.create_target_group(Name="web", Protocol="HTTP", Port=8080, VpcId=vpc, TargetType="ip", HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2, HealthyThresholdCount=2)["TargetGroups"][0]["TargetGroupArn"]
    elbv2.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[{"Type": "forward", "TargetGroupArn": targets}])
    serve = {"name": "web", "image": image, "command": ["httpd", "-f", "-p", "8080", "-h", "/www"], "portMappings": [{"containerPort": 8080}]}
    register(platform, "web", serve)
    register(platform, "short", {"name": "app", "image": image, "command": ["true"]})
    balanced = [{"targetGroupArn": targets, "containerName": "web", "containerPort": 8080}]
    ecs.create_service(serviceName="web", taskDefinition="web", desiredCount=2, launchType="FARGATE", networkConfiguration=network, loadBalancers=balanced)
    health = lambda: [one["TargetHealth"]["State"] for one in elbv2.describe_target_health(TargetGroupArn=targets)["TargetHealthDescriptions"]]
    eventually(lambda: health() == ["healthy"] * 2)

    def service():
        tasks = ecs.describe_tasks(tasks=ecs.list_tasks(serviceName="web")["taskArns"])["tasks"]
        return {(task["taskArn"], task["lastStatus"], task["startedAt"], task["containers"][0]["runtimeId"]) for task in tasks}

    before = service()
    arns = [task[0] for task in before]
    running = processes(arns)
    assert len(before) == 2 and len(running) >= 2
    load = Load(platform, made["DNSName"], network)
    try:
        for role in ("server", "host", "agent", "balancer"):
            pid = (lambda: balancer(made["LoadBalancerArn"])) if role == "balancer" else (lambda: platform.child(role))
            eventually(lambda: load.tasks and load.blobs and load.answered > 20)
            victim, done = pid(), (len(load.tasks), len(load.blobs))
            os.kill(victim, signal.SIGKILL)
            # It comes back alone, and work of every kind goes on.
            eventually(lambda: pid() not in (None, victim) and is_well(platform), 30)
            eventually(lambda: len(load.tasks) > done[0] + 1 and len(load.blobs) > done[1] + 1, 30)
            if role != "balancer":
                assert load.failures == [], role
        # What its death broke were the requests it had; the next one serves as before.
        broken, answered = len(load.failures), load.answered
        eventually(lambda: load.answered > answered + 50)
        assert len(load.failures) == broken
    finally:
        load.end()
    assert load.retried > 0, "the load never noticed"
    assert service() == before and running <= processes(arns)
    # Every task that was promised was run, once.
    ended = lambda: [task for task in describe(ecs, load.tasks) if task["lastStatus"] == "STOPPED"]
    eventually(lambda: len(ended()) == len(load.tasks), 90)
    failed = [task for task in ended() if task["containers"][0].get("exitCode") != 0]
    assert failed == [], [(task["createdAt"], task["stoppedReason"], task["containers"]) for task in failed]
    listed = [arn for status in ("RUNNING", "STOPPED") for page in ecs.get_paginator("list_tasks").paginate(startedBy="load", desiredStatus=status) for arn in page["taskArns"]]
    assert sorted(listed) == sorted(load.tasks)
    for content in load.blobs:
        assert load.registry.blob("sha256:" + hashlib.sha256(content).hexdigest())[2] == content
    platform.stop()


def describe(ecs, arns):
    """Tasks by their ARNs, a hundred at a time."""
    found = []
    for start in range(0, len(arns), 100):
        answer = ecs.describe_tasks(tasks=arns[start : start + 100])
        assert answer["failures"] == []
        found += answer["tasks"]
    return found
