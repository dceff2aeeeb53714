"""EC2 instances as their API shows them: what is launched, refused, tagged and found. That they boot is tested elsewhere."""

import json

import botocore.exceptions
import pytest


@pytest.fixture(scope="module")
def ec2(platform):
    return platform.client("ec2")


@pytest.fixture(scope="module")
def image(platform):
    ssm = platform.client("ssm")
    name = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended"
    whole = json.loads(ssm.get_parameter(Name=name)["Parameter"]["Value"])
    alone = ssm.get_parameters(Names=[name + "/image_id", "/none"])
    assert alone["InvalidParameters"] == ["/none"]
    assert alone["Parameters"][0]["Value"] == whole["image_id"]
    below = ssm.get_parameters_by_path(Path=name)["Parameters"]
    assert {"image_id", "os"} <= {one["Name"].rsplit("/", 1)[1] for one in below}
    refused("ParameterNotFound", ssm.get_parameter, Name="/none")
    refused("UnsupportedOperation", ssm.put_parameter, Name="x", Value="y", Type="String")
    return whole["image_id"]


def refused(code, call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response["Error"]["Message"]


@pytest.fixture
def gone(ec2):
    ids = []
    yield ids
    if ids:
        ec2.terminate_instances(InstanceIds=ids)


def test_r03_an_instance_is_launched_tagged_and_found(ec2, image, gone):
    specifications = [
        {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "web"}]}
        for kind in ("instance", "volume", "network-interface")
    ]
    arguments = dict(
        ImageId=image, MinCount=1, MaxCount=2, InstanceType="t3.small", ClientToken="r03", UserData="#!/bin/sh\n",
        TagSpecifications=specifications, MetadataOptions={"HttpTokens": "optional", "InstanceMetadataTags": "enabled"},
        BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3, "VolumeType": "gp3"}}],
    )
    reservation = ec2.run_instances(**arguments)
    instances = reservation["Instances"]
    gone += [one["InstanceId"] for one in instances]
    assert len(instances) == 2 and ec2.run_instances(**arguments)["ReservationId"] == reservation["ReservationId"]
    refused("IdempotentParameterMismatch", ec2.run_instances, **{**arguments, "MaxCount": 1})
    first = instances[0]
    assert first["State"]["Name"] == "pending" and first["MetadataOptions"]["HttpTokens"] == "optional"
    assert first["PrivateDnsName"].startswith("ip-172-31-") and first["SecurityGroups"][0]["GroupName"] == "default"
    interface = ec2.describe_network_interfaces(
        Filters=[{"Name": "attachment.instance-id", "Values": [first["InstanceId"]]}]
    )["NetworkInterfaces"][0]
    assert interface["Attachment"]["DeviceIndex"] == 0 and interface["Attachment"]["DeleteOnTermination"] is True
    assert interface["Attachment"]["Status"] == "attached" and interface["TagSet"] == specifications[0]["Tags"]
    refused("DependencyViolation", ec2.delete_subnet, SubnetId=first["SubnetId"])
    found = ec2.describe_instances(Filters=[
        {"Name": "tag:Name", "Values": ["w*"]}, {"Name": "reservation-id", "Values": [reservation["ReservationId"]]},
    ])["Reservations"]
    assert len(found) == 1 and [one["AmiLaunchIndex"] for one in found[0]["Instances"]] == [0, 1]
    volumes = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [first["InstanceId"]]}])
    assert sorted((one["Size"], one["VolumeType"]) for one in volumes["Volumes"]) == [(3, "gp3"), (30, "gp3")]
    attribute = ec2.describe_instance_attribute(InstanceId=first["InstanceId"], Attribute="userData")
    assert attribute["UserData"]["Value"] == "IyEvYmluL3NoCg=="
    pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
    assert sum(len(one["Instances"]) for page in pages for one in page["Reservations"]) >= 2
    ec2.create_tags(Resources=[first["InstanceId"]], Tags=[{"Key": "tier", "Value": "1"}])
    wanted = [{"Name": "resource-type", "Values": ["instance"]}, {"Name": "key", "Values": ["tier"]}]
    tags = ec2.describe_tags(Filters=wanted)
    assert [one["ResourceId"] for one in tags["Tags"]] == [first["InstanceId"]]


