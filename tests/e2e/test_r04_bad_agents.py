"""Agents that are wrong, or somebody else's, or broken: each gets an error that says why, others do not notice, and the
server keeps nothing of them."""

import json
import pathlib
import time
import uuid

import pytest

from amazons_agent import AmazonsAgent, Refused, Session, authorization, frame, now
from conftest import ACCOUNT, eventually
from test_r03_amazons_agent import define, instance, run, running, stopped, task

CLUSTER, OTHER = "bad-agents", "bad-agents-other"
LIMIT = 2 << 20


@pytest.fixture(scope="module", autouse=True)
def clusters(platform):
    """All of this leaves the server as it was."""
    for cluster in (CLUSTER, OTHER, "amazons"):
        platform.client("ecs").create_cluster(clusterName=cluster)
    before = platform.child("server")
    yield
    assert platform.child("server") == before


@pytest.fixture
def make(platform):
    """Makes agents that have registered; all are deregistered at the end."""
    made = []

    def agent(cluster="amazons", **more):
        agent = AmazonsAgent(platform, cluster, **more)
        agent.register()
        made.append((cluster, agent.arn))
        return agent

    yield agent
    ecs = platform.client("ecs")
    for cluster, arn in made:
        try:
            ecs.deregister_container_instance(cluster=cluster, containerInstance=arn, force=True)
        except ecs.exceptions.InvalidParameterException:
            pass  # The test has.


@pytest.fixture
def bystander(platform, make):
    """Another instance of the cluster with a task that runs: whatever a test does, it notices nothing."""
    agent = make()
    acs = agent.acs()
    agent.greeted(acs)
    arn = run(platform, agent, define(platform, "bystander"))
    agent.payload(acs)
    running(agent, arn)
    before = instance(platform, agent), task(platform, arn)
    yield agent, acs, arn
    acs.quiet(0.5)
    assert (instance(platform, agent), task(platform, arn)) == before
    acs.close()


def refused(open_session):
    """The type and the text of the refusal of a handshake."""
    with pytest.raises(Refused) as caught:
        open_session()
    [(kind, text)] = caught.value.body.items()
    assert 400 <= caught.value.status < 404, caught.value
    return kind, text


