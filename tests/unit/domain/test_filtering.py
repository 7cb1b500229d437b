"""Filters, rule by rule of the Lambda guide and of what was recorded on AWS (filtering 1 to 7)."""

import base64
import json

import pytest

from esm.domain.events import EventKind
from esm.domain.filtering import DATA_RULES, Filters
from esm.domain.patterns import BadPattern
from tests.support.delivery import DYNAMODB, KAFKA, KINESIS, SQS, record

KINDS: dict[str, EventKind] = {"sqs": SQS, "kinesis": KINESIS, "dynamodb": DYNAMODB, "kafka": KAFKA}


def entry_of(kind: str, data: str | bytes, **members: object) -> bytes:
    """An entry of an event with ``data`` in its place; text of DynamoDB is JSON."""
    raw = data.encode() if isinstance(data, str) else data
    coded = base64.b64encode(raw).decode()
    match kind:
        case "sqs":
            entry: dict[str, object] = {"messageId": "m", "body": raw.decode(), "eventSource": "aws:sqs"}
        case "kinesis":
            inner = {"partitionKey": "m-1", "data": coded, "approximateArrivalTimestamp": 1700000000.5}
            entry = {"kinesis": inner, "eventSource": "aws:kinesis"}
        case "dynamodb":
            # The data are JSON already, with their numbers as they are written.
            return b'{"eventName":"MODIFY","dynamodb":%b,%b' % (raw, json.dumps({"v": 1, **members}).encode()[1:])
        case _:
            entry = {"topic": "t2", "partition": 0, "offset": 7, "value": coded, "headers": []}
    return json.dumps(entry | members).encode()


def passes(kind: str, patterns: str | list[str], data: str | bytes, **members: object) -> bool:
    """Whether a record with ``data`` passes, as the engine asks it."""
    filters = Filters(kind, [patterns] if isinstance(patterns, str) else patterns)
    one = record(1, entry=entry_of(kind, data, **members))
    passed, aside = filters.split([one], KINDS[kind].view)
    assert passed + aside == [one]
    return bool(passed)


def fits(leaf: str, event: str) -> bool:
    """Whether ``{"a": leaf}`` fits the body ``event``."""
    return passes("sqs", f'{{"body":{{"a":{leaf}}}}}', event)


EXAMPLES = [  # filtering 7
    ("sqs", '{"body":{"RequestCode":["BBBB"]}}', '{"RequestCode":"BBBB","x":1}', True),
    ("sqs", '{"body":{"RequestCode":["BBBB"]}}', "RequestCode=BBBB", False),
    ("sqs", '{"body":["go"]}', "go", True),
    ("sqs", '{"body":["go"]}', '{"a":1}', False),
    ("sqs", '{"body":{"a":[{"anything-but":["x"]}]}}', "{}", False),
    ("sqs", '{"body":{"t":["x"]}}', '{"t":["y","x"]}', True),
    ("sqs", '{"body":{"i":{"k":["a"],"v":[1]}}}', '{"i":[{"k":"a","v":2},{"k":"b","v":1}]}', False),
    ("sqs", '{"body":{"i":{"k":["a"],"v":[1]}}}', '{"i":[{"k":"a","v":2},{"k":"a","v":1}]}', True),
    ("kinesis", '{"data":{"kwh":[{"numeric":[">",1]}]}}', '{"kwh":1.5}', True),
    ("kinesis", '{"data":{"kwh":[{"numeric":[">",1]}]}}', b"\xff\xfe", False),
    ("kinesis", '{"partitionKey":["m-1"]}', b"\xff\xfe", True),
    ("kinesis", '{"kinesis":{"data":{"kwh":[1]}}}', '{"kwh":1}', False),
    (
        "dynamodb",
        '{"eventName":["INSERT","MODIFY"],"dynamodb":{"NewImage":{"status":{"S":["open"]}}}}',
        '{"NewImage":{"status":{"S":"open"}}}',
        True,
    ),
    (
        "dynamodb",
        '{"dynamodb":{"NewImage":{"age":{"N":[{"numeric":["=",5]}]}}}}',
        '{"NewImage":{"age":{"N":"5"}}}',
        False,
    ),
    ("dynamodb", '{"dynamodb":{"NewImage":{"age":{"N":["31"]}}}}', '{"NewImage":{"age":{"N":"31"}}}', True),
    ("dynamodb", '{"dynamodb":{"Keys":{"pk":{"S":[{"prefix":"cust#"}]}}}}', '{"Keys":{"pk":{"S":"cust#9"}}}', True),
    (
        "dynamodb",
        '{"dynamodb":{"NewImage":{"l":{"L":{"S":["a"]}}}}}',
        '{"NewImage":{"l":{"L":[{"S":"a"},{"N":"2"}]}}}',
        True,
    ),
    (
        "dynamodb",
        '{"dynamodb":{"ApproximateCreationDateTime":[{"numeric":[">",0]}]}}',
        '{"ApproximateCreationDateTime":1.7e9}',
        True,
    ),
    ("dynamodb", '{"dynamodb":{"NewImage":{"f":[{"exists":true}]}}}', '{"NewImage":{"f":{"S":"x"}}}', False),
    ("dynamodb", '{"dynamodb":{"NewImage":{"f":{"S":[{"exists":true}]}}}}', '{"NewImage":{"f":{"S":"x"}}}', True),
    ("kafka", '{"value":{"a":["x"]}}', '{"a":"x"}', True),
    ("kafka", '{"value":{"a":["x"]}}', "hello", True),
    ("kafka", '{"value":[{"anything-but":["error"]}]}', "ok", True),
    ("kafka", '{"value":[{"anything-but":["error"]}]}', "error", False),
    ("kafka", '{"value":{"a":["x"]},"topic":["t1"]}', b"\xff\xfe", False),
    ("sqs", '{"body":{"$or":[{"a":["x"]},{"b":[{"numeric":[">",5]}]}],"c":["y"]}}', '{"b":9,"c":"y"}', True),
    ("sqs", '{"body":{"$or":[{"a":["x"]},{"b":[{"numeric":[">",5]}]}],"c":["y"]}}', '{"b":9,"c":"z"}', False),
    ("sqs", '{"body":{"n":[300]}}', '{"n":3.0e2}', False),
    ("sqs", '{"body":{"s":[""]}}', '{"s":""}', True),
]


