"""Leases in memory that fail, hang and lose replies as a test says."""

from collections.abc import Mapping, Sequence

import anyio

from esm.domain.errors import LeaseStoreFailed
from esm.domain.leasing import Lease, NewLease
from esm.domain.record import Mark
from esm.leases.memory import MemoryLeases


class FaultyLeases(MemoryLeases):
    """A LeaseStore whose faults are attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: str | None = None
        """A sentence: every call raises it and does nothing."""
        self.lost_replies = 0
        """So many calls do their work and fail then."""
        self.hanging = False
        """Every call waits without end, before it does anything."""
        self.slow = 0.0
        """Seconds that every call takes, before it does anything."""
        self.fails_after: int | None = None
        """So many rows are created, then the rest of the call fails."""
        self.kept: list[tuple[float, Mapping[str, Mark | None]]] = []
        """When leases were kept, and the marks that came along."""

    async def leases(self, app: str) -> Sequence[Lease]:
        """See LeaseStore."""
        await self._before()
        return await super().leases(app)

    async def create(self, app: str, leases: Sequence[NewLease]) -> None:
        """See LeaseStore."""
        await self._before()
        if self.fails_after is not None:
            await super().create(app, leases[: self.fails_after])
            raise LeaseStoreFailed("The worker died here.")
        await super().create(app, leases)
        self._after()

    async def take(self, seen: Lease, owner: str) -> Lease | None:
        """See LeaseStore."""
        await self._before()
        taken = await super().take(seen, owner)
        self._after()
        return taken

    async def keep(self, held: Mapping[str, tuple[Lease, Mark | None]]) -> Mapping[str, Lease | None]:
        """See LeaseStore."""
        await self._before()
        kept = await super().keep(held)
        self.kept.append((anyio.current_time(), {key: mark for key, (_, mark) in held.items()}))
        self._after()
        return kept

    async def finish(self, held: Lease, mark: Mark, children: Sequence[NewLease]) -> Lease | None:
        """See LeaseStore."""
        await self._before()
        finished = await super().finish(held, mark, children)
        self._after()
        return finished

    async def give_up(self, held: Lease) -> None:
        """See LeaseStore."""
        await self._before()
        await super().give_up(held)
        self._after()

    async def _before(self) -> None:
        if self.hanging:
            await anyio.sleep_forever()
        await anyio.sleep(self.slow)
        if self.failing is not None:
            raise LeaseStoreFailed(self.failing)

    def _after(self) -> None:
        if self.lost_replies:
            self.lost_replies -= 1
            raise LeaseStoreFailed("The reply was lost.")
