"""Which batches of a lane may run side by side, and when the next one is ready (delivery-semantics 1, 3.2)."""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from esm.domain.batch import Batch, BatchLimits, closes_at, fitting
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


def _take(waiting: deque[Record], limits: BatchLimits) -> list[Record]:
    head = list(islice(waiting, limits.records))
    count = fitting(head, limits)
    for _ in range(count):
        waiting.popleft()
    return head[:count]


def _full(waiting: deque[Record], limits: BatchLimits) -> bool:
    """Whether count or bytes close the batch before its window does."""
    if len(waiting) >= limits.records:
        return True
    return fitting(list(waiting), limits) < len(waiting)


class SharedLanes:
    """A standard queue: any record may go with any other, up to ``limit`` batches at once; one window gathers."""

    def __init__(self, lane: LaneId, limits: BatchLimits, limit: int) -> None:
        self._lane, self._limits, self._limit = lane, limits, limit
        self._waiting: deque[Record] = deque()
        self._first = 0.0  # when the oldest waiting record came
        self.running = 0

    @property
    def waiting(self) -> int:
        """See SubLanes."""
        return len(self._waiting)

    def room(self) -> int:
        """See SubLanes."""
        free = self._limit - self.running
        return max(0, free * self._limits.records - len(self._waiting)) if free > 0 else 0

    def put(self, records: Sequence[Record], now: float) -> None:
        """See SubLanes."""
        if not self._waiting:
            self._first = now
        self._waiting.extend(records)

    def ready(self, now: float) -> list[Batch]:
        """See SubLanes."""
        batches: list[Batch] = []
        while self._waiting and self.running < self._limit:
            if now < self._first + self._limits.window and not _full(self._waiting, self._limits):
                break
            batches.append(Batch(self._lane, _take(self._waiting, self._limits)))
            self._first = now  # what stays behind opens the next window
            self.running += 1
        return batches

    def ended(self, batch: Batch, now: float) -> None:
        """See SubLanes."""
        self.running -= 1

    def next_time(self) -> float | None:
        """See SubLanes."""
        return self._first + self._limits.window if self._waiting and self.running < self._limit else None

    def drop(self) -> Sequence[Record]:
        """See SubLanes."""
        dropped = list(self._waiting)
        self._waiting.clear()
        return dropped


class _One:
    """One sub-lane: at most one batch at a time, in order."""

    def __init__(self) -> None:
        self.waiting: deque[Record] = deque()
        self.first = 0.0
        self.resumed = float("-inf")
        self.busy = False


class KeyedLanes:
    """An ordered lane in ``count`` sub-lanes: one key is never in two batches at once.

    A key is bound to a sub-lane only while it has unsettled records there, and goes to the emptiest when it comes
    anew, so that load spreads.  With one sub-lane the whole lane keeps its order.
    """

    def __init__(self, lane: LaneId, limits: BatchLimits, count: int = 1) -> None:
        self._lane, self._limits = lane, limits
        self._lanes = [_One() for _ in range(count)]
        self._bound: dict[bytes | None, tuple[_One, int]] = {}

    @property
    def waiting(self) -> int:
        """See SubLanes."""
        return sum(len(one.waiting) for one in self._lanes)

    @property
    def running(self) -> int:
        """See SubLanes."""
        return sum(one.busy for one in self._lanes)

    def room(self) -> int:
        """See SubLanes.  While a batch of each sub-lane waits behind the running one, nothing more is read."""
        return max(0, len(self._lanes) * self._limits.records - self.waiting)

    def put(self, records: Sequence[Record], now: float) -> None:
        """See SubLanes."""
        if len(self._lanes) == 1:
            self._put(self._lanes[0], records, now)
            return
        for record in records:
            one, held = self._bound.get(record.key) or (self._emptiest(), 0)
            self._bound[record.key] = (one, held + 1)
            self._put(one, (record,), now)

    def _emptiest(self) -> _One:
        return min(self._lanes, key=lambda one: len(one.waiting) + one.busy * self._limits.records)

    def _put(self, one: _One, records: Sequence[Record], now: float) -> None:
        if not one.waiting:
            one.first = now
        one.waiting.extend(records)

    def ready(self, now: float) -> list[Batch]:
        """See SubLanes."""
        batches: list[Batch] = []
        for index, one in enumerate(self._lanes):
            if one.busy or not one.waiting:
                continue
            if now < self._closes(one) and not _full(one.waiting, self._limits):
                continue
            batches.append(Batch(self._lane, _take(one.waiting, self._limits), index))
            one.busy = True
            one.first = now
        return batches

    def _closes(self, one: _One) -> float:
        return closes_at(one.first, one.resumed, self._limits.window)

    def ended(self, batch: Batch, now: float) -> None:
        """See SubLanes."""
        one = self._lanes[batch.sublane]
        one.busy, one.resumed = False, now
        if len(self._lanes) > 1:
            for record in batch.records:
                self._unbind(record.key)

    def _unbind(self, key: bytes | None) -> None:
        one, held = self._bound[key]
        if held == 1:
            del self._bound[key]
        else:
            self._bound[key] = (one, held - 1)

    def next_time(self) -> float | None:
        """See SubLanes."""
        return min((self._closes(one) for one in self._lanes if one.waiting and not one.busy), default=None)

    def drop(self) -> Sequence[Record]:
        """See SubLanes."""
        dropped = [record for one in self._lanes for record in one.waiting]
        for one in self._lanes:
            one.waiting.clear()
        self._bound.clear()
        return dropped
