"""r44: a task of a service can be protected from scale-in and from deployments, by the API and by itself."""

import json
import uuid

import botocore.exceptions
import pytest

from conftest import Image, eventually, log_lines, logging, register, run_task
from test_r20_services import container, create, ecs, messages, name, running, service, stable  # noqa: F401 (fixtures)



def protect(platform, tasks, enabled=True, **more):
    return platform.client("ecs").update_task_protection(cluster="default", tasks=tasks, protectionEnabled=enabled, **more)


def arns(platform, name):
    return sorted(task["taskArn"] for task in running(platform, name))


def test_r44_scale_in_takes_others_and_waits_for_the_protected(platform, ecs, image, name):
    register(platform, name, container(image))
    create(platform, name, 3)
    stable(platform, name)
    kept = arns(platform, name)[0]
    answer = protect(platform, [kept], expiresInMinutes=60)
    assert answer["failures"] == []
    assert (answer["protectedTasks"][0]["taskArn"], answer["protectedTasks"][0]["protectionEnabled"]) == (kept, True)
    ecs.update_service(service=name, desiredCount=1)
    eventually(lambda: arns(platform, name) == [kept])
    ecs.update_service(service=name, desiredCount=0)
    # What comes after it shows that it was looked at: the service is not at rest, and the task runs.
    eventually(lambda: service(platform, name)["desiredCount"] == 0 and arns(platform, name) == [kept])
    assert ecs.get_task_protection(cluster="default", tasks=[kept])["protectedTasks"][0]["protectionEnabled"] is True
    released = protect(platform, [kept], False)["protectedTasks"][0]
    assert released["protectionEnabled"] is False and "expirationDate" not in released
    eventually(lambda: arns(platform, name) == [])


def test_r44_a_deployment_waits_and_says_that_it_is_blocked(platform, ecs, image, name):
    register(platform, name, container(image))
    create(platform, name, 2, deploymentConfiguration={"minimumHealthyPercent": 50, "maximumPercent": 100})
    stable(platform, name)
    kept = arns(platform, name)
    protect(platform, kept)
    ecs.update_service(service=name, forceNewDeployment=True)
    blocked = (
        f"(service {name}) was unable to stop or start tasks during a deployment because of the service deployment configuration. "
        "Update the minimumHealthyPercent or maximumPercent value and try again."
    )
    eventually(lambda: blocked in messages(platform, name))
    assert arns(platform, name) == kept
    assert [failure["reason"] for failure in protect(platform, kept[:1])["failures"]] == ["DEPLOYMENT_BLOCKED"]
    assert protect(platform, kept, False)["failures"] == []
    eventually(lambda: stable(platform, name) and len(arns(platform, name)) == 2 and not set(kept) & set(arns(platform, name)), 90)


def test_r44_old_tasks_that_are_protected_stay_beside_the_new_ones(platform, ecs, image, name):
    register(platform, name, container(image))
    create(platform, name, 1)
    stable(platform, name)
    kept = arns(platform, name)
    protect(platform, kept)
    ecs.update_service(service=name, forceNewDeployment=True)
    eventually(lambda: len(arns(platform, name)) == 2 and kept[0] in arns(platform, name))
    assert [one["status"] for one in service(platform, name)["deployments"]] == ["PRIMARY", "ACTIVE"]
    # Whoever asks for the end of the task itself gets it.
    ecs.stop_task(task=kept[0])
    eventually(lambda: stable(platform, name) and kept[0] not in arns(platform, name))


def test_r44_what_cannot_be_protected(platform, ecs, image, name):
    register(platform, name, container(image))
    alone = run_task(platform, name)
    unknown = alone.rsplit("/", 1)[0] + "/" + "0" * 32
    for answer in (protect(platform, [alone, unknown]), ecs.get_task_protection(cluster="default", tasks=[alone, unknown])):
        assert answer["protectedTasks"] == []
        assert [(failure["arn"], failure["reason"]) for failure in answer["failures"]] == [(alone, "TASK_NOT_VALID"), (unknown, "MISSING")]
    ecs.stop_task(task=alone)
    for wrong in ({"tasks": []}, {"tasks": [unknown] * 11}, {"expiresInMinutes": 0}, {"expiresInMinutes": 2881}):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            ecs.update_task_protection(**{"cluster": "default", "tasks": [unknown], "protectionEnabled": True, **wrong})
        assert error.value.response["Error"]["Code"] == "InvalidParameterException", wrong


def test_r44_protection_ends_by_the_platforms_clock(own_platform):
    platform = own_platform("--clock-rate", "100")
    ecs = platform.client("ecs")
    ecs.create_cluster()
    name = f"r44-{uuid.uuid4().hex[:8]}"
    register(platform, name, container(Image(platform, "busybox").uri))
    create(platform, name, 1)
    stable(platform, name)
    kept = arns(platform, name)
    protect(platform, kept, expiresInMinutes=10)
    ecs.update_service(service=name, desiredCount=0)
    assert arns(platform, name) == kept
    eventually(lambda: not ecs.get_task_protection(cluster="default", tasks=kept)["protectedTasks"][0]["protectionEnabled"] if arns(platform, name) else True)
    eventually(lambda: arns(platform, name) == [])


PUT = """
put() {
  # Whoever ends its half of a connection is taken to have left.
  { printf 'PUT %s/task-protection/v1/state HTTP/1.0\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: %s\\r\\n\\r\\n%s' "/api/${ECS_AGENT_URI##*/}" "${#1}" "$1"; sleep 2; } | nc 169.254.170.2 80 | tail -n 1
  echo
}
put '{"ProtectionEnabled":true,"ExpiresInMinutes":60}'
wget -q -O - $ECS_AGENT_URI/task-protection/v1/state; echo
put '{"Protection":true}'
sleep 600
"""


def test_r44_a_task_protects_itself(platform, ecs, image, name):
    group = f"r44-{uuid.uuid4().hex[:8]}"
    platform.client("logs").create_log_group(logGroupName=group)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = platform.client("iam").create_role(RoleName=group, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    register(platform, name, container(image, PUT, logConfiguration=logging(group)), taskRoleArn=role)
    create(platform, name, 1)
    stable(platform, name)
    task = arns(platform, name)[0]
    stream = f"test/app/{task.rsplit('/', 1)[1]}"

    def said():
        lines = [line for line in log_lines(platform, group, stream) if line.strip()]
        return lines if len(lines) >= 3 else None

    lines = eventually(said)
    put, got, wrong = [json.loads(line) for line in lines[:3]]
    assert put["protection"]["TaskArn"] == task and put["protection"]["ProtectionEnabled"] is True
    assert got == put
    assert wrong["error"]["Code"] == "InvalidParameterException" and wrong["error"]["Arn"] == task
    assert ecs.get_task_protection(cluster="default", tasks=[task])["protectedTasks"][0]["protectionEnabled"] is True
    ecs.update_service(service=name, desiredCount=0)
    protect(platform, [task], False)
    eventually(lambda: arns(platform, name) == [])
