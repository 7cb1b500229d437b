"""The machine's clock: what never steps, and a calendar that cannot expire records by a step."""

from structlog.testing import capture_logs

from esm.clock import SystemClock


class Hands:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.elapsed = 100.0
        self.epoch = 1_767_222_000.0

    def pass_(self, seconds: float) -> None:
        self.elapsed += seconds
        self.epoch += seconds

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.elapsed, lambda: self.epoch)


def test_time_passes_on_both_clocks_alike() -> None:
    hands = Hands()
    clock = hands.clock()
    first = clock.instant()
    hands.pass_(7)
    second = clock.instant()
    assert (second.elapsed - first.elapsed, second.epoch - first.epoch) == (7, 7)
    assert not second.ages_paused


def test_a_step_of_the_calendar_is_reported_and_pauses_ages_for_a_minute() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.epoch += 86_400
    with capture_logs() as logs:
        assert clock.instant().ages_paused
    assert [(log["event"], log["seconds"]) for log in logs] == [("clock_stepped", 86_400)]
    hands.pass_(59)
    assert clock.instant().ages_paused
    hands.pass_(2)
    assert not clock.instant().ages_paused


def test_a_calendar_that_is_slewed_is_followed_in_silence() -> None:
    hands = Hands()
    clock = hands.clock()
    with capture_logs() as logs:
        for _ in range(100):
            hands.pass_(1)
            hands.epoch += 0.5
            assert not clock.instant().ages_paused
    assert logs == []
    assert clock.instant().epoch == hands.epoch


def test_a_suspended_machine_steps_nothing_where_both_clocks_count_it() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_(8 * 3600)
    assert not clock.instant().ages_paused


def test_the_real_clocks_agree_within_seconds() -> None:
    clock = SystemClock()
    first, second = clock.instant(), clock.instant()
    assert second.elapsed >= first.elapsed
    assert not second.ages_paused
