"""What a lane has read and not yet settled: how far the contiguous prefix reaches, how much memory it holds."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from esm.domain.record import Chunk, Mark, Position, Record

MOST_RANGES = 100


class Holdings(Protocol):
    """Everything read from a lane and not yet settled or forgotten."""

    @property
    def count(self) -> int:
        """Records held."""
        ...

    @property
    def size(self) -> int:
        """Bytes of their entries."""
        ...

    @property
    def oldest(self) -> float | None:
        """Epoch seconds at which the oldest held record arrived; None = nothing is held."""
        ...

    def took(self, chunk: Chunk) -> None:
        """A read brought ``chunk``."""
        ...

    def settled(self, records: Sequence[Record]) -> None:
        """These need no more work."""
        ...

    def mark(self) -> Mark | None:
        """What the lane may remember now; None for queues, which remember by themselves."""
        ...


class LaneProgress:
    """Holdings of an ordered lane, in the order of reading."""

    def __init__(self, resumed: Mark | None = None) -> None:
        self._through: Position | None = resumed.through if resumed else None
        self._order: deque[tuple[Position, Record | None]] = deque()  # None: a place that holds no record
        self._settled: set[Position] = set()
        self.count = 0
        self.size = 0

    @property
    def oldest(self) -> float | None:
        """See Holdings.  The first in order: arrival times grow along a lane."""
        head = self._order[0][1] if self._order else None
        return head.arrived_at if head else None

    def took(self, chunk: Chunk) -> None:
        """See Holdings."""
        for record in chunk.records:
            self._order.append((record.at, record))
            self.size += len(record.entry)
        self.count += len(chunk.records)
        last = self._order[-1][0] if self._order else self._through
        if chunk.through is not None and (last is None or chunk.through > last):
            self._order.append((chunk.through, None))
            self._settled.add(chunk.through)
        self._advance()

    def settled(self, records: Sequence[Record]) -> None:
        """See Holdings."""
        self._settled.update([record.at for record in records])
        self.count -= len(records)
        self.size -= sum([len(record.entry) for record in records])
        self._advance()

    def _advance(self) -> None:
        order, settled = self._order, self._settled
        while order and order[0][0] in settled:
            self._through = order.popleft()[0]
            settled.discard(self._through)

    def mark(self) -> Mark | None:
        """See Holdings; None while nothing is settled at all."""
        if self._through is None and not self._settled:
            return None
        return Mark(self._through, above=self._above() if self._settled else ())

    def _above(self) -> tuple[tuple[Position, Position], ...]:
        """Settled ranges behind the first unsettled record; later ones than the first hundred are read again."""
        ranges: list[tuple[Position, Position]] = []
        first: Position | None = None
        last: Position | None = None
        for at, _ in self._order:
            if at in self._settled:
                first, last = first or at, at
            elif first is not None and last is not None:
                ranges.append((first, last))
                first = None
                if len(ranges) == MOST_RANGES:
                    return tuple(ranges)
        if first is not None and last is not None:
            ranges.append((first, last))
        return tuple(ranges)


class QueueHoldings:
    """Holdings of a queue: no order and no prefix."""

    def __init__(self) -> None:
        self._held: dict[Position, Record] = {}
        self.size = 0

    @property
    def count(self) -> int:
        """See Holdings."""
        return len(self._held)

    @property
    def oldest(self) -> float | None:
        """See Holdings."""
        return min((record.arrived_at for record in self._held.values()), default=None)

    def took(self, chunk: Chunk) -> None:
        """See Holdings."""
        for record in chunk.records:
            self._held[record.at] = record
            self.size += len(record.entry)

    def settled(self, records: Sequence[Record]) -> None:
        """See Holdings.  Also for messages that are left to their visibility: neither settled nor pending."""
        for record in records:
            del self._held[record.at]
            self.size -= len(record.entry)

    def mark(self) -> Mark | None:
        """Always None."""
        return None
