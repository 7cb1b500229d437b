"""Who may invoke now: a worker has so many invocations in all, and a target may reserve some of them for itself."""

from collections.abc import Sequence

import anyio


class Slots:
    """The slots one mapping takes before it invokes, always in the same order; held only while a target is invoked."""

    def __init__(self, *pools: anyio.Semaphore) -> None:
        self._pools: Sequence[anyio.Semaphore] = pools

    async def take(self) -> None:
        """Wait for a slot of each pool.  Cancelled it holds none; else ``give_back`` must follow."""
        held: list[anyio.Semaphore] = []
        try:
            for pool in self._pools:
                await pool.acquire()
                held.append(pool)
        except anyio.get_cancelled_exc_class():
            for pool in held:
                pool.release()
            raise

    def give_back(self) -> None:
        """Free what ``take`` got."""
        for pool in self._pools:
            pool.release()


class SlotPools:
    """The invocations of one worker: what targets reserve is carved out of ``concurrency``, the rest is shared."""

    def __init__(self, concurrency: int) -> None:
        self._free = concurrency
        self._shared: anyio.Semaphore | None = None
        self._reserved: dict[str, anyio.Semaphore] = {}

    def reserve(self, target: str, count: int) -> None:
        """Set ``count`` invocations aside for ``target``: guaranteed, and its most.  To be called before any ``of``."""
        if target not in self._reserved:
            self._free -= count
            self._reserved[target] = _pool(count)

    def of(self, target: str, cap: int | None = None) -> Slots:
        """The slots for a mapping of ``target``; ``cap`` is the most the mapping itself may run at once."""
        own = [] if cap is None else [_pool(cap)]
        return Slots(*own, self._reserved.get(target) or self._shared_pool())

    @property
    def shared(self) -> int:
        """Invocations that targets without a reservation share."""
        return max(0, self._free)

    def _shared_pool(self) -> anyio.Semaphore:
        if self._shared is None:
            self._shared = _pool(self.shared)
        return self._shared


def _pool(count: int) -> anyio.Semaphore:
    return anyio.Semaphore(count, fast_acquire=True)  # a free slot costs no turn of the loop
