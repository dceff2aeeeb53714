#!/usr/bin/env python3
"""What the platform needs: time from start to `ready`, memory and disk, empty and filled.

    tests/bench/footprint.py [--starts 5] [--definitions 1000] [--tasks 200]

Starts an empty and an existing data directory several times; then registers task definitions and runs tasks that sleep,
of Fargate's smallest size, as many as the host's memory allows. Memory is each process's resident set and, in brackets,
its share of it (pages that several processes map count for each by its part); tasks' own programs are not counted.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import time

from harness import bounded, resident  # Also makes `conftest` found.

from conftest import LONGSHORE, Image, Platform, default_network, eventually, register

ROLES = ["up", "server", "host", "agent", "shim"]


def processes(platform):
    """The platform's processes by role, without what runs in containers."""
    parents, found = {}, {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    waiting = [platform.process.pid]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError, IndexError):
            arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # Helpers call themselves `longshore`, the other parts are started by the executable's path.
            if pathlib.Path(arguments[0].decode()).name in ("longshore", pathlib.Path(LONGSHORE).name):
                found.setdefault(arguments[1].decode(), []).append(pid)
        waiting += [child for child, parent in parents.items() if parent == pid]
    return found


def memory(platform):
    """Resident memory and share of it by role, in MiB, and how many processes there are."""
    figures = {}
    for role, pids in processes(platform).items():
        pairs = []
        for pid in pids:
            with contextlib.suppress(OSError):
                pairs.append(resident(pid)[:2])
        figures[role] = (len(pairs), sum(rss for rss, _ in pairs), sum(pss for _, pss in pairs))
    return figures


def disk(platform):
    """Megabytes that the data directory occupies: all, and the state's file."""
    state = pathlib.Path(platform.data, "state")
    total = kept = 0
    for directory, _, names in os.walk(platform.data):
        for name in names:
            path = pathlib.Path(directory, name)
            # What runs in tasks is mounted below the directory and counts with its volume.
            with contextlib.suppress(OSError):
                blocks = path.lstat().st_blocks * 512 / 1e6
                total += blocks
                kept += blocks if state in path.parents else 0
    return total, kept


def start(platform):
    begin = time.monotonic()
    platform.start()
    return time.monotonic() - begin


def starts(count):
    """Seconds from start to `ready`, on empty data directories and on the same ones again."""
    fresh, existing = [], []
    for _ in range(count):
        with contextlib.ExitStack() as stack:
            platform = Platform()
            stack.callback(platform.purge)
            fresh.append(start(platform))
            platform.stop()
            existing.append(start(platform))
            platform.stop()
    return fresh, existing


def print_starts(name, seconds):
    print(f"{name:44}{statistics.median(seconds):>8.3f} s{max(seconds):>10.3f} s")


def row(name, platform):
    time.sleep(2)
    figures, (total, kept) = memory(platform), disk(platform)
    cells = [figures.get(role, (0, 0.0, 0.0)) for role in ROLES]
    every = [sum(cell[column] for cell in figures.values()) for column in (1, 2)]
    print(f"{name:28}" + "".join(f"{rss:>8.1f} ({pss:>6.1f})" for _, rss, pss in cells) + f"{every[0]:>9.1f} ({every[1]:>6.1f}){total:>9.1f}{kept:>8.1f}", flush=True)
    return every[1], figures


def run_tasks(platform, definition, wanted):
    """Runs up to so many tasks; gives their ARNs, and why there are no more."""
    ecs = platform.client("ecs")
    network, tasks = default_network(platform), []
    while len(tasks) < wanted:
        answer = ecs.run_task(
            taskDefinition=definition, launchType="FARGATE", networkConfiguration=network, count=min(10, wanted - len(tasks))
        )
        tasks += [task["taskArn"] for task in answer["tasks"]]
        if answer["failures"]:
            return tasks, answer["failures"][0]["reason"]
    return tasks, None


def wait_for_all(platform, tasks, status):
    ecs = platform.client("ecs")

    def reached():
        states = []
        for first in range(0, len(tasks), 100):
            described = ecs.describe_tasks(tasks=tasks[first : first + 100])["tasks"]
            states += [task["lastStatus"] for task in described]
        assert status == "STOPPED" or "STOPPED" not in states, "a task stopped"
        return all(state == status for state in states)

    eventually(reached, timeout=300)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--definitions", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=200)
    options = parser.parse_args()
    with bounded(minutes=15), contextlib.ExitStack() as stack:
        fresh, existing = starts(options.starts)
        platform = Platform()
        stack.callback(platform.purge)
        platform.start()
        print(f"{'start to ready':44}{'median':>10}{'most':>12}   ({options.starts} starts)")
        print_starts("an empty data directory", fresh)
        print_starts("an existing one", existing)
        print(f"\n{'MiB resident (share)':28}" + "".join(f"{role:>17}" for role in ROLES) + f"{'all':>18}{'disk, MB':>9}{'state':>8}")
        row("idle", platform)
        sleeper = {"name": "sleeper", "image": Image(platform, "sleeper").uri, "command": ["/bin/busybox", "sleep", "100000"]}
        ecs = platform.client("ecs")
        ecs.create_cluster()
        for number in range(options.definitions):
            definition = register(platform, f"sleeper-{number % 100}", sleeper)
        before, _ = row(f"{options.definitions} task definitions", platform)
        begin = time.monotonic()
        tasks, refusal = run_tasks(platform, definition, options.tasks)
        wait_for_all(platform, tasks, "RUNNING")
        seconds = time.monotonic() - begin
        after, figures = row(f"{len(tasks)} tasks", platform)
        for task in tasks:
            ecs.stop_task(task=task)
        wait_for_all(platform, tasks, "STOPPED")
        eventually(lambda: "shim" not in processes(platform))
        row("the tasks stopped", platform)
        again = []
        for _ in range(options.starts):
            platform.stop()
            again.append(start(platform))
        row("started again", platform)
        if refusal:
            print(f"\nof {options.tasks} tasks {len(tasks)} fit this host: {refusal}")
        print(f"\n{len(tasks)} tasks were RUNNING after {seconds:.1f} s; one costs the platform {(after - before) / len(tasks):.2f} MiB,")
        shims, rss, pss = figures["shim"]
        print(f"of which its shim {pss / shims:.2f} MiB ({rss / shims:.2f} resident)")
        print_starts("start to ready on this data directory", again)
        platform.stop()


if __name__ == "__main__":
    main()
