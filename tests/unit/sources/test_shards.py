"""How a shard is read: pace, waits, failures, iterators; on time that jumps."""

from collections.abc import Sequence
from itertools import pairwise

import anyio
import pytest

from esm.domain.errors import LaneFailed
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import Gap, LaneEnd
from esm.sources.shards import FAILING_SECONDS, IteratorExpired, Page, PositionTrimmed
from tests.support.shard_calls import Bench, end, error, no_answer, page
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def gaps(times: Sequence[float]) -> list[float]:
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


# -- pace


async def test_while_records_remain_the_next_call_waits_for_the_services_limit_alone() -> None:
    bench = Bench(*[page(n, behind=60) for n in range(1, 6)])
    assert await bench.positions(5) == [1, 2, 3, 4, 5]
    assert gaps(bench.calls.asked) == [0.2] * 4


async def test_at_the_tip_the_next_call_comes_a_second_later() -> None:
    bench = Bench(page(1), page(2), page(3))
    assert await bench.positions(3) == [1, 2, 3]
    assert gaps(bench.calls.asked) == [1.0, 1.0]


async def test_an_idle_shard_is_asked_once_a_second_however_often_it_is_read() -> None:
    bench = Bench()
    begun = anyio.current_time()
    while anyio.current_time() < begun + 60:
        await bench.reader.read(1000, 10**6, 0.35)
    assert 59 <= len(bench.calls.asked) <= 61


async def test_reads_that_do_not_wait_cannot_turn_in_a_circle() -> None:
    bench = Bench(rest=page(behind=5))
    begun = anyio.current_time()
    for _ in range(50):
        await bench.reader.read(1000, 10**6, 0)
    assert min(gaps(bench.calls.asked)) >= 0.2
    assert anyio.current_time() - begun >= 9.7


async def test_an_empty_reply_behind_the_tip_is_followed_at_once_in_the_same_read() -> None:
    bench = Bench(page(behind=900), page(behind=500), page(8, behind=0))
    chunk = await bench.reader.read(1000, 10**6, 20)
    assert [one.position for one in chunk.records] == [8]
    assert gaps(bench.calls.asked) == [0.2, 0.2]


async def test_a_full_page_is_followed_at_once_whatever_the_source_says_of_its_tip() -> None:
    bench = Bench(page(1, 2, 3, behind=0), page(4))
    chunk = await bench.reader.read(3, 10**6, 5)
    assert chunk.more
    await bench.reader.read(3, 10**6, 5)
    assert gaps(bench.calls.asked) == [0.2]


async def test_without_word_of_the_tip_a_reply_with_records_is_followed_at_once() -> None:
    bench = Bench(page(1, behind=None), page(behind=None), page(2, behind=None))
    assert await bench.positions(2) == [1, 2]
    assert gaps(bench.calls.asked) == [0.2, 1.0]


async def test_an_empty_chunk_comes_when_the_wait_is_over_and_not_before() -> None:
    bench = Bench(page(1))
    await bench.positions(1)
    for wait in (0.1, 2.5, 20.0):
        begun = anyio.current_time()
        chunk = await bench.reader.read(1000, 10**6, wait)
        assert (list(chunk.records), chunk.through) == ([], (1, 0))
        assert anyio.current_time() - begun == pytest.approx(wait, abs=1e-6)


async def test_waiting_is_cancelled_at_once() -> None:
    bench = Bench()
    with anyio.move_on_after(3):
        await bench.reader.read(1000, 10**6, 3600)
    assert anyio.current_time() < bench.calls.asked[0] + 3.001


# -- size


async def test_the_limit_is_the_smallest_of_what_is_asked_and_what_the_service_gives() -> None:
    bench = Bench(rest=page(1, behind=9))
    for limit in (10, 1000, 50_000):
        await bench.reader.read(limit, 10**9, 5)
    assert bench.calls.limits == [10, 1000, 1000]


async def test_the_limit_follows_the_room_once_the_size_of_records_is_known() -> None:
    bench = Bench(rest=page(1, 2, behind=9, entry=b"x" * 500))
    for size in (5000, 5000, 100):
        await bench.reader.read(1000, size, 5)
    assert bench.calls.limits == [1000, 10, 1]


