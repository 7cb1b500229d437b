"""The trace header of an attempt."""

import re

from esm.domain.tracing import trace_header


def test_a_trace_header_bears_the_moment_and_fresh_digits_in_the_form_of_lambda() -> None:
    header = trace_header(1_767_222_000.9, "0123abcd-4567-89ef-0123-456789abcdef")
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", header)
    assert int(header[7:15], 16) == 1_767_222_000


def test_two_attempts_bear_different_traces() -> None:
    one, two = (trace_header(0.0, f"{number}" * 8 + "-0000-4000-8000-" + f"{number}" * 12) for number in (1, 2))
    assert one.split(";")[0] != two.split(";")[0]
    assert one.split(";")[1] != two.split(";")[1]
