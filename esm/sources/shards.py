"""What Kinesis and DynamoDB Streams share: reading one shard at a decent pace, through every failure that may pass."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio
import anyio.lowlevel
import structlog
from botocore.parsers import ResponseParserError
from msgspec import Struct

from esm.clients.aws_errors import AWS_ERRORS, AwsFailure, Subject, translate
from esm.domain.errors import LaneFailed
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import Chunk, Gap, LaneEnd, LaneId, Position, Record
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock
from esm.telemetry.metrics import MappingMetrics

log = structlog.get_logger()

FAILING_SECONDS = 300.0
"""A shard that could not be read for so long has failed: its lane is closed and opened again."""
_AGAIN = Backoff(base=0.5, cap=20)
"""After a throttle, a server error, a lost connection."""
_SAY_AGAIN_SECONDS = 60.0
_RENEWALS = 10


class IteratorExpired(Exception):
    """The iterator is older than the service keeps it; the records are still there."""


class PositionTrimmed(Exception):
    """The position left the source: reading can go on only at the horizon."""


class Pace(Struct, frozen=True):
    """Seconds between two calls of GetRecords on one shard."""

    busy: float
    """While records remain: the service's limit."""
    idle: float = 1.0
    """After a reply that reached the tip."""


class Page(Struct, frozen=True):
    """One reply of GetRecords."""

    records: Sequence[Record]
    """Those that are wanted: from the asked moment on."""
    through: int | None
    """Position of the last record of the reply, wanted or not; None = it had none."""
    size: int
    """How many records the reply had, wanted or not."""
    iterator: str | None
    """For the next call; None = the shard is closed and was read to its end."""
    behind: float | None = None
    """Seconds behind the tip of the shard, where the source says so."""
    children: tuple[str, ...] = ()
    """With the end of the shard, where the source says so."""


class ShardCalls(Protocol):
    """The calls of one shard.  Both methods raise AWS_ERRORS."""

    @property
    def most(self) -> int:
        """Records in one reply at most."""
        ...

    async def iterator(self, start: Start) -> str:
        """An iterator for ``start``.  Raises PositionTrimmed."""
        ...

    async def page(self, iterator: str, limit: int, moment: float | None) -> Page:
        """One GetRecords; without the leading records that arrived before ``moment``.

        Raises IteratorExpired, PositionTrimmed.
        """
        ...


def answered(reply: Mapping[str, object], member: str) -> None:
    """Make sure that ``reply`` has ``member``, which every answer of the service has.

    botocore reads garbage with status 200 (a proxy's page) as an empty answer: without records and without a next
    iterator it would say that the shard has ended.  Raises ResponseParserError, one of AWS_ERRORS.
    """
    if member not in reply:
        raise ResponseParserError(f"{member} is missing in the answer")


class ReadFailures:
    """The failures of one shard in a row: says the first, and when to try again."""

    def __init__(self, lane: LaneId, clock: Clock, jitter: Jitter, metrics: MappingMetrics) -> None:
        self._lane, self._clock, self._jitter = lane, clock, jitter
        self._errors = metrics.polls["error"]
        self._times = 0
        self._since = self._said_at = 0.0

    def failed(self, failure: AwsFailure) -> float:
        """When to try again (elapsed).  Raises LaneFailed where that makes no sense, or made none for too long."""
        now = self._clock.instant().elapsed
        if not failure.passing:
            raise LaneFailed(failure.sentence)
        if not self._times:
            self._since = now
        self._times += 1
        if now - self._since > FAILING_SECONDS:
            raise LaneFailed(f"{failure.sentence} It has been so for {now - self._since:.0f} s.")
        self._errors.inc()  # the last one, which leaves read, is counted by whoever sees it
        if self._times == 1 or now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            log.warning("shard_not_read", lane=str(self._lane), why=failure.sentence, times=self._times)
        return now + max(_AGAIN.delay(self._times, self._jitter), failure.retry_after or 0.0)

    def works(self) -> None:
        """The source answered."""
        if self._times:
            log.info("shard_read_again", lane=str(self._lane), after_failures=self._times)
        self._times = 0


