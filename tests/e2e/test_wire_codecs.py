"""Issue point 2: five codecs against botocore, for every operation, in both directions (r10)."""

import base64
import random

import botocore.parsers
import botocore.serialize
import pytest
from botocore.awsrequest import create_request_object, prepare_request_dict

from codec_echo import OPERATIONS, Echo, Generator, canonical, is_stream, model, operations, protocols, signing_name

ROUNDS = 3
CASES = [(service, protocol) for service in sorted(OPERATIONS) for protocol in protocols(service)]


@pytest.fixture(scope="module")
def echo():
    program = Echo()
    yield program
    program.close()


def without_stream(shape):
    return not any(is_stream(member) for member in shape.members.values())


def prepared(operation, protocol, value):
    """The HTTP request botocore would send."""
    serializer = botocore.serialize.create_serializer(protocol, include_validation=False)
    request = serializer.serialize_to_request(value, operation)
    prepare_request_dict(request, endpoint_url="http://localhost:4580")
    sent = create_request_object(request).prepare()
    path, _, query = sent.url.removeprefix("http://localhost:4580").partition("?")
    body = sent.body or b""
    body = body.encode() if isinstance(body, str) else bytes(body)
    headers = {name: text.decode() if isinstance(text, bytes) else text for name, text in sent.headers.items()}
    return {"method": sent.method, "path": path, "query": query, "headers": headers, "body": body}


@pytest.mark.parametrize("service,protocol", CASES)
def test_r10_requests_of_botocore_are_read(echo, service, protocol):
    checked = 0
    for operation in operations(service):
        for seed in range(ROUNDS):
            generator = Generator(f"{service}.{operation.name}.{seed}", protocol)
            shape = operation.input_shape
            value = generator.value(shape) if shape else {}
            request = prepared(operation, protocol, value)
            answer = echo.ask(do="decode-request", check=False, signing_name=signing_name(service), **request)
            expect = canonical(shape, value) if shape else {}
            assert answer.get("value") == expect, (operation.name, seed, answer)
            assert (answer["service"], answer["operation"]) == (service, operation.name)
            checked += 1
    assert checked == ROUNDS * len(OPERATIONS[service])


@pytest.mark.parametrize("service,protocol", CASES)
def test_r10_answers_are_read_by_botocore(echo, service, protocol):
    parser = botocore.parsers.create_parser(protocol)
    for operation in operations(service):
        shape = operation.output_shape
        if shape is not None and not without_stream(shape):
            continue
        for seed in range(ROUNDS):
            generator = Generator(f"{service}.{operation.name}.{seed}", protocol, outgoing=True)
            value = generator.value(shape) if shape else {}
            sent = canonical(shape, value) if shape else {}
            answer = echo.ask(
                do="encode-response",
                service=service,
                operation=operation.name,
                protocol=protocol,
                json_version=model(service).metadata.get("jsonVersion", "1.1"),
                value=sent,
            )
            response = {
                "status_code": answer["status"],
                "headers": answer["headers"],
                "body": base64.b64decode(answer["body"]),
                "context": {"operation_name": operation.name},
            }
            parsed = parser.parse(response, shape)
            metadata = parsed.pop("ResponseMetadata", {})
            assert metadata.get("HTTPHeaders", {}).get("x-amzn-requestid") == "request-1"
            assert answer["status"] == int(operation.http.get("responseCode", 200))
            if protocol in ("query", "ec2"):
                assert metadata["RequestId"] == "request-1"
            got = canonical(shape, parsed) if shape else {}
            assert got == sent, (operation.name, seed, difference(got, sent))
            back = echo.ask(
                do="decode-response",
                service=service,
                operation=operation.name,
                status=answer["status"],
                headers=answer["headers"],
                body=answer["body"],
            )
            assert back["value"] == sent, (operation.name, seed)


