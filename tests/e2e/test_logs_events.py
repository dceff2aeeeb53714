"""Log events of CloudWatch Logs: what is taken, how it is read, searched and followed, and that it survives a crash."""

import pathlib
import time
import uuid

import pytest
from botocore.exceptions import ClientError

from conftest import eventually

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def now():
    return int(time.time() * 1000)


class Stream:
    """A log stream of the test's own, in a group of its own."""

    def __init__(self, logs, name="app/web/0123"):
        self.logs, self.group, self.name = logs, f"/test/{uuid.uuid4()}", name
        logs.create_log_group(logGroupName=self.group)
        logs.create_log_stream(logGroupName=self.group, logStreamName=name)

    def put(self, *events, name=None):
        """Puts (timestamp, message) pairs."""
        events = [{"timestamp": timestamp, "message": message} for timestamp, message in events]
        return self.logs.put_log_events(logGroupName=self.group, logStreamName=name or self.name, logEvents=events)

    def get(self, **arguments):
        return self.logs.get_log_events(logGroupName=self.group, logStreamName=self.name, **arguments)

    def filter(self, **arguments):
        """All events that FilterLogEvents gives, page by page."""
        pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=self.group, **arguments)
        return [event for page in pages for event in page["events"]]


@pytest.fixture
def stream(platform):
    stream = Stream(platform.client("logs"))
    yield stream
    stream.logs.delete_log_group(logGroupName=stream.group)


def messages(events):
    return [event["message"] for event in events]


def refused(text, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    assert (error["Code"], text in error["Message"]) == ("InvalidParameterException", True), error


def test_r95_events_come_back_as_they_went_in(stream):
    start = now()
    answer = stream.put((start, "first"), (start + 5, 'second "é" \t\x01 \U0001f6a2'), (start + 5, "third"))
    assert "rejectedLogEventsInfo" not in answer
    assert answer["nextSequenceToken"]
    events = stream.get(startFromHead=True)["events"]
    assert [(event["timestamp"], event["message"]) for event in events] == [
        (start, "first"),
        (start + 5, 'second "é" \t\x01 \U0001f6a2'),
        (start + 5, "third"),
    ]
    assert all(start <= event["ingestionTime"] <= now() for event in events)


def test_r95_pages_lead_both_ways_and_the_end_keeps_its_token(stream):
    start = now() - HOUR
    for batch in range(5):
        stream.put(*((start + 100 * batch + n, f"{batch}-{n}") for n in range(20)))
    everything = [f"{batch}-{n}" for batch in range(5) for n in range(20)]

    forward, token = [], None
    while True:
        page = stream.get(startFromHead=True, limit=7, **({"nextToken": token} if token else {}))
        forward += messages(page["events"])
        assert page["nextForwardToken"].startswith("f/") and page["nextBackwardToken"].startswith("b/")
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
    assert forward == everything
    # The token at the end goes on with what comes later.
    stream.put((now(), "later"))
    assert messages(stream.get(startFromHead=True, nextToken=token)["events"]) == ["later"]

    page = stream.get(limit=7)
    assert messages(page["events"]) == everything[-6:] + ["later"]
    backward, token = messages(page["events"]), page["nextBackwardToken"]
    while True:
        page = stream.get(limit=7, nextToken=token)
        backward = messages(page["events"]) + backward
        if page["nextBackwardToken"] == token:
            break
        token = page["nextBackwardToken"]
    assert backward == everything + ["later"]
    # Turning round gives the same page again from the other side.
    page = stream.get(startFromHead=True, limit=10)
    after = stream.get(startFromHead=True, limit=10, nextToken=page["nextForwardToken"])
    back = stream.get(limit=10, nextToken=after["nextBackwardToken"])
    assert messages(back["events"]) == messages(page["events"])
    refused("nextToken", stream.get, nextToken="f/123/s")


def test_r95_time_ranges_include_their_start_and_differ_at_their_end(stream):
    start = now() - HOUR
    stream.put(*((start + n, str(n)) for n in range(10)))
    inside = {"startTime": start + 3, "endTime": start + 6}
    assert messages(stream.get(startFromHead=True, **inside)["events"]) == ["3", "4", "5"]
    assert messages(stream.filter(**inside)) == ["3", "4", "5", "6"]


def test_r95_identifiers_may_be_arns(stream):
    stream.put((now(), "m"))
    (group,) = stream.logs.describe_log_groups(logGroupNamePrefix=stream.group)["logGroups"]
    for identifier in (stream.group, group["logGroupArn"], group["arn"].removesuffix(":*")):
        assert messages(stream.logs.filter_log_events(logGroupIdentifier=identifier)["events"]) == ["m"]
        page = stream.logs.get_log_events(logGroupIdentifier=identifier, logStreamName=stream.name)
        assert messages(page["events"]) == ["m"]
    refused("logGroupIdentifier", stream.logs.filter_log_events)


def test_r95_batches_are_bounded_as_amazons(stream):
    start = now()
    refused("chronological order", _put(stream, [(start, "a"), (start - 1, "b")]))
    refused("Upload too large: 1048577 bytes exceeds limit of 1048576", _put(stream, [(start, "x" * (1_048_577 - 26))]))
    refused("span more than 24 hours", _put(stream, [(start - DAY - MINUTE, "a"), (start, "b")]))
    refused("logEvents", _put(stream, [(start, "m")] * 10_001))
    assert stream.get()["events"] == []
    stream.put((start, "y" * (1_048_576 - 26)))
    (event,) = stream.get()["events"]
    assert len(event["message"]) == 1_048_576 - 26
    stream.put(*[(start, "m")] * 10_000)
    assert len(stream.filter(filterPattern="m")) == 10_000


def _put(stream, events):
    return lambda: stream.put(*events)


def test_r95_events_too_old_or_too_new_are_told_by_index(stream):
    start = now()
    info = stream.put((start - 15 * DAY, "old"), (start, "taken"), (start + 3 * HOUR, "new"))["rejectedLogEventsInfo"]
    assert info == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}
    stream.logs.put_retention_policy(logGroupName=stream.group, retentionInDays=1)
    info = stream.put((start - 2 * DAY, "expired"), (start + 1, "taken too"))["rejectedLogEventsInfo"]
    assert info == {"expiredLogEventEndIndex": 1}
    assert messages(stream.get()["events"]) == ["taken", "taken too"]


