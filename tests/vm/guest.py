"""The scenarios of `cargo xtask vmtest`, as they run inside its machine.

What `xtask` reads goes to the second serial line, one report a line: `ok STEP SECONDS`, `fail STEP WHY`, `note TEXT`,
and in the scenario `writes` also `acked KIND NAME` and `found KIND NAME`. The first serial line is the console, and
`xtask` keeps it in a file. The processor is emulated, so everything here is patient.
"""

import pathlib
import subprocess
import sys
import threading
import time
import traceback

LONGSHORE = "/usr/bin/longshore"
CGROUPS = pathlib.Path("/sys/fs/cgroup")
RUNTIME_TESTS = "/vm/runtime-tests"
DATA = "/var/lib/longshore"
DIRECTORY = "/var/lib/writes"

line = open("/dev/ttyS1", "w", buffering=1)


def report(*words):
    """A line for `xtask`."""
    text = " ".join(str(word) for word in words)
    print(f"[{time.monotonic():7.1f}] {text}", flush=True)
    line.write(text.replace("\n", " / ") + "\n")


class Step:
    """A named part of a scenario, reported as ok or failed; after a failure the next one runs, unless it needs this one."""

    def __init__(self, name, needed=False):
        self.name, self.needed = name, needed

    def __enter__(self):
        report("note", f"{self.name} …")
        self.started = time.monotonic()
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            report("ok", self.name, int(time.monotonic() - self.started))
        elif issubclass(kind, Exception):
            traceback.print_exception(kind, error, trace)
            report("fail", self.name, f"{kind.__name__}: {error}"[:600])
            log = pathlib.Path(DIRECTORY, "log")
            print("".join(log.read_text(errors="replace").splitlines(True)[-100:]) if log.exists() else "", flush=True)
            if self.needed:
                raise SystemExit(1)
            return True
        return False


def run(*command, timeout, each_line=None):
    """Runs a program to its end with its output on the console; gives its exit code and what it printed."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    alarm = threading.Timer(timeout, process.kill)
    alarm.start()
    printed = []
    for text in process.stdout:
        print(text, end="", flush=True)
        printed.append(text)
        if each_line:
            each_line(text.rstrip("\n"))
    code = process.wait()
    alarm.cancel()
    return code, "".join(printed)


def left_behind():
    """What of the platform is in the kernel: processes, control groups, mounts, network namespaces and links."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"longshore" in words[0]:
            found.append(f"process {process.name} {b' '.join(words).decode()}")
    found += [f"cgroup {path}" for path in CGROUPS.glob("longshore/*/**/")]
    found += [f"mount {text}" for text in pathlib.Path("/proc/mounts").read_text().splitlines() if "/var/lib/" in text or "/run/netns/" in text]
    found += [f"link {link.name}" for link in pathlib.Path("/sys/class/net").iterdir() if link.name.startswith("ls")]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    found += [text for text in tables.splitlines() if "ls" in text or "longshore" in text]
    return found


def checks():
    """The platform on a host with nothing but cgroup v2."""
    with Step("the host has cgroup v2 and nothing else"):
        mounts = [text.split()[2] for text in pathlib.Path("/proc/mounts").read_text().splitlines()]
        assert "cgroup2" in mounts and "cgroup" not in mounts, mounts
        controllers = (CGROUPS / "cgroup.controllers").read_text().split()
        assert {"cpu", "memory", "pids", "io"} <= set(controllers), controllers
        report("note", "kernel", pathlib.Path("/proc/sys/kernel/osrelease").read_text().strip(), "with", *controllers)
    with Step("doctor"):
        code, printed = run(LONGSHORE, "doctor", "--data-dir", DATA, timeout=120, each_line=lambda text: report("note", text))
        assert code == 0 and "cgroups v2" in printed, code
    with Step("demo --exit"):
        code, _ = run(LONGSHORE, "demo", "--exit", "--data-dir", DATA, timeout=600, each_line=lambda text: report("note", text))
        assert code == 0, code
    with Step("down leaves nothing"):
        code, _ = run(LONGSHORE, "down", "--data-dir", DATA, "--purge", timeout=120)
        assert code == 0, code
        assert not left_behind(), left_behind()
    with Step("the runtime's own tests"):
        code, printed = run(RUNTIME_TESTS, timeout=2400, each_line=lambda text: report("note", text) if text.startswith("test ") else None)
        assert code == 0 and "0 ignored" in printed, f"{code}: {printed[-400:]}"


def writes(last):
    """Everything that was acknowledged before is told, then more is written until somebody cuts the power."""
    # It needs boto3, which takes its time here; the other scenario does without.
    from writes import Writer

    unsynced = pathlib.Path("/var/lib/unsynced")
    if unsynced.exists() and unsynced.read_bytes():
        report("found", "unsynced", "file")
    # Three tasks start at once, and busybox's modprobe takes a module that is only being loaded for loaded.
    subprocess.run(["modprobe", "overlay"], check=True)
    with Step("up", needed=True):
        pathlib.Path(DIRECTORY).mkdir(exist_ok=True)
        writer = Writer(DIRECTORY)
    with Step("reading back", needed=True):
        names = []
        for kind, name in writer.everything():
            names.append(int(name))
            report("found", kind, name)
    report("read")
    with Step("tasks that went with the power are told as stopped", needed=True):
        for arn in writer.ensure():
            report("note", writer.stopped(arn))
    with Step("the service is steady"):
        writer.steady(lambda task: any(path.read_text() for path in CGROUPS.glob(f"longshore/*/{task}/*/cgroup.procs")))
    report("steady")
    if last:
        with Step("down leaves nothing"):
            code = writer.platform.stop()
            down, _ = run(LONGSHORE, "down", "--data-dir", writer.platform.data, timeout=120)
            assert (code, down, left_behind()) == (0, 0, []), (code, down, left_behind())
        return
    # A new file: one that is only truncated and written again is flushed by ext4 when it is closed (auto_da_alloc).
    unsynced.unlink(missing_ok=True)
    unsynced.write_bytes(b"nobody has synced this")
    for kind, name in writer.forever(max(names, default=0) + 1):
        report("acked", kind, name)


def main(scenario):
    """Runs one scenario."""
    if scenario == "checks":
        checks()
    else:
        writes(last=scenario == "last")


if __name__ == "__main__":
    main(sys.argv[1])
