"""Log groups and log streams of CloudWatch Logs: names, settings, tags, listings and their errors."""

import uuid

import pytest
from botocore.exceptions import ClientError

from conftest import ACCOUNT


@pytest.fixture
def logs(platform):
    return platform.client("logs")


@pytest.fixture
def group(logs):
    """A log group of the test's own."""
    name = f"/test/{uuid.uuid4()}"
    logs.create_log_group(logGroupName=name)
    yield name
    try:
        logs.delete_log_group(logGroupName=name)
    except logs.exceptions.ResourceNotFoundException:
        pass


def refused(code, text, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    assert (error["Code"], text in error["Message"]) == (code, True), error


def test_r95_group_is_described_as_amazon_does(logs, group):
    (shape,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    arn = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}"
    assert shape["arn"] == f"{arn}:*"
    assert shape["logGroupArn"] == arn
    assert (shape["logGroupName"], shape["storedBytes"], shape["metricFilterCount"]) == (group, 0, 0)
    assert shape["logGroupClass"] == "STANDARD"
    assert "retentionInDays" not in shape
    assert logs.describe_log_groups(logGroupIdentifiers=[arn])["logGroups"] == [shape]


def test_r95_groups_are_unique_within_account_and_region(platform, logs, group):
    refused("ResourceAlreadyExistsException", "The specified log group already exists", logs.create_log_group, logGroupName=group)
    elsewhere = platform.client("logs", "eu-west-1")
    assert elsewhere.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    elsewhere.create_log_group(logGroupName=group)
    elsewhere.delete_log_group(logGroupName=group)
    assert len(logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]) == 1


def test_r95_a_missing_group_or_stream_is_named(logs, group):
    missing = {"logGroupName": "/test/missing"}
    no_group = ("ResourceNotFoundException", "The specified log group does not exist.")
    refused(*no_group, logs.delete_log_group, **missing)
    refused(*no_group, logs.put_retention_policy, **missing, retentionInDays=1)
    refused(*no_group, logs.create_log_stream, **missing, logStreamName="s")
    refused(*no_group, logs.describe_log_streams, **missing)
    refused(*no_group, logs.get_log_events, **missing, logStreamName="s")
    refused(*no_group, logs.filter_log_events, **missing)
    refused(*no_group, logs.put_log_events, **missing, logStreamName="s", logEvents=[{"timestamp": 1, "message": "m"}])
    no_stream = ("ResourceNotFoundException", "The specified log stream does not exist.")
    refused(*no_stream, logs.get_log_events, logGroupName=group, logStreamName="s")
    refused(*no_stream, logs.delete_log_stream, logGroupName=group, logStreamName="s")
    refused(*no_stream, logs.filter_log_events, logGroupName=group, logStreamNames=["s"])


def test_r95_what_is_not_honoured_is_refused_by_name(logs):
    name = f"/test/{uuid.uuid4()}"
    create = logs.create_log_group
    refused("InvalidParameterException", "kmsKeyId", create, logGroupName=name, kmsKeyId="arn:aws:kms:us-east-1:1:key/k")
    refused("InvalidParameterException", "logGroupClass", create, logGroupName=name, logGroupClass="INFREQUENT_ACCESS")
    refused("InvalidParameterException", "reserved for AWS", create, logGroupName="aws/x")
    refused("InvalidParameterException", "logGroupName", create, logGroupName="a b")
    assert logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"] == []


def test_r95_groups_are_listed_by_prefix_pattern_and_page(logs):
    base = f"/page/{uuid.uuid4()}/"
    names = [f"{base}{n:02}" for n in range(12)]
    for name in reversed(names):
        logs.create_log_group(logGroupName=name)
    try:
        paginator = logs.get_paginator("describe_log_groups")
        pages = list(paginator.paginate(logGroupNamePrefix=base, PaginationConfig={"PageSize": 5}))
        assert [len(page["logGroups"]) for page in pages] == [5, 5, 2]
        assert [group["logGroupName"] for page in pages for group in page["logGroups"]] == names
        (found,) = logs.describe_log_groups(logGroupNamePattern=base[1:] + "07")["logGroups"]
        assert set(found) == {"logGroupName", "arn", "creationTime"}
        both = {"logGroupNamePattern": "a", "logGroupNamePrefix": "a"}
        refused("InvalidParameterException", "mutually exclusive", logs.describe_log_groups, **both)
        summary = logs.list_log_groups(logGroupNamePattern=f"^{base[:20]}", limit=3)
        assert [group["logGroupName"] for group in summary["logGroups"]] == names[:3]
        refused("InvalidParameterException", "nextToken", logs.describe_log_groups, nextToken="x")
    finally:
        for name in names:
            logs.delete_log_group(logGroupName=name)


