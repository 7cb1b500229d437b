"""The demo's counting and telling: ids are compared, and log events become plain words."""

import io

import pytest
import structlog
from rich.console import Console

from esm.cli.demo.scenes import body, poison_ids, record_id
from esm.cli.demo.screen import sentence_of, table_of
from esm.cli.demo.story import Story
from esm.cli.demo.tally import Tally


def tally(sent: str, delivered: str = "", discarded: str = "", name: str = "kinesis") -> Tally:
    counted = Tally(name)
    counted.sent.update(sent)
    counted.took(delivered)
    counted.discarded.update(discarded)
    return counted


class TestTally:
    def test_a_record_that_nobody_took_and_nobody_gave_up_is_lost(self) -> None:
        assert tally("abc", "ab").summary()["lost"] == 1
        assert tally("abc", "ab", "c").summary()["lost"] == 0

    def test_a_second_delivery_is_a_duplicate_and_makes_up_for_no_other_record(self) -> None:
        summary = tally("abc", "aab").summary()
        assert (summary["delivered"], summary["duplicates"], summary["lost"]) == (2, 1, 1)

    def test_a_record_that_was_delivered_and_given_up_counts_as_delivered(self) -> None:
        summary = tally("ab", "ab", "b").summary()
        assert (summary["delivered"], summary["discarded"]) == (2, 0)

    def test_a_delivery_of_a_record_that_was_never_sent_hides_no_loss(self) -> None:
        assert tally("ab", "ax").summary()["lost"] == 1


def test_each_source_has_poison_and_the_queue_two() -> None:
    assert poison_ids("kinesis", 2000) == {record_id("kinesis", 666)}
    assert len(poison_ids("sqs", 2000)) == 2
    assert "poison" in body("kinesis-000666", poison_ids("kinesis", 2000))
    assert "poison" not in body("kinesis-000665", poison_ids("kinesis", 2000))


def test_the_sum_adds_up_all_sources() -> None:
    tallies = [tally("abc", "ab", "c"), tally("abc", "abc", name="sqs")]
    assert sentence_of(tallies) == (
        "6 sent = 5 delivered + 0 filtered + 1 discarded, 0 lost, counted by the functions themselves"
    )


def test_the_table_fits_into_80_columns() -> None:
    big = tally("")
    big.sent.update(str(number) for number in range(200_000))
    out = io.StringIO()
    Console(file=out, width=80).print(table_of([big, tally("abc", "ab", name="dynamodb")]))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert "…" not in out.getvalue()
    assert lines[1].split() == ["kinesis", "200,000", "0", "0", "0", "0", "200,000"]


class TestStory:
    def _told(self, **event: object) -> list[str]:
        story = Story()
        with pytest.raises(structlog.DropEvent):
            story(None, "", dict(event))
        return list(story.last)

    def test_a_failed_batch_is_told_with_shard_reason_and_what_comes_of_it(self) -> None:
        told = self._told(
            event="attempt_failed",
            mapping="kinesis",
            lane="shardId-000000000001",
            records=100,
            outcome="failed",
            error="The function failed (Unhandled): ValueError: poison",
        )
        assert told == ["kinesis shard 1: batch of 100 failed (ValueError: poison), halved"]

    def test_a_discarded_record_is_told_with_where_it_is_kept(self) -> None:
        told = self._told(
            event="records_discarded", mapping="kafka", lane="payments-0", records=1, reason="RetryAttemptsExhausted"
        )
        assert told == ["kafka partition 0: 1 record given up (RetryAttemptsExhausted), kept in the queue 'failed'"]

    def test_what_needs_no_telling_is_dropped(self) -> None:
        assert self._told(event="worker_started", mappings=4) == []

    def test_shards_of_a_table_are_numbered_as_they_come(self) -> None:
        story = Story()
        for lane in ("shardId-00000001780365555000-b1", "shardId-00000001780365555000-a2"):
            with pytest.raises(structlog.DropEvent):
                story(
                    None,
                    "",
                    {"event": "attempt_failed", "mapping": "dynamodb", "lane": lane, "records": 1, "error": "x"},
                )
        assert [sentence.split(":")[0] for sentence in story.last] == ["dynamodb shard 0", "dynamodb shard 1"]
