"""Which batches of a lane may run side by side, and when the next one is ready (delivery-semantics 1, 3.2)."""

from collections.abc import Sequence
from typing import Protocol

from esm.domain.batch import Batch, BatchLimits, Gathering, closes_at
from esm.domain.record import LaneId, Record


class SubLanes(Protocol):
    """Records that wait for a batch, and batches that run; ``now`` is in seconds of ``Instant.elapsed``."""

    @property
    def waiting(self) -> int:
        """Records that are in no batch yet."""
        ...

    @property
    def running(self) -> int:
        """Batches handed out and not ended."""
        ...

    def room(self) -> int:
        """How many more records the next batches lack; 0 = do not read now."""
        ...

    def put(self, records: Sequence[Record], now: float) -> None:
        """Records were read, oldest first."""
        ...

    def ready(self, now: float) -> list[Batch]:
        """Take out the batches that may start now."""
        ...

    def ended(self, batch: Batch, now: float) -> None:
        """Every record of ``batch`` is settled or left: its sub-lane is free again."""
        ...

    def next_time(self) -> float | None:
        """When a window closes that would make a batch ready; None = only a read or the end of a batch can."""
        ...

    def drop(self) -> Sequence[Record]:
        """Take out all that is in no batch, at a stop."""
        ...


class SharedLanes:
    """A standard queue: any record may go with any other, up to ``limit`` batches at once; one window gathers."""

    def __init__(self, lane: LaneId, limits: BatchLimits, limit: int) -> None:
        self._lane, self._limits, self._limit = lane, limits, limit
        self._gathering = Gathering(limits)
        self.running = 0

    @property
    def waiting(self) -> int:
        """See SubLanes."""
        return len(self._gathering)

    def room(self) -> int:
        """See SubLanes."""
        free = self._limit - self.running
        return max(0, free * self._limits.records - len(self._gathering)) if free > 0 else 0

    def put(self, records: Sequence[Record], now: float) -> None:
        """See SubLanes."""
        self._gathering.put(records, now)

    def ready(self, now: float) -> list[Batch]:
        """See SubLanes."""
        batches: list[Batch] = []
        while self._gathering and self.running < self._limit and (self._gathering.full or now >= self._closes()):
            batches.append(Batch(self._lane, self._gathering.take()))
            self.running += 1
        return batches

    def _closes(self) -> float:
        return self._gathering.first + self._limits.window

    def ended(self, batch: Batch, now: float) -> None:
        """See SubLanes."""
        self.running -= 1

    def next_time(self) -> float | None:
        """See SubLanes."""
        return self._closes() if self._gathering and self.running < self._limit else None

    def drop(self) -> Sequence[Record]:
        """See SubLanes."""
        return self._gathering.take_all()


class _One:
    """One sub-lane: at most one batch at a time, in order."""

    def __init__(self, limits: BatchLimits) -> None:
        self.gathering = Gathering(limits)
        self.window = limits.window
        self.resumed = float("-inf")
        self.busy = False

    def ready(self, now: float) -> bool:
        return not self.busy and len(self.gathering) > 0 and (self.gathering.full or now >= self.closes())

    def closes(self) -> float:
        return closes_at(self.gathering.first, self.resumed, self.window)


class KeyedLanes:
    """An ordered lane in ``count`` sub-lanes: one key is never in two batches at once.

    A key is bound to a sub-lane only while it has unsettled records there, and goes to the emptiest when it comes
    anew, so that load spreads; a record without a key always does.  With one sub-lane the whole lane keeps its order.
    """

    def __init__(self, lane: LaneId, limits: BatchLimits, count: int = 1) -> None:
        self._lane, self._limits = lane, limits
        self._lanes = [_One(limits) for _ in range(count)]
        self._loads = [0] * count  # per sub-lane: records that wait or run; not kept for a single one
        self._bound: dict[bytes | None, list[int]] = {}  # key: its sub-lane, and how many records hold it there

    @property
    def waiting(self) -> int:
        """See SubLanes."""
        return sum([len(one.gathering) for one in self._lanes])

    @property
    def running(self) -> int:
        """See SubLanes."""
        return sum([one.busy for one in self._lanes])

    def room(self) -> int:
        """See SubLanes.  While a batch of each sub-lane waits behind the running one, nothing more is read."""
        return max(0, len(self._lanes) * self._limits.records - self.waiting)

    def put(self, records: Sequence[Record], now: float) -> None:
        """See SubLanes."""
        if len(self._lanes) == 1:
            self._lanes[0].gathering.put(records, now)
            return
        for one, share in zip(self._lanes, self._shares(records), strict=True):
            one.gathering.put(share, now)

    def _shares(self, records: Sequence[Record]) -> list[list[Record]]:
        """Deal ``records`` out to the sub-lanes, and bind their keys."""
        shares: list[list[Record]] = [[] for _ in self._lanes]
        bound, loads = self._bound, self._loads
        for record in records:
            key = record.key
            binding = bound.get(key)
            if binding is not None:
                index = binding[0]
                binding[1] += 1
            else:
                index = loads.index(min(loads))
                if key is not None:
                    bound[key] = [index, 1]
            loads[index] += 1
            shares[index].append(record)
        return shares

    def ready(self, now: float) -> list[Batch]:
        """See SubLanes."""
        batches: list[Batch] = []
        for index, one in enumerate(self._lanes):
            if one.ready(now):
                batches.append(Batch(self._lane, one.gathering.take(), index))
                one.busy = True
        return batches

    def ended(self, batch: Batch, now: float) -> None:
        """See SubLanes."""
        one = self._lanes[batch.sublane]
        one.busy, one.resumed = False, now
        self._unbind(batch.sublane, batch.records)

    def _unbind(self, index: int, records: Sequence[Record]) -> None:
        if len(self._lanes) == 1:
            return
        self._loads[index] -= len(records)
        bound = self._bound
        for record in records:
            if (key := record.key) is None:
                continue
            binding = bound[key]
            if binding[1] == 1:
                del bound[key]
            else:
                binding[1] -= 1

    def next_time(self) -> float | None:
        """See SubLanes."""
        return min((one.closes() for one in self._lanes if one.gathering and not one.busy), default=None)

    def drop(self) -> Sequence[Record]:
        """See SubLanes.  Keys of running batches stay bound until these end."""
        dropped: list[Record] = []
        for index, one in enumerate(self._lanes):
            taken = one.gathering.take_all()
            self._unbind(index, taken)
            dropped += taken
        return dropped
