"""One record of a partition with its entry of the event, encoded (event-formats 5)."""

from binascii import b2a_base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from esm.domain.record import LaneId, Record

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

_encode = msgspec.json.Encoder().encode

_STAMPS = (b',"timestampType":"CREATE_TIME"', b',"timestampType":"LOG_APPEND_TIME"')


class PartitionRecords:
    """Makes records of one partition."""

    def __init__(self, lane: LaneId, topic: str, partition: int) -> None:
        self._lane = lane
        self._id = f"{topic}-{partition}:"
        self._head = b'{"topic":%b,"partition":%d,"offset":' % (_encode(topic), partition)

    def of(self, messages: "Sequence[ConsumerRecord]", now: float) -> list[Record]:
        """Records of ``messages``; one without a timestamp arrived ``now`` (epoch seconds)."""
        return [self._record(message, now) for message in messages]

    def _record(self, message: "ConsumerRecord", now: float) -> Record:
        offset, stamp, key, value = message.offset, message.timestamp, message.key, message.value
        entry = b"".join(
            (
                self._head,
                b'%d,"timestamp":%d' % (offset, stamp),
                _STAMPS[message.timestamp_type == 1],
                b',"key":"%b"' % b2a_base64(key, newline=False) if key is not None else b"",
                b',"value":"%b","headers":' % b2a_base64(value, newline=False)
                if value is not None
                else b',"value":null,"headers":',
                _headers(message.headers) if message.headers else b"[]}",
            )
        )
        arrived = stamp / 1000 if stamp >= 0 else now
        return Record(self._lane, offset, 0, f"{self._id}{offset}", key, arrived, entry)


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """In order, duplicates kept, each an object of one member; bytes as 0–255.  A header may have no value: null."""
    return _encode([{name: None if value is None else list(value)} for name, value in headers]) + b"}"
