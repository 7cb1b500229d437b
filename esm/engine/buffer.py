"""Bytes of records that all mappings of a worker hold together: polling stops before memory grows."""

from collections.abc import Callable

from esm.domain.batch import EVENT_BYTES

Wake = Callable[[], None]


class Buffer:
    """Counts bytes against ``limit``.

    A lane that holds nothing may always read once more: memory is bounded by the limit and one reply of each lane, and
    a lane that is stuck starves no other.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Wake, None] = {}  # in order of asking
        self.held = 0

    def room(self, holds_nothing: bool) -> int:
        """Bytes that a lane may read now; 0 = wait."""
        free = self._limit - self.held
        if free > 0 or holds_nothing:
            return max(free, EVENT_BYTES)
        return 0

    def add(self, size: int) -> None:
        """Records of ``size`` bytes were read, or (below 0) need no more memory."""
        self.held += size
        if size < 0 and self._waiting and self.held < self._limit:
            waiting, self._waiting = self._waiting, {}
            for wake in waiting:
                wake()

    def on_room(self, wake: Wake) -> None:
        """Call ``wake`` once when there is room again."""
        self._waiting[wake] = None

    def forget(self, wake: Wake) -> None:
        """Do not call ``wake`` any more."""
        self._waiting.pop(wake, None)
