"""HTTPS listeners with certificates of ACM and IAM: their API, and real requests through them to a task on Fargate."""

import http.client
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import uuid

import botocore.exceptions
import pytest

from conftest import Platform, eventually
from test_r2x_load_balancer_traffic import Stack, fixed, forward

ONLY_13 = "ELBSecurityPolicy-TLS13-1-3-2021-06"
ONLY_12 = "ELBSecurityPolicy-FS-1-2-Res-2020-10"
DEFAULT = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"


def refused(code, call, **arguments):
    """The message with which a call is refused under this code."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response["Error"]["Message"]


class Authority:
    """A certificate authority of openssl's, with one between it and what it certifies."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=Root")
        self.issue("between", "between", issuer="root", extensions="basicConstraints=critical,CA:TRUE")
        self.root = str(self.directory / "root.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True, timeout=60)

    def read(self, name):
        return (self.directory / name).read_bytes()

    def issue(self, file, *names, key="rsa:2048", issuer="between", days="20", extensions=None):
        """A certificate for these names: what ImportCertificate takes."""
        extensions = extensions or "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else ["-newkey", key]
        self.openssl("req", "-new", *kind, "-nodes", "-keyout", f"{file}.key", "-out", f"{file}.csr", "-subj", f"/CN={names[0]}", "-addext", extensions)
        signed = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial", "-copy_extensions", "copy"]
        self.openssl("x509", "-req", "-in", f"{file}.csr", "-out", f"{file}.pem", "-days", days, *signed)
        if issuer == "root":
            return None
        return {"Certificate": self.read(f"{file}.pem"), "PrivateKey": self.read(f"{file}.key"), "CertificateChain": self.read("between.pem")}


class Web(Stack):
    """A task, and a load balancer before it with an HTTPS listener."""

    def __init__(self, platform, authority):
        super().__init__(platform)
        self.acm, self.iam = platform.client("acm"), platform.client("iam")
        self.authority = authority
        self.first = self.certificate("first", "first.example.com")
        self.lb = self.balancer()
        self.arn, self.host = self.lb["LoadBalancerArn"], self.lb["DNSName"]
        self.targets = self.target_group("a")
        made = self.elbv2.create_listener(LoadBalancerArn=self.arn, Protocol="HTTPS", Port=443, Certificates=[{"CertificateArn": self.first}], DefaultActions=forward((self.targets, 1)))
        self.listener = made["Listeners"][0]
        self.https = self.listener["ListenerArn"]
        self.until_healthy(self.targets, 1)
        eventually(lambda: self.served("first.example.com") == ["first.example.com"])

    def certificate(self, file, *names, **more):
        return self.acm.import_certificate(**self.authority.issue(file, *names, **more))["CertificateArn"]

    def connect(self, name, port=443, low=None, high=None, alpn=None):
        """A connection verified against the authority for a name; without one nothing is verified."""
        context = ssl.create_default_context(cafile=self.authority.root)
        if name is None:
            context.check_hostname = False
        if low:
            context.minimum_version = low
        if high:
            context.maximum_version = high
        if alpn:
            context.set_alpn_protocols(alpn)
        return context.wrap_socket(socket.create_connection((self.host, port), timeout=30), server_hostname=name)

    def served(self, name, **more):
        """The names of the certificate that a client gets who asks for this one; what is wrong where it gets none."""
        try:
            with self.connect(name, **more) as connection:
                return [value for _, value in connection.getpeercert()["subjectAltName"]]
        except OSError as error:
            return type(error).__name__

    def request(self, name, path="/cgi-bin/who", connection=None, **more):
        with connection or self.connect(name, **more) as opened:
            return ask(opened, name, path)


def ask(opened, name, path="/cgi-bin/who"):
    """A request over an open connection: status, headers, and body."""
    client = http.client.HTTPConnection(name)
    client.sock = opened
    client.request("GET", path, headers={"Host": name})
    response = client.getresponse()
    headers = {key.lower(): value for key, value in response.getheaders()}
    return response.status, headers, response.read().decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def web(authority):
    platform = Platform(hosts=True)
    try:
        yield Web(platform.start(), authority)
        assert platform.stop() == 0, platform.log()[-4000:]
        secrets = [line for file in authority.directory.glob("*.key") for line in file.read_text().splitlines() if len(line) == 64 and "-" not in line]
        log = platform.log()
        # Whole lines only: the last one may be any few letters.
        assert secrets and not [line for line in secrets if line in log], "a private key is in the log"
    finally:
        platform.purge()


def test_r21_requests_reach_a_task_over_tls(web):
    status, _, body = web.request("first.example.com")
    lines = dict(line.split("=", 1) for line in body.splitlines() if "=" in line)
    assert status == 200 and lines["name"] == "a"
    assert lines["HTTP_X_FORWARDED_PROTO"] == "https" and lines["HTTP_X_FORWARDED_PORT"] == "443"
    assert lines["HTTP_X_FORWARDED_FOR"].startswith("127.") and lines["HTTP_HOST"] == "first.example.com"
    # Another client, and the newer HTTP, agreed upon in the handshake.
    address = socket.gethostbyname(web.host)
    curl = ["curl", "--silent", "--show-error", "--max-time", "30", "--cacert", web.authority.root, "--resolve", f"first.example.com:443:{address}"]
    done = subprocess.run([*curl, "-w", "%{http_version}", "https://first.example.com/index.html"], capture_output=True, text=True, timeout=60)
    assert done.stdout in ("hello\n2", "hello\n1.1"), done
    with web.connect("first.example.com", alpn=["h2", "http/1.1"]) as connection:
        assert connection.selected_alpn_protocol() == "h2"
    with web.connect("first.example.com", alpn=["http/1.1"]) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1" and ask(connection, "first.example.com")[0] == 200


def test_r21_http_is_redirected_to_https(web):
    redirect = {"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_301", "Protocol": "HTTPS", "Port": "443"}}
    made = web.elbv2.create_listener(LoadBalancerArn=web.arn, Protocol="HTTP", Port=80, DefaultActions=[redirect])["Listeners"][0]
    try:
        eventually(lambda: plain(web.host) is not None)
        status, headers, _ = plain(web.host, path="/index.html?a=1", name="first.example.com")
        assert (status, headers["location"]) == (301, "https://first.example.com:443/index.html?a=1")
        address = socket.gethostbyname(web.host)
        curl = ["curl", "--silent", "--show-error", "--location", "--max-time", "30", "--cacert", web.authority.root]
        resolve = [option for port in (80, 443) for option in ("--resolve", f"first.example.com:{port}:{address}")]
        done = subprocess.run([*curl, *resolve, "http://first.example.com/index.html"], capture_output=True, text=True, timeout=60)
        assert done.stdout == "hello\n", done
    finally:
        web.elbv2.delete_listener(ListenerArn=made["ListenerArn"])


