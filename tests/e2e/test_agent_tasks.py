"""Tasks on Fargate as the agent runs them: order, health, stopping, limits, failures, logs."""

import json
import re
import time
import uuid

import pytest

from conftest import ACCOUNT, eventually, log_lines, logging, register, run_task, task, wait_for


def named(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def container(image, script=None, name="main", **more):
    command = {"command": ["sh", "-c", script]} if script else {}
    return {"name": name, "image": image, **command, **more}


def group(platform):
    name = named("/agent/test")
    platform.client("logs").create_log_group(logGroupName=name)
    return name


def stream(arn, name="main"):
    return f"test/{name}/{arn.rsplit('/', 1)[1]}"


@pytest.fixture(scope="module", autouse=True)
def restarted(platform, image):
    """A task whose container ends after a minute, the least for which a restart policy restarts it: begun before the
    other tests of this file, looked at by the last one."""
    logs = group(platform)
    policy = {"enabled": True, "restartAttemptPeriod": 60, "ignoredExitCodes": [9]}
    log = logging(logs)
    often = container(image, "echo begun; sleep 61; exit 1", restartPolicy=policy, stopTimeout=2, logConfiguration=log)
    # One that ends too early, and one that ends as it is allowed to, stay as they are.
    early = container(image, "echo begun; exit 1", name="early", essential=False, restartPolicy=policy, stopTimeout=2, logConfiguration=log)
    wanted = container(image, "echo begun; sleep 61; exit 9", name="wanted", essential=False, restartPolicy=policy, stopTimeout=2, logConfiguration=log)
    return logs, run_task(platform, register(platform, named("restart"), often, early, wanted))


def test_r90_a_process_runs_in_a_network_of_its_own_and_its_exit_code_is_told(platform, image):
    logs = group(platform)
    script = "hostname; ip addr show eth0; cat /etc/hosts /etc/resolv.conf; env; exit 3"
    arn = run_task(platform, register(platform, named("one"), container(image, script, logConfiguration=logging(logs))))
    ended = wait_for(platform, arn, "STOPPED")
    assert ended["stopCode"] == "EssentialContainerExited"
    assert ended["containers"][0]["exitCode"] == 3
    assert re.fullmatch(r"[0-9a-f]{32}-\d{10}", ended["containers"][0]["runtimeId"])
    assert ended["containers"][0]["imageDigest"].startswith("sha256:")
    assert ended["pullStartedAt"] <= ended["pullStoppedAt"] <= ended["executionStoppedAt"]
    text = "\n".join(eventually(lambda: log_lines(platform, logs, stream(arn))))
    address = next(d["value"] for d in ended["attachments"][0]["details"] if d["name"] == "privateIPv4Address")
    assert f"ip-{address.replace('.', '-')}.ec2.internal" in text
    assert f"inet {address}/" in text and f"{address} ip-" in text and "nameserver 172.31.0.2" in text
    assert "AWS_EXECUTION_ENV=AWS_ECS_FARGATE" in text and "AWS_ENDPOINT_URL=http://169.254.169.252:" in text


def test_r90_containers_start_and_stop_in_the_order_of_their_dependencies(platform, image):
    logs = group(platform)
    log = logging(logs)
    stamp = "trap 'echo $NAME stopped $(date +%s); exit 0' TERM; echo $NAME started; while true; do sleep 0.2; done"

    def one(name, *depends_on, script=stamp, **more):
        depends_on = [{"containerName": n, "condition": c} for n, c in depends_on]
        environment = [{"name": "NAME", "value": name}]
        return container(image, script, name, dependsOn=depends_on, environment=environment, logConfiguration=log, **more)

    check = {"command": ["CMD-SHELL", "test -f /tmp/ready"], "interval": 5, "timeout": 2, "retries": 2}
    definition = register(
        platform,
        named("order"),
        one("init", script="echo init done", essential=False),
        one("db", ("init", "SUCCESS"), healthCheck=check, script=stamp.replace("echo $NAME started", "echo $NAME started; touch /tmp/ready")),
        one("web", ("db", "HEALTHY"), ("init", "COMPLETE")),
    )
    arn = run_task(platform, definition)
    running = wait_for(platform, arn, "RUNNING", timeout=90)
    known = {c["name"]: c for c in running["containers"]}
    assert (known["init"]["lastStatus"], known["init"]["exitCode"]) == ("STOPPED", 0)
    # Health travels over telemetry, behind the task's own status.
    health = lambda: {c["name"]: c["healthStatus"] for c in task(platform, arn)["containers"]}["db"]
    assert eventually(lambda: health() == "HEALTHY")
    platform.client("ecs").stop_task(cluster="default", task=arn, reason="enough")
    ended = wait_for(platform, arn, "STOPPED")
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "enough")
    ends = {c["name"]: c for c in ended["containers"]}
    assert ends["db"]["exitCode"] == 0 and ends["web"]["exitCode"] == 0
    lines = {name: eventually(lambda: log_lines(platform, logs, stream(arn, name))) for name in ("web", "db")}
    when = {name: int(eventually(lambda: [l for l in log_lines(platform, logs, stream(arn, name)) if "stopped" in l])[0].split()[-1]) for name in lines}
    assert when["web"] <= when["db"]


