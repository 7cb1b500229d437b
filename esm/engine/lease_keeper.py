"""Keeps the leases of one mapping: renews them, writes checkpoints, notices when one is lost.

One writer serves each lease: a checkpoint is a renewal that carries a position.  The keeper runs in a task of its own
that no delivery can delay.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio
import structlog
from msgspec.structs import replace

from esm.domain.errors import LaneLost, LeaseStoreFailed
from esm.domain.leasing import Lease, NewLease
from esm.domain.record import Mark
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock, LeaseStore

log = structlog.get_logger()
T = TypeVar("T")

FAILOVER_SECONDS = 10.0
CHECKPOINT_SECONDS = 1.0
CLOSE_SECONDS = 5.0
_SAY_AGAIN_SECONDS = 60.0
_GIVE_UP_AGAIN = Backoff(base=0.2, cap=1)


class Held:
    """One lease that is ours until it is lost."""

    def __init__(self, lease: Lease, sent: float) -> None:
        self.lease = lease
        """As the store last answered it."""
        self.mark = lease.mark
        """The newest mark, stored or not."""
        self.dirty = False
        """Whether ``mark`` is yet to be stored."""
        self.sent = sent
        """When the last successful write was sent (elapsed): validity counts from before it, whatever it took."""
        self.lost: str | None = None
        """Why it is no longer ours."""
        self.finished = False
        """Its end is stored: nobody will ever write it again."""

    @property
    def ended(self) -> bool:
        """Settled to the end of the shard, whether that is stored or not."""
        return self.mark is not None and self.mark.ended is not None

    def storable(self) -> Mark | None:
        """The mark without the end of the shard, which ``finish`` writes after the children."""
        return replace(self.mark, ended=None) if self.mark and self.mark.ended else self.mark


class StoreHealth:
    """Says once that the lease store fails, and once that it works again."""

    def __init__(self, mapping: str, clock: Clock, backoff: Backoff, jitter: Jitter) -> None:
        self._mapping, self._clock, self._backoff, self._jitter = mapping, clock, backoff, jitter
        self._times = 0
        self._said_at = 0.0

    def failed(self, error: LeaseStoreFailed) -> float:
        """When to try again (elapsed)."""
        now = self._clock.instant().elapsed
        self._times += 1
        if self._times == 1 or now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            log.error("lease_store_failed", mapping=self._mapping, why=str(error), times=self._times)
        return now + self._backoff.delay(self._times, self._jitter)

    def works(self) -> None:
        """The store answered."""
        if self._times:
            log.info("lease_store_works_again", mapping=self._mapping, after_failures=self._times)
        self._times = 0


class LeaseKeeper:
    """The leases that one owner holds.  ``on_lost`` is called, in any task, right after one was lost."""

    def __init__(
        self,
        mapping: str,
        store: LeaseStore,
        owner: str,
        clock: Clock,
        jitter: Jitter,
        on_lost: Callable[[Held], None],
        failover: float = FAILOVER_SECONDS,
    ) -> None:
        self.held: dict[str, Held] = {}
        """By lease key."""
        self.owner = owner
        self._mapping, self._store, self._clock, self._jitter, self._on_lost = mapping, store, clock, jitter, on_lost
        self._failover = failover
        self._every = failover / 3
        # Short: a store that comes back just before the leases run out is still met in time.
        self.health = StoreHealth(mapping, clock, Backoff(base=failover / 20, cap=failover / 10), jitter)
        self._writing = anyio.Lock()
        self._changed = anyio.Event()
        self._taken = anyio.Event()
        self._checkpoint_at = float("-inf")
        self._retry_at = float("-inf")

    # -- what lanes ask

    def owned(self, held: Held) -> bool:
        """Whether the lease counts as ours by our own clock."""
        return held.finished or (held.lost is None and self._now() < held.sent + self._failover)

    def check(self, held: Held) -> None:
        """Raises LaneLost unless the lease counts as ours."""
        if not self.owned(held):
            why = held.lost or f"it could not be renewed for {self._failover:g} s"
            raise LaneLost(f"Lane {self._mapping}/{held.lease.shard} is no longer ours: {why}.")

    def note(self, held: Held, mark: Mark) -> None:
        """Store ``mark`` with the next checkpoint, within a second.  Raises LaneLost."""
        self.check(held)
        if held.finished:
            return
        held.mark = mark
        if not held.dirty:
            held.dirty = True
            self._changed.set()

    async def flush(self, held: Held) -> None:
        """Return once all that was noted is stored.  Raises LaneLost, LeaseStoreFailed."""
        async with self._writing:
            self.check(held)
            if held.dirty:
                await self._write([each for each in self.held.values() if each.dirty])  # others will ask next
                self.check(held)

    # -- what the feed asks

    async def take(self, seen: Lease) -> Held | None:
        """Become the owner of a free or stale lease; None = someone was quicker.  Raises LeaseStoreFailed."""
        sent = self._now()
        lease = await self._call(self._store.take(seen, self.owner))
        if lease is None:
            return None
        self.health.works()
        held = self.held[lease.key] = Held(lease, sent)
        self._changed.set()
        self._taken.set()
        return held

    async def finish(self, held: Held, mark: Mark, children: Sequence[NewLease]) -> bool:
        """Write the end of the shard and let go; False = the lease was lost meanwhile.  Raises LeaseStoreFailed."""
        async with self._writing:
            if held.lost is not None:
                return False
            if not self.owned(held) or await self._call(self._store.finish(held.lease, mark, children)) is None:
                self._lose(held, "another worker took it, or it ran out, before its end was written")
                return False
            held.finished, held.dirty = True, False
            self.held.pop(held.lease.key, None)
            return True

    # -- the tasks

    async def run(self) -> None:
        """Renew, write checkpoints and let go what ran out, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            await self._write_when_due()

    async def _watch(self) -> None:
        """Lose leases in time, even while the store keeps a write waiting."""
        while True:
            self._lose_expired()
            runs_out = min((held.sent + self._failover for held in self.held.values()), default=float("inf"))
            self._taken = anyio.Event()
            with anyio.move_on_after(runs_out - self._now()):
                await self._taken.wait()

    async def _write_when_due(self) -> None:
        while True:
            delay = self._due() - self._now()
            if delay > 0:
                self._changed = anyio.Event()
                with anyio.move_on_after(delay):
                    await self._changed.wait()
                continue
            try:
                await self._renew()
            except LeaseStoreFailed as error:
                self._retry_at = self.health.failed(error)

    def _due(self) -> float:
        """When the next write is due."""
        write = min((held.sent + self._every for held in self.held.values()), default=float("inf"))
        if any(held.dirty for held in self.held.values()):
            write = min(write, self._checkpoint_at + CHECKPOINT_SECONDS)
        return max(write, self._retry_at)

    async def _renew(self) -> None:
        async with self._writing:
            soon = self._now() + min(CHECKPOINT_SECONDS, self._every / 3)  # those that are due soon come along
            batch = [held for held in self.held.values() if held.dirty or held.sent + self._every <= soon]
            if batch:
                self._checkpoint_at = self._now()
                await self._write(batch)

    async def _write(self, batch: Sequence[Held]) -> None:
        """One write for all of ``batch``, with the marks that are not stored yet.  Raises LeaseStoreFailed."""
        sent = self._now()
        marks = {held.lease.key: held.mark for held in batch}
        answers = await self._call(
            self._store.keep({held.lease.key: (held.lease, held.storable() if held.dirty else None) for held in batch})
        )
        for held in batch:
            answer = answers.get(held.lease.key)
            if answer is None:
                self._lose(held, "another worker took it")
                continue
            held.sent = sent
            if held.mark is marks[answer.key]:  # none was noted while the write was under way
                held.dirty = False
            held.lease = answer
        self._retry_at = float("-inf")
        self.health.works()

    def _lose_expired(self) -> None:
        now = self._now()
        for held in [held for held in self.held.values() if now >= held.sent + self._failover]:
            self._lose(held, f"it could not be renewed for {self._failover:g} s")

    def _lose(self, held: Held, why: str) -> None:
        if held.lost is not None:  # it ran out while a write was under way
            return
        held.lost = why
        self.held.pop(held.lease.key, None)
        log.warning("lease_lost", mapping=self._mapping, shard=held.lease.shard, why=why)
        self._on_lost(held)

    async def _call(self, call: Awaitable[T]) -> T:
        """Await a write to its end even when cancelled: we must know the counter that it left behind."""
        limit = self._failover / 2
        with anyio.move_on_after(limit, shield=True):
            return await call
        raise LeaseStoreFailed(f"The lease store did not answer within {limit:g} s.")

    async def close(self) -> None:
        """A last checkpoint of everything, then give all leases up; tries for a few seconds."""
        why = f"the lease store took longer than {CLOSE_SECONDS:g} s"
        times = 0
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            self._lose_expired()
            while self.held:
                try:
                    await self._give_all_up()
                except LeaseStoreFailed as error:
                    why, times = str(error), times + 1
                    await anyio.sleep(_GIVE_UP_AGAIN.delay(times, self._jitter))
        if self.held:
            log.warning("leases_not_given_up", mapping=self._mapping, leases=len(self.held), why=why)

    async def _give_all_up(self) -> None:
        if dirty := [held for held in self.held.values() if held.dirty]:
            await self._write(dirty)
        for held in list(self.held.values()):
            await self._call(self._store.give_up(held.lease))
            del self.held[held.lease.key]
            held.lost = "it was given up"

    def _now(self) -> float:
        return self._clock.instant().elapsed
