"""ECR's API: repositories, images, layers, and the errors that Amazon's clients rely on."""

import base64
import hashlib
import json
import subprocess
import urllib.error
import urllib.request
import uuid

import botocore.exceptions
import pytest

from conftest import ACCOUNT

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def ecr(platform):
    return platform.client("ecr")


@pytest.fixture
def repository(ecr):
    """A repository of this test's own."""
    name = f"test/{uuid.uuid4().hex[:8]}"
    ecr.create_repository(repositoryName=name)
    yield name
    try:
        ecr.delete_repository(repositoryName=name, force=True)
    except ecr.exceptions.RepositoryNotFoundException:
        pass


def refused(call, code, **arguments):
    """The text with which a call is refused; the code must be this one."""
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**arguments)
    error = raised.value.response["Error"]
    assert error["Code"] == code, error
    return error["Message"]


def upload(ecr, repository, content):
    """Pushes a layer with the API's own upload calls."""
    begun = ecr.initiate_layer_upload(repositoryName=repository)
    size = 5 * 1024 * 1024
    for first in range(0, len(content), size):
        part = content[first : first + size]
        done = ecr.upload_layer_part(
            repositoryName=repository,
            uploadId=begun["uploadId"],
            partFirstByte=first,
            partLastByte=first + len(part) - 1,
            layerPartBlob=part,
        )
        assert done["lastByteReceived"] == first + len(part) - 1
    digest = digest_of(content)
    done = ecr.complete_layer_upload(repositoryName=repository, uploadId=begun["uploadId"], layerDigests=[digest])
    assert done["layerDigest"] == digest
    return digest


def descriptor(content, media_type="application/vnd.oci.image.layer.v1.tar"):
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def put_image(ecr, repository, layer, tag=None, **more):
    """Puts an image of a config and one layer; gives its digest."""
    config = b"{}"
    for content in (config, layer):
        found = ecr.batch_check_layer_availability(repositoryName=repository, layerDigests=[digest_of(content)])
        if found["layers"][0]["layerAvailability"] != "AVAILABLE":
            upload(ecr, repository, content)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer)],
        **more,
    }
    tagged = {"imageTag": tag} if tag else {}
    put = ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), **tagged)
    return put["image"]["imageId"]["imageDigest"]


def test_r80_a_repository_is_made_described_and_deleted(platform, ecr):
    name = f"team/{uuid.uuid4().hex[:8]}"
    made = ecr.create_repository(repositoryName=name, tags=[{"Key": "a", "Value": "1"}])["repository"]
    assert made["repositoryArn"] == f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/{name}"
    assert made["repositoryUri"] == f"{platform.registry()}/{name}"
    assert made["registryId"] == ACCOUNT and made["imageTagMutability"] == "MUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": False}
    assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}
    assert ecr.describe_repositories(repositoryNames=[name])["repositories"] == [made]
    text = refused(ecr.create_repository, "RepositoryAlreadyExistsException", repositoryName=name)
    assert text == f"The repository with name '{name}' already exists in the registry with id '{ACCOUNT}'"

    arn = made["repositoryArn"]
    ecr.tag_resource(resourceArn=arn, tags=[{"Key": "b", "Value": "2"}])
    ecr.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecr.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "b", "Value": "2"}]

    assert ecr.delete_repository(repositoryName=name)["repository"] == made
    missing = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
    for call in (ecr.delete_repository, ecr.list_images, ecr.describe_images, ecr.initiate_layer_upload):
        assert refused(call, "RepositoryNotFoundException", repositoryName=name) == missing
    assert refused(ecr.describe_repositories, "RepositoryNotFoundException", repositoryNames=[name]) == missing


def test_r80_what_is_not_honoured_is_refused_by_name(ecr):
    def create(**more):
        return refused(ecr.create_repository, "InvalidParameterException", repositoryName="refused", **more)

    assert "imageScanningConfiguration.scanOnPush" in create(imageScanningConfiguration={"scanOnPush": True})
    assert "encryptionConfiguration.encryptionType" in create(encryptionConfiguration={"encryptionType": "KMS"})
    assert "repositoryName" in refused(ecr.create_repository, "InvalidParameterException", repositoryName="Upper")


