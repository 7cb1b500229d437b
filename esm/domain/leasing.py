"""Leases of shards: where reading starts, which shards may start, which are finished (delivery-semantics 3.3)."""

from collections.abc import Sequence

from msgspec import Struct

from esm.domain.record import Mark, Position


class Start(Struct, frozen=True):
    """Where reading of a shard begins; with neither set: at the oldest record the source still has."""

    after: Position | None = None
    """Behind this position."""
    moment: float | None = None
    """At the first record that arrived at or after this epoch second."""


HORIZON = Start()


class Shard(Struct, frozen=True):
    """One listed shard."""

    id: str
    parents: tuple[str, ...] = ()
    closed: bool = False
    first: int | None = None
    """Its first sequence number, where the source says so."""


class Shards(Struct, frozen=True):
    """A listing."""

    shards: Sequence[Shard]
    complete: bool = True
    """False while the listing has holes: nothing counts as gone then."""


class NewLease(Struct, frozen=True):
    """A lease to be created."""

    key: str
    shard: str
    start: Start
    parents: tuple[str, ...] = ()
    """Shard ids."""


class Lease(Struct, frozen=True):
    """One row of the lease store."""

    key: str
    shard: str
    counter: int
    """Rises by one with every write; the fence."""
    owner: str | None
    start: Start
    """Where reading begins while there is no mark."""
    mark: Mark | None
    parents: tuple[str, ...] = ()
    """Shard ids."""
    children: tuple[str, ...] = ()
    """Shard ids, written when its end is reached."""

    @property
    def ended(self) -> bool:
        """Settled to the end of the shard."""
        return self.mark is not None and self.mark.ended is not None
