"""Issue points 2 and 3 on the running platform: unserved operations, errors, signatures, bad input (r10, r93)."""

import gzip
import http.client
import json
import pathlib
import re

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.session
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPERATIONS = json.loads((ROOT / "crates/api/operations.json").read_text())
COVERAGE = (ROOT / "docs/coverage.md").read_text()
TARGET = "AmazonEC2ContainerServiceV20141113."


def served(service):
    """The operations that the coverage table calls served."""
    name = botocore.session.Session().get_service_model(service).service_id
    section = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", COVERAGE, re.MULTILINE | re.DOTALL).group(1)
    line = re.search(r"^Served: (.*)\.$", section, re.MULTILINE)
    return set(line.group(1).split(", ")) if line else set()


def without_input(service):
    """The operations that can be called with nothing."""
    model = botocore.session.Session().get_service_model(service)
    for name in OPERATIONS[service]:
        operation = model.operation_model(name)
        if not (operation.input_shape and operation.input_shape.required_members) and not operation.has_event_stream_output:
            yield operation


def failure(call):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return caught.value.response


def signed(platform, service, body=b"{}", path="/", method="POST", headers=None, secret=None, signer=None, **options):
    """Sends bytes of our choice under a signature that is right for them."""
    key, root_secret = platform.keys
    request = botocore.awsrequest.AWSRequest(
        method=method, url=platform.endpoint + path, data=body, headers=dict(headers or {})
    )
    credentials = botocore.credentials.Credentials(key, secret or root_secret)
    (signer or botocore.auth.SigV4Auth)(credentials, service, "us-east-1", **options).add_auth(request)
    sent = request.prepare()
    return raw(platform, sent.method, sent.url.removeprefix(platform.endpoint), dict(sent.headers), body)


def raw(platform, method, target, headers, body=b""):
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=30)
    connection.request(method, target, body=body, headers=headers)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read().decode(errors="replace")


def ecs_headers(operation="ListClusters"):
    return {"X-Amz-Target": TARGET + operation, "Content-Type": "application/x-amz-json-1.1"}


@pytest.mark.parametrize("service", sorted(OPERATIONS))
def test_r10_operations_not_served_say_so_by_name(platform, service):
    client = platform.client(service)
    have = served(service)
    checked = 0
    for operation in without_input(service):
        method = botocore.xform_name(operation.name)
        if operation.name in have:
            if not operation.name.startswith(("Describe", "List", "Get")):
                continue
            try:
                getattr(client, method)()
            except botocore.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] != "UnsupportedOperation", operation.name
        else:
            response = failure(getattr(client, method))
            assert response["Error"]["Code"] == "UnsupportedOperation", operation.name
            expect = f"The operation {operation.name} of {service} is not served by Longshore yet."
            assert response["Error"]["Message"] == expect
            assert response["ResponseMetadata"]["HTTPStatusCode"] == 501
            assert response["ResponseMetadata"]["RequestId"]
        checked += 1
    assert checked or service in ("secretsmanager", "sts", "ssm", "acm", "application-autoscaling")


