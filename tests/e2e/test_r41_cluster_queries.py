"""The cluster query language, as ListContainerInstances' filter, and the attributes it asks of: instances that somebody's
agent has registered."""

import botocore.exceptions
import pytest

from conftest import register_instance as register


def test_r41_expressions_select_instances(platform):
    ecs = platform.client("ecs")
    cluster = "queries"
    ecs.create_cluster(clusterName=cluster)
    small = register(ecs, cluster, "us-east-1a", "t3.small", slots="9")
    large = register(ecs, cluster, "us-east-1b", "m5.large", slots="12")
    gpu = register(ecs, cluster, "us-east-1a", "g5.xlarge", **{"ecs.capability.gpu": ""})

    def listed(expression, **more):
        return set(ecs.list_container_instances(cluster=cluster, filter=expression, **more)["containerInstanceArns"])

    for expression, expected in [
        ("", {small, large, gpu}),
        ("attribute:ecs.availability-zone == us-east-1a", {small, gpu}),
        ("attribute:ecs.availability-zone in [us-east-1a, us-east-1b]", {small, large, gpu}),
        ("attribute:ecs.instance-type =~ (t3|m5)\\..* and attribute:slots > 9", {large}),
        ("not(attribute:ecs.capability.gpu exists)", {small, large}),
        ("attribute:slots != 9", {large}),
        ("attribute:slots !exists or attribute:ecs.availability-zone == us-east-1b", {large, gpu}),
        ("agentConnected == true", set()),
        ("runningTasksCount == 0 && registeredAt > 2020-01-01", {small, large, gpu}),
        ("registeredAt < 2020-01-01T00:00:00Z", set()),
        ("task:group == service:web", set()),
    ]:
        assert listed(expression) == expected, expression
    # Pages are of what was selected.
    pages = ecs.get_paginator("list_container_instances").paginate(
        cluster=cluster, filter="attribute:ecs.availability-zone == us-east-1a", PaginationConfig={"PageSize": 1}
    )
    assert sorted(arn for page in pages for arn in page["containerInstanceArns"]) == sorted([small, gpu])
    assert listed("attribute:slots exists", status="DRAINING") == set()


def test_r41_attributes_that_people_give_are_selected_by_too(platform):
    ecs = platform.client("ecs")
    cluster = "attributes"
    ecs.create_cluster(clusterName=cluster)
    one = register(ecs, cluster, "us-east-1a", "t3.small")
    two = register(ecs, cluster, "us-east-1b", "t3.small")

    def put(target, name, value=None, **more):
        attribute = {"name": name, "targetId": target, **({"value": value} if value else {}), **more}
        return ecs.put_attributes(cluster=cluster, attributes=[attribute])["attributes"]

    def selected(expression):
        return ecs.list_container_instances(cluster=cluster, filter=expression)["containerInstanceArns"]

    assert put(one, "stack", "blue") == [{"name": "stack", "value": "blue", "targetType": "container-instance", "targetId": one}]
    put(two.rsplit("/", 1)[1], "stack", "green", targetType="container-instance")
    assert (selected("attribute:stack == blue"), selected("attribute:stack == green")) == ([one], [two])
    put(one, "stack", "green")
    assert sorted(selected("attribute:stack == green")) == sorted([one, two])
    (described,) = ecs.describe_container_instances(cluster=cluster, containerInstances=[one])["containerInstances"]
    assert {"name": "stack", "value": "green"} in described["attributes"]
    listed = ecs.get_paginator("list_attributes").paginate(
        cluster=cluster, targetType="container-instance", attributeName="stack", PaginationConfig={"PageSize": 1}
    )
    assert sorted(found["targetId"] for page in listed for found in page["attributes"]) == sorted([one, two])
    zones = ecs.list_attributes(
        cluster=cluster, targetType="container-instance", attributeName="ecs.availability-zone", attributeValue="us-east-1b"
    )
    assert [found["targetId"] for found in zones["attributes"]] == [two]
    ecs.delete_attributes(cluster=cluster, attributes=[{"name": "stack", "targetId": one}])
    assert selected("attribute:stack exists") == [two]

    def refused(call):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call()
        return error.value.response["Error"]["Code"]

    assert refused(lambda: ecs.delete_attributes(cluster=cluster, attributes=[{"name": "stack", "targetId": one}])) == "TargetNotFoundException"
    assert refused(lambda: put("f" * 32, "a", targetType="container-instance")) == "TargetNotFoundException"
    assert refused(lambda: put("f" * 32, "a")) == "InvalidParameterException"
    for name, value in [("ecs.instance-type", "x"), ("a b", None), ("", None), ("a", " x"), ("a", "x,y"), ("a" * 129, None)]:
        assert refused(lambda: put(one, name, value)) == "InvalidParameterException", name
    for number in range(10):
        put(one, f"custom-{number}")
    assert refused(lambda: put(one, "custom-10")) == "AttributeLimitExceededException"
    put(one, "custom-9", "again")


def test_r41_an_expression_that_cannot_be_read_is_refused_at_its_place(platform):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="refused-queries")
    for expression, said in [
        ("attribute:zone = a", "`=` stands where an operator is expected (at character 16)"),
        ("instanceType == t3.small", "`instanceType` stands where"),
        ("attribute:a =~ (", "the pattern `(` cannot be read"),
        ("(" * 100, "nested 50 deep"),
        ("attribute:a exists or " * 100, "at most 2000 characters"),
    ]:
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            ecs.list_container_instances(cluster="refused-queries", filter=expression)
        error = refused.value.response["Error"]
        assert error["Code"] == "InvalidParameterException" and said in error["Message"], (expression, error)
