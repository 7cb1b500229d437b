"""How long to wait, and when to give up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esm.domain.retry import FAILED, REFUSED, Backoff, RetryPolicy
from tests.support.delivery import NOON, at, record

QUICK = settings(max_examples=50, deadline=None)


def test_the_first_pause_lies_where_aws_was_recorded() -> None:
    assert FAILED.delay(1, lambda: 0.0) == pytest.approx(0.19)
    assert FAILED.delay(1, lambda: 1.0) == pytest.approx(0.27)
    assert FAILED.delay(2, lambda: 0.0) <= 0.39 <= FAILED.delay(2, lambda: 1.0)


def test_a_refusal_waits_longer_than_a_failure() -> None:
    assert REFUSED.delay(1, lambda: 0.0) > FAILED.delay(1, lambda: 0.999)


@QUICK
@given(
    times=st.integers(1, 10_000),
    base=st.floats(0.01, 10),
    cap=st.floats(0.1, 1000),
    low=st.floats(0, 0.999),
    high=st.floats(0, 0.999),
)
def test_a_pause_is_positive_grows_with_luck_and_is_never_above_its_cap(
    times: int, base: float, cap: float, low: float, high: float
) -> None:
    backoff = Backoff(base, cap)
    shorter, longer = (backoff.delay(times, lambda luck=luck: luck) for luck in sorted((low, high)))
    assert 0 < shorter <= longer <= cap


def test_pauses_vary_even_at_the_cap() -> None:
    lengths = [Backoff(1, 60).delay(100, lambda luck=luck: luck) for luck in (0.0, 0.5, 0.999)]
    assert 42 < lengths[0] < lengths[1] < lengths[2] < 60


def test_pauses_double() -> None:
    assert [Backoff(1, 60).delay(times, lambda: 0.125) for times in range(1, 6)] == [1, 2, 4, 8, 16]


class TestRetries:
    @pytest.mark.parametrize("retries, failures, over", [(0, 0, False), (0, 1, True), (2, 2, False), (2, 3, True)])
    def test_run_out_with_one_more_failure_than_they_allow(self, retries: int, failures: int, over: bool) -> None:
        assert RetryPolicy(max_retries=retries).exhausted(failures) is over

    def test_without_a_limit_never_run_out(self) -> None:
        assert not RetryPolicy().exhausted(10**9)


class TestAge:
    def test_above_the_limit_is_too_old_and_the_limit_itself_is_not(self) -> None:
        policy = RetryPolicy(max_age=60)
        records = [record(1, arrived_at=NOON - 60.001), record(2, arrived_at=NOON - 60), record(3)]
        assert policy.expired(records, at()) == records[:1]

    def test_without_a_limit_is_never_too_old(self) -> None:
        assert RetryPolicy().expired([record(1, arrived_at=0.0)], at()) == []
        assert RetryPolicy().expires_at([record(1)], at()) == float("inf")

    def test_is_not_told_while_the_clock_is_in_doubt(self) -> None:
        assert RetryPolicy(max_age=60).expired([record(1, arrived_at=0.0)], at(ages_paused=True)) == []

    def test_tells_when_the_oldest_will_be_too_old(self) -> None:
        records = [record(1), record(2, arrived_at=NOON - 10), record(3)]
        assert RetryPolicy(max_age=60).expires_at(records, at(5)) == pytest.approx(50)
