"""A queue through the engine: batches, failures, stops; on asyncio and trio with time that jumps."""

from collections.abc import Callable

import anyio
import msgspec
import pytest

from esm.domain.errors import LaneFailed
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.domain.record import LaneId, Record
from esm.ports import Invocation
from esm.sources.memory import MemoryQueue
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, bodies, until
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def queue_of(world: World, count: int = 0, *, visibility: float = 600, most_receives: int | None = None) -> MemoryQueue:
    queue = MemoryQueue(LaneId("orders", "orders"), world.clock, visibility, most_receives)
    for number in range(count):
        queue.send(str(number))
    return queue


def sent(target: MemoryTarget) -> list[str]:
    return [body for batch in bodies([call.event for call in target.calls]) for body in batch]


async def test_every_message_is_delivered_once_and_deleted() -> None:
    world = World()
    queue, target = queue_of(world, 95), MemoryTarget()
    world.queue(queue, target)
    async with world.running():
        await until(lambda: not queue.messages)
    assert sorted(sent(target), key=int) == [str(number) for number in range(95)]
    assert world.count("esm_records_settled_total", mapping="orders", outcome="delivered") == 95
    assert world.count("esm_records_polled_total", mapping="orders", source="sqs") == 95
    assert queue.open == 0
    assert queue.flushed == 1


async def test_no_event_is_ever_empty_and_none_exceeds_the_batch_size() -> None:
    world = World()
    queue, target = queue_of(world, 33), MemoryTarget()
    world.queue(queue, target, batch_size=7)
    async with world.running():
        await until(lambda: not queue.messages)
    assert all(1 <= len(batch) <= 7 for batch in bodies([call.event for call in target.calls]))


async def test_a_window_gathers_several_receives_into_one_batch() -> None:
    world = World()
    queue, target = queue_of(world, 25), MemoryTarget(seconds=60)
    world.queue(queue, target, batch_size=100, window=5)
    async with world.running():
        await until(lambda: not queue.messages)
    assert [len(batch) for batch in bodies([call.event for call in target.calls])] == [25]


async def test_a_full_batch_does_not_wait_for_its_window() -> None:
    world = World()
    queue, target = queue_of(world, 20), MemoryTarget(seconds=60)
    world.queue(queue, target, batch_size=10, window=60)
    async with world.running():
        await until(lambda: not queue.messages, within=1)
    assert len(target.calls) == 2


async def test_a_window_leaves_a_whole_attempt_before_the_messages_come_back() -> None:
    world = World()
    queue = queue_of(world, 3, visibility=100)
    target = MemoryTarget(seconds=60, required=60)
    world.queue(queue, target, batch_size=100, window=300)
    async with world.running():
        await until(lambda: not queue.messages, within=36)
    assert [len(batch) for batch in bodies([call.event for call in target.calls])] == [3]


async def test_a_failed_batch_comes_back_after_its_visibility_with_its_receives_counted() -> None:
    world = World()
    queue = queue_of(world, 1, visibility=60)
    starts: list[float] = []

    def rule(call: Invocation) -> Outcome:
        starts.append(world.clock.instant().elapsed)
        return Failed("no") if len(starts) == 1 else Succeeded(b"")

    world.queue(queue, MemoryTarget(rule, seconds=10))
    async with world.running():
        await until(lambda: not queue.messages)
    assert starts[1] - starts[0] == pytest.approx(60, abs=0.1)
    assert world.count("esm_invocations_total", mapping="orders", outcome="failed") == 1


async def test_a_report_deletes_what_it_does_not_list() -> None:
    world = World()
    queue = queue_of(world, 4, visibility=600)
    reply = msgspec.json.encode({"batchItemFailures": [{"itemIdentifier": "m2"}]})
    target = MemoryTarget(lambda call: Succeeded(reply) if b'"m2"' in call.event else Succeeded(b""))
    world.queue(queue, target, reports=True)
    async with world.running():
        await until(lambda: len(queue.messages) == 1)
    assert list(queue.messages) == ["m2"]
    assert world.count("esm_invocations_total", mapping="orders", outcome="partial") == 1


