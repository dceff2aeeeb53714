"""The commands as people use them: up, env, down, doctor, and what `up` promises about its processes."""

import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import botocore.exceptions
import pytest

from conftest import ACCOUNT, LONGSHORE, Image, Platform, eventually, free_port, log_lines, logging, register, run_task, task, wait_for


def longshore(*arguments, **more):
    return subprocess.run([LONGSHORE, *arguments], capture_output=True, text=True, timeout=120, **more)


def health(platform):
    """The health page: 503 while a part is away, with the same body."""
    try:
        with urllib.request.urlopen(f"{platform.endpoint}/health") as page:
            return json.load(page)
    except urllib.error.HTTPError as answer:
        return json.load(answer)


@pytest.mark.parametrize("command", ["up", "demo", "env", "down", "doctor", "agent"])
def test_every_command_shows_an_example(command):
    done = longshore(command, "--help")
    assert done.returncode == 0 and "Example" in done.stdout


def test_a_mistaken_command_line_exits_with_2():
    assert longshore("up", "--clock-rate", "0").returncode == 2
    assert longshore("sideways").returncode == 2


def test_env_is_what_a_shell_needs(platform):
    done = subprocess.run(
        ["bash", "-c", f'eval "$({LONGSHORE} env --data-dir {platform.data})" && aws sts get-caller-identity --query Arn --output text'],
        capture_output=True,
        text=True,
        env={"PATH": platform.env()["PATH"], "HOME": "/nonexistent"},
    )
    assert done.stdout == f"arn:aws:iam::{ACCOUNT}:root\n", done.stderr


def test_env_without_a_platform_names_the_directory(tmp_path):
    done = longshore("env", "--data-dir", str(tmp_path))
    assert done.returncode == 1 and str(tmp_path) in done.stderr and "--data-dir" in done.stderr


def test_doctor_finds_this_host_fit(tmp_path):
    done = longshore("doctor", "--data-dir", str(tmp_path / "new"))
    assert done.returncode == 0, done.stdout
    assert "cgroups" in done.stdout and "overlayfs" in done.stdout


