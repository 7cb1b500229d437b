"""How a batch of a queue ends: deleted, left to its visibility, or held while the target refuses it."""

import pytest
from msgspec.structs import replace

from esm.domain.delivery import Invoke, QueueDelivery, Wait
from esm.domain.outcome import Failed, Refused, Succeeded
from tests.support.delivery import (
    QUEUE,
    REFUSED,
    SQS,
    Luck,
    at,
    batch_of,
    breaks_for,
    in_turn,
    named,
    names_of,
    report_of,
    reports,
    takes_all,
    walked,
)


def delivery(names: str = "abcd", reports: bool = False) -> QueueDelivery:
    return QueueDelivery(batch_of(names, QUEUE), reports, SQS, at(), Luck())


def test_success_deletes_every_message() -> None:
    walk = walked(delivery(), takes_all)
    assert walk.steps == ["invoke abcd"]
    assert (names_of(walk.delivered), names_of(walk.left)) == ("abcd", "")


def test_a_failure_leaves_every_message_to_its_visibility_after_one_attempt() -> None:
    walk = walked(delivery(), breaks_for("b"))
    assert walk.steps == ["invoke abcd"]
    assert (names_of(walk.delivered), names_of(walk.left)) == ("", "abcd")
    assert walk.outcomes == ["failed"]


def test_a_timeout_leaves_every_message_too() -> None:
    walk = walked(delivery(), in_turn(Failed("timed out", timed_out=True)))
    assert names_of(walk.left) == "abcd"
    assert walk.outcomes == ["timeout"]


def test_a_report_deletes_what_it_does_not_name() -> None:
    walk = walked(delivery(reports=True), reports("bd", SQS))
    assert walk.steps == ["invoke abcd"]
    assert (names_of(walk.delivered), names_of(walk.left)) == ("ac", "bd")
    assert walk.outcomes == ["partial"]


def test_a_report_of_all_messages_deletes_none() -> None:
    walk = walked(delivery(reports=True), reports("abcd", SQS))
    assert (names_of(walk.delivered), names_of(walk.left)) == ("", "abcd")
    assert walk.outcomes == ["partial"]


def test_a_malformed_report_deletes_none_and_has_failed() -> None:
    walk = walked(delivery(reports=True), in_turn(Succeeded(b'{"batchItemFailures":"a"}')))
    assert (names_of(walk.delivered), names_of(walk.left)) == ("", "abcd")
    assert walk.outcomes == ["failed"]


def test_a_report_is_ignored_where_the_mapping_does_not_ask_for_one() -> None:
    assert names_of(walked(delivery(), reports("b", SQS)).delivered) == "abcd"


def test_a_refused_batch_is_held_and_sent_again_with_its_request_id() -> None:
    walk = walked(delivery(), in_turn(REFUSED, REFUSED))
    assert walk.steps == ["invoke abcd"] * 3
    assert walk.outcomes == ["throttled", "throttled", "success"]
    assert len(set(walk.request_ids)) == 1
    assert names_of(walk.delivered) == "abcd"


def test_a_refused_batch_waits_as_long_as_the_target_asks() -> None:
    machine = delivery()
    machine.next_step(at())
    machine.on_result(Refused("429", throttled=True, retry_after=12), at(3))
    assert machine.next_step(at(4)) == Wait(15)


def test_a_failure_after_a_refusal_leaves_the_messages() -> None:
    walk = walked(delivery(), in_turn(REFUSED, Failed("ValueError")))
    assert walk.steps == ["invoke abcd"] * 2
    assert names_of(walk.left) == "abcd"


def test_messages_whose_receipts_died_are_left_and_the_others_sent_as_another_event() -> None:
    machine = delivery()
    first = machine.next_step(at())
    assert isinstance(first, Invoke)
    assert names_of(machine.on_gone(named(first.records, "bd"))) == "ac"
    second = machine.next_step(at())
    assert isinstance(second, Invoke)
    assert names_of(second.records) == "bd"
    assert second.request_id != first.request_id


def test_a_batch_without_any_living_receipt_has_ended() -> None:
    machine = delivery()
    machine.next_step(at())
    assert names_of(machine.on_gone([])) == "abcd"
    assert machine.next_step(at()) is None
    assert list(machine.pending) == []


def test_an_event_that_is_too_large_for_the_target_is_halved_down_to_the_message_that_is() -> None:
    walk = walked(
        delivery("abc"),
        lambda records: Failed("413", too_large=True) if named(records, "c") else Succeeded(b""),
    )
    assert walk.steps == ["invoke abc", "invoke a", "invoke bc", "invoke b", "invoke c"]
    assert (names_of(walk.delivered), names_of(walk.left)) == ("ab", "c")


def test_an_event_that_is_too_large_to_send_is_halved_and_a_single_message_left() -> None:
    machine = delivery("ab")
    machine.next_step(at())
    assert names_of(machine.on_too_large(at()).left) == ""
    machine.next_step(at())
    assert names_of(machine.on_too_large(at()).left) == "a"
    assert names_of(machine.pending) == "b"


def test_the_mapping_never_discards_a_message() -> None:
    with pytest.raises(AssertionError, match="never discarded"):
        delivery().on_discarded()


def test_the_same_message_received_twice_is_left_twice() -> None:
    first, other, last = batch_of("abc", QUEUE)
    again = replace(last, id=first.id)
    machine = QueueDelivery([first, other, again], True, SQS, at(), Luck())
    verdict = machine.on_result(Succeeded(report_of([again], SQS)), at())
    assert (names_of(verdict.delivered), names_of(verdict.left)) == ("b", "ac")
