"""How a batch of an ordered lane ends: AWS's recorded sequences, then the rules behind them."""

import pytest

from esm.domain.delivery import Discard, Invoke, StreamDelivery, Wait
from esm.domain.discarded import Reason, Response
from esm.domain.outcome import Failed, Refused, Succeeded
from esm.domain.record import Record
from esm.domain.retry import LONGEST_RETRY_AFTER, RetryPolicy
from tests.support.delivery import (
    KAFKA,
    KINESIS,
    NOON,
    PARTITION,
    REFUSED,
    Luck,
    at,
    batch_of,
    breaks_for,
    in_turn,
    names_of,
    record,
    report_of,
    reports,
    takes_all,
    walk,
    walked,
)

BROKEN = Failed("ValueError: poison")
ONE_RETRY = RetryPolicy(max_retries=1)
REPORTING = RetryPolicy(max_retries=1, reports=True)
BISECTING = RetryPolicy(max_retries=1, bisect=True)


def delivery(
    records: str | list[Record] = "1234", policy: RetryPolicy = ONE_RETRY, jitter: float = 0.5
) -> StreamDelivery:
    batch = batch_of(records) if isinstance(records, str) else records
    return StreamDelivery(batch, policy, KINESIS, at(), Luck(jitter))


def kafka(names: str, policy: RetryPolicy) -> StreamDelivery:
    return StreamDelivery(batch_of(names, PARTITION), policy, KAFKA, at(), Luck())


class TestWhatAWSWasRecordedToDo:
    def test_a_function_that_raises_for_2_is_bisected_until_2_is_alone(self) -> None:
        steps = walk(delivery(policy=BISECTING), breaks_for("2"))
        assert steps == ["invoke 1234", "invoke 12", "invoke 1", "invoke 2", "invoke 2", "discard 2", "invoke 34"]

    def test_a_report_of_2_with_bisect_goes_on_at_2_and_then_halves(self) -> None:
        policy = RetryPolicy(max_retries=1, bisect=True, reports=True)
        steps = walk(delivery(policy=policy), reports("2"))
        assert steps == ["invoke 1234", "invoke 234", "invoke 2", "invoke 2", "discard 2", "invoke 34"]

    def test_without_bisect_the_whole_batch_is_tried_again_and_given_up_together(self) -> None:
        steps = walk(delivery(policy=RetryPolicy(max_retries=2)), breaks_for("2"))
        assert steps == ["invoke 1234", "invoke 1234", "invoke 1234", "discard 1234"]

    def test_a_report_of_2_without_bisect_gives_up_2_to_4_as_one_piece(self) -> None:
        walk = walked(delivery(policy=REPORTING), reports("2"))
        assert walk.steps == ["invoke 1234", "invoke 234", "invoke 234", "discard 234"]
        [discard] = walk.discards
        assert discard.reason is Reason.RETRY_ATTEMPTS_EXHAUSTED
        assert discard.invoke_count == 2
        assert discard.response == Response("$LATEST", function_error=None)

    def test_a_first_record_that_is_too_old_is_discarded_alone(self) -> None:
        first, *others = batch_of("1234")
        old = record(1, arrived_at=NOON - 61)
        walk = walked(delivery([old, *others], RetryPolicy(max_age=60)), takes_all)
        assert first.at == old.at
        assert walk.steps == ["discard 1", "invoke 234"]
        [discard] = walk.discards
        assert (discard.reason, discard.invoke_count, discard.response) == (Reason.RECORD_AGE_EXCEEDED, 1, None)

    def test_the_first_retry_follows_after_0_19_to_0_27_seconds_and_the_second_after_twice_that(self) -> None:
        policy = RetryPolicy(max_retries=2)
        assert walked(delivery(policy=policy, jitter=0.0), breaks_for("2")).pauses == [0.19, 0.38]
        assert walked(delivery(policy=policy, jitter=1.0), breaks_for("2")).pauses == [0.27, 0.54]

    def test_a_suffix_and_a_half_follow_without_a_pause(self) -> None:
        policy = RetryPolicy(max_retries=0, bisect=True, reports=True)
        walk = walked(delivery(policy=policy), reports("2"))
        assert walk.steps == ["invoke 1234", "invoke 234", "invoke 2", "discard 2", "invoke 34"]
        assert walk.pauses == [0, 0, 0]

    def test_a_plain_retry_keeps_its_request_id_and_each_piece_gets_a_new_one(self) -> None:
        walk = walked(delivery(policy=BISECTING), breaks_for("2"))
        whole, first_half, one, two, two_again, second_half = walk.request_ids
        assert two == two_again
        assert len({whole, first_half, one, two, second_half}) == 5
        assert walk.discards[0].request_id == two

    def test_a_batch_of_three_is_split_into_one_and_two(self) -> None:
        assert walk(delivery("123", BISECTING), breaks_for("3"))[:3] == ["invoke 123", "invoke 1", "invoke 23"]


