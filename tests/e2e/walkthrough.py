"""Runs a page of docs/walkthroughs as it stands: its shell blocks, one after the other, by one bash."""

import pathlib
import re
import subprocess

from conftest import ROOT, Platform, busybox
from docker_engine import Docker

PROGRAMS = {"bin/mkdir": (b'#!/bin/busybox sh\nexec /bin/busybox mkdir "$@"\n', 0o755)}


def run(page, directory):
    """What the page prints. The registry's names resolve on this host, as they do for a reader."""
    text = (ROOT / "docs/walkthroughs" / page).read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
    docker, platform = Docker(), Platform(hosts=True)
    try:
        docker.load("busybox", busybox() | PROGRAMS)
        platform.start()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={**platform.env(), **docker.environment},
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=600,
        )
        log = pathlib.Path(platform.log_path).read_text()[-3000:]
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-4000:]}\n{log}"
        assert platform.stop() == 0, platform.log()[-4000:]
        return done.stdout
    finally:
        platform.purge()
        docker.stop()
