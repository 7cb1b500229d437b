"""The lanes of one member of a consumer group, as rebalances give and take them: a ``ports.LaneFeed``."""

from collections import deque
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import structlog

from esm.clients.kafka import COMMIT_SECONDS, GroupConsumer
from esm.domain.errors import LaneLost, LeaseStoreFailed
from esm.domain.record import LaneId
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock, Gone, Granted, Leaving
from esm.sources.kafka_lane import Assignment, KafkaLane
from esm.sources.kafka_start import From, Starts

log = structlog.get_logger()

COMMIT_EVERY = 1.0
IDLE_SECONDS = 1.0
"""A partition that nobody has read for so long is not fetched any more."""
FIND_SECONDS = 15.0
"""For the cluster to say where partitions begin."""
LOOK_SECONDS = 0.5
"""How often a hand-over looks whether the group still knows us."""
LATE_SECONDS = 2.0
"""For lanes whose deadline is over to say that they were left."""
_FIND_AGAIN = Backoff(base=0.5, cap=10)
_GRANT_AGAIN = Backoff(base=1, cap=60)
"""After a lane was left: it failed, or its pipeline did."""
_STEADY_SECONDS = 60.0
"""A lane that stayed open for so long has not failed in a row."""


class _Place:
    """One partition of the assignment."""

    def __init__(self, lane: LaneId, partition: int) -> None:
        self.id = lane
        self.partition = partition
        self.open: KafkaLane | None = None
        self.begins: From | None = None
        """None = the cluster has to be asked."""
        self.granted_at = self.due = float("-inf")
        self.left_in_a_row = 0


