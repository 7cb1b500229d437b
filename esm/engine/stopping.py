"""A soft stop of one lane: it is asked once, it has a deadline, and no wait outlives it."""

from types import TracebackType

import anyio

from esm.ports import Clock


class Stopping:
    """Whether to stop, and the waits that end when it is asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waits: set[anyio.CancelScope] = set()
        self.asked = False
        self.deadline = float("inf")
        """Elapsed; what is running then will be cancelled."""

    def ask(self, deadline: float) -> None:
        """Stop softly; asked again, the earlier deadline counts."""
        self.asked = True
        self.deadline = min(self.deadline, deadline)
        for scope in self._waits:
            scope.cancel()

    def cut_short(self) -> "CutShort":
        """What is awaited inside ends early when a stop is asked, or was asked before."""
        return CutShort(self._waits, self.asked)

    async def sleep_until(self, until: float) -> None:
        """Wait until ``until`` (elapsed) or a stop; after a suspension of the machine it may be earlier."""
        left = until - self._clock.instant().elapsed
        if left > 0:
            with self.cut_short():
                await anyio.sleep(left)


class CutShort:
    """A cancel scope that is known to a ``Stopping`` while it is open."""

    def __init__(self, waits: set[anyio.CancelScope], asked: bool) -> None:
        self._waits = waits
        self._scope = anyio.CancelScope()
        if asked:
            self._scope.cancel()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._waits.add(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._waits.discard(self._scope)
        return bool(self._scope.__exit__(kind, error, trace))
