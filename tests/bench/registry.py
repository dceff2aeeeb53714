#!/usr/bin/env python3
"""The registry against Debian's docker-registry: one client pushes and pulls ready-made blobs on both, in one run.

    tests/bench/registry.py [--megabytes 500] [--small 1000] [--rounds 3]

Prints a table with both sides and the ratio (above 1: ours is faster). Both keep their data on the same file system. The
client costs as little as it can (sendfile, large receives), and costs both sides the same. A push is what engines do:
POST, PATCH with the bytes, PUT. A Docker Engine also pushes and pulls an image of a quarter of the size, which is bound by
its own compression.
"""

import argparse
import base64
import contextlib
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time

from harness import bounded, resident  # Also makes `conftest` found.

from conftest import Platform, eventually, free_port
from engine import Docker


class Connection:
    """One keep-alive connection that speaks as much HTTP/1.1 as a registry needs."""

    def __init__(self, address, authorization):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = address
        self.authorization = authorization
        self.pending = b""
        self.buffer = bytearray(1 << 20)

    def request(self, method, path, length=0, file=None, body=b""):
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {length}\r\n"
        if self.authorization:
            head += f"Authorization: {self.authorization}\r\n"
        if length:
            head += "Content-Type: application/octet-stream\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + body)
        if file is not None:
            offset = 0
            while offset < length:
                offset += os.sendfile(self.socket.fileno(), file.fileno(), offset, length - offset)
        return self.response(method)

    def response(self, method):
        while b"\r\n\r\n" not in self.pending:
            received = self.socket.recv(65536)
            if not received:
                raise RuntimeError("the connection was closed")
            self.pending += received
        head, _, rest = self.pending.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        status = int(lines[0].split()[1])
        left = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        if headers.get("transfer-encoding"):
            raise RuntimeError("unexpected chunked response")
        body = rest[:left]
        self.pending = rest[left:]
        left -= len(body)
        received = len(body)
        view = memoryview(self.buffer)
        while left:
            # The kernel drops the bytes instead of copying them: the client's own cost is not what is measured.
            count = self.socket.recv_into(view, min(left, len(self.buffer)), socket.MSG_TRUNC)
            if not count:
                raise RuntimeError("the connection was closed")
            left -= count
            received += count
        return status, headers, received

    def push(self, repository, digest, length, file=None, body=b""):
        status, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, f"POST: {status}"
        path = self.path(headers)
        status, headers, _ = self.request("PATCH", path, length, file, body)
        assert status == 202, f"PATCH: {status}"
        path = self.path(headers)
        path += ("&" if "?" in path else "?") + f"digest={digest}"
        status, _, _ = self.request("PUT", path)
        assert status == 201, f"PUT: {status}"

    def pull(self, repository, digest, length):
        status, _, received = self.request("GET", f"/v2/{repository}/blobs/{digest}")
        assert status == 200 and received == length, f"GET: {status}, {received} bytes"

    @staticmethod
    def path(headers):
        location = headers["location"]
        return location if location.startswith("/") else "/" + location.split("/", 3)[3]


class Side:
    """One of the two registries."""

    def __init__(self, name, address, authorization, repository, pid):
        self.name, self.address, self.authorization = name, address, authorization
        self.repository, self.pid = repository, pid

    def connect(self):
        return Connection(self.address, self.authorization)

def timed(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def spread(connections, items, work):
    """Does the work for all items over several connections at once."""
    failures = []

    def run(connection, mine):
        try:
            for item in mine:
                work(connection, item)
        except Exception as error:  # the thread's end must not hide its failure
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(connection, items[index::len(connections)]))
        for index, connection in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def measure(side, big, big_digest, big_length, small):
    results = {}
    connection = side.connect()
    repository = side.repository
    mb = big_length // 1_000_000
    results[f"push 1 x {mb} MB"] = timed(lambda: connection.push(repository, big_digest, big_length, file=big))
    results[f"pull 1 x {mb} MB"] = timed(lambda: connection.pull(repository, big_digest, big_length))
    half = len(small) // 2
    one, many = small[:half], small[half:]

    def push(connection, item):
        connection.push(repository, item[0], len(item[1]), body=item[1])

    def pull(connection, item):
        connection.pull(repository, item[0], len(item[1]))

    results[f"push {half} small, one by one"] = timed(lambda: spread([connection], one, push))
    connections = [side.connect() for _ in range(8)]
    results[f"push {half} small, 8 at once"] = timed(lambda: spread(connections, many, push))
    results[f"pull {half} small, one by one"] = timed(lambda: spread([connection], one, pull))
    results[f"pull {half} small, 8 at once"] = timed(lambda: spread(connections, many, pull))
    return results


