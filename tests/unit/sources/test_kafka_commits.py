"""Offsets and attempts that travel with a commit."""

from esm.clients.kafka import Committed
from esm.domain.record import Mark, OpenBatch
from esm.sources.kafka_commits import MOST_METADATA, kept_of, mark_of


def batches(count: int) -> tuple[OpenBatch, ...]:
    return tuple(
        OpenBatch((each, 0), (each + 1, 0), 3, f"6f2c1d9e-0000-4000-8000-{each:012d}") for each in range(count)
    )


def test_the_offset_behind_the_settled_prefix_is_committed() -> None:
    assert kept_of(Mark((41, 0)), start=7) == Committed(42)


def test_a_lane_that_settled_nothing_keeps_where_it_began() -> None:
    kept = kept_of(Mark(None, attempts=batches(1)), start=7)
    assert kept.offset == 7
    assert mark_of(kept) == Mark((6, 0), attempts=batches(1))


def test_a_mark_comes_back_with_its_attempts() -> None:
    mark = Mark((41, 0), attempts=batches(2))
    assert mark_of(kept_of(mark, start=0)) == mark


def test_attempts_that_do_not_fit_are_dropped_from_the_end() -> None:
    kept = kept_of(Mark((41, 0), attempts=batches(1_000)), start=0)
    assert len(kept.metadata) <= MOST_METADATA
    mark = mark_of(kept)
    assert mark is not None
    assert 20 < len(mark.attempts) < 1_000
    assert mark.attempts == batches(len(mark.attempts))


def test_the_words_of_another_consumer_mean_nothing() -> None:
    for metadata in ("", "leader epoch 7", "{", "[]", '{"other": 1}', '{"esm": "no list"}'):
        assert mark_of(Committed(42, metadata)) == Mark((41, 0))


def test_offset_zero_is_no_mark() -> None:
    assert mark_of(Committed(0)) is None
