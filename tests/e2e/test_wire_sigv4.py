"""Issue point 3: SigV4 against botocore's own signers, both ways (r10, r93)."""

import base64
import datetime
import urllib.parse
from unittest import mock

import botocore.auth
import botocore.compat
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from codec_echo import Echo

NOW = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.timezone.utc)
NOW_MILLIS = int(NOW.timestamp() * 1000)
KEY, SECRET = "AKIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MINUTES = 60_000

TARGETS = [
    "/",
    "/?a=1&b=2",
    "/?b=2&a=1&a=0",
    "/?empty=&novalue",
    "/?space=a%20b&slash=%2F&tilde=~&plus=%2B&star=%2A",
    "/?key%20with=v%C3%A9",
    "/2015-02-01/file-systems/fs-1",
    "/2015-02-01/resource-tags/arn%3Aaws%3Aefs%3Aus-east-1%3A1%3Afile-system%2Ffs-1",
    "/a//b/./c/../d/",
    "/caf%C3%A9/%7Etilde",
]


@pytest.fixture(scope="module")
def echo():
    program = Echo()
    yield program
    program.close()


@pytest.fixture(autouse=True)
def clock():
    """Botocore signs with its own clock; the tests need a known one."""
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=NOW, create=True):
        with mock.patch.object(botocore.compat, "get_current_datetime", return_value=NOW, create=True):
            yield


def signed(signer, target, method="POST", body=b"{}", headers=None, token=None, service="ecs", **options):
    """A request botocore signed, as the server sees it."""
    request = AWSRequest(method=method, url="http://localhost:4580" + target, data=body, headers=headers or {})
    signer(Credentials(KEY, SECRET, token), service, "eu-west-1", **options).add_auth(request)
    sent = request.prepare()
    path, _, query = sent.url.removeprefix("http://localhost:4580").partition("?")
    found = {name: text.decode() if isinstance(text, bytes) else text for name, text in sent.headers.items()}
    found.setdefault("Host", "localhost:4580")
    return {"method": method, "path": path, "query": query, "headers": found, "body": body}


def verify(echo, request, now=NOW_MILLIS, secret=SECRET, name="ecs"):
    return echo.ask(do="verify", now=now, secret=secret, signing_name=name, **request)


def code(answer, status):
    assert answer["error"]["status"] == status, answer
    return base64.b64decode(answer["error"]["body"]).decode()


@pytest.mark.parametrize("token", [None, "FwoGZXIvYXdz/token+with=odd/chars=="])
@pytest.mark.parametrize("target", TARGETS)
def test_r10_header_signatures_of_botocore_verify(echo, target, token):
    headers = {"X-Amz-Target": "X.RunTask", "Content-Type": "application/x-amz-json-1.1", "X-Amz-Odd": " a   b "}
    request = signed(SigV4Auth, target, headers=headers, token=token)
    answer = verify(echo, request)
    assert answer == {"access_key_id": KEY, "region": "eu-west-1", "service": "ecs", "session_token": token}
    other = verify(echo, {**request, "body": b"{} "})
    assert "InvalidSignatureException" in code(other, 400)
    wrong = verify(echo, request, secret=SECRET + "x")
    assert "does not match the signature you provided" in code(wrong, 400)


@pytest.mark.parametrize("token", [None, "session/token+="])
@pytest.mark.parametrize("target", [target for target in TARGETS if not target.startswith("/?empty")])
def test_r10_presigned_signatures_of_botocore_verify(echo, target, token):
    request = signed(SigV4QueryAuth, target, method="GET", body=b"", token=token, service="sts", expires=60)
    answer = verify(echo, request, name="sts")
    assert answer["access_key_id"] == KEY and answer["session_token"] == token
    assert "access_key_id" in verify(echo, request, now=NOW_MILLIS + MINUTES)
    late = verify(echo, request, now=NOW_MILLIS + MINUTES + 1000, name="sts")
    assert "<Code>SignatureDoesNotMatch</Code>" in code(late, 403)
    assert "Signature expired" in code(late, 403)


def test_r93_clock_skew_is_five_minutes_either_way(echo):
    request = signed(SigV4Auth, "/", headers={"X-Amz-Target": "X.RunTask"})
    for minutes in (-5, 5):
        assert "access_key_id" in verify(echo, request, now=NOW_MILLIS + minutes * MINUTES)
    late = verify(echo, request, now=NOW_MILLIS + 5 * MINUTES + 1000)
    assert "Signature expired: 20261122T120000Z is now earlier than 20261122T120001Z" in code(late, 400)
    early = verify(echo, request, now=NOW_MILLIS - 5 * MINUTES - 1000)
    assert "Signature not yet current" in code(early, 400)


