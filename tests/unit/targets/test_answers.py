"""What several targets understand alike."""

import pytest

from esm.domain.outcome import Failed
from esm.targets.answers import function_error, is_error_object, sendable, short


@pytest.mark.parametrize(
    "body,sentence,timed_out",
    [
        (b'{"errorType":"ValueError","errorMessage":"poison"}', "ValueError: poison", False),
        (b'{"errorMessage":"poison"}', "poison", False),
        (b'{"errorType":"ValueError"}', "ValueError", False),
        (b'{"errorType":7,"errorMessage":[1]}', "an error object of 34 bytes without a message", False),
        (b"{}", "an error object of 2 bytes without a message", False),
        (b"", "an error object of 0 bytes without a message", False),
        (b"\xff", "an error object of 1 bytes without a message", False),
        (b"[" * 100_000, "an error object of 100000 bytes without a message", False),
        (b'{"errorType":"Sandbox.Timedout","errorMessage":"late"}', "Sandbox.Timedout: late", True),
        (b'{"errorMessage":"2026-01-01 id Task timed out after 3.00 seconds"}', "2026-01-01 id Task", True),
    ],
)
def test_an_error_object_is_a_failure_whatever_it_holds(body: bytes, sentence: str, *, timed_out: bool) -> None:
    failure = function_error(body, "Unhandled", "7")
    assert failure.error.startswith(f"The function failed (Unhandled): {sentence}")
    assert (failure.timed_out, failure.executed_version) == (timed_out, "7")


def test_a_message_of_many_lines_is_one_short_line() -> None:
    failure = function_error(b'{"errorMessage":"' + b"a\\nb " * 10_000 + b'"}', "Handled")
    assert isinstance(failure, Failed)
    assert "\n" not in failure.error
    assert len(failure.error) < 400


@pytest.mark.parametrize(
    "body,is_one",
    [
        (b'{"errorType":"ValueError"}', True),
        (b'{"errorType":""}', False),
        (b'{"errorType":null}', False),
        (b'{"a":{"errorType":"inner"}}', False),
        (b'["errorType"]', False),
        (b'"errorType"', False),
        (b"{broken", False),
        (b"", False),
    ],
)
def test_an_object_with_an_error_type_is_an_error_object(body: bytes, *, is_one: bool) -> None:
    assert is_error_object(body) == is_one


def test_large_events_are_sent_in_pieces() -> None:
    assert sendable(b"small") == b"small"
    large = b"x" * 2_000_000
    sent = sendable(large)
    assert not isinstance(sent, bytes)
    assert sent.read() == large


def test_a_short_text_stays_and_a_long_one_is_cut() -> None:
    assert short(" a\n b ") == "a b"
    assert len(short("x" * 1000)) == 300
