"""What was asked of the sandbox: counts per operation, and the last calls in full."""

from collections import Counter, deque

import msgspec


class Call(msgspec.Struct, frozen=True):
    """One call as it came in: when (epoch seconds), its body, and how it ended.

    ``outcome`` is ``ok``, the code of an error, or ``dropped`` for a call without an answer.
    """

    operation: str
    at: float
    body: bytes
    outcome: str


class CallLog:
    """Counts every call; keeps the bodies of the last ones, ``keep_bytes`` at most in all."""

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._kept: deque[Call] = deque()
        self._kept_bytes = 0
        self.counts: Counter[str] = Counter()
        """Calls per operation, from the moment they came in."""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Calls that ended, per (operation, outcome)."""

    def __getitem__(self, operation: str) -> int:
        """How many calls of ``operation`` came in."""
        return self.counts[operation]

    def of(self, operation: str) -> list[Call]:
        """The kept calls of ``operation`` that ended, oldest first."""
        return [call for call in self._kept if call.operation == operation]

    def began(self, operation: str) -> None:
        """Note that a call came in."""
        self.counts[operation] += 1

    def ended(self, operation: str, at: float, body: bytes, outcome: str) -> None:
        """Note how a call ended."""
        self.outcomes[operation, outcome] += 1
        if len(body) > self._keep_bytes:
            return
        self._kept.append(Call(operation, at, body, outcome))
        self._kept_bytes += len(body) + 200  # and what the entry itself weighs
        while self._kept_bytes > self._keep_bytes:
            self._kept_bytes -= len(self._kept.popleft().body) + 200

    def clear(self) -> None:
        """Start to count from zero."""
        self._kept.clear()
        self._kept_bytes = 0
        self.counts.clear()
        self.outcomes.clear()
