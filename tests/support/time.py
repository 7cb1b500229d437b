"""Time that jumps: on trio by a clock, on asyncio by a selector.  An hour's wait takes no time at all."""

import asyncio
import selectors
from collections.abc import Mapping, Sequence

import anyio
import trio

from esm.domain.instant import Instant

EPOCH = 1_767_222_000.0
"""What epoch clocks show when a jumping clock starts: 2025-12-31T23:00:00Z."""


class JumpClock(trio.abc.Clock):
    """A clock of trio that skips every wait; nothing that it drives may use threads."""

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Seconds since the start."""
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to ``deadline`` when nothing can run before it."""
        if deadline == float("inf"):
            return 999_999
        self.now = max(self.now, deadline)
        return 0


class _JumpSelector(selectors.SelectSelector):
    """Skips every wait that would end by time."""

    jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout if timeout is None else 0)
        if not ready and timeout:
            self.jumped += timeout
        return ready


class JumpLoop(asyncio.SelectorEventLoop):
    """A loop of asyncio that skips every wait."""

    def __init__(self) -> None:
        self._jumps = _JumpSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        """Seconds since the start."""
        return self._jumps.jumped


Backend = tuple[str, Mapping[str, object]]


def jumping(name: str) -> Backend:
    """What the fixture ``anyio_backend`` gives for a backend whose time jumps; a new clock each time."""
    return (name, {"clock": JumpClock()} if name == "trio" else {"loop_factory": JumpLoop})


BACKENDS: Sequence[str] = ("trio", "asyncio")


class LoopClock:
    """``ports.Clock`` on the time of the loop; ``skip`` is a suspended machine: time that no timer saw."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def instant(self) -> Instant:
        """Now."""
        now = anyio.current_time() + self._skipped
        return Instant(now, EPOCH + now)

    def skip(self, seconds: float) -> None:
        """Let the machine sleep."""
        self._skipped += seconds
