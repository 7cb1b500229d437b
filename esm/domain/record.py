"""What a source hands over: records, chunks, and the marks that say how far a lane is settled."""

from collections.abc import Sequence

from msgspec import Struct

Position = tuple[int, int]
"""(position, sub): sequence number or offset, and the index inside an aggregate; compared as numbers."""


class LaneId(Struct, frozen=True, gc=False):
    """One unit of order: a queue, a shard or a partition of one mapping."""

    mapping: str
    """Name of the mapping."""
    name: str
    """Within its source: ``orders`` (queue), ``shardId-000000000006``, ``payments-0`` (topic and partition)."""

    def __str__(self) -> str:
        return f"{self.mapping}/{self.name}"


class Record(Struct, frozen=True, gc=False):
    """One record, with its entry of the event already encoded; an adapter makes it, nothing changes it."""

    lane: LaneId
    position: int
    """Sequence number, offset, or (queues) a receive counter that only grows."""
    sub: int
    """Above 0 only for the user records of an aggregate."""
    id: str
    """The item identifier a report names; may repeat in a batch (aggregates)."""
    key: bytes | None
    """Order key inside the lane; None where any order will do."""
    arrived_at: float
    """Epoch seconds at which the source took the record."""
    entry: bytes
    """The record's JSON object in the event, UTF-8."""
    receives: int = 0
    """Queues: how often the message was received, this time included; elsewhere 0."""
    handle: object = None
    """What only the adapter needs (a receipt handle, raw headers)."""

    @property
    def at(self) -> Position:
        """(position, sub): the record's place in its lane."""
        return (self.position, self.sub)

    @property
    def size(self) -> int:
        """Bytes of its entry in the event."""
        return len(self.entry)


class LaneEnd(Struct, frozen=True):
    """A shard was read to its end; ``children`` are the lane names that may start once it is settled."""

    children: tuple[str, ...] = ()


class Gap(Struct, frozen=True):
    """A range that left the source before it was read: after ``after``, before ``before`` (None = not known)."""

    after: Position | None
    before: Position | None


class OpenBatch(Struct, frozen=True):
    """The attempts already spent on a batch that is not settled; a batch that begins at ``first`` inherits them."""

    first: Position
    last: Position
    failures: int
    request_id: str


class Mark(Struct, frozen=True):
    """What a lane remembers between owners and restarts."""

    through: Position | None
    """The contiguous settled prefix, inclusive; None = nothing settled yet."""
    above: tuple[tuple[Position, Position], ...] = ()
    """Settled ranges above it, inclusive, at most 100; more are dropped and read again."""
    attempts: tuple[OpenBatch, ...] = ()
    """One per open batch."""
    ended: LaneEnd | None = None
    """Set once the lane is settled to its end."""


class Chunk(Struct, frozen=True):
    """One answer of a source: what crosses an ``await``, never a single record."""

    records: Sequence[Record] = ()
    """Oldest first."""
    through: Position | None = None
    """Where reading got to; passes gaps, markers and continuation numbers behind the last record.  None for queues."""
    more: bool = False
    """The source has more right now: read again without waiting."""
    lag_records: int | None = None
    """Records still unread in the source, where it says so."""
    lag_seconds: float | None = None
    """How far behind the tip of the lane this chunk was read, where the source says so."""
    ended: LaneEnd | None = None
    """Nothing will ever follow."""
    gap: Gap | None = None
    """A range was lost before it could be read."""
