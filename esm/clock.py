"""The time of this machine, as ``ports.Clock``: one that never steps, and the calendar's, anchored to it."""

import time
from collections.abc import Callable

import structlog

from esm.domain.instant import Instant

log = structlog.get_logger()

STEP_SECONDS = 5.0
"""A calendar that moved by more than this against the other clock was stepped."""
PAUSE_SECONDS = 60.0
"""For so long after a step no record is discarded for its age."""


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


monotonic: Callable[[], float] = _boottime if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
"""Seconds that count suspension where the system has such a clock (Linux)."""


class SystemClock:
    """``ports.Clock``.  A stepped wall clock is reported, and cannot expire records at once."""

    def __init__(self, elapsed: Callable[[], float] = monotonic, epoch: Callable[[], float] = time.time) -> None:
        self._elapsed, self._epoch = elapsed, epoch
        self._offset = epoch() - elapsed()
        self._paused_until = float("-inf")

    def instant(self) -> Instant:
        """See Clock."""
        elapsed, epoch = self._elapsed(), self._epoch()
        moved = epoch - elapsed - self._offset
        if abs(moved) > STEP_SECONDS:
            self._paused_until = elapsed + PAUSE_SECONDS
            log.warning("clock_stepped", seconds=round(moved, 3), ages_paused_for=PAUSE_SECONDS)
        self._offset += moved
        return Instant(elapsed, epoch, ages_paused=elapsed < self._paused_until)
