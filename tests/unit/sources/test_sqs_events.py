"""A message as an entry of the event (event-formats 1), down to the last member."""

import json
from typing import TYPE_CHECKING, cast

import pytest

from esm.domain.events import Origin, SqsKind
from esm.domain.instant import Instant
from esm.domain.record import LaneId, Record
from esm.sources.sqs_events import MessageRecords, receipt_of
from tests.support.queue_worlds import opened, take
from tests.support.sqs_servers import sandbox_sqs

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

LANE = LaneId("orders", "orders")
ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
NOW = Instant(1000.0, 1_767_222_001.0)
MESSAGE: dict[str, object] = {
    "MessageId": "0c8b4f6e-5d0b-4c8e-9a44-3b1f6f0f9e11",
    "ReceiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
    "Body": '{"order":17}',
    "MD5OfBody": "558da6fedadb1d433414e146f8da40b2",
    "Attributes": {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": "1767222000123",
        "SenderId": "AIDAEXAMPLE0000000001",
        "ApproximateFirstReceiveTimestamp": "1767222000456",
        "AWSTraceHeader": "Root=1-6957b0f0-0123456789abcdef01234567;Parent=89abcdef01234567;Sampled=1",
    },
    "MessageAttributes": {
        "kind": {"StringValue": "retail", "DataType": "String"},
        "qty": {"StringValue": "3", "DataType": "Number"},
        "blob": {"BinaryValue": b"\x00\x01\x02", "DataType": "Binary"},
    },
    "MD5OfMessageAttributes": "63c7a4e11cafe5da482a28743d63148d",
}
EVENT = """{"Records":[{
  "messageId":"0c8b4f6e-5d0b-4c8e-9a44-3b1f6f0f9e11",
  "receiptHandle":"AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
  "body":"{\\"order\\":17}",
  "attributes":{
    "ApproximateReceiveCount":"1",
    "SentTimestamp":"1767222000123",
    "SenderId":"AIDAEXAMPLE0000000001",
    "ApproximateFirstReceiveTimestamp":"1767222000456",
    "AWSTraceHeader":"Root=1-6957b0f0-0123456789abcdef01234567;Parent=89abcdef01234567;Sampled=1"
  },
  "messageAttributes":{
    "kind":{"stringValue":"retail","stringListValues":[],"binaryListValues":[],"dataType":"String"},
    "qty":{"stringValue":"3","stringListValues":[],"binaryListValues":[],"dataType":"Number"},
    "blob":{"binaryValue":"AAEC","stringListValues":[],"binaryListValues":[],"dataType":"Binary"}
  },
  "md5OfBody":"558da6fedadb1d433414e146f8da40b2",
  "md5OfMessageAttributes":"63c7a4e11cafe5da482a28743d63148d",
  "eventSource":"aws:sqs",
  "eventSourceARN":"arn:aws:sqs:eu-west-1:111122223333:orders",
  "awsRegion":"eu-west-1"
}]}"""


def record_of(*without: str, **changed: object) -> Record:
    message = {name: value for name, value in (MESSAGE | changed).items() if name not in without}
    [record] = MessageRecords(LANE, ARN, "eu-west-1").of([cast("MessageTypeDef", message)], NOW, 1030.0)
    return record


def entry_of(*without: str, **changed: object) -> dict[str, object]:
    entry = json.loads(record_of(*without, **changed).entry)
    assert isinstance(entry, dict)
    return entry


def test_the_event_of_the_reference_comes_out_byte_by_byte() -> None:
    event = SqsKind(Origin(ARN)).frame(LANE, [record_of()])
    assert event.decode() == json.dumps(json.loads(EVENT), separators=(",", ":"))


def test_a_record_knows_its_message() -> None:
    record = record_of()
    assert (record.id, record.receives, record.arrived_at) == (MESSAGE["MessageId"], 1, 1_767_222_000.123)
    assert receipt_of(record).handle == MESSAGE["ReceiptHandle"]
    assert receipt_of(record).expires == 1030.0


