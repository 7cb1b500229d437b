"""Records of DynamoDB Streams as entries of the event (event-formats 3)."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from esm.domain.events import DynamoDBKind, Origin
from esm.domain.record import LaneId
from esm.sources.dynamodb_records import DynamoDBRecords, since

LANE = LaneId("customers", "shardId-00000001767222000000-0000abcd")
ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/customers/stream/2026-01-01T00:00:00.000"
ZONE = timezone(timedelta(hours=5, minutes=30))
NEW: dict[str, Any] = {
    "pk": {"S": "cust#9"},
    "total": {"N": "12.50"},
    "ok": {"BOOL": True},
    "none": {"NULL": True},
    "bin": {"B": b"\x00\x01\x02"},
    "m": {"M": {"x": {"N": "1"}, "deep": {"M": {"b": {"B": b"\xff"}}}}},
    "l": {"L": [{"S": "a"}, {"N": "2"}, {"B": b"\xfe"}, {"L": []}, {"M": {}}]},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "bs": {"BS": [b"\x00\x01\x02"]},
}


def found(number: str = "111122223333444455556", at: float = 1767222000, **changes: Any) -> Any:
    """A record as botocore decodes it; keywords replace members of the change, None removes them."""
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": datetime.fromtimestamp(at, ZONE),
        "Keys": {"pk": {"S": "cust#9"}},
        "NewImage": NEW,
        "OldImage": {"pk": {"S": "cust#9"}, "total": {"N": "10"}},
        "SequenceNumber": number,
        "SizeBytes": 112,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    change.update(changes)
    return {
        "eventID": "7f3d5c1b0a9e8d7c6b5a493827160504",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": {name: value for name, value in change.items() if value is not None},
    }


def records() -> DynamoDBRecords:
    return DynamoDBRecords(LANE, ARN)


def test_the_event_is_the_one_of_aws_to_the_last_member() -> None:
    event = DynamoDBKind(Origin(ARN)).frame(LANE, records().of([found()]))
    assert json.loads(event) == {
        "Records": [
            {
                "eventID": "7f3d5c1b0a9e8d7c6b5a493827160504",
                "eventName": "MODIFY",
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "eu-west-1",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1767222000.0,
                    "Keys": {"pk": {"S": "cust#9"}},
                    "NewImage": {
                        "pk": {"S": "cust#9"},
                        "total": {"N": "12.50"},
                        "ok": {"BOOL": True},
                        "none": {"NULL": True},
                        "bin": {"B": "AAEC"},
                        "m": {"M": {"x": {"N": "1"}, "deep": {"M": {"b": {"B": "/w=="}}}}},
                        "l": {"L": [{"S": "a"}, {"N": "2"}, {"B": "/g=="}, {"L": []}, {"M": {}}]},
                        "ss": {"SS": ["a", "b"]},
                        "ns": {"NS": ["1", "2"]},
                        "bs": {"BS": ["AAEC"]},
                    },
                    "OldImage": {"pk": {"S": "cust#9"}, "total": {"N": "10"}},
                    "SequenceNumber": "111122223333444455556",
                    "SizeBytes": 112,
                    "StreamViewType": "NEW_AND_OLD_IMAGES",
                },
                "eventSourceARN": ARN,
            }
        ]
    }


def test_the_creation_time_is_written_in_floating_form_and_whole_seconds() -> None:
    [record] = records().of([found(at=1767222000.75)])
    assert b'"ApproximateCreationDateTime":1767222000.0,' in record.entry
    assert record.arrived_at == 1767222000.0


def test_images_that_the_view_leaves_out_are_no_members() -> None:
    [record] = records().of([found(NewImage=None, OldImage=None, StreamViewType="KEYS_ONLY")])
    assert sorted(json.loads(record.entry)["dynamodb"]) == [
        "ApproximateCreationDateTime",
        "Keys",
        "SequenceNumber",
        "SizeBytes",
        "StreamViewType",
    ]


def test_a_deletion_by_ttl_names_the_service_in_lower_case_beside_the_change() -> None:
    raw = found(NewImage=None) | {
        "eventName": "REMOVE",
        "userIdentity": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"},
    }
    [record] = records().of([raw])
    event = json.loads(record.entry)
    assert event["userIdentity"] == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    assert "userIdentity" not in event["dynamodb"]


def test_a_record_of_anybody_else_has_no_identity() -> None:
    [record] = records().of([found()])
    assert "userIdentity" not in json.loads(record.entry)


def test_numbers_of_sequence_grow_past_a_digit() -> None:
    shorter, longer = records().of([found("999999999999999999999"), found("1000000000000000000000")])
    assert shorter.at < longer.at
    assert (longer.id, longer.sub) == ("1000000000000000000000", 0)


def test_the_order_key_is_the_key_of_the_item_whatever_the_order_of_its_attributes() -> None:
    hash_first = {"pk": {"S": "a"}, "sk": {"B": b"\x01"}}
    range_first = {"sk": {"B": b"\x01"}, "pk": {"S": "a"}}
    other = {"pk": {"S": "a"}, "sk": {"S": "AQ=="}}
    one, same, different = records().of([found(Keys=key) for key in (hash_first, range_first, other)])
    assert one.key == same.key
    assert one.key != different.key


@pytest.mark.parametrize("moment, first", [(99.0, 0), (100.0, 0), (100.9, 0), (101.0, 1), (102.5, 3), (103.0, 5)])
def test_records_of_the_moments_own_second_are_kept(moment: float, first: int) -> None:
    raw = [found(number=str(index), at=at) for index, at in enumerate([100, 101, 101, 102, 100])]
    assert [one["dynamodb"]["SequenceNumber"] for one in since(raw, moment)] == [str(n) for n in range(first, 5)]


def test_half_a_surrogate_pair_becomes_json_that_utf8_can_carry() -> None:
    [record] = records().of([found(Keys={"pk": {"S": "a\ud800"}}, NewImage={"b": {"B": b"\x00"}}, OldImage=None)])
    entry = json.loads(record.entry)
    assert entry["dynamodb"]["Keys"] == {"pk": {"S": "a\ud800"}}
    assert entry["dynamodb"]["NewImage"] == {"b": {"B": "AA=="}}
    assert entry["eventSourceARN"] == ARN
    assert json.loads(record.key or b"") == {"pk": {"S": "a\ud800"}}
