"""Joins a ShardSource and a LeaseStore to a Source: takes leases, grants lanes, ends them."""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import structlog
from msgspec.structs import replace

from esm.domain.errors import LeaseStoreFailed, NotReady
from esm.domain.leasing import (
    Lease,
    NewLease,
    Shards,
    Starting,
    Watch,
    finished,
    heirs,
    missing_leases,
    readable,
)
from esm.domain.record import LaneEnd, LaneId, Mark
from esm.domain.retry import Backoff, Jitter
from esm.engine.lease_keeper import FAILOVER_SECONDS, Held, LeaseKeeper
from esm.engine.leased_lane import LeasedLane, start_of
from esm.engine.shard_listing import ShardListing
from esm.ports import AttemptLimits, Clock, Gone, Granted, LaneFeed, LeaseStore, Leaving, ShardSource
from esm.telemetry.metrics import MappingMetrics

log = structlog.get_logger()

_GRANT_AGAIN = Backoff(base=1, cap=60)
"""After a lane was left: it failed, or its pipeline did."""
_STEADY_SECONDS = 60.0
"""A lane that stayed open for so long has not failed in a row."""
_SCAN_SECONDS = 1.0
"""How often leases are looked at while another owner holds one that we could read."""
_CHILDREN_TRIES = 5
"""Listings that may lack the children of an ended shard before its end is written without them."""


class LeasedSource:
    """A ``ports.Source`` of shards.  ``uuid`` is the mapping's; ``owner`` names this process and start."""

    def __init__(
        self,
        mapping: str,
        uuid: str,
        source: ShardSource,
        store: LeaseStore,
        owner: str,
        starting: Starting,
        clock: Clock,
        jitter: Jitter,
        metrics: MappingMetrics,
        failover: float = FAILOVER_SECONDS,
    ) -> None:
        self._mapping, self._uuid, self._source, self._store, self._owner = mapping, uuid, source, store, owner
        self._starting, self._clock, self._jitter = starting, clock, jitter
        self._metrics, self._failover = metrics, failover

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[LaneFeed, AttemptLimits], None]:
        """See Source.  Leaving writes the last checkpoints and gives all leases up."""
        shards = await self._source.discover()
        feed = ShardFeed(
            self._mapping,
            f"{self._uuid}/{shards.stream}",
            self._source,
            self._store,
            self._owner,
            self._starting,
            self._clock,
            self._jitter,
            self._metrics,
            self._failover,
            shards,
        )
        raised: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    tasks.start_soon(feed.keeper.run)  # before the first leases are taken: that may take a while
                    await feed.begin()
                    tasks.start_soon(feed.run)
                    yield feed, AttemptLimits()
                except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it
                    raised = error
                tasks.cancel_scope.cancel()
        finally:
            await feed.keeper.close()
        if raised is not None:
            raise raised


class _Place:
    """One lane that we hold."""

    def __init__(self, lane: LaneId, held: Held) -> None:
        self.lane = lane
        self.held = held
        self.granted_at = float("-inf")
        self.due = float("-inf")
        """When it may be granted (elapsed)."""
        self.left_in_a_row = 0
        self.trimmed = False
        self.over_since: int | None = None
        """Number of the listing that was the last one when it was found to be over."""
        self.looked_at = 0
        """Number of the listing in which its children were looked for."""

    @property
    def named(self) -> Sequence[str]:
        """Its children, as far as its reader named them at the end."""
        return self.held.mark.ended.children if self.held.mark and self.held.mark.ended else ()


