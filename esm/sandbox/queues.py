"""The queues behind SQS: what is visible, in flight, delayed, gone; no protocol here.

A receive costs O(messages taken), whatever the backlog: visible messages wait in a deque (FIFO: per group), and a heap
of due times brings back what was delayed or whose visibility ended.  Heaps and deques may hold leftovers of messages
that moved on; a version number tells them apart.
"""

import asyncio
import base64
import heapq
import json
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import msgspec

from esm.sandbox.clock import finish
from esm.sandbox.messages import Message, State
from esm.sandbox.supply import Supply
from esm.sandbox.wire import AwsError
from esm.sandbox.world import World

DEDUPLICATION_SECONDS = 300.0
_HANDLE = struct.Struct(">QQI")
_HANDLE_PREFIX = "AQEB"


class Settings(msgspec.Struct):
    """The attributes of a queue that its owner sets, under AWS's names; times in seconds."""

    VisibilityTimeout: int = 30
    DelaySeconds: int = 0
    MessageRetentionPeriod: int = 345_600
    MaximumMessageSize: int = 1_048_576
    ReceiveMessageWaitTimeSeconds: int = 0
    FifoQueue: bool = False
    ContentBasedDeduplication: bool = False
    DeduplicationScope: str = "queue"
    FifoThroughputLimit: str = "perQueue"
    RedrivePolicy: str = ""
    Policy: str = ""
    KmsMasterKeyId: str = ""
    SqsManagedSseEnabled: bool = True


class Redrive(msgspec.Struct, frozen=True):
    """When a message leaves for the dead-letter queue: after ``limit`` receives."""

    arn: str
    limit: int