def test_doctor_names_what_is_missing_and_its_mend(tmp_path):
    # In a mount namespace of its own, where these programs are no programs and the disk is small.
    programs = [os.path.realpath(shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")) for name in ("nft", "mkfs.ext4")]
    hide = [f"mount --bind /dev/null {program}" for program in programs]
    script = " && ".join([*hide, f"mount -t tmpfs -o size=20m tmpfs {tmp_path}", f"exec {LONGSHORE} doctor --data-dir {tmp_path}"])
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "the platform needs are missing" in done.stderr, done
    lines = done.stdout.splitlines()
    for missing, mend in (("nftables: ", "apt-get install nftables"), ("tasks' storage: mkfs.ext4", "apt-get install e2fsprogs"), ("disk: 0.0 GiB free", "--data-dir")):
        [at] = [number for number, line in enumerate(lines) if line.startswith(f"MISS  {missing}")]
        assert mend in lines[at + 1], lines


def test_a_port_in_use_is_named_with_its_mend(own_platform):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        platform = Platform(port=port)
        try:
            done = longshore("up", "--data-dir", platform.data, "--listen", f"127.0.0.1:{port}", "--no-hosts")
            assert done.returncode == 1 and f"127.0.0.1:{port}" in done.stderr and "--listen" in done.stderr
        finally:
            platform.purge()


def test_a_second_up_on_the_same_data_is_refused(platform):
    done = longshore("up", "--data-dir", platform.data, "--listen", f"127.0.0.1:{free_port()}", "--no-hosts")
    assert done.returncode == 1 and "another longshore is running" in done.stderr


def test_without_root_it_says_so(tmp_path):
    done = longshore("up", "--data-dir", str(tmp_path), user=65534, group=65534, cwd="/")
    # The binary may lie where only root can reach it: then the system says so.
    assert done.returncode != 0 and ("root" in done.stderr or "denied" in done.stderr.lower())


def test_the_control_plane_is_not_root(platform):
    status = pathlib.Path(f"/proc/{platform.child('server')}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] != "0" and fields["NoNewPrivs"] == "1" and int(fields["CapEff"], 16) == 0


def test_root_keys_come_from_the_environment_and_reach_no_child(own_platform):
    keys = {"LONGSHORE_ROOT_ACCESS_KEY_ID": "AKIATESTSUITE", "LONGSHORE_ROOT_SECRET_ACCESS_KEY": "suite-secret-0123456789"}
    platform = own_platform(environment=keys)
    assert platform.keys == ("AKIATESTSUITE", "suite-secret-0123456789")
    assert platform.client("sts").get_caller_identity()["Account"] == ACCOUNT
    for role in ("server", "host", "agent"):
        environment = pathlib.Path(f"/proc/{platform.child(role)}/environ").read_bytes()
        assert b"suite-secret" not in environment and b"LONGSHORE_ROOT" not in environment
    assert pathlib.Path(platform.data, "credentials").stat().st_mode & 0o777 == 0o600


def test_reset_empties_the_account_and_only_root_may(own_platform):
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    platform = own_platform("--allow-reset")
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="soon-gone")

    def reset(key, secret):
        request = botocore.awsrequest.AWSRequest("POST", f"{platform.endpoint}/_longshore/reset", data=b"")
        credentials = botocore.credentials.Credentials(key, secret)
        botocore.auth.SigV4Auth(credentials, "longshore", "us-east-1").add_auth(request)
        sent = urllib.request.Request(request.url, data=b"", method="POST", headers=dict(request.headers))
        return urllib.request.urlopen(sent).status

    with pytest.raises(urllib.error.HTTPError) as refused:
        reset(platform.keys[0], "wrong-secret")
    assert refused.value.code == 403
    assert ecs.list_clusters()["clusterArns"] != []
    assert reset(*platform.keys) == 200
    assert ecs.list_clusters()["clusterArns"] == []
    assert len(platform.client("ec2").describe_subnets()["Subnets"]) == 3
    # The platform works on at once: its Fargate host was back before the answer.
    image = Image(platform, "busybox").uri
    arn = run_task(platform, register(platform, "after", {"name": "c", "image": image, "command": ["/bin/sh", "-c", "true"]}))
    assert wait_for(platform, arn, "STOPPED")["containers"][0]["exitCode"] == 0


def test_without_the_option_there_is_no_reset(platform):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{platform.endpoint}/_longshore/reset", method="POST", data=b""))
    assert refused.value.code == 404


def test_the_clock_can_run_faster(own_platform):
    import datetime
    import time

    platform = own_platform("--clock-rate", "1000")
    assert health(platform)["clockRate"] == 1000
    logs = platform.client("logs")
    logs.create_log_group(logGroupName="first")
    time.sleep(2)
    logs.create_log_group(logGroupName="second")
    made = {group["logGroupName"]: group["creationTime"] for group in logs.describe_log_groups()["logGroups"]}
    assert made["second"] - made["first"] > 1_000_000
    assert made["second"] > datetime.datetime.now().timestamp() * 1000


def test_any_region_comes_into_being_with_its_default_vpc(platform):
    for region in ("eu-west-1", "ap-southeast-7"):
        ec2 = platform.client("ec2", region)
        zones = sorted(subnet["AvailabilityZone"] for subnet in ec2.describe_subnets()["Subnets"])
        assert zones == [f"{region}{letter}" for letter in "abc"]
        assert ec2.describe_vpcs()["Vpcs"][0]["CidrBlock"] == "172.31.0.0/16"
    platform.client("ecs", "eu-west-1").create_cluster(clusterName="only-here")
    assert "only-here" not in str(platform.client("ecs", "ap-southeast-7").list_clusters())
    with pytest.raises(botocore.exceptions.ClientError):
        platform.client("ec2", "us-east-1", aws_secret_access_key="wrong").describe_vpcs()


def test_foreign_hosts_and_origins_are_refused(platform):
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        request = urllib.request.Request(f"{platform.endpoint}/health", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403


def test_beyond_loopback_the_api_speaks_tls_only():
    platform = Platform(listen="0.0.0.0")
    try:
        platform.start()
        authority = pathlib.Path(platform.data, "keys", "ca.pem")
        assert str(authority) in platform.log()
        context = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(f"https://localhost:{platform.port}/v2/", context=context) as answer:
            raise AssertionError(f"the registry wants a login: {answer.status}")
    except urllib.error.HTTPError as answer:
        assert answer.code == 401
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"https://localhost:{platform.port}/v2/", context=ssl.create_default_context())
        # The platform's own parts reach it, and so do tools on this host.
        platform.endpoint = f"http://127.0.0.1:{platform.port}"
        assert health(platform)["status"] == "ok"
        done = longshore("env", "--data-dir", platform.data)
        assert f"https://0.0.0.0:{platform.port}" in done.stdout and str(authority) in done.stdout
        assert platform.stop() == 0
    finally:
        platform.purge()


def test_two_platforms_live_on_one_host_and_down_leaves_nothing(own_platform):
    one, two = own_platform(), own_platform()
    for platform in (one, two):
        image = Image(platform, "busybox").uri
        definition = register(platform, "same", {"name": "c", "image": image, "command": ["/bin/sh", "-c", "sleep 600"]})
        wait_for(platform, run_task(platform, definition), "RUNNING")
    assert one.stop() == 0
    # The other one's task runs on.
    found = two.client("ecs").list_tasks(cluster="default")["taskArns"]
    assert task(two, found[0])["lastStatus"] == "RUNNING"
    identity = pathlib.Path(one.data, "id").read_text()
    assert leftovers(identity) == []
    two_identity = pathlib.Path(two.data, "id").read_text()
    assert leftovers(two_identity) != []
    two.kill()
    for _ in range(2):
        assert longshore("down", "--data-dir", two.data).returncode == 0
    assert leftovers(two_identity) == [] and os.path.isdir(two.data)
    for _ in range(2):
        assert longshore("down", "--data-dir", two.data, "--purge").returncode == 0
    assert not os.path.exists(two.data)


def leftovers(identity):
    """Kernel objects and processes of a platform that are still there."""
    run = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout
    places = {
        "namespaces": run("ip", "netns", "list"),
        "links": run("ip", "-o", "link"),
        "tables": run("/usr/sbin/nft", "list", "tables"),
        "mounts": pathlib.Path("/proc/mounts").read_text(),
        "cgroups": "\n".join(str(path) for path in pathlib.Path("/sys/fs/cgroup").glob(f"*/longshore/{identity}")),
    }
    return [f"{place}: {line}" for place, lines in places.items() for line in lines.splitlines() if identity in line]


def container_process(platform, arn):
    """The host's pid of a process in the task's containers."""
    found = [path for path in pathlib.Path("/sys/fs/cgroup/memory/longshore").rglob("cgroup.procs") if arn.rsplit("/", 1)[1] in str(path)]
    return sorted(int(pid) for path in found for pid in path.read_text().split())


@pytest.mark.parametrize("role", ["server", "host", "agent"])
def test_each_child_comes_back_alone_while_tasks_run_on(platform, image, role):
    definition = register(platform, "kept", {"name": "c", "image": image, "command": ["/bin/sh", "-c", "while true; do sleep 1; done"]})
    arn = run_task(platform, definition)
    before = wait_for(platform, arn, "RUNNING")
    processes = container_process(platform, arn)
    assert processes
    others = {other: platform.child(other) for other in ("server", "host", "agent") if other != role}
    victim = platform.child(role)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: platform.child(role) != victim and health(platform)["status"] == "ok", 30)
    assert {other: platform.child(other) for other in others} == others
    after = task(platform, arn)
    assert (after["lastStatus"], after["startedAt"]) == ("RUNNING", before["startedAt"])
    assert set(container_process(platform, arn)) & set(processes)
    platform.client("ecs").stop_task(cluster="default", task=arn)
    assert wait_for(platform, arn, "STOPPED")["stopCode"] == "UserInitiated"


def test_after_kill_9_of_up_the_next_up_adopts_everything(own_platform):
    platform = own_platform()
    image = Image(platform, "busybox").uri
    platform.client("logs").create_log_group(logGroupName="kept")
    script = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.2; done"
    definition = register(platform, "kept", {"name": "c", "image": image, "command": ["/bin/sh", "-c", script], "logConfiguration": logging("kept")})
    arn = run_task(platform, definition)
    before = wait_for(platform, arn, "RUNNING")
    children = {role: platform.child(role) for role in ("server", "host", "agent")}
    platform.kill()
    platform.start()
    assert {role: platform.child(role) for role in children} == children
    platform.kill()
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)
    platform.start()
    after = eventually(lambda: task(platform, arn))
    assert (after["lastStatus"], after["startedAt"]) == ("RUNNING", before["startedAt"])
    stream = f"test/c/{arn.rsplit('/', 1)[1]}"
    count = lambda: len(log_lines(platform, "kept", stream))
    reached = count()
    eventually(lambda: count() > reached + 5, 30)
    numbers = [int(line.split()[1]) for line in log_lines(platform, "kept", stream)]
    assert sorted(set(numbers)) == list(range(1, max(numbers) + 1)), "a line is missing"
    assert platform.stop() == 0


