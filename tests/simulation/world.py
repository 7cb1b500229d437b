"""One world: a worker on memory adapters, faults by seed, kills, restarts; at last all is well and it drains."""

import random
from collections.abc import Awaitable, Callable, Mapping

import anyio
import msgspec

from esm.destinations.memory import MemoryDestination
from esm.domain.discarded import Discarded
from esm.domain.errors import DestinationUnavailable, LeaseStoreFailed
from esm.domain.leasing import TRIM_HORIZON, Lease
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.domain.record import LaneId, Mark
from esm.domain.retry import RetryPolicy
from esm.engine.shard_feed import LeasedSource
from esm.leases.memory import MemoryLeases
from esm.ports import Invocation, Source
from esm.sources.memory import MemoryQueue
from esm.sources.memory_group import MemoryGroup
from esm.sources.memory_shards import MemoryStream
from esm.targets.memory import MemoryTarget
from tests.simulation.ledger import Ledger
from tests.support.engine import World, until
from tests.support.time import LoopClock

SECONDS = 600.0
"""Virtual seconds for which things go wrong."""
DRAIN_SECONDS = 3 * 3600.0
"""Virtual seconds within which a healthy world must have settled everything."""


class Simulation:
    """A world drawn from ``seed``."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.healthy = False
        self.clock = LoopClock()
        self.records = self.random.randint(30, 250)
        self.batch_size = self.random.choice((1, 3, 10, 50))
        self.window = self.random.choice((0, 0, 1, 5))
        self.failing = self.random.choice((0.0, 0.05, 0.3))
        self.refusing = self.random.choice((0.0, 0.05, 0.3))
        self.slowness = self.random.choice((0.0, 0.2, 5.0))
        self.outage = self._span()
        self.destination_outage = self._span()
        self.kills = self.random.randint(0, 3)
        self.parts: list[QueuePart | GroupPart | StreamPart] = [QueuePart(self), GroupPart(self), StreamPart(self)]

    def _span(self) -> tuple[float, float]:
        """An hour in one world of twenty, else seconds, or nothing."""
        start = self.random.uniform(0, SECONDS / 2)
        length = 3600.0 if self.random.random() < 0.05 else self.random.choice((0.0, 5.0, 60.0))
        return start, start + length

    def chance(self, probability: float) -> bool:
        """Whether something goes wrong now."""
        return not self.healthy and self.random.random() < probability

    def within(self, span: tuple[float, float]) -> bool:
        """Whether an outage is on."""
        return not self.healthy and span[0] <= self.clock.instant().elapsed < span[1]

    async def run(self) -> None:
        """From the first record to the last; raises TimeoutError when a healthy world does not settle everything."""
        async with anyio.create_task_group() as tasks:
            for part in self.parts:
                tasks.start_soon(part.feed)
            for _ in range(self.kills):
                await self._life(self.random.uniform(1, SECONDS / 3), kill=True)
            rest = SECONDS - self.clock.instant().elapsed
            await self._life(max(1.0, rest), kill=False)
        self.healthy = True
        await self._life(DRAIN_SECONDS, kill=False, drain=True)

    async def _life(self, seconds: float, *, kill: bool, drain: bool = False) -> None:
        """One process: it lives for ``seconds`` or until all is settled, and is then killed or stopped."""
        world = World(seed=self.random.getrandbits(32))
        for part in self.parts:
            part.mapping(world)
        async with anyio.create_task_group() as tasks:
            async with world.running() as worker:
                if drain:
                    await until(lambda: not any(part.ledger.open for part in self.parts), within=seconds)
                else:
                    await anyio.sleep(seconds)
                if kill:
                    for part in self.parts:
                        part.die()
                    worker.stop_now()
            tasks.cancel_scope.cancel()

    # -- what targets and destinations do

    def rule(self, ledger: Ledger, poison: Callable[[str], bool]) -> Callable[[Invocation], Awaitable[Outcome]]:
        """The target of a part: slow, failing, refusing or away as the seed wants it; poison always fails."""

        async def answer(call: Invocation) -> Outcome:
            names = [_name(record) for record in msgspec.json.decode(call.event)["Records"]]
            if self.within(self.outage) or self.chance(self.refusing):
                return Refused("busy", throttled=True, retry_after=self.random.choice((None, 1.0)))
            ledger.began(names)
            try:
                await anyio.sleep(self.random.random() * self.slowness)
                if any(poison(name) for name in names):
                    return Failed("poison")
                if self.chance(self.failing):
                    return Failed("bad luck")
                ledger.took(names)
                return Succeeded(b"")
            finally:
                ledger.ended(names)

        return answer

    def destination(self, ledger: Ledger) -> MemoryDestination:
        """A destination that is away at times."""

        def rule(what: Discarded) -> DestinationUnavailable | None:
            if self.within(self.destination_outage):
                return DestinationUnavailable("away")
            ledger.gave_up([_name(msgspec.json.decode(record.entry)) for record in what.records])
            return None

        return MemoryDestination(rule)

    async def feed(self, put: Callable[[int], None]) -> None:
        """Put records in, in bursts, over the time of trouble."""
        done = 0
        while done < self.records:
            burst = min(self.random.randint(1, 40), self.records - done)
            for number in range(done, done + burst):
                put(number)
            done += burst
            await anyio.sleep(self.random.uniform(0, SECONDS / 20))


def _name(entry: dict[str, str]) -> str:
    """What a record is called, whatever its source."""
    return entry["body"] if "body" in entry else entry["data"]


def _poison(name: str) -> bool:
    return name.endswith("7") and int(name.rsplit("-", 1)[1]) % 50 == 7


class QueuePart:
    """A queue whose redrive policy gives up."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.ledger = Ledger("queue", ordered=False, batch_size=simulation.batch_size)
        self.queue = MemoryQueue(LaneId("queue", "queue"), simulation.clock, visibility=60)
        self.queue.refuses_delete = lambda record: simulation.chance(0.05)
        self._target = MemoryTarget(simulation.rule(self.ledger, lambda name: False), seconds=20, keep=0)

    def mapping(self, world: World) -> None:
        """A new process opens it."""
        simulation = self._simulation
        world.queue(self.queue, self._target, name="queue", batch_size=simulation.batch_size, window=simulation.window)

    def die(self) -> None:
        """A killed process gives nothing back: what it had stays hidden, as a release that never came."""
        for message in self.queue.messages.values():
            message.receipt += 1

    async def feed(self) -> None:
        """Send messages."""

        def put(number: int) -> None:
            self.ledger.put(f"queue-{number}", "queue", number)
            self.queue.send(f"queue-{number}")

        await self._simulation.feed(put)


