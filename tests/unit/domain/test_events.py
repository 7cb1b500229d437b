"""Events as one join of encoded entries: shapes of event-formats 1, 2, 3 and 5, and sizes to the byte."""

import json

import pytest

from esm.domain.events import EventKind, KafkaKind, Origin
from esm.domain.record import LaneId
from tests.support.delivery import DYNAMODB, KINESIS, PARTITION, QUEUE, SHARD, SQS, record

MSK = "arn:aws:kafka:eu-west-1:111122223333:cluster/plant/2f1c0d9e-aaaa-bbbb-cccc-0123456789ab-4"
MESSAGE = {
    "messageId": "0c8b4f6e-5d0b-4c8e-9a44-3b1f6f0f9e11",
    "body": '{"order":17}',
    "attributes": {"ApproximateReceiveCount": "1"},
    "eventSource": "aws:sqs",
}
READING = {
    "kinesis": {
        "sequenceNumber": "49661234567890123456789012345678901234567890123456789012",
        "data": "eyJrd2giOjEuNX0=",
    },
    "eventSource": "aws:kinesis",
}
CHANGE = {"eventName": "MODIFY", "dynamodb": {"SequenceNumber": "111122223333444455556"}}
PAYMENT = {"topic": "sensor", "partition": 0, "offset": 15, "key": "bS03", "value": "eyJrd2giOjEuNX0="}


def encoded(*members: object) -> list[bytes]:
    return [json.dumps(each, separators=(",", ":")).encode() for each in members]


@pytest.mark.parametrize(
    "kind, lane, member", [(SQS, QUEUE, MESSAGE), (KINESIS, SHARD, READING), (DYNAMODB, SHARD, CHANGE)]
)
def test_queues_and_streams_send_their_entries_as_records(kind: EventKind, lane: LaneId, member: object) -> None:
    other = {"second": True}
    event = kind.frame(lane, [record(at, lane=lane, entry=entry) for at, entry in enumerate(encoded(member, other))])
    assert json.loads(event) == {"Records": [member, other]}


def test_kafka_sends_entries_under_topic_and_partition_with_the_cluster_beside_them() -> None:
    kind = KafkaKind(Origin(MSK, bootstrap="b-1.plant.example:9094,b-2.plant.example:9094"))
    [entry] = encoded(PAYMENT)
    assert json.loads(kind.frame(PARTITION, [record(15, lane=PARTITION, entry=entry)])) == {
        "eventSource": "aws:kafka",
        "eventSourceArn": MSK,
        "bootstrapServers": "b-1.plant.example:9094,b-2.plant.example:9094",
        "records": {"sensor-0": [PAYMENT]},
    }


def test_self_managed_kafka_has_no_arn() -> None:
    kind = KafkaKind(Origin("", bootstrap="kafka-1:9092"))
    entries = encoded(PAYMENT, PAYMENT)
    event = kind.frame(PARTITION, [record(at, lane=PARTITION, entry=entry) for at, entry in enumerate(entries)])
    assert json.loads(event) == {
        "eventSource": "SelfManagedKafka",
        "bootstrapServers": "kafka-1:9092",
        "records": {"sensor-0": [PAYMENT, PAYMENT]},
    }


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("kind", [SQS, KINESIS, DYNAMODB])
def test_the_size_of_an_event_is_overhead_entries_and_the_commas_between(kind: EventKind, count: int) -> None:
    records = [record(at, entry=b'{"n":%d}' % at) for at in range(count)]
    assert len(kind.frame(SHARD, records)) == kind.overhead + sum(each.size for each in records) + count - 1


@pytest.mark.parametrize("origin", [Origin(MSK, bootstrap="b-1.plant.example:9094"), Origin("", bootstrap="k:9092")])
def test_the_overhead_of_kafka_suffices_for_the_longest_topic_and_partition(origin: Origin) -> None:
    kind = KafkaKind(origin)
    longest = LaneId("payments", "t" * 249 + "-2147483647")
    for name in (longest, PARTITION):
        spare = kind.overhead - (len(kind.frame(name, [record(1), record(2)])) - len(b"{},{}"))
        assert 0 <= spare < 280
