"""A Docker Engine of the benchmark's own, with the bridge and the packet filter rules that it always has.

It lives in a network namespace of its own, so that nothing of it stays on the host, nor meets an engine that runs here.
"""

import os
import shutil
import subprocess
import tempfile
import time


class Docker:
    """A started engine; `run` calls its command line."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="longshore-bench-docker-")
        self.namespace = f"ls-bench-{os.getpid()}"
        self.environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
            "DOCKER_CONFIG": f"{self.directory}/config",
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        }
        subprocess.run(["ip", "netns", "add", self.namespace], check=True, env=self.environment)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True, env=self.environment)
        self.process = subprocess.Popen(
            # Not `ip netns exec`, which hides the cgroup mounts.
            ["nsenter", f"--net=/run/netns/{self.namespace}", shutil.which("dockerd", path=self.environment["PATH"]),
             "--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/exec",
             "--pidfile", f"{self.directory}/pid", "--host", self.environment["DOCKER_HOST"], "--bip", "10.201.0.1/24"],
            stdout=open(f"{self.directory}/log", "wb"),
            stderr=subprocess.STDOUT,
            env=self.environment,
        )
        for _ in range(300):
            if subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        log = open(f"{self.directory}/log").read()[-2000:]
        self.stop()
        raise RuntimeError(f"dockerd did not start: {log}")

    def run(self, *arguments, **more):
        """Runs `docker …`; gives what it prints."""
        done = subprocess.run(["docker", *arguments], env=self.environment, capture_output=True, text=True, **more)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self):
        self.process.terminate()
        self.process.wait()
        subprocess.run(["ip", "netns", "delete", self.namespace], env=self.environment)
        shutil.rmtree(self.directory, ignore_errors=True)
