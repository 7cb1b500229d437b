"""Receives that are never left half: what they bring is handed over, or given back when nobody waits for it."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio

from esm.clients.aws_errors import AWS_ERRORS, AwsFailure, translate
from esm.domain.record import Record
from esm.ports import Clock
from esm.sources.sqs_events import MessageRecords
from esm.sources.sqs_queue import Calls
from esm.sources.sqs_shelter import Shelter
from esm.sources.sqs_watch import QueueWatch

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

Received = Sequence[Record] | AwsFailure
"""What one receive brought."""

ANSWER_SECONDS = 0.5
"""What an answer that has messages may take on its way here."""
LATE_SECONDS = 5.0
"""An answer that comes so long after the end of its wait was held up: nobody knows for how long."""


class _Open:
    """One receive under way, then what came of it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.abandoned = False
        self.messages: Sequence[MessageTypeDef] = ()
        self.expires = 0.0
        self.failure: AwsFailure | None = None


class Receives:
    """The receives of one queue.

    A receive cannot be taken back: its answer may be under way, and a server that has a message for a connection that
    is gone hides that message from everybody.  So each runs in the shelter, and a reader that is cancelled leaves it
    there: it goes on to its end, and ``release`` gets what it brings.
    """

    def __init__(
        self,
        queue: Calls,
        records: MessageRecords,
        watch: QueueWatch,
        shelter: Shelter,
        clock: Clock,
        release: Callable[[Sequence[Record]], Awaitable[None]],
    ) -> None:
        self._queue, self._records, self._watch, self._shelter = queue, records, watch, shelter
        self._clock, self._release = clock, release
        self._busy = 0
        self._idle = anyio.Event()

    async def receive(self, counts: Sequence[int], wait: int) -> Sequence[Received]:
        """What one receive for each of ``counts`` brings, all at once; ``wait`` whole seconds for a first message."""
        polls = [_Open() for _ in counts]
        for poll, count in zip(polls, counts, strict=True):
            self._start(partial(self._receive, poll, count, wait))
        try:
            for poll in polls:
                await poll.over.wait()
        except anyio.get_cancelled_exc_class():
            self._abandon(polls)
            raise
        return [poll.failure or self._records_of(poll) for poll in polls]

    async def idle(self) -> None:
        """Return once no receive is under way and what nobody waited for is given back."""
        while self._busy:
            await self._idle.wait()

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        async def counted() -> None:
            try:
                await work()
            finally:
                self._busy -= 1
                if not self._busy:
                    self._idle.set()
                    self._idle = anyio.Event()

        self._busy += 1
        self._shelter.start(counted)

    async def _receive(self, poll: _Open, count: int, wait: int) -> None:
        visibility = self._watch.visibility
        sent = self._now()
        try:
            poll.messages = await self._queue.receive(count, wait, visibility)
            poll.expires = _taken(sent, wait, self._now()) + visibility
        except AWS_ERRORS as error:
            poll.failure = translate(error, self._queue.subject)
        finally:
            poll.over.set()
        if poll.abandoned:
            await self._give_back(poll)

    def _abandon(self, polls: Sequence[_Open]) -> None:
        for poll in polls:
            poll.abandoned = True
            if poll.over.is_set():  # it ended, then the reader was cancelled before it ran again
                self._start(partial(self._give_back, poll))

    async def _give_back(self, poll: _Open) -> None:
        await self._release(self._records_of(poll))

    def _records_of(self, poll: _Open) -> Sequence[Record]:
        """Made when they are handed over, so that positions grow whichever answer came first."""
        return self._records.of(poll.messages, self._clock.instant(), poll.expires)

    def _now(self) -> float:
        return self._clock.instant().elapsed


def _taken(sent: float, wait: int, answered: float) -> float:
    """The earliest moment at which SQS can have taken the messages of an answer.

    It answers as soon as it has some.  To count from ``sent`` would cost a message that came late in a long poll most
    of its life; an answer that was held up (a suspended machine) may be as old as that.
    """
    return sent if answered - sent > wait + LATE_SECONDS else max(sent, answered - ANSWER_SECONDS)