class TestRetries:
    def test_a_batch_that_succeeds_is_delivered_once(self) -> None:
        walk = walked(delivery(), takes_all)
        assert walk.steps == ["invoke 1234"]
        assert names_of(walk.delivered) == "1234"
        assert walk.outcomes == ["success"]

    def test_no_retries_allow_one_attempt(self) -> None:
        walk = walked(delivery(policy=RetryPolicy(max_retries=0)), breaks_for("1"))
        assert walk.steps == ["invoke 1234", "discard 1234"]
        assert walk.discards[0].invoke_count == 1

    def test_no_retries_with_bisect_still_isolate_the_record(self) -> None:
        steps = walk(delivery(policy=RetryPolicy(max_retries=0, bisect=True)), breaks_for("3"))
        assert steps == ["invoke 1234", "invoke 12", "invoke 34", "invoke 3", "discard 3", "invoke 4"]

    def test_without_a_limit_a_batch_is_tried_until_it_succeeds(self) -> None:
        walk = walked(delivery(policy=RetryPolicy()), in_turn(*[BROKEN] * 60))
        assert walk.steps == ["invoke 1234"] * 61
        assert names_of(walk.delivered) == "1234"

    def test_pauses_grow_to_a_minute_and_no_further(self) -> None:
        pauses = walked(delivery(policy=RetryPolicy()), in_turn(*[BROKEN] * 60)).pauses
        assert list(pauses) == sorted(pauses)
        assert 42 <= pauses[-1] <= 60

    def test_a_timeout_is_a_failed_attempt(self) -> None:
        walk = walked(delivery(), in_turn(Failed("timed out", timed_out=True)))
        assert walk.outcomes == ["timeout", "success"]

    def test_the_failure_record_names_the_version_that_was_executed(self) -> None:
        walk = walked(delivery(), lambda _: Failed("ValueError", executed_version="7"))
        assert walk.discards[0].response == Response("7", "Unhandled")

    def test_an_event_that_is_too_large_for_the_target_is_halved_whatever_bisect_says(self) -> None:
        answer = in_turn(Failed("413", too_large=True))
        assert walk(delivery("12"), answer) == ["invoke 12", "invoke 1", "invoke 2"]

    def test_a_single_record_that_is_too_large_for_the_target_has_failed(self) -> None:
        walk = walked(delivery("1"), lambda _: Failed("413", too_large=True))
        assert walk.steps == ["invoke 1", "invoke 1", "discard 1"]

    def test_the_machine_answers_the_same_until_something_happens(self) -> None:
        machine = delivery("1", RetryPolicy(max_retries=0))
        assert machine.next_step(at()) == machine.next_step(at(5))
        machine.on_result(BROKEN, at())
        step = machine.next_step(at())
        assert isinstance(step, Discard)
        assert machine.next_step(at(100)) is step


class TestAReport:
    def test_settles_what_lies_before_the_lowest_record_it_names(self) -> None:
        machine = delivery(policy=REPORTING)
        step = machine.next_step(at())
        assert isinstance(step, Invoke)
        verdict = machine.on_result(Succeeded(report_of([step.records[3], step.records[1]])), at())
        assert (verdict.how, names_of(verdict.delivered)) == ("partial", "1")
        assert names_of(machine.pending) == "234"

    def test_finds_the_lowest_by_number_where_text_would_not(self) -> None:
        machine = delivery([record(9), record(10), record(11)], REPORTING)
        step = machine.next_step(at())
        assert isinstance(step, Invoke)
        verdict = machine.on_result(Succeeded(report_of([step.records[1], step.records[2]])), at())
        assert names_of(verdict.delivered) == "9"

    def test_that_names_an_aggregate_goes_on_at_its_lowest_user_record(self) -> None:
        machine = delivery([record(1), record(2, "a", sub=0), record(2, "b", sub=1), record(3)], REPORTING)
        step = machine.next_step(at())
        assert isinstance(step, Invoke)
        machine.on_result(Succeeded(report_of([step.records[2]])), at())
        assert names_of(machine.pending) == "ab3"

    def test_that_makes_progress_gives_the_rest_a_fresh_count(self) -> None:
        answer = in_turn(
            BROKEN,
            Succeeded(report_of(batch_of("1234")[2:3])),  # progress after one failure
            BROKEN,
        )
        assert walk(delivery(policy=REPORTING), answer) == ["invoke 1234", "invoke 1234", "invoke 34", "invoke 34"]

    def test_of_the_first_record_spends_a_retry_and_keeps_the_request_id(self) -> None:
        walk = walked(delivery("12", REPORTING), reports("1"))
        assert walk.steps == ["invoke 12", "invoke 12", "discard 12"]
        assert len(set(walk.request_ids)) == 1

    def test_that_is_malformed_fails_the_whole_batch_and_is_no_function_error(self) -> None:
        walk = walked(delivery("12", REPORTING), lambda _: Succeeded(b"{nonsense"))
        assert walk.steps == ["invoke 12", "invoke 12", "discard 12"]
        assert walk.outcomes == ["failed", "failed"]
        assert walk.discards[0].response == Response("$LATEST", None)

    def test_is_ignored_where_the_mapping_does_not_ask_for_reports(self) -> None:
        walk = walked(delivery(), reports("2"))
        assert walk.steps == ["invoke 1234"]
        assert names_of(walk.delivered) == "1234"

    def test_after_a_function_error_the_failure_record_tells_of_the_last_answer(self) -> None:
        answer = in_turn(Succeeded(report_of(batch_of("12")[:1])), BROKEN)
        walk = walked(delivery("12", REPORTING), answer)
        assert walk.discards[0].response == Response("$LATEST", "Unhandled")


