"""Ordered lanes through the engine: order, retries, discards, marks, revocations; on asyncio and trio."""

from collections.abc import Sequence

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from esm.destinations.memory import MemoryDestination
from esm.domain.errors import DestinationUnavailable, LaneFailed
from esm.domain.outcome import Failed, Outcome, Succeeded
from esm.domain.retry import RetryPolicy
from esm.engine.pipeline import AHEAD_RECORDS
from esm.ports import Invocation
from esm.sources.memory_group import MemoryGroup
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, bodies, until
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def group_of(world: World, count: int = 0, partitions: int = 1) -> MemoryGroup:
    group = MemoryGroup("clicks", world.clock, partitions)
    for number in range(count):
        group.put(number % partitions, str(number))
    return group


def batches(target: MemoryTarget) -> list[list[str]]:
    return bodies([call.event for call in target.calls])


def joined(target: MemoryTarget) -> list[str]:
    return ["".join(batch) for batch in batches(target)]


def committed(group: MemoryGroup, partition: int = 0) -> int:
    mark = group.partitions[partition].committed
    return mark.through[0] if mark and mark.through else -1


def poison(*bad: str) -> MemoryTarget:
    def rule(call: Invocation) -> Outcome:
        sent = bodies([call.event])[0]
        return Failed("poison") if set(bad) & set(sent) else Succeeded(b"")

    return MemoryTarget(rule)


async def test_records_arrive_in_order_and_the_checkpoint_follows() -> None:
    world = World()
    group, target = group_of(world, 1000), MemoryTarget()
    world.stream(group, target, batch_size=64)
    async with world.running():
        await until(lambda: committed(group) == 999)
    assert [body for batch in batches(target) for body in batch] == [str(number) for number in range(1000)]
    assert max(map(len, batches(target))) == 64
    assert group.left_lanes == ["topic-0"]
    assert world.count("esm_records_settled_total", mapping="clicks", outcome="delivered") == 1000


async def test_batches_of_one_lane_never_overlap() -> None:
    world = World()
    group = group_of(world, 100)

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep(1)
        return Succeeded(b"")

    target = MemoryTarget(rule)
    world.stream(group, target, batch_size=10)
    async with world.running():
        await until(lambda: committed(group) == 99)
    assert target.most_running == 1


@pytest.mark.parametrize(
    "policy, expected",
    [
        (RetryPolicy(max_retries=1, bisect=True), ["1234", "12", "1", "2", "2", "34"]),
        (RetryPolicy(max_retries=2), ["1234", "1234", "1234"]),
    ],
    ids=["bisect", "plain"],
)
async def test_a_poison_record_takes_the_recorded_course(policy: RetryPolicy, expected: Sequence[str]) -> None:
    world = World()
    group, destination = MemoryGroup("clicks", world.clock), MemoryDestination()
    for body in "1234":
        group.put(0, body)
    target = poison("2")
    world.stream(group, target, policy=policy, destination=destination)
    async with world.running():
        await until(lambda: committed(group) == 3)
    assert joined(target) == expected
    discarded = [record.id for record in destination.stored[0].records]
    assert discarded == (["topic-0:1"] if policy.bisect else [f"topic-0:{n}" for n in range(4)])
    assert world.count("esm_records_settled_total", mapping="clicks", outcome="discarded") == len(discarded)
    assert world.count("esm_failure_destination_total", mapping="clicks", outcome="stored") == 1


async def test_the_checkpoint_stays_before_a_record_that_is_not_settled() -> None:
    world = World()
    group, target = group_of(world, 10), poison("4")
    world.stream(group, target, batch_size=1)
    async with world.running():
        await until(lambda: joined(target).count("4") >= 5)
        assert committed(group) == 3
    assert committed(group) == 3, "a stop settles nothing"


async def test_a_destination_that_is_down_keeps_the_record_until_it_is_back_and_the_id_stays() -> None:
    world = World()
    group, destination, target = group_of(world, 5), MemoryDestination(), poison("0")
    tries: list[str] = []

    def down(what: object) -> None:
        tries.append(getattr(what, "id", ""))
        if world.clock.instant().elapsed < 1800:
            raise DestinationUnavailable("The queue is away.")

    destination.rule = down
    policy = RetryPolicy(max_retries=0)
    world.stream(group, target, policy=policy, batch_size=1, destination=destination)
    async with world.running():
        await until(lambda: len(tries) > 3)
        assert committed(group) == -1
        await until(lambda: committed(group) == 4)
    assert len(set(tries)) == 1
    assert len(destination.stored) == 1
    assert world.count("esm_failure_destination_total", mapping="clicks", outcome="unavailable") == len(tries) - 1