def test_r90_a_process_that_ignores_sigterm_is_killed_after_its_stop_timeout(platform, image):
    script = "trap '' TERM; while true; do sleep 0.2; done"
    arn = run_task(platform, register(platform, named("deaf"), container(image, script, stopTimeout=2)))
    wait_for(platform, arn, "RUNNING")
    begun = time.monotonic()
    platform.client("ecs").stop_task(cluster="default", task=arn)
    ended = wait_for(platform, arn, "STOPPED")
    assert ended["containers"][0]["exitCode"] == 137
    assert time.monotonic() - begun >= 2


def test_r93_memory_beyond_the_limit_is_told_as_out_of_memory(platform, image):
    script = "dd if=/dev/zero of=/dev/null bs=400M count=1"
    arn = run_task(platform, register(platform, named("oom"), container(image, script, memory=64)))
    ended = wait_for(platform, arn, "STOPPED")
    assert ended["containers"][0]["exitCode"] == 137
    assert ended["containers"][0]["reason"] == "OutOfMemoryError: Container killed due to memory usage"


def test_r90_user_directory_read_only_root_and_limits_are_honoured(platform, image):
    logs = group(platform)
    script = "id -u; pwd; touch /x || echo read-only; ulimit -n"
    definition = register(
        platform,
        named("settings"),
        container(
            image,
            script,
            user="1000",
            workingDirectory="/tmp",
            readonlyRootFilesystem=True,
            ulimits=[{"name": "nofile", "softLimit": 512, "hardLimit": 512}],
            logConfiguration=logging(logs),
        ),
    )
    arn = run_task(platform, definition)
    wait_for(platform, arn, "STOPPED")
    lines = eventually(lambda: log_lines(platform, logs, stream(arn)))
    assert [line for line in lines if "touch" not in line] == ["1000", "/tmp", "read-only", "512"]