class ShardFeed:
    """The lanes of one mapping, as leases come and go: a ``ports.LaneFeed``."""

    def __init__(
        self,
        mapping: str,
        app: str,
        source: ShardSource,
        store: LeaseStore,
        owner: str,
        starting: Starting,
        clock: Clock,
        jitter: Jitter,
        metrics: MappingMetrics,
        failover: float,
        first: Shards,
    ) -> None:
        self.keeper = LeaseKeeper(mapping, store, owner, clock, jitter, self._on_lost, failover)
        self._mapping, self._app, self._source, self._store, self._owner = mapping, app, source, store, owner
        self._starting, self._clock, self._jitter, self._metrics = starting, clock, jitter, metrics
        self._listing = ShardListing(mapping, source, clock, jitter, first)
        self._watch = Watch(failover)
        self._places: dict[str, _Place] = {}  # by shard
        self._with_engine: set[str] = set()  # granted and not left, even if lost meanwhile
        self._changes: deque[Granted | Leaving | Gone] = deque()
        self._news = anyio.Event()
        self._wake = anyio.Event()
        self._failure: Exception | None = None
        self._scan_at = self._retry_at = float("-inf")

    # -- LaneFeed

    async def change(self) -> Granted | Leaving | Gone:
        """See LaneFeed.  Raises what made the feed itself fail."""
        await anyio.lowlevel.checkpoint()
        while not self._changes:
            if self._failure is not None:
                raise self._failure
            self._news = anyio.Event()
            await self._news.wait()
        return self._changes.popleft()

    async def left(self, lane: LaneId) -> None:
        """See LaneFeed.  A lane that is still ours is granted again, after a longer wait each time it is left soon."""
        await anyio.lowlevel.checkpoint()
        self._with_engine.discard(lane.name)
        place = self._places.get(lane.name)
        if place is not None:
            now = self._now()
            place.left_in_a_row = 1 if now - place.granted_at > _STEADY_SECONDS else place.left_in_a_row + 1
            place.due = now + _GRANT_AGAIN.delay(place.left_in_a_row, self._jitter)
        self._wake.set()

    # -- the task

    async def begin(self) -> None:
        """Make the leases of the shards that are listed first and take those that are free.  Raises NotReady."""
        try:
            await self._scan(first=True)
        except LeaseStoreFailed as error:
            raise NotReady(str(error)) from error

    async def run(self) -> None:
        """Follow shards and leases until cancelled; an unexpected error comes out of ``change``."""
        try:
            while True:
                self._wake = anyio.Event()  # before the round: what happens during it may call for another one
                await self._tend()
                delay = self._due() - self._now()
                if delay > 0:
                    with anyio.move_on_after(delay):
                        await self._wake.wait()
                else:
                    await anyio.lowlevel.checkpoint()
        except Exception as error:  # noqa: BLE001 - handed to the mapping, whose task is another one
            self._failure = error
            self._news.set()

    async def _tend(self) -> None:
        """One round: list, scan, end, grant, each if it is due."""
        if self._now() >= self._retry_at:
            try:
                if self._now() >= self._listing.due:
                    await self._list()
                await self._end_lanes()
                if self._now() >= self._scan_at:
                    await self._scan()
                if not self.keeper.held:  # else its writes tell whether the store works
                    self.keeper.health.works()
            except LeaseStoreFailed as error:
                self._retry_at = self.keeper.health.failed(error)
                self._scan_at = self._retry_at
        self._grant()

    def _due(self) -> float:
        grants = [place.due for place in self._places.values() if self._grantable(place)]
        return min(max(self._retry_at, min(self._listing.due, self._scan_at)), *grants, float("inf"))

    async def _list(self) -> None:
        if await self._listing.ask():
            self._scan_at = self._now()

    # -- leases

    async def _scan(self, first: bool = False) -> None:
        """Read all leases; make those that are missing, take what may be ours, delete what is finished."""
        self._scan_at = float("inf")  # the next listing, unless something calls for another scan meanwhile
        leases = await self._store.leases(self._app)
        if first and not leases:
            await self._say_where_it_starts()
        if new := missing_leases(self._app, self._listing.shards, leases, self._starting, self._clock.instant().epoch):
            await self._store.create(self._app, new)
            leases = await self._store.leases(self._app)
        self._watch.see(leases, self._now())
        lost = self._listing.surely_trimmed(leases)
        waiting = any(lease.owner not in (None, self._owner) for lease in leases)
        for lease in (*readable(self._listing.shards, leases), *lost):
            if lease.shard not in self._places:
                waiting = not await self._take(lease) or waiting
        for lease in lost:
            self._note_trimmed(lease)
        for lease in finished(self._listing.shards, leases):
            await self._store.delete(lease)
        if waiting:
            self._scan_at = min(self._scan_at, self._now() + _SCAN_SECONDS)

    async def _say_where_it_starts(self) -> None:
        """A mapping that was renamed finds no position either: where others are known, that is worth a warning."""
        others = await self._store.others(self._app)
        say = log.warning if others else log.info
        hint = {"hint": "A mapping that was renamed keeps its positions if its uuid is pinned."} if others else {}
        starting = _said(self._starting)
        say("no_position_found", mapping=self._mapping, starting=starting, other_positions=others, **hint)

    async def _take(self, lease: Lease) -> bool:
        """Take a lease that is free, stale or left over from ourselves."""
        if lease.owner not in (None, self._owner) and not self._watch.stale(lease, self._now()):
            return False
        held = await self.keeper.take(lease)
        if held is None:
            return False
        self._places[lease.shard] = _Place(LaneId(self._mapping, lease.shard), held)
        return True

    def _note_trimmed(self, lease: Lease) -> None:
        """What the shard still held is lost: say so, and let its children start once nobody reads it any more."""
        place = self._places.get(lease.shard)
        if place is None or place.trimmed:
            return
        place.trimmed = True
        self._metrics.expired.inc()
        log.error(
            "shard_left_the_source_unread",
            mapping=self._mapping,
            shard=lease.shard,
            settled_through=str(lease.mark.through[0]) if lease.mark and lease.mark.through else None,
        )

    # -- the end of lanes

    async def _end_lanes(self) -> None:
        """Write the end of shards that were settled to it; their children are granted in the next scan."""
        over = [place for place in self._places.values() if self._over(place)]
        for place in over:
            place.over_since = self._listing.number if place.over_since is None else place.over_since
        if not all(self._listed_since(place) for place in over) and self._may_list():
            await self._list()
        over = [place for place in over if self._listed_since(place) and place.looked_at < self._listing.number]
        if not over:
            return
        leases = await self._store.leases(self._app)
        new = missing_leases(self._app, self._listing.shards, leases, self._starting, self._clock.instant().epoch)
        for place in over:
            if (children := heirs(place.lane.name, leases, new)) or self._childless(place):
                await self._end(place, children)
            place.looked_at = self._listing.number
        self._scan_at = self._now()

    def _over(self, place: _Place) -> bool:
        return place.held.ended or (place.trimmed and place.lane.name not in self._with_engine)

    def _listed_since(self, place: _Place) -> bool:
        """Whether its children can be known: listed after its end was read, or all that its reader named."""
        if place.over_since is not None and self._listing.number > place.over_since:
            return True
        return bool(place.named) and self._listing.shows(place.named)

    def _may_list(self) -> bool:
        return not self._listing.failing or self._now() >= self._listing.due

    def _childless(self, place: _Place) -> bool:
        """Whether to believe that a shard has no children: its stream is disabled, or goes away."""
        seen = self._listing.number - (place.over_since or 0)
        return self._listing.shards.complete or seen >= _CHILDREN_TRIES

    async def _end(self, place: _Place, children: Sequence[NewLease]) -> None:
        names = tuple(child.shard for child in children)
        mark = replace(place.held.mark or Mark(None), ended=LaneEnd(names))
        if await self.keeper.finish(place.held, mark, children):
            log.info("shard_finished", mapping=self._mapping, shard=place.lane.name, children=names)
            self._places.pop(place.lane.name, None)
            if not self._listing.shows(place.named):  # the reader knew them first
                self._listing.again_soon()

    def _on_end(self) -> None:
        self._wake.set()

    # -- granting

    def _grant(self) -> None:
        now = self._now()
        for place in self._places.values():
            if self._grantable(place) and place.due <= now:
                place.granted_at = now
                self._with_engine.add(place.lane.name)
                self._say(Granted(place.lane, self._opened(place)))

    def _grantable(self, place: _Place) -> bool:
        return place.lane.name not in self._with_engine and not place.held.ended and not place.trimmed

    @asynccontextmanager
    async def _opened(self, place: _Place) -> AsyncGenerator[LeasedLane, None]:
        self.keeper.check(place.held)
        async with self._source.open(place.lane.name, start_of(place.held)) as reader:
            yield LeasedLane(place.lane, place.held, self.keeper, reader, self._on_end)

    def _on_lost(self, held: Held) -> None:
        """The keeper lost a lease: whoever reads it is told, unless it was not even granted."""
        place = self._places.get(held.lease.shard)
        if place is None or place.held is not held:
            return
        del self._places[held.lease.shard]
        pending = [change for change in self._changes if isinstance(change, Granted) and change.id == place.lane]
        if pending:
            self._changes.remove(pending[0])
            self._with_engine.discard(place.lane.name)
        elif place.lane.name in self._with_engine:
            self._say(Gone(place.lane))
        self._scan_at = self._now()
        self._wake.set()

    def _say(self, change: Granted | Leaving | Gone) -> None:
        self._changes.append(change)
        self._news.set()

    def _now(self) -> float:
        return self._clock.instant().elapsed


def _said(starting: Starting) -> str:
    if starting.latest:
        return "LATEST"
    return "TRIM_HORIZON" if starting.moment is None else f"AT_TIMESTAMP {starting.moment:g}"
