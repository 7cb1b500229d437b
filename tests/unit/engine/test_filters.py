"""What filters set aside, through the engine: settled at once, in no batch; on asyncio and trio, on jumping time."""

from collections.abc import Sequence

import pytest

from esm.domain.filtering import Filters
from esm.domain.outcome import Failed, Outcome, Succeeded
from esm.domain.record import LaneId, Mark, Record
from esm.domain.retry import RetryPolicy
from esm.domain.views import View
from esm.ports import Invocation
from esm.sources.memory import MemoryQueue
from esm.sources.memory_group import MemoryGroup
from esm.targets.memory import MemoryTarget
from tests.support.delivery import KINESIS
from tests.support.engine import World, bodies, until
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def bodies_of(target: MemoryTarget) -> list[list[str]]:
    return bodies([call.event for call in target.calls])


def ended(world: World, mapping: str, outcome: str) -> float:
    return world.count("esm_records_settled_total", mapping=mapping, outcome=outcome)


async def test_a_message_that_no_pattern_fits_is_deleted_and_never_sent() -> None:
    world = World()
    queue, target = MemoryQueue(LaneId("orders", "orders"), world.clock), MemoryTarget()
    for number in range(40):
        queue.send(f"go {number}" if number % 4 == 0 else f"stay {number}")
    world.queue(queue, target, filters=Filters("sqs", ['{"body":[{"prefix":"go"}]}']))
    async with world.running():
        await until(lambda: not queue.messages)
    sent = sorted(body for batch in bodies_of(target) for body in batch)
    assert sent == sorted(f"go {number}" for number in range(0, 40, 4))
    assert all(bodies_of(target))
    assert (ended(world, "orders", "filtered"), ended(world, "orders", "delivered")) == (30, 10)
    assert world.count("esm_records_polled_total", mapping="orders", source="sqs") == 40
    assert world.buffer.held == 0


async def test_filtered_messages_count_towards_no_batch() -> None:
    world = World()
    queue, target = MemoryQueue(LaneId("orders", "orders"), world.clock), MemoryTarget(seconds=60)
    for number in range(40):
        queue.send("go" if number % 2 else "stay")
    world.queue(queue, target, batch_size=20, window=5, filters=Filters("sqs", ['{"body":["go"]}']))
    async with world.running():
        await until(lambda: not queue.messages)
    assert bodies_of(target) == [["go"] * 20]


async def test_a_stream_of_nothing_but_filtered_records_is_passed_without_an_invocation() -> None:
    world = World()
    group, target = MemoryGroup("clicks", world.clock), MemoryTarget()
    for number in range(500):
        group.put(0, str(number))
    world.stream(group, target, filters=Filters("kinesis", ['{"body":["none"]}']))
    async with world.running():
        await until(lambda: group.partitions[0].committed == Mark((499, 0)))
    assert target.calls == []
    assert ended(world, "clicks", "filtered") == 500
    assert world.buffer.held == 0


async def test_the_checkpoint_stays_before_a_failing_record_and_passes_what_filters_set_aside_once_it_is_settled() -> (
    None
):
    world = World()
    healthy = False

    def rule(call: Invocation) -> Outcome:
        return Succeeded(b"") if healthy else Failed("down")

    group, target = MemoryGroup("clicks", world.clock), MemoryTarget(rule)
    for body in ["stay", "stay", "go", "stay", "stay"]:
        group.put(0, body)
    world.stream(group, target, policy=RetryPolicy(), filters=Filters("kinesis", ['{"body":["go"]}']))
    async with world.running():
        await until(lambda: len(target.calls) >= 3)
        before = group.partitions[0].committed
        healthy = True
        await until(lambda: group.partitions[0].committed == Mark((4, 0)))
    assert before == Mark((1, 0), above=(((3, 0), (4, 0)),))
    assert {tuple(batch) for batch in bodies_of(target)} == {("go",)}
    assert (ended(world, "clicks", "filtered"), ended(world, "clicks", "delivered")) == (4, 1)


async def test_passing_records_keep_their_order() -> None:
    world = World()
    group, target = MemoryGroup("clicks", world.clock), MemoryTarget()
    for number in range(300):
        group.put(0, str(number))
    world.stream(group, target, batch_size=7, filters=Filters("kinesis", ['{"body":[{"suffix":"3"}]}']))
    async with world.running():
        await until(lambda: group.partitions[0].committed == Mark((299, 0)))
    sent = [body for batch in bodies_of(target) for body in batch]
    assert sent == [str(number) for number in range(300) if number % 10 == 3]


async def test_a_mapping_without_filters_looks_into_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(_: object, record: Record) -> View:
        raise AssertionError(f"looked into {record.id}")

    monkeypatch.setattr(type(KINESIS), "view", look)
    world = World()
    group, target = MemoryGroup("clicks", world.clock), MemoryTarget()
    for number in range(50):
        group.put(0, str(number))
    world.stream(group, target)
    async with world.running():
        await until(lambda: group.partitions[0].committed == Mark((49, 0)))
    assert ended(world, "clicks", "delivered") == 50


async def test_a_stop_in_the_middle_leaves_no_message_that_passes_unsent_and_deleted() -> None:
    world = World()
    queue, target = MemoryQueue(LaneId("orders", "orders"), world.clock), MemoryTarget(seconds=60)
    for number in range(200):
        queue.send(f"{'go' if number % 2 else 'stay'} {number}")
    world.queue(
        queue, target, batches=1, window=30, batch_size=1_000, filters=Filters("sqs", ['{"body":[{"prefix":"go"}]}'])
    )
    async with world.running() as worker:
        await until(lambda: ended(world, "orders", "filtered") >= 20)
        worker.stop()
    left: Sequence[str] = [message.body for message in queue.messages.values()]
    sent = {body for batch in bodies_of(target) for body in batch}
    gone = {f"go {number}" for number in range(1, 200, 2)} - set(left)
    assert gone == sent
