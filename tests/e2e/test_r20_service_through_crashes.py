"""r20: the desired count is kept while the platform's own processes die."""

import os
import signal

from conftest import Image, default_network, eventually, register


def test_r20_the_count_is_kept_while_the_platform_dies(own_platform):
    platform = own_platform()
    image = Image(platform, "busybox").uri
    script = {"entryPoint": ["/bin/sh", "-c"], "command": ["sleep 600"], "stopTimeout": 2}
    register(platform, "web", {"name": "app", "image": image, **script})
    ecs = platform.client("ecs")
    ecs.create_cluster()
    network = default_network(platform)
    ecs.create_service(serviceName="web", taskDefinition="web", desiredCount=3, launchType="FARGATE", networkConfiguration=network)

    def running():
        arns = ecs.list_tasks(serviceName="web")["taskArns"]
        tasks = ecs.describe_tasks(tasks=arns)["tasks"] if arns else []
        return {task["taskArn"] for task in tasks if task["lastStatus"] == "RUNNING"}

    before = eventually(lambda: running() if len(running()) == 3 else None)
    for role in ("server", "agent", "host"):
        os.kill(platform.child(role), signal.SIGKILL)
        # Nothing is restarted or doubled.
        assert eventually(lambda: running() if len(running()) == 3 else None) == before
    victim = sorted(before)[0]
    # A stop that was acknowledged is carried out by who comes after.
    ecs.stop_task(task=victim)
    os.kill(platform.child("server"), signal.SIGKILL)
    after = eventually(lambda: running() if len(running()) == 3 and victim not in running() else None)
    assert len(after & before) == 2
    ecs.update_service(service="web", desiredCount=1)
    os.kill(platform.child("server"), signal.SIGKILL)
    assert len(eventually(lambda: running() if len(running()) == 1 else None) & after) == 1
    platform.stop()
