"""Amazon's container agent, as far as a control plane can see it: its requests with their headers, its handshakes with
their parameters, and its frames, one by one, as they were recorded from version 1.105.1. It runs nothing.

Where `agent.py` answers by itself, this one says only what a test lets it say.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import queue
import socket
import struct
import threading
import time
import urllib.parse
import uuid

TARGET = "AmazonEC2ContainerServiceV20141113."
USER_AGENT = "Amazon ECS Agent - v1.105.1 (*a8b3e7d3) (linux; LINUX) (+http://aws.amazon.com/ecs/)"
DOCKER = "20.10.24+dfsg1"

# As registered on Docker 20.10 in external mode.
CAPABILITIES = [
    "com.amazonaws.ecs.capability.privileged-container",
    *(f"com.amazonaws.ecs.capability.docker-remote-api.1.{minor}" for minor in (*range(17, 26), 28, 29, 30, 32)),
    *(f"com.amazonaws.ecs.capability.logging-driver.{driver}" for driver in ("json-file", "none", "awsfirelens")),
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.ecr-auth",
    *(
        f"ecs.capability.{name}"
        for name in (
            "private-registry-authentication.secretsmanager", "secrets.ssm.environment-variables", "secrets.ssm.bootstrap.log-driver",
            "secrets.asm.environment-variables", "secrets.asm.bootstrap.log-driver", "ecr-endpoint", "container-ordering", "full-sync",
            "env-files.s3", "network.container-port-range", "container-restart-policy", "execution-role-ecr-pull", "container-health-check",
            "docker-plugin.local", "firelens.fluentd", "firelens.fluentbit", "logging-driver.awsfirelens.log-driver-buffer-limit",
            "firelens.non-root-user", "firelens.options.config.file", "firelens.options.config.s3", "efs", "storage.s3-files", "external",
            "ipv6-only", "task-cpu-mem-limit", "increased-task-cpu-limit",
        )
    ),
]
PROPERTIES = {"ecs.os-type": "linux", "ecs.os-family": "LINUX", "ecs.os-type-detailed": "LINUX", "ecs.cpu-architecture": "x86_64"}
RESERVED = ["22", "2375", "2376", "51678", "51679"]


def resources(cpu=2048, memory=1900):
    return [
        {"integerValue": cpu, "name": "CPU", "type": "INTEGER"},
        {"integerValue": memory, "name": "MEMORY", "type": "INTEGER"},
        {"name": "PORTS", "stringSetValue": RESERVED, "type": "STRINGSET"},
        {"name": "PORTS_UDP", "stringSetValue": [], "type": "STRINGSET"},
    ]


def authorization(keys, method, host, query, signed, payload, region="us-east-1"):
    """The Authorization header over exactly these headers, by lower-case name."""
    access, secret = keys
    moment = signed["x-amz-date"]
    scope = f"{moment[:8]}/{region}/ecs/aws4_request"
    quote = lambda text: urllib.parse.quote(text, safe="-_.~")
    pairs = sorted((quote(name), quote(value)) for name, value in query)
    headers = {"host": host, **signed}
    names = ";".join(sorted(headers))
    canonical = "\n".join([
        method, "/" if method == "POST" else signed_path(query), "&".join("=".join(pair) for pair in pairs),
        *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, hashlib.sha256(payload).hexdigest(),
    ])
    key = f"AWS4{secret}".encode()
    for part in (moment[:8], region, "ecs", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"


def signed_path(query):
    """ACS and TCS differ by the names of their parameters."""
    return "/acs/ws" if "containerInstanceArn" in dict(query) else "/tcs/ws"


def now():
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


class Refused(Exception):
    """A handshake that was not answered with 101."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.body = status, json.loads(body)


