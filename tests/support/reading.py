"""The smallest engine there is: reads every lane that it is granted, settles what it read, leaves as pipelines do."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec
from msgspec.structs import replace

from esm.domain.errors import LaneFailed, LaneLost, LeaseStoreFailed
from esm.domain.holdings import LaneProgress
from esm.domain.leasing import TRIM_HORIZON, Starting
from esm.domain.record import LaneId, Mark, Record
from esm.engine.shard_feed import LeasedSource
from esm.ports import Clock, Gone, Granted, Lane, LaneFeed, LeaseStore, ShardSource
from esm.telemetry.metrics import Metrics


class Reading:
    """What one worker read; ``holds_back`` says which records it does not settle."""

    def __init__(self, feed: LaneFeed, holds_back: Callable[[Record], bool], text: Callable[[Record], str]) -> None:
        self._feed = feed
        self._text = text
        self._holds_back = holds_back
        self._open: dict[LaneId, anyio.CancelScope] = {}
        self.delivered: list[str] = []
        """The data of each record, in the order of reading."""
        self.granted: list[tuple[float, str]] = []
        """When which lane was granted."""
        self.gone: list[str] = []
        self.errors: list[Exception] = []
        """With which a lane ended."""
        self.lanes: dict[str, Lane] = {}
        """Those that are open."""
        self.news = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                change = await self._feed.change()
                if isinstance(change, Granted):
                    self.granted.append((anyio.current_time(), change.id.name))
                    tasks.start_soon(self._read, change)
                elif isinstance(change, Gone):
                    self.gone.append(change.id.name)
                    self._open[change.id].cancel()
                self._tell()

    async def _read(self, granted: Granted) -> None:
        try:
            with anyio.CancelScope() as self._open[granted.id]:
                async with granted.lane as lane:
                    self.lanes[granted.id.name] = lane
                    self._tell()
                    await self._through(lane)
        except (LaneFailed, LaneLost) as error:
            self.errors.append(error)
        finally:
            self.lanes.pop(granted.id.name, None)
            self._tell()
            with anyio.CancelScope(shield=True):
                await self._feed.left(granted.id)

    async def _through(self, lane: Lane) -> None:
        progress = LaneProgress(lane.resumed)
        try:
            ended = None
            while ended is None:
                chunk = await lane.read(100, 1_000_000, 20)
                progress.took(chunk)
                self.delivered += [self._text(record) for record in chunk.records]
                progress.settled([record for record in chunk.records if not self._holds_back(record)])
                ended = chunk.ended if not progress.count else None
                mark = progress.mark()
                if ended is not None:
                    mark = replace(mark or Mark(None), ended=ended)
                if mark is not None:
                    await lane.settle(chunk.records, mark)
                self._tell()
                if chunk.ended is not None and ended is None:
                    await anyio.sleep_forever()  # its records never settle
        finally:
            with anyio.CancelScope(shield=True), suppress(LaneLost, LeaseStoreFailed):
                await lane.flush()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def until(self, condition: Callable[[], object], within: float = 600) -> None:
        """Wait for something that only changes when a lane is read, granted or left."""
        with anyio.fail_after(within):
            while not condition():
                await self.news.wait()


def data(record: Record) -> str:
    """What a test put into a MemoryStream."""
    found: dict[str, str] = msgspec.json.decode(record.entry)
    return found["data"]


class Worker:
    """Makes workers of one mapping over one stream and one store."""

    def __init__(
        self,
        stream: ShardSource,
        store: LeaseStore,
        clock: Clock,
        failover: float = 9,
        text: Callable[[Record], str] = data,
    ) -> None:
        self._text = text
        self.stream, self.store, self.clock, self.failover = stream, store, clock, failover
        self.metrics = Metrics("0").mapping("clicks", "kinesis")

    def source(self, owner: str = "w1", starting: Starting = TRIM_HORIZON) -> LeasedSource:
        """The source as assembly would make it."""
        return LeasedSource(
            "clicks",
            "9f1c",
            self.stream,
            self.store,
            owner,
            starting,
            self.clock,
            lambda: 0.5,
            self.metrics,
            self.failover,
        )

    @asynccontextmanager
    async def running(
        self,
        owner: str = "w1",
        starting: Starting = TRIM_HORIZON,
        holds_back: Callable[[Record], bool] = lambda _: False,
    ) -> AsyncIterator[Reading]:
        """A worker that reads until the context ends, and stops as a pipeline does."""
        raised: Any = None
        async with self.source(owner, starting).connect() as (feed, _):
            reading = Reading(feed, holds_back, self._text)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(reading.run)
                    yield reading
                    tasks.cancel_scope.cancel()
            except* AssertionError as failed:  # the test's own, out of its wrapping
                raised = failed.exceptions[0]
        if raised is not None:
            raise raised
