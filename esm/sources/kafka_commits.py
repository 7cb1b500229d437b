"""How far the lanes of one generation are settled: noted by them, committed for all of them at once."""

from collections.abc import Sequence
from contextlib import suppress

import anyio
import msgspec
import structlog

from esm.clients.kafka import Committed, Generation, GroupConsumer
from esm.domain.errors import LeaseStoreFailed
from esm.domain.record import Mark, OpenBatch, Position

log = structlog.get_logger()

FLUSH_SECONDS = 10.0
AGAIN_SECONDS = 0.2
MOST_METADATA = 4_000
"""Bytes beside an offset; brokers take 4,096 by default (`offset.metadata.max.bytes`)."""


class _Attempts(msgspec.Struct):
    """What stands beside a committed offset: first and last offset, failures and request id of each open batch."""

    esm: list[tuple[int, int, int, str]] = []


class Commits:
    """The offsets of one generation.  Raises LaneLost once the group went on without us."""

    def __init__(self, consumer: GroupConsumer, generation: Generation) -> None:
        self._consumer, self._generation = consumer, generation
        self._mapping = consumer.settings.mapping
        self._noted: dict[int, Committed] = {}
        self._written: dict[int, Committed] = {}
        self._lock = anyio.Lock()  # an older offset must not arrive after a newer one
        self._troubled = False

    def note(self, partition: int, kept: Committed) -> None:
        """Have ``kept`` committed with the next ``write``."""
        self._noted[partition] = kept

    def noted(self, partition: int) -> Committed | None:
        """What was noted last, committed or not."""
        return self._noted.get(partition)

    def forget(self, partition: int) -> None:
        """What was noted for ``partition`` means nothing any more."""
        self._noted.pop(partition, None)
        self._written.pop(partition, None)

    async def write(self) -> str | None:
        """Commit what is not committed yet; answers None, or why it could not be done now.  Raises LaneLost."""
        async with self._lock:
            due = {each: kept for each, kept in self._noted.items() if self._written.get(each) != kept}
            if not due:
                return None
            why = await self._consumer.commit(self._generation, due)
            if why is None:
                self._written.update(due)
            if (why is not None) != self._troubled:  # one line for an outage, and one for its end
                self._troubled = why is not None
                event = "kafka_commits_failing" if why else "kafka_commits_work_again"
                log.warning(event, mapping=self._mapping, error=why)
            return why

    async def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Return once all is committed.  Raises LaneLost, and LeaseStoreFailed after ``seconds``."""
        why: str | None = None
        with anyio.move_on_after(seconds):
            while True:
                if (why := await self.write()) is None:
                    return
                await anyio.sleep(AGAIN_SECONDS)
        raise LeaseStoreFailed(why or f"{self._consumer.settings.subject}: no commit was answered in {seconds:g} s.")


def kept_of(mark: Mark, start: int) -> Committed:
    """What a lane that began at offset ``start`` wants remembered: the next offset, and the attempts already spent."""
    offset = start if mark.through is None else mark.through[0] + 1
    attempts = [(each.first[0], each.last[0], each.failures, each.request_id) for each in mark.attempts]
    text = ""
    while attempts and len(text := msgspec.json.encode(_Attempts(attempts)).decode()) > MOST_METADATA:
        attempts.pop()  # these batches get a fresh budget if the lane moves now
    return Committed(offset, text if attempts else "")


def mark_of(kept: Committed) -> Mark | None:
    """What ``kept`` says to the lane that goes on there; None where nothing was settled.

    Ranges settled above the offset are not kept: they are read again.
    """
    through: Position | None = (kept.offset - 1, 0) if kept.offset > 0 else None
    attempts = _attempts(kept.metadata)
    return Mark(through, attempts=tuple(attempts)) if through or attempts else None


def _attempts(metadata: str) -> Sequence[OpenBatch]:
    with suppress(msgspec.MsgspecError):  # another consumer's words
        found = msgspec.json.decode(metadata or "{}", type=_Attempts).esm
        return [OpenBatch((first, 0), (last, 0), failures, name) for first, last, failures, name in found]
    return ()