class Session:
    """One WebSocket: what came is in order in `next`."""

    def __init__(self, keys, endpoint, query, region="us-east-1", headers=None, token=None):
        url = endpoint if endpoint.endswith("/") else endpoint + "/"
        parts = urllib.parse.urlsplit(url + "ws?" + urllib.parse.urlencode(query))
        self.host, self.query, self.keys, self.region = parts.netloc, query, keys, region
        signed = {"x-amz-date": now(), **({"x-amz-security-token": token} if token else {})}
        sent = {
            "Host": parts.netloc, "User-Agent": "Go-http-client/1.1", "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), "Sec-WebSocket-Version": "13", "Upgrade": "websocket",
            "Authorization": authorization(keys, "GET", parts.netloc, query, signed, b"", region),
            "X-Amz-Date": signed["x-amz-date"], **({"X-Amz-Security-Token": token} if token else {}), **(headers or {}),
        }
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value)
        self.socket.sendall(head.encode() + b"\r\n")
        self.input = self.socket.makefile("rb")
        status = int(self.input.readline().split()[1])
        answer = {}
        while (line := self.input.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            answer[name.lower()] = value.strip()
        if status != 101:
            raise Refused(status, self.input.read(int(answer.get("content-length", 0))).decode())
        expect = hashlib.sha1(sent["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert answer["sec-websocket-accept"] == base64.b64encode(expect).decode()
        assert answer["upgrade"].lower() == "websocket" and answer["connection"].lower() == "upgrade"
        assert "sec-websocket-protocol" not in answer and "sec-websocket-extensions" not in answer
        self.answer = answer
        self.socket.settimeout(None)
        self.lock = threading.Lock()
        self.came = queue.Queue()
        # The code of the close frame; None when the connection just ended.
        self.closed_with = None
        self.over = threading.Event()
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        try:
            while len(head := self.input.read(2)) == 2:
                assert not head[1] & 0x80, "a server does not mask"
                length = head[1] & 0x7F
                if length > 125:
                    length = int.from_bytes(self.input.read(2 if length == 126 else 8), "big")
                data = self.input.read(length)
                opcode = head[0] & 0xF
                if opcode == 8:
                    self.closed_with = struct.unpack(">H", data[:2])[0] if data else 1005
                    self.frame(8, data[:2])
                    break
                assert opcode in (1, 9, 10), f"opcode {opcode}"
                if opcode == 9:
                    self.frame(10, data)
                elif opcode == 10:
                    self.came.put(("pong", data))
                else:
                    envelope = json.loads(data)
                    assert set(envelope) == {"type", "message"}, envelope
                    self.came.put((envelope["type"], envelope["message"]))
        except (OSError, ValueError):
            pass
        finally:
            self.over.set()
            self.came.put(None)

    def raw(self, data):
        with self.lock:
            self.socket.sendall(data)

    def frame(self, opcode, data, final=True):
        try:
            self.raw(frame(opcode, data, final))
        except OSError:
            pass

    def say(self, kind, **message):
        """Sends an envelope as it is on ACS."""
        self.frame(1, json.dumps({"type": kind, "message": message}, separators=(",", ":")).encode())

    def publish(self, kind, **message):
        """Sends an envelope as it is on TCS: below a block of headers that sign it."""
        body = json.dumps({"type": kind, "message": message}, separators=(",", ":"))
        signed = {"x-amz-date": now()}
        header = authorization(self.keys, "GET", self.host, self.query, signed, body.encode(), self.region)
        block = f"Authorization: {header}\r\nHost: {self.host}\r\nX-Amz-Date: {signed['x-amz-date']}\r\n\r\n"
        self.frame(1, (block + body).encode())

    def next(self, *kinds, timeout=30):
        """The next message of one of these types; heartbeats are answered on the way, others must not come before."""
        end = time.monotonic() + timeout
        while True:
            came = self.came.get(timeout=max(end - time.monotonic(), 0.01))
            assert came is not None, f"the session ended with {self.closed_with} before {kinds} came"
            if came[0] in kinds:
                return came[1] if len(kinds) == 1 else came
            assert came[0] == "HeartbeatMessage", f"{came} came before {kinds}"
            self.heartbeat(came[1])

    def heartbeat(self, message):
        """TCS heartbeats carry no id and get no answer."""
        if "messageId" in message:
            self.say("HeartbeatAckRequest", messageId=message["messageId"])

    def quiet(self, seconds):
        """Nothing but heartbeats comes in this time."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            try:
                came = self.came.get(timeout=rest)
            except queue.Empty:
                return
            assert came is not None and came[0] == "HeartbeatMessage", came
            self.heartbeat(came[1])

    def ended(self, timeout=30):
        """Waits for the end; gives the close frame's code."""
        assert self.over.wait(timeout), "the session goes on"
        return self.closed_with

    def close(self, code=1000, reason="ConnectionExpired: Reconnect to continue"):
        """As the agent does every half an hour."""
        self.frame(8, struct.pack(">H", code) + reason.encode())
        self.over.wait(10)
        self.drop()

    def drop(self):
        """As a cut line."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def frame(opcode, data, final=True, length=None):
    """A client's frame; `length` is what its head claims."""
    length = len(data) if length is None else length
    mask = os.urandom(4)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 1 << 16:
        size = b"\xfe" + struct.pack(">H", length)
    else:
        size = b"\xff" + struct.pack(">Q", length)
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    masked = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big") if data else b""
    return bytes([(0x80 if final else 0) | opcode]) + size + mask + masked


class AmazonsAgent:
    """A process of the agent: its configuration, and what it has in its data directory."""

    def __init__(self, platform, cluster, attributes=None, keys=None, region="us-east-1", capabilities=(), properties=None, gpus=()):
        self.platform, self.cluster, self.region = platform, cluster, region
        self.keys = keys or platform.keys
        self.custom = attributes or {}
        self.capabilities = [name for name in [*CAPABILITIES, *capabilities]]
        self.properties = {**PROPERTIES, **(properties or {})}
        # With ECS_ENABLE_GPU_SUPPORT.
        self.gpus = list(gpus)
        self.token = str(uuid.uuid4())
        self.arn = None
        self.highest = 0
        self.endpoints = None

    def call(self, operation, body):
        """One request of the agent: the status and the document of the answer."""
        data = json.dumps(body, separators=(",", ":")).encode()
        host = f"127.0.0.1:{self.platform.port}"
        signed = {
            "amz-sdk-invocation-id": str(uuid.uuid4()), "amz-sdk-request": "attempt=1; max=3", "content-length": str(len(data)),
            "content-type": "application/x-amz-json-1.1", "x-amz-date": now(), "x-amz-target": TARGET + operation,
        }
        headers = {
            "Host": host, "User-Agent": USER_AGENT, "Content-Length": str(len(data)),
            "Amz-Sdk-Invocation-Id": signed["amz-sdk-invocation-id"], "Amz-Sdk-Request": signed["amz-sdk-request"],
            "Authorization": authorization(self.keys, "POST", host, [], signed, data, self.region),
            "Content-Type": signed["content-type"], "X-Amz-Date": signed["x-amz-date"], "X-Amz-Target": signed["x-amz-target"],
            "Accept-Encoding": "gzip",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=42)
        connection.putrequest("POST", "/", skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        text = response.read()
        if response.getheader("Content-Encoding") == "gzip":
            import gzip

            text = gzip.decompress(text)
        return response.status, json.loads(text)

    def right(self, operation, body):
        status, answer = self.call(operation, body)
        assert status == 200, (status, answer)
        return answer

    def wrong(self, operation, body):
        """The type and the message of the error, whose status the agent's SDK must not retry."""
        status, answer = self.call(operation, body)
        assert 400 <= status < 500, (status, answer)
        return answer["__type"].rsplit("#", 1)[-1], answer.get("message", answer.get("Message"))

    def registration(self):
        """The request: again with the ARN it remembers, then without the custom attributes."""
        custom = {} if self.arn else self.custom
        return {
            **({"containerInstanceArn": self.arn} if self.arn else {}),
            "attributes": [
                *({"name": name, "value": value} for name, value in custom.items()),
                *({"name": name} for name in self.capabilities),
                *({"name": name, "value": value} for name, value in self.properties.items()),
            ],
            "clientToken": self.token, "cluster": self.cluster, "instanceIdentityDocument": "",
            "instanceIdentityDocumentSignature": "", "totalResources": resources(),
            **({"platformDevices": [{"id": gpu, "type": "GPU"} for gpu in self.gpus]} if self.gpus else {}),
        }

    def register(self):
        request = self.registration()
        instance = self.right("RegisterContainerInstance", request)["containerInstance"]
        # The agent exits if any attribute that it sent does not come back with the same value.
        came = {attribute["name"]: attribute.get("value") or "" for attribute in instance["attributes"]}
        sent = {attribute["name"]: attribute.get("value", "") for attribute in request["attributes"]}
        assert {name: came.get(name) for name in sent} == sent
        assert came["ecs.availability-zone"]
        self.arn = instance["containerInstanceArn"]
        return instance

    def discover(self):
        """Asked once in twelve hours."""
        if not self.endpoints:
            body = {"cluster": self.cluster, "containerInstance": self.arn, "zoneId": ""}
            answer = self.right("DiscoverPollEndpoint", body)
            self.endpoints = answer["endpoint"], answer["telemetryEndpoint"]
        return self.endpoints

    def acs(self, send_credentials=True, **other):
        """Opens the ACS session. `other` is what a test says otherwise."""
        query = {
            "agentHash": "a8b3e7d3", "agentVersion": "1.105.1", "clusterArn": self.cluster, "containerInstanceArn": self.arn,
            "dockerVersion": f"DockerVersion: {DOCKER}", "protocolVersion": "2",
            "sendCredentials": "true" if send_credentials else "false", "seqNum": "1", **other,
        }
        return Session(self.keys, self.discover()[0], sorted(query.items()), self.region)

    def tcs(self, **other):
        query = {
            "agentHash": "a8b3e7d3", "agentVersion": "1.105.1", "cluster": self.cluster, "containerInstance": self.arn,
            "dockerVersion": DOCKER, **other,
        }
        return Session(self.keys, self.discover()[1], sorted(query.items()), self.region)

    def greeted(self, session):
        """Takes the manifest that follows whatever a session begins with; gives it and the payloads before it."""
        payloads = []
        while True:
            kind, message = session.next("PayloadMessage", "TaskManifestMessage", "IAMRoleCredentialsMessage")
            if kind == "IAMRoleCredentialsMessage":
                continue
            if kind == "TaskManifestMessage":
                self.check_manifest(message)
                self.ack(session, message)
                return message, payloads
            payloads.append(self.take(session, message))

    def ack(self, session, message):
        session.say("AckRequest", cluster=self.cluster, containerInstance=self.arn, messageId=message["messageId"])

    def payload(self, session, timeout=30):
        return self.take(session, session.next("PayloadMessage", timeout=timeout))

    def take(self, session, message, ack=True):
        """What the agent needs of a payload; acknowledged as it does."""
        assert message["messageId"] and message["clusterArn"] and message["containerInstanceArn"] == self.arn, message
        assert isinstance(message["generatedAt"], int) and message["seqNum"] > self.highest, (message, self.highest)
        self.highest = message["seqNum"]
        for task in message["tasks"]:
            assert task["desiredStatus"] in ("RUNNING", "STOPPED") and task["arn"].startswith("arn:aws:ecs:"), task
            if ack and task["desiredStatus"] == "RUNNING":
                for name in ("roleCredentials", "executionRoleCredentials"):
                    if credentials := task.get(name):
                        self.ack_credentials(session, message, credentials)
        if ack:
            self.ack(session, message)
        return message

    def ack_credentials(self, session, message, credentials):
        session.say(
            "IAMRoleCredentialsAckRequest", credentialsId=credentials["credentialsId"], expiration=credentials["expiration"],
            messageId=message["messageId"],
        )

    def check_manifest(self, message):
        """The agent ignores a manifest that is not newer than everything it has seen."""
        assert message["messageId"] and message["clusterArn"] and message["containerInstanceArn"] == self.arn, message
        assert isinstance(message["timeline"], int) and message["timeline"] > self.highest, (message, self.highest)
        self.highest = message["timeline"]
        assert all(set(task) >= {"taskArn", "taskClusterArn", "desiredStatus"} for task in message["tasks"]), message

    def change(self, task, status, containers=(), reason="", **more):
        """The body of SubmitTaskStateChange."""
        return {"cluster": self.cluster, "containers": list(containers), "reason": reason, "status": status, "task": task, **more}

    def report(self, *arguments, **more):
        answer = self.right("SubmitTaskStateChange", self.change(*arguments, **more))
        assert isinstance(answer["acknowledgment"], str) and answer["acknowledgment"], answer
