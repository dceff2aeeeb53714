#!/usr/bin/env python3
"""The control plane with thousands of agents: what it takes to bring tasks to RUNNING.

    tests/bench/fleet.py [--instances 5000] [--tasks 100000] [--callers 8] [--placed] …

Starts a platform and, against it, the agents and callers of `crates/agent/examples/fleet`, which prints the table; options
are its own (`--help`). They speak Amazon's protocol over the wire and run nothing. A quick look: `--instances 50 --tasks
500`. `--placed` lets the callers choose the instances (StartTask), which leaves out what placement costs.
"""

import contextlib
import os
import pathlib
import subprocess
import sys

from harness import bounded  # Also makes `conftest` found.

from conftest import Platform

SIMULATOR = os.environ.get("FLEET") or pathlib.Path(__file__).resolve().parents[2] / "target/release/examples/fleet"


def main():
    with bounded(minutes=60), contextlib.ExitStack() as stack:
        platform = Platform()
        stack.callback(platform.purge)
        platform.start()
        done = subprocess.run([SIMULATOR, "--server", str(platform.child("server")), *sys.argv[1:]], env=platform.env())
        if done.returncode:
            print(platform.log()[-4000:], file=sys.stderr)
        platform.stop()
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
