"""AMIs that are OCI images in ECR: registered, shown, booted, and what they are refused for."""

import gzip
import io
import os
import random
import subprocess
import tarfile

import botocore.exceptions
import pytest

from conftest import Image, Platform, busybox, eventually, layer_of, wait_for as wait_for_task
from instances import console, describe, joined, launch, profile, said, terminate, wait_for

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@pytest.fixture(scope="module")
def platform():
    platform = Platform()
    try:
        platform.start()
        yield platform
        assert platform.stop() == 0, platform.log()[-4000:]
    finally:
        platform.purge()


@pytest.fixture
def registered(platform):
    """Makes AMIs that are deregistered at the test's end."""
    mine = []

    def make(image, name, **more):
        ami = platform.client("ec2").register_image(Name=name, ImageLocation=image.uri, **more)["ImageId"]
        mine.append(ami)
        return ami

    yield make
    ec2 = platform.client("ec2")
    known = {image["ImageId"] for image in ec2.describe_images(Owners=["self"])["Images"]}
    for ami in known.intersection(mine):
        ec2.deregister_image(ImageId=ami)


@pytest.fixture
def launched(platform):
    """Launches instances that are terminated at the test's end."""
    mine = []

    def make(*arguments, **more):
        instances = launch(platform, *arguments, **more)
        mine.extend(instances)
        return instances[0]

    yield make
    terminate(platform, mine)


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def layer(*entries):
    """A layer of `(kind, name, content or target, more)`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for kind, name, content, more in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            for key, value in more.items():
                setattr(entry, key, value)
            if kind == "file":
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.type = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "dir": tarfile.DIRTYPE}[kind]
                entry.linkname = content
                archive.addfile(entry)
    return raw.getvalue(), gzip.compress(raw.getvalue(), 1, mtime=0)


def system(*more):
    """The layers of an image that has no C library, and another one's programs nowhere."""
    files = busybox()
    for applet in ("mkdir", "stat", "chmod", "sync", "rm", "uname", "df", "ln", "readlink", "cut"):
        files[f"bin/{applet}"] = (f"#!/bin/busybox sh\nexec /bin/busybox {applet} \"$@\"\n".encode(), 0o755)
    return [layer_of(files), *more]


def test_r05_an_image_of_ecr_is_booted_with_its_own_files(platform, registered, launched):
    lower = layer(
        ("dir", "data", "", {}),
        ("file", "data/gone", b"x", {}),
        ("file", "data/kept", b"kept", {"uid": 1000, "gid": 1000, "mode": 0o640}),
        ("dir", "emptied", "", {}),
        ("file", "emptied/old", b"x", {}),
        ("dir", "usr/real", "", {}),
        ("link", "linked", "usr/real", {}),
    )
    upper = layer(
        ("file", "data/.wh.gone", b"", {}),
        ("file", "emptied/.wh..wh..opq", b"", {}),
        ("file", "emptied/new", b"new", {}),
        ("file", "linked/through", b"through", {}),
        ("hard", "data/twice", "emptied/new", {}),
        ("file", "etc/issue", b"mine\n", {}),
    )
    image = Image(platform, "system", layers=system(lower, upper))
    ami = registered(image, "system")
    instance = launched(
        "echo program=$(cut -d: -f1 /proc/1/comm) host=$(hostname) kernel=$(uname -s)\n"
        "echo data=$(echo /data/*) emptied=$(echo /emptied/*) real=$(echo /usr/real/*) linked=$(readlink /linked)\n"
        "echo kept=$(stat -c %u:%g:%a /data/kept) links=$(stat -c %h /data/twice) issue=$(cat /etc/issue)\n"
        "echo usr=$(echo /usr/*) libraries=$(ls /lib /lib64 2>&1 | head -1)\n"
        "echo resolver=$(grep -c 169.254.169.253 /etc/resolv.conf) own=$(wget -q -O - http://169.254.169.254/latest/meta-data/ami-id)\n"
        "touch /run/longshore/bin/longshore 2>&1\n"
        "echo again >> /data/kept\n",
        image=ami,
        MetadataOptions={"HttpTokens": "optional"},
    )
    printed = said(platform, instance, "cloud-init: finished")
    shown = wait_for(platform, instance, "running")
    assert shown["ImageId"] == ami
    assert f"program=longshore host={shown['PrivateDnsName'].split('.')[0]}" in printed, printed
    assert "data=/data/kept /data/twice emptied=/emptied/new real=/usr/real/through linked=usr/real" in printed, printed
    assert "kept=1000:1000:640 links=2 issue=mine" in printed, printed
    # Of the machine's programs and libraries nothing is there.
    assert "usr=/usr/real libraries=ls: /lib" in printed, printed
    assert f"resolver=1 own={ami}" in printed, printed
    assert "Read-only file system" in printed, printed
    # The second boot finds what the first has written, and nothing is unpacked over it.
    ec2 = platform.client("ec2")
    ec2.stop_instances(InstanceIds=[instance])
    wait_for(platform, instance, "stopped")
    ec2.deregister_image(ImageId=ami)
    platform.client("ecr").delete_repository(repositoryName="system", force=True)
    boothook = "#cloud-boothook\necho kept $(cat /data/kept) gone $(ls /data/gone 2>&1)\n"
    ec2.modify_instance_attribute(InstanceId=instance, UserData={"Value": boothook})
    ec2.start_instances(InstanceIds=[instance])
    wait_for(platform, instance, "running")
    said(platform, instance, "keptagain")
    ec2.reboot_instances(InstanceIds=[instance])
    said(platform, instance, "init: power off") if False else said(platform, instance, "keptagain")
    assert refused(ec2.run_instances, ImageId=ami, MinCount=1, MaxCount=1)[0] == "InvalidAMIID.NotFound"


