"""A shard that is ours by a lease, as a ``ports.Lane``."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from esm.domain.leasing import Start
from esm.domain.record import Chunk, LaneId, Mark, Position, Record
from esm.engine.lease_keeper import Held, LeaseKeeper
from esm.ports import ShardReader


def start_of(held: Held) -> Start:
    """Where a reader of this lease begins: behind the settled prefix, else where the lease says."""
    mark = held.mark
    return Start(after=mark.through) if mark and mark.through is not None else held.lease.start


class LeasedLane:
    """One open shard; ``on_end`` is called when it was settled to its end."""

    def __init__(
        self, lane: LaneId, held: Held, keeper: LeaseKeeper, reader: ShardReader, on_end: Callable[[], None]
    ) -> None:
        self.id = lane
        self.resumed = held.mark
        self._held, self._keeper, self._reader, self._on_end = held, keeper, reader, on_end
        self._above: Sequence[tuple[Position, Position]] = held.mark.above if held.mark else ()

    def owned(self) -> bool:
        """See Lane."""
        return self._keeper.owned(self._held)

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See Lane.  What an earlier owner settled above its contiguous prefix is left out."""
        self._keeper.check(self._held)
        chunk = await self._reader.read(limit, size, wait)
        if self._above and chunk.records:
            chunk = self._without_settled(chunk)
        return chunk

    def _without_settled(self, chunk: Chunk) -> Chunk:
        kept = [record for record in chunk.records if not _within(record.at, self._above)]
        last = chunk.records[-1].at
        if last >= self._above[-1][1]:
            self._above = ()
        return replace(chunk, records=kept, through=max(last, chunk.through or last))

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """See Lane: a shard's records stay usable."""
        return records

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """See Lane: notes the mark, which is stored within a second; the end of the shard lets its children start."""
        if mark is None:
            self._keeper.check(self._held)
            return
        self._keeper.note(self._held, mark)
        if mark.ended is not None:
            self._on_end()

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """See Lane: what is not settled is read again by whoever comes next."""

    async def flush(self) -> None:
        """See Lane."""
        await self._keeper.flush(self._held)


def _within(at: Position, ranges: Sequence[tuple[Position, Position]]) -> bool:
    return any(first <= at <= last for first, last in ranges)