@pytest.mark.parametrize(
    "name,status,expect",
    [
        ("ecs", 400, '"__type":"InvalidSignatureException"'),
        ("iam", 403, "<Code>SignatureDoesNotMatch</Code>"),
        ("ec2", 401, "<Code>AuthFailure</Code>"),
        ("elasticfilesystem", 403, "does not match the signature you provided"),
    ],
)
def test_r93_a_wrong_secret_is_said_in_the_services_words(echo, name, status, expect):
    headers = {"X-Amz-Target": "X.Y"} if name == "ecs" else {}
    request = signed(SigV4Auth, "/", headers=headers, service=name)
    assert expect in code(verify(echo, request, secret="wrong", name=name), status)


def test_r93_broken_and_absent_signatures_are_named(echo):
    request = signed(SigV4Auth, "/", headers={"X-Amz-Target": "X.Y"})
    without = {name: value for name, value in request["headers"].items() if name != "Authorization"}
    assert "MissingAuthenticationTokenException" in code(verify(echo, {**request, "headers": without}), 400)
    for authorization, expect in [
        ("AWS4-HMAC-SHA256 Credential=a", "requires 'Signature' parameter"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "Unsupported AWS 'algorithm'"),
        ("Basic dXNlcjpwYXNz", "Unsupported AWS 'algorithm'"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=00", "exactly 5 slash-delimited"),
    ]:
        broken = {**request, "headers": {**request["headers"], "Authorization": authorization}}
        text = code(verify(echo, broken), 400)
        assert "IncompleteSignatureException" in text and expect in text


def test_r93_streaming_payloads_are_refused_by_name(echo):
    headers = {"X-Amz-Target": "X.Y", "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    request = signed(SigV4Auth, "/", headers=headers)
    assert "STREAMING-UNSIGNED-PAYLOAD-TRAILER is not supported by Longshore" in code(verify(echo, request), 400)


def test_r10_unsigned_payloads_verify(echo):
    class Unsigned(SigV4Auth):
        def payload(self, request):
            return "UNSIGNED-PAYLOAD"

    request = signed(Unsigned, "/", headers={"X-Amz-Target": "X.Y", "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert "access_key_id" in verify(echo, {**request, "body": b"anything"})


@pytest.mark.parametrize("token", [None, "session/token+="])
@pytest.mark.parametrize("target", ["/", "/ws?agentHash=a&seqNum=1&clusterArn=arn%3Aaws%3Aecs", "/a%20b/?x=%2F"])
def test_r10_our_signatures_are_those_of_botocore(echo, target, token):
    """The same request signed by both gives the same signature."""
    headers = {"Host": "localhost:4580", "X-Amz-Target": "X.RunTask", "Content-Type": "application/x-amz-json-1.1"}
    theirs = signed(SigV4Auth, target, headers=headers, token=token)
    path, _, query = target.partition("?")
    ours = echo.ask(
        do="sign",
        method="POST",
        path=path,
        query=query,
        headers=headers,
        body=b"{}",
        access_key_id=KEY,
        secret=SECRET,
        session_token=token,
        region="eu-west-1",
        service="ecs",
        now=NOW_MILLIS,
    )
    theirs = {name.lower(): value for name, value in theirs["headers"].items()}
    assert ours["headers"]["authorization"] == theirs["authorization"]
    assert ours["headers"]["x-amz-date"] == theirs["x-amz-date"]
    assert ours["headers"].get("x-amz-security-token") == token


@pytest.mark.parametrize("token", [None, "session/token+="])
def test_r10_our_presigned_urls_are_those_of_botocore(echo, token):
    target = "/?Action=GetCallerIdentity&Version=2011-06-15"
    theirs = signed(SigV4QueryAuth, target, method="GET", body=b"", token=token, service="sts", expires=900)
    ours = echo.ask(
        do="presign",
        path="/",
        query="Action=GetCallerIdentity&Version=2011-06-15",
        host="localhost:4580",
        access_key_id=KEY,
        secret=SECRET,
        session_token=token,
        region="eu-west-1",
        service="sts",
        now=NOW_MILLIS,
    )
    assert urllib.parse.parse_qs(ours["query"]) == urllib.parse.parse_qs(theirs["query"])
