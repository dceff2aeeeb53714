"""Container instances that somebody's agent has registered: their states, and their end."""

import botocore.exceptions
import pytest

from conftest import register_instance


def test_r04_states_and_the_end_of_an_instance(platform):
    ecs = platform.client("ecs")
    cluster = "instances"
    ecs.create_cluster(clusterName=cluster)
    one, two = (register_instance(ecs, cluster, "us-east-1a", "t3.small") for _ in range(2))

    def status():
        found = ecs.describe_container_instances(cluster=cluster, containerInstances=[one, two])["containerInstances"]
        return {instance["containerInstanceArn"]: instance["status"] for instance in found}

    def listed(**more):
        return ecs.list_container_instances(cluster=cluster, **more)["containerInstanceArns"]

    answer = ecs.update_container_instances_state(
        cluster=cluster, containerInstances=[one, "f" * 32], status="DRAINING"
    )
    assert [instance["status"] for instance in answer["containerInstances"]] == ["DRAINING"]
    assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]
    assert status() == {one: "DRAINING", two: "ACTIVE"}
    assert (listed(status="DRAINING"), listed(status="ACTIVE")) == ([one], [two])
    ecs.update_container_instances_state(cluster=cluster, containerInstances=[one], status="ACTIVE")
    assert status() == {one: "ACTIVE", two: "ACTIVE"}

    gone = ecs.deregister_container_instance(cluster=cluster, containerInstance=one)["containerInstance"]
    assert (gone["status"], gone["agentConnected"]) == ("INACTIVE", False)
    assert status()[one] == "INACTIVE" and listed() == [two]
    answer = ecs.update_container_instances_state(cluster=cluster, containerInstances=[one], status="ACTIVE")
    assert (answer["containerInstances"], answer["failures"][0]["reason"]) == ([], "INACTIVE")

    def refused(call):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call()
        return error.value.response["Error"]

    again = refused(lambda: ecs.deregister_container_instance(cluster=cluster, containerInstance=one))
    assert (again["Code"], again["Message"]) == ("InvalidParameterException", "Referenced container instance was not found.")
    wrong = refused(lambda: ecs.update_container_instances_state(cluster=cluster, containerInstances=[two], status="REGISTERING"))
    assert wrong["Code"] == "InvalidParameterException"
    full = refused(lambda: ecs.delete_cluster(cluster=cluster))
    assert full["Code"] == "ClusterContainsContainerInstancesException"
    ecs.deregister_container_instance(cluster=cluster, containerInstance=two.rsplit("/", 1)[1])
    ecs.delete_cluster(cluster=cluster)