def measure_docker(docker, side, password, archive, megabytes):
    if side.authorization:
        docker.run("login", "--username", "AWS", "--password-stdin", side.address, input=password)
    name = f"{side.address}/{side.repository}:docker"
    docker.run("import", archive, name)
    results = {f"docker push {megabytes} MB": timed(lambda: docker.run("push", name))}
    docker.run("rmi", name)
    results[f"docker pull {megabytes} MB"] = timed(lambda: docker.run("pull", name))
    docker.run("rmi", name)
    return results


class Reference:
    """Debian's docker-registry with its data in a directory."""

    def __init__(self, directory):
        self.address = f"127.0.0.1:{free_port()}"
        config = os.path.join(directory, "config.yml")
        with open(config, "w") as file:
            file.write(
                "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
                f"http: {{addr: {self.address}}}\n"
            )
        self.process = subprocess.Popen(
            ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self):
        host, port = self.address.split(":")
        eventually(lambda: socket.create_connection((host, int(port))).close() or True)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def big_blob(path, length):
    """Fills a file with bytes that nothing compresses; gives their digest."""
    hasher = hashlib.sha256()
    with open(path, "wb") as file:
        left = length
        while left:
            block = os.urandom(min(left, 1 << 20))
            file.write(block)
            hasher.update(block)
            left -= len(block)
    return "sha256:" + hasher.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--small", type=int, default=1000, help="how many small blobs")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with bounded(minutes=20), contextlib.ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="longshore-bench-registry-")
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        reference_registry = Reference(directory)
        stack.callback(reference_registry.stop)
        platform = Platform()
        stack.callback(platform.purge)
        platform.start()
        docker = Docker(own_network=False)
        stack.callback(docker.stop)
        docker.start()
        reference_registry.wait()
        ecr = platform.client("ecr")
        ecr.create_repository(repositoryName="bench")
        token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        password = base64.b64decode(token).decode().split(":", 1)[1]
        ours = Side("longshore", f"127.0.0.1:{platform.port}", f"Basic {token}", "bench", platform.child("server"))
        reference = Side("docker-registry", reference_registry.address, None, "bench", reference_registry.process.pid)
        times = {}
        length = options.megabytes * 1_000_000
        path = os.path.join(directory, "big")
        for round_number in range(options.rounds):
            big_digest = big_blob(path, length)
            small = [os.urandom(2048 + 14 * (index % 1000)) for index in range(options.small)]
            small = [("sha256:" + hashlib.sha256(blob).hexdigest(), blob) for blob in small]
            sides = [ours, reference] if round_number % 2 == 0 else [reference, ours]
            for side in sides:
                # Neither side pays for what the other has left to write.
                os.sync()
                with open(path, "rb") as big:
                    results = measure(side, big, big_digest, length, small)
                archive = os.path.join(directory, f"{side.name}.tar")
                with tarfile.open(archive, "w") as tar, open(path, "rb") as big:
                    # Other content for each side: what the engine has pushed to one it would mount on the other.
                    entry = tarfile.TarInfo(f"{side.name}-{round_number}")
                    entry.size = length // 4
                    tar.addfile(entry, big)
                os.sync()
                results |= measure_docker(docker, side, password, archive, entry.size // 1_000_000)
                for name, seconds in results.items():
                    times.setdefault(name, {}).setdefault(side.name, []).append(seconds)
        print(f"{'':32}{'longshore':>12}{'docker-registry':>18}{'ratio':>8}   (median of {options.rounds})")
        for name, both in times.items():
            mine, theirs = (statistics.median(both[side.name]) for side in (ours, reference))
            print(f"{name:32}{mine:>10.3f} s{theirs:>16.3f} s{theirs / mine:>7.2f}x")
        memory = [resident(side.pid)[2] for side in (ours, reference)]
        print(f"{'peak memory':32}{memory[0]:>8.1f} MiB{memory[1]:>14.1f} MiB")


if __name__ == "__main__":
    main()
