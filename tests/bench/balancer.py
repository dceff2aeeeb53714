#!/usr/bin/env python3
"""HTTP through a load balancer, against nginx and haproxy in front of the same targets: interleaved rounds, in one run.

    tests/bench/balancer.py [--rounds 7] [--seconds 3]

Ours is the product: `longshore up`, an application load balancer made with the SDK, its own process in the network
namespace that the platform made. Targets in a VPC are reached from inside it only, so nginx, haproxy, the targets (one
nginx process that serves 1 KiB from memory on two ports, registered by their addresses) and wrk are put into that same
namespace: all three proxies are asked, and ask the targets, over its loopback device in the same way.

All have two workers, keep their connections on both sides and write no access log. The peers add X-Forwarded-For, -Proto
and -Port as ours does; ours adds X-Amzn-Trace-Id besides. Each figure is the median of the rounds; a ratio is that
against the better peer in that row, with the smallest and the largest ratio of a round. `processor` is what the proxy's
own processes used. wrk, the proxy and the targets share the machine's processors: on two of them everything competes.
Each is in a session of its own, as services are: between sessions the kernel divides the processors first, and within one
afterwards (`sched_autogroup_enabled`).
"""

import argparse
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from conftest import Platform, eventually

PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
BODY = 1024
TARGETS = (9001, 9002)
PORTS = {"longshore": 80, "nginx": 8001, "haproxy": 8002}
PEERS = ("nginx", "haproxy")
UNITS = {"us": 1, "ms": 1000, "s": 1_000_000}

NGINX = """
daemon off; worker_processes 2; user nobody nogroup; pid {directory}/{name}.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {directory}/{name}-body; proxy_temp_path {directory}/{name}-proxy;
  fastcgi_temp_path {directory}/{name}-fastcgi; uwsgi_temp_path {directory}/{name}-uwsgi; scgi_temp_path {directory}/{name}-scgi;
  {http}
}}
"""

NGINX_PROXY = """
  upstream targets {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {address}:{port} reuseport;
    location / {{
      proxy_pass http://targets; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;
    }}
  }}
"""

HAPROXY = """
global
  nbthread 2
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
  option forwardfor
frontend web
  bind {address}:{port}
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Port %[dst_port]
  default_backend targets
backend targets
  balance roundrobin
{servers}
"""