def test_without_message_attributes_there_is_an_empty_object_and_no_checksum() -> None:
    entry = entry_of("MessageAttributes", "MD5OfMessageAttributes")
    assert entry["messageAttributes"] == {}
    assert "md5OfMessageAttributes" not in entry


def test_the_suffix_of_a_type_is_kept() -> None:
    entry = entry_of(MessageAttributes={"price": {"StringValue": "1.5", "DataType": "Number.float"}})
    assert entry["messageAttributes"] == {
        "price": {"stringValue": "1.5", "stringListValues": [], "binaryListValues": [], "dataType": "Number.float"}
    }


def test_an_empty_text_is_a_value() -> None:
    entry = entry_of(MessageAttributes={"note": {"StringValue": "", "DataType": "String"}})
    assert entry["messageAttributes"] == {
        "note": {"stringValue": "", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
    }


def test_a_body_is_text_whatever_it_holds() -> None:
    for body in ('{"a": 1}', "3", "null", "ünï \u2028 😀", "tab\tnew\nline", '"', "\\"):
        assert entry_of(Body=body)["body"] == body


def test_half_a_surrogate_pair_becomes_json_that_utf8_can_carry() -> None:
    record = record_of(Body="broken \ud83d half")
    assert json.loads(record.entry.decode("utf-8"))["body"] == "broken \ud83d half"
    assert json.loads(record.entry)["eventSource"] == "aws:sqs"


def test_a_server_that_names_no_times_gives_the_time_of_the_receive() -> None:
    record = record_of("Attributes")
    assert (record.arrived_at, record.receives) == (NOW.epoch, 1)
    assert json.loads(record.entry)["attributes"] == {}


def test_positions_count_on_over_receives() -> None:
    records = MessageRecords(LANE, ARN, "eu-west-1")
    message = cast("MessageTypeDef", MESSAGE)
    first = records.of([message, message], NOW, 1030.0)
    second = records.of([message], NOW, 1030.0)
    assert [record.position for record in [*first, *second]] == [1, 2, 3]


@pytest.mark.anyio
async def test_a_message_that_was_really_sent_looks_the_same() -> None:
    async with sandbox_sqs() as server:
        queue = await server.create()
        trace = "Root=1-6957b0f0-0123456789abcdef01234567"
        [sent] = await queue.send(
            '{"order":17}',
            MessageAttributes={
                "kind": {"StringValue": "retail", "DataType": "String"},
                "qty": {"StringValue": "0012.3400", "DataType": "Number"},
                "blob": {"BinaryValue": b"\x00\x01\x02", "DataType": "Binary"},
            },
            MessageSystemAttributes={"AWSTraceHeader": {"StringValue": trace, "DataType": "String"}},
        )
        async with opened(queue.source()) as lane:
            [record] = await take(lane, 1)
    entry = json.loads(record.entry)
    attributes = entry.pop("attributes")
    assert attributes.keys() == {
        "ApproximateReceiveCount",
        "SentTimestamp",
        "SenderId",
        "ApproximateFirstReceiveTimestamp",
        "AWSTraceHeader",
    }
    assert all(isinstance(value, str) for value in attributes.values())
    assert (attributes["AWSTraceHeader"], attributes["ApproximateReceiveCount"]) == (trace, "1")
    assert record.arrived_at == int(attributes["SentTimestamp"]) / 1000
    assert len(entry.pop("md5OfMessageAttributes")) == 32
    lists = {"stringListValues": [], "binaryListValues": []}
    assert entry == {
        "messageId": sent,
        "receiptHandle": receipt_of(record).handle,
        "body": '{"order":17}',
        "messageAttributes": {
            "kind": {"stringValue": "retail", **lists, "dataType": "String"},
            "qty": {"stringValue": "12.34", **lists, "dataType": "Number"},
            "blob": {"binaryValue": "AAEC", **lists, "dataType": "Binary"},
        },
        "md5OfBody": "558da6fedadb1d433414e146f8da40b2",
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.arn,
        "awsRegion": "eu-west-1",
    }
