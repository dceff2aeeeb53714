"""ECS on EC2: the walk-through as it is documented, run by bash as its reader would."""

import pathlib
import re
import subprocess

import pytest

from conftest import ROOT, Platform, busybox
from docker_engine import Docker

WALKTHROUGH = ROOT / "docs/walkthroughs/ecs-on-ec2.md"


@pytest.fixture(scope="module")
def docker():
    docker = Docker()
    try:
        docker.load("busybox", busybox() | {"bin/mkdir": (b'#!/bin/busybox sh\nexec /bin/busybox mkdir "$@"\n', 0o755)})
        yield docker
    finally:
        docker.stop()


@pytest.fixture(scope="module")
def platform():
    """The registry's names resolve on this host, as they do for a reader."""
    platform = Platform(hosts=True)
    try:
        platform.start()
        yield platform
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


def test_r06_the_walk_through_runs_as_written(platform, docker, tmp_path):
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", WALKTHROUGH.read_text(), re.M | re.S))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**platform.env(), **docker.environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    shown = f"{done.stdout[-6000:]}\n{done.stderr[-4000:]}\n{pathlib.Path(platform.log_path).read_text()[-3000:]}"
    assert done.returncode == 0, shown
    answers = re.findall(r"^(us-east-1[abc]) (i-[0-9a-f]{17}) (198\.1[89]\.\d+\.\d+:\d+) answers (\w+)$", done.stdout, re.M)
    assert len(answers) == 9, shown
    zones = [zone for zone, *_ in answers]
    assert {zone: zones.count(zone) for zone in zones} == {f"us-east-1{letter}": 3 for letter in "abc"}, shown
    # Three machines, nine ports, nine containers.
    assert [len({answer[index] for answer in answers}) for index in (1, 2, 3)] == [3, 9, 9], shown
    machine = answers[-1][1]
    assert done.stdout.count(f"Host EC2 (instance {machine}) terminated.") == 3, shown
