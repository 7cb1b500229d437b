"""Streams of shards as several servers tell them, seen from outside, and what reads them."""

import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import msgspec

from esm.clients.aws import AwsClients
from esm.domain.arn import Arn
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import Chunk, Record
from esm.ports import ShardReader, ShardSource
from esm.sandbox import Sandbox
from esm.sources.dynamodb_streams import DynamoDBStreamsSource
from esm.sources.kinesis import KinesisSource
from esm.sources.memory_shards import MemoryStream
from esm.sources.shards import Pace
from esm.telemetry.metrics import MappingMetrics, Metrics
from tests.support.sqs_servers import aws_session
from tests.support.time import LoopClock

REGION = "eu-west-1"
ACCOUNT = "123456789012"
ROLE = "arn:aws:iam::123456789012:role/tally-role"
MAPPING = "clicks"
LIMIT = 1000
SIZE = 64 * 2**20
QUICK = Pace(busy=0.0, idle=0.01)


class ShardWorld(Protocol):
    """A stream that a test fills, and its source."""

    resolution: float
    """Seconds in which it tells when records arrived."""

    def source(self) -> ShardSource:
        """It, as a source."""
        ...

    async def shard(self) -> str:
        """The id of its first open shard."""
        ...

    async def put(self, *data: str) -> None:
        """Append records to the first open shard."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """What is put from now on arrives so much later."""
        ...

    def data_of(self, record: Record) -> str:
        """What was put."""
        ...


class SplittableWorld(ShardWorld, Protocol):
    """One that can do more than moto."""

    async def split(self, shard: str) -> Sequence[str]:
        """End a shard; answers its children, at least one."""
        ...

    async def trim(self, shard: str, count: int) -> None:
        """Forget its oldest records."""
        ...


class MemoryWorld:
    """The stream in memory."""

    resolution = 0.0

    def __init__(self, shards: int = 1) -> None:
        self.stream = MemoryStream(MAPPING, shards)
        self._now = 1_767_222_000.0

    def source(self) -> ShardSource:
        return self.stream

    async def shard(self) -> str:
        return next(name for name, shard in self.stream.shards.items() if not shard.closed)

    async def put(self, *data: str) -> None:
        for one in data:
            self.stream.put(await self.shard(), one, key="k", arrived_at=self._now)

    async def pass_time(self, seconds: float) -> None:
        self._now += seconds

    def data_of(self, record: Record) -> str:
        return str(msgspec.json.decode(record.entry)["data"])

    async def split(self, shard: str) -> Sequence[str]:
        return self.stream.split(shard)

    async def trim(self, shard: str, count: int) -> None:
        self.stream.trim(shard, self.stream.shards[shard].positions[count - 1])


class AwsServer:
    """A server of AWS's protocols with clients that speak to it."""

    def __init__(self, url: str, clients: AwsClients, sandbox: Sandbox | None = None) -> None:
        self.url, self.clients = url, clients
        self._sandbox = sandbox
        self.clock = LoopClock()
        self.metrics: MappingMetrics = Metrics("0").mapping(MAPPING, "stream")

    @property
    def sandbox(self) -> Sandbox:
        """Ours; only where the test asked for it."""
        assert self._sandbox is not None
        return self._sandbox

    def advance(self, seconds: float) -> None:
        """Move its clock forward; nothing where it is not ours."""
        if self._sandbox is not None:
            self._sandbox.clock.advance(seconds)

    async def client(self, service: Any) -> Any:
        """The worker's own client."""
        return await self.clients.client(service, REGION, self.url)

    def kinesis(self, name: str, pace: Pace = QUICK) -> KinesisSource:
        """The source of the stream of this name."""
        arn = Arn("aws", "kinesis", REGION, ACCOUNT, f"stream/{name}")
        return KinesisSource(
            MAPPING, arn, REGION, self.url, lambda: ROLE, self.clients, self.clock, random.random, self.metrics, pace
        )

    def dynamodb(self, arn: str, pace: Pace = QUICK) -> DynamoDBStreamsSource:
        """The source of the table's stream of this ARN."""
        return DynamoDBStreamsSource(
            MAPPING, Arn.parse(arn), REGION, self.url, self.clients, self.clock, random.random, self.metrics, pace
        )


