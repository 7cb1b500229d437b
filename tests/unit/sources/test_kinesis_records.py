"""Records of Kinesis as entries of the event (event-formats 2)."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from esm.domain.events import KinesisKind, Origin
from esm.domain.record import LaneId
from esm.sources.kinesis_records import KinesisRecords, millisecond, since

LANE = LaneId("meters", "shardId-000000000006")
ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/meters"
ROLE = "arn:aws:iam::111122223333:role/tally-role"
NUMBER = "49661234567890123456789012345678901234567890123456789012"
ZONE = timezone(timedelta(hours=-7))  # botocore answers times in the zone of the machine


def found(data: bytes = b'{"kWh":1.5}', key: str = "meter-7", at: float = 1767222000.123, number: str = NUMBER) -> Any:
    """A record as botocore decodes it."""
    return {
        "SequenceNumber": number,
        "ApproximateArrivalTimestamp": datetime.fromtimestamp(at, ZONE),
        "Data": data,
        "PartitionKey": key,
        "EncryptionType": "KMS",
    }


def records() -> KinesisRecords:
    return KinesisRecords(LANE, ARN, "eu-west-1", ROLE)


def test_the_event_is_the_one_of_aws_to_the_last_member() -> None:
    event = KinesisKind(Origin(ARN)).frame(LANE, records().of([found()]))
    assert json.loads(event) == {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "meter-7",
                    "sequenceNumber": NUMBER,
                    "data": "eyJrV2giOjEuNX0=",
                    "approximateArrivalTimestamp": 1767222000.123,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"shardId-000000000006:{NUMBER}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": ROLE,
                "awsRegion": "eu-west-1",
                "eventSourceARN": ARN,
            }
        ]
    }


def test_a_record_keeps_number_key_and_arrival() -> None:
    [record] = records().of([found()])
    assert (record.lane, record.at, record.id) == (LANE, (int(NUMBER), 0), NUMBER)
    assert (record.key, record.arrived_at) == (b"meter-7", 1767222000.123)


@pytest.mark.parametrize("milliseconds", range(0, 1000, 37))
def test_arrival_times_are_written_without_the_noise_of_floats(milliseconds: int) -> None:
    [record] = records().of([found(at=1767222000 + milliseconds / 1000)])
    written = record.entry.partition(b'"approximateArrivalTimestamp":')[2].partition(b"}")[0]
    assert written == f"1767222000.{milliseconds:03d}".rstrip("0").encode() or written == b"1767222000.0"
    assert float(written) == record.arrived_at


@pytest.mark.parametrize("data", [b"", b"\x00\xff\xfe", b"a", b"ab", bytes(range(256)) * 300])
def test_data_is_base64_of_the_bytes_in_one_line(data: bytes) -> None:
    from base64 import b64decode

    [record] = records().of([found(data=data)])
    written = json.loads(record.entry)["kinesis"]["data"]
    assert b64decode(written, validate=True) == data


@pytest.mark.parametrize("key", ['"quoted"\\', "ключ", "\u0000\u001f\n", "😀", "\ud800 alone"])
def test_any_partition_key_survives(key: str) -> None:
    [record] = records().of([found(key=key)])
    assert json.loads(record.entry)["kinesis"]["partitionKey"] == key
    assert record.key == key.encode(errors="surrogatepass")


def test_records_before_a_moment_are_left_out_up_to_the_first_that_is_not() -> None:
    times = [100.0, 100.123, 100.124, 100.1, 101.0]
    raw = [found(at=at, number=str(index)) for index, at in enumerate(times)]
    assert [one["SequenceNumber"] for one in since(raw, 100.124)] == ["2", "3", "4"]
    assert [one["SequenceNumber"] for one in since(raw, 100.1249)] == ["2", "3", "4"]
    assert list(since(raw, 200)) == []


@pytest.mark.parametrize("milliseconds", range(0, 1000, 13))
def test_a_moment_of_whole_milliseconds_is_its_own_millisecond(milliseconds: int) -> None:
    moment = float(f"1767222000.{milliseconds:03d}")
    assert millisecond(moment) == moment
    assert millisecond(moment + 0.0009) == moment