async def test_a_refused_batch_is_held_and_sent_again_on_its_first_receipt() -> None:
    world = World()
    queue = queue_of(world, 2, visibility=60)
    answers: list[Outcome] = [Refused("busy", throttled=True), Refused("busy", throttled=True), Succeeded(b"")]
    target = MemoryTarget(lambda call: answers.pop(0), seconds=10)
    world.queue(queue, target)
    async with world.running():
        await until(lambda: not queue.messages)
    assert len({call.request_id for call in target.calls}) == 1
    assert len(target.calls) == 3
    assert world.count("esm_invocations_total", mapping="orders", outcome="throttled") == 2


async def test_a_refused_batch_is_let_go_when_its_receipts_die_and_never_sent_on_them() -> None:
    world = World()
    queue = queue_of(world, 1, visibility=30)
    starts: list[float] = []

    def rule(call: Invocation) -> Outcome:
        starts.append(world.clock.instant().elapsed)
        return Refused("down") if starts[-1] < 70 else Succeeded(b"")

    world.queue(queue, MemoryTarget(rule, seconds=20))
    async with world.running():
        await until(lambda: not queue.messages)
    receives = [start // 30 for start in starts]
    assert all(start % 30 <= 15.1 for start in starts), "an attempt began on a receipt with less than half its life"
    assert len(set(receives)) >= 3


async def test_a_poison_message_ends_in_the_queues_own_dead_letter_queue() -> None:
    world = World()
    queue = queue_of(world, 12, visibility=30, most_receives=3)
    target = MemoryTarget(lambda call: Failed("poison") if b'"body":"5"' in call.event else Succeeded(b""), seconds=5)
    world.queue(queue, target, batch_size=1)
    async with world.running():
        await until(lambda: not queue.messages)
    assert queue.dead == ["5"]
    assert sent(target).count("5") == 3


async def test_polling_stops_while_all_batches_run() -> None:
    world = World()
    queue, hold = queue_of(world, 1000), anyio.Event()

    async def rule(call: Invocation) -> Outcome:
        await hold.wait()
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=500)
    world.queue(queue, target, batches=5, batch_size=10)
    async with world.running():
        await until(lambda: target.running == 5)
        await anyio.sleep(300)
        received = sum(message.receives for message in queue.messages.values())
        assert received == 50, "nothing is received that no batch has room for"
        assert queue.polling == 0
        hold.set()
        await until(lambda: not queue.messages)


async def test_concurrency_of_the_worker_is_never_exceeded() -> None:
    world = World(concurrency=3)
    queues = [queue_of(world, 40) for _ in range(2)]

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep(1)
        return Succeeded(b"")

    target = MemoryTarget(rule)
    for number, queue in enumerate(queues):
        world.queue(queue, target, name=f"orders-{number}")
    async with world.running():
        await until(lambda: not any(queue.messages for queue in queues))
    assert target.most_running == 3


async def test_a_soft_stop_lets_a_poll_end_and_delivers_what_it_brings() -> None:
    world = World()
    queue, target = queue_of(world), MemoryTarget()
    world.queue(queue, target)
    async with world.running() as worker:
        await until(lambda: queue.polling == 1)
        worker.stop()
        await anyio.sleep(5)
        waiting = worker.waiting_for()
        assert waiting is not None
        assert waiting.startswith("1 open poll, 15 s at most")
        queue.send("late")
    assert sent(target) == ["late"]
    assert not queue.messages


async def test_a_soft_stop_delivers_what_waits_for_a_window_at_once() -> None:
    world = World()
    queue, target = queue_of(world, 3), MemoryTarget()
    world.queue(queue, target, batch_size=100, window=300)
    async with world.running() as worker:
        await until(lambda: sum(message.receives for message in queue.messages.values()) == 3)
        worker.stop()
        await until(lambda: not queue.messages, within=25)
    assert sorted(sent(target)) == ["0", "1", "2"]


async def test_a_soft_stop_releases_a_batch_that_waits_for_a_retry() -> None:
    world = World()
    queue = queue_of(world, 2, visibility=300)
    target = MemoryTarget(lambda call: Refused("down", retry_after=200), seconds=20)
    world.queue(queue, target)
    async with world.running() as worker:
        await until(lambda: target.started == 1)
        worker.stop()
    now = world.clock.instant().elapsed
    assert all(message.visible_at <= now for message in queue.messages.values()), "visible to others at once"
    assert len(queue.messages) == 2
    assert now < 60


