"""Records of Kafka as entries of the event (event-formats 5)."""

import json

from esm.domain.events import KafkaKind, Origin
from esm.domain.record import LaneId
from esm.sources.kafka_events import PartitionRecords
from tests.support.kafka_members import message

LANE = LaneId("payments", "topic-0")


def entry_of(**changes: object) -> bytes:
    offset = changes.pop("offset", 15)
    assert isinstance(offset, int)
    [record] = PartitionRecords(LANE, "topic", 0).of([message(offset, **changes)], now=5.0)  # type: ignore[arg-type]  # members by name
    return record.entry


def test_an_entry_has_the_members_of_aws_in_their_order() -> None:
    headers = (("trace", b"abc"), ("trace", b"d"))
    assert entry_of(key=b"\x6c\x4b\x37", value=b'{"kwh":1.5}', headers=headers) == (
        b'{"topic":"topic","partition":0,"offset":15,"timestamp":1767222000123,"timestampType":"CREATE_TIME",'
        b'"key":"bEs3","value":"eyJrd2giOjEuNX0=","headers":[{"trace":[97,98,99]},{"trace":[100]}]}'
    )


def test_a_record_without_key_lacks_it_and_a_tombstone_has_a_null_value() -> None:
    assert entry_of(value=None) == (
        b'{"topic":"topic","partition":0,"offset":15,"timestamp":1767222000123,"timestampType":"CREATE_TIME",'
        b'"value":null,"headers":[]}'
    )


def test_an_empty_key_and_an_empty_value_are_there() -> None:
    entry = json.loads(entry_of(key=b"", value=b""))
    assert (entry["key"], entry["value"]) == ("", "")


def test_the_time_a_broker_set_is_called_so() -> None:
    assert json.loads(entry_of(timestamp_type=1))["timestampType"] == "LOG_APPEND_TIME"


def test_headers_keep_any_name_every_byte_and_the_lack_of_a_value() -> None:
    entry = json.loads(entry_of(headers=(('a"\n', bytes([0, 127, 128, 255])), ("none", None), ("empty", b""))))
    assert entry["headers"] == [{'a"\n': [0, 127, 128, 255]}, {"none": None}, {"empty": []}]


def test_a_record_without_a_time_arrived_when_it_was_read() -> None:
    records = PartitionRecords(LANE, "topic", 0).of([message(1, timestamp=-1), message(2)], now=5.0)
    assert [record.arrived_at for record in records] == [5.0, 1_767_222_000.123]


def test_records_fit_the_frame_of_the_event_and_the_identifiers_of_a_report() -> None:
    [record] = PartitionRecords(LANE, "topic", 0).of([message(17, key=b"k")], now=5.0)
    kind = KafkaKind(Origin("", bootstrap="kafka:9092"))
    assert json.loads(kind.frame(LANE, [record]))["records"]["topic-0"][0]["offset"] == 17
    assert kind.named({"partition": "topic-0", "offset": 17}) == record.id
    assert (record.position, record.sub, record.key) == (17, 0, b"k")
