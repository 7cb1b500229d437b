"""Partitions of a group in memory, assigned and revoked as they are told: for tests and the simulation."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import msgspec

from esm.domain.errors import LaneLost
from esm.domain.record import Chunk, LaneId, Mark, Position, Record
from esm.ports import AttemptLimits, Clock, Gone, Granted, LaneFeed, Leaving


class MemoryPartition:
    """One partition with its committed position."""

    def __init__(self, lane: LaneId) -> None:
        self.lane = lane
        self.records: list[Record] = []
        self.committed: Mark | None = None
        self.commits: list[Position] = []
        """Every position that was written, in order."""
        self.wanted_back = False
        """Grant it again as soon as it was left."""
        self.lag_seconds: float | None = None
        """Told by empty reads."""
        self.generation = 0
        """Which assignment holds it now; an older one may write nothing."""
        self.news = anyio.Event()
        self.read_error: Exception | None = None
        """Raised by the next read, once."""
        self.on_commit: Callable[[LaneId, Mark], None] = lambda lane, mark: None
        """Told of each mark before it is stored."""


class MemoryGroup:
    """A Source of partitions that are assigned and revoked by the test, as a consumer group does it."""

    def __init__(self, mapping: str, clock: Clock, partitions: int = 1) -> None:
        self.mapping = mapping
        self.clock = clock
        self.partitions = [MemoryPartition(LaneId(mapping, f"topic-{number}")) for number in range(partitions)]
        self.changes: deque[Granted | Leaving | Gone] = deque()
        self.left_lanes: list[str] = []
        """Names of lanes whose pipelines ended, in order."""
        self.lane_left = anyio.Event()
        self.open = self.opened = 0
        self._news = anyio.Event()

    def put(self, partition: int, body: str, key: str | None = None, arrived_at: float | None = None) -> Record:
        """Append a record."""
        found = self.partitions[partition]
        offset = len(found.records)
        record = Record(
            found.lane,
            offset,
            0,
            f"{found.lane.name}:{offset}",
            key.encode() if key is not None else None,
            self.clock.instant().epoch if arrived_at is None else arrived_at,
            msgspec.json.encode({"offset": offset, "body": body}),
        )
        found.records.append(record)
        found.news.set()
        found.news = anyio.Event()
        return record

    def assign(self, partition: int) -> None:
        """Grant a partition, from its committed position."""
        found = self.partitions[partition]
        found.generation += 1
        self._say(Granted(found.lane, self._opened(found, found.generation)))

    def revoke(self, partition: int, deadline: float) -> None:
        """Ask for a partition back until ``deadline``, elapsed."""
        self._say(Leaving(self.partitions[partition].lane, deadline))

    def give_back(self, partition: int) -> None:
        """Grant a partition again as soon as it was left."""
        self.partitions[partition].wanted_back = True

    def lose(self, partition: int) -> None:
        """Give a partition to somebody else at once."""
        found = self.partitions[partition]
        found.generation += 1
        self._say(Gone(found.lane))

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[LaneFeed, AttemptLimits], None]:
        """See Source."""
        await anyio.lowlevel.checkpoint()
        self.open += 1
        self.opened += 1
        self.changes.clear()
        for number in range(len(self.partitions)):
            self.assign(number)
        try:
            yield self, AttemptLimits()
        finally:
            self.open -= 1

    async def change(self) -> Granted | Leaving | Gone:
        """See LaneFeed."""
        await anyio.lowlevel.checkpoint()
        while not self.changes:
            await self._news.wait()
        return self.changes.popleft()

    async def left(self, lane: LaneId) -> None:
        """See LaneFeed."""
        await anyio.lowlevel.checkpoint()
        self.left_lanes.append(lane.name)
        for partition in self.partitions:
            if partition.lane == lane and partition.wanted_back:
                partition.wanted_back = False
                self.assign(self.partitions.index(partition))
        self.lane_left.set()
        self.lane_left = anyio.Event()

    @asynccontextmanager
    async def _opened(self, partition: MemoryPartition, generation: int) -> AsyncGenerator["MemoryLane", None]:
        yield MemoryLane(partition, generation)

    def _say(self, change: Granted | Leaving | Gone) -> None:
        self.changes.append(change)
        self._news.set()
        self._news = anyio.Event()


class MemoryLane:
    """An open partition of a MemoryGroup."""

    def __init__(self, partition: MemoryPartition, generation: int) -> None:
        self.id = partition.lane
        self.resumed = partition.committed
        self._partition, self._generation = partition, generation
        self._next = partition.committed.through[0] + 1 if partition.committed and partition.committed.through else 0

    def owned(self) -> bool:
        """See Lane."""
        return self._generation == self._partition.generation

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        partition = self._partition
        with anyio.move_on_after(wait):
            while True:
                self._check()
                if records := partition.records[self._next : self._next + limit]:
                    self._next += len(records)
                    behind = len(partition.records) - self._next
                    return Chunk(records, through=records[-1].at, more=behind > 0, lag_records=behind)
                await partition.news.wait()
        return Chunk(lag_records=0, lag_seconds=partition.lag_seconds)

    def _check(self) -> None:
        if not self.owned():
            raise LaneLost(f"Lane {self.id} is somebody else's now.")
        if (error := self._partition.read_error) is not None:
            self._partition.read_error = None
            raise error

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """See Lane."""
        return records

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        if not self.owned():
            raise LaneLost(f"Lane {self.id} is somebody else's now.")
        if mark is not None:
            self._partition.on_commit(self.id, mark)
            self._partition.committed = mark
            if mark.through is not None:
                self._partition.commits.append(mark.through)

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """See Lane: what is not settled is read again by whoever comes next."""

    async def flush(self) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        if not self.owned():
            raise LaneLost(f"Lane {self.id} is somebody else's now.")