class KinesisWorld:
    """A new Kinesis stream of a server."""

    resolution = 0.001

    def __init__(self, server: AwsServer, name: str, pace: Pace) -> None:
        self.server, self.name = server, name
        self._pace = pace

    @classmethod
    async def create(cls, server: AwsServer, shards: int = 1, pace: Pace = QUICK) -> "KinesisWorld":
        """Make the stream."""
        made = cls(server, f"clicks-{uuid.uuid4().hex[:8]}", pace)
        calls = await server.client("kinesis")
        await calls.create_stream(StreamName=made.name, ShardCount=shards)
        return made

    def source(self) -> KinesisSource:
        return self.server.kinesis(self.name, self._pace)

    async def shards(self) -> Sequence[Any]:
        """As the server lists them."""
        calls = await self.server.client("kinesis")
        found: Sequence[Any] = (await calls.list_shards(StreamName=self.name))["Shards"]
        return found

    async def shard(self) -> str:
        return next(
            str(one["ShardId"])
            for one in await self.shards()
            if "EndingSequenceNumber" not in one["SequenceNumberRange"]
        )

    async def put(self, *data: str) -> None:
        shards = await self.shards()
        [ranged] = [one for one in shards if one["ShardId"] == await self.shard()]
        calls = await self.server.client("kinesis")
        for one in data:
            await calls.put_record(
                StreamName=self.name,
                Data=one.encode(),
                PartitionKey="k",
                ExplicitHashKey=ranged["HashKeyRange"]["StartingHashKey"],
            )

    async def pass_time(self, seconds: float) -> None:
        self.server.advance(seconds)

    def data_of(self, record: Record) -> str:
        return self.text_of(record.entry)

    def text_of(self, entry: bytes | msgspec.Raw) -> str:
        """What was put, of an entry of an event."""
        return msgspec.json.decode(entry, type=_KinesisEntry).kinesis.data.decode()

    async def split(self, shard: str) -> Sequence[str]:
        return [child.id for child in self.server.sandbox.kinesis.stream(self.name).split(shard)]

    async def trim(self, shard: str, count: int) -> None:
        self.server.sandbox.kinesis.stream(self.name).trim(shard, count)


class _KinesisData(msgspec.Struct):
    data: bytes


class _KinesisEntry(msgspec.Struct):
    kinesis: _KinesisData


class DynamoDBWorld:
    """A new table of a server, and its stream."""

    resolution = 1.0

    def __init__(self, server: AwsServer, table: str, arn: str, pace: Pace) -> None:
        self.server, self.table, self.arn = server, table, arn
        self._pace = pace

    @classmethod
    async def create(cls, server: AwsServer, pace: Pace = QUICK) -> "DynamoDBWorld":
        """Make the table."""
        name = f"carts-{uuid.uuid4().hex[:8]}"
        calls = await server.client("dynamodb")
        made = await calls.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        return cls(server, name, made["TableDescription"]["LatestStreamArn"], pace)

    def source(self) -> DynamoDBStreamsSource:
        return self.server.dynamodb(self.arn, self._pace)

    async def shard(self) -> str:
        calls = await self.server.client("dynamodbstreams")
        shards = (await calls.describe_stream(StreamArn=self.arn))["StreamDescription"]["Shards"]
        return next(
            str(one["ShardId"]) for one in shards if "EndingSequenceNumber" not in one.get("SequenceNumberRange", {})
        )

    async def put(self, *data: str) -> None:
        calls = await self.server.client("dynamodb")
        for one in data:
            await calls.put_item(TableName=self.table, Item={"pk": {"S": uuid.uuid4().hex}, "data": {"S": one}})

    async def pass_time(self, seconds: float) -> None:
        self.server.advance(seconds)

    def data_of(self, record: Record) -> str:
        return self.text_of(record.entry)

    def text_of(self, entry: bytes | msgspec.Raw) -> str:
        """What was put, of an entry of an event."""
        return str(msgspec.json.decode(entry)["dynamodb"]["NewImage"]["data"]["S"])

    async def split(self, shard: str) -> Sequence[str]:
        stream = self.server.sandbox.streams.stream(self.arn)
        return [child.id for child in stream.roll(shard, children=2)]

    async def trim(self, shard: str, count: int) -> None:
        self.server.sandbox.streams.stream(self.arn).trim(shard, count)


@asynccontextmanager
async def sandbox_server(**options: Any) -> AsyncIterator[AwsServer]:
    """A sandbox of its own, with clients."""
    async with Sandbox.open(**options) as sandbox, AwsClients(session=aws_session()) as clients:
        yield AwsServer(sandbox.url, clients, sandbox)


@asynccontextmanager
async def server_at(url: str) -> AsyncIterator[AwsServer]:
    """Clients of a server that runs."""
    async with AwsClients(session=aws_session()) as clients:
        yield AwsServer(url, clients)


async def next_chunk(reader: ShardReader, limit: int = LIMIT, wait: float = 0.2) -> Chunk:
    """The next chunk that brings records, a gap or the end."""
    with anyio.fail_after(20):
        while True:
            chunk = await reader.read(limit, SIZE, wait)
            if chunk.records or chunk.ended or chunk.gap:
                return chunk


async def take(reader: ShardReader, count: int) -> list[Record]:
    """The next ``count`` records; more than that is an error."""
    taken: list[Record] = []
    while len(taken) < count:
        taken += (await next_chunk(reader)).records
    assert len(taken) == count
    return taken


async def read_to_end(source: ShardSource, shard: str, start: Start = HORIZON) -> tuple[list[Record], Chunk]:
    """All records of a closed shard, and its last chunk."""
    taken: list[Record] = []
    async with source.open(shard, start) as reader:
        while True:
            chunk = await next_chunk(reader)
            taken += chunk.records
            if chunk.ended:
                return taken, chunk