def test_r95_retention_takes_only_amazons_periods(logs, group):
    logs.put_retention_policy(logGroupName=group, retentionInDays=30)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 30
    refused("InvalidParameterException", "retentionInDays", logs.put_retention_policy, logGroupName=group, retentionInDays=2)
    logs.delete_retention_policy(logGroupName=group)
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]


def test_r95_a_protected_group_is_not_deleted(logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    logs.put_log_group_deletion_protection(logGroupIdentifier=group, deletionProtectionEnabled=True)
    refused("ValidationException", "deletion protection", logs.delete_log_group, logGroupName=group)
    refused("ValidationException", "deletion protection", logs.delete_log_stream, logGroupName=group, logStreamName="s")
    logs.put_log_group_deletion_protection(logGroupIdentifier=group, deletionProtectionEnabled=False)
    logs.delete_log_stream(logGroupName=group, logStreamName="s")


def test_r95_tags_by_arn_and_by_name(logs, group):
    (shape,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    logs.tag_resource(resourceArn=shape["logGroupArn"], tags={"a": "1", "b": "2"})
    logs.tag_log_group(logGroupName=group, tags={"c": "3"})
    logs.untag_resource(resourceArn=shape["logGroupArn"], tagKeys=["a"])
    assert logs.list_tags_for_resource(resourceArn=shape["logGroupArn"])["tags"] == {"b": "2", "c": "3"}
    logs.untag_log_group(logGroupName=group, tags=["b"])
    assert logs.list_tags_log_group(logGroupName=group)["tags"] == {"c": "3"}
    many = {f"k{n}": "" for n in range(50)}
    refused("TooManyTagsException", "50", logs.tag_resource, resourceArn=shape["logGroupArn"], tags=many)
    missing = shape["logGroupArn"] + "-missing"
    refused("ResourceNotFoundException", "", logs.list_tags_for_resource, resourceArn=missing)


def test_r95_streams_are_listed_by_name_and_by_last_event(logs, group):
    now = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["creationTime"]
    for number, name in enumerate(["app/b", "app/a", "web/c", "web/d"]):
        logs.create_log_stream(logGroupName=group, logStreamName=name)
        if name != "web/d":
            event = {"timestamp": now - 1000 * number, "message": "m"}
            logs.put_log_events(logGroupName=group, logStreamName=name, logEvents=[event])
    refused("ResourceAlreadyExistsException", "stream", logs.create_log_stream, logGroupName=group, logStreamName="app/a")
    refused("InvalidParameterException", "logStreamName", logs.create_log_stream, logGroupName=group, logStreamName="a:b")

    def names(**arguments):
        paginator = logs.get_paginator("describe_log_streams")
        pages = paginator.paginate(logGroupName=group, PaginationConfig={"PageSize": 2}, **arguments)
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    assert names() == ["app/a", "app/b", "web/c", "web/d"]
    assert names(descending=True) == ["web/d", "web/c", "app/b", "app/a"]
    assert names(logStreamNamePrefix="app/") == ["app/a", "app/b"]
    assert names(logStreamNamePrefix="app/", descending=True) == ["app/b", "app/a"]
    assert names(orderBy="LastEventTime") == ["web/d", "web/c", "app/a", "app/b"]
    assert names(orderBy="LastEventTime", descending=True) == ["app/b", "app/a", "web/c", "web/d"]
    both = {"orderBy": "LastEventTime", "logStreamNamePrefix": "app/"}
    refused("InvalidParameterException", "LastEventTime", logs.describe_log_streams, logGroupName=group, **both)
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="app/a")["logStreams"]
    assert stream["firstEventTimestamp"] == stream["lastEventTimestamp"] == now - 1000
    assert stream["arn"] == f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}:log-stream:app/a"
    assert stream["lastIngestionTime"] >= now


def test_r95_a_stream_made_again_is_empty(logs, group):
    for _ in range(2):
        logs.create_log_stream(logGroupName=group, logStreamName="s")
        assert logs.get_log_events(logGroupName=group, logStreamName="s")["events"] == []
        now = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["creationTime"]
        logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[{"timestamp": now, "message": "m"}])
        assert len(logs.filter_log_events(logGroupName=group)["events"]) == 1
        logs.delete_log_stream(logGroupName=group, logStreamName="s")
        assert logs.filter_log_events(logGroupName=group)["events"] == []
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["storedBytes"] == 0