async def test_the_end_of_the_grace_cancels_an_attempt_and_leaves_its_messages_to_their_visibility() -> None:
    world = World()
    queue = queue_of(world, 1, visibility=900)

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    target = MemoryTarget(rule, seconds=800)
    world.queue(queue, target)
    async with world.running(grace=30) as worker:
        await until(lambda: target.running == 1)
        began = world.clock.instant().elapsed
        worker.stop()
    assert world.clock.instant().elapsed - began == pytest.approx(30, abs=2)
    assert target.running == 0
    assert queue.messages["m1"].visible_at > world.clock.instant().elapsed, "the target may still be at it"


async def test_a_second_stop_ends_at_once_and_releases_what_no_attempt_holds() -> None:
    world = World(concurrency=1)
    queue = queue_of(world, 2, visibility=900)

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    target = MemoryTarget(rule, seconds=800)
    world.queue(queue, target, batch_size=1)
    async with world.running() as worker:
        await until(lambda: target.running == 1)
        began = world.clock.instant().elapsed
        worker.stop()
        await anyio.sleep(1)
        worker.stop_now()
    now = world.clock.instant().elapsed
    assert now - began < 10
    visible = sorted(message.visible_at <= now for message in queue.messages.values())
    assert visible == [False, True], "the one that waited for a slot is given back, the other is left alone"


@pytest.mark.parametrize("error", [lambda: LaneFailed("The queue cannot be read."), lambda: RuntimeError("a bug")])
async def test_an_error_of_a_read_stops_neither_the_mapping_nor_its_neighbour(error: Callable[[], Exception]) -> None:
    world = World()
    broken, healthy, target = queue_of(world), queue_of(world), MemoryTarget()
    broken.read_error = error()
    world.queue(broken, target, name="broken")
    world.queue(healthy, target, name="healthy")
    async with world.running():
        await until(lambda: healthy.polling == 1)
        healthy.send("b")
        await until(lambda: not healthy.messages, within=1)
        broken.send("a")
        await until(lambda: not broken.messages, within=30)
        assert healthy.opened == 1
    assert sorted(sent(target)) == ["a", "b"]


async def test_a_queue_that_is_missing_is_tried_again_and_said_with_its_sentence() -> None:
    world = World()
    queue, target = queue_of(world, 1), MemoryTarget()
    queue.not_ready = "SQS queue orders does not exist."
    mapping = world.queue(queue, target)
    async with world.running():
        await until(lambda: mapping.status().state == "not ready")
        status = mapping.status()
        assert not status.ready
        assert status.why == "SQS queue orders does not exist."
        queue.not_ready = None
        await until(lambda: not queue.messages, within=70)
        assert mapping.status().ready


async def test_a_function_timeout_above_the_visibility_is_not_ready_with_aws_own_sentence() -> None:
    world = World()
    queue, target = queue_of(world, 1, visibility=2), MemoryTarget(seconds=8, required=3)
    mapping = world.queue(queue, target)
    async with world.running():
        await until(lambda: mapping.status().state == "not ready")
        why = mapping.status().why or ""
    assert why.startswith("Queue visibility timeout: 2 seconds is less than Function timeout: 3 seconds")
    assert target.started == 0


async def test_a_delete_that_is_lost_brings_the_message_back_and_nothing_else() -> None:
    world = World()
    queue, target = queue_of(world, 10, visibility=30), MemoryTarget(seconds=5)
    lost: list[str] = []

    def refuses(record: Record) -> bool:
        if record.id == "m3" and not lost:
            lost.append(record.id)
            return True
        return False

    queue.refuses_delete = refuses
    world.queue(queue, target)
    async with world.running():
        await until(lambda: not queue.messages)
    assert sorted(sent(target), key=int) == sorted([*map(str, range(10)), "2"], key=int)


async def test_the_age_of_the_oldest_message_grows_while_its_batch_hangs() -> None:
    world = World()
    queue, hold = queue_of(world, 1), anyio.Event()

    async def rule(call: Invocation) -> Outcome:
        await hold.wait()
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=500)
    world.queue(queue, target)
    async with world.running():
        await until(lambda: target.running == 1)
        await anyio.sleep(100)
        assert world.count("esm_iterator_age_seconds", mapping="orders") == pytest.approx(100, abs=1)
        hold.set()
        await until(lambda: not queue.messages)
        assert world.count("esm_iterator_age_seconds", mapping="orders") == 0
