"""A Docker Engine of a test's own: it shares nothing with one that may run on this host."""

import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile

from conftest import eventually, layer_of


class Docker:
    def __init__(self, prefix=(), network=("--iptables=false", "--bridge=none")):
        """`prefix` is a command that runs the engine's, such as `nsenter`."""
        self.directory = tempfile.mkdtemp(prefix="longshore-docker-")
        at = lambda name: os.path.join(self.directory, name)
        self.log = open(at("log"), "wb")
        self.socket = f"unix://{at('docker.sock')}"
        self.environment = {"DOCKER_HOST": self.socket, "DOCKER_CONFIG": at("config"), "HOME": self.directory}
        self.command = [
            *prefix, shutil.which("dockerd", path=os.environ["PATH"] + ":/usr/sbin"),
            "--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid"), "--host", self.socket,
            *network,
        ]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        try:
            eventually(lambda: self.run("version", check=False).returncode == 0)
        except BaseException:
            self.stop()
            raise

    def run(self, *arguments, check=True, **more):
        environment = {**os.environ, **self.environment}
        done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True, timeout=300, **more)
        if check:
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def build(self, name, size):
        """An image of one layer with random bytes, made without a base image and without running anything."""
        with tempfile.TemporaryDirectory() as directory:
            content, archive = os.path.join(directory, "content"), os.path.join(directory, "archive.tar")
            pathlib.Path(content).write_bytes(os.urandom(size))
            with tarfile.open(archive, "w") as tar:
                tar.add(content, "content")
            return self.run("import", archive, name).stdout.strip()

    def load(self, name, files):
        """An image of these files, `{path: (bytes, mode)}`."""
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            archive.write(layer_of(files)[0])
            archive.flush()
            self.run("import", "--change", "ENV PATH=/bin", archive.name, name)

    def end(self):
        """Ends the engine, and with it its containers."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def stop(self):
        self.end()
        # It leaves its network namespace mounted, and with it the namespace's links.
        for line in reversed(pathlib.Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
