"""Kinesis by its JSON protocol: streams, shards, iterators, records."""

import base64
import binascii
from collections.abc import Mapping, Sequence

import msgspec

from esm.sandbox.iterators import Position, sealed, unsealed
from esm.sandbox.kinesis_stream import HASH_KEYS, Shard, Stream
from esm.sandbox.wire import Answer, AwsError, Perform, operation
from esm.sandbox.world import World

MAX_READ_BYTES = 10 * 1024 * 1024
MAX_READ_RECORDS = 10_000
MAX_PUT_RECORDS = 500
MAX_PUT_BYTES = 10 * 1024 * 1024
MAX_RECORD_BYTES = 10 * 1024 * 1024
TOKEN_SECONDS = 300


class Named(msgspec.Struct, rename="pascal"):
    """A call that names a stream by name or ARN."""

    stream_name: str | None = None
    stream_arn: str | None = msgspec.field(default=None, name="StreamARN")


class CreateStream(Named):
    """CreateStream."""

    shard_count: int = 4


class DescribeStream(Named):
    """DescribeStream."""

    limit: int = 100
    exclusive_start_shard_id: str = ""


class ShardFilter(msgspec.Struct, rename="pascal"):
    """Which shards ListShards answers."""

    type: str
    shard_id: str = ""
    timestamp: float = 0


class ListShards(Named):
    """ListShards."""

    next_token: str | None = None
    exclusive_start_shard_id: str = ""
    max_results: int = 1000
    shard_filter: ShardFilter | None = None
    stream_creation_timestamp: float | None = None


class PutEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """A record to put; ``data`` is base64."""

    data: str
    partition_key: str
    explicit_hash_key: str | None = None


class PutRecord(Named, kw_only=True):
    """PutRecord."""

    data: str
    partition_key: str
    explicit_hash_key: str | None = None


class PutRecords(Named):
    """PutRecords."""

    records: Sequence[PutEntry] = ()


class GetShardIterator(Named, kw_only=True):
    """GetShardIterator."""

    shard_id: str
    shard_iterator_type: str
    starting_sequence_number: str | None = None
    timestamp: float | None = None


class GetRecords(Named, kw_only=True):
    """GetRecords."""

    shard_iterator: str
    limit: int = MAX_READ_RECORDS


class SplitShard(Named, kw_only=True):
    """SplitShard."""

    shard_to_split: str
    new_starting_hash_key: str


class MergeShards(Named, kw_only=True):
    """MergeShards."""

    shard_to_merge: str
    adjacent_shard_to_merge: str


class ListStreams(msgspec.Struct, rename="pascal"):
    """ListStreams."""

    limit: int = 100
    exclusive_start_stream_name: str = ""


