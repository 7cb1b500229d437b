"""Patterns that are none: AWS's sentence, then the place, what was found and what was expected."""

import pytest

from esm.domain.filtering import DATA_RULES, Filters, judge_of
from esm.domain.patterns import LONGEST, BadPattern


def refusal(pattern: str, kind: str = "sqs") -> str:
    with pytest.raises(BadPattern) as caught:
        Filters(kind, [pattern])
    start, _, rest = str(caught.value).partition("Invalid filter pattern definition. ")
    assert start == ""
    return rest


REFUSED = [
    ("hello", "It is no JSON at line 1, column 1: Expecting value."),
    ('{"body":', "It is no JSON at line 1, column 9: Expecting value."),
    ('{"a":[NaN]}', "It is no JSON: NaN is no number."),
    ("null", "Found null, expected a JSON object."),
    ("[1]", "Found an array, expected a JSON object."),
    ('{"eventSource":"aws:sqs"}', 'eventSource: Found "aws:sqs", expected an array of values such as ["aws:sqs"].'),
    ('{"a":5}', "a: Found 5, expected an array of values such as [5]."),
    ('{"eventSource":[]}', "eventSource: Found an empty array, expected at least one value or operator."),
    ('{"body":{}}', "body: Found an empty object, expected an object with members or an array of values."),
    ('{"body":{"a":[["x"]]}}', "body.a[0]: Found an array, expected a value or an operator."),
    (
        '{"body":{"a":["x",{}]}}',
        'body.a[1]: Found an object of 0 members, expected one operator such as {"prefix": "a"}.',
    ),
    (
        '{"a":[{"like":"x"}]}',
        (
            "a[0].like: There is no such operator, expected one of "
            "equals-ignore-case, prefix, suffix, anything-but, numeric, exists."
        ),
    ),
    ('{"a":[{"wildcard":"x*"}]}', "a[0].wildcard: AWS does not offer this operator in event source mappings."),
    ('{"a":[{"cidr":"10.0.0.0/8"}]}', "a[0].cidr: AWS does not offer this operator in event source mappings."),
    (
        '{"a":[{"anything-but":{"prefix":"x"}}]}',
        (
            "a[0].anything-but: Found an operator inside, which AWS does not offer in event source mappings; "
            "expected values."
        ),
    ),
    ('{"a":[{"anything-but":[]}]}', "a[0].anything-but: Found an empty array, expected at least one value."),
    ('{"a":[{"anything-but":["x",1]}]}', "a[0].anything-but: Found text and numbers, expected one of them."),
    ('{"a":[{"anything-but":[null]}]}', "a[0].anything-but: Found null, expected text or numbers."),
    ('{"a":[{"prefix":5}]}', "a[0].prefix: Found 5, expected text."),
    (
        '{"a":[{"suffix":{"prefix":"x"}}]}',
        'a[0].suffix: Found an object, expected text or {"equals-ignore-case": text}.',
    ),
    ('{"a":[{"equals-ignore-case":null}]}', "a[0].equals-ignore-case: Found null, expected text."),
    ('{"a":[{"exists":"yes"}]}', 'a[0].exists: Found "yes", expected true or false.'),
    (
        '{"a":[{"numeric":[">"]}]}',
        'a[0].numeric: Expected an array of one or two comparisons, such as [">", 0, "<=", 5].',
    ),
    ('{"a":[{"numeric":["!=",5]}]}', 'a[0].numeric: Found "!=", expected one of = < <= > >=.'),
    ('{"a":[{"numeric":[">","5"]}]}', 'a[0].numeric: Found "5", expected a number.'),
    (
        '{"a":[{"numeric":[">",1,">",2]}]}',
        "a[0].numeric: Found > and >, expected at most one lower and one upper bound.",
    ),
    (
        '{"a":[{"numeric":[">",5,"<",5]}]}',
        "a[0].numeric: The lower bound is not below the upper bound: no number lies between.",
    ),
    ('{"a":[{"numeric":[">",5.1e9]}]}', "a[0].numeric: Found 5.1e9, expected a number from -5.0e9 to 5.0e9."),
    (
        '{"a":[{"numeric":["=",0.0000001]}]}',
        "a[0].numeric: Found 0.0000001, expected a number of at most 15 digits and 6 decimals.",
    ),
    ('{"a":["x"],"b":["y"],"a":["z"]}', "a: The member is given twice; join both into one."),
    ('{"$or":[{"a":["x"]},{"b":"y"}]}', '$or[1].b: Found "y", expected an array of values such as ["y"].'),
    (
        '{"$or":[{"a":["x"]}]}',
        (
            "$or[0].a: There is no such operator, expected one of equals-ignore-case, prefix, suffix, anything-but, "
            "numeric, exists. An $or takes at least two objects."
        ),
    ),
    ('{"$or":[{"a":["x"]},{}]}', "$or[1]: Found an empty object, expected an object with members."),
    (f'{{"a":["{"x" * LONGEST}"]}}', "It has 4106 characters, expected at most 4096."),
    ('{"a":' * 500 + '["x"]' + "}" * 500, "It is nested deeper than 100 levels."),
]


@pytest.mark.parametrize("pattern, text", REFUSED)
def test_a_bad_pattern_is_refused_with_its_place_and_what_was_expected(pattern: str, text: str) -> None:
    assert refusal(pattern) == text


def test_brackets_without_end_are_refused() -> None:
    assert "no JSON" in refusal("[" * 4_000) or "nested too deeply" in refusal("[" * 4_000)


@pytest.mark.parametrize(
    "pattern",
    [
        '{"a":[{"numeric":["<",5,">",1]}]}',
        '{"a":[{"numeric":[">=",5,"<=",5]}]}',
        '{"a":[{"numeric":["=",-5.0e9]}]}',
        '{"a":[{"numeric":["=",1234567.123456]}]}',
        '{"a":[{"exists":true},"x"]}',
        ' {\n"a" : [ null ] }\n',
    ],
)
def test_what_aws_takes_is_taken(pattern: str) -> None:
    assert judge_of(DATA_RULES["sqs"], pattern) is not None
