"""Who may invoke now: a worker has so many invocations in all, and a target may reserve some of them for itself."""

import anyio


class Slots:
    """The slots one mapping takes from, one for each attempt; held only while a target is invoked."""

    def __init__(self, pool: anyio.Semaphore) -> None:
        self._pool = pool

    async def take(self) -> None:
        """Wait for a slot.  Cancelled it holds none; else ``give_back`` must follow."""
        await self._pool.acquire()

    def give_back(self) -> None:
        """Free what ``take`` got."""
        self._pool.release()


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

    def of(self, target: str) -> Slots:
        """The slots for a mapping of ``target``; what the mapping itself may run at once its sub-lanes bound."""
        return Slots(self._reserved.get(target) or self._shared_pool())

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
