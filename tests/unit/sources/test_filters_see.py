"""What filters see of the records that the adapters make: entries of real shape, through each kind's view."""

from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from esm.domain.events import EventKind
from esm.domain.filtering import Filters
from esm.domain.instant import Instant
from esm.domain.record import LaneId, Record
from esm.sources.dynamodb_records import DynamoDBRecords
from esm.sources.kafka_events import PartitionRecords
from esm.sources.kinesis_records import KinesisRecords
from esm.sources.sqs_events import MessageRecords
from tests.support.delivery import DYNAMODB, KAFKA, KINESIS, SQS

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LANE = LaneId("m", "lane")


# Replies as botocore decodes them; ``Any`` since the stubs want every member.


def message() -> Record:
    attributes: Any = {"kind": {"StringValue": "retail", "DataType": "String"}}
    one: Any = {"MessageId": "m-1", "ReceiptHandle": "r", "Body": '{"n": 1.50}', "MessageAttributes": attributes}
    return MessageRecords(LANE, "arn", "eu-west-1").of([one], Instant(elapsed=0, epoch=0), 30)[0]


def reading() -> Record:
    one: Any = {
        "SequenceNumber": "17",
        "PartitionKey": "p",
        "Data": b'{"n": 1.50}',
        "ApproximateArrivalTimestamp": NOON,
    }
    return KinesisRecords(LANE, "arn", "eu-west-1", "role").of([one])[0]


def change() -> Record:
    moved: Any = {
        "ApproximateCreationDateTime": NOON,
        "Keys": {"pk": {"S": "a"}},
        "NewImage": {"n": {"N": "1.50"}, "raw": {"B": b"\x00\xff"}},
        "SequenceNumber": "17",
    }
    one: Any = {
        "eventID": "e",
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": moved,
        "userIdentity": {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},
    }
    return DynamoDBRecords(LANE, "arn").of([one])[0]


def payment() -> Record:
    one: ConsumerRecord[bytes, bytes] = ConsumerRecord(
        "t", 0, 7, 1_700_000_000_000, 0, b"k", b'{"n": 1.50}', None, 1, 11, [("h", b"x")]
    )
    return PartitionRecords(LANE, "t", 0).of([one], 0)[0]


SEEN = [
    (SQS, "sqs", message(), '{"body":{"n":[1.50]},"messageAttributes":{"kind":{"stringValue":["retail"]}}}'),
    (KINESIS, "kinesis", reading(), '{"data":{"n":[1.50]},"partitionKey":["p"],"sequenceNumber":["17"]}'),
    (KINESIS, "kinesis", reading(), '{"approximateArrivalTimestamp":[{"numeric":[">",0]}],"awsRegion":["eu-west-1"]}'),
    (DYNAMODB, "dynamodb", change(), '{"eventName":["INSERT"],"dynamodb":{"NewImage":{"n":{"N":["1.50"]}}}}'),
    (DYNAMODB, "dynamodb", change(), '{"dynamodb":{"ApproximateCreationDateTime":[{"numeric":[">",0]}]}}'),
    (DYNAMODB, "dynamodb", change(), '{"userIdentity":{"principalId":["dynamodb.amazonaws.com"]}}'),
    (KAFKA, "kafka", payment(), '{"value":{"n":[1.50]},"topic":["t"],"offset":[7],"timestampType":["CREATE_TIME"]}'),
    (KAFKA, "kafka", payment(), '{"key":["aw=="]}'),
]


@pytest.mark.parametrize("kind, name, record, pattern", SEEN)
def test_a_pattern_finds_what_an_adapter_wrote(kind: EventKind, name: str, record: Record, pattern: str) -> None:
    assert Filters(name, [pattern]).split([record], kind.view) == ([record], [])
    changed = pattern.replace("1.50", "1.5").replace('"numeric":[">",0]', '"numeric":["<",0]').replace('["aw', '["Aw')
    other = changed.replace("principalId", "principal")
    assert Filters(name, [other]).split([record], kind.view) == ([], [record])
