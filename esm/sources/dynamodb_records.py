"""Records of a DynamoDB stream: their entries of the event, encoded (event-formats 3)."""

import base64
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from esm.domain.record import LaneId, Record

if TYPE_CHECKING:
    from types_aiobotocore_dynamodbstreams.type_defs import RecordTypeDef

# Both write bytes as base64, which is what the event wants for B and BS.
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class DynamoDBRecords:
    """Makes records of what GetRecords answers for one shard."""

    def __init__(self, lane: LaneId, arn: str) -> None:
        self._lane = lane
        self._tail = b',"eventSourceARN":' + _encode(arn) + b"}"

    def of(self, found: "Sequence[RecordTypeDef]") -> list[Record]:
        """Records of ``found``, in its order; the order key is the item's key, attributes by name."""
        lane, tail = self._lane, self._tail
        made: list[Record] = []
        for one in found:
            change = one["dynamodb"]
            created_at = float(int(change["ApproximateCreationDateTime"].timestamp()))
            number = change["SequenceNumber"]
            members: dict[str, object] = {
                "eventID": one["eventID"],
                "eventName": one["eventName"],
                "eventVersion": one["eventVersion"],
                "eventSource": one["eventSource"],
                "awsRegion": one["awsRegion"],
                "dynamodb": {**change, "ApproximateCreationDateTime": created_at},
            }
            if (who := one.get("userIdentity")) is not None:  # the API writes its members in upper case
                members["userIdentity"] = {"type": who.get("Type"), "principalId": who.get("PrincipalId")}
            entry = _text(members, _encode)[:-1] + tail
            key = _text(change["Keys"], _encode_sorted)
            made.append(Record(lane, int(number), 0, number, key, created_at, entry))
        return made


def _text(value: object, encode: Callable[[object], bytes]) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError:  # half a surrogate pair: escaped it is JSON again, an error would stop the shard
        return json.dumps(value, separators=(",", ":"), sort_keys=True, default=_base64).encode()


def _base64(value: object) -> str:
    assert isinstance(value, bytes), "all else of an item is JSON already"
    return base64.b64encode(value).decode()


def since(found: "Sequence[RecordTypeDef]", moment: float) -> "Sequence[RecordTypeDef]":
    """``found`` without the leading records that were made before ``moment`` (epoch seconds).

    The stream tells whole seconds only: all records of the moment's own second are kept, so that none is lost; those of
    that second's beginning are read although they are older.
    """
    oldest = math.floor(moment)
    for index, one in enumerate(found):
        if one["dynamodb"]["ApproximateCreationDateTime"].timestamp() >= oldest:
            return found[index:]
    return ()
