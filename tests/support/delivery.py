"""Batches by letters, targets that break for some of them, and the walk of a delivery machine to its end."""

from collections.abc import Callable, Sequence
from itertools import count

import msgspec

from esm.domain.delivery import Delivery, Discard, Invoke, Records, Wait
from esm.domain.events import DynamoDBKind, EventKind, KafkaKind, KinesisKind, Origin, SqsKind
from esm.domain.instant import Instant
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.domain.record import LaneId, Record

NOON = 1_767_268_800.0
"""Epoch seconds at which the clock of a walk starts: 2026-01-01T12:00:00Z."""
SHARD = LaneId("clicks", "shardId-000000000006")
PARTITION = LaneId("payments", "sensor-0")
QUEUE = LaneId("orders", "orders")
SQS = SqsKind(Origin("arn:aws:sqs:eu-west-1:111122223333:orders"))
KINESIS = KinesisKind(Origin("arn:aws:kinesis:eu-west-1:111122223333:stream/meters"))
DYNAMODB = DynamoDBKind(
    Origin("arn:aws:dynamodb:eu-west-1:111122223333:table/customers/stream/2026-01-01T00:00:00.000")
)
KAFKA = KafkaKind(Origin("", bootstrap="kafka-1:9092,kafka-2:9092"))


def record(
    position: int,
    name: str = "",
    lane: LaneId = SHARD,
    key: bytes | None = None,
    arrived_at: float = NOON,
    entry: bytes = b"{}",
    sub: int = 0,
) -> Record:
    """One record; its id is its position, of a partition with topic and partition before it.  Walks show its name."""
    identifier = f"{lane.name}:{position}" if lane == PARTITION else str(position)
    return Record(lane, position, sub, identifier, key, arrived_at, entry, handle=name or str(position))


def batch_of(names: str, lane: LaneId = SHARD, arrived_at: float = NOON) -> list[Record]:
    """A record per letter, at positions 1, 2, …"""
    return [record(number, name, lane, arrived_at=arrived_at) for number, name in enumerate(names, 1)]


def names_of(records: Records) -> str:
    """The letters of ``records``."""
    return "".join([str(each.handle) for each in records])


def named(records: Records, names: str) -> list[Record]:
    """Those of ``records`` that bear one of the letters ``names``."""
    return [each for each in records if each.handle in set(names)]


class Luck:
    """A Chance without any: ids r1, r2, …, and the same jitter each time."""

    def __init__(self, jitter: float = 0.5) -> None:
        self._jitter = jitter
        self._ids = count(1)

    def new_id(self) -> str:
        """The next id."""
        return f"r{next(self._ids)}"

    def jitter(self) -> float:
        """Always the same."""
        return self._jitter


def at(seconds: float = 0.0, ages_paused: bool = False) -> Instant:
    """``seconds`` after noon."""
    return Instant(seconds, NOON + seconds, ages_paused)


Answer = Callable[[Records], Outcome]
"""How a target takes the records of an attempt."""


def takes_all(records: Records) -> Outcome:
    """A target that is well."""
    return Succeeded(b"null")


def breaks_for(names: str, error: str = "ValueError: poison") -> Answer:
    """A target that raises when a batch holds one of ``names``."""
    return lambda records: Failed(error) if named(records, names) else Succeeded(b"null")


def report_of(records: Records, kind: EventKind = KINESIS) -> bytes:
    """The reply that names ``records`` as failed, as a handler for ``kind`` writes it."""
    identifiers: list[object] = [
        {"partition": each.lane.name, "offset": each.position} if isinstance(kind, KafkaKind) else each.id
        for each in records
    ]
    return msgspec.json.encode({"batchItemFailures": [{"itemIdentifier": each} for each in identifiers]})


def reports(names: str, kind: EventKind = KINESIS) -> Answer:
    """A target that reports those of ``names`` which a batch holds."""
    return lambda records: Succeeded(report_of(named(records, names), kind))


def in_turn(*answers: Outcome) -> Answer:
    """A target that gives ``answers``, then is well."""
    left = list(answers)
    return lambda records: left.pop(0) if left else Succeeded(b"null")


REFUSED = Refused("429 Too Many Requests", throttled=True)


class Walk:
    """What happened to a batch on its way to the end."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        """``invoke 1234``, ``discard 2``."""
        self.request_ids: list[str] = []
        """Of each attempt."""
        self.started: list[float] = []
        """Of each attempt, seconds."""
        self.discards: list[Discard] = []
        self.delivered: list[Record] = []
        self.left: list[Record] = []
        self.outcomes: list[str] = []
        """What each attempt came to."""

    @property
    def pauses(self) -> Sequence[float]:
        """Seconds between the starts of attempts that follow each other."""
        return [round(later - earlier, 6) for earlier, later in zip(self.started, self.started[1:], strict=False)]


def walked(machine: Delivery, answer: Answer, start: float = 0.0, most: int = 200) -> Walk:
    """Take ``machine`` to its end; attempts take no time, waits are skipped."""
    walk, now = Walk(), start
    for _ in range(most):
        step = machine.next_step(at(now))
        match step:
            case None:
                return walk
            case Wait(until):
                assert until > now, "a wait that is already over"
                now = until
            case Invoke(records, request_id):
                assert records, "an empty batch"
                walk.steps.append(f"invoke {names_of(records)}")
                walk.request_ids.append(request_id)
                walk.started.append(now)
                verdict = machine.on_result(answer(records), at(now))
                walk.outcomes.append(verdict.how)
                walk.delivered += verdict.delivered
                walk.left += verdict.left
            case Discard(records):
                assert records, "an empty discard"
                walk.steps.append(f"discard {names_of(records)}")
                walk.discards.append(step)
                machine.on_discarded()
    raise AssertionError(f"no end after {most} steps: {walk.steps[-5:]}")


def walk(machine: Delivery, answer: Answer) -> list[str]:
    """The attempts and discards of ``machine`` in order: ``["invoke 12", "discard 1"]``."""
    return walked(machine, answer).steps