@pytest.mark.parametrize("service,protocol", CASES)
def test_r10_requests_of_our_client_are_read(echo, service, protocol):
    for operation in operations(service):
        shape = operation.input_shape
        generator = Generator(f"client.{service}.{operation.name}", protocol)
        value = canonical(shape, generator.value(shape)) if shape else {}
        version = model(service).metadata.get("jsonVersion", "1.1")
        request = echo.ask(
            do="encode-request",
            service=service,
            operation=operation.name,
            protocol=protocol,
            json_version=version,
            value=value,
        )
        answer = echo.ask(do="decode-request", check=False, signing_name=signing_name(service), **request)
        assert answer.get("value") == value, (operation.name, request, answer)


@pytest.mark.parametrize("service,protocol", CASES)
def test_r10_errors_are_read_by_botocore(echo, service, protocol):
    parser = botocore.parsers.create_parser(protocol)
    described = model(service)
    for operation in operations(service):
        shapes = {shape.name: shape for shape in operation.error_shapes}
        for name in [*shapes, "SomethingElse"]:
            text = f'The "thing" <{name}> & more was not found; é.'
            answer = echo.ask(
                do="encode-error",
                service=service,
                operation=operation.name,
                protocol=protocol,
                error=name,
                message=text,
            )
            shape = shapes.get(name)
            trait = shape.metadata.get("error", {}) if shape else {}
            fault = bool(shape and shape._shape_model.get("fault"))
            assert answer["status"] == trait.get("httpStatusCode", 500 if fault else 400)
            response = {
                "status_code": answer["status"],
                "headers": answer["headers"],
                "body": base64.b64decode(answer["body"]),
                "context": {"operation_name": operation.name},
            }
            parsed = parser.parse(response, operation.output_shape or described.shape_for(operation.input_shape.name))
            query_code = trait.get("code", name)
            compatible = described.is_query_compatible or protocol in ("query", "ec2")
            assert parsed["Error"]["Code"] == (query_code if compatible else name), (operation.name, response)
            assert parsed["Error"]["Message"] == text


@pytest.mark.parametrize("service", sorted(OPERATIONS))
def test_r93_broken_requests_are_refused_with_amazons_codes(echo, service):
    generator = random.Random(service)
    for protocol in protocols(service):
        parser = botocore.parsers.create_parser(protocol)
        for operation in operations(service):
            shape = operation.input_shape
            if not shape or not shape.members:
                continue
            value = Generator(f"broken.{service}.{operation.name}", protocol).value(shape)
            request = prepared(operation, protocol, value)
            body = bytearray(request["body"])
            if not body or body in (b"{}", b"\xa0"):
                continue
            # A cut body, and one with a changed byte: read as something or refused, never a crash.
            for broken in (bytes(body[: len(body) // 2]), flipped(body, generator)):
                answer = echo.ask(
                    do="decode-request", signing_name=signing_name(service), **{**request, "body": broken}
                )
                if "error" in answer:
                    error = answer["error"]
                    assert 400 <= error["status"] < 500
                    response = {
                        "status_code": error["status"],
                        "headers": error["headers"],
                        "body": base64.b64decode(error["body"]),
                        "context": {"operation_name": operation.name},
                    }
                    parsed = parser.parse(response, operation.output_shape or shape)
                    assert parsed["Error"]["Code"] and parsed["Error"]["Message"]
            if protocol in ("json", "rest-json", "smithy-rpc-v2-cbor"):
                cut = {**request, "body": bytes(body[: len(body) // 2])}
                assert "error" in echo.ask(do="decode-request", signing_name=signing_name(service), **cut)


def difference(left, right, path=""):
    """The first place where two canonical values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *right]:
            if left.get(key) != right.get(key):
                return difference(left.get(key), right.get(key), f"{path}.{key}")
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, two) in enumerate(zip(left, right)):
            if one != two:
                return difference(one, two, f"{path}[{index}]")
    return path, left, right


def flipped(body, generator):
    copy = bytearray(body)
    copy[generator.randrange(len(copy))] ^= 1 << generator.randrange(8)
    return bytes(copy)
