"""A partition that the group gave us, as a ``ports.Lane``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from esm.clients.kafka import Generation, GroupConsumer
from esm.domain.errors import LaneFailed, LaneLost
from esm.domain.record import Chunk, LaneId, Mark, Record
from esm.ports import Clock
from esm.sources.kafka_commits import Commits, kept_of, mark_of
from esm.sources.kafka_events import PartitionRecords
from esm.sources.kafka_start import From, Starts

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

SESSION_SHARE = 0.9
"""Of a session without an answered heartbeat: after it others may have been given our partitions."""
FIRST_GUESS = 1_024.0
"""Bytes of an entry, until some were seen."""
OVERTIME = 1.0
"""Seconds that a read may take beyond its wait: the library waits without end while a group rebalances."""
LEAVING_SECONDS = 0.1
"""Of a read between a revocation and the word of it."""


class Assignment:
    """The partitions of one generation of the group."""

    def __init__(self, consumer: GroupConsumer, clock: Clock, generation: Generation) -> None:
        self.consumer, self.clock, self.generation = consumer, clock, generation
        self.commits = Commits(consumer, generation)
        self.leaving = False
        """A rebalance began: no lane is read or granted any more, what is in flight may end."""
        self.lost = False
        """Someone else may read the partitions: nothing is written any more."""

    def member(self) -> bool:
        """Whether the group still knows us as it did at the assignment."""
        return not self.lost and self.consumer.generation == self.generation

    def owned(self) -> bool:
        """Whether the partitions are surely ours: a member, and heard by the group within its session."""
        heard = self.consumer.heard
        silent = self.clock.instant().elapsed - heard if heard is not None else float("inf")
        return self.member() and silent < SESSION_SHARE * self.consumer.settings.session

    def check(self) -> None:
        """Raise LaneLost when the partitions are not ours any more."""
        if not self.member():
            settings = self.consumer.settings
            raise LaneLost(f"{settings.subject}: the group {settings.group} gave the partition to someone else.")


class KafkaLane:
    """One open partition.

    The library holds at most one fetched reply for it; while nobody reads, nothing more is fetched.
    """

    def __init__(self, lane: LaneId, partition: int, assignment: Assignment, begins: From, starts: Starts) -> None:
        self.id = lane
        self.partition = partition
        self.last_read = float("-inf")
        """When a read ended (elapsed)."""
        self.reading = False
        self._assignment, self._begins, self._starts = assignment, begins, starts
        self._consumer = assignment.consumer
        self._records = PartitionRecords(lane, self._consumer.settings.topic, partition)
        self._gap = begins.gap
        self._average = FIRST_GUESS
        self._scope = anyio.CancelScope()

    @property
    def resumed(self) -> Mark | None:
        """See Lane: the committed offset, and the attempts committed beside it."""
        return None if self._gap else mark_of(self._begins.kept)

    def owned(self) -> bool:
        """See Lane."""
        return self._assignment.owned()

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See Lane."""
        from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, OffsetOutOfRangeError

        await anyio.lowlevel.checkpoint()
        self._assignment.check()
        if self._gap is not None:
            return self._first()
        self.reading = True
        try:
            messages = await self._fetch(max(1, min(limit, int(size / self._average))), wait)
            self._assignment.check()
            position, end = await self._consumer.position(self.partition)
        except OffsetOutOfRangeError:
            return await self._jump()
        except (IllegalStateError, ConsumerStoppedError) as error:
            raise LaneLost(self._consumer.sentence(error)) from error
        except KafkaError as error:
            raise LaneFailed(self._consumer.sentence(error)) from error
        except ValueError as error:
            raise LaneFailed(
                f"Kafka partition {self.id.name}: a record among the next ones cannot be decoded "
                f"({type(error).__name__}; a header's name must be UTF-8).  The partition waits before it: delete it "
                "(kafka-delete-records), or move the offset of the group behind it while the mapping is disabled."
            ) from error
        finally:
            self.reading = False
            self.last_read = self._assignment.clock.instant().elapsed
        return self._chunk(messages, position, end)

    async def _fetch(self, count: int, wait: float) -> "Sequence[ConsumerRecord]":
        """One reply, or none when the lane has to be left; safe to cancel: what was fetched stays in the library."""
        if self._assignment.leaving:
            await anyio.sleep(min(wait, LEAVING_SECONDS))
        else:
            with anyio.move_on_after(wait + OVERTIME) as self._scope:
                return await self._consumer.read(self.partition, count, wait)
        return ()

    def _chunk(self, messages: "Sequence[ConsumerRecord]", position: int, end: int | None) -> Chunk:
        records = self._records.of(messages, self._assignment.clock.instant().epoch) if messages else ()
        if records:
            self._average += 0.5 * (sum([len(each.entry) for each in records]) / len(records) - self._average)
        return Chunk(
            records,
            through=(position - 1, 0) if position > 0 else None,  # passes control records and compacted ones
            more=end is not None and position < end,
            lag_records=None if end is None else max(0, end - position),
        )

    def _first(self) -> Chunk:
        """Tell that records were lost before this lane began."""
        gap, self._gap = self._gap, None
        offset = self._begins.kept.offset
        return Chunk(through=(offset - 1, 0) if offset > 0 else None, more=True, gap=gap)

    async def _jump(self) -> Chunk:
        """The next offset is not there any more."""
        from aiokafka.errors import KafkaError

        try:
            position, _ = await self._consumer.position(self.partition)
            bounds = (await self._consumer.bounds({self.partition}))[self.partition]
        except KafkaError as error:
            raise LaneFailed(self._consumer.sentence(error)) from error
        if bounds[0] <= position <= bounds[1]:
            return Chunk(through=(position - 1, 0) if position > 0 else None)
        if position > bounds[1]:  # positions go backwards: that takes a new lane, which finds where to begin
            self._assignment.commits.forget(self.partition)
            raise LaneFailed(
                f"{self._consumer.settings.subject}: partition {self.partition} ends at {bounds[1]}, before "
                f"{position}, which comes next here: it was made anew."
            )
        self._begins = self._starts.after_loss(self.partition, position, bounds)
        self._gap = self._begins.gap
        self._consumer.seek(self.partition, bounds[0])
        return self._first()

    def stop_reading(self) -> None:
        """End the read that is under way, without records."""
        self._scope.cancel()

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """See Lane: a partition's records stay usable."""
        return records

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """See Lane: the mark is committed within a second."""
        self._assignment.check()
        if mark is not None:
            self._assignment.commits.note(self.partition, kept_of(mark, self._begins.kept.offset))

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """See Lane: what is not settled is read again by whoever comes next."""

    async def flush(self) -> None:
        """See Lane.  Raises LeaseStoreFailed when the group's coordinator does not take the commit for 10 s."""
        self._assignment.check()
        await self._assignment.commits.flush()
