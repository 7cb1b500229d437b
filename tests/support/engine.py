"""A worker of memory adapters on time that jumps: what tests of the engine and the simulation are made of."""

import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import anyio

from esm.domain.delivery import Chance, NewDelivery, QueueDelivery, StreamDelivery
from esm.domain.events import EventKind, KinesisKind, Origin, SqsKind
from esm.domain.filtering import Filters
from esm.domain.record import LaneId
from esm.domain.retry import RetryPolicy
from esm.engine.buffer import Buffer
from esm.engine.mapping import Mapping
from esm.engine.plan import Plan
from esm.engine.slots import SlotPools
from esm.engine.worker import Worker
from esm.ports import Clock, Destination, Source, Target
from esm.telemetry.metrics import Metrics
from tests.support.time import LoopClock

TICK = 0.01
"""Virtual seconds between two looks at a condition."""
ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"


class Seeded:
    """``Chance`` that repeats itself."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def new_id(self) -> str:
        """A UUID."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()


class World:
    """One worker and what its mappings share."""

    def __init__(self, *, concurrency: int = 1000, buffer_bytes: int = 256 * 2**20, seed: int = 1) -> None:
        self.clock: Clock = LoopClock()
        self.chance: Chance = Seeded(seed)
        self.metrics = Metrics("test")
        self.pools = SlotPools(concurrency)
        self.buffer = Buffer(buffer_bytes)
        self.mappings: list[Mapping] = []

    def queue(
        self,
        source: Source,
        target: Target,
        *,
        name: str = "orders",
        reports: bool = False,
        batches: int = 5,
        batch_size: int = 10,
        window: float = 0,
        filters: Filters | None = None,
    ) -> Mapping:
        """A mapping of a queue."""
        kind = SqsKind(Origin(ARN))
        plan = Plan(
            name=name,
            uuid=f"uuid-of-{name}",
            source_kind="sqs",
            source_name=name,
            source=source,
            kind=kind,
            target=target,
            ordered=False,
            batch_size=batch_size,
            window=window,
            batches=batches,
            new_delivery=lambda records, now: QueueDelivery(records, reports, kind, now, self.chance),
            filters=filters,
        )
        return self._add(plan)

    def stream(
        self,
        source: Source,
        target: Target,
        *,
        name: str = "clicks",
        policy: RetryPolicy | None = None,
        batch_size: int = 100,
        window: float = 0,
        factor: int = 1,
        destination: Destination | None = None,
        drops: bool = False,
        filters: Filters | None = None,
    ) -> Mapping:
        """A mapping of an ordered source."""
        kind = KinesisKind(Origin(ARN))
        plan = Plan(
            name=name,
            uuid=f"uuid-of-{name}",
            source_kind="kinesis",
            source_name=name,
            source=source,
            kind=kind,
            target=target,
            ordered=True,
            batch_size=batch_size,
            window=window,
            batches=factor,
            new_delivery=_streams(policy or RetryPolicy(), kind, self.chance),
            destination=destination,
            drops=drops,
            filters=filters,
        )
        return self._add(plan)

    def _add(self, plan: Plan) -> Mapping:
        metrics = self.metrics.mapping(plan.name, plan.source_kind)
        mapping = Mapping(plan, self.pools.of("target"), self.buffer, self.clock, self.chance, metrics)
        self.mappings.append(mapping)
        return mapping

    def count(self, metric: str, **labels: str) -> float:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0

    @asynccontextmanager
    async def running(self, grace: float | None = None) -> AsyncGenerator[Worker, None]:
        """The worker at work; stopped softly at the end unless it was stopped before."""
        worker = Worker(self.mappings, self.clock, grace)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            yield worker
            worker.stop()


def _streams(policy: RetryPolicy, kind: EventKind, chance: Chance) -> NewDelivery:
    return lambda records, now: StreamDelivery(records, policy, kind, now, chance)


async def until(condition: Callable[[], bool], within: float = 3600) -> None:
    """Wait until ``condition`` holds; fails after ``within`` virtual seconds."""
    began = anyio.current_time()
    with anyio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - any condition, on time that jumps
            await anyio.sleep(max(TICK, (anyio.current_time() - began) / 100))


def bodies(events: Sequence[bytes], member: str = "body") -> list[list[str]]:
    """Per event the text of each of its records."""
    import msgspec

    return [[record[member] for record in msgspec.json.decode(event)["Records"]] for event in events]


def lane(mapping: str, name: str) -> LaneId:
    """A lane of a mapping."""
    return LaneId(mapping, name)
