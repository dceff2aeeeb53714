"""The cluster query language, as ListContainerInstances' filter: instances that somebody's agent has registered."""

import botocore.exceptions
import pytest


def register(ecs, cluster, zone, kind, **more):
    """Registers an instance as an agent does; gives its ARN."""
    attributes = {"ecs.availability-zone": zone, "ecs.instance-type": kind, **more}
    answer = ecs.register_container_instance(
        cluster=cluster,
        totalResources=[{"name": name, "type": "INTEGER", "integerValue": 2048} for name in ("CPU", "MEMORY")],
        attributes=[{"name": name, **({"value": value} if value else {})} for name, value in attributes.items()],
    )
    return answer["containerInstance"]["containerInstanceArn"]


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
