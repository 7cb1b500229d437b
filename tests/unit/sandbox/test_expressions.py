"""Expressions of DynamoDB as AWS evaluates them, where a lease table or a test can tell."""

from collections.abc import Mapping

import pytest

from esm.sandbox import AwsError
from esm.sandbox.attributes import Item, Value
from esm.sandbox.expressions import Scope, condition, update

ITEM: Item = {"pk": {"S": "a"}, "id": {"N": "7"}, "version": {"N": "2"}, "owner": {"S": "w1"}, "tags": {"SS": ["x"]}}


def scope(values: Mapping[str, Value], names: Mapping[str, str] | None = None) -> Scope:
    made = Scope(names or {}, values)
    made.item = ITEM
    return made


def test_numbers_keep_38_digits() -> None:
    big = "1" + "0" * 36 + "1"
    after = update("SET id = id + :n, version = :big - :n").apply(scope({":n": {"N": "1"}, ":big": {"N": big}}))
    assert (after["id"], after["version"]) == ({"N": "8"}, {"N": "1" + "0" * 37})


@pytest.mark.parametrize("name", ["id", "version", "event", "target", "node", "retry"])
def test_names_that_aws_does_not_reserve_are_attributes(name: str) -> None:
    assert condition(f"attribute_not_exists({name}) OR {name} <> :x")(scope({":x": {"N": "0"}}))


@pytest.mark.parametrize("name", ["status", "counter", "owner", "shard", "ttl", "timestamp"])
def test_names_that_aws_reserves_need_a_placeholder(name: str) -> None:
    with pytest.raises(AwsError, match="reserved keyword"):
        condition(f"attribute_exists({name})")(scope({}))
    assert condition("attribute_not_exists(#n)")(scope({}, {"#n": f"no-{name}"}))


def test_a_condition_on_owner_and_counter_holds_only_for_both() -> None:
    fence = condition("#o = :o AND version = :v")
    names = {"#o": "owner"}
    held = {":o": {"S": "w1"}, ":v": {"N": "2.0"}}
    assert fence(scope(held, names))
    assert not fence(scope(held | {":v": {"N": "3"}}, names))
    assert not fence(scope(held | {":o": {"S": "w2"}}, names))


def test_removing_an_attribute_leaves_the_others() -> None:
    after = update("REMOVE #o SET id = if_not_exists(missing, :n)").apply(scope({":n": {"N": "1"}}, {"#o": "owner"}))
    assert after == {"pk": {"S": "a"}, "id": {"N": "1"}, "version": {"N": "2"}, "tags": {"SS": ["x"]}}
