"""A stream of shards in memory: for tests and the simulation.  It splits, merges, trims and fails as it is told."""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import msgspec

from esm.domain.errors import LaneFailed, NotReady
from esm.domain.leasing import Shard, Shards, Start
from esm.domain.record import Chunk, Gap, LaneEnd, LaneId, Position, Record


class MemoryShard:
    """One shard with all that it holds."""

    def __init__(self, lane: LaneId, parents: tuple[str, ...]) -> None:
        self.lane = lane
        self.parents = parents
        self.children: tuple[str, ...] = ()
        self.closed = False
        self.records: list[Record] = []
        self.positions: list[int] = []
        self.trimmed_through = 0
        """Position of the last record that was trimmed; 0 = none."""
        self.news = anyio.Event()
        self.reads = 0
        """How often it was read, empty answers included."""


class MemoryStream:
    """A ShardSource.  Sequence numbers count up over all shards."""

    def __init__(self, mapping: str, shards: int = 1, name: str = "memory:1") -> None:
        self.mapping = mapping
        self.name = name
        self.complete = True
        """False: listings say that they have holes."""
        self.hidden: set[str] = set()
        """Shards that listings leave out."""
        self.not_ready: str | None = None
        """A sentence: ``discover`` raises it."""
        self.unreadable: str | None = None
        """A sentence: every read raises LaneFailed with it."""
        self.listings = 0
        """How often ``discover`` was called."""
        self.shards: dict[str, MemoryShard] = {}
        self._sequence = 0
        self._made = 0
        for _ in range(shards):
            self._make(())

    # -- what happens to the stream

    def put(self, shard: str, data: str, key: str = "", arrived_at: float = 0.0) -> Record:
        """Append a record to an open shard."""
        into = self.shards[shard]
        if into.closed:
            raise ValueError(f"{shard} is closed")
        self._sequence += 1
        entry = msgspec.json.encode({"shard": shard, "sequence": self._sequence, "key": key, "data": data})
        record = Record(into.lane, self._sequence, 0, str(self._sequence), key.encode() or None, arrived_at, entry)
        into.records.append(record)
        into.positions.append(record.position)
        self._tell(into)
        return record

    def split(self, shard: str) -> tuple[str, str]:
        """Close a shard; answers its two children."""
        names = (self._make((shard,)), self._make((shard,)))
        self._close(shard, names)
        return names

    def merge(self, left: str, right: str) -> str:
        """Close two shards; answers their child."""
        child = self._make((left, right))
        for parent in (left, right):
            self._close(parent, (child,))
        return child

    def close(self, shard: str) -> None:
        """Close a shard without children, as a disabled stream does."""
        self._close(shard, ())

    def trim(self, shard: str, through: int) -> None:
        """Forget the records of a shard up to a position."""
        found = self.shards[shard]
        count = bisect_right(found.positions, through)
        del found.records[:count], found.positions[:count]
        found.trimmed_through = max(found.trimmed_through, through)

    def remove(self, shard: str) -> None:
        """Forget a shard with all that it holds."""
        self._tell(self.shards.pop(shard))

    def _make(self, parents: tuple[str, ...]) -> str:
        name = f"shardId-{self._made:012d}"
        self._made += 1
        self.shards[name] = MemoryShard(LaneId(self.mapping, name), parents)
        return name

    def _close(self, shard: str, children: tuple[str, ...]) -> None:
        found = self.shards[shard]
        found.closed, found.children = True, children
        self._tell(found)

    def _tell(self, shard: MemoryShard) -> None:
        shard.news.set()
        shard.news = anyio.Event()

    # -- ShardSource

    async def discover(self) -> Shards:
        """See ShardSource."""
        await anyio.lowlevel.checkpoint()
        self.listings += 1
        if self.not_ready is not None:
            raise NotReady(self.not_ready)
        shown = [
            Shard(name, shard.parents, shard.closed) for name, shard in self.shards.items() if name not in self.hidden
        ]
        return Shards(shown, self.complete, self.name)

    @asynccontextmanager
    async def open(self, shard: str, start: Start) -> AsyncGenerator["MemoryReader", None]:
        """See ShardSource."""
        await anyio.lowlevel.checkpoint()
        yield MemoryReader(self, shard, start)


class MemoryReader:
    """A ShardReader."""

    def __init__(self, stream: MemoryStream, shard: str, start: Start) -> None:
        self._stream, self._shard, self._moment = stream, shard, start.moment
        self._after: Position | None = start.after

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See ShardReader."""
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(wait):
            while True:
                shard = self._readable()
                if (chunk := self._next(shard, limit)) is not None:
                    return chunk
                await shard.news.wait()
        return Chunk(lag_seconds=0.0)

    def _readable(self) -> MemoryShard:
        found = self._stream.shards.get(self._shard)
        if self._stream.unreadable is not None:
            raise LaneFailed(self._stream.unreadable)
        if found is None:
            raise LaneFailed(f"Shard {self._shard} of stream {self._stream.name} does not exist.")
        found.reads += 1
        return found

    def _next(self, shard: MemoryShard, limit: int) -> Chunk | None:
        gap = None
        after = self._after[0] if self._after else 0
        if self._after and after < shard.trimmed_through:
            gap = Gap(self._after, (shard.positions[0], 0) if shard.positions else None)
            after = shard.trimmed_through
        first = bisect_right(shard.positions, after)
        if self._moment is not None and self._after is None:
            first = max(first, bisect_left(shard.records, self._moment, key=_arrived_at))
        records = shard.records[first : first + limit]
        more = first + limit < len(shard.records)
        ended = LaneEnd(shard.children) if shard.closed and not more else None
        if not records and ended is None and gap is None:
            return None
        if records:
            self._after = records[-1].at
        elif gap is not None:
            self._after = (after, 0)
        return Chunk(records, through=self._after, more=more, lag_seconds=None if more else 0.0, ended=ended, gap=gap)


def _arrived_at(record: Record) -> float:
    return record.arrived_at
