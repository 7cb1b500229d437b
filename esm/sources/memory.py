"""A queue and a group of partitions in memory: for tests and the simulation.  They fail and move as they are told."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from esm.domain.errors import LaneLost, NotReady
from esm.domain.record import Chunk, LaneId, Mark, Position, Record
from esm.ports import AttemptLimits, Clock, Gone, Granted, LaneFeed, Leaving

RECEIVE_MOST = 10


class MemoryReceipt(Struct, frozen=True):
    """Which receive a record comes from."""

    number: int
    expires: float
    """Elapsed."""


class MemoryMessage:
    """One message of a queue."""

    def __init__(self, number: int, body: str, sent_at: float) -> None:
        self.id = f"m{number}"
        self.body = body
        self.sent_at = sent_at
        self.receives = 0
        self.visible_at = float("-inf")
        """Elapsed."""
        self.receipt = 0


class MemoryQueue:
    """A Source of one lane.  A received message comes back after ``visibility`` seconds unless it is deleted.

    After ``most_receives`` receives a message goes to ``dead`` instead, as a redrive policy does it.
    """

    def __init__(self, lane: LaneId, clock: Clock, visibility: float = 30.0, most_receives: int | None = None) -> None:
        self.lane_id = lane
        self.clock = clock
        self.visibility = visibility
        self.most_receives = most_receives
        self.messages: dict[str, MemoryMessage] = {}
        """What is not deleted, by id."""
        self.dead: list[str] = []
        """Bodies that were received too often."""
        self.deleted: list[str] = []
        """Ids in the order of their deletion."""
        self.not_ready: str | None = None
        self.read_error: Exception | None = None
        """Raised by the next read, once."""
        self.refuses_delete: Callable[[Record], bool] = lambda record: False
        """Deletes that are lost: the message comes back."""
        self.opened = 0
        self.open = 0
        self.flushed = 0
        self.polling = 0
        """Reads that wait for messages."""
        self.news = anyio.Event()
        self._sent = 0
        self._received = 0

    def send(self, body: str) -> str:
        """Put a message in; answers its id."""
        self._sent += 1
        message = MemoryMessage(self._sent, body, self.clock.instant().epoch)
        self.messages[message.id] = message
        self.tell()
        return message.id

    def tell(self) -> None:
        """Something may be visible: wake those who wait."""
        self.news.set()
        self.news = anyio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[LaneFeed, AttemptLimits], None]:
        """See Source."""
        await anyio.lowlevel.checkpoint()
        if self.not_ready is not None:
            raise NotReady(self.not_ready)
        self.open += 1
        try:
            yield _OneLane(self.lane_id, self.lane), AttemptLimits(visibility=self.visibility)
        finally:
            self.open -= 1

    @asynccontextmanager
    async def lane(self) -> AsyncGenerator["MemoryQueueLane", None]:
        """Open the one lane."""
        self.opened += 1
        yield MemoryQueueLane(self)

    def receive(self, most: int) -> list[Record]:
        """Take up to ``most`` visible messages."""
        now = self.clock.instant()
        found: list[Record] = []
        for message in list(self.messages.values()):
            if message.visible_at > now.elapsed:
                continue
            if self.most_receives is not None and message.receives >= self.most_receives:
                self.dead.append(self.messages.pop(message.id).body)
                continue
            if len(found) == most:
                break
            message.receives += 1
            message.receipt += 1
            message.visible_at = now.elapsed + self.visibility
            found.append(self._record(message))
        return found

    def _record(self, message: MemoryMessage) -> Record:
        self._received += 1
        return Record(
            self.lane_id,
            self._received,
            0,
            message.id,
            None,
            message.sent_at,
            msgspec.json.encode({"messageId": message.id, "body": message.body}),
            receives=message.receives,
            handle=MemoryReceipt(message.receipt, message.visible_at),
        )

    def next_visible(self) -> float | None:
        """When the next hidden message comes back, elapsed."""
        return min((message.visible_at for message in self.messages.values()), default=None)

    def holds_receipt(self, record: Record) -> bool:
        """Whether nobody received the message since ``record``."""
        message = self.messages.get(record.id)
        return message is not None and message.receipt == _receipt(record).number

    def delete(self, record: Record) -> None:
        """Delete a message, unless its deletes are lost."""
        if not self.refuses_delete(record) and self.messages.pop(record.id, None) is not None:
            self.deleted.append(record.id)


class MemoryQueueLane:
    """The open lane of a MemoryQueue."""

    resumed: Mark | None = None

    def __init__(self, queue: MemoryQueue) -> None:
        self.queue = queue

    @property
    def id(self) -> LaneId:
        """See Lane."""
        return self.queue.lane_id

    def owned(self) -> bool:
        """See Lane: a queue is everyone's."""
        return True

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See Lane: one receive of up to ten messages."""
        await anyio.lowlevel.checkpoint()
        queue = self.queue
        queue.polling += 1
        try:
            with anyio.move_on_after(wait):
                while not (records := self._receive(min(limit, RECEIVE_MOST))):
                    news, due = queue.news, queue.next_visible()
                    now = queue.clock.instant().elapsed
                    with anyio.move_on_after(float("inf") if due is None else max(0.0, due - now)):
                        await news.wait()
                return Chunk(records, more=len(records) == RECEIVE_MOST)
            return Chunk()
        finally:
            queue.polling -= 1

    def _receive(self, most: int) -> list[Record]:
        if (error := self.queue.read_error) is not None:
            self.queue.read_error = None
            raise error
        return self.queue.receive(most)

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """See Lane."""
        now = self.queue.clock.instant().elapsed
        alive = [record for record in records if _receipt(record).expires >= now + seconds]
        return records if len(alive) == len(records) else alive

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        for record in records:
            self.queue.delete(record)

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        for record in records:
            if self.queue.holds_receipt(record):
                self.queue.messages[record.id].visible_at = self.queue.clock.instant().elapsed + delay
        self.queue.tell()

    async def flush(self) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        self.queue.flushed += 1


def _receipt(record: Record) -> MemoryReceipt:
    assert isinstance(record.handle, MemoryReceipt), "a record of a MemoryQueue"
    return record.handle


class _OneLane:
    """Grants one lane, and again a second after it was left."""

    def __init__(self, lane: LaneId, open_lane: Callable[[], AbstractAsyncContextManager[MemoryQueueLane]]) -> None:
        self._lane, self._open = lane, open_lane
        self._free = anyio.Event()
        self._free.set()
        self._pause = 0.0

    async def change(self) -> Granted | Leaving | Gone:
        """See LaneFeed."""
        await self._free.wait()
        await anyio.sleep(self._pause)
        self._free = anyio.Event()
        self._pause = 1.0
        return Granted(self._lane, self._open())

    async def left(self, lane: LaneId) -> None:
        """See LaneFeed."""
        await anyio.lowlevel.checkpoint()
        self._free.set()


class MemoryPartition:
    """One partition with its committed position."""

    def __init__(self, lane: LaneId) -> None:
        self.lane = lane
        self.records: list[Record] = []
        self.committed: Mark | None = None
        self.commits: list[Position] = []
        """Every position that was written, in order."""
        self.wanted_back = False
        """Grant it again as soon as it was left."""
        self.lag_seconds: float | None = None
        """Told by empty reads."""
        self.generation = 0
        """Which assignment holds it now; an older one may write nothing."""
        self.news = anyio.Event()
        self.read_error: Exception | None = None
        """Raised by the next read, once."""
        self.on_commit: Callable[[LaneId, Mark], None] = lambda lane, mark: None
        """Told of each mark before it is stored."""


class MemoryGroup:
    """A Source of partitions that are assigned and revoked by the test, as a consumer group does it."""

    def __init__(self, mapping: str, clock: Clock, partitions: int = 1) -> None:
        self.mapping = mapping
        self.clock = clock
        self.partitions = [MemoryPartition(LaneId(mapping, f"topic-{number}")) for number in range(partitions)]
        self.changes: deque[Granted | Leaving | Gone] = deque()
        self.left_lanes: list[str] = []
        """Names of lanes whose pipelines ended, in order."""
        self.lane_left = anyio.Event()
        self.open = 0
        self._news = anyio.Event()

    def put(self, partition: int, body: str, key: str | None = None, arrived_at: float | None = None) -> Record:
        """Append a record."""
        found = self.partitions[partition]
        offset = len(found.records)
        record = Record(
            found.lane,
            offset,
            0,
            f"{found.lane.name}:{offset}",
            key.encode() if key is not None else None,
            self.clock.instant().epoch if arrived_at is None else arrived_at,
            msgspec.json.encode({"offset": offset, "body": body}),
        )
        found.records.append(record)
        found.news.set()
        found.news = anyio.Event()
        return record

    def assign(self, partition: int) -> None:
        """Grant a partition, from its committed position."""
        found = self.partitions[partition]
        found.generation += 1
        self._say(Granted(found.lane, self._opened(found, found.generation)))

    def revoke(self, partition: int, deadline: float) -> None:
        """Ask for a partition back until ``deadline``, elapsed."""
        self._say(Leaving(self.partitions[partition].lane, deadline))

    def give_back(self, partition: int) -> None:
        """Grant a partition again as soon as it was left."""
        self.partitions[partition].wanted_back = True

    def lose(self, partition: int) -> None:
        """Give a partition to somebody else at once."""
        found = self.partitions[partition]
        found.generation += 1
        self._say(Gone(found.lane))

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[LaneFeed, AttemptLimits], None]:
        """See Source."""
        await anyio.lowlevel.checkpoint()
        self.open += 1
        self.changes.clear()
        for number in range(len(self.partitions)):
            self.assign(number)
        try:
            yield self, AttemptLimits()
        finally:
            self.open -= 1

    async def change(self) -> Granted | Leaving | Gone:
        """See LaneFeed."""
        await anyio.lowlevel.checkpoint()
        while not self.changes:
            await self._news.wait()
        return self.changes.popleft()

    async def left(self, lane: LaneId) -> None:
        """See LaneFeed."""
        await anyio.lowlevel.checkpoint()
        self.left_lanes.append(lane.name)
        for partition in self.partitions:
            if partition.lane == lane and partition.wanted_back:
                partition.wanted_back = False
                self.assign(self.partitions.index(partition))
        self.lane_left.set()
        self.lane_left = anyio.Event()

    @asynccontextmanager
    async def _opened(self, partition: MemoryPartition, generation: int) -> AsyncGenerator["MemoryLane", None]:
        yield MemoryLane(partition, generation)

    def _say(self, change: Granted | Leaving | Gone) -> None:
        self.changes.append(change)
        self._news.set()
        self._news = anyio.Event()


class MemoryLane:
    """An open partition of a MemoryGroup."""

    def __init__(self, partition: MemoryPartition, generation: int) -> None:
        self.id = partition.lane
        self.resumed = partition.committed
        self._partition, self._generation = partition, generation
        self._next = partition.committed.through[0] + 1 if partition.committed and partition.committed.through else 0

    def owned(self) -> bool:
        """See Lane."""
        return self._generation == self._partition.generation

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        partition = self._partition
        with anyio.move_on_after(wait):
            while True:
                self._check()
                if records := partition.records[self._next : self._next + limit]:
                    self._next += len(records)
                    behind = len(partition.records) - self._next
                    return Chunk(records, through=records[-1].at, more=behind > 0, lag_records=behind)
                await partition.news.wait()
        return Chunk(lag_records=0, lag_seconds=partition.lag_seconds)

    def _check(self) -> None:
        if not self.owned():
            raise LaneLost(f"Lane {self.id} is somebody else's now.")
        if (error := self._partition.read_error) is not None:
            self._partition.read_error = None
            raise error

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """See Lane."""
        return records

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        if not self.owned():
            raise LaneLost(f"Lane {self.id} is somebody else's now.")
        if mark is not None:
            self._partition.on_commit(self.id, mark)
            self._partition.committed = mark
            if mark.through is not None:
                self._partition.commits.append(mark.through)

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """See Lane: what is not settled is read again by whoever comes next."""

    async def flush(self) -> None:
        """See Lane."""
        await anyio.lowlevel.checkpoint()
        if not self.owned():
            raise LaneLost(f"Lane {self.id} is somebody else's now.")