class Queue:
    """A standard queue.  ``find`` answers the queue of an ARN (for dead letters)."""

    in_flight_limit = 120_000

    def __init__(self, name: str, settings: Settings, world: World, find: Callable[[str], "Queue | None"]) -> None:
        self.name = name
        self.arn = f"arn:aws:sqs:{world.region}:{world.account}:{name}"
        self.created_at = world.clock.now()
        self.modified_at = self.created_at
        self.supply: Supply | None = None
        """Messages that are made as they are received."""
        self.ready_count = 0
        self.in_flight_count = 0
        self.delayed_count = 0
        self._settings = settings
        self._redrive = _redrive_of(settings)
        self._world = world
        self._clock = world.clock
        self._find = find
        self._identity = world.number(64)
        self._last_number = 0
        self._messages: dict[int, Message] = {}
        self._ready: deque[Message] = deque()
        self._due: list[tuple[float, int, int]] = []
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def url(self) -> str:
        """The URL that clients name it by."""
        return f"{self._world.url}/{self._world.account}/{self.name}"

    @property
    def visible_count(self) -> int:
        """Messages that can be received now, those included that are made only then."""
        return self.ready_count + (0 if self.supply is None else self.supply.waiting(self._clock.now()))

    @property
    def settings(self) -> Settings:
        """Its attributes; change them with ``configure``."""
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Take over new attributes; messages in flight keep the visibility they were received with."""
        self._settings = settings
        self._redrive = _redrive_of(settings)
        self.modified_at = self._clock.now()

    # -- in

    def send_many(self, bodies: Iterable[str]) -> None:
        """Add plain messages at once, without HTTP."""
        for body in bodies:
            self.add(Message(id=self._world.uuid(), body=body), notify=False)
        self._notify()

    def add(self, message: Message, delay: float | None = None, *, notify: bool = True) -> Message:
        """Take ``message`` in, visible after ``delay`` seconds (None: the queue's); returns what is stored."""
        now = self._clock.now()
        if not message.sent_at:
            message.sent_at = now
        self._last_number += 1
        message.number = self._last_number
        self._messages[message.number] = message
        wait = self._settings.DelaySeconds if delay is None else delay
        if wait > 0:
            message.state = State.DELAYED
            self.delayed_count += 1
            self._schedule(message, now + wait)
        else:
            self._make_ready(message)
            if notify:
                self._notify()
        return message

    # -- out

    def receive(self, limit: int, visibility: float) -> list[Message]:
        """Take up to ``limit`` visible messages into flight for ``visibility`` seconds; never waits."""
        now = self._clock.now()
        self._bring_back(now)
        if self.supply is not None and self.ready_count < limit:
            for message in self.supply.take(limit - self.ready_count, now):
                self.add(message, notify=False)
        taken = self._pick(min(limit, self.in_flight_limit - self.in_flight_count), now)
        for message in taken:
            message.receives += 1
            if not message.first_received_at:
                message.first_received_at = now
            message.handle = self._handle_of(message)
            message.state = State.IN_FLIGHT
            self.in_flight_count += 1
            self._schedule(message, now + visibility)
            if visibility <= 0:  # visible again at once: a look at the queue, not a receive to work on
                self._back(message)
        if taken and self.ready_count:
            self._notify()  # one waiter is woken at a time: it passes on what it leaves
        return taken

    def delete(self, handle: str) -> None:
        """Remove the message that ``handle`` was given for; an outdated handle is accepted without effect.

        Raises AwsError for what is no handle of this queue.
        """
        message = self._by_handle(handle)
        if message is not None and message.handle == handle:
            self._remove(message)

    def change_visibility(self, handle: str, seconds: float) -> None:
        """Let the message in flight become visible ``seconds`` from now.  Raises AwsError if it is not in flight."""
        message = self._by_handle(handle)
        if message is None or message.handle != handle:
            raise unknown_message(handle)
        self._bring_back(self._clock.now())
        if message.state is not State.IN_FLIGHT:
            raise AwsError(
                "MessageNotInflight",
                f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message is not in flight.",
                query_code="AWS.SimpleQueueService.MessageNotInflight",
            )
        if seconds <= 0:
            self._back(message)
            self._notify()
        else:
            self._schedule(message, self._clock.now() + seconds)

    def purge(self) -> None:
        """Forget every message."""
        for message in list(self._messages.values()):
            self._remove(message)

    def messages(self) -> list[Message]:
        """All messages that are not deleted, whatever their state, oldest first: for tests."""
        self._bring_back(self._clock.now())
        return list(self._messages.values())

    # -- waiting

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done when a message may have become visible; hand it to ``SandboxClock.wait``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        return future

    def forsake(self, waiter: asyncio.Future[None]) -> None:
        """Drop a waiter that nobody awaits any more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def next_due(self) -> float:
        """The moment at which a message next becomes visible by itself; infinity when none will."""
        while self._due and self._stale(self._due[0]):
            heapq.heappop(self._due)
        due = self._due[0][0] if self._due else float("inf")
        if self.supply is None or self.in_flight_count >= self.in_flight_limit:
            return due
        return min(due, self.supply.due(self._clock.now()))

    # -- inside

    def refresh(self) -> None:
        """Bring the counts up to date with the clock."""
        now = self._clock.now()
        self._bring_back(now)
        while self._ready and (self._ready[0].state is not State.READY or self._expired(self._ready[0], now)):
            message = self._ready.popleft()
            if message.state is State.READY:
                self._remove(message)

    def _pick(self, limit: int, now: float) -> list[Message]:
        taken: list[Message] = []
        while len(taken) < limit and self._ready:
            message = self._ready.popleft()
            if message.state is State.READY and self._usable(message, now):
                self.ready_count -= 1
                taken.append(message)
        return taken

    def _usable(self, message: Message, now: float) -> bool:
        """False for a message that leaves instead of being received: too old, or received too often."""
        if self._expired(message, now):
            self._remove(message)
            return False
        if self._redrive is not None and message.receives - message.receives_before >= self._redrive.limit:
            letters = self._find(self._redrive.arn)
            if letters is not None:
                self._remove(message)
                letters.add(message.as_dead_letter(self.arn), delay=0)
                return False
        return True

    def _expired(self, message: Message, now: float) -> bool:
        return message.sent_at + self._settings.MessageRetentionPeriod <= now

    def _remove(self, message: Message) -> None:
        if self._messages.pop(message.number, None) is None:
            return
        self._count(message.state, -1)
        message.state = State.GONE
        message.version += 1

    def _count(self, state: State, change: int) -> None:
        if state is State.READY:
            self.ready_count += change
        elif state is State.IN_FLIGHT:
            self.in_flight_count += change
        elif state is State.DELAYED:
            self.delayed_count += change

    def _make_ready(self, message: Message) -> None:
        message.state = State.READY
        message.version += 1
        self.ready_count += 1
        self._ready.append(message)

    def _back(self, message: Message) -> None:
        """From flight (or delay) to visible."""
        self._count(message.state, -1)
        self._make_ready(message)

    def _schedule(self, message: Message, due: float) -> None:
        message.version += 1
        message.due = due
        heapq.heappush(self._due, (due, message.number, message.version))
        if self._due[0][0] == due:  # sooner than whatever the waiters wait for
            self._notify_timers()
        if len(self._due) > 1000 + 2 * (self.in_flight_count + self.delayed_count):
            self._due = [entry for entry in self._due if not self._stale(entry)]
            heapq.heapify(self._due)

    def _stale(self, entry: tuple[float, int, int]) -> bool:
        message = self._messages.get(entry[1])
        return message is None or message.version != entry[2]

    def _bring_back(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            if not self._stale(entry):
                self._back(self._messages[entry[1]])

    def _notify(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                finish(waiter)
                return

    def _notify_timers(self) -> None:
        """Something is due sooner: who waits must compute its own wait again."""
        for waiter in self._waiters:
            finish(waiter)
        self._waiters.clear()

    def _handle_of(self, message: Message) -> str:
        packed = _HANDLE.pack(self._identity, message.number, message.receives)
        return _HANDLE_PREFIX + base64.b64encode(packed).decode()

    def _by_handle(self, handle: str) -> Message | None:
        try:
            identity, number, _receives = _HANDLE.unpack(base64.b64decode(handle.removeprefix(_HANDLE_PREFIX)))
        except (ValueError, struct.error):
            identity, number = None, 0
        if identity != self._identity or not handle.startswith(_HANDLE_PREFIX):
            raise AwsError(
                "ReceiptHandleIsInvalid",
                f'The input receipt handle "{handle}" is not a valid receipt handle.',
                404,
                query_code="ReceiptHandleIsInvalid",
            )
        return self._messages.get(number)


class Group:
    """One message group: what is visible in it by sequence, and how many are in flight (then it is locked)."""

    __slots__ = ("in_flight", "name", "visible")

    def __init__(self, name: str) -> None:
        self.name = name
        self.visible: list[tuple[int, Message]] = []
        self.in_flight = 0


class FifoQueue(Queue):
    """A FIFO queue: order inside each message group, which is locked while any message of it is in flight."""

    def __init__(self, name: str, settings: Settings, world: World, find: Callable[[str], Queue | None]) -> None:
        super().__init__(name, settings, world, find)
        self._groups: dict[str, Group] = {}
        self._open: dict[str, Group] = {}  # unlocked groups with visible messages, the longest unlocked first
        self._seen: dict[tuple[str, str], tuple[float, str, str]] = {}  # deduplication id → until, message id, sequence
        self._sequence = 18_849_496_460_467_696_128 + (world.number(16) << 8)

    def duplicate_of(self, message: Message) -> tuple[str, str] | None:
        """Id and sequence number of the message that ``message`` repeats within five minutes; else None."""
        now = self._clock.now()
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest][0] > now:
                break
            del self._seen[oldest]
        seen = self._seen.get(self._deduplication_key(message))
        return None if seen is None else (seen[1], seen[2])

    def add(self, message: Message, delay: float | None = None, *, notify: bool = True) -> Message:
        """As for a standard queue; gives the sequence number, and remembers the deduplication id for five minutes."""
        self._sequence += 256
        message.sequence = str(self._sequence)
        until = self._clock.now() + DEDUPLICATION_SECONDS
        self._seen[self._deduplication_key(message)] = (until, message.id, message.sequence)
        return super().add(message, delay, notify=notify)

    def delete(self, handle: str) -> None:
        """As for a standard queue, but an expired handle is an error."""
        self._bring_back(self._clock.now())
        message = self._by_handle(handle)
        if message is None:
            return
        if message.handle != handle or message.state is not State.IN_FLIGHT:
            raise AwsError(
                "InvalidParameterValueException",
                f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
                query_code="InvalidParameterValue",
            )
        self._remove(message)

    def _deduplication_key(self, message: Message) -> tuple[str, str]:
        scope = (message.group or "") if self._settings.DeduplicationScope == "messageGroup" else ""
        return scope, message.deduplication_id or ""

    def refresh(self) -> None:
        """Bring the counts up to date with the clock."""
        now = self._clock.now()
        self._bring_back(now)
        for message in [one for one in self._messages.values() if one.state is State.READY]:
            if not self._expired(message, now):
                break
            self._remove(message)

    def _pick(self, limit: int, now: float) -> list[Message]:
        taken: list[Message] = []
        while len(taken) < limit and self._open:
            group = self._open.pop(next(iter(self._open)))
            before = len(taken)
            while group.visible and len(taken) < limit:
                message = heapq.heappop(group.visible)[1]
                if message.state is State.READY and self._usable(message, now):
                    self.ready_count -= 1
                    taken.append(message)
            group.in_flight += len(taken) - before
            self._settle_group(group)
        return taken

    def _settle_group(self, group: Group) -> None:
        if group.in_flight:
            self._open.pop(group.name, None)
        elif group.visible:
            self._open.setdefault(group.name, group)
        else:
            self._open.pop(group.name, None)
            self._groups.pop(group.name, None)

    def _group_of(self, message: Message) -> Group:
        name = message.group or ""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
        return group

    def _make_ready(self, message: Message) -> None:
        message.state = State.READY
        message.version += 1
        self.ready_count += 1
        group = self._group_of(message)
        heapq.heappush(group.visible, (message.number, message))
        self._settle_group(group)

    def _remove(self, message: Message) -> None:
        was = message.state
        super()._remove(message)
        if was is State.IN_FLIGHT:
            self._unlock(message)

    def _back(self, message: Message) -> None:
        was = message.state
        super()._back(message)
        if was is State.IN_FLIGHT:
            self._unlock(message)

    def _unlock(self, message: Message) -> None:
        group = self._group_of(message)
        group.in_flight -= 1
        self._settle_group(group)
        if self._open:
            self._notify()


def unknown_message(handle: str) -> AwsError:
    """The error for a handle whose message is gone."""
    return AwsError(
        "InvalidParameterValueException",
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available "
        "for visibility timeout change.",
        query_code="InvalidParameterValue",
    )


def _redrive_of(settings: Settings) -> Redrive | None:
    if not settings.RedrivePolicy:
        return None
    policy: Mapping[str, object] = json.loads(settings.RedrivePolicy)
    return Redrive(arn=str(policy["deadLetterTargetArn"]), limit=int(str(policy["maxReceiveCount"])))
