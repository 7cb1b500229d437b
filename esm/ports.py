"""The contracts between the engine and the world.

The engine calls these and knows nothing else; an adapter fulfils them and knows nothing of the engine.  Opening and
closing belong to an adapter's async context manager: what exists is open.  Times are seconds, sizes bytes; due times
and deadlines are ``Instant.elapsed``, ages and arrival times epoch.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from esm.domain.discarded import Discarded
from esm.domain.instant import Instant
from esm.domain.leasing import Lease, NewLease, Shards, Start
from esm.domain.outcome import Outcome
from esm.domain.record import Chunk, LaneId, Mark, Record


class Clock(Protocol):
    """The time of this machine."""

    def instant(self) -> Instant:
        """Now.  After each sleep ask again: a laptop may have been suspended meanwhile."""
        ...


class Lane(Protocol):
    """An open lane: an SQS queue, a partition of a group, a leased shard."""

    @property
    def id(self) -> LaneId:
        """Mapping and name of this lane."""
        ...

    @property
    def resumed(self) -> Mark | None:
        """What an earlier owner remembered; None for queues and for a lane that was never settled."""
        ...

    def owned(self) -> bool:
        """Whether the lane is still ours by our own clock; asked right before each invoke and each write."""
        ...

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """One reply of the source: up to ``limit`` records and about ``size`` bytes, oldest first.

        Empty after ``wait`` seconds without any.  Pacing, retries of throttles, 5xx, timeouts and expired iterators
        are the lane's own.  A soft stop does not cancel the receive of a queue, whose answer may already be under way;
        it cancels all others, so they must be able to read the same again.
        Raises LaneFailed when the source stays unreadable, LaneLost when the lane belongs to someone else.
        """
        ...

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """Those of ``records`` that may still be sent by an attempt of ``seconds``: queues drop dead receipts.

        Returns ``records`` itself where all are usable.
        """
        ...

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """Never hand ``records`` out again: queues delete them (mark None), others note the mark.

        Cheap for lanes with marks, which are written once a second.  Raises LaneLost if the lane is no longer ours.
        """
        ...

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """Give back records that no attempt holds, visible again after ``delay`` seconds.

        Twice is harmless; where the source does not allow it they are left alone and that is logged once.
        """
        ...

    async def flush(self) -> None:
        """Return once all settled so far is durable: before leaving.  Raises LaneLost, LeaseStoreFailed."""
        ...


class Granted(Struct, frozen=True):
    """This lane is ours to read from now on; entering ``lane`` opens it."""

    id: LaneId
    lane: AbstractAsyncContextManager[Lane]


class Leaving(Struct, frozen=True):
    """Stop reading this lane, end what is in flight by ``deadline`` (elapsed), then say ``left``."""

    id: LaneId
    deadline: float


class Gone(Struct, frozen=True):
    """This lane is no longer ours: drop everything, write nothing."""

    id: LaneId


class LaneFeed(Protocol):
    """Which lanes are ours, as it changes."""

    async def change(self) -> Granted | Leaving | Gone:
        """Wait for the next change; safe to cancel.  A lane that was left and is still ours is granted again."""
        ...

    async def left(self, lane: LaneId) -> None:
        """The lane's pipeline has ended: lets a revocation, hand-over or stop go on."""
        ...


class AttemptLimits(Struct, frozen=True):
    """What a source allows an attempt."""

    visibility: float | None = None
    """Queues: seconds after which a received message comes back; None = attempts may take as long as they like."""


class Source(Protocol):
    """One mapping's source, before it is reached."""

    def connect(self) -> AbstractAsyncContextManager[tuple[LaneFeed, AttemptLimits]]:
        """Reach the source and check that it is there.  Entering raises NotReady with the sentence for an operator."""
        ...


class ShardReader(Protocol):
    """One shard, open at a position."""

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """As ``Lane.read``; an expired iterator is renewed after the last position *read*.

        Raises LaneFailed when the shard stays unreadable.
        """
        ...


class ShardSource(Protocol):
    """Kinesis or DynamoDB Streams; the engine joins it with a LeaseStore to a LaneFeed."""

    async def discover(self) -> Shards:
        """All shards that are listed now, with parents; ``complete=False`` while the listing has holes.

        Raises NotReady when the stream is missing, denied or out of reach.
        """
        ...

    def open(self, shard: str, start: Start) -> AbstractAsyncContextManager[ShardReader]:
        """Read ``shard`` from ``start``.  The shard's lane name is its id."""
        ...


class LeaseStore(Protocol):
    """Conditional writes; a lost reply is settled by reading back owner, counter and content.

    ``app`` is the prefix all lease keys of one mapping and stream share.  Every method raises LeaseStoreFailed.
    """

    async def leases(self, app: str) -> Sequence[Lease]:
        """All leases of ``app``; foreign rows are skipped, a lease whose owner is known to be dead is shown as free."""
        ...

    async def others(self, app: str) -> int:
        """How many positions (leases with a mark) are not of ``app``: what a start without any may have meant."""
        ...

    async def create(self, app: str, leases: Sequence[NewLease]) -> None:
        """Create those that are absent, in this order: parents first."""
        ...

    async def take(self, seen: Lease, owner: str) -> Lease | None:
        """Become the owner if nothing changed since ``seen``; None = someone was quicker."""
        ...

    async def keep(self, held: Mapping[str, tuple[Lease, Mark | None]]) -> Mapping[str, Lease | None]:
        """Renew leases by key, with or without a checkpoint; None = lost, nothing was written for it.

        A lease as it was before the last write of its owner is still his: that reply was lost.
        """
        ...

    async def finish(self, held: Lease, mark: Mark, children: Sequence[NewLease]) -> Lease | None:
        """Create the children, then write the end mark and free the lease; repeatable.  None = lost."""
        ...

    async def give_up(self, held: Lease) -> None:
        """Free the lease if it is still held as ``held`` says."""
        ...

    async def delete(self, seen: Lease) -> bool:
        """Remove a lease that nobody owns and that did not change since ``seen``; False = it did."""
        ...


class TimeLimit(Struct, frozen=True):
    """How long an attempt of a target may take."""

    seconds: float
    """After this many seconds the attempt has failed."""
    required: float | None = None
    """What a queue's visibility must cover: the function's own or a configured timeout; None = may be shortened."""


class Invocation(Struct, frozen=True):
    """One attempt."""

    event: bytes
    """UTF-8 JSON."""
    request_id: str
    """Kept over plain retries, new for a suffix or a piece."""
    seconds: float
    """After this many seconds the attempt has failed."""
    trace: str
    """`X-Amzn-Trace-Id`."""


class Target(Protocol):
    """Where batches go.  Never retries, never raises for what the target did."""

    @property
    def function_arn(self) -> str:
        """The ARN failure records name, qualifier included."""
        ...

    @property
    def role(self) -> str | None:
        """ARN of the role it runs as, known once ``time_limit`` was asked; None where it has none or does not tell."""
        ...

    async def time_limit(self) -> TimeLimit:
        """How long an attempt may take.  Raises NotReady where it is known to be missing or misconfigured."""
        ...

    async def invoke(self, call: Invocation) -> Outcome:
        """Send the event once.  Cancelling gives the attempt up; what it did at the target is unknown then."""
        ...


class Destination(Protocol):
    """Where discarded records are kept."""

    async def store(self, what: Discarded) -> None:
        """Write one failure record.  Raises DestinationUnavailable or DestinationRejected."""
        ...
