"""Failure records to the last member: failure-destinations 2.1 to 2.4."""

import json

import pytest

from esm.domain.discarded import Discarded, Json, Reason, Response, failure_record, iso_milliseconds, iso_seconds
from esm.domain.events import EventKind, KafkaKind, KinesisKind, Origin, RecordsKind
from esm.domain.record import LaneId, Record
from tests.support.delivery import DYNAMODB, KINESIS, PARTITION, QUEUE, SHARD, SQS, batch_of, record

FIRST_ARRIVAL, LAST_ARRIVAL = 1_767_259_800.123, 1_767_259_801.456
GIVEN_UP = 1_767_259_864.835
SEQUENCE = 49661234567890123456789012345678901234567890123456789012
MSK = "arn:aws:kafka:eu-west-1:111122223333:cluster/plant/2f1c0d9e-aaaa-bbbb-cccc-0123456789ab-4"
RAISED = Response("$LATEST", "Unhandled")
REACHED = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}


def five(lane: LaneId, first: int) -> list[Record]:
    arrivals = [FIRST_ARRIVAL, FIRST_ARRIVAL, FIRST_ARRIVAL, FIRST_ARRIVAL, LAST_ARRIVAL]
    return [record(first + at, lane=lane, arrived_at=when) for at, when in enumerate(arrivals)]


def document(
    kind: EventKind,
    records: list[Record],
    reason: Reason = Reason.RETRY_ATTEMPTS_EXHAUSTED,
    response: Response | None = RAISED,
) -> dict[str, Json]:
    lane = records[0].lane
    what = Discarded(
        id="2a7c9c5e-53b0-4f0e-9d5b-61a9e6f4d201",
        mapping_uuid="5f6f0a52-1c0e-4c6a-9d2b-7a3f1f6f2c10",
        lane=lane,
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:tally",
        reason=reason,
        invoke_count=3,
        response=response,
        records=records,
        at=GIVEN_UP,
        batch_info=kind.batch_info(lane, records),
    )
    made: dict[str, Json] = json.loads(json.dumps(failure_record(what)))
    return made


HEAD = {
    "requestContext": {
        "requestId": "2a7c9c5e-53b0-4f0e-9d5b-61a9e6f4d201",
        "functionArn": "arn:aws:lambda:eu-west-1:111122223333:function:tally",
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 3,
    },
    "responseContext": REACHED,
    "version": "1.0",
    "timestamp": "2026-01-01T09:31:04.835Z",
}


def test_kinesis_tells_shard_range_and_arrival_in_milliseconds() -> None:
    assert document(KINESIS, five(SHARD, SEQUENCE)) == HEAD | {
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000006",
            "startSequenceNumber": str(SEQUENCE),
            "endSequenceNumber": str(SEQUENCE + 4),
            "approximateArrivalOfFirstRecord": "2026-01-01T09:30:00.123Z",
            "approximateArrivalOfLastRecord": "2026-01-01T09:30:01.456Z",
            "batchSize": 5,
            "streamArn": "arn:aws:kinesis:eu-west-1:111122223333:stream/meters",
        }
    }


def test_dynamodb_tells_the_same_with_whole_seconds() -> None:
    assert document(DYNAMODB, five(SHARD, 111122223333444455556)) == HEAD | {
        "DDBStreamBatchInfo": {
            "shardId": "shardId-000000000006",
            "startSequenceNumber": "111122223333444455556",
            "endSequenceNumber": "111122223333444455560",
            "approximateArrivalOfFirstRecord": "2026-01-01T09:30:00Z",
            "approximateArrivalOfLastRecord": "2026-01-01T09:30:01Z",
            "batchSize": 5,
            "streamArn": "arn:aws:dynamodb:eu-west-1:111122223333:table/customers/stream/2026-01-01T00:00:00.000",
        }
    }


def test_kafka_tells_offsets_as_text_and_the_bytes_of_the_event() -> None:
    kind = KafkaKind(Origin(MSK, bootstrap="b-1.plant.example:9094,b-2.plant.example:9094"))
    records = five(PARTITION, 15)
    assert document(kind, records) == HEAD | {
        "KafkaBatchInfo": {
            "batchSize": 5,
            "eventSourceArn": MSK,
            "bootstrapServers": "b-1.plant.example:9094,b-2.plant.example:9094",
            "payloadSize": len(kind.frame(PARTITION, records)),
            "recordsInfo": {
                "sensor-0": {
                    "firstRecordOffset": "15",
                    "lastRecordOffset": "19",
                    "firstRecordTimestamp": "2026-01-01T09:30:00.123Z",
                    "lastRecordTimestamp": "2026-01-01T09:30:01.456Z",
                }
            },
        }
    }