def test_r95_retention_hides_what_has_expired(stream):
    stream.put((now() - 2 * DAY, "yesterday's"))
    stream.put((now(), "today's"))
    stream.logs.put_retention_policy(logGroupName=stream.group, retentionInDays=1)
    assert messages(stream.get()["events"]) == messages(stream.filter()) == ["today's"]


def test_r95_filter_interleaves_the_streams_of_a_group(stream):
    start = now() - HOUR
    names = [f"app/c{n}/0123" for n in range(4)]
    for name in names:
        stream.logs.create_log_stream(logGroupName=stream.group, logStreamName=name)
    for n, name in enumerate(names):
        stream.put(*((start + 10 * i + n, f"{i}.{n} {'ERROR' if i % 3 == 0 else 'INFO'}") for i in range(30)), name=name)
    everything = [f"{i}.{n}" for i in range(30) for n in range(4)]
    first_word = lambda events: [event["message"].split()[0] for event in events]

    events = stream.filter(PaginationConfig={"PageSize": 7})
    assert first_word(events) == everything
    assert [event["logStreamName"] for event in events[:4]] == names
    assert len({event["eventId"] for event in events}) == 120
    assert first_word(stream.filter(startFromHead=False, PaginationConfig={"PageSize": 7})) == everything[::-1]
    assert first_word(stream.filter(filterPattern="ERROR")) == [text for text in everything if int(text.split(".")[0]) % 3 == 0]
    assert first_word(stream.filter(logStreamNames=names[1:3])) == [text for text in everything if text[-1] in "12"]
    assert first_word(stream.filter(logStreamNamePrefix="app/c3")) == [text for text in everything if text[-1] == "3"]
    assert stream.filter(logStreamNamePrefix="none") == []
    both = {"logStreamNames": names, "logStreamNamePrefix": "app"}
    refused("logStreamNamePrefix", stream.logs.filter_log_events, logGroupName=stream.group, **both)


