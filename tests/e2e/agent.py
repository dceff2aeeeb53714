"""An agent that speaks Amazon's protocol and runs nothing: it says of each task what a host would say.

It registers, holds the ACS session open, acknowledges what it is sent, and reports RUNNING and STOPPED with the ports that
a host would have found. What is tested with it is the control plane's side, with as many instances as one likes.
"""

import base64
import json
import os
import socket
import struct
import threading
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

CAPABILITIES = [
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.task-iam-role",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
]


class Agent:
    """A container instance. `attributes` (name to value) are added to the usual capabilities. With `hold` it takes tasks and
    says nothing of them."""

    def __init__(self, platform, cluster, cpu=2048, memory=1900, zone="us-east-1a", ports=(22, 51678), hold=False, attributes=None):
        self.platform = platform
        self.cluster = cluster
        self.ecs = platform.client("ecs")
        self.hold = hold
        self.sent = []
        self.next_port = 32768
        self.lock = threading.Lock()
        resources = [
            {"name": "CPU", "type": "INTEGER", "integerValue": cpu},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": memory},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": [str(port) for port in ports]},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
        ]
        named = [{"name": name} for name in CAPABILITIES] + [{"name": "ecs.availability-zone", "value": zone}]
        named += [{"name": name, "value": value} for name, value in (attributes or {}).items()]
        answer = self.ecs.register_container_instance(cluster=cluster, totalResources=resources, attributes=named)
        self.arn = answer["containerInstance"]["containerInstanceArn"]
        self.id = self.arn.rsplit("/", 1)[1]
        self.socket = None
        self.connect()

    def connect(self):
        """Opens the ACS session and follows it."""
        where = self.ecs.discover_poll_endpoint(cluster=self.cluster, containerInstance=self.arn)["endpoint"]
        query = urllib.parse.urlencode({
            "agentHash": "test", "agentVersion": "1.92.0", "clusterArn": self.cluster, "containerInstanceArn": self.arn,
            "dockerVersion": "DockerVersion: 20.10.24", "protocolVersion": "2", "sendCredentials": "true", "seqNum": "1",
        }, quote_via=urllib.parse.quote)
        url = f"{where}ws?{query}"
        request = AWSRequest(method="GET", url=url)
        access, secret = self.platform.keys
        SigV4Auth(Credentials(access, secret), "ecs", "us-east-1").add_auth(request)
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        headers = {
            "Host": parts.netloc, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), **dict(request.headers.items()),
        }
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(head.encode() + b"\r\n")
        self.input = self.socket.makefile("rb")
        status = self.input.readline()
        answer = b""
        while (line := self.input.readline()) not in (b"\r\n", b""):
            answer += line
        assert b" 101 " in status, status + answer
        self.socket.settimeout(None)
        threading.Thread(target=self.follow, args=(self.socket, self.input), daemon=True).start()

    def disconnect(self):
        """Ends the session as a cut line does."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def send_frame(self, text, opcode=1):
        data, mask = text.encode(), os.urandom(4)
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        with self.lock:
            self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def send(self, kind, **message):
        self.send_frame(json.dumps({"type": kind, "message": message}))

    def follow(self, connection, source):
        try:
            while head := source.read(2):
                length = head[1] & 0x7F
                if length == 126:
                    length = struct.unpack(">H", source.read(2))[0]
                elif length == 127:
                    length = struct.unpack(">Q", source.read(8))[0]
                data = source.read(length)
                if head[0] & 0xF == 8:
                    break
                if head[0] & 0xF == 1:
                    self.receive(json.loads(data))
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def receive(self, envelope):
        kind, message = envelope["type"], envelope["message"]
        if kind == "HeartbeatMessage":
            self.send("HeartbeatAckRequest", messageId=message["messageId"])
        elif kind == "PayloadMessage":
            self.sent += message["tasks"]
            self.send("AckRequest", cluster=self.cluster, containerInstance=self.arn, messageId=message["messageId"])
            if not self.hold:
                for task in message["tasks"]:
                    self.report(task)

    def report(self, task):
        """Says of a task what it was told to become."""
        status = task["desiredStatus"]
        containers = [
            {"containerName": container["name"], "status": status, "networkBindings": self.bindings(container)}
            for container in task.get("containers", [])
        ]
        self.ecs.submit_task_state_change(cluster=self.cluster, task=task["arn"], status=status, containers=containers)

    def bindings(self, container):
        found = []
        for mapping in container.get("portMappings") or []:
            port = mapping["hostPort"]
            if not port:
                port, self.next_port = self.next_port, self.next_port + 1
            found.append({"bindIP": "0.0.0.0", "containerPort": mapping["containerPort"], "hostPort": port, "protocol": mapping["protocol"]})
        return found
