"""Leases in memory: for tests, the simulation, and mappings that need not remember anything."""

from collections.abc import Mapping, Sequence

import anyio.lowlevel
from msgspec.structs import replace

from esm.domain.leasing import Lease, NewLease
from esm.domain.record import Mark


class MemoryLeases:
    """A LeaseStore for the workers of one process; it forgets all when the process ends."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, Lease]] = {}

    async def leases(self, app: str) -> Sequence[Lease]:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        return [lease for owner, lease in self._rows.values() if owner == app]

    async def others(self, app: str) -> int:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        return sum(owner != app and lease.mark is not None for owner, lease in self._rows.values())

    async def create(self, app: str, leases: Sequence[NewLease]) -> None:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        self._create(app, leases)

    def _create(self, app: str, leases: Sequence[NewLease]) -> None:
        for new in leases:
            fresh = Lease(new.key, new.shard, 0, None, new.start, None, new.parents)
            self._rows.setdefault(new.key, (app, fresh))

    async def take(self, seen: Lease, owner: str) -> Lease | None:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        found = self._current(seen.key)
        if found is None:
            return None
        if found.counter == seen.counter:
            return self._put(replace(found, owner=owner))
        return found if found.owner == owner and found.counter == seen.counter + 1 else None

    async def keep(self, held: Mapping[str, tuple[Lease, Mark | None]]) -> Mapping[str, Lease | None]:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        return {key: self._keep(lease, mark) for key, (lease, mark) in held.items()}

    def _keep(self, held: Lease, mark: Mark | None) -> Lease | None:
        found = self._ours(held)
        return self._put(replace(found, mark=mark or found.mark)) if found else None

    async def finish(self, held: Lease, mark: Mark, children: Sequence[NewLease]) -> Lease | None:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        found = self._current(held.key)
        if found is not None and found.ended and found.counter == held.counter + 1:
            return found
        found = self._ours(held)
        if found is None:
            return None
        self._create(self._rows[held.key][0], children)
        ended = replace(found, owner=None, mark=mark, children=tuple(child.shard for child in children))
        return self._put(ended)

    async def give_up(self, held: Lease) -> None:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        found = self._ours(held)
        if found is not None:
            self._put(replace(found, owner=None))

    async def delete(self, seen: Lease) -> bool:
        """See LeaseStore."""
        await anyio.lowlevel.checkpoint()
        found = self._current(seen.key)
        if found is None:
            return True
        if found.owner is not None or found.counter != seen.counter:
            return False
        del self._rows[seen.key]
        return True

    def _current(self, key: str) -> Lease | None:
        row = self._rows.get(key)
        return row[1] if row else None

    def _ours(self, held: Lease) -> Lease | None:
        """The row of ``held`` while its owner holds it: unchanged, or one write further when a reply was lost."""
        found = self._current(held.key)
        if found is None or held.owner is None or found.owner != held.owner:
            return None
        return found if found.counter in (held.counter, held.counter + 1) else None

    def _put(self, lease: Lease) -> Lease:
        app, _ = self._rows[lease.key]
        grown = replace(lease, counter=lease.counter + 1)
        self._rows[lease.key] = (app, grown)
        return grown
