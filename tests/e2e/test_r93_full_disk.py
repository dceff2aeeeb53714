"""No free disk: whatever cannot be kept is refused with its cause, reading goes on, and once there is room again everything
that was acknowledged is there and work goes on by itself."""

import contextlib
import os
import random
import signal
import subprocess
import tempfile

import botocore.exceptions
import pytest

from conftest import Image, Platform, busybox, eventually, register, run_task, task, wait_for
from test_r83_registry_durability import Client, digest_of


@pytest.fixture
def small_disk():
    """A platform whose data directory has a file system of its own, of 160 MB."""
    directory = tempfile.mkdtemp(prefix="longshore-small-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", directory], check=True)
    platform = Platform(directory=directory)
    try:
        yield platform.start()
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()
        subprocess.run(["umount", "--lazy", directory], check=True)
        os.rmdir(directory)


class Ballast:
    """What fills the disk."""

    def __init__(self, platform):
        self.path = os.path.join(platform.directory, "ballast")

    def fill(self):
        with contextlib.suppress(OSError), open(self.path, "ab", buffering=0) as file:
            while True:
                if file.write(bytes(4096)) == 0:
                    break

    def drop(self):
        os.unlink(self.path)


def test_r93_a_full_disk_refuses_and_loses_nothing(small_disk):
    platform, ballast = small_disk, Ballast(small_disk)
    image = Image(platform, "busybox").uri
    ecs = platform.client("ecs")
    definition = register(platform, "kept", {"name": "main", "image": image, "command": ["sleep", "600"], "stopTimeout": 2})
    running = run_task(platform, definition)
    started = wait_for(platform, running, "RUNNING")["startedAt"]
    client = Client(platform, "busybox")
    children = {role: platform.child(role) for role in ("server", "host", "agent")}

    ballast.fill()
    content = os.urandom(1_000_000)
    status, _, body = client.send("POST", f"/v2/busybox/blobs/uploads/?digest={digest_of(content)}", content)
    assert status == 507 and b"no space left" in body.lower(), (status, body)
    made, refused = ["default"], None
    for number in range(5000):
        ballast.fill()
        try:
            ecs.create_cluster(clusterName=f"full-{number}")
            made.append(f"full-{number}")
        except botocore.exceptions.ClientError as error:
            refused = error.response
            break
    assert refused, "the store never filled"
    assert refused["ResponseMetadata"]["HTTPStatusCode"] == 500, refused
    assert "could not be saved. Check the platform's log and its disk" in refused["Error"]["Message"], refused
    assert "No space left on device" in platform.log()
    # What is there is shown, and what runs runs on.
    assert task(platform, running)["startedAt"] == started
    assert {role: platform.child(role) for role in children} == children

    ballast.drop()
    eventually(lambda: ecs.create_cluster(clusterName="after")["cluster"]["status"] == "ACTIVE")
    os.kill(platform.child("server"), signal.SIGKILL)
    clusters = eventually(lambda: [arn.rsplit("/", 1)[1] for page in ecs.get_paginator("list_clusters").paginate() for arn in page["clusterArns"]])
    assert set(clusters) >= {*made, "after"}
    assert client.send("POST", f"/v2/busybox/blobs/uploads/?digest={digest_of(content)}", content)[0] == 201
    assert task(platform, running)["startedAt"] == started
    again = run_task(platform, definition)
    wait_for(platform, again, "RUNNING")
    for arn in (running, again):
        ecs.stop_task(task=arn)
        assert wait_for(platform, arn, "STOPPED")["stopCode"] == "UserInitiated"


def test_r93_an_image_that_does_not_fit_says_so(small_disk):
    platform, ballast = small_disk, Ballast(small_disk)
    # Small when packed, 60 MB on the disk.
    files = {**busybox(), "large": (random.Random(1).randbytes(1000).hex().encode() * 30_000, 0o644)}
    definition = register(platform, "large", {"name": "main", "image": Image(platform, "large", files=files).uri, "command": ["true"]})
    # Room for a task's records and storage, not for its image.
    ballast.fill()
    os.truncate(ballast.path, os.path.getsize(ballast.path) - 30_000_000)
    ended = wait_for(platform, run_task(platform, definition), "STOPPED")
    assert ended["stopCode"] == "TaskFailedToStart"
    assert ended["stoppedReason"].startswith("CannotPullContainerError: ") and ended["stoppedReason"].endswith("no space left on device"), ended
    ballast.drop()
    ended = wait_for(platform, run_task(platform, definition), "STOPPED")
    assert ended["containers"][0]["exitCode"] == 0
