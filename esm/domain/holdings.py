"""What a lane has read and not yet settled: how far the contiguous prefix reaches, how much memory it holds."""

from collections import OrderedDict
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
        """These need no more work; each is settled once."""
        ...

    def mark(self) -> Mark | None:
        """What the lane may remember now; None for queues, which remember by themselves."""
        ...


_Range = tuple[Position, Position]
_Place = tuple[int, Position | None, Position, Record]
"""A held record: its number in the order of reading, the places read right before and after it, the record itself."""


class LaneProgress:
    """Holdings of an ordered lane, in the order of reading.

    Only what is unsettled is kept, so that one stuck record costs no memory for all that is settled behind it.  What
    lies between two held records is settled if their numbers are not neighbours.
    """

    def __init__(self, resumed: Mark | None = None) -> None:
        # An OrderedDict finds its first entry at once; a dict would look at every deleted place before it.
        self._held: OrderedDict[Position, _Place] = OrderedDict()
        self._tip: Position | None = resumed.through if resumed else None  # where reading got to
        self._last: Position | None = None  # the last record read; its successor is not known yet
        self._read = 0
        self._inherited: Sequence[_Range] = resumed.above if resumed else ()
        self.size = 0

    @property
    def count(self) -> int:
        """See Holdings."""
        return len(self._held)

    @property
    def oldest(self) -> float | None:
        """See Holdings.  The first in order: arrival times grow along a lane."""
        for *_, record in self._held.values():
            return record.arrived_at
        return None

    def took(self, chunk: Chunk) -> None:
        """See Holdings."""
        if chunk.records:
            self._hold(chunk.records)
        if chunk.through is not None and (self._tip is None or chunk.through > self._tip):
            self._tip = chunk.through

    def _hold(self, records: Sequence[Record]) -> None:
        ats = [(record.position, record.sub) for record in records]
        if self._last is not None and self._last in self._held:
            number, before, _, record = self._held[self._last]
            self._held[self._last] = (number, before, ats[0], record)
        numbers = range(self._read, self._read + len(ats))
        befores = [self._tip, *ats[:-1]]
        afters = [*ats[1:], ats[-1]]
        self._held.update(zip(ats, zip(numbers, befores, afters, records, strict=True), strict=True))
        self._read += len(ats)
        self._tip = self._last = ats[-1]
        self.size += sum([len(record.entry) for record in records])

    def settled(self, records: Sequence[Record]) -> None:
        """See Holdings."""
        held = self._held
        for record in records:
            del held[record.position, record.sub]
        self.size -= sum([len(record.entry) for record in records])

    def mark(self) -> Mark | None:
        """See Holdings; None while nothing is settled at all.  The end of a lane is its pipeline's to add."""
        through, missing = self._tip, 0
        for number, before, _, _ in self._held.values():  # the first one alone
            through, missing = before, self._read - number - len(self._held)
            break
        above = self._above(missing) if missing else ()
        if self._inherited:
            above = self._with_inherited(through, above)
        return Mark(through, above=above) if through is not None or above else None

    def _above(self, missing: int) -> tuple[_Range, ...]:
        """Settled ranges behind the first held record, which hold ``missing`` records; the first hundred."""
        ranges: list[_Range] = []
        places = iter(self._held.values())
        last, _, after, _ = next(places)
        for number, before, following, _ in places:
            if number - last > 1:
                assert before is not None  # a record was read before this one
                ranges.append((after, before))
                missing -= number - last - 1
                if not missing or len(ranges) == MOST_RANGES:
                    return tuple(ranges)
            last, after = number, following
        assert self._tip is not None  # records were read
        ranges.append((after, self._tip))
        return tuple(ranges)

    def _with_inherited(self, through: Position | None, above: Sequence[_Range]) -> tuple[_Range, ...]:
        """``above`` and what an earlier owner had settled: the lane does not hand that out again."""
        if through is not None:
            self._inherited = [known for known in self._inherited if known[1] > through]
        merged: list[_Range] = []
        for first, last in sorted([*self._inherited, *above]):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return tuple(merged[:MOST_RANGES])


class QueueHoldings:
    """Holdings of a queue: no order and no prefix."""

    def __init__(self) -> None:
        self._held: dict[int, Record] = {}  # by position: a counter of receives, no two are the same
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
            self._held[record.position] = record
            self.size += len(record.entry)

    def settled(self, records: Sequence[Record]) -> None:
        """See Holdings.  Also for messages that are left to their visibility: neither settled nor pending."""
        for record in records:
            del self._held[record.position]
            self.size -= len(record.entry)

    def mark(self) -> Mark | None:
        """Always None."""
        return None