@pytest.mark.parametrize("kind, pattern, data, expected", EXAMPLES)
def test_the_worked_examples_end_as_on_aws(kind: str, pattern: str, data: str | bytes, expected: bool) -> None:
    assert passes(kind, pattern, data) is expected


def test_members_beside_the_data_are_compared_without_looking_at_the_data() -> None:
    attribute = {"kind": {"stringValue": "retail", "dataType": "String"}}
    pattern = '{"messageAttributes":{"kind":{"stringValue":["retail"]}}}'
    assert passes("sqs", pattern, "{malformed", messageAttributes=attribute)
    assert not passes("sqs", pattern, "{malformed", messageAttributes={})
    ttl = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    assert passes("dynamodb", '{"userIdentity":{"principalId":["dynamodb.amazonaws.com"]}}', "{}", userIdentity=ttl)
    assert passes("kafka", '{"offset":[7],"partition":[{"numeric":["<",1]}]}', b"\xff")


def test_of_several_patterns_one_is_enough_and_without_any_everything_passes() -> None:
    two = ['{"body":{"a":[1]}}', '{"body":{"b":[2]}}']
    assert passes("sqs", two, '{"b":2}')
    assert not passes("sqs", two, '{"a":2,"b":1}')
    assert all(passes("sqs", nothing, "x") for nothing in ([], "{}", ""))


TEXT, OBJECT = "plain", '{"a":"x"}'
FORMS = [  # filtering 2: kind, pattern of the data, data, passes
    ("sqs", '["plain"]', TEXT, True),
    ("sqs", '["other"]', TEXT, False),
    ("sqs", '[{"prefix":"pl"}]', TEXT, True),
    ("sqs", '{"a":["x"]}', TEXT, False),
    ("sqs", '{"a":["x"]}', '{"a":"x"', False),
    ("sqs", '{"a":[{"exists":false}]}', TEXT, False),
    ("sqs", '{"a":["x"]}', OBJECT, True),
    ("sqs", '["plain"]', OBJECT, False),
    ("sqs", '[{"anything-but":["plain"]}]', OBJECT, False),
    ("sqs", '["5"]', "5", True),
    ("sqs", "[5]", "5", False),
    ("sqs", '["[1]"]', "[1]", True),
    ("kinesis", '{"a":["x"]}', OBJECT, True),
    ("kinesis", '{"a":["x"]}', TEXT, False),
    ("kinesis", '{"a":["x"]}', b"\xff", False),
    ("kafka", '["plain"]', TEXT, True),
    ("kafka", '["other"]', TEXT, False),
    ("kafka", '{"a":["y"]}', TEXT, True),
    ("kafka", '{"a":["y"]}', OBJECT, False),
    ("kafka", '["other"]', OBJECT, True),
    ("kafka", '["other"]', b"\xff", True),
    ("kafka", '{"a":["y"]}', b"\xff", True),
]


