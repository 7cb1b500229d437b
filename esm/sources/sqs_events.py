"""One received message as a record: its entry of the event, encoded (event-formats 1)."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import Struct

from esm.domain.instant import Instant
from esm.domain.record import LaneId, Record

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageAttributeValueOutputTypeDef, MessageTypeDef

_encode = msgspec.json.Encoder().encode


class Receipt(Struct, frozen=True, gc=False):
    """What deleting or releasing a message takes: ``Record.handle`` of a queue's record."""

    handle: str
    expires: float
    """Seconds of ``Instant.elapsed`` at which the message may come back."""


def receipt_of(record: Record) -> Receipt:
    """The receipt of a queue's record."""
    assert isinstance(record.handle, Receipt)  # this room made the record
    return record.handle


class MessageRecords:
    """Makes records of the messages of one queue; positions count on over all reads."""

    def __init__(self, lane: LaneId, arn: str, region: str) -> None:
        self._lane = lane
        self._tail = b"," + _encode({"eventSource": "aws:sqs", "eventSourceARN": arn, "awsRegion": region})[1:]
        self._received = 0

    def of(self, messages: "Sequence[MessageTypeDef]", now: Instant, expires: float) -> list[Record]:
        """Records of ``messages``, whose receipts live until ``expires`` (elapsed)."""
        return [self._record(message, now, expires) for message in messages]

    def _record(self, message: "MessageTypeDef", now: Instant, expires: float) -> Record:
        self._received += 1
        attributes = cast("Mapping[str, str]", message.get("Attributes", {}))  # the stub's keys are literals
        sent = attributes.get("SentTimestamp")
        return Record(
            lane=self._lane,
            position=self._received,
            sub=0,
            id=message["MessageId"],
            key=None,
            arrived_at=int(sent) / 1000 if sent else now.epoch,
            entry=self._entry(message, attributes),
            receives=int(attributes.get("ApproximateReceiveCount", 1)),
            handle=Receipt(message["ReceiptHandle"], expires),
        )

    def _entry(self, message: "MessageTypeDef", attributes: Mapping[str, str]) -> bytes:
        named = message.get("MessageAttributes")
        members: dict[str, object] = {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message.get("Body", ""),
            "attributes": attributes,
            "messageAttributes": {name: _attribute(value) for name, value in named.items()} if named else {},
            "md5OfBody": message.get("MD5OfBody", ""),
        }
        if md5 := message.get("MD5OfMessageAttributes"):
            members["md5OfMessageAttributes"] = md5
        try:
            return _encode(members)[:-1] + self._tail
        except UnicodeEncodeError:
            # Half a surrogate pair: SQS refuses it at the door, a server that is not SQS may not.  Escaped it is JSON
            # again; an error here would stop the queue for ever.
            return json.dumps(members, separators=(",", ":")).encode()[:-1] + self._tail


def _attribute(value: "MessageAttributeValueOutputTypeDef") -> dict[str, object]:
    """``stringValue`` or ``binaryValue`` (base64), the two lists that are always empty, the type with its suffix."""
    shown: dict[str, object] = {}
    if "StringValue" in value:
        shown["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        shown["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    nothing: Sequence[str] = ()
    return shown | {"stringListValues": nothing, "binaryListValues": nothing, "dataType": value["DataType"]}