def plain(host, path="/", name="x", port=80):
    """A request without TLS; none where nobody answers."""
    try:
        with socket.create_connection((host, port), timeout=30) as opened:
            return ask(opened, name, path)
    except (OSError, http.client.HTTPException):
        return None


def test_r21_the_name_that_is_asked_for_decides_on_the_certificate(web):
    others = [web.certificate("second", "second.example.com", key="ec"), web.certificate("wild", "*.example.com", "wild.net")]
    uploaded = web.authority.issue("uploaded", "uploaded.example.org")
    parts = {"CertificateBody": uploaded["Certificate"], "PrivateKey": uploaded["PrivateKey"], "CertificateChain": uploaded["CertificateChain"]}
    parts = {key: value.decode() for key, value in parts.items()}
    iam = web.iam.upload_server_certificate(ServerCertificateName="uploaded", Path="/web/", **parts)["ServerCertificateMetadata"]["Arn"]
    certificates = [{"CertificateArn": arn} for arn in [*others, iam]]
    try:
        added = web.elbv2.add_listener_certificates(ListenerArn=web.https, Certificates=certificates)["Certificates"]
        assert [found["IsDefault"] for found in added] == [False] * 3
        # Twice is once.
        web.elbv2.add_listener_certificates(ListenerArn=web.https, Certificates=certificates[:1])
        shown = web.elbv2.describe_listener_certificates(ListenerArn=web.https)["Certificates"]
        assert shown[0] == {"CertificateArn": web.first, "IsDefault": True}
        assert sorted(found["CertificateArn"] for found in shown[1:]) == sorted([*others, iam])
        assert len(web.elbv2.describe_listeners(ListenerArns=[web.https])["Listeners"][0]["Certificates"]) == 1
        eventually(lambda: web.served("uploaded.example.org") == ["uploaded.example.org"])
        wild = ["*.example.com", "wild.net"]
        expected = {"second.example.com": ["second.example.com"], "first.example.com": ["first.example.com"], "third.example.com": wild, "SECOND.example.com": ["second.example.com"], "wild.net": wild, None: ["first.example.com"]}
        assert {name: web.served(name) for name in expected} == expected
        # A name that no certificate is for gets the default one, which it does not fit.
        assert web.served("a.b.example.com") == "SSLCertVerificationError"
        assert web.request("second.example.com")[0] == 200 and web.request("uploaded.example.org")[0] == 200
        # What is used cannot be deleted.
        assert web.acm.describe_certificate(CertificateArn=others[0])["Certificate"]["InUseBy"] == [web.arn]
        refused("ResourceInUseException", web.acm.delete_certificate, CertificateArn=others[0])
        refused("ResourceInUseException", web.acm.delete_certificate, CertificateArn=web.first)
        assert web.arn in refused("DeleteConflict", web.iam.delete_server_certificate, ServerCertificateName="uploaded")
        refused("OperationNotPermitted", web.elbv2.remove_listener_certificates, ListenerArn=web.https, Certificates=[{"CertificateArn": web.first}])
    finally:
        web.elbv2.remove_listener_certificates(ListenerArn=web.https, Certificates=certificates)
    eventually(lambda: web.served("uploaded.example.org") == "SSLCertVerificationError")
    for arn in others:
        assert web.acm.describe_certificate(CertificateArn=arn)["Certificate"]["InUseBy"] == []
        web.acm.delete_certificate(CertificateArn=arn)
    web.iam.delete_server_certificate(ServerCertificateName="uploaded")
    refused("NoSuchEntity", web.iam.get_server_certificate, ServerCertificateName="uploaded")


