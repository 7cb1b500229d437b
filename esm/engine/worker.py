"""All mappings of this process: they start together, share slots and memory, and stop softly, then hard."""

from collections.abc import Sequence

import anyio
import structlog

from esm.engine.mapping import Mapping
from esm.engine.status import MappingStatus
from esm.ports import Clock

log = structlog.get_logger()

GRACE_BEYOND_TIMEOUT_SECONDS = 25.0
"""What a soft stop needs beside the longest attempt: an open long poll of 20 s, and its deletes."""
UNKNOWN_TIMEOUT_SECONDS = 60.0
"""Taken for a mapping whose target was never asked how long an attempt may take."""


class Worker:
    """Runs mappings until it is told to stop.  ``grace`` is in seconds; None = the longest attempt + 25."""

    def __init__(self, mappings: Sequence[Mapping], clock: Clock, grace: float | None = None) -> None:
        self._mappings, self._clock, self._grace = mappings, clock, grace
        self._stop = anyio.Event()
        self._scope = anyio.CancelScope()
        self.stopping = False
        """Told to stop, and not ended yet."""

    def statuses(self) -> Sequence[MappingStatus]:
        """How each mapping is doing."""
        return [mapping.status() for mapping in self._mappings]

    def stop(self) -> None:
        """Stop softly: what runs may end within the grace period."""
        self.stopping = True
        self._stop.set()

    def stop_now(self) -> None:
        """Stop hard: cancel what runs; what an attempt holds stays with its source."""
        self.stop()
        self._scope.cancel()

    def waiting_for(self) -> str | None:
        """What a soft stop waits for, for people: ``1 open poll, 18 s at most``; None = for nothing that takes time."""
        polls = [ends for mapping in self._mappings for ends in mapping.open_polls()]
        attempts = [ends for mapping in self._mappings for ends in mapping.running()]
        parts = [_counted(len(polls), "open poll")] if polls else []
        parts += [_counted(len(attempts), "running attempt")] if attempts else []
        if not parts:
            return None
        left = max(*polls, *attempts, 0.0) - self._clock.instant().elapsed
        return f"{' and '.join(parts)}, {max(0.0, min(left, self.grace())):.0f} s at most"

    def grace(self) -> float:
        """Seconds that a soft stop may take."""
        if self._grace is not None:
            return self._grace
        longest = max((mapping.seconds or UNKNOWN_TIMEOUT_SECONDS for mapping in self._mappings), default=0.0)
        return longest + GRACE_BEYOND_TIMEOUT_SECONDS

    async def run(self) -> bool:
        """Return when all mappings have stopped: True if none had to be cancelled."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                for mapping in self._mappings:
                    tasks.start_soon(mapping.run)
                await self._stop.wait()
                grace = self.grace()
                deadline = self._clock.instant().elapsed + grace
                # Lanes are cancelled at the deadline; a moment later so is whatever did not notice.
                self._scope.deadline = anyio.current_time() + grace + 1
                for mapping in self._mappings:
                    mapping.stop(deadline)
        return not self._scope.cancel_called and not any(mapping.cut for mapping in self._mappings)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