def test_r10_requests_have_ids_of_their_own(platform):
    client = platform.client("ecs")
    ids = {client.list_clusters()["ResponseMetadata"]["RequestId"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    "service,call,code,status",
    [
        ("ecs", lambda client: client.list_clusters(), "InvalidSignatureException", 400),
        ("iam", lambda client: client.list_roles(), "SignatureDoesNotMatch", 403),
        ("ecr", lambda client: client.describe_repositories(), "InvalidSignatureException", 400),
        ("logs", lambda client: client.describe_log_groups(), "InvalidSignatureException", 400),
        ("elbv2", lambda client: client.describe_load_balancers(), "SignatureDoesNotMatch", 403),
        ("ec2", lambda client: client.describe_vpcs(), "AuthFailure", 401),
    ],
)
def test_r93_a_wrong_secret_is_refused_in_the_services_words(platform, service, call, code, status):
    response = failure(lambda: call(platform.client(service, aws_secret_access_key="wrong" * 8)))
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize(
    "service,call,code",
    [
        ("ecs", lambda client: client.list_clusters(), "UnrecognizedClientException"),
        ("sts", lambda client: client.get_caller_identity(), "InvalidClientTokenId"),
        ("ec2", lambda client: client.describe_vpcs(), "AuthFailure"),
    ],
)
def test_r93_an_unknown_key_is_refused_in_the_services_words(platform, service, call, code):
    response = failure(lambda: call(platform.client(service, aws_access_key_id="AKIAIOSFODNN7EXAMPLE")))
    assert response["Error"]["Code"] == code


def test_r93_requests_without_a_signature_are_refused(platform):
    status, _, body = raw(platform, "POST", "/", ecs_headers(), b"{}")
    assert status == 400 and "MissingAuthenticationTokenException" in body
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = raw(platform, "POST", "/", form, b"Action=ListRoles&Version=2010-05-08")
    assert status == 403 and "<Code>MissingAuthenticationToken</Code>" in body


def test_r10_a_presigned_url_serves_without_headers(platform):
    key, secret = platform.keys
    session = boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")
    client = session.client("sts", endpoint_url=platform.endpoint)
    url = client.generate_presigned_url("get_caller_identity", HttpMethod="GET")
    status, _, body = raw(platform, "GET", url.removeprefix(platform.endpoint), {})
    assert status == 200 and "<Account>123456789012</Account>" in body
    status, _, body = raw(platform, "GET", url.removeprefix(platform.endpoint) + "&Odd=1", {})
    assert status == 403 and "SignatureDoesNotMatch" in body


@pytest.mark.parametrize(
    "body,part",
    [
        (b"{", "not valid JSON"),
        (b'{"maxResults": "many"}', "STRING_VALUE can not be converted to an Integer"),
        (b'{"nextToken": []}', "Start of list found where not expected"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_r93_broken_json_is_refused_and_the_platform_stays_up(platform, body, part):
    status, _, text = signed(platform, "ecs", body, headers=ecs_headers())
    assert status == 400 and "SerializationException" in text and part in text
    assert platform.client("ecs").list_clusters()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_r93_the_wrong_content_type_is_named(platform):
    status, _, body = signed(platform, "ecs", headers={**ecs_headers(), "Content-Type": "text/plain"})
    assert status == 400 and "text/plain" in body and "application/x-amz-json-1.1" in body


def test_r93_a_body_over_the_limit_is_refused(platform):
    status, _, body = signed(platform, "ecs", b" " * (9 << 20), headers=ecs_headers())
    assert status == 413 and "RequestEntityTooLarge" in body


def test_r93_compressed_bodies_are_read_within_bounds(platform):
    headers = {**ecs_headers(), "Content-Encoding": "gzip"}
    status, _, body = signed(platform, "ecs", gzip.compress(b"{}"), headers=headers)
    assert status == 200 and "clusterArns" in body
    status, _, body = signed(platform, "ecs", gzip.compress(bytes(64 << 20)), headers=headers)
    assert status == 413 and "RequestEntityTooLarge" in body


def test_r93_unknown_operations_and_services_are_named(platform):
    status, _, body = signed(platform, "ecs", headers=ecs_headers("FlyToTheMoon"))
    assert status == 400 and "UnknownOperationException" in body and "FlyToTheMoon" in body
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = signed(platform, "iam", b"Action=FlyToTheMoon&Version=2010-05-08", headers=form)
    assert status == 400 and "<Code>InvalidAction</Code>" in body
    status, _, body = signed(platform, "quantum", headers={"X-Amz-Target": "Quantum.Leap"})
    assert status == 501 and "UnsupportedOperation" in body and "quantum" in body


def test_r10_model_violations_are_worded_as_amazon_words_them(platform):
    loose = botocore.config.Config(parameter_validation=False, retries={"max_attempts": 0})
    key, secret = platform.keys

    def client(service):
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=platform.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=loose,
        )

    error = failure(lambda: client("iam").get_role(RoleName="a b"))["Error"]
    assert error["Code"] == "ValidationError"
    assert error["Message"].startswith("1 validation error detected: Value 'a b' at 'roleName' failed to satisfy")
    error = failure(lambda: client("logs").create_log_group(logGroupName="a b"))["Error"]
    assert error["Code"] == "InvalidParameterException"
    assert "Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+" in error["Message"]
    error = failure(lambda: client("ecr").create_repository(repositoryName="UPPER"))["Error"]
    assert error["Code"] == "InvalidParameterException"
    assert error["Message"].startswith("Invalid parameter at 'repositoryName' failed to satisfy constraint:")
    error = failure(lambda: client("ec2").create_security_group(GroupName="g"))["Error"]
    assert (error["Code"], error["Message"]) == ("MissingParameter", "The request must contain the parameter GroupDescription")