async def test_drop_goes_on_without_the_destination_and_counts_it() -> None:
    world = World()
    group, destination, target = group_of(world, 3), MemoryDestination(), poison("0")

    def down(what: object) -> None:
        raise DestinationUnavailable("The queue is away.")

    destination.rule = down
    policy = RetryPolicy(max_retries=0)
    world.stream(group, target, policy=policy, batch_size=1, destination=destination, drops=True)
    async with world.running():
        await until(lambda: committed(group) == 2)
    assert world.count("esm_failure_destination_total", mapping="clicks", outcome="dropped") == 1
    assert world.count("esm_records_settled_total", mapping="clicks", outcome="discarded") == 1


async def test_records_that_are_too_old_are_discarded_alone_and_never_sent() -> None:
    world = World()
    group, destination, target = MemoryGroup("clicks", world.clock), MemoryDestination(), MemoryTarget()
    now = world.clock.instant().epoch
    group.put(0, "old", arrived_at=now - 100)
    group.put(0, "young")
    world.stream(group, target, policy=RetryPolicy(max_age=60), destination=destination)
    async with world.running():
        await until(lambda: committed(group) == 1)
    assert joined(target) == ["young"]
    assert [record.id for record in destination.stored[0].records] == ["topic-0:0"]


async def test_a_record_that_grew_too_old_in_the_queue_for_a_slot_is_never_sent() -> None:
    world = World(concurrency=1)
    busy, old, destination = group_of(world, 1), MemoryGroup("old", world.clock), MemoryDestination()

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep(120)
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=200)
    world.stream(busy, target)
    world.stream(old, target, name="old", policy=RetryPolicy(max_age=60), destination=destination)
    async with world.running():
        await until(lambda: target.running == 1)
        old.put(0, "x")
        await until(lambda: committed(old) == 0)
    assert joined(target) == ["0"]
    assert [str(what.reason) for what in destination.stored] == ["RecordAgeExceeded"]


async def test_a_read_that_ends_with_a_bug_closes_its_own_lane_alone() -> None:
    world = World()
    group, target = group_of(world, 0, partitions=2), MemoryTarget()
    mapping = world.stream(group, target)
    async with world.running():
        await until(lambda: mapping.status().lanes == 2)
        with capture_logs() as logs:
            group.partitions[0].read_error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
            group.put(0, "a")
            await group.lane_left.wait()
        assert [log["event"] for log in logs] == ["lane_read_failed", "lane_closed"]
        assert "UnicodeDecodeError" in (mapping.status().why or "")
        group.put(1, "b")
        await until(lambda: committed(group, 1) == 0)
        group.assign(0)
        await until(lambda: committed(group, 0) == 0)
    assert group.opened == 1, "the mapping itself went on"


async def test_a_soft_stop_ends_a_retry_wait_at_once_and_leaves_the_batch_unsettled() -> None:
    world = World()
    group, target = group_of(world, 3), MemoryTarget(lambda call: Failed("down"))
    world.stream(group, target)
    async with world.running() as worker:
        await until(lambda: target.started == 8)
        began = world.clock.instant().elapsed
        worker.stop()
    assert world.clock.instant().elapsed - began < 1
    assert committed(group) == -1


async def test_a_soft_stop_lets_the_running_attempt_end_and_settles_it() -> None:
    world = World()
    group = group_of(world, 30)

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep(10)
        return Succeeded(b"")

    target = MemoryTarget(rule)
    world.stream(group, target, batch_size=10)
    async with world.running() as worker:
        await until(lambda: target.running == 1)
        worker.stop()
        assert (worker.waiting_for() or "").startswith("1 running attempt")
    assert committed(group) == 9
    assert target.started == 1, "nothing new is begun"


async def test_a_restart_goes_on_behind_the_checkpoint() -> None:
    world = World()
    group, target = group_of(world, 30), MemoryTarget()
    world.stream(group, target, batch_size=10)
    async with world.running():
        await until(lambda: committed(group) == 29)
    again = World()
    group.put(0, "new")
    target = MemoryTarget()
    again.stream(group, target)
    async with again.running():
        await until(lambda: committed(group) == 30)
    assert joined(target) == ["new"]