@pytest.mark.parametrize("kind, pattern, data, expected", FORMS)
def test_data_are_compared_in_the_form_of_the_pattern(
    kind: str, pattern: str, data: str | bytes, expected: bool
) -> None:
    assert passes(kind, f'{{"{DATA_RULES[kind].member}":{pattern}}}', data) is expected


def test_a_tombstone_of_kafka_is_judged_by_its_other_members() -> None:
    for pattern in ('["x"]', '{"a":["x"]}'):
        assert passes("kafka", f'{{"value":{pattern}}}', "", value=None)
        assert not passes("kafka", f'{{"value":{pattern},"topic":["t1"]}}', "", value=None)


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
def test_streams_take_no_pattern_of_plain_text(kind: str) -> None:
    with pytest.raises(BadPattern, match="expected an object: data of this source are compared as JSON alone"):
        Filters(kind, [f'{{"{DATA_RULES[kind].member}":["x"]}}'])


OPERATORS = [  # filtering 3
    ('["x"]', '{"a":"x"}', True),
    ('["x"]', '{"a":"X"}', False),
    ('["\u00e9"]', '{"a":"e\u0301"}', False),
    ("[true]", '{"a":true}', True),
    ("[true]", '{"a":"true"}', False),
    ("[false]", '{"a":0}', False),
    ("[null]", '{"a":null}', True),
    ("[null]", "{}", False),
    ('[""]', '{"a":""}', True),
    ('[""]', '{"a":null}', False),
    ('["x","y",{"prefix":"z"}]', '{"a":"zz"}', True),
    ('["x","y",{"prefix":"z"}]', '{"a":"az"}', False),
    ('[{"equals-ignore-case":"alpha"}]', '{"a":"aLPHa"}', True),
    ('[{"equals-ignore-case":"\u03c3"}]', '{"a":"\u03c2"}', True),
    ('[{"equals-ignore-case":"ss"}]', '{"a":"\u00df"}', False),
    ('[{"prefix":"eu-"}]', '{"a":"eu-west"}', True),
    ('[{"prefix":"eu-"}]', '{"a":"EU-west"}', False),
    ('[{"prefix":{"equals-ignore-case":"eu-"}}]', '{"a":"EU-west"}', True),
    ('[{"suffix":".png"}]', '{"a":"x.png"}', True),
    ('[{"suffix":{"equals-ignore-case":".png"}}]', '{"a":"x.PNG"}', True),
    ('[{"prefix":"1"}]', '{"a":12}', False),
    ('[{"suffix":"2"}]', '{"a":12}', False),
    ('[{"equals-ignore-case":"1"}]', '{"a":1}', False),
    ('[{"anything-but":["x","y"]}]', '{"a":"z"}', True),
    ('[{"anything-but":["x","y"]}]', '{"a":"y"}', False),
    ('[{"anything-but":"x"}]', '{"a":"x"}', False),
    ('[{"anything-but":"x"}]', '{"a":5}', True),
    ('[{"anything-but":[1,2]}]', '{"a":2}', False),
    ('[{"anything-but":[1,2]}]', '{"a":"2"}', True),
    ('[{"anything-but":"x"}]', '{"a":null}', True),
    ('[{"anything-but":"x"}]', "{}", False),
    ('[{"anything-but":["x"]}]', '{"a":["x","y"]}', True),
    ('[{"anything-but":["x"]}]', '{"a":["x"]}', False),
    ('[{"numeric":[">",0,"<=",5]}]', '{"a":5}', True),
    ('[{"numeric":[">",0,"<=",5]}]', '{"a":0}', False),
    ('[{"numeric":["<",0]}]', '{"a":-0.5}', True),
    ('[{"numeric":[">=",5]}]', '{"a":5.0}', True),
    ('[{"numeric":[">",1]}]', '{"a":true}', False),
    ('[{"numeric":[">",1]}]', '{"a":1e999}', True),
    # filtering 4
    ("[300]", '{"a":300}', True),
    ("[300]", '{"a":300.0}', False),
    ("[300]", '{"a":3.0e2}', False),
    ("[300]", '{"a":"300"}', False),
    ('["300"]', '{"a":300}', False),
    ("[300.0]", '{"a":300.0}', True),
    ('[{"numeric":["=",300]}]', '{"a":300}', True),
    ('[{"numeric":["=",300]}]', '{"a":300.0}', True),
    ('[{"numeric":["=",300]}]', '{"a":3.0e2}', True),
    ('[{"numeric":[">",100]}]', '{"a":"300"}', False),
    # filtering 5
    ('[{"exists":true}]', '{"a":1}', True),
    ('[{"exists":true}]', '{"a":null}', True),
    ('[{"exists":true}]', '{"a":""}', True),
    ('[{"exists":true}]', "{}", False),
    ('[{"exists":true}]', '{"a":{"b":1}}', False),
    ('[{"exists":false}]', "{}", True),
    ('[{"exists":false}]', '{"a":{"b":1}}', True),
    ('[{"exists":false}]', '{"a":1}', False),
    ('{"b":[{"exists":true}]}', '{"a":{"b":1}}', True),
    ('{"b":[{"exists":false}]}', "{}", True),
    ('{"b":[{"exists":false}]}', '{"a":1}', True),
    ('{"b":[{"exists":false}]}', '{"a":{"b":1}}', False),
    ('[{"exists":true}]', '{"a":[1,2]}', True),
    ('[{"exists":true}]', '{"a":[]}', False),
    ('[{"exists":false}]', '{"a":[]}', True),
    ('[{"exists":false}]', '{"a":[1]}', False),
    ('[{"exists":false}]', '{"a":[{"b":1}]}', True),
    ('["x",{"exists":false}]', "{}", True),
    ('["x",{"exists":false}]', '{"a":"y"}', False),
    ('{"b":[{"exists":false}]}', '{"a":[{"b":1},{"c":2}]}', False),
    ('{"b":[{"exists":false}]}', '{"a":[]}', True),
    ('{"b":[{"exists":false}],"c":[2]}', '{"a":[{"b":1},{"c":2}]}', True),
    # filtering 6
    ('{"b":{"c":["x"]}}', '{"a":{"b":{"c":"x","d":1}}}', True),
    ('["x"]', '{"a":[["y"],["x"]]}', True),
    ('{"b":["x"]}', '{"a":[[{"b":"y"}],[{"b":"x"}]]}', True),
    ('{"b":["x"]}', '{"a":"x"}', False),
    ('["x"]', '{"a":{}}', False),
]