def test_r32_failures_to_start_carry_amazons_words(platform, image):
    repository = image.rsplit(":", 1)[0]
    missing = run_task(platform, register(platform, named("missing"), container(f"{repository}:absent", "true")))
    ended = wait_for(platform, missing, "STOPPED")
    assert ended["stopCode"] == "TaskFailedToStart"
    assert ended["stoppedReason"].startswith("CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref")
    assert ended["stoppedReason"].endswith(": not found")
    assert ended["containers"][0]["reason"] == ended["stoppedReason"]

    no_group = container(image, "true", logConfiguration=logging("/no/such/group"))
    ended = wait_for(platform, run_task(platform, register(platform, named("nogroup"), no_group)), "STOPPED")
    assert ended["stopCode"] == "TaskFailedToStart"
    assert ended["stoppedReason"].startswith("ResourceInitializationError: failed to validate logger args: ")
    assert "The specified log group does not exist" in ended["stoppedReason"]

    no_program = {"name": "main", "image": image, "entryPoint": ["/bin/nothing-here"]}
    ended = wait_for(platform, run_task(platform, register(platform, named("noprogram"), no_program)), "STOPPED")
    assert ended["stopCode"] == "TaskFailedToStart"
    reason = ended["containers"][0]["reason"]
    assert reason.startswith("CannotStartContainerError: ") and "no such file or directory" in reason
    assert "exitCode" not in ended["containers"][0]