def test_a_port_below_1024_is_served_though_the_control_plane_is_not_root(own_platform):
    port = next(port for port in range(1023, 500, -1) if is_free(port))
    platform = own_platform(port=port)
    assert platform.client("sts").get_caller_identity()["Account"] == ACCOUNT
    assert pathlib.Path(f"/proc/{platform.child('server')}").stat().st_uid != 0


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


@pytest.mark.parametrize("address", ["[::]", "own"])
def test_the_platforms_parts_find_each_other_wherever_it_listens(own_platform, address):
    platform = own_platform(listen=own_address() if address == "own" else address)
    assert platform.endpoint == f"https://{platform.listen}"
    eventually(lambda: health_at(f"http://127.0.0.1:{platform.port}")["components"]["fargate"]["healthy"])


def own_address():
    """This host's address towards others; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        return probe.getsockname()[0]


def health_at(endpoint):
    with urllib.request.urlopen(f"{endpoint}/health") as page:
        return json.load(page)


def test_there_is_room_for_many_open_files(own_platform):
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        platform = own_platform()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for role in ("server", "host", "agent"):
        limits = pathlib.Path(f"/proc/{platform.child(role)}/limits").read_text()
        [open_files] = [line.split() for line in limits.splitlines() if line.startswith("Max open files")]
        assert open_files[3] == open_files[4], (role, open_files)


def test_nobody_else_can_pose_as_a_part_of_the_platform(platform):
    # Root's processes act on what they are told at these sockets.
    run = pathlib.Path(platform.data, "run").stat()
    assert run.st_mode & 0o7777 == 0o1770 and run.st_uid == 0
    assert run.st_gid == pathlib.Path(platform.data, "run/feed.sock").stat().st_gid
