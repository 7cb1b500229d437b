"""What became of each record, counted by the functions that received it and by comparing ids, not by the worker."""

from collections import Counter
from collections.abc import Iterable

POISON = "poison"
"""What a record that no function can bear has in its text."""


class Tally:
    """One source's records by id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: set[str] = set()
        self.discarded: set[str] = set()
        self.deliveries: Counter[str] = Counter()
        """How often a function took each record without an error."""
        self.retries = 0
        """Invocations that ended with an error or a report."""

    def took(self, ids: Iterable[str]) -> None:
        """A function succeeded with these."""
        self.deliveries.update(ids)

    @property
    def delivered(self) -> int:
        """Records that a function took at least once."""
        return len(self.deliveries)

    @property
    def duplicates(self) -> int:
        """Deliveries beyond the first of a record."""
        return self.deliveries.total() - len(self.deliveries)

    @property
    def waiting(self) -> int:
        """Records that are neither delivered nor discarded yet."""
        return len(self.sent) - len(self._accounted())

    def _accounted(self) -> set[str]:
        return self.sent & (self.deliveries.keys() | self.discarded)

    def summary(self) -> dict[str, int]:
        """The numbers of ``--output json``; ``filtered`` stays 0 until a mapping can have filters."""
        discarded = len(self.discarded - self.deliveries.keys())
        return {
            "sent": len(self.sent),
            "delivered": self.delivered,
            "filtered": 0,
            "discarded": discarded,
            "duplicates": self.duplicates,
            "lost": self.waiting,
        }
