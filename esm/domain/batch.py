"""When a batch is full, and when its window closes (delivery-semantics 1)."""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from esm.domain.record import LaneId, Record

EVENT_BYTES = 6_291_456
"""The largest event a target is sent, in bytes of its UTF-8 JSON (6 MB)."""


class BatchLimits(Struct, frozen=True):
    """What closes a batch."""

    records: int
    """`batch_size`."""
    window: float
    """`maximum_batching_window_in_seconds`; 0 sends what one read brought at once."""
    overhead: int
    """Bytes of an event without its records and their separators."""
    size: int = EVENT_BYTES
    """Bytes of the whole event."""


class Batch(Struct, frozen=True):
    """Records that one attempt sends together: never empty, oldest first."""

    lane: LaneId
    records: Sequence[Record]
    sublane: int = 0
    """Which of the lane's sub-lanes it occupies until it ends."""


def fitting(records: Sequence[Record], limits: BatchLimits) -> int:
    """How many of ``records``, from the first, make the next batch: at least 1 of a non-empty sequence.

    The record that would overflow opens the next batch (delivery-semantics 1).  A single record that overflows by
    itself is a batch of one, and the delivery machine says what becomes of it.
    """
    size = limits.overhead
    most = min(len(records), limits.records)
    for index in range(most):
        size += len(records[index].entry)
        if size > limits.size and index:
            return index
        size += 1  # the comma before the next
    return most


class Gathering:
    """Records that wait for their batch, oldest first, with their bytes and the times at which they came.

    Each answer costs the same however many wait, but ``take``, which costs what it takes out.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._records: deque[Record] = deque()
        self._came: deque[tuple[int, float]] = deque()  # per put: how many of them still wait, and when they came
        self._size = 0  # bytes of their entries with a comma behind each

    def __len__(self) -> int:
        return len(self._records)

    @property
    def first(self) -> float:
        """When the oldest came, in seconds of ``Instant.elapsed``; there must be one."""
        return self._came[0][1]

    @property
    def full(self) -> bool:
        """Whether count or bytes close the batch before its window does."""
        size = self._limits.overhead + self._size - 1
        return len(self._records) >= self._limits.records or size >= self._limits.size

    def put(self, records: Sequence[Record], now: float) -> None:
        """``records`` came at ``now``."""
        if records:
            self._records.extend(records)
            self._came.append((len(records), now))
            self._size += _size(records)

    def take(self) -> list[Record]:
        """Take out the next batch, never empty while records wait."""
        limits, waiting = self._limits, self._records
        head = [waiting.popleft() for _ in range(min(len(waiting), limits.records))]
        if limits.overhead + _size(head) - 1 > limits.size:
            count = fitting(head, limits)
            waiting.extendleft(reversed(head[count:]))
            del head[count:]
        self._size -= _size(head)
        self._forget(len(head))
        return head

    def take_all(self) -> list[Record]:
        """Take out all that waits."""
        taken = list(self._records)
        self._records.clear()
        self._came.clear()
        self._size = 0
        return taken

    def _forget(self, count: int) -> None:
        while count:
            many, when = self._came.popleft()
            if many > count:
                self._came.appendleft((many - count, when))
                return
            count -= many


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.entry) for record in records]) + len(records)


def closes_at(first: float, resumed: float, window: float) -> float:
    """When the window of an ordered lane closes; all three in seconds of ``Instant.elapsed``.

    It starts right after the previous batch ended (``resumed``) when the first record came within one window of that,
    else with the first record: AWS sent 1+2 and 3+4 at once and 5 alone 4.99 s later (delivery-semantics 1, recorded).
    """
    start = resumed if first - resumed < window else first
    return start + window
