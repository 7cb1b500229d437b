"""How lanes and sessions end when several things happen at once: stops, losses, failures, slow releases."""

from collections.abc import Sequence

import anyio
import pytest
from structlog.testing import capture_logs

from esm.domain.errors import LaneFailed, NotReady
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.domain.record import LaneId, Mark, Record
from esm.engine.mapping import Mapping
from esm.engine.worker import Worker
from esm.ports import Gone, Granted, Invocation, Leaving
from esm.sources.memory import MemoryQueue, MemoryQueueLane
from esm.sources.memory_group import MemoryGroup, MemoryLane
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, bodies, until
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def queue_of(world: World, count: int = 0, visibility: float = 900) -> MemoryQueue:
    queue = MemoryQueue(LaneId("orders", "orders"), world.clock, visibility)
    for number in range(count):
        queue.send(str(number))
    return queue


async def never(call: Invocation) -> Outcome:
    await anyio.sleep_forever()
    raise AssertionError


def committed(group: MemoryGroup, partition: int = 0) -> int:
    mark = group.partitions[partition].committed
    return mark.through[0] if mark and mark.through else -1


async def test_a_hard_stop_keeps_the_messages_of_a_handler_that_runs_on() -> None:
    world = World()
    queue = queue_of(world, 1)
    timed_out = Failed("slow", timed_out=True, still_running=anyio.Event())
    target = MemoryTarget(lambda call: timed_out, seconds=10)
    world.queue(queue, target)
    async with world.running(grace=30) as worker:
        await until(lambda: target.started == 1)
        worker.stop()
    assert queue.messages["m1"].visible_at > world.clock.instant().elapsed, "the handler is still at it"


async def test_a_release_that_is_cut_short_is_done_again_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    queue = queue_of(world, 2, visibility=300)
    released: list[int] = []
    release = MemoryQueueLane.release

    async def slow(lane: MemoryQueueLane, records: Sequence[Record], delay: float = 0) -> None:
        released.append(len(records))
        if len(released) == 1:
            await anyio.sleep_forever()
        await release(lane, records, delay)

    monkeypatch.setattr(MemoryQueueLane, "release", slow)
    target = MemoryTarget(lambda call: Refused("down", retry_after=200), seconds=20)
    mapping = world.queue(queue, target)
    async with world.running(grace=30) as worker:
        await until(lambda: target.started == 1)
        worker.stop()
    assert released == [2, 2]
    assert mapping.status().state == "stopped"
    assert world.buffer.held == 0
    assert all(message.visible_at <= world.clock.instant().elapsed for message in queue.messages.values())


async def test_the_deadline_of_a_revocation_holds_while_a_failed_lane_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    group, flushing = MemoryGroup("clicks", world.clock), anyio.Event()

    async def flush(lane: MemoryLane) -> None:
        flushing.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(MemoryLane, "flush", flush)
    world.stream(group, MemoryTarget())
    async with world.running(grace=100):
        group.partitions[0].read_error = LaneFailed("The partition cannot be read.")
        group.put(0, "a")
        await flushing.wait()
        began = world.clock.instant().elapsed
        group.revoke(0, deadline=began + 5)
        with anyio.fail_after(6):
            await group.lane_left.wait()


async def test_a_lane_that_failed_is_read_again_though_nothing_can_be_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    queue, target = queue_of(world), MemoryTarget()
    monkeypatch.setattr(MemoryQueueLane, "flush", lambda lane: anyio.sleep_forever())
    world.queue(queue, target)
    async with world.running(grace=1):
        await until(lambda: queue.polling == 1)
        queue.read_error = LaneFailed("The queue cannot be read.")
        queue.tell()
        queue.send("a")
        await until(lambda: not queue.messages, within=60)


async def test_a_slot_is_free_while_a_result_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(concurrency=1)
    slow, quick, target = queue_of(world, 1), queue_of(world), MemoryTarget()
    settle, settling = MemoryQueueLane.settle, anyio.Event()

    async def settle_slowly(lane: MemoryQueueLane, records: Sequence[Record], mark: Mark | None) -> None:
        if lane.queue is slow:
            settling.set()
            await anyio.sleep(600)
        await settle(lane, records, mark)

    monkeypatch.setattr(MemoryQueueLane, "settle", settle_slowly)
    world.queue(slow, target, name="slow")
    world.queue(quick, target, name="quick")
    async with world.running():
        await settling.wait()
        quick.send("b")
        await until(lambda: not quick.messages, within=30)


async def test_a_window_that_is_open_at_a_stop_gets_its_attempt_beside_the_poll() -> None:
    world = World()
    queue, target = queue_of(world, 3), MemoryTarget(seconds=20)
    world.queue(queue, target, batch_size=100, window=300)
    async with world.running(grace=30) as worker:
        await until(lambda: sum(message.receives for message in queue.messages.values()) == 3 and queue.polling == 1)
        worker.stop()
    assert target.started == 1
    assert not queue.messages


