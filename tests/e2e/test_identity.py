"""Who is calling: signatures, sessions, roles, and the credentials that tasks get."""

import datetime
import json
import time

import boto3
import botocore.exceptions
import pytest

from conftest import ACCOUNT, eventually, log_lines, logging, register, run_task, wait_for

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


def refused(call, *arguments, **more):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(*arguments, **more)
    return error.value.response["Error"]


@pytest.fixture
def role(platform):
    iam = platform.client("iam")
    name = f"role-{time.time_ns()}"
    yield iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)["Role"]
    iam.delete_role(RoleName=name)


def test_wrong_keys_are_refused_with_amazons_codes(platform):
    key, _ = platform.keys
    cases = [
        ("ecs", "list_clusters", {"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ("ecs", "list_clusters", {"aws_access_key_id": "AKIANOBODY"}, "UnrecognizedClientException"),
        ("iam", "list_roles", {"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ("iam", "list_roles", {"aws_access_key_id": "AKIANOBODY"}, "InvalidClientTokenId"),
        ("ec2", "describe_vpcs", {"aws_secret_access_key": "wrong"}, "AuthFailure"),
    ]
    for service, operation, arguments, code in cases:
        assert refused(getattr(platform.client(service, **arguments), operation))["Code"] == code, (service, arguments)


def test_the_consoles_roles_exist_from_the_start(platform):
    iam = platform.client("iam")
    role = iam.get_role(RoleName="ecsTaskExecutionRole")["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/ecsTaskExecutionRole"
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    attached = iam.list_attached_role_policies(RoleName="ecsTaskExecutionRole")["AttachedPolicies"]
    assert [policy["PolicyName"] for policy in attached] == ["AmazonECSTaskExecutionRolePolicy"]
    profile = iam.get_instance_profile(InstanceProfileName="ecsInstanceRole")["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == ["ecsInstanceRole"]


def test_roles_policies_and_profiles_are_kept_as_given(platform):
    iam = platform.client("iam")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.create_role(RoleName="kept", Path="/team/", AssumeRolePolicyDocument=TRUST, Tags=[{"Key": "a", "Value": "b"}], MaxSessionDuration=7200)
    iam.put_role_policy(RoleName="kept", PolicyName="inline", PolicyDocument=json.dumps(policy))
    iam.attach_role_policy(RoleName="kept", PolicyArn="arn:aws:iam::aws:policy/CloudWatchLogsFullAccess")
    iam.create_instance_profile(InstanceProfileName="kept")
    iam.add_role_to_instance_profile(InstanceProfileName="kept", RoleName="kept")
    role = iam.get_role(RoleName="KEPT")["Role"]
    assert (role["Arn"], role["Tags"], role["MaxSessionDuration"]) == (f"arn:aws:iam::{ACCOUNT}:role/team/kept", [{"Key": "a", "Value": "b"}], 7200)
    assert iam.get_role_policy(RoleName="kept", PolicyName="inline")["PolicyDocument"] == policy
    assert iam.list_roles(PathPrefix="/team/")["Roles"][0]["RoleName"] == "kept"
    assert refused(iam.create_role, RoleName="Kept", AssumeRolePolicyDocument=TRUST)["Code"] == "EntityAlreadyExists"
    assert refused(iam.delete_role, RoleName="kept")["Code"] == "DeleteConflict"
    assert refused(iam.put_role_policy, RoleName="kept", PolicyName="x", PolicyDocument="{")["Code"] == "MalformedPolicyDocument"
    iam.remove_role_from_instance_profile(InstanceProfileName="kept", RoleName="kept")
    iam.delete_instance_profile(InstanceProfileName="kept")
    iam.detach_role_policy(RoleName="kept", PolicyArn="arn:aws:iam::aws:policy/CloudWatchLogsFullAccess")
    iam.delete_role_policy(RoleName="kept", PolicyName="inline")
    iam.delete_role(RoleName="kept")
    assert refused(iam.get_role, RoleName="kept")["Code"] == "NoSuchEntity"


def test_an_assumed_roles_session_works_until_it_ends(own_platform):
    # A fast clock: the session's quarter of an hour is over in seconds.
    platform = own_platform("--clock-rate", "300")
    role = platform.client("iam").create_role(RoleName="short", AssumeRolePolicyDocument=TRUST)["Role"]
    given = platform.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="me", DurationSeconds=900)
    keys = given["Credentials"]
    assert keys["AccessKeyId"].startswith("ASIA")
    session = {"aws_access_key_id": keys["AccessKeyId"], "aws_secret_access_key": keys["SecretAccessKey"], "aws_session_token": keys["SessionToken"]}
    sts = platform.client("sts", **session)
    who = sts.get_caller_identity()
    assert who["Arn"] == given["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/short/me"
    assert who["UserId"] == f"{role['RoleId']}:me"
    eventually(lambda: "Expired" in str(refused_or_none(sts.get_caller_identity)), 20)
    assert refused(sts.get_caller_identity)["Code"] == "ExpiredToken"
    assert refused(platform.client("ecs", **session).list_clusters)["Code"] == "ExpiredTokenException"


def refused_or_none(call):
    try:
        call()
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]


def test_a_roles_sessions_end_with_the_role(platform):
    iam = platform.client("iam")
    arn = iam.create_role(RoleName="brief", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    keys = platform.client("sts").assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    session = {"aws_access_key_id": keys["AccessKeyId"], "aws_secret_access_key": keys["SecretAccessKey"], "aws_session_token": keys["SessionToken"]}
    assert platform.client("sts", **session).get_caller_identity()["Arn"].endswith("/brief/session")
    iam.delete_role(RoleName="brief")
    iam.create_role(RoleName="brief", AssumeRolePolicyDocument=TRUST)
    assert refused(platform.client("sts", **session).get_caller_identity)["Code"] == "InvalidClientTokenId"
    assert refused(platform.client("ecs", **session).list_clusters)["Code"] == "UnrecognizedClientException"
    iam.delete_role(RoleName="brief")


def test_policy_documents_follow_the_grammar(platform, role):
    iam = platform.client("iam")
    nobody = TRUST.replace('"Principal": {"Service": "ecs-tasks.amazonaws.com"}, ', "")
    for document, text in (
        ("{", "This policy contains invalid Json"),
        (nobody, "Missing required field Principal"),
        (TRUST.replace("sts:AssumeRole", "s3:GetObject"), "AssumeRole policy may only specify STS AssumeRole actions."),
    ):
        error = refused(iam.create_role, RoleName="malformed", AssumeRolePolicyDocument=document)
        assert (error["Code"], error["Message"]) == ("MalformedPolicyDocument", text)
    error = refused(iam.put_role_policy, RoleName=role["RoleName"], PolicyName="p", PolicyDocument=TRUST)
    assert (error["Code"], error["Message"]) == ("MalformedPolicyDocument", "Policy document should not specify a principal.")


def test_what_a_session_cannot_do_yet_is_refused_by_name(platform, role):
    sts = platform.client("sts")
    error = refused(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="session", Policy="{}")
    assert error["Code"] == "ValidationError" and "Policy" in error["Message"]
    error = refused(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="session", DurationSeconds=7200)
    assert error["Code"] == "ValidationError" and "DurationSeconds" in error["Message"]
    error = refused(sts.assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/nobody", RoleSessionName="session")
    assert error["Code"] == "AccessDenied"


def test_another_accounts_resources_are_out_of_reach(platform):
    foreign = "arn:aws:ecs:us-east-1:999999999999:cluster/theirs"
    error = refused(platform.client("ecs").delete_cluster, cluster=foreign)
    assert error["Code"] == "AccessDeniedException" and foreign in error["Message"] and "ecs:DeleteCluster" in error["Message"]


def test_an_operation_that_is_not_served_says_so_with_501(platform):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        platform.client("autoscaling").describe_auto_scaling_groups()
    answer = error.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert answer["Error"]["Code"] == "UnsupportedOperation" and "DescribeAutoScalingGroups" in answer["Error"]["Message"]


def test_r94_a_fargate_tasks_role_reaches_it_without_configuration(platform, image, role):
    platform.client("logs").create_log_group(logGroupName="credentials")
    script = (
        "wget -q -O - http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; echo; "
        "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task; echo; env"
    )
    container = {"name": "c", "image": image, "command": ["/bin/sh", "-c", script], "logConfiguration": logging("credentials")}
    arn = run_task(platform, register(platform, "who", container, taskRoleArn=role["Arn"]))
    assert wait_for(platform, arn, "STOPPED")["containers"][0]["exitCode"] == 0
    lines = log_lines(platform, "credentials", f"test/c/{arn.rsplit('/', 1)[1]}")
    given, metadata = json.loads(lines[0]), json.loads(lines[1])
    assert (given["RoleArn"], metadata["TaskARN"], metadata["LaunchType"]) == (role["Arn"], arn, "FARGATE")
    assert any(line.startswith("AWS_ENDPOINT_URL=http://169.254.169.252:") for line in lines)
    keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"], "aws_session_token": given["Token"]}
    who = platform.client("sts", **keys).get_caller_identity()["Arn"]
    assert who == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role['RoleName']}/{arn.rsplit('/', 1)[1]}"