class LoadBalancer:
    """An application load balancer of the platform, and the network namespace that its process lives in."""

    def __init__(self, platform):
        self.elbv2, ec2 = platform.client("elbv2"), platform.client("ec2")
        self.vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
        made = self.elbv2.create_load_balancer(Name="bench", Scheme="internal", Subnets=subnets)["LoadBalancers"][0]
        self.arn = made["LoadBalancerArn"]
        self.pid = eventually(self.find)
        shown = subprocess.run(self.inside("ip", "-o", "-4", "address", "show", "scope", "global"), check=True, capture_output=True, text=True)
        self.address = re.search(r"inet ([\d.]+)/", shown.stdout).group(1)

    def find(self):
        found = subprocess.run(["pgrep", "-f", f"balancer --load-balancer {self.arn}"], capture_output=True, text=True).stdout.split()
        return int(found[0]) if len(found) == 1 else None

    def inside(self, *command):
        """A command line that runs in the namespace, in nsenter's place: its pid is the command's."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "env", f"PATH={PATH}", *command]

    def forward(self):
        """Opens the listener, once the targets are there."""
        group = self.elbv2.create_target_group(Name="bench", Protocol="HTTP", Port=TARGETS[0], VpcId=self.vpc, TargetType="ip")
        group = group["TargetGroups"][0]["TargetGroupArn"]
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": self.address, "Port": port} for port in TARGETS])
        action = {"Type": "forward", "TargetGroupArn": group}
        self.elbv2.create_listener(LoadBalancerArn=self.arn, Protocol="HTTP", Port=PORTS["longshore"], DefaultActions=[action])

        def healthy():
            shown = self.elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
            return [target["TargetHealth"]["State"] for target in shown] == ["healthy"] * len(TARGETS)

        eventually(healthy)


class Bench:
    """The processes of a run: targets and peers, in the load balancer's namespace."""

    def __init__(self, balancer, directory):
        self.balancer, self.directory = balancer, directory
        self.processes, self.pids = [], {"longshore": balancer.pid}

    def start(self, name, config, command):
        path = pathlib.Path(self.directory, f"{name}.conf")
        path.write_text(config)
        process = subprocess.Popen(self.balancer.inside(*command, str(path)), stdin=subprocess.DEVNULL, start_new_session=True)
        self.processes.append(process)
        return process.pid

    def nginx(self, name, http):
        config = NGINX.format(directory=self.directory, name=name, http=http)
        return self.start(name, config, ["nginx", "-e", "stderr", "-p", self.directory, "-c"])

    def start_all(self):
        address = self.balancer.address
        listen = " ".join(f"listen {address}:{port} reuseport;" for port in TARGETS)
        body = "x" * BODY
        self.nginx("targets", f'server {{ {listen} location / {{ default_type text/plain; return 200 "{body}"; }} }}')
        servers = " ".join(f"server {address}:{port};" for port in TARGETS)
        self.pids["nginx"] = self.nginx("nginx", NGINX_PROXY.format(servers=servers, address=address, port=PORTS["nginx"]))
        servers = "\n".join(f"  server target-{port} {address}:{port}" for port in TARGETS)
        config = HAPROXY.format(servers=servers, address=address, port=PORTS["haproxy"])
        self.pids["haproxy"] = self.start("haproxy", config, ["haproxy", "-db", "-f"])
        self.balancer.forward()
        for name in PORTS:
            eventually(lambda: self.fetch(name) == body, timeout=20)

    def url(self, name):
        return f"http://{self.balancer.address}:{PORTS[name]}/"

    def fetch(self, name):
        command = self.balancer.inside("curl", "--silent", "--fail", "--max-time", "5", self.url(name))
        return subprocess.run(command, capture_output=True, text=True).stdout

    def measure(self, name, connections, seconds):
        """One wrk run: requests per second, and p50, p99 and processor time per request in microseconds."""
        before = processor_seconds(self.pids[name])
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency", self.url(name)]
        done = subprocess.run(self.balancer.inside(*command), check=True, capture_output=True, text=True, timeout=seconds + 30, start_new_session=True)
        used = processor_seconds(self.pids[name]) - before
        if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise RuntimeError(f"{name}: {done.stdout}")
        found = lambda pattern: re.search(pattern, done.stdout).groups()
        latency = lambda share: (lambda value, unit: float(value) * UNITS[unit])(*found(rf"{share}%\s+([\d.]+)(us|ms|s)"))
        (count,), (rate,) = found(r"(\d+) requests in"), found(r"Requests/sec:\s+([\d.]+)")
        return {"requests/s": float(rate), "p50, us": latency(50), "p99, us": latency(99), "processor, us": used * 1e6 / int(count)}

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def processor_seconds(pid):
    """What a process and its children have used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(child) for child in children)


def show(connections, rounds):
    """`rounds` is a list of `{proxy: {row: value}}`."""
    title = f"{connections} connection{'s' if connections > 1 else ''}"
    print(f"\n{title:18}" + "".join(f"{name:>12}" for name in PORTS) + f"{'ratio':>8}   (lowest and highest of {len(rounds)} rounds)")
    for row in rounds[0]["longshore"]:
        better = max if row == "requests/s" else min
        ratio = lambda values: values["longshore"] / better(values[peer] for peer in PEERS)
        medians = {name: statistics.median(taken[name][row] for taken in rounds) for name in PORTS}
        ratios = [ratio({name: taken[name][row] for name in PORTS}) for taken in rounds]
        print(f"{row:18}" + "".join(f"{medians[name]:>12,.0f}" for name in PORTS) + f"{ratio(medians):>7.2f}x   {min(ratios):.2f}-{max(ratios):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    options = parser.parse_args()
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    platform, bench = Platform(), None
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as directory:
        os.chmod(directory, 0o755)
        try:
            platform.start()
            bench = Bench(LoadBalancer(platform), directory)
            bench.start_all()
            for connections in options.connections:
                for name in PORTS:
                    bench.measure(name, connections, 1)
                rounds = []
                for index in range(options.rounds):
                    if sys.stderr.isatty():
                        print(f"\r{connections}: round {index + 1} of {options.rounds} ", end="", file=sys.stderr)
                    rounds.append({name: bench.measure(name, connections, options.seconds) for name in PORTS})
                show(connections, rounds)
        finally:
            if bench:
                bench.stop()
            platform.purge()


if __name__ == "__main__":
    main()