@pytest.mark.parametrize("leaf, event, expected", OPERATORS)
def test_each_operator_fits_what_it_fits_on_aws(leaf: str, event: str, expected: bool) -> None:
    assert fits(leaf, event) is expected


def test_or_may_be_nested_and_stand_around_the_data() -> None:
    pattern = '{"$or":[{"body":{"a":["x"]}},{"body":["go"]},{"$or":[{"messageId":["m2"]},{"messageId":["m3"]}]}]}'
    assert passes("sqs", pattern, '{"a":"x"}')
    assert passes("sqs", pattern, "go")
    assert passes("sqs", pattern, "stay", messageId="m3")
    assert not passes("sqs", pattern, "stay")


def test_an_or_of_operators_is_an_ordinary_member() -> None:
    assert passes("sqs", '{"body":{"$or":[{"prefix":"x"},{"prefix":"y"}]}}', '{"$or":"yes"}')
    assert passes("sqs", '{"body":{"$or":["x","y"]}}', '{"$or":"y"}')


def test_data_that_are_nested_beyond_reason_are_no_json_and_break_nothing() -> None:
    for deep in ("[" * 100_000, '{"a":' + "[" * 20_000 + "]" * 20_000 + "}", '{"a":' * 100_000):
        assert not fits('{"b":["x"]}', deep)
        assert not fits('["x"]', deep)


def test_what_python_alone_calls_json_is_text() -> None:
    assert not fits('[{"exists":true}]', '{"a":NaN}')
    assert passes("sqs", '{"body":["NaN"]}', "NaN")


def test_split_keeps_the_order_of_both_parts() -> None:
    filters = Filters("sqs", ['{"body":{"n":[{"numeric":[">",2]}]}}'])
    records = [record(n, entry=entry_of("sqs", f'{{"n":{n % 5}}}')) for n in range(20)]
    passed, aside = filters.split(records, SQS.view)
    assert [each.position for each in passed] == [n for n in range(20) if n % 5 > 2]
    assert [each.position for each in aside] == [n for n in range(20) if n % 5 <= 2]