def test_r21_a_certificate_imported_again_is_served_at_once(web):
    serial = lambda: web.connect("first.example.com").getpeercert()["serialNumber"]
    before = serial()
    with web.connect("first.example.com") as kept:
        assert ask(kept, "first.example.com", "/index.html")[0] == 200
        again = web.authority.issue("first", "first.example.com", "again.example.com")
        assert web.acm.import_certificate(CertificateArn=web.first, **again)["CertificateArn"] == web.first
        eventually(lambda: serial() != before)
        assert web.served("again.example.com") == ["first.example.com", "again.example.com"]
        # Who was connected stays so, though every request may have been the last of its connection to the task.
        assert kept.getpeercert()["serialNumber"] == before
        assert ask(kept, "first.example.com", "/index.html")[0] == 200
    shown = web.acm.describe_certificate(CertificateArn=web.first)["Certificate"]
    assert shown["SubjectAlternativeNames"] == ["first.example.com", "again.example.com"] and shown["ImportedAt"] > shown["CreatedAt"]
    assert "KeyAlgorithm" in shown and shown["KeyAlgorithm"] == "RSA_2048"
    other = web.authority.issue("other-key", "first.example.com", key="ec")
    assert "EC_prime256v1" in refused("ValidationException", web.acm.import_certificate, CertificateArn=web.first, **other)
    nobody = web.first.rsplit("/", 1)[0] + "/" + str(uuid.uuid4())
    refused("ResourceNotFoundException", web.acm.import_certificate, CertificateArn=nobody, **again)