def test_r80_repositories_belong_to_a_region(platform, repository):
    names = [r["repositoryName"] for r in platform.client("ecr", "eu-west-1").describe_repositories()["repositories"]]
    assert repository not in names
    pages = platform.client("ecr").get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1})
    names = [r["repositoryName"] for page in pages for r in page["repositories"]]
    assert repository in names and names == sorted(set(names))


def test_r80_another_accounts_repository_is_refused(ecr):
    text = refused(ecr.list_images, "AccessDeniedException", registryId="999999999999", repositoryName="demo")
    assert "is not authorized to perform: ecr:ListImages on resource: arn:aws:ecr:us-east-1:999999999999:repository/demo" in text


def test_r80_layers_are_uploaded_in_parts_and_downloaded_by_address(platform, ecr, repository):
    content = bytes(range(256)) * 30000  # Two parts.
    digest = upload(ecr, repository, content)
    checked = ecr.batch_check_layer_availability(
        repositoryName=repository, layerDigests=[digest, digest_of(b"none"), "sha256:short"]
    )
    assert [layer["layerAvailability"] for layer in checked["layers"]] == ["AVAILABLE", "UNAVAILABLE"]
    assert checked["layers"][0]["layerSize"] == len(content)
    assert [failure["failureCode"] for failure in checked["failures"]] == ["InvalidLayerDigest"]

    url = ecr.get_download_url_for_layer(repositoryName=repository, layerDigest=digest)["downloadUrl"]
    got = subprocess.run(["curl", "-sSf", url], capture_output=True, check=True, timeout=60).stdout
    assert got == content
    denied = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url[:-3] + "AAA"], capture_output=True, timeout=60)
    assert denied.stdout == b"401"
    text = refused(ecr.get_download_url_for_layer, "LayersNotFoundException", repositoryName=repository, layerDigest=digest_of(b"none"))
    assert text.startswith(f"The layer with digest '{digest_of(b'none')}' does not exist within the repository")


def test_r80_wrong_layer_parts_are_refused(ecr, repository):
    begun = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
    part = dict(repositoryName=repository, uploadId=begun)
    assert "EmptyUploadException" == _code(ecr.complete_layer_upload, **part, layerDigests=[digest_of(b"")])
    ecr.upload_layer_part(**part, partFirstByte=0, partLastByte=4, layerPartBlob=b"hello")
    with pytest.raises(ecr.exceptions.InvalidLayerPartException) as raised:
        ecr.upload_layer_part(**part, partFirstByte=9, partLastByte=10, layerPartBlob=b"xy")
    answer = raised.value.response
    assert answer["lastValidByteReceived"] == 4 and answer["uploadId"] == begun
    assert "InvalidLayerPartException" == _code(ecr.upload_layer_part, **part, partFirstByte=5, partLastByte=9, layerPartBlob=b"x")
    assert "InvalidLayerException" == _code(ecr.complete_layer_upload, **part, layerDigests=[digest_of(b"other")])
    assert "UploadNotFoundException" == _code(ecr.upload_layer_part, **part, partFirstByte=5, partLastByte=5, layerPartBlob=b"x")
    digest = upload(ecr, repository, b"hello")
    begun = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
    ecr.upload_layer_part(repositoryName=repository, uploadId=begun, partFirstByte=0, partLastByte=4, layerPartBlob=b"hello")
    again = dict(repositoryName=repository, uploadId=begun, layerDigests=[digest])
    assert "LayerAlreadyExistsException" == _code(ecr.complete_layer_upload, **again)


def _code(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**arguments)
    return raised.value.response["Error"]["Code"]


