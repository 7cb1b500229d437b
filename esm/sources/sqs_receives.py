"""Receives that are never left half: what they bring is handed over, or given back when nobody waits for it."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from esm.clients.aws_errors import AWS_ERRORS, AwsFailure, translate
from esm.domain.record import Record
from esm.ports import Clock
from esm.sources.sqs_events import MessageRecords
from esm.sources.sqs_queue import Calls
from esm.sources.sqs_shelter import Shelter
from esm.sources.sqs_watch import QueueWatch

Received = Sequence[Record] | AwsFailure
"""What one receive brought."""


class _Open:
    """One receive under way."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.received: Received = ()
        self.abandoned = False


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
        return [poll.received for poll in polls]

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
        sent = self._clock.instant().elapsed
        try:
            messages = await self._queue.receive(count, wait, visibility)
            # A receipt lives from a moment after this one on; the earliest is the safe one.
            poll.received = self._records.of(messages, self._clock.instant(), sent + visibility)
        except AWS_ERRORS as error:
            poll.received = translate(error, self._queue.subject)
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
        if not isinstance(poll.received, AwsFailure):
            await self._release(poll.received)
