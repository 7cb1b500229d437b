"""A member of a group without a cluster: what ``GroupFeed`` and ``KafkaLane`` ask of a consumer, told by a test."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import cast

import anyio
from aiokafka import ConsumerRecord

from esm.clients.kafka import Committed, Generation, GroupConsumer, KafkaSettings
from esm.domain.errors import LaneLost, NotReady
from esm.domain.leasing import TRIM_HORIZON, Starting
from esm.sources.kafka_feed import GroupFeed
from esm.sources.kafka_start import Starts
from tests.support.time import LoopClock

SETTINGS = KafkaSettings("payments", ("kafka:9092",), "topic", "group", hand_over=20.0)


def message(offset: int, value: bytes | None = b"v", key: bytes | None = None, **changes: object) -> ConsumerRecord:
    """A record as the library hands it over."""
    members: dict[str, object] = {
        "topic": "topic",
        "partition": 0,
        "offset": offset,
        "timestamp": 1_767_222_000_123,
        "timestamp_type": 0,
        "key": key,
        "value": value,
        "checksum": None,
        "serialized_key_size": 0,
        "serialized_value_size": 0,
        "headers": (),
    }
    return ConsumerRecord(**(members | changes))  # type: ignore[arg-type]  # members by name, told by the test


class FakeMember:
    """A GroupConsumer whose group is this object."""

    def __init__(self, settings: KafkaSettings = SETTINGS) -> None:
        self.settings = settings
        self.silent_since: float | None = None
        """When the last heartbeat was answered; None = just now."""
        self.generation = Generation(0, "")
        self.kept: dict[int, Committed] = {}
        """What the group remembers."""
        self.commits: list[Mapping[int, Committed]] = []
        """What was committed, in order."""
        self.fails: list[str | Exception] = []
        """What the next commits end with."""
        self.deaf = False
        """No commit is answered."""
        self.trouble: str | None = None
        """What keeps us out of the group."""
        self.ends: dict[int, int] = {}
        self.begins: dict[int, int] = {}
        self.unknown = 0
        """So many questions for offsets time out."""
        self.at: dict[int, int] = {}
        self.paused: set[int] = set()
        self.rebalancing = False
        """Reads wait without end, as the library's do."""

    # -- what a test does

    def feed(self, starting: Starting = TRIM_HORIZON) -> GroupFeed:
        """A feed of this member."""
        starts = Starts(self.settings.mapping, self.settings.topic, starting)
        return GroupFeed(cast("GroupConsumer", self), starts, LoopClock(), lambda: 0.5)

    def assign(self, feed: GroupFeed, *partitions: int) -> None:
        """A new generation with these partitions."""
        self.generation = Generation(self.generation.number + 1, "member")
        self.rebalancing = False
        self.paused.clear()
        self.at.clear()
        feed.assigned(frozenset(partitions))

    def expel(self) -> None:
        """The group forgets this member, which learns it from a heartbeat."""
        self.generation = Generation(-1, "")

    # -- GroupConsumer

    @property
    def heard(self) -> float:
        return anyio.current_time() if self.silent_since is None else self.silent_since

    def check(self) -> None:
        if self.trouble:
            raise NotReady(self.trouble)

    async def committed(self, partitions: AbstractSet[int]) -> Mapping[int, Committed]:
        await anyio.lowlevel.checkpoint()
        if self.unknown:
            self.unknown -= 1
            raise TimeoutError
        return {each: kept for each, kept in self.kept.items() if each in partitions}

    async def commit(self, generation: Generation, offsets: Mapping[int, Committed]) -> str | None:
        await anyio.lowlevel.checkpoint()
        if self.deaf:
            await anyio.sleep(5)
            return "The broker did not answer in time."
        if self.fails:
            failure = self.fails.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        if generation != self.generation:
            raise LaneLost("The group went on without this worker.")
        self.commits.append(dict(offsets))
        self.kept.update(offsets)
        return None

    async def bounds(self, partitions: AbstractSet[int]) -> Mapping[int, tuple[int, int]]:
        await anyio.lowlevel.checkpoint()
        return {each: (self.begins.get(each, 0), self.ends.get(each, 100)) for each in partitions}

    async def offsets_at(self, moment: float, partitions: AbstractSet[int]) -> Mapping[int, int]:
        return {}

    def seek(self, partition: int, offset: int) -> None:
        self.at[partition] = offset

    def pause(self, partition: int) -> None:
        self.paused.add(partition)

    async def read(self, partition: int, limit: int, wait: float) -> Sequence[ConsumerRecord]:
        await anyio.lowlevel.checkpoint()
        self.paused.discard(partition)
        if self.rebalancing:
            await anyio.sleep_forever()
        first = self.at[partition]
        last = min(first + limit, self.ends.get(partition, 100))
        if first == last:
            await anyio.sleep(wait)
        self.at[partition] = last
        return [message(offset, partition=partition) for offset in range(first, last)]

    async def position(self, partition: int) -> tuple[int, int | None]:
        return self.at[partition], self.ends.get(partition, 100)

    def sentence(self, error: BaseException) -> str:
        return f"{type(error).__name__}."