class Kinesis:
    """All streams of the sandbox."""

    name = "kinesis"

    def __init__(self, world: World) -> None:
        self._world = world
        self._clock = world.clock
        self._streams: dict[str, Stream] = {}
        self.operations: Mapping[str, Perform] = _operations(self)

    # -- direct use

    def create_stream(self, name: str, shards: int = 1, *, retention_hours: int = 24) -> Stream:
        """Make a stream, active at once.  Raises AwsError (ResourceInUseException) when it exists."""
        if name in self._streams:
            message = f"Stream {name} under account {self._world.account} already exists."
            raise AwsError("ResourceInUseException", message)
        stream = self._streams[name] = Stream(name, shards, self._world, retention_hours)
        return stream

    def stream(self, name: str) -> Stream:
        """The stream of this name or ARN.  Raises AwsError (ResourceNotFoundException)."""
        found = self._streams.get(name.rpartition("/")[2])
        if found is None:
            message = f"Stream {name.rpartition('/')[2]} under account {self._world.account} not found."
            raise AwsError("ResourceNotFoundException", message)
        return found

    def delete_stream(self, name: str) -> None:
        """Remove a stream with all that it holds."""
        del self._streams[self.stream(name).name]

    def _named(self, request: Named) -> Stream:
        name = request.stream_arn or request.stream_name
        if not name:
            raise _invalid("Either StreamName or StreamARN must be given.")
        return self.stream(name)

    # -- streams

    def on_create(self, request: CreateStream) -> Answer:
        self.create_stream(request.stream_name or "", request.shard_count)
        return {}

    def on_delete(self, request: Named) -> Answer:
        self.delete_stream(self._named(request).name)
        return {}

    def on_list_streams(self, request: ListStreams) -> Answer:
        names = sorted(name for name in self._streams if name > request.exclusive_start_stream_name)
        return {"StreamNames": names[: request.limit], "HasMoreStreams": len(names) > request.limit}

    def on_summary(self, request: Named) -> Answer:
        stream = self._named(request)
        summary = _common(stream) | {"OpenShardCount": len(stream.open_shards()), "ConsumerCount": 0}
        return {"StreamDescriptionSummary": summary}

    def on_describe(self, request: DescribeStream) -> Answer:
        stream = self._named(request)
        shards = [shard for shard in stream.shards() if shard.id > request.exclusive_start_shard_id]
        listed = [_shown(shard) for shard in shards[: request.limit]]
        description = _common(stream) | {"Shards": listed, "HasMoreShards": len(shards) > request.limit}
        return {"StreamDescription": description}

    def on_list_shards(self, request: ListShards) -> Answer:
        if request.next_token is None:
            stream = self._named(request)
            found, rest = _filtered(stream, request.shard_filter), request.exclusive_start_shard_id
            chosen = [shard.id for shard in found if shard.id > rest]
        elif request.stream_name or request.stream_arn:
            raise _invalid("NextToken and StreamName cannot be provided together.")
        else:
            stream, chosen = self._continued(request.next_token)
        known = {shard.id: shard for shard in stream.shards()}
        page, rest_ids = chosen[: request.max_results], chosen[request.max_results :]
        answer: dict[str, object] = {"Shards": [_shown(known[one]) for one in page if one in known]}
        if rest_ids:
            token = Token(stream.name, self._clock.now(), rest_ids)
            answer["NextToken"] = base64.b64encode(msgspec.msgpack.encode(token)).decode()
        return answer

    def _continued(self, token: str) -> tuple[Stream, list[str]]:
        try:
            found = msgspec.msgpack.decode(base64.b64decode(token), type=Token)
        except (ValueError, binascii.Error) as error:
            raise _invalid("NextToken is not valid.") from error
        if self._clock.now() - found.at > TOKEN_SECONDS:
            raise AwsError("ExpiredNextTokenException", "The pagination token passed to the operation is expired.")
        return self.stream(found.stream), found.shards

    def on_split(self, request: SplitShard) -> Answer:
        self._named(request).split(request.shard_to_split, int(request.new_starting_hash_key))
        return {}

    def on_merge(self, request: MergeShards) -> Answer:
        self._named(request).merge(request.shard_to_merge, request.adjacent_shard_to_merge)
        return {}

    # -- records

    def on_put(self, request: PutRecord) -> Answer:
        entry = PutEntry(
            data=request.data, partition_key=request.partition_key, explicit_hash_key=request.explicit_hash_key
        )
        shard_id, number = self._put(self._named(request), entry)
        return {"ShardId": shard_id, "SequenceNumber": number}

    def on_put_many(self, request: PutRecords) -> Answer:
        stream = self._named(request)
        if not 1 <= len(request.records) <= MAX_PUT_RECORDS:
            raise AwsError(
                "ValidationException",
                f"{len(request.records)} records were given, at least 1 and at most {MAX_PUT_RECORDS} are allowed.",
            )
        if sum(len(entry.data) for entry in request.records) * 3 // 4 > MAX_PUT_BYTES:
            raise _invalid("Records size exceeds 10 MB limit")
        put = [self._put(stream, entry) for entry in request.records]
        records = [{"ShardId": shard_id, "SequenceNumber": number} for shard_id, number in put]
        return {"FailedRecordCount": 0, "Records": records}

    def _put(self, stream: Stream, entry: PutEntry) -> tuple[str, str]:
        if not 1 <= len(entry.partition_key) <= 256:
            raise AwsError("ValidationException", "A partition key has 1 to 256 characters.")
        explicit = None if entry.explicit_hash_key is None else int(entry.explicit_hash_key)
        if explicit is not None and not 0 <= explicit < HASH_KEYS:
            raise _invalid(f"Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, {HASH_KEYS - 1}].")
        data = base64.b64decode(entry.data)
        if len(data) + len(entry.partition_key.encode()) > MAX_RECORD_BYTES:
            raise AwsError(
                "ValidationException", f"A record of {len(data)} bytes was given, {MAX_RECORD_BYTES} at most."
            )
        return stream.put(entry.partition_key, data, explicit)

    def on_iterator(self, request: GetShardIterator) -> Answer:
        stream = self._named(request)
        shard = stream.shard(request.shard_id)
        index = self._start(stream, shard, request)
        return {"ShardIterator": self._iterator(stream, shard, index)}

    def _iterator(self, stream: Stream, shard: Shard, index: int) -> str:
        return sealed(Position(stream.arn, stream.identity, shard.id, index, self._clock.now()))

    def _start(self, stream: Stream, shard: Shard, request: GetShardIterator) -> int:
        now = self._clock.now()
        match request.shard_iterator_type:
            case "TRIM_HORIZON":
                return shard.log.horizon
            case "LATEST":
                return shard.log.tip(now)
            case "AT_TIMESTAMP":
                if request.timestamp is None:
                    raise _invalid("Must either specify timestamp for AT_TIMESTAMP iterator.")
                if request.timestamp > now + 1:
                    raise _invalid(
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis."
                    )
                return shard.log.first_at(request.timestamp, now)
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" as kind:
                return self._after(stream, shard, request) + (kind == "AFTER_SEQUENCE_NUMBER")
            case other:
                raise AwsError("ValidationException", f"ShardIteratorType {other} is unknown.")

    def _after(self, stream: Stream, shard: Shard, request: GetShardIterator) -> int:
        """The index of the given sequence number; for one below the horizon, the oldest record."""
        text = request.starting_sequence_number
        if not text:
            raise _invalid(f"Must specify sequence number for {request.shard_iterator_type} iterator.")
        if not text.isdecimal():
            raise _invalid(f"{text} is not a valid sequence number.")
        index = shard.sequencer.index(int(text))
        if index is None or index > shard.log.tip(self._clock.now()):
            raise _invalid(
                f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.id} in stream {stream.name} "
                f"under account {self._world.account} is invalid because it did not come from this stream."
            )
        if index < shard.log.horizon and stream.trimmed_is_error and index >= 0:
            raise _invalid(f"StartingSequenceNumber {text} used in GetShardIterator is older than the trim horizon.")
        return index

    def on_get(self, request: GetRecords) -> Answer:
        now = self._clock.now()
        if not 1 <= request.limit <= MAX_READ_RECORDS:
            raise AwsError("ValidationException", f"Limit is {request.limit}, expected 1 to {MAX_READ_RECORDS}.")
        stream, shard, position = self._read_position(request.shard_iterator, now)
        if stream.enforce_limits and not shard.take_read(now):
            raise AwsError(
                "ProvisionedThroughputExceededException",
                f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {self._world.account}.",
            )
        begin = max(position.index, shard.log.horizon)
        entries = shard.log.read(begin, request.limit, MAX_READ_BYTES, now)
        shard.took(sum(entry.size for entry in entries))
        index, tip = begin + len(entries), shard.log.tip(now)
        behind = 0
        if index < tip:
            last = entries[-1] if entries else shard.log.read(index, 1, 1, now)[0]
            behind = max(0, int((now - last.at) * 1000))
        parts = [b'{"Records":[', b",".join([entry.json for entry in entries]), b'],"MillisBehindLatest":%d' % behind]
        if shard.open or index < tip:
            parts.append(b',"NextShardIterator":"%s"' % self._iterator(stream, shard, index).encode())
        else:
            parts.append(b',"ChildShards":' + msgspec.json.encode([_child(child) for child in shard.children]))
        return b"".join([*parts, b"}"])

    def _read_position(self, iterator: str, now: float) -> tuple[Stream, Shard, Position]:
        position = unsealed(iterator)
        if position is None:
            raise _invalid("Invalid ShardIterator.")
        stream = self.stream(position.arn)
        if stream.identity != position.identity:
            raise _invalid("The ShardIterator belongs to an earlier stream of this name.")
        age = now - position.at
        if age > stream.iterator_seconds:
            raise AwsError(
                "ExpiredIteratorException",
                f"Iterator expired. The iterator was created {age:.1f} seconds ago, which is more than the tolerated "
                f"delay of {stream.iterator_seconds * 1000:.0f} milliseconds.",
            )
        return stream, stream.shard(position.shard), position


