"""Queues for the contract of lanes: one in memory, one in the sandbox, one in moto, all told alike."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from esm.domain.record import LaneId, Record
from esm.ports import Gone, Granted, Lane, Leaving, Source
from esm.sources.memory import MemoryQueue
from tests.support.sqs_servers import SqsQueue, SqsServer
from tests.support.time import LoopClock

SIZE = 1_000_000
"""Bytes of room; no test of the contract fills it."""


class QueueWorld(Protocol):
    """One queue, from the outside."""

    name: str
    """Of the lane."""

    def source(self) -> Source:
        """It, as a source."""
        ...

    def absent(self) -> Source:
        """A source whose queue is not there."""
        ...

    async def send(self, *bodies: str) -> Sequence[str]:
        """Put messages in; answers their ids."""
        ...

    async def left(self) -> int:
        """Messages that are not deleted, hidden ones included."""
        ...


class MemoryWorld:
    """A queue in memory."""

    name = "orders"

    def __init__(self, visibility: float) -> None:
        self.queue = MemoryQueue(LaneId("orders", "orders"), LoopClock(), visibility)

    def source(self) -> Source:
        return self.queue

    def absent(self) -> Source:
        self.queue.not_ready = "Queue orders does not exist."
        return self.queue

    async def send(self, *bodies: str) -> Sequence[str]:
        return [self.queue.send(body) for body in bodies]

    async def left(self) -> int:
        return len(self.queue.messages)


class SqsWorld:
    """A queue of a server."""

    def __init__(self, server: SqsServer, queue: SqsQueue) -> None:
        self.server, self.queue, self.name = server, queue, queue.name

    def source(self) -> Source:
        return self.queue.source()

    def absent(self) -> Source:
        return self.server.source("arn:aws:sqs:eu-west-1:123456789012:nowhere-orders")

    async def send(self, *bodies: str) -> Sequence[str]:
        return await self.queue.send(*bodies)

    async def left(self) -> int:
        return await self.queue.left()


@asynccontextmanager
async def opened(source: Source) -> AsyncGenerator[Lane, None]:
    """The lane of ``source``, granted and entered."""
    async with source.connect() as (feed, _limits), granted_by(await feed.change()) as lane:
        yield lane


def granted_by(change: Granted | Leaving | Gone) -> AbstractAsyncContextManager[Lane]:
    """The lane that ``change`` grants, to be entered."""
    assert isinstance(change, Granted)
    return change.lane


def body_of(record: Record) -> str:
    """The body in a record's entry."""
    body = json.loads(record.entry)["body"]
    assert isinstance(body, str)
    return body


async def take(lane: Lane, count: int, limit: int = 100) -> list[Record]:
    """Read until ``count`` records came, not settling any.  Never ends if there are fewer: tests have a time limit."""
    records: list[Record] = []
    while len(records) < count:
        records += (await lane.read(limit, SIZE, 20)).records
    return records