def test_r03_what_cannot_be_launched_is_refused(ec2, image):
    fixed = dict(ImageId=image, MinCount=1, MaxCount=1)
    refused("InvalidAMIID.NotFound", ec2.run_instances, **{**fixed, "ImageId": "ami-0123456789abcdef0"})
    refused("InvalidAMIID.Malformed", ec2.run_instances, **{**fixed, "ImageId": "linux"})
    text = refused("InvalidParameterValue", ec2.run_instances, **fixed, IamInstanceProfile={"Name": "none"})
    assert text == "Value (none) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    text = refused("InvalidParameterValue", ec2.run_instances, **fixed, InstanceType="m4.large")
    assert text == "Invalid value 'm4.large' for InstanceType."
    # Nor one that Amazon has not either.
    text = refused("InvalidParameterValue", ec2.run_instances, **fixed, InstanceType="x9.nano")
    assert text == "Invalid value 'x9.nano' for InstanceType."
    text = refused("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["t3.micro", "x9.nano"])
    assert text == "The following supplied instance types do not exist: [x9.nano]"
    assert "CpuOptions" in refused("InvalidParameterValue", ec2.run_instances, **fixed, CpuOptions={"CoreCount": 1})
    refused("InvalidKeyPair.NotFound", ec2.run_instances, **fixed, KeyName="none")
    refused("DryRunOperation", ec2.run_instances, **fixed, DryRun=True)
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])


def test_r03_images_and_types_are_described(ec2, image):
    named = [{"Name": "name", "Values": ["al2023-ami-ecs-hvm-*"]}]
    images = ec2.describe_images(Owners=["amazon"], Filters=named)["Images"]
    assert [one["ImageId"] for one in images] == [image] and images[0]["RootDeviceName"] == "/dev/xvda"
    assert not ec2.describe_images(Owners=["self"])["Images"]
    small = ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"][0]
    assert (small["VCpuInfo"]["DefaultVCpus"], small["MemoryInfo"]["SizeInMiB"]) == (2, 8192)
    offers = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["t3.micro"]}]
    )["InstanceTypeOfferings"]
    assert len(offers) == 3


def test_r03_launch_templates_have_versions(ec2, image, gone):
    data = {
        "ImageId": image,
        "InstanceType": "t3.nano",
        "NetworkInterfaces": [{"DeviceIndex": 0, "AssociatePublicIpAddress": False}],
    }
    template = ec2.create_launch_template(LaunchTemplateName="r03", LaunchTemplateData=data)["LaunchTemplate"]
    id = template["LaunchTemplateId"]
    made = ec2.create_launch_template_version(
        LaunchTemplateId=id, SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.micro"}
    )["LaunchTemplateVersion"]
    assert made["VersionNumber"] == 2 and made["LaunchTemplateData"]["ImageId"] == image
    latest = {"LaunchTemplateName": "r03", "Version": "$Latest"}
    launched = ec2.run_instances(LaunchTemplate=latest, MinCount=1, MaxCount=1)["Instances"][0]
    gone.append(launched["InstanceId"])
    assert launched["InstanceType"] == "t3.micro" and "PublicIpAddress" not in launched
    modified = ec2.modify_launch_template(LaunchTemplateId=id, DefaultVersion="2")["LaunchTemplate"]
    assert modified["DefaultVersionNumber"] == 2
    versions = ec2.describe_launch_template_versions(LaunchTemplateId=id)["LaunchTemplateVersions"]
    assert [(one["VersionNumber"], one["DefaultVersion"]) for one in versions] == [(2, True), (1, False)]
    code = "InvalidLaunchTemplateName.AlreadyExistsException"
    refused(code, ec2.create_launch_template, LaunchTemplateName="r03", LaunchTemplateData=data)
    ec2.delete_launch_template(LaunchTemplateId=id)
    refused("InvalidLaunchTemplateId.NotFound", ec2.describe_launch_templates, LaunchTemplateIds=[id])


def test_r03_profiles_are_associated(platform, ec2, image, gone):
    iam = platform.client("iam")
    for name in ("r03-a", "r03-b"):
        iam.create_instance_profile(InstanceProfileName=name)
    profile = {"Name": "r03-a"}
    launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, IamInstanceProfile=profile)["Instances"][0]
    gone.append(launched["InstanceId"])
    mine = [{"Name": "instance-id", "Values": [launched["InstanceId"]]}]
    associations = ec2.describe_iam_instance_profile_associations(Filters=mine)["IamInstanceProfileAssociations"]
    assert associations[0]["IamInstanceProfile"]["Arn"].endswith("instance-profile/r03-a")
    replaced = ec2.replace_iam_instance_profile_association(
        AssociationId=associations[0]["AssociationId"], IamInstanceProfile={"Name": "r03-b"}
    )["IamInstanceProfileAssociation"]
    associate = ec2.associate_iam_instance_profile
    refused("IncorrectState", associate, InstanceId=launched["InstanceId"], IamInstanceProfile=profile)
    ec2.disassociate_iam_instance_profile(AssociationId=replaced["AssociationId"])
    assert not ec2.describe_iam_instance_profile_associations(Filters=mine)["IamInstanceProfileAssociations"]
    for name in ("r03-a", "r03-b"):
        iam.delete_instance_profile(InstanceProfileName=name)