class PacedReader:
    """A ``ports.ShardReader`` of one shard from ``start`` on.

    Iterators are made when they are needed: at the first read, and after one expired, then behind the last record that
    was *read*, whatever is settled by then.
    """

    def __init__(
        self, calls: ShardCalls, subject: Subject, start: Start, pace: Pace, clock: Clock, failures: ReadFailures
    ) -> None:
        self._calls, self._subject, self._pace, self._clock, self._failures = calls, subject, pace, clock, failures
        self._start = start
        self._moment = start.moment if start.after is None else None
        self._iterator: str | None = None
        self._through: Position | None = start.after
        self._gap: Gap | None = None
        self._ended: LaneEnd | None = None
        self._asked = self._due = float("-inf")
        """When GetRecords was called last, and when it may be called next (elapsed)."""
        self._renewals = 0
        """Iterators in a row that could not be used."""
        self._more = False
        self._lag: float | None = None
        self._entry_size = 0
        """Bytes of an entry, on the average of the last reply."""

    async def read(self, limit: int, size: int, wait: float) -> Chunk:
        """See ShardReader: calls GetRecords until a reply brings something or ``wait`` seconds are over."""
        deadline = self._now() + wait
        # The service's own limit is always waited for: else a caller that does not wait would turn in a circle.
        latest = max(deadline, self._asked + self._pace.busy)
        while self._ended is None:
            if self._due > latest:
                await self._sleep_until(deadline)
                break
            await self._sleep_until(self._due)
            latest = deadline
            page = await self._ask(self._room(limit, size))
            if page is not None and (page.records or page.iterator is None or self._gap):
                return self._chunk(page.records)
        await anyio.lowlevel.checkpoint()
        return self._chunk(())

    def _room(self, limit: int, size: int) -> int:
        fitting = size // self._entry_size if self._entry_size else limit
        return max(1, min(limit, self._calls.most, fitting))

    async def _ask(self, limit: int) -> Page | None:
        """One GetRecords; None where it has to be repeated, at ``_due``."""
        self._asked = self._now()
        self._due = self._asked + self._pace.busy
        try:
            if self._iterator is None:
                self._iterator = await self._calls.iterator(self._start)
            page = await self._calls.page(self._iterator, limit, self._moment)
        except IteratorExpired as error:
            self._renew(error)
            return None
        except PositionTrimmed as error:
            self._renew(error)
            self._restart_at_horizon()
            return None
        except AWS_ERRORS as error:
            self._due = max(self._due, self._failures.failed(translate(error, self._subject)))
            self._lag = None
            return None
        self._failures.works()
        self._renewals = 0
        self._went(page, limit)
        return page

    def _renew(self, error: Exception) -> None:
        """Have the next call ask for an iterator first.  Raises LaneFailed where that never helps."""
        self._iterator = None
        self._renewals += 1
        if self._renewals > _RENEWALS:
            raise LaneFailed(
                f"{self._subject.what} in {self._subject.region}: each of {_RENEWALS} iterators in a row could not be "
                f"used when it was new ({error}); the lane is opened again."
            )

    def _restart_at_horizon(self) -> None:
        """What lay between the position and the horizon is lost, if there was anything: nobody can tell any more."""
        if self._start.after is not None:
            self._gap = Gap(self._start.after, None)
            self._start = HORIZON

    def _went(self, page: Page, limit: int) -> None:
        """Note where ``page`` leaves us."""
        self._iterator = page.iterator
        if page.through is not None:
            self._through = (page.through, 0)
            self._start = Start(after=self._through)
        if page.records:
            self._moment = None  # later records may bear an older time: times are approximate, the order is not
            self._entry_size = sum([len(record.entry) for record in page.records]) // len(page.records)
        self._lag = page.behind
        if page.iterator is None:
            self._ended, self._more = LaneEnd(page.children), False
            return
        # A source that does not say how far it is: a reply with records may be followed by another.
        remain = page.size > 0 if page.behind is None else page.behind > 0
        self._more = remain or page.size >= limit
        if not self._more:
            self._due = self._asked + self._pace.idle

    def _chunk(self, records: Sequence[Record]) -> Chunk:
        gap, self._gap = self._gap, None
        if gap is not None and records:
            gap = Gap(gap.after, records[0].at)
        return Chunk(records, self._through, self._more, lag_seconds=self._lag, ended=self._ended, gap=gap)

    async def _sleep_until(self, when: float) -> None:
        await anyio.sleep(max(0.0, when - self._now()))

    def _now(self) -> float:
        return self._clock.instant().elapsed