async def test_a_revoked_lane_ends_its_attempt_first_and_then_says_that_it_left() -> None:
    world = World()
    group = group_of(world, 20)

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep(5)
        return Succeeded(b"")

    target = MemoryTarget(rule)
    world.stream(group, target, batch_size=10)
    async with world.running():
        await until(lambda: target.running == 1)
        group.revoke(0, deadline=world.clock.instant().elapsed + 30)
        await group.lane_left.wait()
        assert committed(group) == 9
        assert target.running == 0


async def test_a_revoked_lane_is_cancelled_at_its_deadline() -> None:
    world = World()
    group = group_of(world, 20)

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    target = MemoryTarget(rule, seconds=800)
    world.stream(group, target, batch_size=10)
    async with world.running():
        await until(lambda: target.running == 1)
        began = world.clock.instant().elapsed
        group.revoke(0, deadline=began + 30)
        await group.lane_left.wait()
        assert world.clock.instant().elapsed - began == pytest.approx(30, abs=1)
        assert target.running == 0
    assert committed(group) == -1


async def test_a_lost_lane_writes_nothing_more_whatever_its_attempt_ends_as() -> None:
    world = World()
    group, release = group_of(world, 20), anyio.Event()

    async def rule(call: Invocation) -> Outcome:
        await release.wait()
        return Succeeded(b"")

    target = MemoryTarget(rule)
    world.stream(group, target, batch_size=10)
    async with world.running():
        await until(lambda: target.running == 1)
        group.lose(0)
        release.set()
        await group.lane_left.wait()
    assert committed(group) == -1
    assert world.count("esm_records_settled_total", mapping="clicks", outcome="delivered") == 0


async def test_a_lane_that_cannot_be_read_is_closed_with_what_runs_settled_and_others_go_on() -> None:
    world = World()
    group, target = group_of(world, 4, partitions=2), MemoryTarget()
    world.stream(group, target)
    async with world.running():
        await until(lambda: committed(group, 0) == 1 and committed(group, 1) == 1)
        group.partitions[0].read_error = LaneFailed("The shard cannot be read.")
        group.put(0, "a")
        await group.lane_left.wait()
        group.put(1, "b")
        await until(lambda: committed(group, 1) == 2)
        group.assign(0)
        await until(lambda: committed(group, 0) == 2)


async def test_memory_is_bounded_by_the_buffer_whatever_the_backlog() -> None:
    world = World(buffer_bytes=6_291_456)
    partitions = 4
    group, hold = MemoryGroup("clicks", world.clock, partitions), anyio.Event()
    for number in range(400):
        group.put(number % partitions, "x" * 100_000)

    async def rule(call: Invocation) -> Outcome:
        await hold.wait()
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=800)
    world.stream(group, target, batch_size=10)
    async with world.running():
        await until(lambda: target.running == partitions)
        await anyio.sleep(60)
        one_reply = 100 * 100_100
        assert world.buffer.held <= 6_291_456 + partitions * one_reply
        hold.set()
        await until(lambda: all(committed(group, number) == 99 for number in range(partitions)))
    assert world.buffer.held == 0


async def test_a_stuck_lane_starves_no_other_of_memory() -> None:
    world = World(buffer_bytes=6_291_456)
    group = MemoryGroup("clicks", world.clock, 2)
    for _ in range(100):
        group.put(0, "stuck" + "x" * 100_000)
    for number in range(50):
        group.put(1, str(number))

    async def rule(call: Invocation) -> Outcome:
        if b"stuck" in call.event:
            await anyio.sleep_forever()
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=800)
    world.stream(group, target, batch_size=10)
    async with world.running(grace=1):
        await until(lambda: committed(group, 1) == 49, within=60)


async def test_an_event_is_never_larger_than_six_megabytes() -> None:
    world = World()
    group, target = MemoryGroup("clicks", world.clock), MemoryTarget()
    for _ in range(10):
        group.put(0, "x" * 1_500_000)
    world.stream(group, target)
    async with world.running():
        await until(lambda: committed(group) == 9)
    assert [len(batch) for batch in batches(target)] == [4, 4, 2]
    assert all(len(call.event) <= 6_291_456 for call in target.calls)


async def test_a_record_that_alone_is_too_large_is_discarded_without_a_call() -> None:
    world = World()
    group, destination, target = MemoryGroup("clicks", world.clock), MemoryDestination(), MemoryTarget()
    group.put(0, "x" * 7_000_000)
    group.put(0, "next")
    world.stream(group, target, policy=RetryPolicy(max_retries=1), destination=destination)
    async with world.running():
        await until(lambda: committed(group) == 1)
    assert joined(target) == ["next"]
    assert [what.invoke_count for what in destination.stored] == [2]