def test_self_managed_kafka_has_no_arn() -> None:
    name, info = KafkaKind(Origin("", bootstrap="k:9092")).batch_info(PARTITION, five(PARTITION, 15))
    assert name == "KafkaBatchInfo"
    assert isinstance(info, dict)
    assert set(info) == {"batchSize", "bootstrapServers", "payloadSize", "recordsInfo"}


def test_a_queue_names_its_messages() -> None:
    assert SQS.batch_info(QUEUE, batch_of("ab", QUEUE)) == (
        "SQSBatchInfo",
        {"queueArn": "arn:aws:sqs:eu-west-1:111122223333:orders", "batchSize": 2, "messageIds": ["1", "2"]},
    )


def test_any_other_stream_is_told_like_kinesis() -> None:
    name, info = RecordsKind(KINESIS.origin).batch_info(SHARD, five(SHARD, 1))
    assert (name, info) == ("StreamBatchInfo", KINESIS.batch_info(SHARD, five(SHARD, 1))[1])


def test_sequence_numbers_are_told_as_the_source_wrote_them() -> None:
    padded = Record(SHARD, 7, 0, "000000000000000000007", None, FIRST_ARRIVAL, b"{}")
    _, info = DYNAMODB.batch_info(SHARD, [padded])
    assert isinstance(info, dict)
    assert info["startSequenceNumber"] == info["endSequenceNumber"] == "000000000000000000007"


def test_the_consumer_is_the_stream_of_an_enhanced_fan_out_mapping() -> None:
    consumer = "arn:aws:kinesis:eu-west-1:111122223333:stream/meters/consumer/c1:1767222000"
    _, info = KinesisKind(Origin(consumer)).batch_info(SHARD, five(SHARD, 1))
    assert isinstance(info, dict)
    assert info["streamArn"] == consumer


def test_a_reported_failure_has_a_response_without_a_function_error() -> None:
    made = document(KINESIS, five(SHARD, 1), response=Response("7", None))
    assert made["responseContext"] == {"statusCode": 200, "executedVersion": "7", "functionError": None}


def test_a_function_that_was_never_reached_has_no_response() -> None:
    made = document(KINESIS, five(SHARD, 1), Reason.RECORD_AGE_EXCEEDED, response=None)
    assert "responseContext" not in made
    context = made["requestContext"]
    assert isinstance(context, dict)
    assert context["condition"] == "RecordAgeExceeded"


def test_the_response_to_an_event_kafka_made_too_large_is_null() -> None:
    made = document(KINESIS, five(SHARD, 1), Reason.MAXIMUM_PAYLOAD_SIZE_EXCEEDED, response=None)
    assert made["responseContext"] is None


def test_conditions_are_spelt_as_aws_does() -> None:
    assert [str(reason) for reason in Reason] == [
        "RetryAttemptsExhausted",
        "RecordAgeExceeded",
        "MaximumPayloadSizeExceeded",
        "RecordExpired",
    ]


@pytest.mark.parametrize(
    "epoch, milliseconds, seconds",
    [
        (1_767_222_000.0, "2025-12-31T23:00:00.000Z", "2025-12-31T23:00:00Z"),
        (1_767_222_000.9996, "2025-12-31T23:00:01.000Z", "2025-12-31T23:00:00Z"),
        (1_767_222_000.007, "2025-12-31T23:00:00.007Z", "2025-12-31T23:00:00Z"),
        (0.0, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00Z"),
        (-0.001, "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59Z"),
        (1.7e15, "9999-12-31T23:59:59.000Z", "9999-12-31T23:59:59Z"),
        (-1.7e15, "0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_utc_whatever_a_producer_wrote(epoch: float, milliseconds: str, seconds: str) -> None:
    assert (iso_milliseconds(epoch), iso_seconds(epoch)) == (milliseconds, seconds)