class TestARefusal:
    def test_spends_no_retry_and_halves_nothing(self) -> None:
        policy = RetryPolicy(max_retries=0, bisect=True)
        walk = walked(delivery(policy=policy), in_turn(*[REFUSED] * 20))
        assert walk.steps == ["invoke 1234"] * 21
        assert walk.outcomes == ["throttled"] * 20 + ["success"]
        assert len(set(walk.request_ids)) == 1

    def test_that_is_no_throttle_is_told_apart(self) -> None:
        assert walked(delivery(), in_turn(Refused("connection refused"))).outcomes == ["refused", "success"]

    def test_backs_off_longer_each_time(self) -> None:
        pauses = walked(delivery(jitter=0.0), in_turn(*[REFUSED] * 3)).pauses
        assert list(pauses) == [0.475, 0.95, 1.9]

    def test_waits_as_long_as_the_target_asks(self) -> None:
        answer = in_turn(Refused("429", throttled=True, retry_after=30))
        assert walked(delivery(), answer).pauses == [30]

    def test_waits_a_quarter_of_an_hour_at_most(self) -> None:
        answer = in_turn(Refused("503", throttled=True, retry_after=86_400))
        assert walked(delivery(), answer).pauses == [LONGEST_RETRY_AFTER]

    def test_that_asks_for_less_than_the_back_off_is_not_hurried(self) -> None:
        assert walked(delivery(jitter=0.0), in_turn(Refused("429", retry_after=0))).pauses == [0.475]

    def test_does_not_lengthen_the_pause_after_a_failure(self) -> None:
        assert walked(delivery(jitter=0.0), in_turn(REFUSED, BROKEN)).pauses == [0.475, 0.19]

    def test_after_a_failure_backs_off_from_the_beginning(self) -> None:
        answer = in_turn(REFUSED, REFUSED, BROKEN, REFUSED)
        assert walked(delivery(jitter=0.0), answer).pauses == [0.475, 0.95, 0.19, 0.475]

    def test_between_failures_leaves_their_count(self) -> None:
        walk = walked(delivery("1"), in_turn(BROKEN, REFUSED, BROKEN))
        assert walk.steps == ["invoke 1", "invoke 1", "invoke 1", "discard 1"]
        assert walk.discards[0].invoke_count == 2


