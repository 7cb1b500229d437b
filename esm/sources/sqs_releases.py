"""Messages that are given back before their visibility ends."""

import math
from collections.abc import Sequence

import anyio
import structlog

from esm.clients.aws_errors import AWS_ERRORS, AwsFailure, Kind, translate
from esm.domain.record import LaneId, Record
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock
from esm.sources.sqs_events import receipt_of
from esm.sources.sqs_queue import PER_CALL, Calls

log = structlog.get_logger()

AT_ONCE = 10
"""Calls under way at most, per release."""
TRIES = 3
"""A message that cannot be given back comes back by itself: not worth more."""
BACKOFF = Backoff(base=0.2, cap=1)
LONGEST_DELAY = 43_200
"""Seconds for which SQS hides a message at most."""
BACK_ALREADY = frozenset(
    ("ReceiptHandleIsInvalid", "InvalidParameterValue", "InvalidParameterValueException", "MessageNotInflight")
)
"""Codes of an entry that is not in flight any more, by this receipt at least."""


class Releases:
    """Gives messages back, as far as the worker's role allows it; never raises for what SQS answers."""

    def __init__(self, lane: LaneId, queue: Calls, clock: Clock, jitter: Jitter) -> None:
        self._lane, self._queue, self._clock, self._jitter = lane, queue, clock, jitter
        self._allowed = True

    async def release(self, records: Sequence[Record], delay: float = 0) -> None:
        """Have ``records`` come back after ``delay`` seconds, rounded up.  What came back already is left alone."""
        now = self._clock.instant().elapsed
        # Not by a dead receipt: someone else may have the message by now.
        handles = [receipt.handle for receipt in map(receipt_of, records) if receipt.expires > now]
        if not handles or not self._allowed:
            return
        seconds = min(math.ceil(delay), LONGEST_DELAY)
        limiter = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(handles), PER_CALL):
                tasks.start_soon(self._release, handles[start : start + PER_CALL], seconds, limiter)

    async def _release(self, handles: Sequence[str], seconds: int, limiter: anyio.CapacityLimiter) -> None:
        error = ""
        for tries in range(1, TRIES + 1):
            async with limiter:
                if not self._allowed:
                    return
                answer = await self._call(handles, seconds)
            if isinstance(answer, AwsFailure):
                error = answer.sentence
                if answer.kind is Kind.DENIED:
                    self._leave_alone(error)
                    return
                if not answer.passing:
                    break
            else:
                handles, error = answer
                if not handles:
                    return
            if tries < TRIES:
                await anyio.sleep(BACKOFF.delay(tries, self._jitter))
        log.warning(
            "sqs_release_failed", mapping=self._lane.mapping, lane=self._lane.name, messages=len(handles), error=error
        )

    async def _call(self, handles: Sequence[str], seconds: int) -> tuple[Sequence[str], str] | AwsFailure:
        """What is still to be given back, and why it was not."""
        try:
            failures = await self._queue.change_visibility(handles, seconds)
        except AWS_ERRORS as error:
            return translate(error, self._queue.subject)
        left = {index: code for index, code in failures.items() if code not in BACK_ALREADY}
        return [handles[index] for index in left], next(iter(left.values()), "")

    def _leave_alone(self, sentence: str) -> None:
        if self._allowed:
            self._allowed = False
            log.warning(
                "sqs_release_denied",
                mapping=self._lane.mapping,
                lane=self._lane.name,
                error=sentence,
                hint="Messages that are not delivered come back when their visibility ends.",
            )
