"""What the benchmarks share: the end-to-end tests' platform, and an end in bounded time.

A benchmark leaves nothing behind: `bounded` turns signals and the end of its time into exceptions, so that what it has
started is stopped by its `ExitStack` whatever happens.
"""

import contextlib
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))


@contextlib.contextmanager
def bounded(minutes):
    """Ends the block with an exception after so many minutes, or when the process is told to end."""

    def expire(*_):
        raise TimeoutError(f"the benchmark was not through after {minutes} minutes")

    def end(number, _):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGALRM, expire)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    signal.alarm(minutes * 60)
    try:
        yield
    finally:
        signal.alarm(0)


def resident(pid):
    """Resident memory of a process in MiB: now, its share where pages are shared, and the most so far."""
    figures = {}
    for name in ("smaps_rollup", "status"):
        for line in pathlib.Path(f"/proc/{pid}/{name}").read_text().splitlines():
            key, _, value = line.partition(":")
            if value.endswith("kB"):
                figures[key] = int(value.split()[0]) / 1024
    return figures["Rss"], figures["Pss"], figures["VmHWM"]
