"""The next step for one batch until each of its records is settled; no I/O, time is always given.

Streams and Kafka: retries, halving, progress by report, age (delivery-semantics 3.4–3.6, 4.3).  Queues: delete what
succeeded, leave what failed to its visibility, hold the batch while the target refuses it (delivery-semantics 2.6).
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct, structs

from esm.domain.discarded import Reason, Response
from esm.domain.errors import MalformedReport
from esm.domain.events import EventKind
from esm.domain.instant import Instant
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.domain.record import Record
from esm.domain.report import failed_ids
from esm.domain.retry import FAILED, LONGEST_RETRY_AFTER, REFUSED, RetryPolicy

Records = Sequence[Record]
How = Literal["success", "partial", "failed", "timeout", "throttled", "refused"]


class Wait(Struct, frozen=True):
    """Nothing to do before ``until``, in seconds of ``Instant.elapsed``."""

    until: float


class Invoke(Struct, frozen=True):
    """Send these records in one event."""

    records: Records
    request_id: str


class Discard(Struct, frozen=True):
    """Give these records up: store a failure record, then call ``on_discarded``."""

    records: Records
    reason: Reason
    request_id: str
    invoke_count: int
    response: Response | None


Step = Wait | Invoke | Discard


class Verdict(Struct, frozen=True):
    """What an attempt came to."""

    how: How
    """The label of `esm_invocations_total`."""
    delivered: Records = ()
    """Settled now."""
    left: Records = ()
    """Queues: neither settled nor pending; their visibility brings them back."""
    error: str | None = None
    """A sentence for the log where it was no success."""


class Chance(Protocol):
    """What a rule may not make up by itself: fresh identifiers and luck."""

    def new_id(self) -> str:
        """A request id nobody used before (a UUID)."""
        ...

    def jitter(self) -> float:
        """A number in [0, 1)."""
        ...


class Attempt(Struct, frozen=True):
    """Records that are sent together, and what was spent on them."""

    records: Records
    request_id: str
    due: float
    failures: int = 0
    refusals: int = 0
    """In a row; only for the length of the back-off."""
    response: Response | None = None
    """The last answer, if the target was reached at all."""


class Delivery(Protocol):
    """The machine of one batch."""

    @property
    def pending(self) -> Records:
        """What is neither settled nor left, oldest first."""
        ...

    def next_step(self, now: Instant) -> Step | None:
        """What to do now; None = every record is settled or left.  The same answer until something happens."""
        ...

    def on_result(self, result: Outcome, now: Instant) -> Verdict:
        """The attempt of the last Invoke ended."""
        ...

    def on_too_large(self, now: Instant) -> Verdict:
        """The event of the last Invoke is larger than any target takes; nothing was sent."""
        ...

    def on_gone(self, usable: Records) -> Records:
        """Only ``usable`` of the last Invoke may still be sent; returns those that may not."""
        ...

    def on_discarded(self) -> None:
        """The failure record of the last Discard is stored."""
        ...


class _Stack:
    """Attempts of one batch, those with the oldest records on top."""

    def __init__(self, records: Records, now: Instant, chance: Chance) -> None:
        self._chance = chance
        self._waiting = [Attempt(records, chance.new_id(), now.elapsed)]

    @property
    def pending(self) -> Records:
        """See Delivery."""
        return [record for attempt in reversed(self._waiting) for record in attempt.records]

    def _piece(self, records: Records, now: Instant) -> Attempt:
        """A suffix or a half: fresh id, fresh counts, at once (delivery-semantics 3.4, recorded)."""
        return Attempt(records, self._chance.new_id(), now.elapsed)

    def _halve(self, attempt: Attempt, now: Instant) -> None:
        """The smaller, older half goes first and is finished before the other starts (delivery-semantics 3.5)."""
        middle = len(attempt.records) // 2
        older, newer = attempt.records[:middle], attempt.records[middle:]
        self._waiting += [self._piece(newer, now), self._piece(older, now)]

    def _refused(self, attempt: Attempt, result: Refused, now: Instant) -> Verdict:
        """No retry is spent and nothing is halved; Retry-After is honoured within reason."""
        delay = max(
            REFUSED.delay(attempt.refusals + 1, self._chance.jitter),
            min(result.retry_after or 0, LONGEST_RETRY_AFTER),
        )
        self._waiting.append(structs.replace(attempt, due=now.elapsed + delay, refusals=attempt.refusals + 1))
        return Verdict("throttled" if result.throttled else "refused", error=result.error)


class StreamDelivery(_Stack):
    """One batch of an ordered lane."""

    def __init__(self, records: Records, policy: RetryPolicy, kind: EventKind, now: Instant, chance: Chance) -> None:
        super().__init__(records, now, chance)
        self._policy = policy
        self._kind = kind
        self._giving_up: Discard | None = None

    def next_step(self, now: Instant) -> Step | None:
        """See Delivery.  Age is checked before each attempt and ends a wait."""
        if self._giving_up is None and self._waiting:
            self._giving_up = self._hopeless(self._waiting[-1], now)
        if self._giving_up is not None or not self._waiting:
            return self._giving_up
        attempt = self._waiting[-1]
        if attempt.due <= now.elapsed:
            return Invoke(attempt.records, attempt.request_id)
        look_again = now.elapsed + 60 if now.ages_paused else self._policy.expires_at(attempt.records, now)
        return Wait(max(min(attempt.due, look_again), now.elapsed + 0.001))  # a hair later: `expired` compares with <

    def _hopeless(self, attempt: Attempt, now: Instant) -> Discard | None:
        """The whole attempt when its retries are used up, else those of its records that are too old."""
        if self._policy.exhausted(attempt.failures):
            return Discard(
                attempt.records,
                Reason.RETRY_ATTEMPTS_EXHAUSTED,
                attempt.request_id,
                attempt.failures,
                attempt.response,
            )
        if expired := self._policy.expired(attempt.records, now):
            # AWS shows 1 even for records that were never sent, and no response for them (recorded).
            count = max(1, attempt.failures)
            return Discard(expired, Reason.RECORD_AGE_EXCEEDED, attempt.request_id, count, None)
        return None

    def on_discarded(self) -> None:
        """See Delivery.  What remains of an aged batch is another event, so it gets another request id."""
        assert self._giving_up is not None, "on_discarded without a Discard"
        given_up, self._giving_up = self._giving_up.records, None
        attempt = self._waiting.pop()
        if len(given_up) < len(attempt.records):
            gone = {record.at for record in given_up}
            rest = [record for record in attempt.records if record.at not in gone]
            self._waiting.append(structs.replace(attempt, records=rest, request_id=self._chance.new_id()))

    def on_result(self, result: Outcome, now: Instant) -> Verdict:
        """See Delivery."""
        attempt = self._waiting.pop()
        match result:
            case Succeeded():
                return self._on_reply(attempt, result, now)
            case Refused():
                return self._refused(attempt, result, now)
            case Failed():
                response = Response(result.executed_version, "Unhandled")
                spent = structs.replace(attempt, response=response)
                self._failed(spent, now, halve=self._policy.bisect or result.too_large)
                return Verdict("timeout" if result.timed_out else "failed", error=result.error)

    def on_too_large(self, now: Instant) -> Verdict:
        """See Delivery.  Batches are cut by size before, so this is a single record; more would be halved."""
        attempt = self._waiting.pop()
        error = "The event of this record alone is larger than 6,291,456 bytes; no target takes it."
        if self._policy.oversize_spends_retries or len(attempt.records) > 1:
            self._failed(structs.replace(attempt, response=None), now, halve=True)
        else:
            self._waiting.append(attempt)
            reason = Reason.MAXIMUM_PAYLOAD_SIZE_EXCEEDED
            self._giving_up = Discard(attempt.records, reason, attempt.request_id, 1, None)
        return Verdict("failed", error=error)

    def on_gone(self, usable: Records) -> Records:
        """See Delivery.  Records of an ordered lane are never gone while the lane is ours."""
        raise AssertionError("records of an ordered lane do not expire by themselves")

    def _on_reply(self, attempt: Attempt, result: Succeeded, now: Instant) -> Verdict:
        if not self._policy.reports:
            return Verdict("success", delivered=attempt.records)
        reached = structs.replace(attempt, response=Response(result.executed_version, None))
        try:
            again = failed_ids(result.reply, attempt.records, self._kind)
        except MalformedReport as error:
            self._failed(reached, now, halve=self._policy.bisect)
            return Verdict("failed", error=str(error))
        if not again:
            return Verdict("success", delivered=attempt.records)
        done, rest = self._split(attempt.records, again)
        if done:  # progress: a new batch with a fresh count, at once
            self._waiting.append(self._piece(rest, now))
        else:
            self._failed(reached, now, halve=self._policy.bisect)
        return Verdict("partial", delivered=done, error=f"The target reported {len(again)} records as failed.")

    def _split(self, records: Records, again: frozenset[str]) -> tuple[Records, Records]:
        """(done, rest): streams resume at the lowest reported record, Kafka retries just those listed.

        Records lie in the order of their positions, which are numbers: the first with a reported id is the lowest.
        """
        if self._policy.resumes_at_lowest:
            lowest = next(index for index, record in enumerate(records) if record.id in again)
            return records[:lowest], records[lowest:]
        return [r for r in records if r.id not in again], [r for r in records if r.id in again]

    def _failed(self, attempt: Attempt, now: Instant, halve: bool) -> None:
        if halve and len(attempt.records) > 1:  # halving is no retry
            self._halve(attempt, now)
            return
        failures = attempt.failures + 1
        delay = FAILED.delay(failures, self._chance.jitter)
        self._waiting.append(structs.replace(attempt, failures=failures, refusals=0, due=now.elapsed + delay))


class QueueDelivery(_Stack):
    """One batch of a queue: each message gets one attempt per receive; a refusal is not an attempt."""

    def __init__(self, records: Records, reports: bool, kind: EventKind, now: Instant, chance: Chance) -> None:
        super().__init__(records, now, chance)
        self._reports = reports
        self._kind = kind

    def next_step(self, now: Instant) -> Step | None:
        """See Delivery."""
        if not self._waiting:
            return None
        attempt = self._waiting[-1]
        if attempt.due <= now.elapsed:
            return Invoke(attempt.records, attempt.request_id)
        return Wait(attempt.due)

    def on_result(self, result: Outcome, now: Instant) -> Verdict:
        """See Delivery."""
        attempt = self._waiting.pop()
        match result:
            case Succeeded():
                return self._on_reply(attempt, result)
            case Refused():
                return self._refused(attempt, result, now)
            case Failed():
                how: How = "timeout" if result.timed_out else "failed"
                if result.too_large and len(attempt.records) > 1:
                    self._halve(attempt, now)
                    return Verdict(how, error=result.error)
                return Verdict(how, left=attempt.records, error=result.error)

    def on_too_large(self, now: Instant) -> Verdict:
        """See Delivery.  A message is at most 1 MiB; should one not fit all the same, it is left to the queue."""
        attempt = self._waiting.pop()
        if len(attempt.records) > 1:
            self._halve(attempt, now)
            return Verdict("failed", error="The event is larger than 6,291,456 bytes; it is sent in halves.")
        error = "The event of this message alone is larger than 6,291,456 bytes; the message goes back to the queue."
        return Verdict("failed", left=attempt.records, error=error)

    def on_gone(self, usable: Records) -> Records:
        """See Delivery."""
        attempt = self._waiting.pop()
        alive = {record.at for record in usable}
        if usable:  # another event than before, so another request id
            self._waiting.append(structs.replace(attempt, records=usable, request_id=self._chance.new_id()))
        return [record for record in attempt.records if record.at not in alive]

    def on_discarded(self) -> None:
        """See Delivery.  A queue's own redrive policy gives up, never we."""
        raise AssertionError("records of a queue are never discarded by the mapping")

    def _on_reply(self, attempt: Attempt, result: Succeeded) -> Verdict:
        if not self._reports:
            return Verdict("success", delivered=attempt.records)
        try:
            again = failed_ids(result.reply, attempt.records, self._kind)
        except MalformedReport as error:
            return Verdict("failed", left=attempt.records, error=str(error))
        if not again:
            return Verdict("success", delivered=attempt.records)
        done = [record for record in attempt.records if record.id not in again]
        left = [record for record in attempt.records if record.id in again]
        return Verdict(
            "partial", delivered=done, left=left, error=f"The target reported {len(left)} messages as failed."
        )


NewDelivery = Callable[[Records, Instant], Delivery]
