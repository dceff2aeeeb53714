"""Amazon's own agent, unmodified, in external mode: each exchange as it was recorded, and of each what the agent needs of the
other side. See `amazons_agent.py` for the recording."""

import datetime
import json
import os
import re
import signal
import time
import uuid

import pytest

from amazons_agent import CAPABILITIES, DOCKER, RESERVED, AmazonsAgent, Refused
from conftest import ACCOUNT, EXECUTION_ROLE, default_network, eventually

CLUSTER = "amazons"
ARN = re.compile(rf"arn:aws:ecs:us-east-1:{ACCOUNT}:container-instance/[\w.-]+/[0-9a-f]{{32}}")
DIGEST = "sha256:" + "5" * 64


@pytest.fixture(scope="module", autouse=True)
def cluster(platform):
    platform.client("ecs").create_cluster(clusterName=CLUSTER)


@pytest.fixture
def agent(platform):
    """An agent that has registered; deregistered at the end, whatever still runs there."""
    agent = AmazonsAgent(platform, CLUSTER)
    agent.register()
    yield agent
    ecs = platform.client("ecs")
    try:
        ecs.deregister_container_instance(cluster=CLUSTER, containerInstance=agent.arn, force=True)
    except ecs.exceptions.InvalidParameterException:
        pass  # The test has.


def define(platform, family, *more, role=None, **container):
    containers = [
        {"name": "app", "image": "example.com/app:1", "memory": 64, "cpu": 10, "command": ["serve"], "environment": [{"name": "A", "value": "b"}],
         "portMappings": [{"containerPort": 80}], "stopTimeout": 7, **container},
        *more,
    ]
    definition = {"family": family, "networkMode": "bridge", "requiresCompatibilities": ["EXTERNAL"], "containerDefinitions": containers}
    roles = {"taskRoleArn": role, "executionRoleArn": role} if role else {}
    return platform.client("ecs").register_task_definition(**definition, **roles)["taskDefinition"]["taskDefinitionArn"]


def run(platform, agent, definition, **more):
    """Runs a task where this agent is."""
    answer = platform.client("ecs").start_task(cluster=CLUSTER, containerInstances=[agent.arn], taskDefinition=definition, **more)
    assert answer["failures"] == [], answer
    return answer["tasks"][0]["taskArn"]


def task(platform, arn):
    return platform.client("ecs").describe_tasks(cluster=CLUSTER, tasks=[arn])["tasks"][0]


def instance(platform, agent, **more):
    answer = platform.client("ecs").describe_container_instances(cluster=agent.cluster, containerInstances=[agent.arn], **more)
    return answer["containerInstances"][0]


