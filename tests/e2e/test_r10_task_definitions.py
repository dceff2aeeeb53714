"""r10: a task definition is JSON that tells how to run a container; every field is enforced or refused by name."""

import json
import uuid

import botocore.exceptions
import pytest

from conftest import ACCOUNT, EXECUTION_ROLE, register


@pytest.fixture
def ecs(platform):
    return platform.client("ecs")


@pytest.fixture
def family():
    return f"r10-{uuid.uuid4().hex[:8]}"


def definition(family, **container):
    return {
        "family": family,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "containerDefinitions": [{"name": "app", "image": "public.ecr.aws/docker/library/busybox", **container}],
    }


def refusal(ecs, **request):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        ecs.register_task_definition(**request)
    error = raised.value.response["Error"]
    return error["Code"], error["Message"]


def test_r10_registered_from_a_json_file_by_the_cli(platform, family, tmp_path):
    request = definition(family, portMappings=[{"containerPort": 80}], environment=[{"name": "A", "value": "b"}])
    path = tmp_path / "task.json"
    path.write_text(json.dumps(request))
    answer = json.loads(platform.aws("ecs", "register-task-definition", "--cli-input-json", f"file://{path}"))
    made = answer["taskDefinition"]
    assert made["taskDefinitionArn"] == f"arn:aws:ecs:us-east-1:{ACCOUNT}:task-definition/{family}:1"
    assert (made["revision"], made["status"], made["compatibilities"]) == (1, "ACTIVE", ["EC2", "FARGATE"])
    assert made["registeredBy"] == f"arn:aws:iam::{ACCOUNT}:root"
    container = made["containerDefinitions"][0]
    # Normalised as Amazon does.
    assert container["essential"] is True and container["cpu"] == 0
    assert container["portMappings"] == [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]
    assert container["mountPoints"] == [] and container["volumesFrom"] == [] and made["volumes"] == []
    assert {"name": "ecs.capability.task-eni"} in made["requiresAttributes"]
    described = json.loads(platform.aws("ecs", "describe-task-definition", "--task-definition", family))
    assert described["taskDefinition"] == made


def test_r10_revisions_families_and_their_end(ecs, family):
    arns = [ecs.register_task_definition(**definition(family))["taskDefinition"]["taskDefinitionArn"] for _ in range(11)]
    assert [arn.rsplit(":", 1)[1] for arn in arns] == [str(n) for n in range(1, 12)]
    # Revision 10 comes after revision 2, in pages as well.
    pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix=family, PaginationConfig={"PageSize": 4})
    assert [arn for page in pages for arn in page["taskDefinitionArns"]] == arns
    newest = ecs.list_task_definitions(familyPrefix=family, sort="DESC")["taskDefinitionArns"]
    assert newest == arns[::-1]
    assert ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["revision"] == 11
    assert ecs.describe_task_definition(taskDefinition=f"{family}:3")["taskDefinition"]["revision"] == 3

    for arn in arns:
        assert ecs.deregister_task_definition(taskDefinition=arn)["taskDefinition"]["status"] == "INACTIVE"
    assert ecs.list_task_definitions(familyPrefix=family)["taskDefinitionArns"] == []
    assert ecs.list_task_definition_families(familyPrefix=family)["families"] == []
    assert ecs.list_task_definition_families(familyPrefix=family, status="INACTIVE")["families"] == [family]
    assert ecs.describe_task_definition(taskDefinition=arns[0])["taskDefinition"]["status"] == "INACTIVE"
    with pytest.raises(ecs.exceptions.ClientException, match="Unable to describe task definition."):
        ecs.describe_task_definition(taskDefinition=family)

    deleted = ecs.delete_task_definitions(taskDefinitions=[arns[0], f"{family}:99"])
    assert deleted["taskDefinitions"][0]["status"] == "DELETE_IN_PROGRESS"
    assert deleted["failures"][0]["reason"] == "MISSING"
    # A number is never used twice.
    assert ecs.register_task_definition(**definition(family))["taskDefinition"]["revision"] == 12