class TestReadiness:
    async def _in_trouble(self, world: World, group: MemoryGroup) -> Mapping:
        mapping = world.mappings[0]
        await until(lambda: mapping.status().lanes == 1)
        group.partitions[0].read_error = LaneFailed("The partition cannot be read.")
        group.put(0, "a")
        await group.lane_left.wait()
        assert not mapping.status().ready
        return mapping

    async def test_a_lane_that_was_read_again_and_moved_away_later_is_no_trouble(self) -> None:
        world = World()
        group = MemoryGroup("clicks", world.clock)
        world.stream(group, MemoryTarget())
        async with world.running():
            mapping = await self._in_trouble(world, group)
            group.assign(0)
            await until(lambda: committed(group) == 0)
            group.lose(0)
            await group.lane_left.wait()
            assert mapping.status().ready

    async def test_a_lane_that_moves_away_while_it_is_closed_is_no_trouble(self) -> None:
        world = World()
        group = MemoryGroup("clicks", world.clock)
        world.stream(group, MemoryTarget())
        async with world.running():
            mapping = await self._in_trouble(world, group)
            group.lose(0)
            await until(lambda: mapping.status().ready)

    async def test_what_a_closed_lane_left_unsettled_keeps_its_age(self) -> None:
        world = World()
        group = MemoryGroup("clicks", world.clock)
        group.put(0, "stuck")
        target = MemoryTarget(lambda call: Failed("down"))
        world.stream(group, target)
        async with world.running():
            await until(lambda: target.started == 1)
            await anyio.sleep(600)
            group.partitions[0].read_error = LaneFailed("The partition cannot be read.")
            group.put(0, "b")
            await group.lane_left.wait()
            await anyio.sleep(100)
            assert world.count("esm_iterator_age_seconds", mapping="clicks") == pytest.approx(700, abs=2)


class TestCleanStops:
    async def _ended_clean(self, world: World, then_stop: anyio.Event, grace: float) -> bool:
        worker = Worker(world.mappings, world.clock, grace)
        clean: list[bool] = []

        async def run() -> None:
            clean.append(await worker.run())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await then_stop.wait()
            worker.stop()
        return clean[0]

    async def test_a_revocation_that_cut_an_attempt_long_ago_makes_no_stop_unclean(self) -> None:
        world = World()
        group, left = MemoryGroup("clicks", world.clock), anyio.Event()
        group.put(0, "a")
        target = MemoryTarget(never, seconds=800)
        world.stream(group, target)

        async def revoke() -> None:
            await until(lambda: target.running == 1)
            group.revoke(0, deadline=world.clock.instant().elapsed + 5)
            await group.lane_left.wait()
            left.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(revoke)
            assert await self._ended_clean(world, left, grace=30)

    async def test_a_stop_that_cuts_an_attempt_is_not_clean(self) -> None:
        world = World()
        queue, running = queue_of(world, 1), anyio.Event()
        target = MemoryTarget(never, seconds=800)
        world.queue(queue, target)

        async def watch() -> None:
            await until(lambda: target.running == 1)
            running.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            assert not await self._ended_clean(world, running, grace=30)

    async def test_a_stop_that_leaves_deletes_behind_is_not_clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World()
        queue, polling = queue_of(world), anyio.Event()
        monkeypatch.setattr(MemoryQueueLane, "flush", lambda lane: anyio.sleep_forever())
        world.queue(queue, MemoryTarget())

        async def watch() -> None:
            await until(lambda: queue.polling == 1)
            polling.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            assert not await self._ended_clean(world, polling, grace=30)


class TestSessionsThatCannotGoOn:
    async def test_a_bug_in_one_lane_lets_the_attempts_of_others_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settle = MemoryLane.settle

        async def broken(lane: MemoryLane, records: Sequence[Record], mark: Mark | None) -> None:
            if lane.id.name == "topic-1":
                monkeypatch.setattr(MemoryLane, "settle", settle)
                raise RuntimeError("a bug")
            await settle(lane, records, mark)

        monkeypatch.setattr(MemoryLane, "settle", broken)
        world = World()
        group = MemoryGroup("clicks", world.clock, partitions=2)
        group.put(0, "slow")

        async def rule(call: Invocation) -> Outcome:
            await anyio.sleep(30 if b"slow" in call.event else 5)
            return Succeeded(b"")

        target = MemoryTarget(rule, seconds=60)
        mapping = world.stream(group, target)
        with capture_logs() as logs:
            await self._go_wrong(world, group, target)
        assert [entry["event"] for entry in logs].count("mapping_failed") == 1
        assert bodies([call.event for call in target.calls]) == [["slow"], ["b"], ["b"]]
        assert mapping.status().state == "stopped"

    async def _go_wrong(self, world: World, group: MemoryGroup, target: MemoryTarget) -> None:
        [mapping] = world.mappings
        async with world.running():
            await until(lambda: target.running == 1)
            group.put(1, "b")
            await until(lambda: mapping.status().state == "not ready")
            await until(lambda: committed(group, 0) == 0 and committed(group, 1) == 0)

    async def test_a_feed_that_fails_lets_attempts_end_and_its_sentence_is_told(self) -> None:
        world = World()
        group = _FailingFeed("clicks", world.clock)
        group.put(0, "slow")

        async def rule(call: Invocation) -> Outcome:
            await anyio.sleep(30)
            return Succeeded(b"")

        target = MemoryTarget(rule, seconds=60)
        mapping = world.stream(group, target)
        async with world.running():
            await until(lambda: target.running == 1)
            group.fail(NotReady("The stream was made anew."))
            await until(lambda: mapping.status().why == "The stream was made anew.")
            await until(lambda: committed(group) == 0)
            await until(lambda: mapping.status().ready)
        assert target.started == 1


class _FailingFeed(MemoryGroup):
    """A group whose ``change`` fails once."""

    _error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self._error = error
        self.lose_nothing()

    def lose_nothing(self) -> None:
        """Wake whoever waits for a change."""
        self._say(Leaving(LaneId("clicks", "no such lane"), 0))

    async def change(self) -> Granted | Leaving | Gone:
        change = await super().change()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return change