class GroupFeed:
    """Grants the partitions of one generation after another.

    A rebalance takes all partitions, also those that come back (the library knows eager assignors only): every lane
    leaves, what is settled is committed, then the next generation's lanes begin at the commits.
    """

    def __init__(self, consumer: GroupConsumer, starts: Starts, clock: Clock, jitter: Jitter) -> None:
        self.joined = anyio.Event()
        """Set once the first assignment came."""
        self._consumer, self._starts, self._clock, self._jitter = consumer, starts, clock, jitter
        self._assignment: Assignment | None = None
        self._places: Mapping[str, _Place] = {}  # by lane name
        self._with_engine: set[str] = set()  # granted and not left, even if lost meanwhile
        self._changes: deque[Granted | Leaving | Gone] = deque()
        self._news, self._wake, self._someone_left = anyio.Event(), anyio.Event(), anyio.Event()
        self._failure: Exception | None = None
        self._closing = False
        self._find_at = float("-inf")
        self._failed_finds = 0

    # -- LaneFeed

    async def change(self) -> Granted | Leaving | Gone:
        """See LaneFeed.  Raises NotReady when the group does not take us any more, or what made the feed fail."""
        await anyio.lowlevel.checkpoint()
        while not self._changes:
            if self._failure is not None:
                raise self._failure
            self._news = anyio.Event()
            await self._news.wait()
        return self._changes.popleft()

    async def left(self, lane: LaneId) -> None:
        """See LaneFeed.  A lane that is still ours is granted again, after a longer wait each time it is left soon."""
        await anyio.lowlevel.checkpoint()
        self._with_engine.discard(lane.name)
        if (place := self._places.get(lane.name)) is not None:
            now = self.now()
            place.left_in_a_row = 1 if now - place.granted_at > _STEADY_SECONDS else place.left_in_a_row + 1
            place.due = now + _GRANT_AGAIN.delay(place.left_in_a_row, self._jitter)
        self._someone_left.set()
        self._wake.set()

    # -- what the group decides; called in the coordinator's task

    def assigned(self, partitions: AbstractSet[int]) -> None:
        """A new generation: these partitions are ours."""
        consumer = self._consumer
        self._assignment = Assignment(consumer, self._clock, consumer.generation)
        lanes = [(LaneId(consumer.settings.mapping, f"{consumer.settings.topic}-{each}"), each) for each in partitions]
        self._places = {lane.name: _Place(lane, each) for lane, each in lanes}
        for each in partitions:
            consumer.pause(each)  # until somebody reads it
        self._find_at, self._failed_finds = float("-inf"), 0
        self.joined.set()
        self._wake.set()

    async def revoked(self) -> None:
        """All partitions are to be given up: returns once their lanes were left and what they settled is committed.

        Bounded by ``hand_over``; heartbeats go on meanwhile.  A member that was expelled has nothing left to hand over.
        """
        assignment = self._assignment
        if assignment is None:
            return
        if assignment.member():
            assignment.leaving = True
            deadline = self.now() + self._consumer.settings.hand_over
            for place in self._places.values():
                self._leave(place, deadline)
            await self._wait_for_left(assignment, deadline + LATE_SECONDS)
            await self._last_commit(assignment)
        self._lose(assignment)

    def _leave(self, place: _Place, deadline: float) -> None:
        if self._take_back(place):
            return
        if place.id.name in self._with_engine:
            if place.open is not None:
                place.open.stop_reading()
            self._say(Leaving(place.id, deadline))

    def _take_back(self, place: _Place) -> bool:
        """Whether ``place`` was granted and nobody took notice yet: then it never was."""
        for change in self._changes:
            if isinstance(change, Granted) and change.id == place.id:
                self._changes.remove(change)
                self._with_engine.discard(place.id.name)
                return True
        return False

    async def _wait_for_left(self, assignment: Assignment, until: float) -> None:
        names = self._places.keys()
        while self._with_engine & names and assignment.member() and not self._closing:
            left = until - self.now()
            if left <= 0:
                late = sorted(self._with_engine & names)
                log.warning("kafka_hand_over_late", mapping=self._consumer.settings.mapping, lanes=late)
                return
            self._someone_left = anyio.Event()
            with anyio.move_on_after(min(left, LOOK_SECONDS)):
                await self._someone_left.wait()

    async def _last_commit(self, assignment: Assignment) -> None:
        try:
            if assignment.member():
                await assignment.commits.flush(COMMIT_SECONDS)
        except (LaneLost, LeaseStoreFailed) as error:
            # Nothing is lost: whoever reads these partitions next begins at the commit before.
            log.warning("kafka_last_commit_failed", mapping=self._consumer.settings.mapping, error=str(error))

    def _lose(self, assignment: Assignment) -> None:
        """From now on nothing is written for its lanes."""
        assignment.lost = True
        if self._assignment is not assignment:
            return
        self._assignment = None
        for place in self._places.values():
            if not self._take_back(place) and place.id.name in self._with_engine:
                if place.open is not None:
                    place.open.stop_reading()
                self._say(Gone(place.id))
        self._places = {}

    # -- the tasks

    async def run(self) -> None:
        """Find where partitions begin and grant them, until cancelled; an error comes out of ``change``."""
        try:
            while True:
                self._wake = anyio.Event()
                await self._tend()
                with anyio.move_on_after(max(0.0, self._due() - self.now())):
                    await self._wake.wait()
        except Exception as error:  # noqa: BLE001 - handed to the mapping, whose task is another one
            self._failure = error
            self._news.set()

    async def commit(self) -> None:
        """Commit what is settled once a second, until cancelled."""
        while True:
            await anyio.sleep(COMMIT_EVERY)
            if (assignment := self._assignment) is not None and assignment.member():
                try:
                    await assignment.commits.write()
                except LaneLost:
                    self._lose(assignment)

    async def close(self) -> None:
        """Commit what is settled, in bounded time; no rebalance waits for a lane any more."""
        self._closing = True
        self._someone_left.set()
        if (assignment := self._assignment) is not None:
            await self._last_commit(assignment)
            assignment.lost = True

    async def _tend(self) -> None:
        self._consumer.check()
        assignment = self._assignment
        if assignment is None or assignment.leaving:
            return
        if not assignment.member():
            log.warning("kafka_expelled", mapping=self._consumer.settings.mapping, group=self._consumer.settings.group)
            self._lose(assignment)
            return
        if self.now() >= self._find_at:
            await self._find(assignment)
        if assignment is self._assignment and assignment.owned() and not assignment.leaving:
            self._grant(assignment)
        self._rest()

    def _due(self) -> float:
        """When to look again: errors of the group and partitions that nobody reads are looked for once a second."""
        now = self.now()
        dues = [place.due for place in self._places.values() if place.due > now]
        return max(self._find_at, min([*dues, now + IDLE_SECONDS]))

    async def _find(self, assignment: Assignment) -> None:
        """Ask where those places begin that will be granted next."""
        from aiokafka.errors import KafkaError

        wanted = {place.partition: place for place in self._places.values() if self._unknown(place, assignment)}
        if not wanted:
            return
        try:
            with anyio.fail_after(FIND_SECONDS):
                found = dict(await self._starts.find(self._consumer, wanted.keys()))
                kept = {each: begins.kept for each, begins in found.items() if begins.commit}
                why = await self._consumer.commit(assignment.generation, kept) if kept else None
        except LaneLost:
            self._lose(assignment)
            return
        except (KafkaError, TimeoutError) as error:
            found = dict[int, From]()
            why = self._consumer.sentence(error)
        if why is not None:
            self._failed_finds += 1
            self._find_at = self.now() + _FIND_AGAIN.delay(self._failed_finds, self._jitter)
            if self._failed_finds == 1 or self._failed_finds % 10 == 0:
                log.warning("kafka_position_not_found", mapping=self._consumer.settings.mapping, error=why)
            return
        self._failed_finds = 0
        self._starts.began()
        for each, begins in found.items():
            wanted[each].begins = begins

    def _unknown(self, place: _Place, assignment: Assignment) -> bool:
        free = place.id.name not in self._with_engine and place.due <= self.now()
        return free and place.begins is None and assignment.commits.noted(place.partition) is None

    def _grant(self, assignment: Assignment) -> None:
        now = self.now()
        for place in self._places.values():
            if place.id.name in self._with_engine or place.due > now:
                continue
            noted = assignment.commits.noted(place.partition)
            begins = place.begins if noted is None else From(noted)
            if begins is None:
                continue
            place.begins = None  # should it be left without having settled anything, the cluster is asked again
            place.granted_at = now
            self._with_engine.add(place.id.name)
            self._say(Granted(place.id, self._opened(place, assignment, begins)))

    @asynccontextmanager
    async def _opened(self, place: _Place, assignment: Assignment, begins: From) -> AsyncGenerator[KafkaLane]:
        assignment.check()
        if assignment.leaving:
            raise LaneLost(f"Partition {place.id.name} left before it was opened.")
        self._consumer.seek(place.partition, begins.kept.offset)
        place.open = KafkaLane(place.id, place.partition, assignment, begins, self._starts)
        try:
            yield place.open
        finally:
            place.open = None
            self._consumer.pause(place.partition)

    def _rest(self) -> None:
        now = self.now()
        for place in self._places.values():
            if place.open is not None and not place.open.reading and now - place.open.last_read > IDLE_SECONDS:
                self._consumer.pause(place.partition)

    def _say(self, change: Granted | Leaving | Gone) -> None:
        self._changes.append(change)
        self._news.set()

    def now(self) -> float:
        """Seconds of our clock, suspension included."""
        return self._clock.instant().elapsed
