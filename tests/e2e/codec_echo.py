"""The codecs of the platform as a program, and random values for any shape of Amazon's models.

Values travel as JSON under the model's member names: blobs as base64, timestamps as milliseconds.
"""

import base64
import datetime
import json
import os
import pathlib
import random
import string
import subprocess

import botocore.session

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPERATIONS = json.loads((ROOT / "crates/api/operations.json").read_text())
SESSION = botocore.session.Session()


def binary():
    """The example program, built in the profile that everything else uses."""
    named = os.environ.get("LONGSHORE_CODEC_ECHO")
    if named:
        return named
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    # Selected as `cargo test --workspace` selects it, so that CI does not build its dependencies twice.
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--workspace", "--example", "codec-echo"],
        cwd=ROOT,
        check=True,
    )
    return str(target / "release/examples/codec-echo")


class Echo:
    """One running codec-echo. Questions and answers are one line each."""

    def __init__(self):
        self.process = subprocess.Popen(
            [binary()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, **question):
        body = question.get("body")
        if isinstance(body, (bytes, bytearray)):
            question["body"] = base64.b64encode(body).decode()
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"codec-echo died on {question}"
        answer = json.loads(line)
        assert "problem" not in answer, (answer, question)
        return answer

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


def model(service):
    return SESSION.get_service_model(service)


def operations(service):
    """The operation models we have shapes for."""
    described = model(service)
    return [described.operation_model(name) for name in sorted(OPERATIONS[service])]


def signing_name(service):
    return model(service).signing_name


class Generator:
    """Random values that fit a shape. The same seed gives the same values."""

    def __init__(self, seed, protocol, outgoing=False):
        self.random = random.Random(seed)
        # Forms cannot say an empty list or structure.
        self.empties = protocol not in ("query", "ec2")
        self.whole_seconds = protocol in ("json", "rest-json") and not outgoing
        self.xml = protocol in ("query", "ec2") and outgoing

    def value(self, shape, depth=0):
        return getattr(self, "make_" + shape.type_name)(shape, depth)

    def make_structure(self, shape, depth):
        if shape.metadata.get("document") or getattr(shape, "is_document_type", False):
            return {"a": [1, "x", None], "b": {"c": True}}
        names = [n for n, m in shape.members.items() if not is_stream(m) and not (depth > 4 and is_nested(m))]
        required = [n for n in shape.required_members if n in names]
        if getattr(shape, "is_tagged_union", False):
            chosen = [self.random.choice(names)] if names else []
        else:
            chance = 0.9 if depth < 2 else 0.4
            chosen = [n for n in names if n in required or self.random.random() < chance]
            if not chosen and names and not self.empties:
                chosen = [self.random.choice(names)]
        out = {}
        for name in names:
            if name in chosen:
                value = self.value(shape.members[name], depth + 1)
                if self.empties or value not in ([], {}):
                    out[name] = value
        return out

    def make_list(self, shape, depth):
        least = max(shape.metadata.get("min", 0), 0 if self.empties else 1)
        size = max(least, self.random.randint(0, 3 if depth < 3 else 1))
        items = [self.value(shape.member, depth + 1) for _ in range(min(size, 12))]
        return [item for item in items if self.empties or item not in ([], {})]

    def make_map(self, shape, depth):
        size = self.random.randint(0 if self.empties else 1, 3)
        return {self.make_string(shape.key, depth): self.value(shape.value, depth + 1) for _ in range(size)}

    def make_string(self, shape, depth):
        if getattr(shape, "enum", None):
            return self.random.choice(shape.enum)
        letters = string.ascii_letters + string.digits + " &<>\"'=+%/:,.;-_~\n\té日😀"
        size = self.random.randint(1, 12)
        text = "".join(self.random.choice(letters) for _ in range(size))
        return text.strip() or "x"

    make_character = make_string

    def make_integer(self, shape, depth):
        return self.random.choice([0, 1, -1, 2**31 - 1, -(2**31), self.random.randint(-1000, 1000)])

    def make_long(self, shape, depth):
        return self.random.choice([0, -1, 2**63 - 1, -(2**63), self.random.randint(-(10**12), 10**12)])

    def make_double(self, shape, depth):
        return self.random.choice([0.5, -1.25, 1e300, 1e-7, self.random.uniform(-1e6, 1e6)])

    def make_float(self, shape, depth):
        return self.random.choice([0.5, -1.25, 1024.0])

    def make_boolean(self, shape, depth):
        return self.random.random() < 0.5

    def make_blob(self, shape, depth):
        return bytes(self.random.getrandbits(8) for _ in range(self.random.randint(1, 20)))

    def make_timestamp(self, shape, depth):
        seconds = self.random.randint(0, 4_000_000_000)
        millis = 0 if self.whole_seconds else self.random.choice([0, 0, 120, 999])
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return moment + datetime.timedelta(seconds=seconds, milliseconds=millis)


def is_nested(shape):
    if shape.type_name == "list":
        return is_nested(shape.member)
    if shape.type_name == "map":
        return is_nested(shape.value)
    return shape.type_name == "structure"


def is_stream(shape):
    return bool(shape.serialization.get("eventstream"))


def canonical(shape, value):
    """A botocore value as codec-echo shows it."""
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        return {name: canonical(shape.members[name], item) for name, item in value.items()}
    if kind == "list":
        return [canonical(shape.member, item) for item in value]
    if kind == "map":
        return {key: canonical(shape.value, item) for key, item in value.items()}
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind == "timestamp":
        return round(value.timestamp() * 1000)
    return value


def protocols(service):
    return model(service).metadata["protocols"]
