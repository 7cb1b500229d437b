"""When a batch is full, and when its window closes (delivery-semantics 1)."""

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
        size += len(records[index].entry) + 1  # the comma; counting one too many for the last is on the safe side
        if size - 1 > limits.size and index:
            return index
    return most


def closes_at(first: float, resumed: float, window: float) -> float:
    """When the window of an ordered lane closes; all three in seconds of ``Instant.elapsed``.

    It starts right after the previous batch ended (``resumed``) when the first record came within one window of that,
    else with the first record: AWS sent 1+2 and 3+4 at once and 5 alone 4.99 s later (delivery-semantics 1, recorded).
    """
    start = resumed if first - resumed < window else first
    return start + window
