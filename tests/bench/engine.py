"""A Docker Engine of the benchmark's own, so that nothing of it meets an engine that runs here."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time


class Docker:
    """An engine; `run` calls its command line.

    With its own network (`docker run`, with the bridge and the packet filter rules it always has) it lives in a network
    namespace, so that nothing of it stays on the host. Without, it only pulls and pushes, through the host's loopback.
    """

    def __init__(self, own_network):
        self.directory = tempfile.mkdtemp(prefix="longshore-bench-docker-")
        self.namespace = f"ls-bench-{os.getpid()}" if own_network else None
        self.cgroup = f"longshore-bench-{os.getpid()}"
        self.process = None
        self.environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
            "DOCKER_CONFIG": f"{self.directory}/config",
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        }

    def start(self):
        command = [
            shutil.which("dockerd", path=self.environment["PATH"]), "--data-root", f"{self.directory}/data",
            "--exec-root", f"{self.directory}/exec", "--pidfile", f"{self.directory}/pid", "--host", self.environment["DOCKER_HOST"],
            "--cgroup-parent", self.cgroup,
        ]
        if self.namespace:
            self.ip("netns", "add", self.namespace)
            self.ip("-n", self.namespace, "link", "set", "lo", "up")
            # Not `ip netns exec`, which hides the cgroup mounts.
            command = ["nsenter", f"--net=/run/netns/{self.namespace}", *command, "--bip", "10.201.0.1/24"]
        else:
            command += ["--iptables=false", "--bridge=none"]
        with open(f"{self.directory}/log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)
        for _ in range(300):
            if subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"dockerd did not start: {open(f'{self.directory}/log').read()[-2000:]}")

    def ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, env=self.environment)

    def run(self, *arguments, **more):
        """Runs `docker …`; gives what it prints."""
        done = subprocess.run(["docker", *arguments], env=self.environment, capture_output=True, text=True, **more)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
        if self.namespace:
            subprocess.run(["ip", "netns", "delete", self.namespace], env=self.environment, capture_output=True)
        # The engine leaves the empty group behind, below each controller.
        root = pathlib.Path("/sys/fs/cgroup")
        for group in [*root.glob(self.cgroup), *root.glob(f"*/{self.cgroup}")]:
            with contextlib.suppress(OSError):
                group.rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)