# -- where it got to


async def test_lag_and_more_are_what_the_source_says() -> None:
    bench = Bench(page(1, behind=12.5), page(2, behind=0), page(3, behind=None))
    chunks = [await bench.reader.read(1000, 10**6, 5) for _ in range(3)]
    assert [(chunk.lag_seconds, chunk.more) for chunk in chunks] == [(12.5, True), (0.0, False), (None, True)]


async def test_records_before_the_moment_are_passed_and_later_ones_never_looked_at_again() -> None:
    passed = Page((), 7, 7, "next", 100)
    bench = Bench(passed, page(8, behind=9), page(9, behind=9), start=Start(moment=50.0))
    assert await bench.positions(2) == [8, 9]
    assert bench.calls.moments == [50.0, 50.0, None]


async def test_a_chunk_without_wanted_records_says_how_far_it_passed() -> None:
    bench = Bench(Page((), 7, 7, "next", 0.0), start=Start(moment=50.0))
    chunk = await bench.reader.read(1000, 10**6, 0.5)
    assert (list(chunk.records), chunk.through) == ([], (7, 0))


async def test_the_end_names_the_children_and_is_told_again() -> None:
    bench = Bench(end(1, children=("a", "b")))
    first = await bench.reader.read(1000, 10**6, 5)
    second = await bench.reader.read(1000, 10**6, 5)
    assert first.ended == second.ended == LaneEnd(("a", "b"))
    assert ([one.position for one in first.records], list(second.records)) == ([1], [])
    assert (first.more, len(bench.calls.asked)) == (False, 1)


# -- iterators


async def test_an_expired_iterator_is_renewed_behind_the_last_record_that_was_read() -> None:
    bench = Bench(page(4, 5), IteratorExpired("old"), page(6), start=Start(after=(3, 0)))
    assert await bench.positions(2) == [4, 5, 6]
    assert bench.calls.starts == [Start(after=(3, 0)), Start(after=(5, 0))]


@pytest.mark.parametrize("start", [HORIZON, Start(moment=50.0), Start(after=(3, 0))])
async def test_an_iterator_that_expired_before_anything_was_read_is_renewed_from_the_start(start: Start) -> None:
    bench = Bench(page(), IteratorExpired("old"), page(6), start=start)
    assert await bench.positions(1) == [6]
    assert bench.calls.starts == [start, start]


async def test_passed_records_count_as_read_when_an_iterator_is_renewed() -> None:
    bench = Bench(Page((), 7, 7, "next", 9.0), IteratorExpired("old"), page(8), start=Start(moment=50.0))
    assert await bench.positions(1) == [8]
    assert bench.calls.starts[1] == Start(after=(7, 0))
    assert bench.calls.moments[-1] == 50.0


async def test_iterators_that_expire_as_soon_as_they_are_made_fail_the_lane() -> None:
    bench = Bench(rest=IteratorExpired("old"))
    with pytest.raises(LaneFailed, match="could not be used"):
        await bench.reader.read(1000, 10**6, 3600)
    assert min(gaps(bench.calls.asked)) >= 0.2


async def test_a_trimmed_position_starts_again_at_the_horizon_and_tells_the_gap_once() -> None:
    bench = Bench(page(40), page(41), start=Start(after=(3, 0)))
    bench.calls.iterator_errors.append(PositionTrimmed("gone"))
    first = await bench.reader.read(1000, 10**6, 5)
    second = await bench.reader.read(1000, 10**6, 5)
    assert bench.calls.starts == [Start(after=(3, 0)), HORIZON]
    assert (first.gap, second.gap) == (Gap((3, 0), (40, 0)), None)


async def test_a_position_that_is_trimmed_while_it_is_read_leaves_a_gap_behind_what_was_read() -> None:
    bench = Bench(page(4), PositionTrimmed("gone"), page(90))
    assert await bench.positions(1) == [4]
    chunk = await bench.reader.read(1000, 10**6, 5)
    assert chunk.gap == Gap((4, 0), (90, 0))


async def test_a_gap_before_an_empty_shard_is_told_all_the_same() -> None:
    bench = Bench(page(), start=Start(after=(3, 0)))
    bench.calls.iterator_errors.append(PositionTrimmed("gone"))
    chunk = await bench.reader.read(1000, 10**6, 5)
    assert (chunk.gap, list(chunk.records)) == (Gap((3, 0), None), [])


