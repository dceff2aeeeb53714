"""Tasks outlive the agent and the control plane: nothing is restarted, lost or left behind."""

import os
import pathlib
import shutil
import signal
import subprocess
import time
import uuid

from conftest import LONGSHORE, Image, default_network, eventually, log_lines, logging, register, run_task, task, wait_for

COUNT = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done"


def begin(platform, script, **more):
    image = Image(platform, f"busybox-{uuid.uuid4().hex[:6]}").uri
    platform.client("logs").create_log_group(logGroupName="/survival")
    container = {"name": "main", "image": image, "command": ["sh", "-c", script], "logConfiguration": logging("/survival"), **more}
    arn = run_task(platform, register(platform, "survivor", container))
    return arn, f"test/main/{arn.rsplit('/', 1)[1]}"


def numbers(platform, stream):
    return [int(line.split()[1]) for line in log_lines(platform, "/survival", stream)]


def kill(platform, role):
    pid = platform.child(role)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: platform.child(role) != pid)


def test_r83_nothing_is_lost_when_agent_and_server_are_killed(own_platform):
    platform = own_platform()
    arn, stream = begin(platform, COUNT)
    before = wait_for(platform, arn, "RUNNING")
    eventually(lambda: numbers(platform, stream))
    kill(platform, "agent")
    time.sleep(1)
    kill(platform, "server")
    last = eventually(lambda: numbers(platform, stream))[-1]
    seen = eventually(lambda: [n for n in [numbers(platform, stream)] if n[-1] > last + 5])[0]
    # Every line arrived at least once, in order of its first arrival, and the process was never restarted.
    assert sorted(set(seen)) == list(range(max(seen) + 1))
    after = task(platform, arn)
    assert after["lastStatus"] == "RUNNING" and after["startedAt"] == before["startedAt"]
    assert after["containers"][0]["runtimeId"] == before["containers"][0]["runtimeId"]
    platform.client("ecs").stop_task(cluster="default", task=arn)
    assert wait_for(platform, arn, "STOPPED")["stopCode"] == "UserInitiated"


def test_r83_an_end_while_the_agent_is_away_is_told_afterwards(own_platform):
    platform = own_platform()
    arn, stream = begin(platform, "sleep 3; echo line 0; exit 7")
    wait_for(platform, arn, "RUNNING")
    pid = platform.child("agent")
    # Stopped rather than killed, so that the supervisor does not bring it back before the container ends.
    os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(pid, signal.SIGKILL)
    ended = wait_for(platform, arn, "STOPPED")
    assert ended["containers"][0]["exitCode"] == 7
    assert eventually(lambda: numbers(platform, stream)) == [0]


def test_r90_down_leaves_no_process_mount_or_cgroup(own_platform):
    platform = own_platform()
    arn, _ = begin(platform, COUNT)
    wait_for(platform, arn, "RUNNING")
    task_id = arn.rsplit("/", 1)[1]
    assert task_id in open("/proc/mounts").read()
    platform.kill()
    subprocess.run([LONGSHORE, "down", "--data-dir", platform.data], check=True, timeout=120)
    assert task_id not in open("/proc/mounts").read()
    found = subprocess.run(["find", "/sys/fs/cgroup", "-name", task_id], capture_output=True, text=True).stdout
    assert found == ""
    assert subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout.count(task_id) == 0


def test_r20_tasks_of_a_host_that_lost_its_directory_are_replaced(own_platform):
    platform = own_platform()
    ecs = platform.client("ecs")
    ecs.create_cluster()
    image = Image(platform, "busybox").uri
    register(platform, "lost", {"name": "main", "image": image, "command": ["sh", "-c", "sleep 3600"]})
    network = default_network(platform)
    ecs.create_service(serviceName="lost", taskDefinition="lost", desiredCount=1, launchType="FARGATE", networkConfiguration=network)
    old = eventually(lambda: ecs.list_tasks(serviceName="lost")["taskArns"])[0]
    wait_for(platform, old, "RUNNING")
    task_id = old.rsplit("/", 1)[1]
    agents = pathlib.Path(platform.data, "agent")
    platform.kill()
    os.kill(platform.child("agent"), signal.SIGKILL)
    mounts = [line.split()[1] for line in open("/proc/mounts") if line.split()[1].startswith(f"{agents}/")]
    for mount in sorted(mounts, reverse=True):
        subprocess.run(["umount", "-l", mount], check=True)
    shutil.rmtree(agents)
    platform.start()

    lost = wait_for(platform, old, "STOPPED")
    assert lost["stopCode"] == "TerminationNotice"
    assert lost["stoppedReason"] == "ECS is performing maintenance on the underlying infrastructure hosting the task."
    new = eventually(lambda: [arn for arn in ecs.list_tasks(serviceName="lost")["taskArns"] if arn != old])[0]
    wait_for(platform, new, "RUNNING")
    # Nothing of the old one runs on, and the host takes tasks again.
    find = ["find", "/sys/fs/cgroup", "-name", task_id]
    eventually(lambda: subprocess.run(find, capture_output=True, text=True).stdout == "")
    assert platform.stop() == 0
