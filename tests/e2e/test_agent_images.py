"""The images on a Fargate host: those in use stay, the others go when they are too many."""

import os
import pathlib
import signal
import time
import uuid

from conftest import Image, eventually, log_lines, logging, register, run_task, task, wait_for


def push(platform):
    # A layer of its own for each.
    name = f"image-{uuid.uuid4().hex[:6]}"
    files = {f"etc/{name}": (os.urandom(1000), 0o644)}
    from conftest import busybox

    return Image(platform, name, files={**busybox(), **files}).uri


def run(platform, uri, script):
    container = {"name": "main", "image": uri, "command": ["sh", "-c", script], "logConfiguration": logging("/images")}
    return run_task(platform, register(platform, "images", container))


def kept(platform):
    """How many references and unpacked layers the host has."""
    store = pathlib.Path(platform.data, "agent", "images")
    return len(list((store / "images").iterdir())), len(list((store / "layers").iterdir()))


def test_r90_images_nobody_uses_are_collected_and_those_in_use_are_not(own_platform):
    platform = own_platform("--image-cache", "0")
    platform.client("logs").create_log_group(logGroupName="/images")
    # Each round executes programs of the image's layer.
    staying = run(platform, push(platform), "i=0; while true; do echo $i; i=$((i+1)); /bin/busybox sleep 0.2; done")
    wait_for(platform, staying, "RUNNING")
    going = run(platform, push(platform), "echo over")
    assert wait_for(platform, going, "STOPPED")["containers"][0]["exitCode"] == 0
    eventually(lambda: kept(platform) == (1, 1))

    # An agent that was killed knows by its records what is in use.
    pid = platform.child("agent")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: platform.child("agent") != pid)
    again = run(platform, push(platform), "echo over")
    wait_for(platform, again, "STOPPED")
    eventually(lambda: kept(platform) == (1, 1))
    stream = f"test/main/{staying.rsplit('/', 1)[1]}"
    lines = lambda: log_lines(platform, "/images", stream)
    before = len(eventually(lines))
    eventually(lambda: len(lines()) > before + 5)
    assert task(platform, staying)["lastStatus"] == "RUNNING"

    platform.client("ecs").stop_task(task=staying)
    wait_for(platform, staying, "STOPPED")
    eventually(lambda: kept(platform) == (0, 0))


def test_r90_an_image_that_was_used_stays_for_the_next_task(own_platform):
    platform = own_platform()
    platform.client("logs").create_log_group(logGroupName="/images")
    wait_for(platform, run(platform, push(platform), "echo over"), "STOPPED")
    time.sleep(4)
    assert kept(platform) == (1, 1)