class TestAge:
    def test_ends_a_wait_as_soon_as_a_record_is_too_old(self) -> None:
        machine = delivery("1", RetryPolicy(max_age=60))
        machine.next_step(at())
        machine.on_result(Refused("429", retry_after=600), at())
        step = machine.next_step(at(1))
        assert step == Wait(60)
        assert isinstance(machine.next_step(at(60.001)), Discard)

    def test_discards_after_failed_attempts_with_their_count_and_no_response(self) -> None:
        walk = walked(delivery("1", RetryPolicy(max_age=60)), breaks_for("1"))
        [discard] = walk.discards
        assert discard.reason is Reason.RECORD_AGE_EXCEEDED
        assert discard.invoke_count == len(walk.request_ids) > 1
        assert discard.response is None
        assert discard.request_id == walk.request_ids[-1]

    def test_of_some_records_leaves_the_others_their_count_and_another_request_id(self) -> None:
        older, younger = record(1, arrived_at=NOON - 59.9), record(2)
        walk = walked(delivery([older, younger], RetryPolicy(max_retries=2, max_age=60)), breaks_for("12"))
        assert walk.steps == ["invoke 12", "discard 1", "invoke 2", "invoke 2", "discard 2"]
        assert walk.request_ids[0] != walk.request_ids[1] == walk.request_ids[2]
        assert [discard.invoke_count for discard in walk.discards] == [1, 3]
        assert len({discard.request_id for discard in walk.discards}) == 2

    def test_finds_old_records_wherever_they_lie(self) -> None:
        batch = [record(1), record(2, arrived_at=NOON - 100), record(3)]
        assert walk(delivery(batch, RetryPolicy(max_age=60)), takes_all) == ["discard 2", "invoke 13"]

    def test_comes_after_the_retries_when_both_have_run_out(self) -> None:
        machine = delivery("1", RetryPolicy(max_retries=0, max_age=60))
        machine.next_step(at())
        machine.on_result(BROKEN, at(100))
        step = machine.next_step(at(100))
        assert isinstance(step, Discard)
        assert step.reason is Reason.RETRY_ATTEMPTS_EXHAUSTED

    def test_discards_nothing_while_the_clock_is_in_doubt(self) -> None:
        machine = delivery("1", RetryPolicy(max_age=60))
        assert isinstance(machine.next_step(at(500, ages_paused=True)), Invoke)
        assert isinstance(machine.next_step(at(500)), Discard)

    def test_is_looked_at_again_within_a_minute_while_the_clock_is_in_doubt(self) -> None:
        machine = delivery("1", RetryPolicy(max_age=60))
        machine.next_step(at())
        machine.on_result(Refused("429", retry_after=600), at())
        assert machine.next_step(at(1, ages_paused=True)) == Wait(61)

    def test_of_the_second_half_counts_while_the_first_is_retried(self) -> None:
        batch = [record(1), record(2, arrived_at=NOON - 59)]
        policy = RetryPolicy(max_retries=5, max_age=60, bisect=True)
        steps = walk(delivery(batch, policy), breaks_for("1"))
        assert steps == ["invoke 12"] + ["invoke 1"] * 6 + ["discard 1", "discard 2"]


class TestAnEventThatIsTooLargeToSend:
    def test_spends_each_retry_and_is_given_up_without_a_response(self) -> None:
        machine = delivery("1", RetryPolicy(max_retries=2))
        now = 0.0
        for _ in range(3):
            assert isinstance(machine.next_step(at(now)), Invoke)
            assert machine.on_too_large(at(now)).how == "failed"
            now += 100
        step = machine.next_step(at(now))
        assert isinstance(step, Discard)
        assert (step.reason, step.invoke_count, step.response) == (Reason.RETRY_ATTEMPTS_EXHAUSTED, 3, None)

    def test_of_several_records_is_halved(self) -> None:
        machine = delivery("12", RetryPolicy(max_retries=0))
        machine.next_step(at())
        machine.on_too_large(at())
        assert walk(machine, takes_all) == ["invoke 1", "invoke 2"]

    def test_of_kafka_is_given_up_at_once(self) -> None:
        policy = RetryPolicy(resumes_at_lowest=False, oversize_spends_retries=False)
        machine = kafka("1", policy)
        machine.next_step(at())
        machine.on_too_large(at())
        step = machine.next_step(at())
        assert isinstance(step, Discard)
        assert (step.reason, step.invoke_count, step.response) == (Reason.MAXIMUM_PAYLOAD_SIZE_EXCEEDED, 1, None)
        machine.on_discarded()
        assert machine.next_step(at()) is None


class TestKafka:
    POLICY = RetryPolicy(max_retries=1, reports=True, resumes_at_lowest=False)

    def test_retries_just_the_records_that_a_report_names(self) -> None:
        walk = walked(kafka("1234", self.POLICY), reports("24", KAFKA))
        assert walk.steps == ["invoke 1234", "invoke 24", "invoke 24", "discard 24"]
        assert names_of(walk.delivered) == "13"
        assert walk.discards[0].invoke_count == 2

    def test_retries_all_when_all_are_named(self) -> None:
        walk = walked(kafka("12", self.POLICY), reports("12", KAFKA))
        assert walk.steps == ["invoke 12", "invoke 12", "discard 12"]

    @pytest.mark.parametrize("identifier", [b'"sensor-0:1"', b'{"partition":"sensor-1","offset":1}'])
    def test_retries_all_when_a_report_names_what_was_not_sent(self, identifier: bytes) -> None:
        reply = b'{"batchItemFailures":[{"itemIdentifier":' + identifier + b"}]}"
        assert walk(kafka("12", self.POLICY), in_turn(Succeeded(reply))) == ["invoke 12", "invoke 12"]

    def test_halves_as_streams_do(self) -> None:
        policy = RetryPolicy(max_retries=0, bisect=True, resumes_at_lowest=False)
        assert walk(kafka("123", policy), breaks_for("1")) == ["invoke 123", "invoke 1", "discard 1", "invoke 23"]


def test_records_of_an_ordered_lane_do_not_go_by_themselves() -> None:
    machine = delivery()
    with pytest.raises(AssertionError, match="do not expire"):
        machine.on_gone([])
