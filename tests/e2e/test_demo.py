"""`longshore demo`: the main job in one command, again and again, and after it was killed."""

import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import urllib.request

import pytest

from conftest import LONGSHORE, eventually, free_port

STEPS = ["starting the platform", "building the image", "pushing it to the registry", "load balancer", "task definition and service", "tasks", "HTTP through the load balancer", "logs"]


@pytest.fixture
def arguments(tmp_path):
    data = str(tmp_path / "data")
    yield [LONGSHORE, "demo", "--data-dir", data, "--listen", f"127.0.0.1:{free_port()}"]
    subprocess.run([LONGSHORE, "down", "--data-dir", data, "--purge"], check=True, capture_output=True, timeout=120)


def block():
    """What the demo has written into /etc/hosts: other platforms of this machine name their load balancers otherwise."""
    return [line for line in pathlib.Path("/etc/hosts").read_text().splitlines() if re.search(r" demo-[0-9a-z]+\.\S+\.elb\.longshore\.internal", line)]


def test_the_demo_does_the_main_job_twice_and_after_a_kill(arguments):
    before = block()
    for _ in range(2):
        done = subprocess.run([*arguments, "--exit"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        # Plain lines where nobody watches.
        assert "\x1b" not in done.stdout + done.stderr
        told = [line.strip("✓ ") for line in (done.stdout + done.stderr).splitlines() if line.startswith("  ✓ ")]
        assert [next((step for step in STEPS if line.startswith(step)), line) for line in told[: len(STEPS)]] == STEPS
        assert re.search(r"\d+ requests, every task answered", done.stdout + done.stderr)
        assert len(re.findall(r"^  [0-9a-f]{32}  RUNNING  us-east-1[abc]  +172\.31\.", done.stdout, re.M)) == 2
        assert block() == before
    # Killed with everything it started, in the middle of its work and after it: the next one begins anew from what it
    # finds, be it tasks that run on.
    data = pathlib.Path(arguments[3])
    for working in (True, False):
        killed = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if working:
            eventually(lambda: (data / "run" / "agent.pid").exists() and block() != before)
        else:
            assert any("Ctrl-C" in line for line in killed.stdout)
        killed.kill()
        killed.wait()
        killed.stdout.close()
        for role in ("up", "server", "host", "agent"):
            os.kill(json.loads((data / "run" / f"{role}.pid").read_text())["pid"], signal.SIGKILL)
        done = subprocess.run([*arguments, "--exit"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert block() == before


def test_the_demo_stays_until_it_is_interrupted_and_shows_progress_on_a_terminal(arguments):
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    output = ""
    while "Ctrl-C" not in output:
        output += os.read(ours, 65536).decode(errors="replace")
    assert "\x1b[" in output, "a terminal gets progress"
    # It may be used while it is there.
    url = re.search(r"http://[\w.-]+\.elb\.longshore\.internal:\d+/", output)[0]
    assert urllib.request.urlopen(url, timeout=5).status == 200
    demo.send_signal(signal.SIGINT)
    # A terminal that nobody reads would hold up who writes to it.
    with contextlib.suppress(OSError):
        while os.read(ours, 65536):
            pass
    assert demo.wait(timeout=60) == 0
    os.close(ours)
    with pytest.raises(OSError):
        socket.create_connection((re.search(r"//([\w.-]+)", url)[1], 80), timeout=2)
