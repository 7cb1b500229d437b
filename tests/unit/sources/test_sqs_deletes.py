"""Deletes go on beside everything else, until they worked or cannot work any more."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest
import structlog.testing

from esm.domain.record import LaneId
from esm.sources.sqs_deletes import AT_ONCE, MOST, Deletes, Delivered
from esm.sources.sqs_events import Receipt
from esm.sources.sqs_shelter import Shelter
from tests.support.sqs_calls import ScriptedQueue, refused, unreachable
from tests.support.time import BACKENDS, Backend, LoopClock, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


class Count:
    """A Counter."""

    value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Bench:
    """Deletes over a scripted queue."""

    def __init__(self, shelter: Shelter, queue: ScriptedQueue | None = None) -> None:
        self.queue = queue or ScriptedQueue()
        self.failed = Count()
        self.deletes = Deletes(
            LaneId("orders", "orders"), self.queue, shelter, LoopClock(), self.failed, jitter=lambda: 0.5
        )

    def delivered(self, count: int, life: float = 30.0, first: int = 0) -> list[Delivered]:
        """Messages in flight, whose receipts live for ``life`` seconds from now."""
        expires = anyio.current_time() + life
        handles = [str(number) for number in range(first, first + count)]
        self.queue.in_flight |= dict.fromkeys(handles, "body")
        return [Delivered(f"m{handle}", Receipt(handle, expires)) for handle in handles]


@asynccontextmanager
async def bench(queue: ScriptedQueue | None = None) -> AsyncIterator[Bench]:
    async with anyio.create_task_group() as tasks:
        shelter = Shelter(tasks)
        yield Bench(shelter, queue)
        shelter.close()


async def test_deletes_go_in_groups_of_ten() -> None:
    async with bench() as b:
        await b.deletes.add(b.delivered(25))
        await b.deletes.flush()
        assert (sorted(len(group) for _, group in b.queue.deletes), b.queue.in_flight) == ([5, 10, 10], {})


async def test_adding_waits_for_no_answer() -> None:
    async with bench() as b:
        await b.deletes.add(b.delivered(25))
        assert b.queue.deletes == []
        await b.deletes.flush()


async def test_nothing_to_delete_calls_nobody() -> None:
    async with bench() as b:
        await b.deletes.add([])
        await b.deletes.flush()
        assert b.queue.deletes == []


async def test_one_delete_in_ten_fails_and_none_is_left_in_the_end() -> None:
    seen = 0

    def one_in_ten(handles: Sequence[str]) -> Mapping[int, str]:
        nonlocal seen
        seen += len(handles)
        return {len(handles) - 1: "InternalError"} if seen % 10 == 0 else {}

    async with bench() as b:
        b.queue.on_delete = one_in_ten
        await b.deletes.add(b.delivered(200))
        await b.deletes.flush()
        assert (b.queue.in_flight, b.failed.value) == ({}, 0)
        assert sum(len(group) for _, group in b.queue.deletes) > 200, "some were tried again"


async def test_only_what_failed_is_tried_again() -> None:
    async with bench() as b:
        answers = iter([{3: "InternalError", 7: "Unanswered"}, {}])
        b.queue.on_delete = lambda handles: next(answers)
        await b.deletes.add(b.delivered(10))
        await b.deletes.flush()
        assert [group for _, group in b.queue.deletes[1:]] == [["3", "7"]]


async def test_an_outage_is_outlived_with_growing_pauses_and_one_line_in_the_log() -> None:
    def away(handles: Sequence[str]) -> Mapping[int, str]:
        if anyio.current_time() < start + 20:
            raise unreachable()
        return {}

    async with bench() as b:
        start = anyio.current_time()
        b.queue.on_delete = away
        with structlog.testing.capture_logs() as logs:
            await b.deletes.add(b.delivered(5))
            await b.deletes.flush()
        assert (b.queue.in_flight, b.failed.value) == ({}, 0)
        assert [entry["event"] for entry in logs] == ["sqs_delete_failing"]
        times = [when for when, _ in b.queue.deletes]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses[:4] == sorted(pauses[:4])
        assert len(times) < 12


async def test_a_message_whose_receipt_dies_first_is_counted_and_forgotten() -> None:
    async with bench() as b:
        b.queue.on_delete = lambda handles: dict.fromkeys(range(len(handles)), "InternalError")
        with structlog.testing.capture_logs() as logs:
            await b.deletes.add(b.delivered(3, life=5.0))
            start = anyio.current_time()
            await b.deletes.flush()
        assert b.failed.value == 3
        assert 5.0 <= anyio.current_time() - start < 5.5, "the last try is at the end of its life"
        [entry] = [entry for entry in logs if entry["event"] == "sqs_delete_failed"]
        assert (entry["messages"], entry["first"], entry["error"]) == (3, "m0", "InternalError")


async def test_a_flush_does_not_wait_for_what_was_given_up() -> None:
    async with bench() as b:
        b.queue.on_delete = lambda handles: {0: "InternalError"} if "0" in handles else {}
        await b.deletes.add(b.delivered(1, life=2.0))
        await b.deletes.add(b.delivered(5, first=1))
        await b.deletes.flush()
        assert (b.failed.value, list(b.queue.in_flight)) == (1, ["0"])


async def test_a_delete_whose_reply_was_lost_is_done_when_elasticmq_calls_its_receipt_invalid() -> None:
    def lost_then_void(handles: Sequence[str]) -> Mapping[int, str]:
        if len(b.queue.deletes) == 1:
            b.queue.in_flight.clear()  # it had its effect
            raise unreachable()
        return dict.fromkeys(range(len(handles)), "ReceiptHandleIsInvalid")

    async with bench() as b:
        b.queue.on_delete = lost_then_void
        await b.deletes.add(b.delivered(4))
        await b.deletes.flush()
        assert (len(b.queue.deletes), b.failed.value) == (2, 0)


async def test_a_receipt_that_is_void_at_the_first_try_is_a_failure_without_a_second() -> None:
    async with bench() as b:
        b.queue.on_delete = lambda handles: {0: "ReceiptHandleIsInvalid"}
        await b.deletes.add(b.delivered(2))
        await b.deletes.flush()
        assert (len(b.queue.deletes), b.failed.value) == (1, 1)


async def test_a_denied_delete_is_tried_until_the_receipts_die_and_names_the_permission() -> None:
    def denied(handles: Sequence[str]) -> Mapping[int, str]:
        raise refused("AccessDenied", 403)

    async with bench() as b:
        b.queue.on_delete = denied
        with structlog.testing.capture_logs() as logs:
            await b.deletes.add(b.delivered(1, life=3.0))
            await b.deletes.flush()
        assert b.failed.value == 1
        assert "SQS queue orders in eu-west-1 may not be used" in logs[0]["error"]


async def test_no_more_calls_than_allowed_run_at_once() -> None:
    most = 0

    class Slow(ScriptedQueue):
        async def delete(self, handles: Sequence[str]) -> Mapping[int, str]:
            nonlocal most
            running.add(handles[0])
            most = max(most, len(running))
            await anyio.sleep(1)
            running.discard(handles[0])
            return await super().delete(handles)

    running: set[str] = set()
    async with bench(Slow()) as b:
        await b.deletes.add(b.delivered(500))
        await b.deletes.flush()
    assert most == AT_ONCE


async def test_adding_waits_while_too_much_is_undeleted() -> None:
    async with bench() as b:
        b.queue.on_delete = lambda handles: dict.fromkeys(range(len(handles)), "InternalError")
        with anyio.move_on_after(1) as scope:
            await b.deletes.add(b.delivered(MOST + 1))
        assert scope.cancelled_caught
        b.queue.on_delete = lambda handles: {}
        await b.deletes.flush()
        await b.deletes.add(b.delivered(1))


async def test_a_cancelled_lane_does_not_cancel_its_deletes() -> None:
    async with anyio.create_task_group() as outer:
        shelter = Shelter(outer)
        b = Bench(shelter)
        with anyio.CancelScope() as lane:
            await b.deletes.add(b.delivered(25))
            lane.cancel()
            await b.deletes.flush()
        await b.deletes.flush()
        assert b.queue.in_flight == {}
