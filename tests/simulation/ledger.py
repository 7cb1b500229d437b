"""What is true of a world, seen from outside: what was sent, what functions took, what positions were stored."""

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct


class Sent(Struct, frozen=True):
    """One record that was put into a source."""

    name: str
    lane: str
    position: int


class Ledger:
    """Of one mapping.  ``complain`` collects broken promises; a world is good when there are none."""

    def __init__(self, mapping: str, ordered: bool, batch_size: int) -> None:
        self.mapping, self._ordered, self._batch_size = mapping, ordered, batch_size
        self.sent: dict[str, Sent] = {}
        self.delivered: dict[str, int] = defaultdict(int)
        self.discarded: set[str] = set()
        self.broken: list[str] = []
        self.events: list[str] = []
        """What happened, for whoever replays a seed."""
        self._lanes: dict[str, list[Sent]] = defaultdict(list)
        self._furthest: dict[str, int] = {}
        self._running: set[str] = set()

    def put(self, name: str, lane: str, position: int) -> None:
        """A record was sent."""
        self.sent[name] = found = Sent(name, lane, position)
        self._lanes[lane].append(found)

    def began(self, names: Sequence[str]) -> None:
        """An attempt reached the target."""
        self.events.append(f"invoke {' '.join(names)}")
        if not 1 <= len(names) <= self._batch_size:
            self.broken.append(f"an event of {len(names)} records")
        if self._ordered and self._running.intersection(self._lane_of(name) for name in names):
            self.broken.append(f"two attempts at once in one lane: {' '.join(names)}")
        self._running.update(self._lane_of(name) for name in names)

    def ended(self, names: Sequence[str]) -> None:
        """The target is done with an attempt, however it ended."""
        self._running.difference_update(self._lane_of(name) for name in names)

    def took(self, names: Sequence[str]) -> None:
        """The target took these: their first deliveries come in the order of their lane."""
        for name in names:
            record = self.sent[name]
            if self._ordered and not self.delivered[name] and record.position < self._furthest.get(record.lane, -1):
                self.broken.append(f"{name} was first delivered after a later record of lane {record.lane}")
            self.delivered[name] += 1
            self._furthest[record.lane] = max(self._furthest.get(record.lane, -1), record.position)

    def gave_up(self, names: Sequence[str]) -> None:
        """A failure record of these was stored."""
        self.events.append(f"discard {' '.join(names)}")
        self.discarded.update(names)

    def stored(self, lane: str, through: int) -> None:
        """A checkpoint was written."""
        for record in self._lanes[lane]:
            if record.position <= through and not self._accounted(record.name):
                self.broken.append(
                    f"a checkpoint of lane {lane} at {through} passes {record.name}, which is not settled"
                )

    def _accounted(self, name: str) -> bool:
        return bool(self.delivered.get(name)) or name in self.discarded

    def _lane_of(self, name: str) -> str:
        return self.sent[name].lane

    @property
    def open(self) -> list[str]:
        """Records that are neither delivered nor given up."""
        return [name for name in self.sent if not self._accounted(name)]