async def test_a_handler_that_runs_on_after_its_timeout_keeps_its_lane_until_it_returns() -> None:
    world = World()
    group, returns = group_of(world, 1), anyio.Event()
    answers: list[Outcome] = [Failed("slow", timed_out=True, still_running=returns), Succeeded(b"")]
    target = MemoryTarget(lambda call: answers.pop(0))
    world.stream(group, target)
    async with world.running():
        await until(lambda: target.started == 1)
        await anyio.sleep(300)
        assert target.started == 1
        returns.set()
        await until(lambda: committed(group) == 0, within=5)
    assert world.count("esm_invocations_total", mapping="clicks", outcome="timeout") == 1


async def test_a_target_that_answers_garbage_as_a_report_has_failed_the_attempt() -> None:
    world = World()
    group = group_of(world, 2)
    answers = [Succeeded(b"\xff\xfe not json"), Succeeded(b'{"batchItemFailures": 7}'), Succeeded(b"{}")]
    target = MemoryTarget(lambda call: answers.pop(0))
    world.stream(group, target, policy=RetryPolicy(reports=True))
    async with world.running():
        await until(lambda: committed(group) == 1)
    assert world.count("esm_invocations_total", mapping="clicks", outcome="failed") == 2


async def test_a_report_on_one_record_takes_the_recorded_course() -> None:
    world = World()
    group, destination = MemoryGroup("clicks", world.clock), MemoryDestination()
    for body in "1234":
        group.put(0, body)
    report = msgspec.json.encode({"batchItemFailures": [{"itemIdentifier": "topic-0:1"}]})
    target = MemoryTarget(lambda call: Succeeded(report if b'"body":"2"' in call.event else b""))
    world.stream(group, target, policy=RetryPolicy(max_retries=1, reports=True), destination=destination)
    async with world.running():
        await until(lambda: committed(group) == 3)
    assert joined(target) == ["1234", "234", "234"]
    assert [(what.invoke_count, len(what.records)) for what in destination.stored] == [(2, 3)]
    assert destination.stored[0].response is not None
    assert destination.stored[0].response.function_error is None


async def test_what_a_source_still_holds_has_an_age_while_it_cannot_be_read() -> None:
    world = World()
    group, target = group_of(world, 0), MemoryTarget()
    world.stream(group, target)
    group.partitions[0].lag_seconds = 30.0
    async with world.running():
        await until(lambda: world.count("esm_polls_total", mapping="clicks", outcome="empty") == 1)
        await anyio.sleep(10)
        assert world.count("esm_iterator_age_seconds", mapping="clicks") == pytest.approx(40, abs=1)
        group.partitions[0].lag_seconds = 0.0
        await until(lambda: world.count("esm_polls_total", mapping="clicks", outcome="empty") == 2)
        assert world.count("esm_iterator_age_seconds", mapping="clicks") == 0


async def test_the_lag_of_all_lanes_is_summed_and_absent_until_it_is_known() -> None:
    world = World()
    group, hold = group_of(world, 30_000, partitions=2), anyio.Event()

    async def rule(call: Invocation) -> Outcome:
        await hold.wait()
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=800)
    world.stream(group, target)
    assert world.metrics.registry.get_sample_value("esm_lag_records", {"mapping": "clicks"}) is None
    async with world.running():
        await until(lambda: target.running == 2)
        assert world.count("esm_lag_records", mapping="clicks") == 30_000 - 2 * AHEAD_RECORDS
        hold.set()
        await until(lambda: committed(group, 0) == committed(group, 1) == 14_999)
        assert world.count("esm_lag_records", mapping="clicks") == 0


async def test_a_mapping_whose_lane_cannot_be_read_is_not_ready_until_it_can() -> None:
    world = World()
    group, target = group_of(world, 1), MemoryTarget()
    mapping = world.stream(group, target)
    async with world.running():
        await until(lambda: committed(group) == 0)
        assert mapping.status().ready
        group.partitions[0].read_error = LaneFailed("The shard cannot be read.")
        group.put(0, "a")
        await group.lane_left.wait()
        assert mapping.status().why == "The shard cannot be read."
        group.assign(0)
        await until(lambda: committed(group) == 1)
        assert mapping.status().ready
