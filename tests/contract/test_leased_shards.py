"""Leases over shards of the sandbox: children after their parents' end, each record once, restarts resume."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

import anyio
import msgspec
import pytest

from esm.domain.leasing import LATEST, lease_key
from esm.domain.outcome import Outcome, Succeeded
from esm.domain.record import LaneEnd, Mark
from esm.leases.memory import MemoryLeases
from esm.ports import Invocation
from esm.sandbox import Fault, LoseReply, SandboxClock, Throttle, every
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, until
from tests.support.reading import Worker
from tests.support.shard_worlds import DynamoDBWorld, KinesisWorld, sandbox_server
from tests.support.time import LoopClock

pytestmark = pytest.mark.anyio

SETTLED = "esm_records_settled_total"
WITHIN = 40.0
"""Seconds until a test gives up."""


class Leased(Worker):
    """Workers that share leases in memory over one stream."""

    def __init__(self, world: KinesisWorld | DynamoDBWorld, time: LoopClock) -> None:
        super().__init__(world.source(), MemoryLeases(), time, text=world.data_of)
        self.world, self.time = world, time

    def texts(self, event: bytes) -> Sequence[str]:
        """What was put, of each record of an event."""
        return [self.world.text_of(entry) for entry in msgspec.json.decode(event, type=_Event).Records]

    async def marks(self) -> dict[str, Mark | None]:
        """The stored mark of each shard."""
        app = f"9f1c/{(await self.stream.discover()).stream}"
        rows = await self.store.leases(app)
        assert all(row.key == lease_key(app, row.shard) for row in rows)
        return {row.shard: row.mark for row in rows}


class _Event(msgspec.Struct):
    Records: list[msgspec.Raw]


@pytest.fixture(params=["kinesis", "dynamodb"])
async def leased(request: pytest.FixtureRequest) -> AsyncIterator[Leased]:
    time = LoopClock()
    async with sandbox_server(clock=SandboxClock(lambda: time.instant().epoch)) as server:
        yield Leased(await (KinesisWorld if request.param == "kinesis" else DynamoDBWorld).create(server), time)


@pytest.fixture
async def two() -> AsyncIterator[Leased]:
    """A Kinesis stream of two shards."""
    time = LoopClock()
    async with sandbox_server(clock=SandboxClock(lambda: time.instant().epoch)) as server:
        yield Leased(await KinesisWorld.create(server, shards=2), time)


def names(prefix: str, count: int) -> Sequence[str]:
    return [f"{prefix}{index}" for index in range(count)]


async def test_children_are_granted_after_their_parent_and_every_record_is_read_once(leased: Leased) -> None:
    world = leased.world
    before, after = names("parent", 20), names("child", 20)
    parent = await world.shard()
    async with leased.running() as worker:
        await world.put(*before[:10])
        await worker.until(lambda: len(worker.delivered) == 10, WITHIN)
        await world.put(*before[10:])
        children = await world.split(parent)
        await world.put(*after)
        await worker.until(lambda: len(worker.delivered) >= 40, WITHIN)
        await worker.until(lambda: len(worker.granted) == 1 + len(children), WITHIN)
    assert sorted(worker.delivered) == sorted([*before, *after])
    assert worker.delivered[:20] == before
    assert worker.granted[0][1] == parent
    assert sorted(name for _, name in worker.granted) == sorted([parent, *children])
    assert worker.errors == []
    marks = await leased.marks()
    assert (marks[parent] or Mark(None)).ended == LaneEnd(tuple(children))


async def test_a_child_waits_while_its_parent_holds_a_record_that_is_not_settled(two: Leased) -> None:
    assert isinstance(two.world, KinesisWorld)
    stream = two.world.server.sandbox.kinesis.stream(two.world.name)
    parent, sibling = stream.open_shards()
    stream.put("k", b"stuck", parent.start_hash)
    children = stream.split(parent.id)
    for child in children:
        stream.put("k", b"young", child.start_hash)
    async with two.running(holds_back=lambda record: two.world.data_of(record) == "stuck") as worker:
        await worker.until(lambda: "stuck" in worker.delivered, WITHIN)
        for text in ("later", "and later"):
            stream.put("k", text.encode(), sibling.start_hash)
            await worker.until(partial(worker.delivered.__contains__, text), WITHIN)
        assert sorted(name for _, name in worker.granted) == sorted([parent.id, sibling.id])
    async with two.running("w2") as heir:
        await heir.until(lambda: len(heir.delivered) == 3, WITHIN)
        assert heir.delivered == ["stuck", "young", "young"]


async def test_a_merged_shard_is_granted_after_both_parents(two: Leased) -> None:
    assert isinstance(two.world, KinesisWorld)
    stream = two.world.server.sandbox.kinesis.stream(two.world.name)
    left, right = stream.open_shards()
    async with two.running() as worker:
        for shard, texts in ((left, names("left", 5)), (right, names("right", 5))):
            for text in texts:
                stream.put("k", text.encode(), shard.start_hash)
        child = stream.merge(left.id, right.id)
        for text in names("merged", 5):
            stream.put("k", text.encode())
        await worker.until(lambda: len(worker.delivered) == 15, WITHIN)
    assert worker.delivered[10:] == names("merged", 5)
    assert [name for _, name in worker.granted][2:] == [child.id]
    marks = await two.marks()
    assert [(marks[parent.id] or Mark(None)).ended for parent in (left, right)] == [LaneEnd((child.id,))] * 2


async def test_a_restart_resumes_behind_what_was_settled(leased: Leased) -> None:
    await leased.world.put(*names("a", 5))
    async with leased.running("w1") as first:
        await first.until(lambda: len(first.delivered) == 5, WITHIN)
    await leased.world.put(*names("b", 5))
    async with leased.running("w2") as second:
        await second.until(lambda: len(second.delivered) == 5, WITHIN)
    assert (first.delivered, second.delivered) == (names("a", 5), names("b", 5))


async def test_latest_is_the_moment_of_the_first_start_for_every_later_one(leased: Leased) -> None:
    await leased.world.put("old")
    leased.time.skip(10)  # DynamoDB tells whole seconds: within one it reads the old record too
    async with leased.running("w1", LATEST):
        pass
    leased.time.skip(60)
    await leased.world.put("while nobody was there")
    async with leased.running("w2", LATEST) as second:
        await second.until(lambda: second.delivered, WITHIN)
    assert second.delivered == ["while nobody was there"]


async def test_throttles_and_lost_replies_repeat_and_lose_nothing(leased: Leased) -> None:
    faults = leased.world.server.sandbox.faults
    faults.add(Fault("*:GetRecords", Throttle(), every(4)))
    faults.add(Fault("*:GetRecords", LoseReply(), every(5)))
    faults.add(Fault("*:GetShardIterator", Throttle(), every(2)))
    await leased.world.put(*names("a", 10))
    parent = await leased.world.shard()
    await leased.world.split(parent)
    await leased.world.put(*names("b", 10))
    async with leased.running() as worker:
        await worker.until(lambda: len(worker.delivered) >= 20, WITHIN)
    assert sorted(worker.delivered) == sorted([*names("a", 10), *names("b", 10)])
    assert worker.delivered[:10] == names("a", 10)


async def test_an_iterator_that_expires_behind_a_blocked_batch_costs_no_record_and_repeats_none(
    leased: Leased,
) -> None:
    sandbox, open_the_gate = leased.world.server.sandbox, anyio.Event()

    async def rule(call: Invocation) -> Outcome:
        await open_the_gate.wait()
        return Succeeded(b"")

    target = MemoryTarget(rule)
    engine = World(buffer_bytes=1)  # what is being delivered fills it, so nothing is read meanwhile
    engine.stream(leased.source(), target, batch_size=3)
    await leased.world.put(*names("a", 5))
    async with engine.running():
        await until(lambda: len(target.calls) == 1, WITHIN)
        sandbox.clock.advance(1000)  # iterators live for 5 minutes, those of DynamoDB for 15
        await leased.world.put(*names("b", 5))
        open_the_gate.set()
        await until(lambda: engine.count(SETTLED, mapping="clicks", outcome="delivered") >= 10, WITHIN)
    assert [text for call in target.calls for text in leased.texts(call.event)] == [*names("a", 5), *names("b", 5)]
    expired = [count for (_, outcome), count in sandbox.calls.outcomes.items() if outcome == "ExpiredIteratorException"]
    assert expired == [1]
