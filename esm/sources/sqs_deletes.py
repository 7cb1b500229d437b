"""Deletes of delivered messages: beside the deliveries, again and again while the receipts live."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio
import structlog
from msgspec import Struct, structs

from esm.clients.aws_errors import AWS_ERRORS, translate
from esm.domain.record import LaneId
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock
from esm.sources.sqs_events import Receipt
from esm.sources.sqs_queue import PER_CALL, Calls
from esm.sources.sqs_shelter import Shelter

log = structlog.get_logger()

AT_ONCE = 10
"""Calls under way at most, per lane."""
MOST = 10_000
"""Undeleted messages that are remembered; while there are more, ``add`` waits."""
BACKOFF = Backoff(base=0.2, cap=10)
VOID = frozenset(("ReceiptHandleIsInvalid", "InvalidParameterValue", "InvalidParameterValueException"))
"""Codes of an entry whose receipt is void: no further try can help."""


class Counter(Protocol):
    """A number that grows."""

    def inc(self, amount: float = 1) -> None:
        """By ``amount``."""
        ...


class Delivered(Struct, frozen=True):
    """A message that is to be deleted."""

    id: str
    receipt: Receipt
    tries: int = 0


class Deletes:
    """Deletes what it is given; knows what is not yet deleted.

    A message whose receipt dies first is counted, logged and forgotten: it comes back and is delivered again.
    """

    def __init__(
        self, lane: LaneId, queue: Calls, shelter: Shelter, clock: Clock, failed: Counter, jitter: Jitter
    ) -> None:
        self._lane, self._queue, self._shelter, self._clock = lane, queue, shelter, clock
        self._failed_count, self._jitter = failed, jitter
        self._ready: deque[Delivered] = deque()
        self._held = 0
        self._calls = 0
        self._changed = anyio.Event()
        self._troubled = False

    async def add(self, messages: Sequence[Delivered]) -> None:
        """Delete ``messages`` soon.  Waits only while more than MOST are undeleted."""
        self._held += len(messages)
        self._put(messages)
        while self._held > MOST:
            await self._changed.wait()

    async def flush(self) -> None:
        """Return once everything is deleted or given up."""
        while self._held:
            await self._changed.wait()

    def _put(self, messages: Sequence[Delivered]) -> None:
        self._ready.extend(messages)
        wanted = min(AT_ONCE, self._calls + -(-len(self._ready) // PER_CALL))
        for _ in range(wanted - self._calls):
            self._calls += 1
            self._shelter.start(self._work)

    async def _work(self) -> None:
        try:
            while self._ready:
                group = [self._ready.popleft() for _ in range(min(PER_CALL, len(self._ready)))]
                self._after(group, await self._delete(group))
        finally:
            self._calls -= 1

    async def _delete(self, group: Sequence[Delivered]) -> Mapping[int, str]:
        try:
            failures = await self._queue.delete([message.receipt.handle for message in group])
        except AWS_ERRORS as error:
            failure = translate(error, self._queue.subject)
            self._trouble(failure.sentence)
            return dict.fromkeys(range(len(group)), failure.code)
        if not failures:
            self._troubled = False
        return failures

    def _trouble(self, sentence: str) -> None:
        if not self._troubled:  # one line for an outage, not one a call
            self._troubled = True
            log.warning("sqs_delete_failing", mapping=self._lane.mapping, lane=self._lane.name, error=sentence)

    def _after(self, group: Sequence[Delivered], failures: Mapping[int, str]) -> None:
        """Sort a group out: deleted, worth another try, or given up."""
        now = self._clock.instant().elapsed
        again: list[Delivered] = []
        lost: list[tuple[Delivered, str]] = []
        for index, code in failures.items():
            message = group[index]
            if code in VOID:
                # After an earlier try its effect is why (the reply was lost, or the entry failed too late): SQS says
                # success then, ElasticMQ says this.
                if not message.tries:
                    lost.append((message, code))
            elif now >= message.receipt.expires:
                lost.append((message, code))
            else:
                again.append(structs.replace(message, tries=message.tries + 1))
        self._give_up(lost)
        self._forget(len(group) - len(again))
        if again:
            delay = BACKOFF.delay(max(message.tries for message in again), self._jitter)
            self._shelter.start(lambda: self._again(delay, again))

    async def _again(self, delay: float, messages: Sequence[Delivered]) -> None:
        """Try once more after ``delay``, or right at the end of the first receipt's life, whichever comes first."""
        left = min(message.receipt.expires for message in messages) - self._clock.instant().elapsed
        await anyio.sleep(max(0.05, min(delay, left)))
        self._put(messages)

    def _give_up(self, lost: Sequence[tuple[Delivered, str]]) -> None:
        if not lost:
            return
        self._failed_count.inc(len(lost))
        log.warning(
            "sqs_delete_failed",
            mapping=self._lane.mapping,
            lane=self._lane.name,
            messages=len(lost),
            first=lost[0][0].id,
            error=lost[0][1],
            hint="These messages were delivered and will be delivered again.",
        )

    def _forget(self, count: int) -> None:
        if count:
            self._held -= count
            self._changed.set()
            self._changed = anyio.Event()