def test_r80_images_are_put_found_and_deleted(ecr, repository):
    one = put_image(ecr, repository, b"one", "v1")
    two = put_image(ecr, repository, b"two")
    got = ecr.batch_get_image(
        repositoryName=repository,
        imageIds=[{"imageTag": "v1"}, {"imageDigest": two}, {"imageTag": "none"}, {"imageTag": "v1", "imageDigest": two}],
    )
    assert [image["imageId"] for image in got["images"]] == [{"imageDigest": one, "imageTag": "v1"}, {"imageDigest": two}]
    assert digest_of(got["images"][0]["imageManifest"].encode()) == one
    failures = [(failure["failureCode"], failure["failureReason"]) for failure in got["failures"]]
    assert failures[0] == ("ImageNotFound", "Requested image not found")
    assert failures[1][0] == "ImageTagDoesNotMatchDigest"
    unaccepted = ecr.batch_get_image(
        repositoryName=repository, imageIds=[{"imageTag": "v1"}], acceptedMediaTypes=["application/vnd.docker.distribution.manifest.v2+json"]
    )
    assert unaccepted["images"] == [] and unaccepted["failures"][0]["failureCode"] == "ImageNotFound"

    detail = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": "v1"}])["imageDetails"][0]
    assert (detail["imageDigest"], detail["imageTags"], detail["imageSizeInBytes"]) == (one, ["v1"], 5)
    assert detail["imageManifestMediaType"] == OCI_MANIFEST
    text = refused(ecr.describe_images, "ImageNotFoundException", repositoryName=repository, imageIds=[{"imageTag": "none"}])
    assert text == (
        "The image with imageId {imageDigest:null, imageTag:'none'} does not exist within the repository with name "
        f"'{repository}' in the registry with id '{ACCOUNT}'"
    )
    tagged = ecr.list_images(repositoryName=repository, filter={"tagStatus": "TAGGED"})["imageIds"]
    untagged = ecr.list_images(repositoryName=repository, filter={"tagStatus": "UNTAGGED"})["imageIds"]
    assert (tagged, untagged) == ([{"imageDigest": one, "imageTag": "v1"}], [{"imageDigest": two}])

    # With its last tag an image goes.
    deleted = ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}, {"imageTag": "none"}])
    assert deleted["imageIds"] == [{"imageDigest": one, "imageTag": "v1"}]
    assert deleted["failures"][0]["failureCode"] == "ImageNotFound"
    assert ecr.list_images(repositoryName=repository)["imageIds"] == [{"imageDigest": two}]
    text = refused(ecr.delete_repository, "RepositoryNotEmptyException", repositoryName=repository)
    assert text.endswith("cannot be deleted because it still contains images")
    ecr.delete_repository(repositoryName=repository, force=True)


def test_r80_images_are_listed_in_pages(ecr, repository):
    digest = put_image(ecr, repository, b"layer", "a")
    manifest = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "a"}])["images"][0]["imageManifest"]
    for tag in ("b", "c", "d", "e"):
        ecr.put_image(repositoryName=repository, imageManifest=manifest, imageTag=tag)
    other = put_image(ecr, repository, b"other")
    pages = list(ecr.get_paginator("list_images").paginate(repositoryName=repository, PaginationConfig={"PageSize": 2}))
    ids = [(image["imageDigest"], image.get("imageTag")) for page in pages for image in page["imageIds"]]
    assert len(pages) == 3 and sorted(ids, key=str) == sorted([(digest, tag) for tag in "abcde"] + [(other, None)], key=str)
    assert _code(ecr.list_images, repositoryName=repository, nextToken="nonsense") == "InvalidParameterException"


def test_r80_images_that_cannot_be_put(ecr, repository):
    digest = put_image(ecr, repository, b"layer", "v1")
    manifest = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}])["images"][0]["imageManifest"]
    put = dict(repositoryName=repository, imageManifest=manifest)
    text = refused(ecr.put_image, "ImageAlreadyExistsException", **put, imageTag="v1")
    assert text == (
        f"Image with digest '{digest}' and tag 'v1' already exists in the repository with name '{repository}' in registry with id '{ACCOUNT}'"
    )
    refused(ecr.put_image, "ImageDigestDoesNotMatchException", **put, imageDigest=digest_of(b"x"))
    missing = json.loads(manifest) | {"layers": [descriptor(b"missing")]}
    text = refused(ecr.put_image, "LayersNotFoundException", repositoryName=repository, imageManifest=json.dumps(missing))
    assert text == (
        f"Layers with digests '[{digest_of(b'missing')}]' required for pushing image into repository with name "
        f"'{repository}' in the registry with id '{ACCOUNT}' do not exist"
    )
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(b"missing", OCI_MANIFEST)]}
    refused(ecr.put_image, "ReferencedImagesNotFoundException", repositoryName=repository, imageManifest=json.dumps(index))
    for wrong in ("{", "[]", '{"schemaVersion": 1}', '{"schemaVersion": 2}'):
        refused(ecr.put_image, "InvalidParameterException", repositoryName=repository, imageManifest=wrong)