def test_r21_a_policy_decides_on_versions(web):
    old = {"low": ssl.TLSVersion.TLSv1_2, "high": ssl.TLSVersion.TLSv1_2}
    new = {"low": ssl.TLSVersion.TLSv1_3}
    fine = web.served("first.example.com")
    assert "first.example.com" in fine and web.served("first.example.com", **old) == fine and web.served("first.example.com", **new) == fine
    try:
        changed = web.elbv2.modify_listener(ListenerArn=web.https, SslPolicy=ONLY_13)["Listeners"][0]
        assert changed["SslPolicy"] == ONLY_13 and changed["Certificates"] == [{"CertificateArn": web.first}]
        eventually(lambda: web.served("first.example.com", **old) == "SSLError")
        assert web.served("first.example.com", **new) == fine
        web.elbv2.modify_listener(ListenerArn=web.https, SslPolicy=ONLY_12)
        eventually(lambda: web.served("first.example.com", **new) == "SSLError")
        assert web.served("first.example.com", **old) == fine
    finally:
        web.elbv2.modify_listener(ListenerArn=web.https, SslPolicy=DEFAULT)
    eventually(lambda: web.served("first.example.com", **new) == fine)
    assert "2016-08" in refused("ValidationError", web.elbv2.modify_listener, ListenerArn=web.https, SslPolicy="ELBSecurityPolicy-2016-08")
    refused("SSLPolicyNotFound", web.elbv2.modify_listener, ListenerArn=web.https, SslPolicy="Mine")
    shown = {policy["Name"]: policy for policy in web.elbv2.describe_ssl_policies()["SslPolicies"]}
    assert shown[ONLY_13]["SslProtocols"] == ["TLSv1.3"] and shown[DEFAULT]["SslProtocols"] == ["TLSv1.2", "TLSv1.3"]
    assert "ELBSecurityPolicy-2016-08" not in shown
    one = web.elbv2.describe_ssl_policies(Names=[ONLY_12])["SslPolicies"]
    assert [policy["Name"] for policy in one] == [ONLY_12] and one[0]["Ciphers"][0] == {"Name": "ECDHE-ECDSA-AES128-GCM-SHA256", "Priority": 1}
    refused("SSLPolicyNotFound", web.elbv2.describe_ssl_policies, Names=["Mine"])


def test_r21_garbage_and_slow_handshakes_harm_nobody(web):
    opened = [socket.create_connection((web.host, 443), timeout=60) for _ in range(50)]
    try:
        for index, connection in enumerate(opened):
            # Some begin a handshake and never go on, some say what is none.
            connection.sendall(b"\x16\x03\x01\x02\x00\x01" if index % 2 else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(web.request("first.example.com")[0])) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert answers == [200] * 8
        # All of them end, those that say nothing more by the load balancer's own patience.
        for connection in opened:
            while True:
                try:
                    if not connection.recv(4096):
                        break
                except ConnectionResetError:
                    break
    finally:
        [connection.close() for connection in opened]
    assert web.request("first.example.com")[0] == 200


