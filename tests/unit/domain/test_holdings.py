"""What a lane has read and not yet settled: how far it is settled, and what it remembers."""

from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esm.domain.holdings import MOST_RANGES, LaneProgress, QueueHoldings
from esm.domain.record import Chunk, Mark, Position, Record
from tests.support.delivery import NOON, QUEUE, batch_of, record


def took(*positions: int, through: Position | None = None, resumed: Mark | None = None) -> LaneProgress:
    progress = LaneProgress(resumed)
    progress.took(Chunk(records(*positions), through))
    return progress


def records(*positions: int) -> list[Record]:
    return [record(position) for position in positions]


class TestTheMarkOfAnOrderedLane:
    def test_is_absent_while_nothing_is_settled(self) -> None:
        assert LaneProgress().mark() is None
        assert took(1, 2).mark() is None

    def test_goes_on_over_the_contiguous_settled_prefix(self) -> None:
        progress = took(1, 2, 3, 4)
        progress.settled(records(1, 2))
        assert progress.mark() == Mark((2, 0))

    def test_never_passes_an_unsettled_record(self) -> None:
        progress = took(1, 2, 3, 4)
        progress.settled(records(2, 4))
        assert progress.mark() == Mark(None, above=(((2, 0), (2, 0)), ((4, 0), (4, 0))))

    def test_catches_up_once_the_record_in_its_way_is_settled(self) -> None:
        progress = took(1, 2, 3)
        progress.settled(records(2, 3))
        progress.settled(records(1))
        assert progress.mark() == Mark((3, 0))

    def test_passes_what_a_chunk_leaves_out_behind_its_last_record(self) -> None:
        progress = took(1, 2, through=(9, 0))
        assert progress.mark() is None
        progress.settled(records(1, 2))
        assert progress.mark() == Mark((9, 0))

    def test_passes_a_gap_between_two_chunks_with_the_record_before_it(self) -> None:
        progress = took(1, through=(5, 0))
        progress.took(Chunk(records(8)))
        progress.settled(records(1))
        assert progress.mark() == Mark((5, 0))

    def test_passes_an_empty_chunk(self) -> None:
        assert took(through=(7, 0)).mark() == Mark((7, 0))

    def test_does_not_go_back_for_a_chunk_that_ends_before_its_last_record(self) -> None:
        progress = took(4, through=(2, 0))
        progress.settled(records(4))
        assert progress.mark() == Mark((4, 0))

    def test_does_not_remember_as_settled_a_gap_that_holds_no_record(self) -> None:
        progress = took(1, through=(5, 0))
        progress.took(Chunk(records(8), through=(9, 0)))
        assert progress.mark() is None

    def test_tells_the_parts_of_an_aggregate_apart(self) -> None:
        parts = [record(7, sub=sub) for sub in range(3)]
        progress = LaneProgress()
        progress.took(Chunk([*parts, record(8)]))
        progress.settled([parts[0], parts[2]])
        assert progress.mark() == Mark((7, 0), above=(((7, 2), (7, 2)),))

    def test_compares_positions_as_numbers(self) -> None:
        progress = took(9, 10, through=(10, 0))
        progress.settled(records(9))
        assert progress.mark() == Mark((9, 0))

    def test_joins_neighbours_to_one_range_across_chunks_and_gaps(self) -> None:
        progress = took(1, 2, through=(3, 0))
        progress.took(Chunk(records(5, 6, 9)))
        progress.settled(records(2, 5, 6))
        assert progress.mark() == Mark(None, above=(((2, 0), (6, 0)),))

    def test_reaches_to_where_reading_got_behind_the_last_record(self) -> None:
        progress = took(1, 2, through=(9, 0))
        progress.settled(records(2))
        assert progress.mark() == Mark(None, above=(((2, 0), (9, 0)),))

    def test_holds_a_hundred_ranges_at_most_and_the_lowest_of_them(self) -> None:
        progress = took(*range(1, 1001))
        progress.settled(records(*range(2, 1001, 2)))
        mark = progress.mark()
        assert mark is not None
        assert MOST_RANGES == len(mark.above) == 100
        assert mark.above[0] == ((2, 0), (2, 0))
        assert mark.above[-1] == ((200, 0), (200, 0))


class TestALaneThatWasResumed:
    def test_remembers_the_same_until_something_is_settled(self) -> None:
        resumed = Mark((5, 0), above=(((7, 0), (8, 0)),))
        assert LaneProgress(resumed).mark() == resumed
        assert took(6, 9, resumed=resumed).mark() == resumed

    def test_keeps_what_was_settled_above_although_it_is_not_read_again(self) -> None:
        progress = took(6, 9, 10, 11, resumed=Mark((5, 0), above=(((7, 0), (8, 0)), ((20, 0), (30, 0)))))
        progress.settled(records(10))
        above = (((7, 0), (8, 0)), ((10, 0), (10, 0)), ((20, 0), (30, 0)))
        assert progress.mark() == Mark((5, 0), above=above)

    def test_forgets_ranges_that_the_prefix_has_passed(self) -> None:
        progress = took(6, 9, resumed=Mark((5, 0), above=(((7, 0), (8, 0)),)))
        progress.settled(records(6, 9))
        assert progress.mark() == Mark((9, 0))

    def test_joins_ranges_that_overlap(self) -> None:
        progress = took(6, 7, 8, 9, 10, resumed=Mark((5, 0), above=(((7, 0), (8, 0)),)))
        progress.settled(records(8, 9))
        assert progress.mark() == Mark((5, 0), above=(((7, 0), (9, 0)),))

    def test_holds_a_hundred_ranges_at_most(self) -> None:
        inherited = tuple(((position, 0), (position, 0)) for position in range(3, 203, 2))
        progress = took(1, 202, 203, resumed=Mark((0, 0), above=inherited))
        progress.settled(records(202))
        mark = progress.mark()
        assert mark is not None
        assert mark.above == inherited


