"""An SQS queue as a ``ports.Lane``: receives, pace, back-off; what is settled is deleted."""

import math
from collections.abc import Sequence

import anyio
import structlog

from esm.clients.aws_errors import AwsFailure
from esm.domain.errors import LaneFailed
from esm.domain.record import Chunk, LaneId, Mark, Record
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock
from esm.sources.sqs_deletes import Counter, Deletes, Delivered
from esm.sources.sqs_events import receipt_of
from esm.sources.sqs_queue import LONGEST_POLL, PER_CALL
from esm.sources.sqs_receives import Received, Receives
from esm.sources.sqs_releases import Releases
from esm.sources.sqs_watch import QueueWatch

log = structlog.get_logger()

RECEIVES_AT_ONCE = 10
BACKOFF = Backoff(base=0.5, cap=10)
"""After a receive that failed."""
FAILING_SECONDS = 60.0
"""A queue that cannot be read for so long has failed: the lane is closed."""
EMPTY_SECONDS = 1.0
"""A receive that was to wait and brings nothing takes so long at least, lest a server that never waits be stormed."""


class SqsLane:
    """One queue, open; what outlives a lane (receives, deletes, releases) is handed to it."""

    resumed: Mark | None = None

    def __init__(
        self,
        lane: LaneId,
        receives: Receives,
        deletes: Deletes,
        releases: Releases,
        watch: QueueWatch,
        clock: Clock,
        jitter: Jitter,
        errors: Counter,
    ) -> None:
        self.id = lane
        self._receives, self._deletes, self._releases, self._watch = receives, deletes, releases, watch
        self._clock, self._jitter, self._errors = clock, jitter, errors
        self._at_once = 1
        self._reply_bytes = 1
        """Of the largest reply of the last read."""
        self._failures = 0
        self._failing_since = 0.0

    def owned(self) -> bool:
        """See Lane: consumers of a queue compete for messages, not for the queue."""
        return True

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See Lane: one receive, several at once while they come back full.

        A cancelled read ends at once; what its receives bring all the same is given back.
        """
        self._watch.look()
        until = self._now() + wait
        while True:
            began = self._now()
            seconds = max(0, min(math.ceil(until - began), LONGEST_POLL))
            answers = await self._receive(limit, size, seconds)
            records = [record for answer in answers if not isinstance(answer, AwsFailure) for record in answer]
            failure = next((answer for answer in answers if isinstance(answer, AwsFailure)), None)
            if failure is None or records:  # of several receives some may have failed: the next read meets it alone
                break
            await self._back_off(failure)
            if self._now() >= until:
                return Chunk(lag_records=self._watch.news())
        self._failures = 0
        if not records:
            await self._pause(began + min(EMPTY_SECONDS, wait) - self._now())
        return Chunk(records, more=self._at_once > 1, lag_records=self._watch.news())

    async def _receive(self, limit: int, size: int, seconds: int) -> Sequence[Received]:
        several = min(self._at_once, -(-limit // PER_CALL), max(1, size // self._reply_bytes))
        if several > 1:
            counts = [min(PER_CALL, limit - start) for start in range(0, several * PER_CALL, PER_CALL)]
            # Without a wait: the one that finds nothing would hold up what the others found.
            answers = await self._received(counts, 0)
            if any(answers):
                return answers
        return await self._received([min(PER_CALL, limit)], seconds)

    async def _received(self, counts: Sequence[int], seconds: int) -> Sequence[Received]:
        answers = await self._receives.receive(counts, seconds)
        full, largest = 0, 1
        for count, answer in zip(counts, answers, strict=True):
            if not isinstance(answer, AwsFailure):
                full += len(answer) == count
                largest = max(largest, sum(record.size for record in answer))
        self._at_once = min(RECEIVES_AT_ONCE, max(1, 2 * full))
        self._reply_bytes = largest
        return answers

    async def _back_off(self, failure: AwsFailure) -> None:
        """Wait a little.  Raises LaneFailed where waiting does not help, or did not help for long."""
        self._failures += 1
        if self._failures == 1:
            self._failing_since = self._now()
        if not failure.passing or self._now() - self._failing_since >= FAILING_SECONDS:
            raise LaneFailed(failure.sentence)
        self._errors.inc()  # the last one, which leaves read, is counted by whoever sees it
        if self._failures == 1:  # one line for an outage, not one a call
            log.warning("sqs_receive_failing", mapping=self.id.mapping, lane=self.id.name, error=failure.sentence)
        await anyio.sleep(max(BACKOFF.delay(self._failures, self._jitter), min(failure.retry_after or 0, LONGEST_POLL)))

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await anyio.sleep(seconds)

    def usable(self, records: Sequence[Record], seconds: float) -> Sequence[Record]:
        """See Lane: those whose receipt lives for ``seconds`` more."""
        latest = self._now() + seconds
        alive = [record for record in records if receipt_of(record).expires >= latest]
        return records if len(alive) == len(records) else alive

    async def settle(self, records: Sequence[Record], mark: Mark | None) -> None:
        """See Lane: they are deleted soon, again and again while their receipts live.  Queues have no marks."""
        await self._deletes.add([Delivered(record.id, receipt_of(record)) for record in records])

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """See Lane."""
        await self._releases.release(records, delay)

    async def flush(self) -> None:
        """See Lane: return once everything settled is deleted, or given up for dead receipts."""
        await self._deletes.flush()

    def _now(self) -> float:
        return self._clock.instant().elapsed
