"""Records of a Kinesis shard: their entries of the event, encoded (event-formats 2)."""

import json
import math
from binascii import b2a_base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from esm.domain.record import LaneId, Record

if TYPE_CHECKING:
    from types_aiobotocore_kinesis.type_defs import RecordTypeDef

_encode = msgspec.json.Encoder().encode


class KinesisRecords:
    """Makes records of what GetRecords answers for one shard."""

    def __init__(self, lane: LaneId, arn: str, region: str, role: str) -> None:
        self._lane = lane
        self._middle = b'},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":' + _encode(lane.name)[:-1] + b":"
        last = {
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": role,
            "awsRegion": region,
            "eventSourceARN": arn,
        }
        self._tail = b'",' + _encode(last)[1:]

    def of(self, found: "Sequence[RecordTypeDef]") -> list[Record]:
        """Records of ``found``, in its order."""
        lane, middle, tail = self._lane, self._middle, self._tail
        made: list[Record] = []
        for one in found:
            number, key = one["SequenceNumber"], one["PartitionKey"]
            digits = number.encode()
            arrived_at = round(one["ApproximateArrivalTimestamp"].timestamp(), 3)
            entry = b"".join(
                (
                    b'{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":',
                    _text(key),
                    b',"sequenceNumber":"',
                    digits,
                    b'","data":"',
                    b2a_base64(one["Data"], newline=False),
                    b'","approximateArrivalTimestamp":',
                    repr(arrived_at).encode(),
                    middle,
                    digits,
                    tail,
                )
            )
            made.append(
                Record(lane, int(number), 0, number, key.encode(errors="surrogatepass"), arrived_at, entry),
            )
        return made


def _text(key: str) -> bytes:
    try:
        return _encode(key)
    except (
        UnicodeEncodeError
    ):  # half a surrogate pair: escaped it is JSON again, an error would stop the shard for ever
        return json.dumps(key).encode()


def since(found: "Sequence[RecordTypeDef]", moment: float) -> "Sequence[RecordTypeDef]":
    """``found`` without the leading records that arrived before ``moment`` (epoch seconds).

    Arrival times are told in milliseconds, so those of the moment's own millisecond are kept.
    """
    oldest = millisecond(moment)
    for index, one in enumerate(found):
        if one["ApproximateArrivalTimestamp"].timestamp() >= oldest:
            return found[index:]
    return ()


def millisecond(moment: float) -> float:
    """The millisecond of ``moment``, epoch seconds: arrival times are no finer."""
    return math.floor(round(moment * 1000, 3)) / 1000  # 1767222000.123 × 1000 is a little less than …123
