"""Per source kind: the frame of an event, its exact size, what a report may name, what a failure record tells.

An event is one join of a head, the records' encoded entries and a tail, so its size is a sum (event-formats 1–5).
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from esm.domain.discarded import Json, iso_milliseconds, iso_seconds
from esm.domain.record import LaneId, Record
from esm.domain.views import View, dynamodb_view, kafka_view, kinesis_view, message_view

_json = msgspec.json.encode


class Origin(Struct, frozen=True):
    """Where a mapping's records come from, as events and failure records tell it."""

    arn: str
    """The mapping's event source ARN; empty for self-managed Kafka."""
    region: str = ""
    account: str = ""
    role: str = ""
    """`invokeIdentityArn` of Kinesis records."""
    bootstrap: str = ""
    """Kafka: comma-separated servers."""


class EventKind(Protocol):
    """What one kind of source makes of records."""

    @property
    def overhead(self) -> int:
        """Bytes of an event besides its entries and the commas between them, at most."""
        ...

    @property
    def tolerates_empty_items(self) -> bool:
        """Whether a report's list of nothing but ``{}`` names nothing instead of being malformed."""
        ...

    def frame(self, lane: LaneId, records: Sequence[Record]) -> bytes:
        """The whole event of ``records``, UTF-8 JSON."""
        ...

    def named(self, identifier: Json) -> str | None:
        """An ``itemIdentifier`` as a Record.id; None = malformed."""
        ...

    def batch_info(self, lane: LaneId, records: Sequence[Record]) -> tuple[str, Json]:
        """Member name and content that describe ``records`` (never empty) in a failure record."""
        ...

    def view(self, record: Record) -> View:
        """What filters see of ``record``, read from its entry; its data are decoded only if a pattern asks."""
        ...


class RecordsKind:
    """SQS, Kinesis and DynamoDB: ``{"Records":[…]}``, reports name records by a string."""

    tolerates_empty_items = False
    overhead = len(b'{"Records":[]}')

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def frame(self, lane: LaneId, records: Sequence[Record]) -> bytes:
        """See EventKind."""
        return b'{"Records":[' + b",".join([record.entry for record in records]) + b"]}"

    def named(self, identifier: Json) -> str | None:
        """See EventKind."""
        return identifier if isinstance(identifier, str) else None

    def batch_info(self, lane: LaneId, records: Sequence[Record]) -> tuple[str, Json]:
        """See EventKind."""
        return self._batch_info("StreamBatchInfo", lane, records, iso_milliseconds)

    def _batch_info(self, name: str, lane: LaneId, records: Sequence[Record], time: "TimeText") -> tuple[str, Json]:
        return name, {
            "shardId": lane.name,
            "startSequenceNumber": records[0].id,  # as the source wrote it: some stand-ins pad with zeros
            "endSequenceNumber": records[-1].id,
            "approximateArrivalOfFirstRecord": time(records[0].arrived_at),
            "approximateArrivalOfLastRecord": time(records[-1].arrived_at),
            "batchSize": len(records),
            "streamArn": self.origin.arn,
        }


class TimeText(Protocol):
    """Epoch seconds as text."""

    def __call__(self, epoch: float) -> str:
        """``2026-01-01T09:30:00Z``, with or without a fraction."""
        ...


class SqsKind(RecordsKind):
    """Messages of a queue, reported by ``messageId``."""

    tolerates_empty_items = True  # recorded on AWS for SQS alone (event-formats 7.2)

    def batch_info(self, lane: LaneId, records: Sequence[Record]) -> tuple[str, Json]:
        """Ours: AWS gives queues no failure destination."""
        return "SQSBatchInfo", {
            "queueArn": self.origin.arn,
            "batchSize": len(records),
            "messageIds": [record.id for record in records],
        }

    def view(self, record: Record) -> View:
        """See EventKind."""
        return message_view(record.entry)


class KinesisKind(RecordsKind):
    """Records of a shard, reported by sequence number."""

    def batch_info(self, lane: LaneId, records: Sequence[Record]) -> tuple[str, Json]:
        """``KinesisBatchInfo`` with arrival times in milliseconds (failure-destinations 2.1)."""
        return self._batch_info("KinesisBatchInfo", lane, records, iso_milliseconds)

    def view(self, record: Record) -> View:
        """See EventKind."""
        return kinesis_view(record.entry)


class DynamoDBKind(RecordsKind):
    """Changes of a table, reported by sequence number."""

    def batch_info(self, lane: LaneId, records: Sequence[Record]) -> tuple[str, Json]:
        """``DDBStreamBatchInfo`` with arrival times in whole seconds (failure-destinations 2.2)."""
        return self._batch_info("DDBStreamBatchInfo", lane, records, iso_seconds)

    def view(self, record: Record) -> View:
        """See EventKind."""
        return dynamodb_view(record.entry)


class KafkaKind:
    """Records of one topic, keyed by ``<topic>-<partition>``, reported by partition and offset."""

    tolerates_empty_items = False

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        head: dict[str, str] = {"eventSource": "aws:kafka" if origin.arn else "SelfManagedKafka"}
        if origin.arn:
            head["eventSourceArn"] = origin.arn
        head["bootstrapServers"] = origin.bootstrap
        self._head = _json(head)[:-1] + b',"records":{'
        # A lane name is at most a topic of 249 letters, a dash and ten digits; with quotes, colon and brackets.
        self.overhead = len(self._head) + 270 + len(b"}}")

    def frame(self, lane: LaneId, records: Sequence[Record]) -> bytes:
        """See EventKind."""
        return b"".join(
            (self._head, _json(lane.name), b":[", b",".join([record.entry for record in records]), b"]}}"),
        )

    def named(self, identifier: Json) -> str | None:
        """``{"partition": "sensor-0", "offset": 17}`` as ``sensor-0:17``."""
        if not isinstance(identifier, dict):
            return None
        partition, offset = identifier.get("partition"), identifier.get("offset")
        if not isinstance(partition, str) or not isinstance(offset, int):
            return None
        return f"{partition}:{offset}"

    def batch_info(self, lane: LaneId, records: Sequence[Record]) -> tuple[str, Json]:
        """``KafkaBatchInfo`` (failure-destinations 2.3); offsets are text there."""
        info: dict[str, Json] = {"batchSize": len(records)}
        if self.origin.arn:
            info["eventSourceArn"] = self.origin.arn
        info["bootstrapServers"] = self.origin.bootstrap
        info["payloadSize"] = len(self.frame(lane, records))
        info["recordsInfo"] = {
            lane.name: {
                "firstRecordOffset": str(records[0].position),
                "lastRecordOffset": str(records[-1].position),
                "firstRecordTimestamp": iso_milliseconds(records[0].arrived_at),
                "lastRecordTimestamp": iso_milliseconds(records[-1].arrived_at),
            }
        }
        return "KafkaBatchInfo", info

    def view(self, record: Record) -> View:
        """See EventKind."""
        return kafka_view(record.entry)
