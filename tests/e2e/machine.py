"""Machines beside the platform's: network namespaces on a network of their own, each with an agent that joins a cluster.

What they need of the platform comes over that network and TLS, as from another host.
"""

import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile

from conftest import LONGSHORE, eventually


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60).stdout


class Network:
    """A bridge with an address of this host, which the platform listens at."""

    def __init__(self):
        number = secrets.randbelow(200)
        self.name = f"lst{secrets.token_hex(3)}"
        self.prefix = f"10.231.{number}"
        self.address = f"{self.prefix}.1"
        self.machines = []
        run("ip", "link", "add", self.name, "type", "bridge")
        run("ip", "address", "add", f"{self.address}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")

    def machine(self, platform, cluster, *options, **more):
        """Another machine, whose agent joins a cluster."""
        found = Machine(self, len(self.machines) + 2, platform, cluster, options, **more)
        self.machines.append(found)
        return found

    def remove(self):
        for machine in self.machines:
            machine.remove()
        run("ip", "link", "delete", self.name, check=False)


class Machine:
    """A network namespace with an agent in it."""

    def __init__(self, network, number, platform, cluster, options, environment=None, named=True, started=True):
        self.name = f"{network.name}-{number}"
        self.address = f"{network.prefix}.{number}"
        self.platform, self.cluster, self.options = platform, cluster, options
        self.environment = environment or {}
        # Whether the cluster is given on the command line.
        self.named = named
        self.directory = tempfile.mkdtemp(prefix="longshore-machine-")
        self.agent = None
        # `ip netns exec` would also give it a /sys of its own, without the control groups.
        self.inside = ("nsenter", f"--net=/run/netns/{self.name}")
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"{network.name}{number}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"{network.name}{number}", "master", network.name, "up")
        for command in (
            ("address", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", network.address),
        ):
            self.run("ip", *command)
        if started:
            self.start()

    def run(self, *command, check=True):
        """Runs a command on the machine; gives what it printed."""
        return run(*self.inside, *command, check=check)

    def start(self):
        """Starts the agent; its tasks of before are still there."""
        authority = pathlib.Path(self.platform.data, "keys", "ca.pem")
        self.log = os.path.join(self.directory, "log")
        self.agent = subprocess.Popen(
            [
                *self.inside, LONGSHORE, "agent", *(("--cluster", self.cluster) if self.named else ()), "--endpoint", f"https://{self.platform.listen}",
                "--ca-bundle", str(authority), "--data-dir", os.path.join(self.directory, "data"), *self.options,
            ],
            env={**self.platform.env(), **self.environment},
            stdin=subprocess.DEVNULL,
            stderr=open(self.log, "ab"),
            start_new_session=True,
        )
        return self

    def stop(self):
        """Stops the agent, not what it runs."""
        self.agent.terminate()
        self.agent.wait(timeout=30)

    def kill(self):
        self.agent.kill()
        self.agent.wait(timeout=30)

    def instance(self):
        """The container instance, once the agent is connected."""
        ecs = self.platform.client("ecs")

        def connected():
            assert self.agent.poll() is None, pathlib.Path(self.log).read_text()[-3000:]
            arns = ecs.list_container_instances(cluster=self.cluster)["containerInstanceArns"]
            found = ecs.describe_container_instances(cluster=self.cluster, containerInstances=arns)["containerInstances"] if arns else []
            return next((one for one in found if one["agentConnected"] and self.is_own(one)), None)

        return eventually(connected)

    def is_own(self, instance):
        return any(self.directory in attribute.get("value", "") for attribute in instance["attributes"])

    def teardown(self, *options):
        """Ends the agent and its tasks, and takes everything of them from the machine."""
        if self.agent and self.agent.poll() is None:
            self.stop()
        command = [*self.inside, LONGSHORE, "agent", "--data-dir", os.path.join(self.directory, "data"), *options, "--teardown"]
        return subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=120)

    def remove(self):
        self.teardown()
        run("ip", "netns", "delete", self.name, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