def test_r21_listeners_say_what_is_wrong_with_their_certificates(web):
    create = lambda **more: web.elbv2.create_listener(**{"LoadBalancerArn": web.arn, "Protocol": "HTTPS", "Port": 8443, "DefaultActions": [fixed("x")], **more})
    own = [{"CertificateArn": web.first}]
    assert refused("ValidationError", create) == "A certificate must be specified for HTTPS listeners"
    refused("ValidationError", create, Certificates=[])
    refused("TooManyCertificates", create, Certificates=own * 2)
    refused("ValidationError", create, Certificates=[{"CertificateArn": web.first, "IsDefault": True}])
    nobody = web.first.rsplit("/", 1)[0] + "/" + str(uuid.uuid4())
    elsewhere = web.first.replace("us-east-1", "eu-west-1")
    for missing in (nobody, elsewhere, "arn:aws:iam::123456789012:server-certificate/none", "nonsense"):
        assert refused("CertificateNotFound", create, Certificates=[{"CertificateArn": missing}]) == f"Certificate '{missing}' not found"
    refused("SSLPolicyNotFound", create, Certificates=own, SslPolicy="Mine")
    refused("ValidationError", create, Protocol="HTTP", Certificates=own)
    refused("ValidationError", create, Protocol="HTTP", SslPolicy=DEFAULT)
    assert "AlpnPolicy" in refused("ValidationError", create, Certificates=own, AlpnPolicy=["None"])
    assert "MutualAuthentication" in refused("ValidationError", create, Certificates=own, MutualAuthentication={"Mode": "passthrough"})
    nameless = web.certificate("nameless", "nameless")
    assert "fully-qualified domain name" in refused("UnsupportedCertificate", create, Certificates=[{"CertificateArn": nameless}])
    web.acm.delete_certificate(CertificateArn=nameless)
    # From HTTP to HTTPS and back.
    made = create(Protocol="HTTP")["Listeners"][0]
    try:
        assert made["Protocol"] == "HTTP" and "SslPolicy" not in made and "Certificates" not in made
        refused("ValidationError", web.elbv2.modify_listener, ListenerArn=made["ListenerArn"], Protocol="HTTPS")
        refused("ValidationError", web.elbv2.add_listener_certificates, ListenerArn=made["ListenerArn"], Certificates=own)
        eventually(lambda: plain(web.host, port=8443) is not None)
        secure = web.elbv2.modify_listener(ListenerArn=made["ListenerArn"], Protocol="HTTPS", Certificates=own)["Listeners"][0]
        assert (secure["Protocol"], secure["SslPolicy"], secure["Certificates"]) == ("HTTPS", DEFAULT, own)
        eventually(lambda: "first.example.com" in web.served("first.example.com", port=8443))
        assert plain(web.host, port=8443) is None
        assert web.request("first.example.com", port=8443)[2] == "x"
        back = web.elbv2.modify_listener(ListenerArn=made["ListenerArn"], Protocol="HTTP")["Listeners"][0]
        assert back["Protocol"] == "HTTP" and "SslPolicy" not in back
        eventually(lambda: plain(web.host, port=8443) is not None)
    finally:
        web.elbv2.delete_listener(ListenerArn=made["ListenerArn"])
    many = [{"CertificateArn": web.certificate(f"many-{index}", f"many-{index}.example.com", key="ec")} for index in range(26)]
    refused("TooManyCertificates", web.elbv2.add_listener_certificates, ListenerArn=web.https, Certificates=many)
    assert len(web.elbv2.describe_listener_certificates(ListenerArn=web.https)["Certificates"]) == 1
    for certificate in many:
        web.acm.delete_certificate(**certificate)


