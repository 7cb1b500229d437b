"""Descriptions of AWS services, read in our way: the same as in botocore's."""

import json
from typing import Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import UnknownServiceError
from botocore.utils import parse_timestamp

from esm.clients.aws_models import moment, read_quickly


def loaders() -> tuple[Any, Any]:
    """Ours and botocore's."""
    quick, plain = AioSession(), AioSession()
    read_quickly(quick)
    read_quickly(quick)
    return quick.get_component("data_loader"), plain.get_component("data_loader")


@pytest.mark.parametrize("service", ["sqs", "kinesis", "dynamodbstreams", "lambda", "sts"])
def test_a_service_reads_the_same_member_for_member_in_the_same_order(service: str) -> None:
    quick, plain = loaders()
    for kind in ("service-2", "endpoint-rule-set-1"):
        ours, theirs = (json.dumps(each.load_service_model(service, kind)) for each in (quick, plain))
        assert ours == theirs


def test_the_services_are_the_same() -> None:
    quick, plain = loaders()
    ours, theirs = quick.list_available_services("service-2"), plain.list_available_services("service-2")
    assert list(ours) == list(theirs)
    assert (len(ours), ours[:2], ours[0]) == (len(theirs), theirs[:2], theirs[0])
    assert "sqs" in ours
    assert "sqz" not in ours


def test_a_service_that_nobody_knows_is_told_with_those_that_are_known() -> None:
    quick, _ = loaders()
    with pytest.raises(UnknownServiceError, match=r"sqz.*kinesis"):
        quick.load_service_model("sqz", "service-2")


@pytest.mark.parametrize(
    "value",
    [0, 1767222000, 1767222000.123, -1.5, "2026-01-01T00:00:00.250Z", "1767222000.5", "Thu, 01 Jan 2026 00:00:00 GMT"],
)
def test_a_moment_is_the_one_that_botocore_reads(value: float | str) -> None:
    assert moment(value) == parse_timestamp(value)


def test_a_moment_that_makes_no_sense_is_refused_as_by_botocore() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        moment("nonsense")


def test_replies_tell_moments_in_our_way() -> None:
    session = AioSession()
    read_quickly(session)
    parser = session.get_component("response_parser_factory").create_parser("json")
    assert parser._timestamp_parser is moment
