"""When a batch is full, and when its window closes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from esm.domain.batch import EVENT_BYTES, BatchLimits, Gathering, closes_at, fitting
from esm.domain.record import Record
from tests.support.delivery import KINESIS, SHARD, batch_of, names_of, record

QUICK = settings(max_examples=75, deadline=None)


def limits(records: int = 10_000, window: float = 0, size: int = EVENT_BYTES) -> BatchLimits:
    return BatchLimits(records, window, KINESIS.overhead, size)


def sized(*sizes: int) -> list[Record]:
    return [record(at, entry=b"x" * size) for at, size in enumerate(sizes, 1)]


def gathering(records: list[Record], within: BatchLimits, now: float = 0.0) -> Gathering:
    made = Gathering(within)
    made.put(records, now)
    return made


class TestTheSizeOfABatch:
    def test_is_6_291_456_bytes_of_the_event_as_sent(self) -> None:
        rest = EVENT_BYTES - KINESIS.overhead - 1_000_000 - 1  # the comma
        exact, above = sized(1_000_000, rest), sized(1_000_000, rest + 1)
        assert len(KINESIS.frame(SHARD, exact)) == 6_291_456
        assert fitting(exact, limits()) == 2
        assert fitting(above, limits()) == 1

    def test_counts_the_comma_before_the_record_that_would_overflow(self) -> None:
        size = KINESIS.overhead + 10
        assert fitting(sized(4, 5), limits(size=size)) == 2
        assert fitting(sized(5, 5), limits(size=size)) == 1

    def test_never_keeps_a_single_record_back(self) -> None:
        assert fitting(sized(EVENT_BYTES), limits()) == 1
        assert fitting(sized(EVENT_BYTES, 1), limits()) == 1

    def test_is_the_batch_size_at_most(self) -> None:
        assert fitting(batch_of("abc"), limits(records=2)) == 2
        assert fitting([], limits()) == 0

    @QUICK
    @given(
        sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30), most=st.integers(1, 12), room=st.integers(0, 90)
    )
    def test_is_as_large_as_the_limits_allow_and_no_larger(self, sizes: list[int], most: int, room: int) -> None:
        records, within = sized(*sizes), limits(most, size=KINESIS.overhead + room)
        count = fitting(records, within)
        assert 1 <= count <= min(most, len(records))
        assert count == 1 or len(KINESIS.frame(SHARD, records[:count])) <= within.size
        if count < min(most, len(records)):
            assert len(KINESIS.frame(SHARD, records[: count + 1])) > within.size


class TestGathering:
    def test_is_full_by_count(self) -> None:
        waiting = gathering(batch_of("ab"), limits(records=3))
        assert not waiting.full
        waiting.put(batch_of("c"), 1.0)
        assert waiting.full

    def test_is_full_at_exactly_the_bytes_of_an_event(self) -> None:
        size = KINESIS.overhead + 11
        assert gathering(sized(5, 5), limits(size=size)).full
        assert not gathering(sized(5, 4), limits(size=size)).full

    def test_hands_out_the_oldest_first_and_keeps_what_would_overflow_for_the_next_batch(self) -> None:
        waiting = gathering(sized(6, 4, 9, 1), limits(size=KINESIS.overhead + 11))
        assert [names_of(waiting.take()), names_of(waiting.take())] == ["12", "34"]
        assert not waiting

    def test_remembers_when_the_oldest_came(self) -> None:
        waiting = gathering(batch_of("ab"), limits(records=3), now=1.0)
        waiting.put([], 2.0)
        waiting.put(batch_of("cde"), 3.0)
        waiting.put(batch_of("f"), 4.0)
        assert waiting.first == 1.0
        assert names_of(waiting.take()) == "abc"
        assert (waiting.first, len(waiting)) == (3.0, 3)
        waiting.put(batch_of("g"), 5.0)
        assert names_of(waiting.take()) == "def"
        assert waiting.first == 5.0

    def test_gives_up_all_at_once(self) -> None:
        waiting = gathering(sized(5, 5), limits(size=KINESIS.overhead + 11))
        assert names_of(waiting.take_all()) == "12"
        assert not waiting
        waiting.put(sized(5), 1.0)
        assert not waiting.full

    @QUICK
    @given(
        puts=st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=8),
        most=st.integers(1, 6),
        room=st.integers(0, 60),
    )
    def test_cuts_batches_as_if_each_were_counted_anew(self, puts: list[list[int]], most: int, room: int) -> None:
        within = limits(most, size=KINESIS.overhead + room)
        waiting = Gathering(within)
        plain: list[Record] = []
        times: list[float] = []
        for now, sizes in enumerate(puts):
            records = [record(len(plain) + at, entry=b"x" * size) for at, size in enumerate(sizes)]
            waiting.put(records, float(now))
            plain += records
            times += [float(now)] * len(records)
            if plain:
                overflows = fitting(plain, within) < len(plain) or len(plain) == most
                assert waiting.full or not overflows
                assert waiting.first == times[0]
                count = fitting(plain, within)
                assert waiting.take() == plain[:count]
                del plain[:count], times[:count]
            assert len(waiting) == len(plain)


class TestTheWindowOfAnOrderedLane:
    def test_starts_when_the_previous_batch_ended_and_a_record_was_waiting(self) -> None:
        assert closes_at(first=1.0, resumed=4.0, window=5.0) == 9.0

    def test_starts_when_the_previous_batch_ended_within_a_window_before_the_first_record(self) -> None:
        assert closes_at(first=8.9, resumed=4.0, window=5.0) == 9.0

    def test_starts_with_the_first_record_of_a_lane_that_was_quiet(self) -> None:
        assert closes_at(first=9.0, resumed=4.0, window=5.0) == 14.0

    def test_starts_with_the_very_first_record(self) -> None:
        assert closes_at(first=1.0, resumed=float("-inf"), window=5.0) == 6.0

    def test_of_no_length_has_always_closed(self) -> None:
        assert closes_at(first=1.0, resumed=4.0, window=0.0) == 4.0
        assert closes_at(first=4.0, resumed=1.0, window=0.0) == 4.0