def test_r10_what_fargate_demands(ecs, family):
    base = definition(family)
    assert refusal(ecs, **{**base, "memory": "4096"})[1].startswith("No Fargate configuration exists for given values")
    without = {key: value for key, value in base.items() if key != "cpu"}
    assert refusal(ecs, **without) == ("ClientException", "Fargate requires that 'cpu' be defined at the task level.")
    assert "awsvpc" in refusal(ecs, **{**base, "networkMode": "bridge"})[1]
    logs = {"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}
    with_logs = definition(family, logConfiguration={"logDriver": "awslogs", "options": logs})
    assert refusal(ecs, **with_logs)[1] == "Fargate requires task definition to have execution role ARN to support log driver awslogs."
    ours = definition(family, image=f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/x")
    assert refusal(ecs, **ours)[1] == "Fargate requires task definition to have execution role ARN to support ECR images."
    secret = definition(family, secrets=[{"name": "a", "valueFrom": "b"}])
    assert refusal(ecs, **secret)[1] == "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'."
    private = definition(family, repositoryCredentials={"credentialsParameter": "p"})
    assert refusal(ecs, **private)[1].startswith("Private repository authentication requires that the task definition specify")
    del logs["awslogs-stream-prefix"]
    assert "awslogs-stream-prefix" in refusal(ecs, **with_logs, executionRoleArn=EXECUTION_ROLE)[1]


@pytest.mark.parametrize(
    "name, change",
    [
        ("volumes", {"volumes": [{"name": "v"}]}),
        ("pidMode", {"pidMode": "task"}),
        ("ipcMode", {"ipcMode": "task"}),
        ("proxyConfiguration", {"proxyConfiguration": {"containerName": "app"}}),
        ("containerDefinitions.secrets", {"secrets": [{"name": "a", "valueFrom": "b"}]}),
        ("containerDefinitions.repositoryCredentials", {"repositoryCredentials": {"credentialsParameter": "p"}}),
        ("containerDefinitions.privileged", {"privileged": True}),
        ("containerDefinitions.firelensConfiguration", {"firelensConfiguration": {"type": "fluentd"}}),
        ("containerDefinitions.pseudoTerminal", {"pseudoTerminal": True}),
        ("linuxParameters.tmpfs", {"linuxParameters": {"tmpfs": [{"containerPath": "/x", "size": 1}]}}),
        ("logConfiguration.logDriver splunk", {"logConfiguration": {"logDriver": "splunk"}}),
    ],
)
def test_r10_what_is_not_honoured_is_refused_by_its_name(ecs, family, name, change):
    top = {"volumes", "pidMode", "ipcMode", "proxyConfiguration"}
    if set(change) & top:
        request = {**definition(family), **change}
    else:
        request = definition(family, **change)
    code, message = refusal(ecs, **request, executionRoleArn=EXECUTION_ROLE)
    assert code in ("InvalidParameterException", "ClientException")
    assert message.endswith(name), message


def test_r10_mistakes_name_their_cause(ecs, family):
    waiting = definition(family)
    waiting["containerDefinitions"] = [
        {"name": "a", "image": "i", "dependsOn": [{"containerName": "b", "condition": "START"}]},
        {"name": "b", "image": "i", "dependsOn": [{"containerName": "a", "condition": "START"}]},
    ]
    assert "cycle" in refusal(ecs, **waiting)[1]
    assert "must match" in refusal(
        ecs, **definition(family, portMappings=[{"containerPort": 80, "hostPort": 8080}])
    )[1]
    assert "essential" in refusal(ecs, **definition(family, essential=False))[1]
    assert refusal(ecs, **{**definition(family), "containerDefinitions": []})[1] == "Container list cannot be empty."
    assert refusal(ecs, **definition(family, memory=1024))[1] == "The 'memory' setting for container 'app' is greater than for the task."
    assert refusal(ecs, **definition(family), taskRoleArn="arn:aws:s3:::x") == ("ClientException", "Role is not valid")
    broken = {"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p", "awslogs-multiline-pattern": "("}
    logs = {"logDriver": "awslogs", "options": broken}
    assert "awslogs-multiline-pattern" in refusal(ecs, **definition(family, logConfiguration=logs), executionRoleArn=EXECUTION_ROLE)[1]
    assert ecs.list_task_definition_families(familyPrefix=family)["families"] == []


def test_r10_tags(platform, ecs, family):
    tags = [{"key": "team", "value": "web"}]
    arn = register(platform, family, {"name": "app", "image": "i"}, tags=tags)
    assert ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])["tags"] == tags
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == tags
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "team", "value": "db"}, {"key": "x", "value": ""}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["x"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "team", "value": "db"}]