class TestWhatALaneHolds:
    def test_is_counted_in_records_and_bytes(self) -> None:
        one, two = record(1, entry=b"12345"), record(2, entry=b"123")
        progress = LaneProgress()
        progress.took(Chunk([one, two]))
        assert (progress.count, progress.size) == (2, 8)
        progress.settled([two])
        assert (progress.count, progress.size) == (1, 5)

    def test_is_as_old_as_its_first_unsettled_record(self) -> None:
        progress = LaneProgress()
        assert progress.oldest is None
        progress.took(Chunk([record(1, arrived_at=NOON), record(2, arrived_at=NOON + 1)], through=(9, 0)))
        assert progress.oldest == NOON
        progress.settled(records(1))
        assert progress.oldest == NOON + 1
        progress.settled(records(2))
        assert progress.oldest is None

    def test_is_not_what_was_settled_behind_a_stuck_record(self) -> None:
        progress = took(1)
        for position in range(2, 5000):
            progress.took(Chunk(records(position)))
            progress.settled(records(position))
        assert len(progress._held) == 1
        assert progress.mark() == Mark(None, above=(((2, 0), (4999, 0)),))

    def test_a_record_is_settled_once(self) -> None:
        progress = took(1, 2)
        progress.settled(records(1))
        with pytest.raises(KeyError):
            progress.settled(records(1))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), begins=st.sampled_from([None, (0, 0)]))
def test_whatever_happens_the_mark_is_the_settled_prefix_and_its_ranges_hold_settled_records_alone(
    data: st.DataObject, begins: Position | None
) -> None:
    progress = LaneProgress(Mark(begins) if begins else None)
    places: list[tuple[Position, bool]] = [(begins, False)] if begins else []  # in order; True: a record lies there
    held: list[Record] = []
    position = 0
    for _ in range(data.draw(st.integers(0, 8))):
        chunk: list[Record] = []
        for step in data.draw(st.lists(st.integers(0, 3), max_size=6)):
            sub = chunk[-1].sub + 1 if step == 0 and chunk else 0  # the next part of an aggregate
            position += 0 if sub else max(step, 1)
            chunk.append(record(position, sub=sub))
        places += [(each.at, True) for each in chunk]
        through = None
        if gap := data.draw(st.integers(0, 2)):
            position += gap
            through = (position, 0)
            places.append((through, False))
        progress.took(Chunk(chunk, through))
        held += chunk
        done = [each for each in held if data.draw(st.booleans())]
        progress.settled(done)
        held = [each for each in held if each not in done]
        _hold_to_the_model(progress, places, held)


def _hold_to_the_model(progress: LaneProgress, places: list[tuple[Position, bool]], held: list[Record]) -> None:
    """Compare with all places that were ever read, gone through one by one."""
    unsettled = {each.at for each in held}
    prefix = list(takewhile(lambda place: place[0] not in unsettled, places))
    above = {at for at, is_record in places[len(prefix) :] if is_record} - unsettled
    mark = progress.mark() or Mark(None)
    assert mark.through == (prefix[-1][0] if prefix else None)
    assert {at for at, is_record in places if is_record and _within(at, mark)} == above
    assert list(mark.above) == sorted(mark.above)
    assert progress.count == len(held)
    assert progress.size == sum(each.size for each in held)


def _within(at: Position, mark: Mark) -> bool:
    return any(first <= at <= last for first, last in mark.above)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_an_owner_that_resumes_reads_just_what_was_not_settled(data: st.DataObject) -> None:
    positions = range(1, data.draw(st.integers(2, 40)))
    unsettled, mark = set(positions), Mark((0, 0))
    for _ in range(data.draw(st.integers(1, 4))):
        progress = LaneProgress(mark)
        assert mark.through is not None
        again = [each for each in records(*positions) if each.at > mark.through and not _within(each.at, mark)]
        assert {each.position for each in again} == unsettled
        progress.took(Chunk(again, through=(positions[-1], 0)))
        done = [each for each in again if data.draw(st.booleans())]
        progress.settled(done)
        unsettled -= {each.position for each in done}
        mark = progress.mark() or mark


class TestAQueue:
    def test_holds_messages_without_order_or_mark(self) -> None:
        a, b, c = batch_of("abc", QUEUE)
        holdings = QueueHoldings()
        holdings.took(Chunk([a, b]))
        holdings.took(Chunk([c]))
        holdings.settled([b])
        assert (holdings.count, holdings.size) == (2, a.size + c.size)
        assert holdings.mark() is None

    def test_is_as_old_as_its_oldest_message_wherever_it_lies(self) -> None:
        holdings = QueueHoldings()
        assert holdings.oldest is None
        holdings.took(Chunk([record(1, lane=QUEUE, arrived_at=NOON), record(2, lane=QUEUE, arrived_at=NOON - 50)]))
        assert holdings.oldest == NOON - 50
        holdings.settled([record(2, lane=QUEUE)])
        assert holdings.oldest == NOON

    def test_holds_a_message_that_was_received_again_beside_the_first(self) -> None:
        holdings = QueueHoldings()
        first, again = (Record(QUEUE, receive, 0, "the same", None, NOON, b"{}") for receive in (1, 2))
        holdings.took(Chunk([first, again]))
        holdings.settled([first])
        assert holdings.count == 1