def memory(platform):
    """MiB that the server holds."""
    status = pathlib.Path(f"/proc/{platform.child('server')}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def descriptors(platform):
    return len(list(pathlib.Path(f"/proc/{platform.child('server')}/fd").iterdir()))


def test_r04_wrong_credentials(platform, make, bystander):
    agent = make()
    agent.discover()
    access, secret = platform.keys
    for keys in (("AKIAIOSFODNN7EXAMPLE", secret), (access, "wrong" * 8), ("", "")):
        agent.keys = keys
        for session in (agent.acs, agent.tcs):
            kind, text = refused(session)
            assert kind == "AccessDeniedException" and text and secret not in text
        status, answer = agent.call("RegisterContainerInstance", agent.registration())
        assert status in (400, 403) and answer["__type"] and secret not in json.dumps(answer)
    assert instance(platform, bystander[0])["agentConnected"] is True


def test_r04_a_signature_of_something_else(platform, make):
    """A handshake that was signed for one instance opens no session of another."""
    one, two = make(), make()
    query = [("cluster", one.cluster), ("containerInstance", one.arn)]
    signed = {"x-amz-date": now()}
    stolen = authorization(one.keys, "GET", f"127.0.0.1:{platform.port}", query, signed, b"")
    other = [("cluster", two.cluster), ("containerInstance", two.arn)]

    headers = {"Authorization": stolen, "X-Amz-Date": signed["x-amz-date"]}
    assert refused(lambda: Session(two.keys, two.discover()[1], other, headers=headers))[0] == "AccessDeniedException"
    for left_out in ("Authorization", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        kind, _ = refused(lambda: Session(one.keys, one.discover()[1], query, headers={left_out: ""}))
        assert kind == ("AccessDeniedException" if left_out == "Authorization" else "BadRequestException"), left_out


def test_r04_a_foreign_cluster_and_a_stale_instance(platform, make, bystander):
    agent = make()
    agent.discover()
    gone = make()
    platform.client("ecs").deregister_container_instance(cluster="amazons", containerInstance=gone.arn)
    elsewhere = make(OTHER)
    for session, cluster, arn in ((agent.acs, "clusterArn", "containerInstanceArn"), (agent.tcs, "cluster", "containerInstance")):
        assert refused(lambda: session(**{cluster: OTHER}))[0] == "InvalidClusterException"
        assert refused(lambda: session(**{cluster: "not-there"})) == ("InvalidClusterException", "Cluster not found.")
        assert refused(lambda: session(**{cluster: f"arn:aws:ecs:eu-west-1:{ACCOUNT}:cluster/amazons"}))[0] == "InvalidClusterException"
        assert refused(lambda: session(**{cluster: "longshore.fargate"}))[0] == "InvalidClusterException"
        assert refused(lambda: session(**{arn: elsewhere.arn}))[0] == "InvalidClusterException"
        unknown = agent.arn[:-32] + "0" * 32
        for stale in (gone.arn, unknown):
            assert refused(lambda: session(**{arn: stale}))[0] == "InactiveInstanceException"
        for wrong in (
            agent.arn.replace(ACCOUNT, "210987654321"), agent.arn.replace("us-east-1", "eu-west-1"), agent.arn.rsplit("/", 1)[1],
            "", "arn:aws:ecs", "arn:aws:ecs:us-east-1:", "arn:aws:s3:::bucket", "\0", "%zz", "ü" * 500, agent.arn.replace("container-instance", "task"),
        ):
            assert refused(lambda: session(**{arn: wrong}))[0] == "InvalidInstanceException", wrong
    # Signed for another region, it names an instance that is not there.
    agent.region = "eu-west-1"
    assert refused(agent.acs)[0] == "InvalidInstanceException"
    agent.region = "us-east-1"
    # None of this is taken for a connection.
    assert instance(platform, agent)["agentConnected"] is False
    # And neither is any of it registered again.
    mine = agent.arn
    for stale in (gone.arn, elsewhere.arn, mine[:-32] + "0" * 32, "nonsense", "arn:aws:ecs"):
        agent.arn = stale
        code, text = agent.wrong("RegisterContainerInstance", agent.registration())
        assert code == "ClientException" and "ontainer instance" in text
    agent.arn, agent.cluster = None, "arn:aws:ecs:us-east-1:210987654321:cluster/amazons"
    assert agent.wrong("RegisterContainerInstance", agent.registration())[0] == "AccessDeniedException"
    agent.cluster = "longshore.fargate"
    assert agent.wrong("RegisterContainerInstance", agent.registration())[0] == "ClusterNotFoundException"
    for body in ({"cluster": OTHER, "containerInstance": mine}, {"cluster": "amazons", "containerInstance": "nonsense"}):
        assert agent.wrong("DiscoverPollEndpoint", body)[0] == "ClientException"


def test_r04_registrations_that_are_malformed(platform, make):
    agent = AmazonsAgent(platform, "amazons")
    right = agent.registration()
    bad = [
        {"totalResources": None}, {"totalResources": []}, {"totalResources": [{"name": "CPU"}]}, {"totalResources": "CPU"}, {"attributes": {"a": "b"}},
        {"totalResources": [{"name": "CPU", "integerValue": -1}, {"name": "MEMORY", "integerValue": 2**40}]},
        {"totalResources": [*right["totalResources"][:2], {"name": "PORTS", "stringSetValue": ["70000"]}]}, {"clientToken": "t" * 65},
        {"attributes": [{"name": "n" * 129}]}, {"attributes": [{"value": "nameless"}]}, {"cluster": 7},
    ]
    for other in bad:
        code, text = agent.wrong("RegisterContainerInstance", {**right, **other})
        assert code in ("InvalidParameterException", "SerializationException", "ClientException") and text, other
    status, answer = agent.call("RegisterContainerInstance", {**right, "attributes": [{"name": f"n{number}"} for number in range(500_000)]})
    assert status in (400, 413), (status, str(answer)[:200])


def test_r04_one_machine_registers_twice(platform, make, bystander):
    """Our own agent says which machine it is: a machine that has lost its memory replaces what it was."""
    machine = {"longshore.host": str(uuid.uuid4())}
    one = make(properties=machine)
    acs = one.acs()
    one.greeted(acs)
    arn = run(platform, one, define(platform, "twice"))
    one.payload(acs)
    running(one, arn)
    two = make(properties=machine)
    assert two.arn != one.arn
    assert acs.ended() == 1000
    assert refused(one.acs)[0] == "InactiveInstanceException"
    assert instance(platform, one)["status"] == "INACTIVE" and instance(platform, two)["status"] == "ACTIVE"
    eventually(lambda: task(platform, arn)["lastStatus"] == "STOPPED")
    # The same machine in another cluster is another matter.
    three = make(OTHER, properties=machine)
    assert instance(platform, three)["status"] == "ACTIVE" and instance(platform, two)["status"] == "ACTIVE"


def test_r04_two_connections_of_one_instance(platform, make, bystander):
    """The newer one counts. The older one is not closed as if it might come back at once, or two copies of a machine would
    take turns for ever."""
    agent = make()
    first = agent.acs()
    agent.greeted(first)
    second = agent.acs()
    agent.greeted(second)
    assert first.ended() not in (None, 1000, 1001, 1006, 1011)
    assert instance(platform, agent)["agentConnected"] is True
    arn = run(platform, agent, define(platform, "newer"))
    assert agent.payload(second)["tasks"][0]["arn"] == arn
    second.quiet(1)
    telemetry = [agent.tcs() for _ in range(3)]
    for tcs in telemetry:
        tcs.publish("PublishMetricsRequest", metadata={"cluster": agent.cluster, "containerInstance": agent.arn, "messageId": "m", "idle": True, "fin": True}, timestamp=1.5)
        tcs.next("AckPublishMetric")
        tcs.close()
    second.close()


def test_r04_frames_that_are_cut(platform, make, bystander):
    agent = make()
    whole = frame(1, json.dumps({"type": "HeartbeatAckRequest", "message": {"messageId": "m"}}).encode())
    for cut in (whole[:1], whole[:3], whole[:7], whole[:-5], frame(1, b"{", length=1 << 20), frame(1, b"", length=(1 << 63) - 1)):
        for open_session in (agent.acs, agent.tcs):
            session = open_session()
            session.raw(cut)
            session.drop()
    eventually(lambda: instance(platform, agent)["agentConnected"] is False)
    # Cut, and the line stays: the others go on, and a new connection of the same agent replaces it.
    hanging = agent.acs()
    agent.greeted(hanging)
    hanging.raw(whole[:7])
    acs = agent.acs()
    agent.greeted(acs)
    assert hanging.ended() not in (1000, 1001)
    assert instance(platform, agent)["agentConnected"] is True
    acs.close()


def test_r04_frames_that_are_huge(platform, make, bystander):
    agent = make()
    text = json.dumps({"type": "AckRequest", "message": {"messageId": "x" * (LIMIT - 100)}}).encode()
    for open_session in (agent.acs, agent.tcs):
        # Just below the limit it is a message like any other; telemetry would be below its headers.
        session = open_session()
        session.frame(1, text)
        if open_session == agent.tcs:
            session.next("BadRequestException")
        session.frame(9, b"still there")
        while (came := session.came.get(timeout=20))[0] != "pong":
            session.heartbeat(came[1]) if came[0] == "HeartbeatMessage" else None
        session.close()
        assert session.closed_with == 1000

        session = open_session()
        session.frame(1, b"x" * (LIMIT + 1))
        assert session.ended() == 1009
        session = open_session()
        # Claimed only.
        session.raw(frame(1, b"x", length=1 << 40))
        assert session.ended() == 1009
        session = open_session()
        # In pieces, none of which is too long.
        session.frame(1, b"x" * 65536, final=False)
        for _ in range(LIMIT // 65536 + 1):
            session.frame(0, b"x" * 65536, final=False)
        assert session.ended() == 1009


def test_r04_frames_that_are_not_of_the_protocol(platform, make, bystander):
    agent = make()
    acs, tcs = agent.acs(), agent.tcs()
    agent.greeted(acs)
    for text in (
        b"", b"{", b"[]", b"null", b"\x00", b"AckRequest", b'{"type":7,"message":{}}', b'{"message":{}}', b'{"type":"AckRequest","message":{"messageId":7}}',
        b'{"type":"AckRequest","message":[]}', b'{"type":"TaskStopVerificationMessage","message":{"stopCandidates":{}}}', b"[" * 100_000,
        b'{"type":"PayloadMessage","message":{}}', b'{"type":"NextYearsMessage","message":{}}', json.dumps({"type": "x" * 100_000}).encode(),
    ):
        # It is told, for the agent's log, and the session goes on.
        acs.frame(1, text)
        said = acs.next("ErrorMessage")["message"]
        assert said and len(said) < 300, text[:50]
        for block in (b"", b"Host: h\r\n\r\n"):
            tcs.frame(1, block + text)
            said = tcs.next("BadRequestException")["message"]
            assert said and len(said) < 300, text[:50]
    acs.quiet(0.5)
    for open_session in (agent.acs, agent.tcs):
        for data, code in (
            (frame(2, b'{"type":"AckRequest","message":{}}'), 1003), (frame(1, b"\xff\xfe"), 1007), (frame(3, b"x"), 1002), (frame(0, b"x"), 1002),
            (b"\x81\x02{}", 1002), (b"\xf1" + frame(1, b"{}")[1:], 1002), (frame(9, b"x" * 126), 1002),
        ):
            session = open_session()
            session.raw(data)
            assert session.ended() == code, data
    acs.drop(), tcs.drop()


def test_r04_messages_out_of_order(platform, make, bystander):
    other, other_acs, others_task = bystander
    agent = make()
    acs = agent.acs()
    agent.greeted(acs)
    # Answers to what was never asked.
    acs.say("AckRequest", cluster=agent.cluster, containerInstance=agent.arn, messageId=str(uuid.uuid4()))
    acs.say("HeartbeatAckRequest", messageId="never")
    acs.say("NackRequest", cluster=agent.cluster, containerInstance=agent.arn, messageId="never", reason="x" * 100_000)
    acs.say("IAMRoleCredentialsAckRequest", messageId="never", credentialsId="never", expiration="never")
    acs.say("TaskStopVerificationMessage", messageId="never", stopCandidates=[{"taskArn": others_task, "taskClusterArn": "c", "desiredStatus": "STOPPED"}])
    verified = acs.next("TaskStopVerificationAck")
    # The other's task is not to run here: as far as this agent goes it may be stopped.
    assert (verified["messageId"], [one["taskArn"] for one in verified["stopTasks"]]) == ("never", [others_task])
    # An acknowledgement of another connection's message, or of another instance's, settles nothing.
    first = run(platform, agent, define(platform, "order"))
    payload = agent.take(acs, acs.next("PayloadMessage"), ack=False)
    other_acs.say("AckRequest", cluster=agent.cluster, containerInstance=agent.arn, messageId=payload["messageId"])
    again = agent.take(acs, acs.next("PayloadMessage", timeout=30))
    assert [sent["arn"] for sent in again["tasks"]] == [first]
    # Containers and tasks that there are not.
    agent.report(first, "PENDING", [{"containerName": "nobody", "status": "RUNNING", "exitCode": 9}, {"status": "RUNNING"}])
    assert [container["name"] for container in task(platform, first)["containers"]] == ["app"]
    for arn in (first[:-32] + "0" * 32, first.replace(ACCOUNT, "210987654321"), agent.arn, "", "x" * 10_000):
        assert agent.wrong("SubmitTaskStateChange", agent.change(arn, "STOPPED"))[0] == "InvalidParameterException"
    # Over before it began; running after it was over.
    agent.report(first, "STOPPED", [{"containerName": "app", "status": "STOPPED", "exitCode": 5}])
    found = eventually(lambda: (now := task(platform, first))["lastStatus"] == "STOPPED" and now)
    running(agent, first)
    assert task(platform, first) == found
    second = run(platform, agent, "order")
    agent.payload(acs)
    agent.report(second, "RUNNING", [{"containerName": "app", "status": "RUNNING"}])
    agent.report(second, "PENDING", [{"containerName": "app", "status": "PENDING"}])
    assert (task(platform, second)["lastStatus"], task(platform, second)["containers"][0]["lastStatus"]) == ("RUNNING", "RUNNING")
    # Long names, many bindings, no addresses.
    for container in (
        {"runtimeId": "r" * 256}, {"imageDigest": "d" * 256}, {"networkBindings": [{"containerPort": 1, "hostPort": 1}] * 101}, {"status": "DONE"},
        {"networkBindings": [{"bindIP": "nowhere", "containerPort": 1, "hostPort": 1}]}, {"networkBindings": [{"containerPort": 1, "hostPort": 70000}]},
        {"networkBindings": [{"containerPort": 1, "hostPort": 1, "protocol": "carrier pigeon"}]},
    ):
        change = agent.change(second, "RUNNING", [{"containerName": "app", **container}])
        assert agent.wrong("SubmitTaskStateChange", change)[0] == "InvalidParameterException", container
    agent.report(second, "STOPPED", [{"containerName": "app", "status": "STOPPED", "reason": "y" * 5000}], reason="z" * 5000)
    found = eventually(lambda: (now := task(platform, second))["lastStatus"] == "STOPPED" and now)
    assert len(found["containers"][0]["reason"]) == 1024
    acs.close()


def test_r04_reports_of_anothers_task(platform, make, bystander):
    other, _, others_task = bystander
    agent = make()
    elsewhere = make(OTHER)
    # From another cluster, and of what is not there.
    assert elsewhere.wrong("SubmitTaskStateChange", elsewhere.change(others_task, "STOPPED"))[0] == "InvalidParameterException"
    tcs = agent.tcs()
    health = [{"containerName": "app", "healthStatus": "UNHEALTHY", "statusSince": 1.0}]
    known = {"taskDefinitionFamily": "f", "taskDefinitionVersion": "1", "containers": health}
    for arn in (others_task, others_task[:-32] + "0" * 32, "", "x" * 10_000):
        metadata = {"cluster": agent.cluster, "containerInstance": other.arn, "messageId": "m", "fin": True}
        tcs.publish("PublishHealthRequest", metadata=metadata, timestamp=1.0, tasks=[{"taskArn": arn, **known}])
        tcs.next("AckPublishHealth")
    # The session says whose health it is, whatever the message does.
    statuses = [{"type": "ContainerRuntime", "status": "IMPAIRED", "lastUpdated": 1e300, "lastStatusChange": -1e300, "statusReason": "w" * 5000}]
    for said in ([], [{"type": "Shoes", "status": "OK"}], [{"type": "ContainerRuntime", "status": "FINE"}], statuses * 200):
        tcs.publish("PublishInstanceStatusRequest", metadata={"cluster": OTHER, "containerInstance": other.arn, "requestId": "r"}, timestamp=1.0, statuses=said)
        tcs.next("AckPublishInstanceStatus")
    healths = [instance(platform, one, include=["CONTAINER_INSTANCE_HEALTH"])["healthStatus"] for one in (agent, other)]
    assert [health["overallStatus"] for health in healths] == ["IMPAIRED", "INSUFFICIENT_DATA"]
    assert len(healths[0]["details"]) == 1 and len(healths[0]["details"][0]["statusReason"]) <= 1024
    tcs.close()


def test_r04_nothing_of_it_stays(own_platform):
    """Rounds of everything that is bad: after the first ones the server holds no more memory and no more connections."""
    platform = own_platform()
    platform.client("ecs").create_cluster(clusterName="amazons")
    agent = AmazonsAgent(platform, "amazons")
    agent.register()
    witness = AmazonsAgent(platform, "amazons")
    witness.register()
    seen = witness.acs()
    witness.greeted(seen)

    def round_of_it(number):
        huge = frame(1, b"x" * (LIMIT + 1))
        big = frame(1, b"x" * (LIMIT - 4096))
        for _ in range(number):
            for open_session in (agent.acs, agent.tcs):
                for data in (huge, big[:-7], frame(2, b"x" * 100_000), big, frame(1, b"x" * 60_000, final=False) * 30, frame(9, b"p" * 100) * 200):
                    session = open_session()
                    try:
                        session.raw(data)
                    except OSError:
                        pass  # It has been closed already.
                    session.drop()
            with pytest.raises(Refused):
                agent.acs(containerInstanceArn="nonsense")
        eventually(lambda: instance(platform, agent)["agentConnected"] is False)

    def settled():
        """Connections end a moment after their agents are gone."""
        least = min((time.sleep(0.5), descriptors(platform))[1] for _ in range(8))
        return memory(platform), least

    round_of_it(8)
    before, open_before = settled()
    round_of_it(40)
    after, open_after = settled()
    assert after < before + 48, f"{before:.0f} MiB before, {after:.0f} MiB after"
    assert open_after <= open_before + 4, (open_before, open_after)
    seen.quiet(0.5)
    assert instance(platform, witness)["agentConnected"] is True
    # Many at once, each of which waits in the middle of a long message.
    sessions = [agent.tcs() for _ in range(60)]
    for session in sessions:
        session.raw(frame(1, b"x" * (LIMIT - 4096))[:-7])
    time.sleep(1)
    held = memory(platform)
    assert held < after + 60 * 2 * LIMIT / (1 << 20) + 48, f"{after:.0f} MiB before, {held:.0f} MiB held"
    for session in sessions:
        session.drop()
    eventually(lambda: descriptors(platform) <= open_before + 4)
    assert "panicked" not in platform.log()
    assert platform.stop() == 0