def test_r80_an_index_keeps_its_images(ecr, repository):
    child = put_image(ecr, repository, b"layer", "amd64")
    manifest = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": child}])["images"][0]["imageManifest"]
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(manifest.encode(), OCI_MANIFEST) | {"platform": {"os": "linux", "architecture": "amd64"}}],
    }
    ecr.put_image(repositoryName=repository, imageManifest=json.dumps(index), imageTag="all")
    kept = ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageDigest": child}])
    assert kept["failures"][0]["failureCode"] == "ImageReferencedByManifestList"
    gone = ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "all"}, {"imageDigest": child}])
    assert gone["failures"] == [] and ecr.list_images(repositoryName=repository)["imageIds"] == []


def test_r80_referrers_are_listed(ecr, repository):
    subject = put_image(ecr, repository, b"layer", "v1")
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    signature = put_image(ecr, repository, b"signature", subject=about, artifactType="application/signature", annotations={"by": "me"})
    found = ecr.list_image_referrers(repositoryName=repository, subjectId={"imageDigest": subject})["referrers"]
    assert [(r["digest"], r["artifactType"], r["annotations"]) for r in found] == [(signature, "application/signature", {"by": "me"})]
    none = ecr.list_image_referrers(
        repositoryName=repository, subjectId={"imageDigest": subject}, filter={"artifactTypes": ["application/other"]}
    )
    assert none["referrers"] == []


def test_r80_immutable_tags_stay(ecr, repository):
    put_image(ecr, repository, b"one", "v1")
    put_image(ecr, repository, b"one dev", "dev-1")
    changed = ecr.put_image_tag_mutability(
        repositoryName=repository,
        imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
        imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "dev-*"}],
    )
    assert changed["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    with pytest.raises(ecr.exceptions.ImageTagAlreadyExistsException) as raised:
        put_image(ecr, repository, b"two", "v1")
    assert raised.value.response["Error"]["Message"] == (
        f"The image tag 'v1' already exists in the '{repository}' repository and cannot be overwritten because the tag is immutable."
    )
    put_image(ecr, repository, b"two", "dev-1")


def test_r80_a_repository_policy_is_kept(ecr, repository):
    text = refused(ecr.get_repository_policy, "RepositoryPolicyNotFoundException", repositoryName=repository)
    assert text.startswith(f"Repository policy does not exist for the repository with name '{repository}'")
    refused(ecr.set_repository_policy, "InvalidParameterException", repositoryName=repository, policyText='{"Statement": []}')
    statement = {"Sid": "pull", "Effect": "Allow", "Principal": "*", "Action": ["ecr:BatchGetImage"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    ecr.set_repository_policy(repositoryName=repository, policyText=policy)
    assert ecr.get_repository_policy(repositoryName=repository)["policyText"] == policy
    assert ecr.delete_repository_policy(repositoryName=repository)["policyText"] == policy
    refused(ecr.delete_repository_policy, "RepositoryPolicyNotFoundException", repositoryName=repository)


def test_r80_the_registry_asks_for_its_token(platform, ecr, repository):
    data = ecr.get_authorization_token()["authorizationData"][0]
    assert data["proxyEndpoint"] == f"http://{platform.registry()}"
    assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")

    def get(path, **headers):
        request = urllib.request.Request(platform.endpoint + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    status, headers, body = get("/v2/")
    assert status == 401 and 'service="ecr.amazonaws.com"' in headers["WWW-Authenticate"]
    authorization = {"Authorization": f"Basic {data['authorizationToken']}"}
    assert get("/v2/", **authorization)[0] == 200
    assert get("/v2/_catalog", **authorization)[0] == 405
    assert json.loads(get(f"/v2/{repository}/tags/list", **authorization)[2]) == {"name": repository, "tags": []}
    # The host name says which region is meant.
    elsewhere = {**authorization, "Host": f"{ACCOUNT}.dkr.ecr.eu-west-1.localhost:{platform.port}"}
    assert json.loads(get(f"/v2/{repository}/tags/list", **elsewhere)[2])["errors"][0]["code"] == "NAME_UNKNOWN"
