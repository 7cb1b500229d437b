"""How attempts and windows fit into the time for which a queue hides a message."""

import pytest

from esm.domain.visibility import MARGIN_SECONDS, QueueTiming, queue_timing


def timing(visibility: float, seconds: float = 60, required: float | None = None, window: float = 0) -> QueueTiming:
    found = queue_timing(visibility, seconds, required, window)
    assert found is not None
    return found


def test_a_timeout_above_the_visibility_does_not_fit() -> None:
    assert queue_timing(visibility=30, seconds=65, required=60, window=0) is None
    assert queue_timing(visibility=60, seconds=65, required=60, window=0) is not None


def test_a_timeout_that_nobody_set_ends_before_the_message_comes_back() -> None:
    assert timing(visibility=30).seconds == 25
    assert timing(visibility=300).seconds == 60


def test_a_window_is_left_out_of_a_timeout_that_nobody_set() -> None:
    assert timing(visibility=60, window=20) == QueueTiming(seconds=35, window=20, needed=30)


def test_a_window_closes_early_enough_for_a_whole_attempt_behind_it() -> None:
    found = timing(visibility=60, seconds=30, required=30, window=300)
    assert found.window + found.seconds + MARGIN_SECONDS == 60


def test_an_attempt_as_long_as_the_visibility_leaves_no_window() -> None:
    assert timing(visibility=30, seconds=35, required=30, window=10) == QueueTiming(30, 0, 15)


@pytest.mark.parametrize("visibility", [1, 2, 5, 6, 30, 43_200])
@pytest.mark.parametrize("window", [0, 5, 300])
@pytest.mark.parametrize("required", [None, 1])
def test_a_fresh_message_can_be_sent_whatever_the_visibility(
    visibility: float, window: float, required: float | None
) -> None:
    found = timing(visibility, required=required, window=window)
    assert 1 <= found.seconds <= visibility
    assert 0 <= found.window <= window
    assert 0 < found.needed < visibility