async def test_a_horizon_that_moved_before_anything_was_read_is_no_gap() -> None:
    bench = Bench(PositionTrimmed("gone"), page(9), start=HORIZON)
    chunk = await bench.reader.read(1000, 10**6, 5)
    assert (chunk.gap, [one.position for one in chunk.records]) == (None, [9])


# -- failures


@pytest.mark.parametrize(
    "failure",
    [
        error("ProvisionedThroughputExceededException"),
        error("ThrottlingException"),
        error("LimitExceededException"),
        error("InternalFailure", 500),
        error("ServiceUnavailable", 503),
        no_answer(),
    ],
    ids=lambda failure: str(failure)[:60],
)
async def test_what_may_pass_is_tried_again_after_growing_waits(failure: Exception) -> None:
    bench = Bench(failure, failure, failure, page(1), page(2, behind=9), page(3))
    assert await bench.positions(3, wait=60) == [1, 2, 3]
    waits = gaps(bench.calls.asked)
    assert waits[0] >= 0.45
    assert waits[1] > 1.5 * waits[0]
    assert waits[2] > 1.5 * waits[1]
    assert waits[3:] == [1.0, 0.2]
    assert bench.errors == 3


async def test_asking_for_an_iterator_is_tried_again_like_a_read() -> None:
    bench = Bench(page(1))
    bench.calls.iterator_errors += [error("ProvisionedThroughputExceededException"), no_answer()]
    assert await bench.positions(1) == [1]
    assert len(bench.calls.starts) == 3


async def test_a_lost_reply_is_asked_for_again_with_the_same_iterator() -> None:
    bench = Bench(page(1, behind=9), no_answer(), page(2))
    assert await bench.positions(2) == [1, 2]
    assert bench.calls.starts == [HORIZON]


async def test_a_failing_read_ends_with_its_wait_and_the_next_goes_on_with_the_back_off() -> None:
    bench = Bench(rest=no_answer())
    begun = anyio.current_time()
    while anyio.current_time() < begun + 60:
        before = anyio.current_time()
        chunk = await bench.reader.read(1000, 10**6, 1)
        assert (list(chunk.records), chunk.lag_seconds) == ([], None)
        assert anyio.current_time() - before <= 1.001
    assert len(bench.calls.asked) <= 9


async def test_a_shard_that_cannot_be_read_for_minutes_has_failed_with_the_reason() -> None:
    bench = Bench(rest=no_answer())
    with pytest.raises(LaneFailed) as caught:
        await bench.reader.read(1000, 10**6, 3600)
    assert str(caught.value).startswith("Shard shard-7 of Kinesis stream clicks in eu-west-1: ")
    assert "did not answer in time" in str(caught.value)
    assert FAILING_SECONDS <= anyio.current_time() - bench.calls.asked[0] <= FAILING_SECONDS + 30


async def test_failures_with_successes_between_them_never_fail_the_lane() -> None:
    bench = Bench(*[answer for n in range(1, 400) for answer in (no_answer(), page(n, behind=9))])
    assert len(await bench.positions(399)) == 399


@pytest.mark.parametrize(
    "failure, sentence",
    [
        (error("ResourceNotFoundException"), "does not exist"),
        (error("AccessDeniedException"), "allow kinesis:GetRecords to the worker's role"),
        (error("UnrecognizedClientException"), "AWS does not accept the credentials"),
    ],
    ids=["missing", "denied", "credentials"],
)
async def test_what_cannot_pass_fails_the_lane_at_once_with_the_sentence(failure: Exception, sentence: str) -> None:
    bench = Bench(failure)
    with pytest.raises(LaneFailed, match=sentence):
        await bench.reader.read(1000, 10**6, 60)
    assert (len(bench.calls.asked), bench.errors) == (1, 0)  # the engine counts what leaves the read


async def test_a_cancelled_call_is_made_again_with_the_same_iterator() -> None:
    bench = Bench(page(1, behind=9), page(2, behind=9))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bench.reader.read(1000, 10**6, 5)
    assert await bench.positions(2) == [1, 2]
