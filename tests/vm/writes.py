"""What the scenario `writes` asks of a platform: a service and a task that run, and writes of every kind that is kept on
disk, each of them told only after it was acknowledged."""

import hashlib
import itertools
import json
import time
import urllib.request

import botocore.exceptions

from conftest import Image, Platform, default_network, eventually, logging, register, task

FAMILY, GROUP, STREAM, REPOSITORY = "power", "/power/cut", "events", "power"
# As patient as an emulated processor needs.
PATIENCE = 300


class Writer:
    """A platform on a data directory that earlier machines may have used."""

    def __init__(self, directory):
        self.platform = Platform(directory=directory, port=4580, hosts=True).start()
        client = self.platform.client
        self.ecs, self.logs, self.ecr = client("ecs"), client("logs"), client("ecr")

    def definitions(self):
        """The numbers of the task definitions, each of which holds its number."""
        for page in self.ecs.get_paginator("list_task_definition_families").paginate(familyPrefix=f"{FAMILY}-", status="ACTIVE"):
            for family in page["families"]:
                found = self.ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
                (variable,) = found["containerDefinitions"][0]["environment"]
                assert family == f"{FAMILY}-{variable['value']}", found
                yield variable["value"]

    def events(self):
        """The messages of the log stream."""
        token = None
        while True:
            arguments = {"nextToken": token} if token else {}
            page = self.logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM, startFromHead=True, **arguments)
            yield from (event["message"] for event in page["events"])
            if page["nextForwardToken"] == token:
                return
            token = page["nextForwardToken"]

    def images(self):
        """The tags of the images, every layer of which has the bytes that its digest says."""
        for page in self.ecr.get_paginator("list_images").paginate(repositoryName=REPOSITORY):
            for found in page["imageIds"]:
                (image,) = self.ecr.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": found["imageTag"]}])["images"]
                for layer in json.loads(image["imageManifest"])["layers"]:
                    url = self.ecr.get_download_url_for_layer(repositoryName=REPOSITORY, layerDigest=layer["digest"])["downloadUrl"]
                    content = urllib.request.urlopen(url, timeout=PATIENCE).read()
                    assert "sha256:" + hashlib.sha256(content).hexdigest() == layer["digest"], found
                yield found["imageTag"]

    def everything(self):
        """All that is there, as (kind, name)."""
        for kind, read in (("definition", self.definitions), ("event", self.events), ("image", self.images)):
            try:
                for name in read():
                    yield kind, name
            except botocore.exceptions.ClientError as error:
                # Before the first write there is neither log group nor repository.
                assert "NotFound" in error.response["Error"]["Code"], error

    def ensure(self):
        """Makes the service, and one task of its own, unless they are there; gives the arn of a task that was there."""
        self.ecs.create_cluster()
        lone = [arn for status in ("RUNNING", "STOPPED") for arn in self.ecs.list_tasks(startedBy="vmtest", desiredStatus=status)["taskArns"]]
        if self.ecs.describe_services(services=[FAMILY])["services"]:
            return lone
        self.logs.create_log_group(logGroupName=GROUP)
        self.logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
        image = Image(self.platform, "busybox").uri
        script = "trap exit TERM; while :; do echo alive; sleep 1; done"
        container = {"name": "app", "image": image, "entryPoint": ["/bin/sh", "-c"], "command": [script], "logConfiguration": logging(GROUP)}
        register(self.platform, FAMILY, container)
        network = {"launchType": "FARGATE", "networkConfiguration": default_network(self.platform), "taskDefinition": FAMILY}
        self.ecs.create_service(serviceName=FAMILY, desiredCount=2, **network)
        assert self.ecs.run_task(startedBy="vmtest", **network)["failures"] == []
        return []

    def steady(self, lives):
        """Waits until the service runs its two tasks; `lives` says of a task's id whether this machine runs it."""

        def reached():
            arns = self.ecs.list_tasks(desiredStatus="RUNNING")["taskArns"]
            tasks = [found for found in self.ecs.describe_tasks(tasks=arns)["tasks"] if found["lastStatus"] == "RUNNING"] if arns else []
            of_service = [found for found in tasks if found["group"] == f"service:{FAMILY}"]
            # What is called RUNNING must run: a task that went with the power is no task.
            dead = [found["taskArn"] for found in tasks if not lives(found["taskArn"].rsplit("/", 1)[1])]
            return len(of_service) == 2 and not dead

        eventually(reached, PATIENCE, 0.5)

    def stopped(self, arn):
        """Waits until a task that went with the power is told as stopped; gives what is said of it."""
        eventually(lambda: task(self.platform, arn)["lastStatus"] == "STOPPED", PATIENCE, 0.5)
        found = task(self.platform, arn)
        assert found["stopCode"] and found["stoppedReason"], found
        return f"{found['stopCode']}: {found['stoppedReason']}"

    def forever(self, first):
        """Writes of each kind in turn, as (kind, name), each after its acknowledgement."""
        for number in itertools.count(first):
            value = {"name": "number", "value": str(number)}
            register(self.platform, f"{FAMILY}-{number}", {"name": "app", "image": "none", "environment": [value]})
            yield "definition", number
            stamp = int(time.time() * 1000)
            self.logs.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=[{"timestamp": stamp, "message": f"{number}"}])
            yield "event", number
            Image(self.platform, REPOSITORY, tag=str(number), files={"number": (str(number).encode() * 5000, 0o644)})
            yield "image", number
