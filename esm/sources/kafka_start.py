"""Where a partition is read from: the group's commit, else `starting_position`."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

import structlog
from msgspec import Struct

from esm.clients.kafka import Committed
from esm.domain.leasing import Starting
from esm.domain.record import Gap

log = structlog.get_logger()


class Offsets(Protocol):
    """What a cluster tells of a topic; each raises KafkaError."""

    async def committed(self, partitions: AbstractSet[int]) -> Mapping[int, Committed]:
        """What the group has committed."""
        ...

    async def bounds(self, partitions: AbstractSet[int]) -> Mapping[int, tuple[int, int]]:
        """First and next offset."""
        ...

    async def offsets_at(self, moment: float, partitions: AbstractSet[int]) -> Mapping[int, int]:
        """First offset at or after an epoch second; absent where there is none."""
        ...


class From(Struct, frozen=True):
    """Where one partition begins."""

    kept: Committed
    """The next offset to read, with what stands beside it."""
    commit: bool = False
    """It must be committed before reading: nobody could find it again."""
    gap: Gap | None = None
    """What was committed has left the topic."""


class Starts:
    """The starting positions of one mapping."""

    def __init__(self, mapping: str, topic: str, starting: Starting) -> None:
        self._mapping, self._topic, self._starting = mapping, topic, starting
        self._old: AbstractSet[int] = frozenset()
        """Partitions that were there when a group without any commit first looked: LATEST is for them alone."""

    async def prepare(self, cluster: Offsets, partitions: AbstractSet[int]) -> None:
        """Look before joining.

        With LATEST a partition that is added later must be read from its beginning: what came before it was noticed
        would be lost.  So partitions without a commit are old only while the whole group has none.
        """
        committed = await cluster.committed(partitions)
        if not committed:
            log.info("no_position_found", mapping=self._mapping, topic=self._topic, starting=self._said())
            self._old = partitions

    def began(self) -> None:
        """The first partitions were found and committed: one without a commit is new from now on, or made anew."""
        self._old = frozenset()

    async def find(self, cluster: Offsets, partitions: AbstractSet[int]) -> Mapping[int, From]:
        """Where each of ``partitions`` begins.  Raises KafkaError."""
        if not partitions:
            return {}
        committed = await cluster.committed(partitions)
        bounds = await cluster.bounds(partitions)
        fresh = partitions - committed.keys()
        moments: Mapping[int, int] = {}
        if fresh and self._starting.moment is not None:
            moments = await cluster.offsets_at(self._starting.moment, fresh)
        starts = {each: self._fresh(bounds[each], moments.get(each), each in self._old) for each in fresh}
        for each, kept in committed.items():
            starts[each] = self._resumed(each, kept, bounds[each])
        return starts

    def _fresh(self, bounds: tuple[int, int], at_moment: int | None, old: bool) -> From:
        begin, end = bounds
        if self._starting.moment is not None:
            return From(Committed(end if at_moment is None else max(begin, at_moment)), commit=True)
        if self._starting.latest and old:
            return From(Committed(end), commit=True)
        return From(Committed(begin))

    def _resumed(self, partition: int, kept: Committed, bounds: tuple[int, int]) -> From:
        begin, end = bounds
        if begin <= kept.offset <= end:
            return From(kept)
        return self.after_loss(partition, kept.offset, bounds)

    def after_loss(self, partition: int, offset: int, bounds: tuple[int, int]) -> From:
        """Where to go on when ``offset`` is not in the topic any more, or not yet: at its oldest record, loudly."""
        begin, end = bounds
        expired = offset < begin
        hint = (
            "Reading goes on at the oldest record; what lay before it is lost."
            if expired
            else "The topic ends before the position: it was made anew, or lost records.  Reading begins anew."
        )
        log.error(
            "kafka_records_expired" if expired else "kafka_topic_made_anew",
            mapping=self._mapping,
            topic=self._topic,
            partition=partition,
            position=offset,
            begins=begin,
            ends=end,
            hint=hint,
        )
        after = (offset - 1, 0) if expired and offset > 0 else None
        return From(Committed(begin), commit=not expired, gap=Gap(after, (begin, 0)))

    def _said(self) -> str:
        if self._starting.latest:
            return "LATEST"
        return "TRIM_HORIZON" if self._starting.moment is None else f"AT_TIMESTAMP {self._starting.moment:g}"
