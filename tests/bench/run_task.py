#!/usr/bin/env python3
"""From RunTask to the process's own first timestamp, against `docker run`: both in one run, one after the other.

    tests/bench/run_task.py [--tasks 100]

The same static program, which writes its clock and ends, in an image that is present on both sides. Ours is measured from
before the SDK's call (signed, durable, placed, its own network interface, awslogs) to the program's first instruction;
Docker from before its command line starts (bridge network). Prints p50 and p99 in milliseconds and the ratio (below 1:
ours is faster).
"""

import argparse
import contextlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

from harness import bounded  # Also makes `conftest` found.

from conftest import Image, Platform, default_network, eventually, log_lines, logging, register, wait_for
from engine import Docker

PROGRAM = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  printf("%lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
  return 0;
}
"""


def program():
    """The bytes of a static program that prints the time of its first instruction."""
    with tempfile.TemporaryDirectory() as directory:
        source, binary = pathlib.Path(directory, "clock.c"), pathlib.Path(directory, "clock")
        source.write_text(PROGRAM)
        subprocess.run(["cc", "-static", "-O1", "-o", str(binary), str(source)], check=True)
        return binary.read_bytes()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def docker_image(docker, content):
    with tempfile.TemporaryDirectory() as directory:
        binary, archive = pathlib.Path(directory, "clock"), pathlib.Path(directory, "image.tar")
        binary.write_bytes(content)
        binary.chmod(0o755)
        with tarfile.open(archive, "w") as tar:
            tar.add(binary, "clock")
        docker.run("import", "--change", 'ENTRYPOINT ["/clock"]', str(archive), "clock")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=100)
    options = parser.parse_args()
    content = program()
    with bounded(minutes=20), contextlib.ExitStack() as stack:
        platform = Platform()
        stack.callback(platform.purge)
        platform.start()
        docker = Docker(own_network=True)
        stack.callback(docker.stop)
        docker.start()
        docker_image(docker, content)
        image = Image(platform, "clock", files={"clock": (content, 0o755)}, config={"Entrypoint": ["/clock"]}).uri
        platform.client("logs").create_log_group(logGroupName="clock")
        definition = register(platform, "clock", {"name": "clock", "image": image, "logConfiguration": logging("clock")})
        ecs = platform.client("ecs")
        ecs.create_cluster()
        network = default_network(platform)

        def ours():
            begin = time.time()
            answer = ecs.run_task(taskDefinition=definition, launchType="FARGATE", networkConfiguration=network)
            accepted = time.time() - begin
            assert not answer["failures"], answer
            arn = answer["tasks"][0]["taskArn"]
            stopped = wait_for(platform, arn, "STOPPED")
            stream = f"test/clock/{arn.rsplit('/', 1)[1]}"
            line = eventually(lambda: log_lines(platform, "clock", stream))[0]
            assert stopped["stopCode"] == "EssentialContainerExited", stopped
            return (float(line) - begin) * 1000, accepted * 1000

        def theirs():
            begin = time.time()
            return (float(docker.run("run", "--rm", "clock")) - begin) * 1000

        for _ in range(3):
            ours(), theirs()
        mine, accepted, others = [], [], []
        for index in range(options.tasks):
            first, second = ours(), theirs()
            mine.append(first[0]), accepted.append(first[1]), others.append(second)
            if sys.stderr.isatty():
                print(f"\r{index + 1} of {options.tasks}", end="", file=sys.stderr)
        print(f"\n{'RunTask to first instruction, ms':36}{'longshore':>12}{'docker run':>12}{'ratio':>8}   ({options.tasks} tasks)")
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            a, b = percentile(mine, share), percentile(others, share)
            print(f"{name:36}{a:>12.1f}{b:>12.1f}{a / b:>7.2f}x")
        print(f"{'of which RunTask answered, p50':36}{percentile(accepted, 0.5):>12.1f}")


if __name__ == "__main__":
    main()
