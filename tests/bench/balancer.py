#!/usr/bin/env python3
"""HTTP through a load balancer, against nginx and haproxy in front of the same targets: interleaved rounds, in one run.

    tests/bench/balancer.py [--rounds 7] [--seconds 3] [--cores 2 1] [--only NAME …]

Measured are HTTP/1.1 over connections that are kept (one, and 64), a new connection for each request, and bodies of 1 MiB,
the middle two over TLS as well, on two processors and on one; then the memory of 1,000 idle connections, and of ours alone how
soon targets come and go. All have the same certificate (P-256), their own defaults otherwise, and agree with wrk on TLS 1.3;
wrk resumes no session.

Ours is the product: `longshore up`, an application load balancer made with the SDK, its own process in the network
namespace that the platform made. Targets in a VPC are reached from inside it only, so nginx, haproxy, the targets (one
nginx process that serves 1 KiB from memory and 1 MiB from a file on two ports, registered by their addresses) and wrk are put into that same
namespace: all three proxies are asked, and ask the targets, over its loopback device in the same way.

All have two workers, keep their connections on both sides and write no access log. The peers add X-Forwarded-For, -Proto
and -Port as ours does; ours adds X-Amzn-Trace-Id besides. Each figure is the median of the rounds; a ratio is that
against the better peer in that row, with the smallest and the largest ratio of a round. `processor` is what the proxy's
own processes used. "One processor" holds all threads of each of the three to the first one; wrk and the targets have both. wrk, the proxy and the targets share the machine's processors: on two of them everything competes.
Each is in a session of its own, as services are: between sessions the kernel divides the processors first, and within one
afterwards (`sched_autogroup_enabled`).
"""

import argparse
import http.client
import http.server
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from conftest import Platform, eventually

PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
BODY = 1024
TARGETS = (9001, 9002)
PORTS = {"longshore": 80, "nginx": 8001, "haproxy": 8002}
TLS_PORTS = {"longshore": 443, "nginx": 8443, "haproxy": 8444}
PEERS = ("nginx", "haproxy")
BIG = 1 << 20
IDLE = 1000
# What is measured: the ports that are asked, connections, and more of wrk's arguments with the path.
SCENARIOS = {
    "1 kept connection": (PORTS, 1, ["/"]),
    "64 kept connections": (PORTS, 64, ["/"]),
    "new connections": (PORTS, 16, ["--header", "Connection: close", "/"]),
    "1 MiB bodies": (PORTS, 16, ["/big"]),
    "TLS, 64 kept connections": (TLS_PORTS, 64, ["/"]),
    "TLS, new connections": (TLS_PORTS, 16, ["--header", "Connection: close", "/"]),
}
# wrk prints no further than p99 by itself.
REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("result %d %d %d %d %d %d", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""

NGINX = """
daemon off; worker_processes 2; worker_rlimit_nofile 8192; user nobody nogroup; pid {directory}/{name}.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on; sendfile on; proxy_max_temp_file_size 0;
  client_body_temp_path {directory}/{name}-body; proxy_temp_path {directory}/{name}-proxy;
  fastcgi_temp_path {directory}/{name}-fastcgi; uwsgi_temp_path {directory}/{name}-uwsgi; scgi_temp_path {directory}/{name}-scgi;
  {http}
}}
"""

NGINX_PROXY = """
  upstream targets {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {address}:{port} reuseport;
    listen {address}:{tls_port} ssl reuseport;
    ssl_certificate {directory}/certificate.pem; ssl_certificate_key {directory}/key.pem;
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
  bind {address}:{tls_port} ssl crt {directory}/both.pem
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Port %[dst_port]
  default_backend targets
backend targets
  balance roundrobin
{servers}
"""


class LoadBalancer:
    """An application load balancer of the platform, and the network namespace that its process lives in."""

    def __init__(self, platform):
        self.elbv2, self.acm, ec2 = platform.client("elbv2"), platform.client("acm"), platform.client("ec2")
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

    def forward(self, certificate, key):
        """Opens the listeners, once the targets are there."""
        group = self.elbv2.create_target_group(Name="bench", Protocol="HTTP", Port=TARGETS[0], VpcId=self.vpc, TargetType="ip")
        group = group["TargetGroups"][0]["TargetGroupArn"]
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": self.address, "Port": port} for port in TARGETS])
        action = {"Type": "forward", "TargetGroupArn": group}
        self.elbv2.create_listener(LoadBalancerArn=self.arn, Protocol="HTTP", Port=PORTS["longshore"], DefaultActions=[action])
        imported = [{"CertificateArn": self.acm.import_certificate(Certificate=certificate, PrivateKey=key)["CertificateArn"]}]
        self.elbv2.create_listener(LoadBalancerArn=self.arn, Protocol="HTTPS", Port=TLS_PORTS["longshore"], Certificates=imported, DefaultActions=[action])

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

    def certify(self):
        """Makes the certificate that all of them have; gives it and its key."""
        names = [pathlib.Path(self.directory, f"{name}.pem") for name in ("certificate", "key", "both")]
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
        command += ["-subj", "/CN=bench.example.com", "-addext", "subjectAltName=DNS:bench.example.com", "-out", str(names[0]), "-keyout", str(names[1])]
        subprocess.run(command, check=True, capture_output=True)
        certificate, key = (name.read_bytes() for name in names[:2])
        names[2].write_bytes(certificate + key)
        return certificate, key

    def start_all(self):
        address = self.balancer.address
        certificate, key = self.certify()
        listen = " ".join(f"listen {address}:{port} reuseport;" for port in TARGETS)
        body = "x" * BODY
        big = pathlib.Path(self.directory, "big")
        big.write_bytes(b"x" * BIG)
        pathlib.Path(self.directory, "report.lua").write_text(REPORT)
        serve = f'location / {{ default_type text/plain; return 200 "{body}"; }} location = /big {{ root {self.directory}; }}'
        self.nginx("targets", f"server {{ {listen} {serve} }}")
        servers = " ".join(f"server {address}:{port};" for port in TARGETS)
        self.pids["nginx"] = self.nginx("nginx", NGINX_PROXY.format(directory=self.directory, servers=servers, address=address, port=PORTS["nginx"], tls_port=TLS_PORTS["nginx"]))
        servers = "\n".join(f"  server target-{port} {address}:{port}" for port in TARGETS)
        config = HAPROXY.format(directory=self.directory, servers=servers, address=address, port=PORTS["haproxy"], tls_port=TLS_PORTS["haproxy"])
        self.pids["haproxy"] = self.start("haproxy", config, ["haproxy", "-db", "-f"])
        self.balancer.forward(certificate, key)
        for name in PORTS:
            eventually(lambda: self.fetch(name, PORTS) == body == self.fetch(name, TLS_PORTS), timeout=20)

    def url(self, name, ports):
        return f"{'https' if ports is TLS_PORTS else 'http'}://{self.balancer.address}:{ports[name]}/"

    def fetch(self, name, ports):
        command = self.balancer.inside("curl", "--silent", "--fail", "--insecure", "--max-time", "5", self.url(name, ports))
        return subprocess.run(command, capture_output=True, text=True).stdout

    def measure(self, name, scenario, seconds):
        """One wrk run: requests per second, and p50, p99, p99.9 and processor time per request in microseconds."""
        ports, connections, (*more, path) = SCENARIOS[scenario]
        before = processor_seconds(self.pids[name])
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--script", f"{self.directory}/report.lua"]
        command += [*more, self.url(name, ports).rstrip("/") + path]
        done = subprocess.run(self.balancer.inside(*command), check=True, capture_output=True, text=True, timeout=seconds + 30, start_new_session=True)
        used = processor_seconds(self.pids[name]) - before
        count, duration, failed, *latency = map(int, re.search(r"^result (.*)$", done.stdout, re.M).group(1).split())
        if failed:
            raise RuntimeError(f"{name}, {scenario}: {done.stdout}")
        p50, p99, p999 = latency
        return {"requests/s": count / duration * 1e6, "p50, us": p50, "p99, us": p99, "p99.9, us": p999, "processor, us": used * 1e6 / count}

    def hold_to(self, cores):
        """Lets the three proxies use this many processors."""
        for pid in map(str, (process for name in PORTS for process in family(self.pids[name]))):
            subprocess.run(["taskset", "--all-tasks", "--cpu-list", "--pid", f"0-{cores - 1}", pid], check=True, stdout=subprocess.DEVNULL)

    def idle_memory(self, name):
        """What each of many idle connections costs, in KiB: each has had one request answered, and is kept."""
        before = resident(self.pids[name])
        command = [sys.executable, __file__, "--hold", self.balancer.address, str(PORTS[name]), str(IDLE)]
        with subprocess.Popen(self.balancer.inside(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "held\n"
            held = resident(self.pids[name])
            holder.stdin.close()
        return before, held

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


def family(pid):
    """A process and all that it has started."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [found for child in children for found in family(int(child))]


def resident(pid):
    """KiB that a process and its children have to themselves or share: each shared page counts once."""
    pss = lambda one: int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{one}/smaps_rollup").read_text(), re.M).group(1))
    return sum(map(pss, family(pid)))


def hold(address, port, count):
    """Keeps connections open, each after one answer, until there is nothing more to read."""
    held = []
    for _ in range(int(count)):
        connection = http.client.HTTPConnection(address, int(port), timeout=30)
        connection.request("GET", "/")
        connection.getresponse().read()
        held.append(connection)
    print("held", flush=True)
    sys.stdin.read()


class Target(http.server.BaseHTTPRequestHandler):
    """Notes when it was asked, and how its last health check went."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, check = self.server, self.path == "/health"
        code = 500 if check and server.failing else 200
        (server.checks if check else server.asked).append(time.monotonic())
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def comings_and_goings(address, port):
    """Within the namespace: says when two targets are up, and afterwards when each was checked and asked. Two lines are read:
    the first when the second target is registered, the second when it should fail its checks."""
    servers = [http.server.ThreadingHTTPServer((address, number), Target) for number in (9101, 9102)]
    for server in servers:
        server.daemon_threads, server.failing, server.checks, server.asked = True, False, [], []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("up", flush=True)
    sys.stdin.readline()

    def until(wanted):
        connection = http.client.HTTPConnection(address, int(port), timeout=30)
        while not wanted():
            connection.request("GET", "/")
            connection.getresponse().read()

    second = servers[1]
    registered = time.monotonic()
    until(lambda: second.asked)
    coming = second.asked[0] - registered
    until(lambda: len(second.asked) > 100)
    second.failing, passed = True, len(second.checks)
    # Two failures are what makes it unhealthy; a while later nothing of it is left.
    until(lambda: len(second.checks) >= passed + 2)
    turned = second.checks[passed + 1]
    end = time.monotonic() + 2
    until(lambda: time.monotonic() > end)
    last = max(second.asked)
    print(coming * 1000, (last - turned) * 1000, flush=True)


def show(title, rounds):
    """`rounds` is a list of `{proxy: {row: value}}`."""
    print(f"\n{title:30}" + "".join(f"{name:>12}" for name in PORTS) + f"{'ratio':>8}   (lowest and highest of {len(rounds)} rounds)")
    for row in rounds[0]["longshore"]:
        better = max if row == "requests/s" else min
        ratio = lambda values: values["longshore"] / better(values[peer] for peer in PEERS)
        medians = {name: statistics.median(taken[name][row] for taken in rounds) for name in PORTS}
        ratios = [ratio({name: taken[name][row] for name in PORTS}) for taken in rounds]
        print(f"{row:30}" + "".join(f"{medians[name]:>12,.0f}" for name in PORTS) + f"{ratio(medians):>7.2f}x   {min(ratios):.2f}-{max(ratios):.2f}")


def show_idle(bench):
    """Memory with and without idle connections."""
    print(f"\n{f'{IDLE:,} idle connections':30}" + "".join(f"{name:>12}" for name in PORTS) + f"{'ratio':>8}")
    taken = {name: bench.idle_memory(name) for name in PORTS}
    rows = {"MiB before": lambda before, _: before / 1024, "MiB with them": lambda _, held: held / 1024, "KiB for each": lambda before, held: (held - before) / IDLE}
    for row, value in rows.items():
        values = {name: value(*taken[name]) for name in PORTS}
        better = min(values[peer] for peer in PEERS)
        print(f"{row:30}" + "".join(f"{values[name]:>12,.1f}" for name in PORTS) + f"{values['longshore'] / better:>7.2f}x")


def show_comings_and_goings(balancer):
    """How soon a new target gets its first request, and one that fails its health checks its last. Ours only: the peers
    have no API to register targets with. A task of a service is registered in the step that makes it RUNNING."""
    elbv2 = balancer.elbv2
    checks = {"HealthCheckPath": "/health", "HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "UnhealthyThresholdCount": 2, "HealthyThresholdCount": 2}
    group = elbv2.create_target_group(Name="coming", Protocol="HTTP", Port=9101, VpcId=balancer.vpc, TargetType="ip", **checks)["TargetGroups"][0]["TargetGroupArn"]
    command = [sys.executable, __file__, "--comings-and-goings", balancer.address, "81"]
    with subprocess.Popen(balancer.inside(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inside:
        assert inside.stdout.readline() == "up\n"
        register = lambda port: elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": balancer.address, "Port": port}])
        register(9101)
        elbv2.create_listener(LoadBalancerArn=balancer.arn, Protocol="HTTP", Port=81, DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])
        health = lambda: [found["TargetHealth"]["State"] for found in elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]]
        eventually(lambda: health() == ["healthy"], timeout=60)
        register(9102)
        inside.stdin.write("registered\n")
        inside.stdin.flush()
        coming, going = map(float, inside.stdout.readline().split())
        inside.stdin.close()
    print(f"\nRegisterTargets answered to the target's first request: {coming:,.1f} ms")
    last = f"{going:,.1f} ms" if going > 0 else "none came after it"
    print(f"The health check that makes it unhealthy to its last request: {last}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    # How this program runs itself within the load balancer's namespace.
    parser.add_argument("--hold", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--comings-and-goings", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        return hold(*options.hold)
    if options.comings_and_goings:
        return comings_and_goings(*options.comings_and_goings)
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    platform, bench = Platform(), None
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as directory:
        os.chmod(directory, 0o755)
        try:
            platform.start()
            bench = Bench(LoadBalancer(platform), directory)
            bench.start_all()
            show_idle(bench)
            show_comings_and_goings(bench.balancer)
            for cores, scenario in ((cores, scenario) for cores in options.cores for scenario in options.only):
                bench.hold_to(cores)
                for name in PORTS:
                    bench.measure(name, scenario, 1)
                rounds = []
                for index in range(options.rounds):
                    if sys.stderr.isatty():
                        print(f"\r{scenario}: round {index + 1} of {options.rounds} ", end="", file=sys.stderr)
                    rounds.append({name: bench.measure(name, scenario, options.seconds) for name in PORTS})
                show(f"{scenario}, {cores} processor{'s' if cores > 1 else ''}", rounds)
        finally:
            if bench:
                bench.stop()
            platform.purge()


if __name__ == "__main__":
    main()
