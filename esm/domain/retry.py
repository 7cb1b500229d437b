"""How long to wait before the next attempt, and when to give up (delivery-semantics 3.4)."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from esm.domain.instant import Instant
from esm.domain.record import Record

Jitter = Callable[[], float]
"""Chance in [0, 1), given by the caller."""

FOREVER = -1


_LEAST, _SPREAD = 0.95, 0.4
"""Of a back-off's length: between 0.95 and 1.35 times."""


class Backoff(Struct, frozen=True):
    """Exponential with jitter: 0.95–1.35 of ``base`` × 2ⁿ⁻¹, never more than ``cap``; all in seconds.

    At the cap it still varies (0.7–1 of it), so that what failed together does not come back together for ever.
    """

    base: float
    cap: float

    def delay(self, times: int, jitter: Jitter) -> float:
        """Seconds to wait after the ``times``-th failure in a row, counted from 1."""
        doubled = self.base * 2.0 ** min(times - 1, 30)  # bounded: 2.0 ** 1024 overflows a float
        return min(doubled, self.cap / (_LEAST + _SPREAD)) * (_LEAST + _SPREAD * jitter())


FAILED = Backoff(base=0.2, cap=60)
"""After a failure of the target: AWS was recorded at 0.19–0.27 s, then 0.39 s."""
REFUSED = Backoff(base=0.5, cap=60)
"""After a refusal, a back-off of its own: the target asked for room."""
LONGEST_RETRY_AFTER = 900.0
"""Seconds at most that a target's Retry-After can hold a batch: no header may stall a lane for days."""


class RetryPolicy(Struct, frozen=True):
    """When the records of an ordered lane are given up, and how a failing batch is narrowed down."""

    max_retries: int = FOREVER
    """`maximum_retry_attempts`: retries after the first attempt; −1 without end."""
    max_age: float = FOREVER
    """`maximum_record_age_in_seconds`; −1 without end."""
    bisect: bool = False
    """`bisect_batch_on_function_error`."""
    reports: bool = False
    """`function_response_types: [ReportBatchItemFailures]`."""
    resumes_at_lowest: bool = True
    """Streams resume at the lowest reported record; Kafka retries just those listed (delivery-semantics 3.6, 4.3)."""
    oversize_spends_retries: bool = True
    """Streams spend a retry on an event that is too large to send; Kafka discards it at once (delivery-semantics 1)."""

    def exhausted(self, failures: int) -> bool:
        """Whether ``failures`` failed attempts were one more than the retries allow."""
        return self.max_retries != FOREVER and failures > self.max_retries

    def expired(self, records: Sequence[Record], now: Instant) -> list[Record]:
        """Those of ``records`` that are too old: they alone are discarded, never the rest of the batch."""
        if self.max_age == FOREVER or now.ages_paused:
            return []
        oldest = now.epoch - self.max_age
        return [record for record in records if record.arrived_at < oldest]

    def expires_at(self, records: Sequence[Record], now: Instant) -> float:
        """When the first of ``records`` becomes too old, in seconds of ``Instant.elapsed``."""
        if self.max_age == FOREVER:
            return float("inf")
        return now.elapsed + min(record.arrived_at for record in records) + self.max_age - now.epoch