def test_r31_a_task_finds_its_role_its_metadata_and_nobody_elses(platform, image):
    logs = group(platform)
    role = f"agent-{uuid.uuid4().hex[:8]}"
    trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
    role_arn = platform.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    script = "; ".join(
        [
            "echo uri $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "echo role $(wget -qO- http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI)",
            "echo other $(wget -qO- http://169.254.170.2/v2/credentials/00000000-0000-0000-0000-000000000000 2>&1)",
            "echo task $(wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task)",
            "echo self $(wget -qO- $ECS_CONTAINER_METADATA_URI_V4)",
            # A container may have port 80 on every address beside the endpoint.
            "httpd -p 80 -h /tmp && echo serving",
            "echo done",
        ]
    )
    arn = run_task(platform, register(platform, named("role"), container(image, script, logConfiguration=logging(logs)), taskRoleArn=role_arn))
    wait_for(platform, arn, "STOPPED")
    lines = eventually(lambda: [l for l in [log_lines(platform, logs, stream(arn))] if "done" in l])[0]
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[-1] for line in lines}
    import json

    keys = json.loads(said["role"])
    assert list(keys) == ["RoleArn", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"]
    assert keys["RoleArn"] == role_arn and keys["AccessKeyId"].startswith("ASIA")
    sts = platform.client("sts", aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"], aws_session_token=keys["Token"])
    task_id = arn.rsplit("/", 1)[1]
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{task_id}"
    assert "400" in said["other"]
    metadata = json.loads(said["task"])
    assert (metadata["TaskARN"], metadata["LaunchType"], metadata["Limits"]) == (arn, "FARGATE", {"CPU": 0.25, "Memory": 512})
    assert json.loads(said["self"])["DockerId"] == task(platform, arn)["containers"][0]["runtimeId"]
    assert "serving" in lines


def test_r90_capabilities_and_the_init_process_are_as_the_definition_says(platform, image):
    logs = group(platform)
    script = "echo $(grep CapBnd /proc/self/status) $(cat /proc/1/comm) $$"

    def seen(**parameters):
        definition = register(platform, named("linux"), container(image, script, linuxParameters=parameters, logConfiguration=logging(logs)))
        arn = run_task(platform, definition)
        wait_for(platform, arn, "STOPPED")
        _, capabilities, first, own = eventually(lambda: log_lines(platform, logs, stream(arn)))[0].split()
        return int(capabilities, 16), first, int(own)

    usual, first, own = seen()
    assert (first, own) == ("sh", 1) and usual & 1 << 13 and not usual & 1 << 19
    net_raw, sys_ptrace = 1 << 13, 1 << 19
    assert seen(capabilities={"drop": ["NET_RAW"], "add": ["SYS_PTRACE"]})[0] == usual & ~net_raw | sys_ptrace
    capabilities, first, own = seen(capabilities={"drop": ["ALL"]}, initProcessEnabled=True)
    assert capabilities == 0 and first != "sh" and own != 1


def test_r90_a_dependency_that_is_late_ends_the_task(platform, image):
    never = {"command": ["CMD-SHELL", "exit 1"], "interval": 5, "retries": 10}
    slow = container(image, "sleep 600", name="slow", healthCheck=never, startTimeout=2, stopTimeout=2)
    waiting = container(image, "true", dependsOn=[{"containerName": "slow", "condition": "HEALTHY"}])
    ended = wait_for(platform, run_task(platform, register(platform, named("late"), slow, waiting)), "STOPPED")
    ends = {one["name"]: one for one in ended["containers"]}
    assert "container ordering dependency [slow] for target [main] has timed out" in ends["main"]["reason"], ended
    assert "exitCode" not in ends["main"], ends
    assert ended["stopCode"] == "TaskFailedToStart" and "startedAt" not in ended, (ended["stopCode"], ended["stoppedReason"])


def test_r90_a_task_is_told_of_itself_as_on_fargate(platform, image):
    logs = group(platform)
    base = "wget -qO- $ECS_CONTAINER_METADATA_URI_V4"
    script = "; ".join(
        [
            f"echo task $({base}/task)",
            f"echo tags $({base}/taskWithTags)",
            f"echo self $({base})",
            f"echo first $({base}/stats)",
            "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1",
            f"echo second $({base}/stats)",
            f"echo all $({base}/task/stats)",
            "echo done",
        ]
    )
    definition = register(platform, named("metadata"), container(image, script, logConfiguration=logging(logs)))
    arn = run_task(platform, definition, tags=[{"key": "team", "value": "blue"}])
    wait_for(platform, arn, "STOPPED")
    lines = eventually(lambda: [l for l in [log_lines(platform, logs, stream(arn))] if "done" in l])[0]
    said = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1]) for line in lines if " " in line}

    drift = said["task"]["ClockDrift"]
    assert drift["ClockSynchronizationStatus"] in ("SYNCHRONIZED", "NOT_SYNCHRONIZED")
    assert drift["ClockErrorBound"] >= 0 and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", drift["ReferenceTimestamp"])
    storage = said["task"]["EphemeralStorageMetrics"]
    assert 0 <= storage["Utilized"] < storage["Reserved"] and storage["Reserved"] > 15_000
    assert "TaskTags" not in said["task"] and "Errors" not in said["tags"]
    assert said["tags"]["TaskTags"] == {"team": "blue"} and said["tags"]["TaskARN"] == arn

    options = said["self"]["LogOptions"]
    assert options == {"awslogs-group": logs, "awslogs-region": "us-east-1", "awslogs-stream": stream(arn)}

    first, second = said["first"], said["second"]
    assert second["id"] == said["self"]["DockerId"] and second["name"] == "main"
    for reading in (first, second):
        assert reading["cpu_stats"]["online_cpus"] >= 1 and reading["cpu_stats"]["system_cpu_usage"] > 0
        assert 0 < reading["memory_stats"]["usage"] < reading["memory_stats"]["limit"] == 512 << 20
        assert reading["memory_stats"]["stats"] and reading["pids_stats"]["current"] >= 1
        assert reading["networks"]["eth0"]["tx_bytes"] >= 0
    # What the difference is taken to.
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    assert second["cpu_stats"]["cpu_usage"]["total_usage"] > first["cpu_stats"]["cpu_usage"]["total_usage"]
    assert second["preread"] == first["read"] and second["network_rate_stats"]["rx_bytes_per_sec"] >= 0
    assert list(said["all"]) == [second["id"]] and said["all"][second["id"]]["name"] == "main"


def test_r95_lines_of_several_and_of_great_length_arrive_as_events(platform, image):
    logs = group(platform)
    script = "echo 'ERROR one'; echo '  at two'; echo 'ERROR three'; dd if=/dev/zero bs=1000 count=300 2>/dev/null | tr '\\0' x; echo; echo 'ERROR end'"
    script = script.replace("tr '\\0' x", "busybox tr '\\0' x")
    options = {"awslogs-multiline-pattern": "^ERROR"}
    arn = run_task(platform, register(platform, named("lines"), container(image, script, logConfiguration=logging(logs, **options))))
    wait_for(platform, arn, "STOPPED")
    lines = eventually(lambda: [l for l in [log_lines(platform, logs, stream(arn))] if "ERROR end" in l])[0]
    assert lines[0] == "ERROR one\n  at two"
    assert sum(line.count("x") for line in lines) == 300_000
    assert all(len(line) <= 262_144 - 26 for line in lines)