def test_r21_bad_certificates_are_not_imported(web, authority):
    acm = web.acm
    before = acm.list_certificates()["CertificateSummaryList"]
    good = authority.issue("good", "good.example.com")
    bad = lambda code="ValidationException", **changed: refused(code, acm.import_certificate, **{**good, **changed})
    assert "PEM" in bad(Certificate=b"garbage")
    assert "PEM" in bad(Certificate=b"\xff\xfe")
    assert "more than one certificate" in bad(Certificate=good["Certificate"] * 2)
    assert "not supported" in bad(PrivateKey=b"garbage")
    assert "does not match" in bad(PrivateKey=authority.issue("another", "good.example.com")["PrivateKey"])
    authority.openssl("rsa", "-aes256", "-passout", "pass:secret", "-in", "good.key", "-out", "locked.key")
    assert "encrypted" in bad(PrivateKey=authority.read("locked.key"))
    authority.openssl("rsa", "-aes256", "-traditional", "-passout", "pass:secret", "-in", "good.key", "-out", "old.key")
    assert "encrypted" in bad(PrivateKey=authority.read("old.key"))
    assert "chain" in bad(CertificateChain=authority.read("root.pem"))
    assert "chain" in bad(CertificateChain=b"garbage")
    assert "chain" in bad(CertificateChain=good["CertificateChain"] * 11)
    alone = {key: value for key, value in good.items() if key != "CertificateChain"}
    assert "self signed" in refused("ValidationException", acm.import_certificate, **alone)
    bad(Certificate=b"x" * 40_000)
    bad(PrivateKey=good["PrivateKey"] + b"\n" * 5000)
    expired = authority.issue("expired", "expired.example.com", days="-1")
    assert "expired" in refused("ValidationException", acm.import_certificate, **expired)
    for size in ("1024", "2560"):
        weak = authority.issue("weak", "weak.example.com", key=f"rsa:{size}")
        assert f"RSA_{size} " in refused("ValidationException", acm.import_certificate, **weak)
    assert "import" in refused("InvalidParameterException", acm.request_certificate, DomainName="a.example.com")
    refused("InvalidArnException", acm.describe_certificate, CertificateArn="arn:aws:acm:us-east-1:123456789012:nonsense")
    refused("InvalidTagException", acm.import_certificate, **good, Tags=[{"Key": "aws:x", "Value": "y"}])
    assert acm.list_certificates()["CertificateSummaryList"] == before
    upload = lambda **changed: web.iam.upload_server_certificate(**{"ServerCertificateName": "bad", "CertificateBody": good["Certificate"].decode(), "PrivateKey": good["PrivateKey"].decode(), "CertificateChain": good["CertificateChain"].decode(), **changed})
    refused("MalformedCertificate", upload, CertificateBody="garbage")
    refused("KeyPairMismatch", upload, PrivateKey=authority.read("another.key").decode())
    assert refused("MalformedCertificate", upload, CertificateChain=authority.read("root.pem").decode()).endswith("is: 0")
    assert web.iam.list_server_certificates()["ServerCertificateMetadataList"] == []


def test_r21_certificates_are_shown_without_their_keys(web, authority):
    acm = web.acm
    given = authority.issue("shown", "shown.example.com", "*.shown.example.com")
    arn = acm.import_certificate(**given, Tags=[{"Key": "a", "Value": "1"}])["CertificateArn"]
    other = acm.import_certificate(**authority.issue("curve", "curve.example.com", key="ec"))["CertificateArn"]
    try:
        shown = acm.describe_certificate(CertificateArn=arn)["Certificate"]
        assert (shown["DomainName"], shown["Status"], shown["Type"]) == ("shown.example.com", "ISSUED", "IMPORTED")
        assert shown["SubjectAlternativeNames"] == ["shown.example.com", "*.shown.example.com"] and "CN=between" in shown["Issuer"]
        assert shown["NotBefore"] < shown["NotAfter"] and shown["SignatureAlgorithm"] == "SHA256WITHRSA"
        serial = subprocess.run(["openssl", "x509", "-in", "shown.pem", "-noout", "-serial"], cwd=authority.directory, capture_output=True, text=True, check=True).stdout
        assert shown["Serial"].replace(":", "").upper() == serial.strip().removeprefix("serial=")
        got = acm.get_certificate(CertificateArn=arn)
        assert got["Certificate"].encode() == given["Certificate"] and got["CertificateChain"].encode() == given["CertificateChain"]
        assert "PRIVATE KEY" not in str(got) + str(shown)
        # Without a filter there are RSA keys only, as at Amazon.
        listed = lambda **more: {found["CertificateArn"] for found in acm.list_certificates(**more)["CertificateSummaryList"]}
        assert arn in listed() and other not in listed()
        assert listed(Includes={"keyTypes": ["EC_prime256v1"]}) == {other}
        assert listed(CertificateStatuses=["EXPIRED"]) == set()
        both = {"Includes": {"keyTypes": ["EC_prime256v1", "RSA_2048"]}}
        pages = [page["CertificateSummaryList"] for page in acm.get_paginator("list_certificates").paginate(**both, PaginationConfig={"PageSize": 1})]
        assert [len(page) for page in pages] == [1] * len(listed(**both)) and {page[0]["CertificateArn"] for page in pages} == listed(**both)
        newest = acm.list_certificates(**both, SortBy="CREATED_AT", SortOrder="DESCENDING", MaxItems=1)
        assert newest["CertificateSummaryList"][0]["CertificateArn"] == other
        second = acm.list_certificates(**both, SortBy="CREATED_AT", SortOrder="DESCENDING", MaxItems=1, NextToken=newest["NextToken"])
        assert second["CertificateSummaryList"][0]["CertificateArn"] == arn
        refused("ValidationException", acm.list_certificates, NextToken="nonsense")
        acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "3"}])
        assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "a", "Value": "3"}, {"Key": "b", "Value": "2"}]
        acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
        assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "a", "Value": "3"}]
        refused("ValidationException", acm.import_certificate, CertificateArn=arn, **given, Tags=[{"Key": "c", "Value": "1"}])
    finally:
        for made in (arn, other):
            acm.delete_certificate(CertificateArn=made)
    refused("ResourceNotFoundException", acm.get_certificate, CertificateArn=arn)


