"""A queue in memory: for tests and the simulation.  It fails as it is told."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from esm.domain.errors import NotReady
from esm.domain.record import Chunk, LaneId, Mark, Record
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