def test_r95_a_missing_group_is_created_when_the_definition_says_so(platform, image):
    logs = named("/agent/created")
    definition = register(platform, named("create"), container(image, "echo hello", logConfiguration=logging(logs, **{"awslogs-create-group": "true"})))
    arn = run_task(platform, definition)
    wait_for(platform, arn, "STOPPED")
    assert eventually(lambda: log_lines(platform, logs, stream(arn))) == ["hello"]


def test_r95_a_datetime_format_begins_an_event(platform, image):
    logs = group(platform)
    script = "echo '[Nov 22, 2026 10:00:01] one'; echo ' more of it'; echo '[Nov 22, 2026 10:00:02] two'"
    options = {"awslogs-datetime-format": "[%b %d, %Y %H:%M:%S]"}
    arn = run_task(platform, register(platform, named("dates"), container(image, script, logConfiguration=logging(logs, **options))))
    wait_for(platform, arn, "STOPPED")
    lines = eventually(lambda: [l for l in [log_lines(platform, logs, stream(arn))] if len(l) == 2])[0]
    assert lines == ["[Nov 22, 2026 10:00:01] one\n more of it", "[Nov 22, 2026 10:00:02] two"]


def test_r95_a_flood_of_lines_is_dropped_or_slowed_and_the_agent_stays_small(platform, image):
    logs = group(platform)

    def most():
        """The most memory that the agent ever had, in MiB."""
        status = open(f"/proc/{platform.child('agent')}/status").read()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024

    def flood(mode, script, **options):
        definition = register(platform, named("flood"), container(image, script, logConfiguration=logging(logs, mode=mode, **options)))
        arn = run_task(platform, definition)
        assert wait_for(platform, arn, "STOPPED", timeout=120)["containers"][0]["exitCode"] == 0
        return stream(arn)

    # 150 MB as fast as they go: the program is not slowed, and what is beyond the buffer is dropped, in whole lines.
    line = "x" * 499
    written = flood("non-blocking", f"busybox yes {line} | head -n 300000", **{"max-buffer-size": "1m"})
    page = platform.client("logs").get_log_events(logGroupName=logs, logStreamName=written, startFromHead=True)["events"]
    assert page and {event["message"] for event in page} == {line}
    assert "lines were dropped" in platform.log()
    # Far more than is kept here waits for its reader: all of it arrives, in order.
    count = 60_000
    written = flood("blocking", f"awk 'BEGIN {{ for (i = 1; i <= {count}; i++) print i, \"{line}\" }}'")
    assert log_lines(platform, logs, written) == [f"{number} {line}" for number in range(1, count + 1)]
    assert most() < 100, most()


def test_r90_a_restart_policy_restarts_what_ran_long_enough(platform, restarted):
    logs, arn = restarted
    begun = lambda name: log_lines(platform, logs, stream(arn, name))
    assert eventually(lambda: begun("main") == ["begun", "begun"], timeout=90)
    assert begun("early") == begun("wanted") == ["begun"]
    states = lambda: {one["name"]: (one["lastStatus"], one.get("exitCode")) for one in task(platform, arn)["containers"]}
    assert eventually(lambda: states() == {"main": ("RUNNING", None), "early": ("STOPPED", 1), "wanted": ("STOPPED", 9)})
    assert task(platform, arn)["lastStatus"] == "RUNNING"
    platform.client("ecs").stop_task(cluster="default", task=arn)
    wait_for(platform, arn, "STOPPED")
