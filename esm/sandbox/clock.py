"""The time of the sandbox: the wall clock, or a test's own, that can be moved forward while calls wait on it."""

import asyncio
import contextlib
import time
from collections.abc import Callable


class SandboxClock:
    """Epoch seconds, and waits that end early when the clock is moved.

    ``source`` answers epoch seconds (default: the wall clock).  A source that jumps by itself wakes nobody: jump with
    ``advance``, which moves this clock and lets every long poll look again.
    """

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0
        self._sleepers: set[asyncio.Future[None]] = set()

    def now(self) -> float:
        """Epoch seconds."""
        return self._source() + self._offset

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``; whatever became due in between happens at the next look."""
        self._offset += seconds
        for sleeper in self._sleepers:
            finish(sleeper)

    async def wait(self, woken: asyncio.Future[None], until: float) -> None:
        """Return when ``woken`` is done, when the clock shows ``until``, or when it was moved; look again after it."""
        delay = max(0.0, until - self.now())
        timer = asyncio.get_running_loop().call_later(delay, finish, woken)
        self._sleepers.add(woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._sleepers.discard(woken)

    async def sleep(self, seconds: float) -> None:
        """Sleep ``seconds`` of this clock's time."""
        until = self.now() + seconds
        while self.now() < until:
            await self.wait(asyncio.get_running_loop().create_future(), until)


def finish(future: asyncio.Future[None]) -> None:
    """Wake whoever awaits ``future``; nothing if that happened already."""
    if not future.done():
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
            future.set_result(None)
