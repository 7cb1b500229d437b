"""DynamoDB Streams by its JSON protocol: shards, iterators, records."""

from collections.abc import Mapping

import msgspec

from esm.sandbox.dynamodb import DynamoDb
from esm.sandbox.iterators import Position, sealed, unsealed
from esm.sandbox.table_stream import StreamShard, TableStream
from esm.sandbox.wire import Answer, AwsError, Perform, operation
from esm.sandbox.world import World

MAX_READ_RECORDS = 1000
MAX_READ_BYTES = 1024 * 1024
PAGE = 100


class ListStreams(msgspec.Struct, rename="pascal"):
    """ListStreams."""

    table_name: str | None = None
    limit: int = PAGE
    exclusive_start_stream_arn: str | None = None


class ShardFilter(msgspec.Struct, rename="pascal"):
    """Which shards DescribeStream answers."""

    type: str = ""
    shard_id: str = ""


class DescribeStream(msgspec.Struct, rename="pascal"):
    """DescribeStream."""

    stream_arn: str
    limit: int = PAGE
    exclusive_start_shard_id: str | None = None
    shard_filter: ShardFilter | None = None


class GetShardIterator(msgspec.Struct, rename="pascal"):
    """GetShardIterator."""

    stream_arn: str
    shard_id: str
    shard_iterator_type: str
    sequence_number: str | None = None


class GetRecords(msgspec.Struct, rename="pascal"):
    """GetRecords."""

    shard_iterator: str
    limit: int = MAX_READ_RECORDS


class Streams:
    """The streams of all tables."""

    name = "streams"

    def __init__(self, world: World, tables: DynamoDb) -> None:
        self._clock = world.clock
        self._tables = tables
        self.operations: Mapping[str, Perform] = {
            "ListStreams": operation(ListStreams, self.on_list),
            "DescribeStream": operation(DescribeStream, self.on_describe),
            "GetShardIterator": operation(GetShardIterator, self.on_iterator),
            "GetRecords": operation(GetRecords, self.on_get),
        }

    def stream(self, arn: str) -> TableStream:
        """The stream of this ARN.  Raises AwsError (ResourceNotFoundException)."""
        for stream in self._tables.streams():
            if stream.arn == arn:
                return stream
        raise AwsError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")

    def on_list(self, request: ListStreams) -> Answer:
        found = [one for one in self._tables.streams() if request.table_name in (None, one.table)]
        if request.exclusive_start_stream_arn is not None:
            arns = [one.arn for one in found]
            start = request.exclusive_start_stream_arn
            found = found[arns.index(start) + 1 :] if start in arns else []
        page = found[: request.limit]
        shown = [{"StreamArn": one.arn, "TableName": one.table, "StreamLabel": one.label} for one in page]
        answer: dict[str, object] = {"Streams": shown}
        if len(found) > len(page):
            answer["LastEvaluatedStreamArn"] = page[-1].arn
        return answer

    def on_describe(self, request: DescribeStream) -> Answer:
        stream = self.stream(request.stream_arn)
        wanted = request.shard_filter
        if wanted is not None and wanted.type == "CHILD_SHARDS":
            shards = stream.children(wanted.shard_id)
        else:
            shards = stream.shards()
        if request.exclusive_start_shard_id is not None:
            ids = [shard.id for shard in shards]
            start = request.exclusive_start_shard_id
            shards = shards[ids.index(start) + 1 :] if start in ids else []
        page = shards[: min(request.limit, PAGE)]
        now = self._clock.now()
        description: dict[str, object] = {
            "StreamArn": stream.arn,
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED" if stream.enabled else "DISABLED",
            "StreamViewType": stream.view,
            "CreationRequestDateTime": stream.created_at,
            "TableName": stream.table,
            "KeySchema": [
                {"AttributeName": name, "KeyType": kind}
                for name, kind in zip(stream.keys, ("HASH", "RANGE"), strict=False)
            ],
            "Shards": [_shown(shard, now) for shard in page],
        }
        if len(shards) > len(page):
            description["LastEvaluatedShardId"] = page[-1].id
        return {"StreamDescription": description}

    def on_iterator(self, request: GetShardIterator) -> Answer:
        stream = self.stream(request.stream_arn)
        shard = self._shard(stream, request.shard_id)
        index = self._start(shard, request)
        return {"ShardIterator": self._iterator(stream, shard, index)}

    def on_get(self, request: GetRecords) -> Answer:
        now = self._clock.now()
        if not 1 <= request.limit <= MAX_READ_RECORDS:
            raise AwsError("ValidationException", f"Limit is {request.limit}, expected 1 to {MAX_READ_RECORDS}.")
        position = unsealed(request.shard_iterator)
        if position is None:
            raise AwsError("ValidationException", "Invalid ShardIterator")
        stream = self.stream(position.arn)
        if now - position.at > stream.iterator_seconds:
            raise AwsError("ExpiredIteratorException", "The shard iterator has expired and can no longer be used")
        shard = self._shard(stream, position.shard)
        if position.index < shard.log.horizon:
            raise _trimmed()
        entries = shard.log.read(position.index, request.limit, MAX_READ_BYTES, now)
        index = position.index + len(entries)
        parts = [b'{"Records":[', b",".join([entry.json for entry in entries]), b"]"]
        if shard.closed_at is None or index < shard.log.tip(now):
            parts.append(b',"NextShardIterator":"%s"' % self._iterator(stream, shard, index).encode())
        return b"".join([*parts, b"}"])

    def _iterator(self, stream: TableStream, shard: StreamShard, index: int) -> str:
        return sealed(Position(stream.arn, stream.identity, shard.id, index, self._clock.now()))

    def _shard(self, stream: TableStream, shard_id: str) -> StreamShard:
        shard = stream.shard(shard_id)
        if shard is None:
            message = f"Requested resource not found: Shard does not exist: {shard_id}"
            raise AwsError("ResourceNotFoundException", message)
        return shard

    def _start(self, shard: StreamShard, request: GetShardIterator) -> int:
        now = self._clock.now()
        match request.shard_iterator_type:
            case "TRIM_HORIZON":
                return shard.log.horizon
            case "LATEST":
                return shard.log.tip(now)
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" as kind:
                text = request.sequence_number or ""
                index = shard.index(int(text)) if text.isdecimal() else None
                if index is None or index > shard.log.tip(now):
                    raise AwsError("ValidationException", f"Invalid SequenceNumber {text!r} for shard {shard.id}")
                index = max(0, index + (kind == "AFTER_SEQUENCE_NUMBER"))
                if index < shard.log.horizon:
                    raise _trimmed()
                return index
            case other:
                raise AwsError("ValidationException", f"ShardIteratorType {other} is unknown.")


def _shown(shard: StreamShard, now: float) -> dict[str, object]:
    numbers = {"StartingSequenceNumber": str(shard.number(-1))}
    ending = shard.ending(now)
    if ending is not None:
        numbers["EndingSequenceNumber"] = str(ending)
    shown: dict[str, object] = {"ShardId": shard.id, "SequenceNumberRange": numbers}
    if shard.parent is not None:
        shown["ParentShardId"] = shard.parent
    return shown


def _trimmed() -> AwsError:
    return AwsError(
        "TrimmedDataAccessException",
        "The operation attempted to read past the oldest stream record in a shard: the requested data is trimmed.",
    )
