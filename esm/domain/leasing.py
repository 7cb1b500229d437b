"""Leases of shards: where reading starts, which shards may start, which are finished (delivery-semantics 3.3)."""

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

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
    stream: str = ""
    """Name of the stream with its creation time or label: another text once it was deleted and made anew."""


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


class Starting(Struct, frozen=True):
    """`starting_position`: where a mapping begins that has no leases; with neither set at the horizon."""

    moment: float | None = None
    """AT_TIMESTAMP: epoch seconds."""
    latest: bool = False
    """LATEST: at the moment when the first leases are made."""


TRIM_HORIZON = Starting()
LATEST = Starting(latest=True)


def lease_key(app: str, shard: str) -> str:
    """Key of the lease of ``shard`` among those of ``app``."""
    return f"{app}/{shard}"


def owner_name(worker: str, process: int, nonce: str) -> str:
    """Who holds a lease: ``nonce`` is new at each start, so no owner is ever taken for an earlier one."""
    return f"{worker}/{process}/{nonce}"


def missing_leases(
    app: str, shards: Shards, leases: Sequence[Lease], starting: Starting, now: float
) -> Sequence[NewLease]:
    """The leases that ``shards`` need and ``leases`` (all of ``app``) lack, parents first; ``now`` in epoch seconds.

    A shard with a leased descendant gets none: it would be read after its children.  A shard whose parent is neither
    listed nor leased waits for a complete listing, since that parent may only be missing from this one.
    """
    return _Lineage(shards, leases, starting, now).missing(app)


class _Lineage:
    """Who descends from whom, and where each shard would start."""

    def __init__(self, shards: Shards, leases: Sequence[Lease], starting: Starting, now: float) -> None:
        self._shards = shards
        self._listed = {shard.id: shard for shard in shards.shards}
        self._leased = {lease.shard for lease in leases}
        self._parents = {lease.shard: lease.parents for lease in leases}
        self._parents.update((shard.id, shard.parents) for shard in shards.shards)
        self._have_children = {parent for parents in self._parents.values() for parent in parents}
        self._only_leaves = starting.latest and not leases
        # Where this app began is known by its leases, whatever the configuration says by now.  A worker that died while
        # it made the first leases left some out: they get the same moment, or records that came meanwhile were lost.
        moments = [lease.start.moment for lease in leases if lease.start.moment is not None]
        if moments or leases:
            self._start = Start(moment=min(moments, default=None))
        else:
            self._start = Start(moment=now if starting.latest else starting.moment)
        # A child of a lane that began at LATEST is younger than that moment, so all of it is new.  With AT_TIMESTAMP
        # the parent may have been closed before that time.
        self._heir_start = HORIZON if starting.latest else self._start

    def missing(self, app: str) -> Sequence[NewLease]:
        passed = self._with_leased_descendants()
        heirs = set(self._leased)
        held_back: set[str] = set()
        made: list[NewLease] = []
        for shard in self._parents_first():
            if shard.id in self._leased or shard.id in passed:
                continue
            if any(parent in held_back or self._may_be_hidden(parent) for parent in shard.parents):
                held_back.add(shard.id)
                continue
            start = self._start
            if not heirs.isdisjoint(shard.parents):
                heirs.add(shard.id)
                start = self._heir_start
            elif self._only_leaves and shard.id in self._have_children:
                continue
            made.append(NewLease(lease_key(app, shard.id), shard.id, start, shard.parents))
        return made

    def _parents_first(self) -> Sequence[Shard]:
        order = TopologicalSorter({shard.id: shard.parents for shard in self._shards.shards}).static_order()
        return [self._listed[shard] for shard in order if shard in self._listed]

    def _with_leased_descendants(self) -> set[str]:
        found: set[str] = set()
        waiting = [parent for shard in self._leased for parent in self._parents[shard]]
        while waiting:
            shard = waiting.pop()
            if shard not in found:
                found.add(shard)
                waiting += self._parents.get(shard, ())
        return found

    def _may_be_hidden(self, shard: str) -> bool:
        return not self._shards.complete and shard not in self._listed and shard not in self._leased


def readable(shards: Shards, leases: Sequence[Lease]) -> Sequence[Lease]:
    """Those of ``leases`` (all of an app) whose shard may be read now: every parent is settled to its end, or gone.

    A parent without a lease is gone if a complete listing lacks it; one that is listed was left out on purpose.
    """
    by_shard = {lease.shard: lease for lease in leases}
    listed = {shard.id for shard in shards.shards}

    def passed(parent: str) -> bool:
        lease = by_shard.get(parent)
        return lease.ended if lease else shards.complete or parent in listed

    return [lease for lease in leases if not lease.ended and all(passed(parent) for parent in lease.parents)]


def trimmed(shards: Shards, leases: Sequence[Lease]) -> Sequence[Lease]:
    """Leases that were not settled to the end when their shard left the source: what it still held is lost."""
    listed = {shard.id for shard in shards.shards}
    return [lease for lease in leases if shards.complete and not lease.ended and lease.shard not in listed]


def finished(shards: Shards, leases: Sequence[Lease]) -> Sequence[Lease]:
    """Leases that nobody needs any more: settled to the end, and the shard is no longer listed.

    While it is listed its lease stays: it says that the shard was read.
    """
    listed = {shard.id for shard in shards.shards}
    return [lease for lease in leases if shards.complete and lease.ended and lease.shard not in listed]


def heirs(shard: str, leases: Sequence[Lease], missing: Sequence[NewLease]) -> Sequence[NewLease]:
    """The leases of the children of ``shard``, whether they exist already or are missing: what ends its own lease."""
    known = [NewLease(lease.key, lease.shard, lease.start, lease.parents) for lease in leases]
    return [lease for lease in (*known, *missing) if shard in lease.parents]


class Watch:
    """Since when the counter of each lease stands still, by this worker's own clock: clocks are never compared."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: Mapping[str, tuple[int, float]] = {}

    def see(self, leases: Sequence[Lease], now: float) -> None:
        """``leases`` are all of the app, as read from the store at ``now`` (elapsed)."""
        before = self._seen
        self._seen = {
            lease.key: known if (known := before.get(lease.key)) and known[0] == lease.counter else (lease.counter, now)
            for lease in leases
        }

    def stale(self, lease: Lease, now: float) -> bool:
        """Whether the owner of ``lease`` was silent for longer than our patience, seconds; False when first seen."""
        counter, since = self._seen.get(lease.key, (lease.counter, now))
        return counter == lease.counter and now - since > self._patience