def test_r21_target_groups_speak_https(web):
    create = lambda **more: web.elbv2.create_target_group(**{"Name": "secure", "Protocol": "HTTPS", "Port": 8443, "VpcId": web.vpc, "TargetType": "ip", "HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, **more})
    made = create(HealthCheckProtocol="HTTPS")["TargetGroups"][0]
    try:
        assert (made["Protocol"], made["HealthCheckProtocol"], made["ProtocolVersion"]) == ("HTTPS", "HTTPS", "HTTP1")
        refused("DuplicateTargetGroupName", create, Protocol="HTTP", HealthCheckProtocol="HTTPS")
        # A task that does not speak TLS cannot be healthy behind it, and the same task is, where it is asked without.
        web.elbv2.register_targets(TargetGroupArn=made["TargetGroupArn"], Targets=[{"Id": web.addresses["a"], "Port": 8080}])
        rule = web.elbv2.create_rule(ListenerArn=web.https, Priority=9, Conditions=[{"Field": "path-pattern", "Values": ["/secure"]}], Actions=forward((made["TargetGroupArn"], 1)))["Rules"][0]["RuleArn"]
        try:
            eventually(lambda: web.health(made["TargetGroupArn"])[web.addresses["a"]]["State"] == "unhealthy", timeout=120)
            eventually(lambda: web.request("first.example.com", "/secure")[0] == 502)
            web.elbv2.modify_target_group(TargetGroupArn=made["TargetGroupArn"], HealthCheckProtocol="HTTP", HealthyThresholdCount=2)
            eventually(lambda: web.health(made["TargetGroupArn"])[web.addresses["a"]]["State"] == "healthy", timeout=120)
        finally:
            web.elbv2.delete_rule(RuleArn=rule)
    finally:
        web.elbv2.delete_target_group(TargetGroupArn=made["TargetGroupArn"])


def test_r21_keys_are_readable_by_the_platform_only(web):
    kept = list(pathlib.Path(web.platform.data, "balancers").glob("*.json"))
    assert kept and all(file.stat().st_mode & 0o077 == 0 and b"PRIVATE KEY" in file.read_bytes() for file in kept)
    assert pathlib.Path(web.platform.data, "balancers").stat().st_mode & 0o077 == 0
    assert pathlib.Path(web.platform.data, "run").stat().st_mode & 0o007 == 0


def test_r21_https_goes_on_through_a_restart(web):
    platform = web.platform
    with web.connect("first.example.com") as kept:
        assert ask(kept, "first.example.com", "/index.html")[0] == 200
        server = platform.child("server")
        os.kill(server, signal.SIGKILL)
        assert web.request("first.example.com", "/index.html")[0] == 200
        assert ask(kept, "first.example.com", "/index.html")[0] == 200
    eventually(lambda: platform.child("server") != server and back(web))
    assert web.acm.describe_certificate(CertificateArn=web.first)["Certificate"]["InUseBy"] == [web.arn]
    assert web.request("first.example.com")[0] == 200


def back(web):
    try:
        return web.elbv2.describe_listener_certificates(ListenerArn=web.https)["Certificates"]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return None
