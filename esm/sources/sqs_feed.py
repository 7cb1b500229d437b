"""The one lane of a queue, granted again whenever it was left."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from esm.domain.record import LaneId
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock, Gone, Granted, Lane, Leaving

_GRANT_AGAIN = Backoff(base=1, cap=60)
"""After the lane was left: it failed, or its pipeline did."""
_STEADY_SECONDS = 60.0
"""A lane that stayed open for so long has not failed in a row."""


class QueueFeed:
    """A ``ports.LaneFeed``: a queue needs no lease, so its lane is ours from the start."""

    def __init__(self, lane: LaneId, make: Callable[[], Lane], clock: Clock, jitter: Jitter) -> None:
        self._lane, self._make, self._clock, self._jitter = lane, make, clock, jitter
        self._free = anyio.Event()
        self._free.set()
        self._due = float("-inf")
        self._granted_at = 0.0
        self._left_in_a_row = 0

    async def change(self) -> Granted | Leaving | Gone:
        """See LaneFeed."""
        await self._free.wait()
        await anyio.sleep(max(0.0, self._due - self._now()))
        self._free = anyio.Event()
        self._granted_at = self._now()
        return Granted(self._lane, self._open())

    async def left(self, lane: LaneId) -> None:
        """See LaneFeed."""
        await anyio.lowlevel.checkpoint()
        now = self._now()
        if now - self._granted_at >= _STEADY_SECONDS:
            self._left_in_a_row = 0
        self._left_in_a_row += 1
        self._due = now + _GRANT_AGAIN.delay(self._left_in_a_row, self._jitter)
        self._free.set()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Lane, None]:
        yield self._make()

    def _now(self) -> float:
        return self._clock.instant().elapsed
