"""Messages that are made as they are received and forgotten as they are deleted: a backlog that takes no memory."""

from esm.sandbox.messages import Message
from esm.sandbox.world import World


class Supply:
    """``total`` messages of about ``size`` bytes; ``rate`` of them arrive each second from now on, or all at once.

    A body is ``{"n": index, "pad": …}``.  Only what a queue has in flight exists.
    """

    def __init__(self, world: World, total: int, *, size: int = 1024, rate: float | None = None) -> None:
        self._world = world
        self._total = total
        self._rate = rate
        self._start = world.clock.now()
        self._pad = "x" * max(0, size - 24)
        self.made = 0
        """Messages so far that were received at least once."""

    def waiting(self, now: float) -> int:
        """How many have arrived and were not yet made."""
        return self._arrived(now) - self.made

    def due(self, now: float) -> float:
        """The moment at which the next one can be had (``now``: at once); infinity when none will come."""
        if self.made == self._total:
            return float("inf")
        return now if self.made < self._arrived(now) else self._arrival(self.made)

    def take(self, limit: int, now: float) -> list[Message]:
        """Up to ``limit`` messages that have arrived."""
        count = min(limit, self.waiting(now))
        made = [self._make(index) for index in range(self.made, self.made + count)]
        self.made += count
        return made

    def _make(self, index: int) -> Message:
        body = f'{{"n": {index}, "pad": "{self._pad}"}}'
        return Message(id=self._world.uuid(), body=body, sent_at=self._arrival(index))

    def _arrived(self, now: float) -> int:
        if self._rate is None:
            return self._total
        # One that arrives right now must count, however its arrival was rounded.
        return min(self._total, int((now - self._start) * self._rate + 1e-6))

    def _arrival(self, index: int) -> float:
        return self._start if self._rate is None else self._start + (index + 1) / self._rate