class GroupPart:
    """Three partitions of a group; one is taken away and given back now and then."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.ledger = Ledger("group", ordered=True, batch_size=simulation.batch_size)
        self.group = MemoryGroup("group", simulation.clock, partitions=3)
        for partition in self.group.partitions:
            partition.on_commit = self._committed
        self._target = MemoryTarget(simulation.rule(self.ledger, _poison), seconds=20, keep=0)
        self._destination = simulation.destination(self.ledger)

    def _committed(self, lane: LaneId, mark: Mark) -> None:
        if mark.through is not None:
            self.ledger.stored(lane.name, mark.through[0])

    def mapping(self, world: World) -> None:
        """A new process joins."""
        _stream_mapping(self._simulation, world, self.group, self._target, self._destination, "group")

    def die(self) -> None:
        """A killed process commits nothing more."""
        for partition in self.group.partitions:
            partition.generation += 1

    async def feed(self) -> None:
        """Send records, and move a partition."""
        random_ = self._simulation.random

        def put(number: int) -> None:
            partition = random_.randrange(3)
            name = f"group-{number}"
            record = self.group.put(partition, name)
            self.ledger.put(name, record.lane.name, record.position)
            if random_.random() < 0.02 and self.group.open:
                self.group.revoke(partition, self._simulation.clock.instant().elapsed + random_.uniform(0, 30))
                self.group.give_back(partition)

        await self._simulation.feed(put)


class StreamPart:
    """A stream of shards with leases in memory; it splits now and then."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.ledger = Ledger("stream", ordered=True, batch_size=simulation.batch_size)
        self.stream = MemoryStream("stream", shards=2)
        self._target = MemoryTarget(simulation.rule(self.ledger, _poison), seconds=20, keep=0)
        self._destination = simulation.destination(self.ledger)
        self.store = WatchedLeases(simulation, self.ledger)
        self._life: Life | None = None

    def mapping(self, world: World) -> None:
        """A new process takes the leases."""
        self._life = Life(self.store)
        metrics = world.metrics.mapping("stream", "kinesis")
        owner = f"worker/{world.chance.new_id()}"
        source = LeasedSource(
            "stream", "uuid", self.stream, self._life, owner, TRIM_HORIZON, world.clock, world.chance.jitter, metrics
        )
        _stream_mapping(self._simulation, world, source, self._target, self._destination, "stream")

    def die(self) -> None:
        """A killed process writes no lease."""
        if self._life is not None:
            self._life.dead = True

    async def feed(self) -> None:
        """Send records, split shards."""
        random_ = self._simulation.random

        def put(number: int) -> None:
            shard = random_.choice([name for name, found in self.stream.shards.items() if not found.closed])
            if random_.random() < 0.01 and len(self.stream.shards) < 8:
                shard = self.stream.split(shard)[0]
            name = f"stream-{number}"
            record = self.stream.put(shard, name, arrived_at=self._simulation.clock.instant().epoch)
            self.ledger.put(name, shard, record.position)

        await self._simulation.feed(put)


class WatchedLeases(MemoryLeases):
    """Leases that tell the ledger of each checkpoint, and fail at times."""

    def __init__(self, simulation: Simulation, ledger: Ledger) -> None:
        super().__init__()
        self._simulation, self._ledger = simulation, ledger

    async def keep(self, held: Mapping[str, tuple[Lease, Mark | None]]) -> Mapping[str, Lease | None]:
        """See LeaseStore."""
        if self._simulation.chance(0.02):
            raise LeaseStoreFailed("bad luck")
        for lease, mark in held.values():
            if mark is not None and mark.through is not None:
                self._ledger.stored(lease.shard, mark.through[0])
        return await super().keep(held)


class Life:
    """The store as one process sees it: dead processes write nothing."""

    def __init__(self, store: MemoryLeases) -> None:
        self._store = store
        self.dead = False

    def __getattr__(self, name: str) -> object:
        call = getattr(self._store, name)

        async def alive(*arguments: object) -> object:
            if self.dead:
                raise LeaseStoreFailed("This process is dead.")
            return await call(*arguments)

        return alive


def _stream_mapping(
    simulation: Simulation,
    world: World,
    source: Source,
    target: MemoryTarget,
    destination: MemoryDestination,
    name: str,
) -> None:
    policy = RetryPolicy(max_retries=8, bisect=simulation.seed % 2 == 0)
    world.stream(
        source,
        target,
        name=name,
        policy=policy,
        batch_size=simulation.batch_size,
        window=simulation.window,
        destination=destination,
    )