def test_r95_filter_patterns_search_text_json_and_words(stream):
    lines = [
        "plain ERROR line",
        '{"level": "ERROR", "latency": 120, "user": {"ids": [7, 8]}}',
        '{"level": "INFO", "latency": 5, "gone": null}',
        '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534',
    ]
    stream.put(*((now() + n, line) for n, line in enumerate(lines)))
    found = lambda pattern: [lines.index(text) for text in messages(stream.filter(filterPattern=pattern))]
    assert found("ERROR") == [0, 1]
    assert found("ERROR -plain") == [1]
    assert found("?plain ?frank") == [0, 3]
    assert found('{ $.latency > 100 && $.user.ids[1] = 8 }') == [1]
    assert found("{ $.gone IS NULL || $.level = ERR* }") == [1, 2]
    assert found("[ip, ..., status = 4*, bytes > 1000]") == [3]
    assert found("%[0-9]{3}\\.[0-9]%") == [3]
    refused("Invalid character(s) in term 'a@b'", stream.logs.filter_log_events, logGroupName=stream.group, filterPattern="a@b")
    wrong = {"logGroupName": stream.group, "filterPattern": "{ $.a = "}
    refused("If a filter pattern starts with '{' it must end with '}'", stream.logs.filter_log_events, **wrong)


def test_r95_metric_filters_can_be_tested(platform):
    logs = platform.client("logs")
    line = '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'
    pattern = "[..., request=*.html*, status_code=4*,]"
    (match,) = logs.test_metric_filter(filterPattern=pattern, logEventMessages=["other", line])["matches"]
    assert (match["eventNumber"], match["eventMessage"]) == (2, line)
    assert match["extractedValues"]["$status_code"] == "404"
    assert match["extractedValues"]["$3"] == "frank"
    refused("Invalid filter pattern", logs.test_metric_filter, filterPattern="{ $.a }", logEventMessages=["m"])


def test_r95_following_sees_every_event_once(stream):
    """What `aws logs tail --follow` does: ask again from the last event's time, and drop the ids already seen."""
    seen, texts, since = set(), [], now() - MINUTE
    written = []

    def follow():
        nonlocal since
        for event in stream.filter(startTime=since, interleaved=True):
            if event["eventId"] not in seen:
                seen.add(event["eventId"])
                texts.append(event["message"])
                since = max(since, event["timestamp"])

    for round in range(6):
        batch = [f"{round}-{n}" for n in range(50)]
        stream.put(*((now(), text) for text in batch))
        written += batch
        follow()
    eventually(lambda: follow() or texts == written)


def test_r95_acknowledged_events_survive_kill(own_platform):
    platform = own_platform()
    stream = Stream(platform.client("logs"))
    start = now()
    for n in range(50):
        stream.put((start + n, f"event {n}"))
    platform.kill()
    platform.start()
    stream.logs = platform.client("logs")
    assert messages(stream.get(startFromHead=True)["events"]) == [f"event {n}" for n in range(50)]
    assert stream.logs.describe_log_groups(logGroupNamePrefix=stream.group)["logGroups"][0]["storedBytes"] > 0
    stream.put((now(), "and on"))
    assert messages(stream.get(limit=1)["events"]) == ["and on"]


def test_r95_expired_events_give_their_space_back(own_platform):
    """A day of platform time is two seconds here."""
    platform = own_platform("--clock-rate", "43200")
    stream = Stream(platform.client("logs"))
    group = lambda: stream.logs.describe_log_groups(logGroupNamePrefix=stream.group)["logGroups"][0]
    segments = lambda: {path.name for path in pathlib.Path(platform.data, "logs").iterdir()}
    first = segments()
    start = group()["creationTime"]
    for n in range(3):
        stream.put((start + n, "x" * 1_000_000))
    assert group()["storedBytes"] == 3_000_000
    assert segments() == first
    stream.logs.put_retention_policy(logGroupName=stream.group, retentionInDays=1)
    eventually(lambda: group()["storedBytes"] == 0, timeout=60)
    assert not segments() & first
    assert stream.get(startFromHead=True)["events"] == []


def test_r95_the_cli_reads_logs(platform, stream):
    stream.put((now(), "seen by the command line"))
    text = platform.aws("logs", "filter-log-events", "--log-group-name", stream.group, "--query", "events[].message", "--output", "text")
    assert text.strip() == "seen by the command line"
    text = platform.aws("logs", "get-log-events", "--log-group-name", stream.group, "--log-stream-name", stream.name, "--output", "text")
    assert "seen by the command line" in text