def test_r05_an_agent_in_an_image_of_ecr_runs_tasks(platform, registered, launched):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="foreign")
    image = Image(platform, "foreign", layers=system())
    ecs.register_task_definition(
        family="foreign",
        requiresCompatibilities=["EC2"],
        networkMode="bridge",
        containerDefinitions=[{"name": "app", "image": image.uri, "memory": 64, "command": ["sh", "-c", "exit 7"]}],
    )
    ami = registered(image, "foreign")
    instance = launched("mkdir -p /etc/ecs\necho ECS_CLUSTER=foreign >> /etc/ecs/ecs.config\n", image=ami, role=profile(platform))
    (member,) = joined(platform, "foreign", 1)
    attributes = {attribute["name"]: attribute.get("value") for attribute in member["attributes"]}
    assert member["ec2InstanceId"] == instance and attributes["ecs.ami-id"] == ami
    answer = ecs.run_task(cluster="foreign", taskDefinition="foreign", launchType="EC2")
    assert answer["failures"] == []
    stopped = wait_for_task(platform, answer["tasks"][0]["taskArn"], "STOPPED", cluster="foreign")
    assert stopped["containers"][0].get("exitCode") == 7, stopped


def test_r05_images_are_shown_beside_the_first_one(platform, registered):
    ec2 = platform.client("ec2")
    image = Image(platform, "shown", layers=system())
    tags = [{"ResourceType": "image", "Tags": [{"Key": "team", "Value": "web"}]}]
    ami = registered(image, "shown", Description="of a test", Architecture="x86_64", TagSpecifications=tags, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 3}}])
    everything = [found["ImageId"] for found in ec2.describe_images()["Images"]]
    assert ami in everything and len(everything) == 2
    (found,) = ec2.describe_images(Owners=["self"])["Images"]
    assert (found["ImageId"], found["Name"], found["Description"], found["OwnerId"]) == (ami, "shown", "of a test", "123456789012")
    assert found["ImageLocation"] == f"{REGISTRY}/shown@{image.digest}" and found["State"] == "available" and not found["Public"]
    assert found["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 3
    assert found["Tags"] == [{"Key": "team", "Value": "web"}]
    for name, values, matches in [("name", ["sh*"], 1), ("tag:team", ["web"], 1), ("tag-key", ["team"], 1), ("is-public", ["false"], 1), ("name", ["x"], 0), ("tag:team", ["ops"], 0)]:
        assert len(ec2.describe_images(Filters=[{"Name": name, "Values": values}])["Images"]) == matches, name
    assert [other["ImageOwnerAlias"] for other in ec2.describe_images(Owners=["amazon"])["Images"]] == ["amazon"]
    ec2.create_tags(Resources=[ami], Tags=[{"Key": "more", "Value": "1"}])
    assert len(ec2.describe_images(ImageIds=[ami])["Images"][0]["Tags"]) == 2
    # The tag moves on; the image is what it was.
    Image(platform, "shown", files={"other": (b"x", 0o644)})
    assert ec2.describe_images(ImageIds=[ami])["Images"][0]["ImageLocation"].endswith(image.digest)
    ec2.deregister_image(ImageId=ami)
    assert refused(ec2.deregister_image, ImageId=ami)[0] == "InvalidAMIID.NotFound"
    assert ec2.describe_images(Owners=["self"])["Images"] == []


def test_r05_what_no_image_can_be_made_of(platform, registered):
    ec2 = platform.client("ec2")
    image = Image(platform, "good", layers=system())
    ami = registered(image, "good")
    register = lambda **input: refused(ec2.register_image, **{"Name": "another", "ImageLocation": image.uri, **input})
    assert register(Name="good") == ("InvalidAMIName.Duplicate", f"AMI name good is already in use by AMI {ami}")
    assert register(Name="a:b")[0] == "InvalidAMIName.Malformed"
    for location in (f"{REGISTRY}/nowhere:latest", f"{REGISTRY}/good:v2", f"{REGISTRY}/good@sha256:{'0' * 64}"):
        code, message = register(ImageLocation=location)
        assert code == "InvalidManifest" and location in message, message
    for location in ("busybox", "docker.io/library/busybox:1", f"{REGISTRY.replace('123456789012', '999999999999')}/good", "my-bucket/image.manifest.xml"):
        code, message = register(ImageLocation=location)
        assert code == "InvalidParameterValue" and "own registry" in message, message
    foreign = Image(platform, "arm", layers=system(), architecture="arm64")
    code, message = register(ImageLocation=foreign.uri)
    assert code == "InvalidManifest" and "linux/arm64" in message and "linux/amd64" in message, message
    assert register(Architecture="arm64")[0] == "InvalidParameterValue"
    for member, value in {"KernelId": "aki-1", "BootMode": "uefi", "EnaSupport": True, "VirtualizationType": "hvm"}.items():
        code, message = register(**{member: value})
        assert code == "InvalidParameterValue" and member in message, message
    (first,) = ec2.describe_images(Owners=["amazon"])["Images"]
    assert refused(ec2.deregister_image, ImageId=first["ImageId"])[0] == "AuthFailure"
    assert [found["ImageId"] for found in ec2.describe_images(Owners=["self"])["Images"]] == [ami]


def test_r05_an_image_that_cannot_be_unpacked_fails_visibly(platform, registered, launched):
    ec2 = platform.client("ec2")
    # More than a volume of 1 GiB takes, in few bytes but not too few.
    block = random.Random(1).randbytes(24 << 10)
    files = [("file", f"big/{number}", (block * 700)[: 16 << 20], {}) for number in range(70)]
    image = Image(platform, "large", layers=system(layer(*files)))
    ami = registered(image, "large", BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}])
    instance = launched("echo never\n", image=ami)
    shown = wait_for(platform, instance, "terminated", timeout=180)
    assert shown["StateReason"]["Code"] == "Server.InternalError"
    assert "does not fit on a volume of 1 GiB" in shown["StateReason"]["Message"], shown["StateReason"]
    assert "does not fit on a volume of 1 GiB" in eventually(lambda: console(platform, instance))
    # On a larger one it has room; and what was unpacked when the host was killed is unpacked anew.
    roomy = launched("echo files=$(ls /big | busybox wc -l)\n", image=ami, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 3}}])
    volume = describe(platform, roomy)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    filling = lambda: subprocess.run(["pgrep", "-f", f"instance-fill .*{volume}"], capture_output=True, text=True).stdout.split()
    (first,) = eventually(filling)
    os.kill(platform.child("host"), 9)
    eventually(lambda: first not in filling())
    said(platform, roomy, "files=70", timeout=240)
    # A layer that reaches out of its image.
    evil = Image(platform, "evil", layers=system(layer(("link", "out", "/etc", {}), ("file", "out/passwd", b"x", {}))))
    instance = launched("echo never\n", image=registered(evil, "evil"))
    shown = wait_for(platform, instance, "terminated")
    assert "out/passwd" in shown["StateReason"]["Message"], shown["StateReason"]