class Token(msgspec.Struct, frozen=True):
    """Where a listing goes on."""

    stream: str
    at: float
    shards: list[str]


def _operations(kinesis: Kinesis) -> Mapping[str, Perform]:
    return {
        "CreateStream": operation(CreateStream, kinesis.on_create),
        "DeleteStream": operation(Named, kinesis.on_delete),
        "ListStreams": operation(ListStreams, kinesis.on_list_streams),
        "DescribeStreamSummary": operation(Named, kinesis.on_summary),
        "DescribeStream": operation(DescribeStream, kinesis.on_describe),
        "ListShards": operation(ListShards, kinesis.on_list_shards),
        "SplitShard": operation(SplitShard, kinesis.on_split),
        "MergeShards": operation(MergeShards, kinesis.on_merge),
        "PutRecord": operation(PutRecord, kinesis.on_put),
        "PutRecords": operation(PutRecords, kinesis.on_put_many),
        "GetShardIterator": operation(GetShardIterator, kinesis.on_iterator),
        "GetRecords": operation(GetRecords, kinesis.on_get),
    }


def _filtered(stream: Stream, wanted: ShardFilter | None) -> list[Shard]:
    shards = stream.shards()
    match wanted.type if wanted else "FROM_TRIM_HORIZON":
        case "FROM_TRIM_HORIZON":
            return shards
        case "AT_LATEST":
            return [shard for shard in shards if shard.open]
        case "AT_TRIM_HORIZON":
            listed = {shard.id for shard in shards}
            return [shard for shard in shards if not listed.intersection(shard.parents)]
        case "AFTER_SHARD_ID" if wanted:
            return [shard for shard in shards if shard.id > wanted.shard_id]
        case ("AT_TIMESTAMP" | "FROM_TIMESTAMP") as kind if wanted:
            moment = max(wanted.timestamp, stream.created_at)
            open_then = [shard for shard in shards if shard.closed_at is None or shard.closed_at >= moment]
            return [shard for shard in open_then if kind == "FROM_TIMESTAMP" or shard.opened_at <= moment]
        case other:
            raise AwsError("ValidationException", f"The shard filter type {other} is unknown.")


def _common(stream: Stream) -> dict[str, object]:
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "StreamCreationTimestamp": float(int(stream.created_at)),
        "RetentionPeriodHours": stream.retention_hours,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }


def _hash_range(shard: Shard) -> dict[str, str]:
    return {"StartingHashKey": str(shard.start_hash), "EndingHashKey": str(shard.end_hash)}


def _shown(shard: Shard) -> dict[str, object]:
    numbers = {"StartingSequenceNumber": str(shard.starting)}
    if shard.ending is not None:
        numbers["EndingSequenceNumber"] = str(shard.ending)
    shown: dict[str, object] = {"ShardId": shard.id, "HashKeyRange": _hash_range(shard), "SequenceNumberRange": numbers}
    return shown | dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))


def _child(shard: Shard) -> dict[str, object]:
    return {"ShardId": shard.id, "ParentShards": list(shard.parents), "HashKeyRange": _hash_range(shard)}


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidArgumentException", message)
