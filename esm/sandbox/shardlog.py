"""The records of one shard: stored, or made up as they are read; an index counts from 0 and never changes.

Records are kept as the JSON that a reader gets: a reply is one join.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record: its JSON in a GetRecords reply, when it arrived (epoch seconds), bytes that count against limits."""

    json: bytes
    at: float
    size: int


class ShardLog(Protocol):
    """Records by index, from the horizon to the tip."""

    @property
    def horizon(self) -> int:
        """Index of the oldest record that is still there; the tip when none is."""
        ...

    def tip(self, now: float) -> int:
        """Index of the next record to come."""
        ...

    def read(self, start: int, limit: int, max_bytes: int, now: float) -> Sequence[Entry]:
        """Up to ``limit`` records and ``max_bytes`` (one record at least) from ``start`` on."""
        ...

    def first_at(self, moment: float, now: float) -> int:
        """Index of the first record that arrived at ``moment`` or later; the tip when none did."""
        ...

    def trim(self, before: int) -> None:
        """Forget the records below index ``before``."""
        ...


class StoredLog:
    """A shard log in memory."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._horizon = 0

    @property
    def horizon(self) -> int:
        """Index of the oldest record that is still there."""
        return self._horizon

    def tip(self, now: float) -> int:
        """Index of the next record to come."""
        return self._horizon + len(self._entries)

    def append(self, entry: Entry) -> None:
        """Add the record of index ``tip``."""
        self._entries.append(entry)

    def read(self, start: int, limit: int, max_bytes: int, now: float) -> Sequence[Entry]:
        """Up to ``limit`` records and ``max_bytes`` (one record at least) from ``start`` on."""
        begin = max(0, start - self._horizon)
        return fitting(self._entries[begin : begin + limit], max_bytes)

    def first_at(self, moment: float, now: float) -> int:
        """Index of the first record that arrived at ``moment`` or later; the tip when none did."""
        return self._horizon + bisect.bisect_left(self._entries, moment, key=lambda entry: entry.at)

    def trim(self, before: int) -> None:
        """Forget the records below index ``before``; called often with a moving age, so it forgets in larger steps."""
        count = min(before - self._horizon, len(self._entries))
        if count > 0:
            del self._entries[:count]
            self._horizon += count


class GeneratedLog:
    """A shard log that stores nothing: record ``i`` is made by ``make(i, arrival)`` whenever it is read.

    ``total`` records arrive at ``rate`` a second from ``start`` on, in bursts as clients read; a rate of None means
    that all have arrived at ``start``.  The same index gives the same record each time it is read.
    """

    def __init__(
        self, make: Callable[[int, float], Entry], total: int, start: float, rate: float | None = None
    ) -> None:
        self._make = make
        self._total = total
        self._start = start
        self._rate = rate
        self._horizon = 0

    @property
    def horizon(self) -> int:
        """Index of the oldest record that is not trimmed."""
        return self._horizon

    def tip(self, now: float) -> int:
        """Index of the next record to come."""
        if self._rate is None:
            return self._total
        return max(self._horizon, min(self._total, int((now - self._start) * self._rate)))

    def read(self, start: int, limit: int, max_bytes: int, now: float) -> Sequence[Entry]:
        """Up to ``limit`` records and ``max_bytes`` (one record at least) from ``start`` on."""
        begin = max(start, self._horizon)
        end = min(begin + limit, self.tip(now))
        entries: list[Entry] = []
        size = 0
        for index in range(begin, end):
            entry = self._make(index, self._arrival(index))
            size += entry.size
            if entries and size > max_bytes:
                break
            entries.append(entry)
        return entries

    def first_at(self, moment: float, now: float) -> int:
        """Index of the first record that arrived at ``moment`` or later; the tip when none did."""
        if self._rate is None:
            return self._horizon if moment <= self._start else self._total
        wanted = math.ceil((moment - self._start) * self._rate) - 1
        return min(max(self._horizon, wanted), self.tip(now))

    def trim(self, before: int) -> None:
        """Forget the records below index ``before``."""
        self._horizon = max(self._horizon, min(before, self._total))

    def _arrival(self, index: int) -> float:
        return self._start if self._rate is None else self._start + (index + 1) / self._rate


def fitting(entries: Sequence[Entry], max_bytes: int) -> Sequence[Entry]:
    """The longest prefix of ``entries`` within ``max_bytes``, but one at least."""
    size = 0
    for index, entry in enumerate(entries):
        size += entry.size
        if size > max_bytes and index:
            return entries[:index]
    return entries
