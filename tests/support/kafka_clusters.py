"""Kafka clusters for the contract of lanes, and one topic of theirs as a mapping sees it."""

import itertools
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from esm.domain.leasing import TRIM_HORIZON, Starting
from esm.domain.record import LaneId, Mark, Record
from esm.ports import Granted, Lane, LaneFeed
from esm.sandbox.kafka import MockCluster
from esm.sources.kafka import KafkaSettings, KafkaSource
from tests.support.time import LoopClock

SIZE = 100_000_000
"""Bytes of room; no test of the contract fills it."""
PATIENCE = 20.0
"""Seconds until something that has to come is overdue."""

_numbers = itertools.count(1)


class Cluster(Protocol):
    """A cluster, from the outside."""

    @property
    def bootstrap(self) -> str:
        """``host:port`` without login."""
        ...

    async def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create an empty topic."""
        ...


class Mock:
    """The mock cluster of the sandbox."""

    def __init__(self, cluster: MockCluster) -> None:
        self.cluster = cluster

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap_servers

    async def create_topic(self, name: str, partitions: int = 1) -> None:
        self.cluster.create_topic(name, partitions)


class KafkaWorld:
    """One topic with a name of its own, and the group that reads it."""

    def __init__(self, cluster: Cluster) -> None:
        number = next(_numbers)
        self.cluster = cluster
        self.topic, self.group = f"topic.{number}", f"group-{number}"

    async def create(self, partitions: int = 1) -> None:
        await self.cluster.create_topic(self.topic, partitions)

    def settings(self, **changes: Any) -> KafkaSettings:
        return KafkaSettings(
            **{
                "mapping": "payments",
                "bootstrap_servers": (self.cluster.bootstrap,),
                "topic": self.topic,
                "group": self.group,
                "fetch_wait": 0.05,
                "heartbeat": 0.1,
                "session": 2.0,  # the mock lets a group be joined again a session minus one second later
                "hand_over": 5.0,
            }
            | changes
        )

    def source(self, starting: Starting = TRIM_HORIZON, **changes: Any) -> KafkaSource:
        return KafkaSource(self.settings(**changes), LoopClock(), random.random, starting)

    def lane(self, partition: int = 0) -> LaneId:
        return LaneId("payments", f"{self.topic}-{partition}")

    async def put(
        self, *values: bytes | None, partition: int = 0, key: bytes | None = None, compression: str | None = None
    ) -> None:
        """Append a record for each of ``values``."""
        producer = AIOKafkaProducer(bootstrap_servers=self.cluster.bootstrap, compression_type=compression)
        await producer.start()
        try:
            for value in values:
                await producer.send(self.topic, value, key=key, partition=partition)
            await producer.flush()
        finally:
            await producer.stop()

    async def committed(self, partition: int = 0) -> int | None:
        """What the group remembers."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.cluster.bootstrap, group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return await consumer.committed(TopicPartition(self.topic, partition))
        finally:
            await consumer.stop()


@asynccontextmanager
async def fed(source: KafkaSource) -> AsyncGenerator[LaneFeed]:
    """The feed of a connected source."""
    async with source.connect() as (feed, limits):
        assert limits.visibility is None
        yield feed


async def granted(feed: LaneFeed) -> Granted:
    """The next change, which has to be a lane."""
    with anyio.fail_after(PATIENCE):
        change = await feed.change()
    assert isinstance(change, Granted)
    return change


@asynccontextmanager
async def opened(source: KafkaSource) -> AsyncGenerator[Lane]:
    """The one lane of a source, left at the end."""
    async with fed(source) as feed:
        change = await granted(feed)
        async with change.lane as lane:
            yield lane
        await feed.left(change.id)


async def take(lane: Lane, count: int) -> list[Record]:
    """Read until there are ``count`` records."""
    records: list[Record] = []
    with anyio.fail_after(PATIENCE):
        while len(records) < count:
            records += (await lane.read(count - len(records), SIZE, 1)).records
    return records


async def settled(lane: Lane, records: Sequence[Record]) -> None:
    """Settle ``records``, which are a contiguous prefix, and make it durable."""
    await lane.settle(records, Mark(records[-1].at))
    await lane.flush()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for ``condition``, a function or a coroutine function, to hold."""
    with anyio.fail_after(PATIENCE):
        while True:
            found = condition()
            if hasattr(found, "__await__"):
                found = await found
            if found:
                return
            await anyio.sleep(0.02)


def members(record: Record) -> dict[str, Any]:
    """A record's entry of the event."""
    found: dict[str, Any] = json.loads(record.entry)
    return found


def offsets(records: Sequence[Record]) -> list[int]:
    """Of ``records``."""
    return [record.position for record in records]
