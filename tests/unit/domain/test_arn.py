"""ARNs, taken apart."""

import pytest

from esm.domain.arn import Arn


def test_an_arn_has_six_parts_and_the_last_keeps_its_colons() -> None:
    arn = Arn.parse("arn:aws-cn:lambda:cn-north-1:111122223333:function:tally:PROD")
    assert arn == Arn("aws-cn", "lambda", "cn-north-1", "111122223333", "function:tally:PROD")


@pytest.mark.parametrize(
    "text, name",
    [
        ("arn:aws:sqs:eu-west-1:111122223333:orders", "orders"),
        ("arn:aws:sqs:eu-west-1:111122223333:orders.fifo", "orders.fifo"),
        ("arn:aws:sns:eu-west-1:111122223333:alarms", "alarms"),
        ("arn:aws:s3:::failed-records", "failed-records"),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/clicks", "clicks"),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/clicks/consumer/c1:1767222000", "clicks"),
        ("arn:aws:dynamodb:eu-west-1:111122223333:table/carts/stream/2026-01-01T00:00:00.000", "carts"),
        ("arn:aws:kafka:eu-west-1:111122223333:cluster/plant/2f1c0d9e-aaaa-bbbb-cccc-0123456789ab-4", "plant"),
        ("arn:aws:lambda:eu-west-1:111122223333:function:tally", "tally"),
        ("arn:aws:lambda:eu-west-1:111122223333:function:tally:PROD", "tally"),
        ("arn:aws:iam::111122223333:role/tally-role", "tally-role"),
    ],
)
def test_its_name_is_what_people_call_it_and_its_text_comes_back(text: str, name: str) -> None:
    assert Arn.parse(text).name == name
    assert str(Arn.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "orders",
        "https://sqs.eu-west-1.amazonaws.com/111122223333/orders",
        "arn:aws:sqs:eu-west-1:111122223333",
        "arn:aws:sqs:eu-west-1:111122223333:",
        "arn::sqs:eu-west-1:111122223333:orders",
        "arn:aws::eu-west-1:111122223333:orders",
        "arn:aws:sqs:eu-west-1:111122223333: orders",
        "urn:aws:sqs:eu-west-1:111122223333:orders",
    ],
)
def test_anything_else_is_refused_with_the_form_of_an_arn(text: str) -> None:
    with pytest.raises(ValueError, match="arn:partition:service:region:account:resource"):
        Arn.parse(text)
