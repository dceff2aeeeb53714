"""The registry under crashes, broken connections and large layers."""

import base64
import hashlib
import http.client
import os
import signal
import subprocess
import threading

from conftest import eventually


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Client:
    """The registry's HTTP API as an engine uses it."""

    def __init__(self, platform, repository):
        self.platform, self.repository = platform, repository
        ecr = platform.client("ecr")
        if repository not in [r["repositoryName"] for r in ecr.describe_repositories()["repositories"]]:
            ecr.create_repository(repositoryName=repository)
        self.token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        assert base64.b64decode(self.token).startswith(b"AWS:")

    def send(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=120)
        try:
            connection.request(method, path, body=body, headers={"Authorization": f"Basic {self.token}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def begin(self):
        status, headers, _ = self.send("POST", f"/v2/{self.repository}/blobs/uploads/")
        assert status == 202
        return headers["Location"]

    def blob(self, digest):
        return self.send("GET", f"/v2/{self.repository}/blobs/{digest}")

    def offset(self, location):
        """How many bytes an upload has."""
        status, headers, _ = self.send("GET", location)
        assert status == 204, status
        last = headers["Range"].split("-")[1]
        return int(last) + 1 if last != "0" else 0


def test_r83_an_upload_goes_on_after_the_server_was_killed(own_platform):
    platform = own_platform()
    client = Client(platform, "demo")
    content = os.urandom(8_000_000)
    location = client.begin()
    status, _, _ = client.send("PATCH", location, content[:3_000_000])
    assert status == 202
    os.kill(platform.child("server"), signal.SIGKILL)
    eventually(lambda: client.send("GET", "/v2/")[0] == 200)
    assert client.offset(location) == 3_000_000
    status, _, _ = client.send("PATCH", location, content[3_000_000:], **{"Content-Range": "3000000-7999999"})
    assert status == 202
    assert client.send("PUT", f"{location}?digest={digest_of(content)}")[0] == 201
    assert client.blob(digest_of(content))[2] == content


def test_r83_a_killed_upload_leaves_nothing_visible(own_platform):
    platform = own_platform()
    client = Client(platform, "demo")
    content = os.urandom(4_000_000)
    digest = digest_of(content)
    location = client.begin()

    class Endless:
        """Sends the whole layer, and then never ends, so that the server is killed in the middle of the request."""

        def __init__(self):
            self.stop = threading.Event()

        def __iter__(self):
            yield content
            self.stop.wait(60)

    body = Endless()

    def push():
        try:
            client.send("PUT", f"{location}?digest={digest}", body)
        except (OSError, http.client.HTTPException):
            pass  # The server is gone: that is the point.

    thread = threading.Thread(target=push)
    thread.start()
    uploads = os.path.join(platform.data, "registry", "uploads")
    eventually(lambda: any(entry.stat().st_size > 1 << 20 for entry in os.scandir(uploads)))
    os.kill(platform.child("server"), signal.SIGKILL)
    body.stop.set()
    thread.join()
    eventually(lambda: client.send("GET", "/v2/")[0] == 200)
    assert client.blob(digest)[0] == 404
    # Nothing is in the way of pushing it again.
    assert client.send("POST", f"/v2/demo/blobs/uploads/?digest={digest}", content)[0] == 201
    assert client.blob(digest)[2] == content


def test_r83_what_was_acknowledged_survives_a_kill(own_platform):
    platform = own_platform()
    client = Client(platform, "demo")
    acknowledged = []
    killed = threading.Event()

    def push():
        while not killed.is_set():
            content = os.urandom(20_000)
            try:
                status, _, _ = client.send("POST", f"/v2/demo/blobs/uploads/?digest={digest_of(content)}", content)
            except (OSError, http.client.HTTPException):
                return
            if status == 201:
                acknowledged.append(content)

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 50)
    os.kill(platform.child("server"), signal.SIGKILL)
    killed.set()
    for thread in threads:
        thread.join()
    eventually(lambda: client.send("GET", "/v2/")[0] == 200)
    for content in acknowledged:
        assert client.blob(digest_of(content))[2] == content


def test_r83_memory_stays_flat_for_a_layer_of_five_gibibytes(own_platform):
    platform = own_platform()
    client = Client(platform, "large")
    block, chunks, each = bytes(range(256)) * 4096, 5, 1024
    # Of all of it: known beforehand, so that this side need not hash as well.
    digest = "sha256:5a6379450cdf4829e66a9f2a313988b9a072b20925c0e0cc109bda4c3c9377e1"

    def most():
        """The most memory that the server ever had, in MiB."""
        with open(f"/proc/{platform.child('server')}/status") as status:
            return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) // 1024

    before = most()
    location = client.begin()
    for number in range(chunks):
        first, length = number * each << 20, each << 20
        span = {"Content-Length": str(length), "Content-Range": f"{first}-{first + length - 1}"}
        status, _, _ = client.send("PATCH", location, (block for _ in range(each)), **span)
        assert status == 202
    assert client.send("PUT", f"{location}?digest={digest}")[0] == 201
    # What went through is five gibibytes; what stayed of it are a few batches.
    assert most() - before < 64, (before, most())
    url = f"{platform.endpoint}/v2/large/blobs/{digest}"
    pulled = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", "-H", f"Authorization: Basic {client.token}", url], capture_output=True, text=True, timeout=120)
    assert pulled.stdout == f"200 {chunks * each << 20}", pulled
    assert most() - before < 64, (before, most())
