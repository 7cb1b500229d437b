"""What a reply of a target means: each row of event-formats 7.2, for each kind of source."""

import msgspec
import pytest

from esm.domain.errors import MalformedReport
from esm.domain.events import EventKind
from esm.domain.report import failed_ids
from tests.support.delivery import DYNAMODB, KAFKA, KINESIS, PARTITION, QUEUE, SHARD, SQS, batch_of, names_of, record

KINDS = {"sqs": (SQS, QUEUE), "kinesis": (KINESIS, SHARD), "dynamodb": (DYNAMODB, SHARD), "kafka": (KAFKA, PARTITION)}
every_kind = pytest.mark.parametrize("source", KINDS)


def failed(reply: bytes, source: str) -> str:
    """The letters of a batch ``abc`` that ``reply`` asks to see again."""
    kind, lane = KINDS[source]
    records = batch_of("abc", lane)
    ids = failed_ids(reply, records, kind)
    assert ids <= {each.id for each in records}
    return names_of([each for each in records if each.id in ids])


def identifier(letter: str, kind: EventKind) -> object:
    position = "?abc".index(letter)
    return {"partition": "sensor-0", "offset": position} if kind is KAFKA else str(position)


def report(source: str, letters: str, *more: object) -> bytes:
    named = [{"itemIdentifier": identifier(letter, KINDS[source][0])} for letter in letters]
    return msgspec.json.encode({"batchItemFailures": [*named, *more]})


@every_kind
@pytest.mark.parametrize(
    "reply",
    [
        b'{"batchItemFailures":[]}',
        b'{"batchItemFailures":null}',
        b"{}",
        b"null",
        b"",
        b" \n",
        b'""',
        b"[]",
        b'"done"',
        b"17",
        b"true",
        b'["a"]',
        b'{"batchitemfailures":[{"itemIdentifier":"1"}]}',
        b'{"state":{"sum":42}}',
    ],
)
def test_a_reply_that_names_nothing_means_that_all_succeeded(reply: bytes, source: str) -> None:
    assert failed(reply, source) == ""


@every_kind
@pytest.mark.parametrize("letters", ["a", "b", "ca", "abc"])
def test_named_records_are_to_be_seen_again(letters: str, source: str) -> None:
    assert failed(report(source, letters), source) == "".join(sorted(letters))


@every_kind
def test_a_record_named_twice_counts_once(source: str) -> None:
    assert failed(report(source, "bb"), source) == "b"


@every_kind
@pytest.mark.parametrize(
    "reply",
    [
        b"{nonsense",
        b"<html>502 Bad Gateway</html>",
        b'{"batchItemFailures":[]} and more',
        b'{"text":"\xff"}',
        b"[" * 5000,
        b'{"batchItemFailures":"a"}',
        b'{"batchItemFailures":{"itemIdentifier":"1"}}',
        b'{"batchItemFailures":{}}',
        b'{"batchItemFailures":1}',
        b'{"batchItemFailures":false}',
        b'{"batchItemFailures":["1"]}',
        b'{"batchItemFailures":[null]}',
        b'{"batchItemFailures":[{"itemIdentifier":""}]}',
        b'{"batchItemFailures":[{"itemIdentifier":null}]}',
        b'{"batchItemFailures":[{"itemIdentifer":"1"}]}',
        b'{"batchItemFailures":[{"itemIdentifer":null}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"unknown"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":1}]}',
        b'{"batchItemFailures":[{"itemIdentifier":["1"]}]}',
        b'{"batchItemFailures":[{"itemIdentifier":true}]}',
    ],
)
def test_a_reply_that_does_not_name_records_that_were_sent_has_failed(reply: bytes, source: str) -> None:
    with pytest.raises(MalformedReport):
        failed(reply, source)


@every_kind
@pytest.mark.parametrize("bad", [{"itemIdentifier": "unknown"}, {"itemIdentifier": ""}, {}, None])
def test_one_good_and_one_bad_name_have_failed(bad: object, source: str) -> None:
    with pytest.raises(MalformedReport):
        failed(report(source, "a", bad), source)


def test_empty_objects_alone_name_nothing_on_sqs() -> None:
    assert failed(b'{"batchItemFailures":[{},{}]}', "sqs") == ""


@pytest.mark.parametrize("source", ["kinesis", "dynamodb", "kafka"])
def test_an_empty_object_has_failed_elsewhere(source: str) -> None:
    with pytest.raises(MalformedReport):
        failed(b'{"batchItemFailures":[{}]}', source)


@pytest.mark.parametrize(
    "name",
    [
        "sensor-0:1",
        {"partition": "sensor-0", "offset": "1"},
        {"partition": "sensor-0", "offset": 1.5},
        {"partition": "sensor-0", "offset": True},
        {"partition": "sensor-0"},
        {"partition": "sensor-1", "offset": 1},
        {"partition": "sensor-0", "offset": 4},
        {"partition": 0, "offset": 1},
    ],
)
def test_kafka_names_records_by_partition_and_whole_offset_alone(name: object) -> None:
    with pytest.raises(MalformedReport):
        failed(msgspec.json.encode({"batchItemFailures": [{"itemIdentifier": name}]}), "kafka")


@pytest.mark.parametrize("source", ["sqs", "kinesis", "dynamodb"])
def test_an_object_names_nothing_where_text_is_expected(source: str) -> None:
    reply = b'{"batchItemFailures":[{"itemIdentifier":{"partition":"sensor-0","offset":1}}]}'
    with pytest.raises(MalformedReport):
        failed(reply, source)


def test_an_event_id_is_no_sequence_number() -> None:
    with pytest.raises(MalformedReport):
        failed(b'{"batchItemFailures":[{"itemIdentifier":"shardId-000000000006:1"}]}', "kinesis")


def test_a_name_that_several_records_bear_means_all_of_them() -> None:
    aggregate = [record(7, "a"), record(7, "b", sub=1), record(8, "c")]
    assert failed_ids(b'{"batchItemFailures":[{"itemIdentifier":"7"}]}', aggregate, KINESIS) == {"7"}


def test_the_error_says_which_entry_and_never_repeats_it() -> None:
    with pytest.raises(MalformedReport, match=r"batchItemFailures\[1\] names no record that was sent") as raised:
        failed(report("sqs", "a", {"itemIdentifier": "secret"}), "sqs")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "value, found", [(b'"x"', "text"), (b"{}", "an object"), (b"true", "a boolean"), (b"1.5", "a number")]
)
def test_the_error_says_what_stands_in_place_of_the_list(value: bytes, found: str) -> None:
    with pytest.raises(MalformedReport, match=f"batchItemFailures is {found}, expected a list"):
        failed(b'{"batchItemFailures":' + value + b"}", "sqs")