def running(agent, arn, name="app", **more):
    """What the agent reports of a task that has come up."""
    at = time.time()
    agent.report(arn, "PENDING", [{"containerName": name, "imageDigest": DIGEST, "status": "PENDING"}])
    bindings = [{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp"}]
    container = {"containerName": name, "imageDigest": DIGEST, "networkBindings": bindings, "runtimeId": "d" * 64, "status": "RUNNING", **more}
    agent.report(arn, "RUNNING", [container], pullStartedAt=at, pullStoppedAt=at + 0.25)


def stopped(agent, arn, name="app", code=137, **more):
    container = {"containerName": name, "exitCode": code, "runtimeId": "d" * 64, "status": "STOPPED", "networkBindings": [], **more}
    agent.report(arn, "STOPPED", [container], executionStoppedAt=time.time())


def test_r03_registration(platform):
    agent = AmazonsAgent(platform, "not-there", attributes={"rack": "7", "stack": "blue"})
    assert agent.wrong("RegisterContainerInstance", agent.registration()) == ("ClusterNotFoundException", "Cluster not found.")
    # With no ECS_CLUSTER it makes the cluster and tries again.
    agent.cluster = "default"
    cluster = agent.right("CreateCluster", {"clusterName": "default"})["cluster"]
    assert cluster["clusterName"] == "default" and cluster["status"] == "ACTIVE"
    registered = agent.register()
    assert ARN.fullmatch(agent.arn) and "/default/" in agent.arn
    assert (registered["status"], registered["agentConnected"]) == ("ACTIVE", False)
    names = {attribute["name"]: attribute.get("value") for attribute in registered["attributes"]}
    assert names["rack"] == "7" and names["ecs.cpu-architecture"] == "x86_64" and set(CAPABILITIES) <= set(names)
    has = {resource["name"]: resource for resource in registered["registeredResources"]}
    assert (has["CPU"]["integerValue"], has["MEMORY"]["integerValue"]) == (2048, 1900)
    assert sorted(has["PORTS"]["stringSetValue"]) == sorted(RESERVED) and has["PORTS_UDP"]["stringSetValue"] == []
    # The answer was lost: the same attempt, by its token, makes no second instance; a new attempt does.
    first, agent.arn = agent.arn, None
    agent.register()
    assert agent.arn == first
    agent.arn, agent.token = None, str(uuid.uuid4())
    agent.register()
    second, agent.arn = agent.arn, first
    assert second != first
    # After a restart it comes again under its ARN and leaves its custom attributes out: they stay.
    agent.token = str(uuid.uuid4())
    again = agent.register()
    assert agent.arn == first
    assert {"rack", "stack"} <= {attribute["name"] for attribute in again["attributes"]}
    found = platform.client("ecs").list_container_instances(cluster="default")["containerInstanceArns"]
    assert {first, second} <= set(found)
    for arn in (first, second):
        platform.client("ecs").deregister_container_instance(cluster="default", containerInstance=arn)
    # Its agent exits, and starts again until somebody removes what it remembers.
    code, message = agent.wrong("RegisterContainerInstance", agent.registration())
    assert (code, message) == ("ClientException", f"Container instance {first.rsplit('/', 1)[1]} is inactive.")


def test_r03_registration_refuses_what_it_would_not_honour(platform):
    agent = AmazonsAgent(platform, CLUSTER)

    def refusal(**other):
        code, message = agent.wrong("RegisterContainerInstance", {**agent.registration(), **other})
        assert code == "InvalidParameterException", message
        return message

    assert "platformDevices" in refusal(platformDevices=[{"id": "0", "type": "NEURON_DEVICE"}])
    cores = [{"name": "NEURON_CORES", "type": "STRINGSET", "stringSetValue": ["0"]}]
    assert "NEURON_CORES" in refusal(totalResources=agent.registration()["totalResources"] + cores)
    assert "MEMORY" in refusal(totalResources=agent.registration()["totalResources"][:1])
    assert "attributes" in refusal(attributes=[{"name": f"a{number}"} for number in range(201)])
    assert "128" in refusal(attributes=[{"name": "a", "value": "v" * 129}])
    assert platform.client("ecs").list_container_instances(cluster=CLUSTER)["containerInstanceArns"] == []


def test_r03_tags_and_names_of_a_cluster(platform):
    agent = AmazonsAgent(platform, f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/{CLUSTER}")
    request = {**agent.registration(), "tags": [{"key": "one", "value": "1"}]}
    agent.arn = agent.right("RegisterContainerInstance", request)["containerInstance"]["containerInstanceArn"]
    # Registered again with another tag, it has both.
    agent.right("RegisterContainerInstance", {**agent.registration(), "tags": [{"key": "two", "value": "2"}]})
    tags = agent.right("ListTagsForResource", {"resourceArn": agent.arn})["tags"]
    assert sorted(tag["key"] for tag in tags) == ["one", "two"]
    # The cluster by its ARN, wherever an agent names it.
    acs, tcs = agent.acs(), agent.tcs()
    agent.greeted(acs)
    tcs.next("HeartbeatMessage")
    acs.close(), tcs.close()
    platform.client("ecs").deregister_container_instance(cluster=CLUSTER, containerInstance=agent.arn)


def test_r03_the_sessions_begin(platform, agent):
    assert "agentHash" not in instance(platform, agent)["versionInfo"]
    acs_endpoint, tcs_endpoint = agent.discover()
    assert acs_endpoint.startswith(f"http://127.0.0.1:{platform.port}/") and tcs_endpoint.startswith(f"http://127.0.0.1:{platform.port}/")
    assert acs_endpoint != tcs_endpoint
    acs, tcs = agent.acs(), agent.tcs()
    manifest, payloads = agent.greeted(acs)
    assert (manifest["tasks"], payloads) == ([], [])
    found = instance(platform, agent)
    assert found["agentConnected"] is True
    assert found["versionInfo"] == {"agentVersion": "1.105.1", "agentHash": "a8b3e7d3", "dockerVersion": f"DockerVersion: {DOCKER}"}
    # Something must come within a minute on either session; a ping is answered, and a word of next year changes nothing.
    beat = acs.next("HeartbeatMessage", timeout=40)
    assert beat["messageId"] and beat["healthy"] is True
    acs.heartbeat(beat)
    assert tcs.next("HeartbeatMessage", timeout=40) == {"healthy": True}
    acs.frame(9, b"there?")
    assert acs.came.get(timeout=10) == ("pong", b"there?")
    # It closes by itself after half an hour and is there again at once, without need for credentials.
    acs.close()
    assert acs.closed_with == 1000
    again = agent.acs(send_credentials=False)
    agent.greeted(again)
    assert instance(platform, agent)["agentConnected"] is True
    again.drop()
    eventually(lambda: instance(platform, agent)["agentConnected"] is False)
    tcs.close()


def test_r03_a_task_from_its_payload_to_its_end(platform, agent):
    acs = agent.acs()
    agent.greeted(acs)
    side = {"name": "side", "image": "example.com/side:1", "memory": 32, "essential": False, "dependsOn": [{"containerName": "app", "condition": "HEALTHY"}]}
    health = {"command": ["CMD", "true"], "interval": 5, "timeout": 2, "retries": 3}
    definition = define(platform, "whole", side, healthCheck=health, linuxParameters={"initProcessEnabled": True}, ulimits=[{"name": "nofile", "softLimit": 10, "hardLimit": 20}])
    change = {"containerOverrides": [{"name": "app", "command": ["other"], "environment": [{"name": "C", "value": "d"}]}]}
    arn = run(platform, agent, definition, overrides=change)
    payload = agent.payload(acs)
    assert payload["clusterArn"].endswith(f":cluster/{CLUSTER}")
    [sent] = payload["tasks"]
    assert (sent["arn"], sent["family"], sent["version"], sent["desiredStatus"], sent["networkMode"], sent["launchType"]) == (arn, "whole", "1", "RUNNING", "bridge", "EXTERNAL")
    assert sent["taskClusterArn"] == payload["clusterArn"] and sent["taskDefinitionAccountId"] == ACCOUNT
    assert "roleCredentials" not in sent and "executionRoleCredentials" not in sent and not sent.get("elasticNetworkInterfaces")
    app, side = sorted(sent["containers"], key=lambda container: container["name"])
    # `overrides` is a text in which the agent allows nothing but a command: the platform has merged the rest.
    assert all(isinstance(container["overrides"], str) and set(json.loads(container["overrides"])) <= {"command"} for container in (app, side))
    assert (app["image"], app["essential"], app["cpu"], app["memory"], app["command"], app["stopTimeout"]) == ("example.com/app:1", True, 10, 64, ["other"], 7)
    assert app["environment"] == {"A": "b", "C": "d", "AWS_EXECUTION_ENV": "AWS_ECS_EC2"}
    assert app["portMappings"] == [{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}]
    assert app["containerArn"].startswith(f"arn:aws:ecs:us-east-1:{ACCOUNT}:container/") and "registryAuthentication" not in app
    assert side["dependsOn"] == [{"containerName": "app", "condition": "HEALTHY"}]
    # Docker's own words, as texts of JSON; with healthCheckType there must be a health check in them.
    config, host = json.loads(app["dockerConfig"]["config"]), json.loads(app["dockerConfig"]["hostConfig"])
    assert app["healthCheckType"] == "docker" and config["Healthcheck"]["Test"] == ["CMD", "true"] and config["Healthcheck"]["Interval"] == 5_000_000_000
    assert (host["NetworkMode"], host["Init"], host["Ulimits"]) == ("bridge", True, [{"Name": "nofile", "Soft": 10, "Hard": 20}])
    assert task(platform, arn)["lastStatus"] == "PENDING"

    running(agent, arn)
    found = task(platform, arn)
    container = next(container for container in found["containers"] if container["name"] == "app")
    assert found["lastStatus"] == "RUNNING" and container["imageDigest"] == DIGEST and container["runtimeId"] == "d" * 64
    assert container["networkBindings"] == [{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp"}]
    assert found["pullStoppedAt"] - found["pullStartedAt"] == datetime.timedelta(seconds=0.25)
    # Batched changes repeat the task's status; a container that dies at once is RUNNING with an exit code first.
    agent.report(arn, "RUNNING", [{"containerName": "side", "status": "RUNNING", "exitCode": 3}])
    agent.report(arn, "RUNNING", [{"containerName": "side", "status": "STOPPED", "exitCode": 3, "reason": ""}])
    running(agent, arn)
    found = task(platform, arn)
    states = {container["name"]: (container["lastStatus"], container.get("exitCode")) for container in found["containers"]}
    assert found["lastStatus"] == "RUNNING" and states == {"app": ("RUNNING", None), "side": ("STOPPED", 3)}
    # The other form, which is in Amazon's client too.
    other = {"cluster": CLUSTER, "task": arn, "containerName": "app", "status": "RUNNING", "runtimeId": "e" * 64, "reason": "", "networkBindings": []}
    assert agent.right("SubmitContainerStateChange", other)["acknowledgment"]
    assert next(container for container in task(platform, arn)["containers"] if container["name"] == "app")["runtimeId"] == "e" * 64

    platform.client("ecs").stop_task(cluster=CLUSTER, task=arn, reason="enough")
    [stop] = agent.payload(acs)["tasks"]
    assert (stop["arn"], stop["desiredStatus"]) == (arn, "STOPPED")
    # `docker stop` waits for stopTimeout; until then the task is on its way, and nothing is said twice.
    assert (task(platform, arn)["lastStatus"], task(platform, arn)["desiredStatus"]) == ("STOPPING", "STOPPED")
    acs.quiet(2)
    stopped(agent, arn)
    found = eventually(lambda: (now := task(platform, arn))["lastStatus"] == "STOPPED" and now)
    assert (found["stopCode"], found["stoppedReason"]) == ("UserInitiated", "enough")
    assert {container["name"]: container["exitCode"] for container in found["containers"]} == {"app": 137, "side": 3}
    assert found["executionStoppedAt"]
    # A report that comes again, or late, is taken and changes nothing.
    stopped(agent, arn)
    running(agent, arn)
    assert task(platform, arn)["lastStatus"] == "STOPPED"
    acs.close()


def test_r03_what_goes_wrong_is_told_in_the_agents_words(platform, agent):
    acs = agent.acs()
    agent.greeted(acs)
    definition = define(platform, "wrong")
    unparsable, unreachable, ends = (run(platform, agent, definition) for _ in range(3))
    payloads = []
    while sum(len(payload["tasks"]) for payload in payloads) < 3:
        # Of a payload with one bad task nothing is ever acknowledged, though the good ones start.
        payloads.append(agent.take(acs, acs.next("PayloadMessage"), ack=False))
    for payload in payloads:
        acs.say("NackRequest", cluster=CLUSTER, containerInstance=agent.arn, messageId=payload["messageId"], reason="Updates are disabled")
    agent.report(unparsable, "STOPPED", reason="UnrecogniedTaskError: Error loading task - invalid")
    text = "CannotPullImageManifestError: dial tcp: lookup example.com"
    agent.report(unreachable, "STOPPED", [{"containerName": "app", "status": "STOPPED", "reason": text}])
    running(agent, ends)
    stopped(agent, ends, code=1)
    found = {arn: eventually(lambda: (now := task(platform, arn))["lastStatus"] == "STOPPED" and now) for arn in (unparsable, unreachable, ends)}
    assert found[unparsable]["stopCode"] == "TaskFailedToStart" and "UnrecogniedTaskError" in found[unparsable]["stoppedReason"]
    assert found[unreachable]["stopCode"] == "TaskFailedToStart" and found[unreachable]["containers"][0]["reason"] == text
    assert (found[ends]["stopCode"], found[ends]["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")
    # None of them is sent again, acknowledged or not.
    acs.quiet(11)
    # What can never be taken is an InvalidParameterException, on which the agent drops its report; all else it repeats for ever.
    for change in (
        agent.change(unparsable.rsplit("/", 1)[0] + "/" + "f" * 32, "STOPPED"), agent.change("nonsense", "RUNNING"), agent.change(ends, "SLEEPING"),
        {**agent.change(ends, "RUNNING"), "cluster": "not-there"},
        agent.change(ends, "RUNNING", managedAgents=[{"managedAgentName": "ExecuteCommandAgent", "containerName": "app", "status": "RUNNING"}]),
        agent.change(ends, "RUNNING", [{"containerName": "app", "networkBindings": [{"containerPortRange": "80-90", "hostPortRange": "80-91", "protocol": "tcp"}]}]),
    ):
        assert agent.wrong("SubmitTaskStateChange", change)[0] == "InvalidParameterException", change
    acs.close()


def test_r03_credentials(own_platform):
    """Half an hour passes in a second."""
    platform = own_platform("--clock-rate", "1000")
    platform.client("ecs").create_cluster(clusterName=CLUSTER)
    agent = AmazonsAgent(platform, CLUSTER)
    agent.register()
    acs = agent.acs()
    agent.greeted(acs)
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/app:1"
    arn = run(platform, agent, define(platform, "roles", role=EXECUTION_ROLE, image=image))
    payload = agent.payload(acs)
    [sent] = payload["tasks"]
    authentication = sent["containers"][0]["registryAuthentication"]
    assert authentication == {"type": "ecr", "ecrAuthData": {"registryId": ACCOUNT, "region": "us-east-1", "useExecutionRole": True}}
    running(agent, arn)
    first = {"TaskApplication": sent["roleCredentials"], "TaskExecution": sent["executionRoleCredentials"]}
    for credentials in first.values():
        assert uuid.UUID(credentials["credentialsId"]) and credentials["roleArn"] == EXECUTION_ROLE
        assert credentials["accessKeyId"] and credentials["secretAccessKey"] and credentials["sessionToken"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", credentials["expiration"])
    assert first["TaskApplication"]["credentialsId"] != first["TaskExecution"]["credentialsId"]

    def told(session):
        came = {}
        while len(came) < 2:
            message = session.next("IAMRoleCredentialsMessage", timeout=60)
            assert message["messageId"] and message["taskArn"] == arn and message["taskClusterArn"].endswith(CLUSTER)
            agent.ack_credentials(session, message, message["roleCredentials"])
            came[message["roleType"]] = message["roleCredentials"]
        assert set(came) == set(first)
        return came

    def renewed(before, after):
        for kind in before:
            # The id is part of an address inside the container: it stays, and what is behind it is new.
            assert after[kind]["credentialsId"] == before[kind]["credentialsId"] and after[kind]["roleArn"] == EXECUTION_ROLE
            assert after[kind]["accessKeyId"] != before[kind]["accessKeyId"]

    second = told(acs)
    renewed(first, second)
    assert all(second[kind]["expiration"] > first[kind]["expiration"] for kind in first)
    # A process that has just started has lost them, and asks for them before all else.
    acs.drop()
    agent.token = str(uuid.uuid4())
    agent.register()
    acs = agent.acs(send_credentials=True)
    third = told(acs)
    renewed(second, third)
    agent.greeted(acs)
    keys = {"aws_access_key_id": third["TaskApplication"]["accessKeyId"], "aws_secret_access_key": third["TaskApplication"]["secretAccessKey"], "aws_session_token": third["TaskApplication"]["sessionToken"]}
    assert f"/{arn.rsplit('/', 1)[1]}" in platform.client("sts", **keys).get_caller_identity()["Arn"]
    acs.close()


def test_r03_without_an_execution_role_the_instance_logs_in(platform, agent):
    acs = agent.acs()
    agent.greeted(acs)
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/app:1"
    run(platform, agent, define(platform, "itself", image=image))
    authentication = agent.payload(acs)["tasks"][0]["containers"][0]["registryAuthentication"]
    assert authentication["ecrAuthData"]["useExecutionRole"] is False
    acs.close()


def test_r03_a_manifest_finds_what_should_not_run(platform, agent):
    acs = agent.acs()
    agent.greeted(acs)
    mine = run(platform, agent, define(platform, "mine"))
    agent.payload(acs)
    running(agent, mine)
    acs.close()
    acs = agent.acs(send_credentials=False)
    manifest, payloads = agent.greeted(acs)
    # What runs is told again, which does no harm, and is in the manifest.
    assert [task["arn"] for payload in payloads for task in payload["tasks"]] == [mine]
    assert [(task["taskArn"], task["desiredStatus"]) for task in manifest["tasks"]] == [(mine, "RUNNING")]
    foreign = mine.rsplit("/", 1)[0] + "/" + "0" * 32
    offered = [{"taskArn": arn, "taskClusterArn": manifest["clusterArn"], "desiredStatus": "STOPPED"} for arn in (mine, foreign)]
    acs.say("TaskStopVerificationMessage", messageId=manifest["messageId"], stopCandidates=offered)
    verified = acs.next("TaskStopVerificationAck")
    assert verified["messageId"] == manifest["messageId"] and isinstance(verified["generatedAt"], int)
    assert [task["taskArn"] for task in verified["stopTasks"]] == [foreign]
    assert task(platform, mine)["lastStatus"] == "RUNNING"
    acs.close()


def test_r03_a_stop_of_a_task_that_the_agent_never_heard_of(platform, agent):
    """The agent acknowledges it and says nothing more: the platform must end the task by itself."""
    acs = agent.acs()
    agent.greeted(acs)
    unheard, heard = (run(platform, agent, define(platform, "unheard")) for _ in range(2))
    running(agent, heard)
    acs.drop()
    for arn in (unheard, heard):
        platform.client("ecs").stop_task(cluster=CLUSTER, task=arn)
    acs = agent.acs(send_credentials=False)
    manifest, payloads = agent.greeted(acs)
    assert {(task["arn"], task["desiredStatus"]) for payload in payloads for task in payload["tasks"]} == {(unheard, "STOPPED"), (heard, "STOPPED")}
    assert {task["desiredStatus"] for task in manifest["tasks"]} == {"STOPPED"}
    began = time.monotonic()
    while task(platform, unheard)["lastStatus"] != "STOPPED":
        assert time.monotonic() - began < 60
        acs.quiet(1)
    # One that it has spoken of it will speak of again, however long that takes.
    assert task(platform, heard)["lastStatus"] == "STOPPING"
    stopped(agent, heard)
    eventually(lambda: task(platform, heard)["lastStatus"] == "STOPPED")
    acs.close()


def test_r03_the_control_plane_restarts(own_platform):
    platform = own_platform()
    platform.client("ecs").create_cluster(clusterName=CLUSTER)
    agent = AmazonsAgent(platform, CLUSTER)
    agent.register()
    acs, tcs = agent.acs(), agent.tcs()
    agent.greeted(acs)
    arn = run(platform, agent, define(platform, "survives"))
    agent.payload(acs)
    running(agent, arn)
    server = platform.child("server")
    os.kill(server, signal.SIGKILL)
    # An end of stream, after which the agent comes back at once, to the addresses it has.
    assert (acs.ended(), tcs.ended()) == (None, None)
    eventually(lambda: platform.child("server") != server and platform.client("ecs").list_clusters())
    assert instance(platform, agent)["agentConnected"] is False
    assert task(platform, arn)["lastStatus"] == "RUNNING"
    before = agent.highest
    acs, tcs = agent.acs(send_credentials=False), agent.tcs()
    manifest, _ = agent.greeted(acs)
    assert agent.highest > before and [task["taskArn"] for task in manifest["tasks"]] == [arn]
    assert instance(platform, agent)["agentConnected"] is True
    platform.client("ecs").stop_task(cluster=CLUSTER, task=arn)
    assert agent.payload(acs)["tasks"][0]["desiredStatus"] == "STOPPED"
    stopped(agent, arn)
    eventually(lambda: task(platform, arn)["lastStatus"] == "STOPPED")
    # A clean stop closes in order: as the agent sees it, a server that goes away.
    assert platform.stop() == 0
    assert acs.ended() in (1000, 1001, None)


def test_r03_draining(platform, agent):
    """As the agent of a Spot Instance does to itself."""
    acs = agent.acs()
    agent.greeted(acs)
    arn = run(platform, agent, define(platform, "drains"))
    agent.payload(acs)
    running(agent, arn)
    body = {"cluster": CLUSTER, "containerInstances": [agent.arn], "status": "DRAINING"}
    answer = agent.right("UpdateContainerInstancesState", body)
    assert answer["failures"] == [] and answer["containerInstances"][0]["status"] == "DRAINING"
    # A task of no service stays; none is placed there any more.
    ecs = platform.client("ecs")
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="No Container Instances were found"):
        ecs.run_task(cluster=CLUSTER, taskDefinition="drains", launchType="EXTERNAL")
    assert task(platform, arn)["desiredStatus"] == "RUNNING" and instance(platform, agent)["status"] == "DRAINING"
    # The agent may come and go, and registers again: that changes nothing of it.
    acs.close()
    agent.register()
    acs = agent.acs()
    agent.greeted(acs)
    assert instance(platform, agent)["status"] == "DRAINING"
    acs.close()


def test_r03_deregistered(platform, agent):
    acs, tcs = agent.acs(), agent.tcs()
    agent.greeted(acs)
    arn = run(platform, agent, define(platform, "orphaned"))
    agent.payload(acs)
    running(agent, arn)
    platform.client("ecs").deregister_container_instance(cluster=CLUSTER, containerInstance=agent.arn, force=True)
    # The agent comes back at once, and learns that it is to wait.
    assert acs.ended() == 1000
    with pytest.raises(Refused) as refused:
        agent.acs(send_credentials=False)
    assert refused.value.status == 400 and list(refused.value.body) == ["InactiveInstanceException"], refused.value
    # Its telemetry ends with the next heartbeat at the latest.
    assert tcs.ended(timeout=40) == 1000
    with pytest.raises(Refused) as refused:
        agent.tcs()
    assert list(refused.value.body) == ["InactiveInstanceException"]
    eventually(lambda: task(platform, arn)["lastStatus"] == "STOPPED")
    # What the orphan does is taken, for otherwise the agent would repeat it for ever, and changes nothing.
    stopped(agent, arn, code=0)
    assert agent.wrong("DiscoverPollEndpoint", {"cluster": CLUSTER, "containerInstance": agent.arn, "zoneId": ""})[0] == "ClientException"


def test_r03_attachments(platform, agent):
    """An interface of a task is the only attachment there is; it is confirmed in either of two forms."""
    owner = AmazonsAgent(platform, CLUSTER, capabilities=["ecs.capability.task-eni"])
    owner.capabilities.remove("ecs.capability.external")
    owner.register()
    acs = owner.acs()
    owner.greeted(acs)
    definition = platform.client("ecs").register_task_definition(
        family="interface", networkMode="awsvpc", containerDefinitions=[{"name": "app", "image": "example.com/app:1", "memory": 64, "portMappings": [{"containerPort": 80}]}],
    )["taskDefinition"]["taskDefinitionArn"]
    arn = run(platform, owner, definition, networkConfiguration=default_network(platform))
    [sent] = owner.payload(acs)["tasks"]
    [interface] = sent["elasticNetworkInterfaces"]
    assert interface["ec2Id"].startswith("eni-") and re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", interface["macAddress"])
    assert interface["ipv4Addresses"][0]["primary"] is True and re.fullmatch(r"[\d.]+/\d+", interface["subnetGatewayIpv4Address"])
    # Docker refuses to publish ports of a container that shares another's network.
    assert sent["networkMode"] == "awsvpc" and not sent["containers"][0].get("portMappings")
    attached = [{"attachmentArn": interface["attachmentArn"], "status": "ATTACHED"}]
    assert owner.right("SubmitTaskStateChange", {"cluster": CLUSTER, "task": arn, "attachments": attached})["acknowledgment"]
    assert owner.right("SubmitAttachmentStateChanges", {"cluster": CLUSTER, "attachments": attached})["acknowledgment"]
    details = task(platform, arn)["attachments"]
    assert [attachment["status"] for attachment in details] == ["ATTACHED"]
    other = [{"attachmentArn": f"arn:aws:ecs:us-east-1:{ACCOUNT}:attachment/{uuid.uuid4()}", "status": "ATTACHED"}]
    for operation, body in (
        ("SubmitAttachmentStateChanges", {"attachments": other}), ("SubmitAttachmentStateChanges", {"attachments": []}),
        ("SubmitAttachmentStateChanges", {"attachments": [{**attached[0], "status": "DETACHED"}]}),
        ("SubmitTaskStateChange", {"task": arn, "attachments": other}),
    ):
        assert owner.wrong(operation, {"cluster": CLUSTER, **body})[0] == "InvalidParameterException", body
    acs.close()
    platform.client("ecs").deregister_container_instance(cluster=CLUSTER, containerInstance=owner.arn, force=True)


def test_r03_an_update_of_the_agent_is_not_served(platform, agent):
    """Amazon's agent updates itself only if its configuration lets it; the platform never asks it to."""
    status, answer = agent.call("UpdateContainerAgent", {"cluster": CLUSTER, "containerInstance": agent.arn})
    assert status == 501 and "UpdateContainerAgent" in answer["message"], answer


def test_r03_telemetry(platform, agent):
    acs, tcs = agent.acs(), agent.tcs()
    agent.greeted(acs)
    health = {"command": ["CMD", "true"]}
    arn = run(platform, agent, define(platform, "measured", healthCheck=health))
    agent.payload(acs)
    running(agent, arn)

    def metadata(**more):
        return {"cluster": CLUSTER, "containerInstance": agent.arn, "messageId": str(uuid.uuid4()), **more}

    known = {"taskArn": arn, "taskDefinitionFamily": "measured", "taskDefinitionVersion": "1"}
    statistics = {"min": 0.1, "max": 2.5, "sum": 5.1, "sampleCount": 4}
    counters = {"min": 0, "max": 9, "sum": 9, "sampleCount": 4, "overflowMin": None, "overflowMax": None, "overflowSum": None}
    network = {f"{way}{what}": counters for way in ("rx", "tx") for what in ("Bytes", "Dropped", "Errors", "Packets")}
    container = {
        "containerName": "app", "cpuStatsSet": statistics, "memoryStatsSet": statistics,
        "networkStatsSet": {**network, "rxBytesPerSecond": statistics, "txBytesPerSecond": statistics},
        "storageStatsSet": {"readSizeBytes": counters, "writeSizeBytes": counters}, "restartStatsSet": {"restartCount": 0},
    }
    tcs.publish("PublishMetricsRequest", metadata=metadata(idle=True, fin=True), timestamp=time.time())
    assert isinstance(tcs.next("AckPublishMetric")["message"], str)
    pages = metadata(idle=False)
    host = {"storage": {"dataFilesystem": 41.5, "rootFilesystem": 12.0}}
    for number in range(3):
        first = {"instanceMetrics": host} if number == 0 else {}
        tcs.publish("PublishMetricsRequest", metadata={**pages, "fin": number == 2}, timestamp=time.time(), taskMetrics=[{**known, "containerMetrics": [container]}], **first)
        tcs.next("AckPublishMetric")
    for status in ("HEALTHY", "UNHEALTHY", "UNKNOWN", "HEALTHY"):
        containers = [{"containerName": "app", "healthStatus": status, "statusSince": time.time()}]
        tcs.publish("PublishHealthRequest", metadata=metadata(fin=True), timestamp=time.time(), tasks=[{**known, "containers": containers}])
        assert isinstance(tcs.next("AckPublishHealth")["message"], str)
        assert task(platform, arn)["containers"][0]["healthStatus"] == status
    assert task(platform, arn)["healthStatus"] == "HEALTHY"

    # How well the instance is, which the agent looks at with a heartbeat of ACS and tells on TCS.
    def told():
        return instance(platform, agent, include=["CONTAINER_INSTANCE_HEALTH"])["healthStatus"]

    assert told() == {"overallStatus": "INSUFFICIENT_DATA", "details": []}
    assert "healthStatus" not in instance(platform, agent)
    since = int(time.time())
    for status, reason in (("INITIALIZING", None), ("OK", None), ("IMPAIRED", "docker does not answer")):
        said = {"type": "ContainerRuntime", "status": status, "lastUpdated": since + 5.5, "lastStatusChange": since, **({"statusReason": reason} if reason else {})}
        request = {"cluster": CLUSTER, "containerInstance": agent.arn, "requestId": str(uuid.uuid4())}
        tcs.publish("PublishInstanceStatusRequest", metadata=request, timestamp=time.time(), statuses=[said])
        assert isinstance(tcs.next("AckPublishInstanceStatus")["message"], str)
        [detail] = told()["details"]
        assert told()["overallStatus"] == status and (detail["type"], detail["status"], detail.get("statusReason")) == ("CONTAINER_RUNTIME", status, reason)
        assert (detail["lastUpdated"].timestamp(), detail["lastStatusChange"].timestamp()) == (since + 5.5, since)
    ecs = platform.client("ecs")
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        instance(platform, agent, include=["SHOE_SIZE"])
    acs.close(), tcs.close()
