"""The lane of a queue when time passes and calls fail: pace, back-off, lag, receipts, receives never left half."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
import structlog.testing

from esm.domain.errors import LaneFailed
from esm.domain.record import LaneId, Record
from esm.ports import Lane
from esm.sources.sqs import CLOSE_SECONDS, OpenQueue, Tools, open_queue
from esm.sources.sqs_events import MessageRecords, receipt_of
from esm.sources.sqs_shelter import Shelter
from tests.support.queue_worlds import SIZE, body_of, take
from tests.support.sqs_calls import ScriptedQueue, refused, unreachable
from tests.support.sqs_servers import mapping_metrics
from tests.support.time import BACKENDS, Backend, LoopClock, jumping

pytestmark = pytest.mark.anyio

LANE = LaneId("orders", "orders")


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


class Bench:
    """A lane over a scripted queue."""

    def __init__(self, queue: ScriptedQueue, clock: LoopClock, opened: OpenQueue) -> None:
        self.queue, self.clock, self.opened = queue, clock, opened
        self.lane: Lane = opened.lane()
        self.began = anyio.current_time()

    @property
    def passed(self) -> float:
        """Seconds since the lane was opened."""
        return anyio.current_time() - self.began


@asynccontextmanager
async def bench(visibility: int = 30) -> AsyncIterator[Bench]:
    queue, clock = ScriptedQueue(visibility), LoopClock()
    records = MessageRecords(LANE, "arn:aws:sqs:eu-west-1:123456789012:orders", "eu-west-1")
    tools = Tools(clock, lambda: 0.5, mapping_metrics())
    state = await queue.state()
    async with anyio.create_task_group() as tasks:
        opened = open_queue(LANE, records, queue, state, Shelter(tasks), tools)
        yield Bench(queue, clock, opened)
        await opened.close()


def errors(b: Bench) -> float:
    return float(b.lane._errors._value.get())  # type: ignore[attr-defined]


# -- what is asked


@pytest.mark.parametrize("wait, asked", [(0.0, 0), (0.2, 1), (1.0, 1), (4.01, 5), (20.0, 20), (300.0, 20)])
async def test_the_wait_is_rounded_up_to_whole_seconds_and_twenty_at_most(wait: float, asked: int) -> None:
    async with bench() as b:
        b.queue.send("a")
        await b.lane.read(10, SIZE, wait)
        assert [(count, seconds) for _, count, seconds, _ in b.queue.receives] == [(10, asked)]


async def test_receives_ask_for_the_visibility_that_receipts_are_judged_by() -> None:
    async with bench(visibility=77) as b:
        b.queue.send("a")
        [record] = await take(b.lane, 1)
        assert b.queue.receives[0][3] == 77
        assert receipt_of(record).expires == pytest.approx(b.passed + b.began + 77, abs=1)


async def test_receives_multiply_while_they_come_back_full() -> None:
    async with bench() as b:
        b.queue.send(*["x"] * 400)
        sizes: list[int] = []
        while sum(sizes) < 400:
            sizes.append(len((await b.lane.read(1000, SIZE * 10, 20)).records))
        assert sizes[:5] == [10, 20, 40, 80, 100]
        assert max(sizes) == 100, "ten receives at once at most"


async def test_no_more_receives_than_the_limit_or_the_room_in_bytes_allow() -> None:
    async with bench() as b:
        b.queue.send(*["x"] * 300)
        for _ in range(4):
            await b.lane.read(1000, SIZE, 20)
        assert len((await b.lane.read(25, SIZE, 20)).records) == 25
        assert len((await b.lane.read(1000, 100, 20)).records) == 10, "one reply, whatever its size"


async def test_after_a_burst_that_finds_nothing_the_read_waits_for_the_next_message() -> None:
    async with bench() as b, anyio.create_task_group() as tasks:
        b.queue.send(*["x"] * 10)
        await b.lane.read(100, SIZE, 20)

        async def later() -> None:
            await anyio.sleep(7)
            b.queue.send("late")

        tasks.start_soon(later)
        chunk = await b.lane.read(100, SIZE, 20)
        assert ([body_of(record) for record in chunk.records], chunk.more) == (["late"], False)
        assert b.passed == pytest.approx(7, abs=0.1)


async def test_a_burst_keeps_what_it_got_when_one_of_its_receives_fails() -> None:
    async with bench() as b:
        b.queue.send(*["x"] * 20)
        await b.lane.read(10, SIZE, 20)
        b.queue.troubles.append(refused("RequestThrottled"))
        chunk = await b.lane.read(20, SIZE, 20)
        assert len(chunk.records) == 10
        assert b.passed < 1, "and does not wait"


# -- pace


async def test_idle_polls_go_on_one_after_the_other() -> None:
    async with bench() as b:
        for _ in range(180):
            assert not (await b.lane.read(10, SIZE, 20)).records
        assert b.passed == pytest.approx(3600, abs=1)
        assert len(b.queue.receives) == 180


async def test_a_server_that_never_waits_is_asked_once_a_second() -> None:
    async with bench() as b:
        b.queue.holds = False
        for _ in range(60):
            await b.lane.read(10, SIZE, 20)
        assert b.passed == pytest.approx(60, abs=1)


# -- trouble


@pytest.mark.parametrize(
    "trouble",
    [refused("RequestThrottled"), refused("InternalError", 500), unreachable()],
    ids=["throttled", "server", "unreachable"],
)
async def test_passing_trouble_is_retried_inside_the_read(trouble: Exception) -> None:
    async with bench() as b:
        b.queue.send("a")
        b.queue.troubles.extend([trouble] * 3)
        with structlog.testing.capture_logs() as logs:
            chunk = await b.lane.read(10, SIZE, 20)
        assert [body_of(record) for record in chunk.records] == ["a"]
        assert 3 < b.passed < 4.5, "0.5 s, 1 s, 2 s"
        assert [entry["event"] for entry in logs] == ["sqs_receive_failing"]
        assert errors(b) == 3


async def test_a_read_that_fails_beyond_its_wait_is_empty_and_the_next_goes_on_backing_off() -> None:
    async with bench() as b:
        b.queue.trouble = refused("RequestThrottled")
        for _ in range(4):
            assert not (await b.lane.read(10, SIZE, 0)).records
        assert len(b.queue.receives) == 4
        assert b.passed == pytest.approx(0.5 + 1 + 2 + 4, rel=0.2)


async def test_trouble_that_lasts_closes_the_lane_with_its_sentence() -> None:
    async with bench() as b:
        b.queue.trouble = refused("RequestThrottled")
        with pytest.raises(LaneFailed, match="SQS queue orders in eu-west-1 is throttled"):
            await take(b.lane, 1)
        assert 60 <= b.passed < 75
        assert len(b.queue.receives) < 15


async def test_trouble_that_passed_is_forgotten() -> None:
    async with bench() as b:
        for _ in range(3):
            b.queue.troubles.extend([refused("RequestThrottled")] * 6)  # about half a minute
            b.queue.send("a")
            await take(b.lane, 1)
        assert b.passed > 60


@pytest.mark.parametrize(
    "code, said",
    [
        ("AccessDenied", "may not be used"),
        ("QueueDoesNotExist", "does not exist"),
        ("ExpiredToken", "does not accept the credentials"),
        ("UnsupportedOperation", "was refused"),
    ],
)
async def test_trouble_that_waiting_does_not_cure_closes_the_lane_at_once(code: str, said: str) -> None:
    async with bench() as b:
        b.queue.trouble = refused(code)
        with pytest.raises(LaneFailed, match=f"SQS queue orders in eu-west-1.* {said}"):
            await b.lane.read(10, SIZE, 20)
        assert len(b.queue.receives) == 1
        assert errors(b) == 0, "the reader counts what leaves a read"


# -- receipts


async def test_a_message_that_comes_late_in_a_long_poll_has_its_life_before_it() -> None:
    async with bench(visibility=30) as b, anyio.create_task_group() as tasks:

        async def later() -> None:
            await anyio.sleep(19)
            b.queue.send("late")

        tasks.start_soon(later)
        records = await take(b.lane, 1)
        assert b.lane.usable(records, 29) is records


async def test_an_answer_that_was_held_up_counts_from_the_moment_it_was_asked_for() -> None:
    async with bench(visibility=30) as b:
        b.queue.send("old")
        b.queue.journey = 26
        records = await take(b.lane, 1)
        assert b.lane.usable(records, 3) is records
        assert list(b.lane.usable(records, 5)) == []


async def test_receipts_die_while_the_machine_sleeps() -> None:
    async with bench(visibility=30) as b:
        b.queue.send("a")
        records = await take(b.lane, 1)
        b.clock.skip(31)
        assert list(b.lane.usable(records, 0)) == []
        await b.lane.release(records)
        assert b.queue.changes == [], "somebody else may have the message by now"


# -- lag


async def test_the_queue_is_asked_for_its_backlog_twice_a_minute_at_most() -> None:
    async with bench() as b:
        lags = []
        for _ in range(60):
            b.queue.send("a")
            lags.append((await b.lane.read(10, SIZE, 5)).lag_records)
            await anyio.sleep(5)
        assert b.queue.states == pytest.approx(b.passed / 30, abs=2)
        assert sum(lag is not None for lag in lags) == pytest.approx(b.queue.states, abs=1)


async def test_a_backlog_that_cannot_be_told_disturbs_nobody() -> None:
    async with bench() as b:
        b.queue.state_error = refused("AccessDenied")
        await anyio.sleep(40)
        b.queue.send("a")
        assert len(await take(b.lane, 1)) == 1


async def test_a_visibility_that_changed_is_followed() -> None:
    async with bench(visibility=30) as b:
        b.queue.visibility = 120
        for _ in range(4):
            await b.lane.read(10, SIZE, 20)
        assert [visibility for *_, visibility in b.queue.receives] == [30, 30, 30, 120]


async def test_a_visibility_that_was_lowered_leaves_what_attempts_are_timed_by() -> None:
    async with bench(visibility=120) as b:
        b.queue.visibility = 30
        for _ in range(4):
            await b.lane.read(10, SIZE, 20)
        assert [visibility for *_, visibility in b.queue.receives] == [120, 120, 120, 120]


# -- releases


async def test_releases_go_in_groups_of_ten_with_whole_seconds() -> None:
    async with bench() as b:
        b.queue.send(*map(str, range(23)))
        records = await take(b.lane, 23)
        await b.lane.release(records, delay=2.1)
        assert sorted((len(handles), seconds) for handles, seconds in b.queue.changes) == [(3, 3), (10, 3), (10, 3)]


async def test_a_release_that_is_not_allowed_is_logged_once_and_not_tried_again() -> None:
    def denied(handles: Sequence[str]) -> dict[int, str]:
        raise refused("AccessDenied", 403)

    async with bench() as b:
        b.queue.on_change = denied
        b.queue.send(*map(str, range(30)))
        records = await take(b.lane, 30)
        with structlog.testing.capture_logs() as logs:
            await b.lane.release(records)
            calls = len(b.queue.changes)
            await b.lane.release(records)
        assert [entry["event"] for entry in logs] == ["sqs_release_denied"]
        assert len(b.queue.changes) == calls


async def test_a_release_that_fails_is_tried_again_and_then_left_to_the_visibility() -> None:
    async with bench() as b:
        b.queue.on_change = lambda handles: {0: "InternalError"}
        b.queue.send("a", "b")
        records = await take(b.lane, 2)
        with structlog.testing.capture_logs() as logs:
            await b.lane.release(records)
        assert [handles for handles, _ in b.queue.changes] == [["1", "2"], ["1"], ["1"]]
        assert [(entry["event"], entry["messages"]) for entry in logs] == [("sqs_release_failed", 1)]


async def test_a_message_that_came_back_already_needs_no_release() -> None:
    async with bench() as b:
        b.queue.on_change = lambda handles: {0: "MessageNotInflight", 1: "ReceiptHandleIsInvalid"}
        b.queue.send("a", "b")
        records = await take(b.lane, 2)
        with structlog.testing.capture_logs() as logs:
            await b.lane.release(records)
        assert (len(b.queue.changes), logs) == (1, [])


# -- receives that are never left half


async def cancelled_read(b: Bench, after: float, limit: int = 10) -> None:
    """Begin a read, end it ``after`` seconds."""
    with anyio.move_on_after(after) as scope:
        await b.lane.read(limit, SIZE, 20)
    assert scope.cancelled_caught


async def test_a_cancelled_read_ends_at_once() -> None:
    async with bench() as b:
        await cancelled_read(b, 5)
        assert b.passed == pytest.approx(5, abs=0.1)


async def test_what_an_abandoned_receive_brings_is_given_back() -> None:
    async with bench() as b:
        await cancelled_read(b, 5)
        b.queue.send("stray")
        await b.opened.receives.idle()
        assert (list(b.queue.ready), b.queue.in_flight) == (["stray"], {})
        assert [seconds for _, seconds in b.queue.changes] == [0]


async def test_an_answer_that_is_under_way_when_the_read_is_cancelled_is_given_back() -> None:
    async with bench() as b:
        b.queue.send("moving")
        b.queue.journey = 3
        await cancelled_read(b, 1)
        assert list(b.queue.in_flight.values()) == ["moving"]
        await b.opened.receives.idle()
        assert list(b.queue.ready) == ["moving"]


async def test_an_answer_that_came_in_the_moment_of_the_cancellation_is_given_back() -> None:
    for steps in range(12):  # one of them is the moment between the answer and the reader's next turn
        async with bench() as b:
            got: list[Record] = []

            async def read(b: Bench = b, got: list[Record] = got) -> None:
                got += (await b.lane.read(10, SIZE, 20)).records

            async with anyio.create_task_group() as reader:
                reader.start_soon(read)
                b.queue.send("now")
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                reader.cancel_scope.cancel()
            if not got:
                await take(b.lane, 1)
                assert b.passed < 20, "it did not wait for the visibility to end"


async def test_a_burst_that_is_cancelled_gives_all_of_it_back() -> None:
    async with bench() as b:
        b.queue.send(*map(str, range(70)))
        for _ in range(2):
            await b.lane.read(100, SIZE, 20)
        b.queue.journey = 3
        await cancelled_read(b, 1, limit=100)
        assert len(b.queue.in_flight) == 70
        await b.opened.receives.idle()
        assert (len(b.queue.in_flight), len(b.queue.ready)) == (30, 40)


async def test_leaving_waits_for_the_receive_that_a_failed_pipeline_left_open() -> None:
    async with bench() as b, anyio.create_task_group() as tasks:
        await cancelled_read(b, 5)

        async def later() -> None:
            await anyio.sleep(10)
            b.queue.send("stray")

        tasks.start_soon(later)
        await b.opened.close()
        assert list(b.queue.ready) == ["stray"]
        assert b.passed == pytest.approx(15, abs=0.1)


async def test_a_hard_stop_waits_for_two_seconds_at_most() -> None:
    async with bench() as b:
        await cancelled_read(b, 5)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await b.opened.close()
        assert b.passed == pytest.approx(5 + CLOSE_SECONDS, abs=0.1)


async def test_a_hard_stop_gives_back_what_comes_meanwhile_and_ends_deletes() -> None:
    async with bench() as b, anyio.create_task_group() as tasks:
        b.queue.send("done")
        await b.lane.settle(await take(b.lane, 1), None)
        await cancelled_read(b, 5)

        async def later() -> None:
            await anyio.sleep(1)
            b.queue.send("stray")

        tasks.start_soon(later)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await b.opened.close()
        assert (list(b.queue.ready), b.queue.in_flight) == (["stray"], {})
        assert b.passed == pytest.approx(6, abs=0.1)
