"""Filters against a slow evaluator that tries out every choice of one element of each array."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from esm.domain.filtering import Filters
from tests.support.delivery import SQS, record

ABSENT = object()
Tree = Any  # JSON, numbers as (text,)


def choices(value: Tree) -> Iterator[Tree]:
    """``value`` with one element in the place of each array; an empty array is absent."""
    if isinstance(value, dict):
        for several in itertools.product(*(list(choices(each)) for each in value.values())):
            yield dict(zip(value, several, strict=True))
    elif isinstance(value, list):
        found = [choice for element in value for choice in choices(element)]
        yield from found or [ABSENT]
    else:
        yield value


def holds(pattern: Tree, value: Tree) -> bool:
    """Whether an object of a pattern fits a value without arrays."""
    members = value if isinstance(value, dict) else {}
    for name, content in pattern.items():
        if name == "$or":
            if not any(holds(each, members) for each in content):
                return False
        elif isinstance(content, dict):
            if not holds(content, members.get(name, ABSENT)):
                return False
        elif not any(agrees(entry, members.get(name, ABSENT)) for entry in content):
            return False
    return True


def agrees(entry: Tree, value: Tree) -> bool:
    there = value is not ABSENT and not isinstance(value, dict)
    text = value if isinstance(value, str) else None
    number = float(value[0]) if isinstance(value, tuple) else None
    if not isinstance(entry, dict):
        return there and type(entry) is type(value) and entry == value
    ((name, wanted),) = entry.items()
    match name:
        case "exists":
            return there is wanted
        case "prefix":
            return text is not None and text[: len(wanted)] == wanted
        case "suffix":
            return text is not None and text[len(text) - len(wanted) :] == wanted
        case "equals-ignore-case":
            return text is not None and text.upper() == wanted.upper()
        case "anything-but":
            return there and value not in wanted
        case _:
            pairs = zip(wanted[::2], wanted[1::2], strict=True)
            rules = {"=": "__eq__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
            return number is not None and all(getattr(number, rules[how])(float(bound[0])) for how, bound in pairs)


numbers = st.sampled_from(["0", "1", "1.0", "2", "-3", "1e0", "2.50"]).map(lambda text: (text,))
texts = st.text("aAb", max_size=3)
scalars = st.one_of(texts, numbers, st.sampled_from([None, True, False]))
names = st.sampled_from("abc")
flat_events = st.dictionaries(
    names, st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6), max_size=3
)
events = st.dictionaries(
    names,
    st.recursive(
        scalars,
        lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)
ranges = st.one_of(
    st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), numbers).map(list),
    st.just([">=", ("0",), "<", ("2",)]),
)
operators = st.one_of(
    texts.map(lambda text: {"prefix": text}),
    texts.map(lambda text: {"suffix": text}),
    texts.map(lambda text: {"equals-ignore-case": text}),
    st.lists(texts, min_size=1, max_size=3).map(lambda several: {"anything-but": several}),
    st.lists(numbers, min_size=1, max_size=3).map(lambda several: {"anything-but": several}),
    ranges.map(lambda several: {"numeric": several}),
    st.just({"exists": True}),
)


def patterns(entries: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """Patterns of these entries.  An ``$or`` stands alone: beside others it chooses elements of arrays for itself."""
    leaves = st.lists(entries, min_size=1, max_size=3)
    nested = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=5)
    objects = st.dictionaries(names, nested, min_size=1, max_size=3)
    either = st.lists(st.dictionaries(names, nested, min_size=1, max_size=2), min_size=2, max_size=3)
    return objects | either.map(lambda several: {"$or": several})


def text_of(tree: Tree) -> str:
    """JSON with numbers as they are written."""
    if isinstance(tree, tuple):
        return str(tree[0])
    if isinstance(tree, list):
        return f"[{','.join(map(text_of, tree))}]"
    if isinstance(tree, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{text_of(each)}" for name, each in tree.items()) + "}"
    return json.dumps(tree)


def passes(pattern: Tree, event: Tree) -> bool:
    filters = Filters("sqs", [text_of({"body": pattern})])
    entry = json.dumps({"body": text_of(event)}).encode()
    passed, _ = filters.split([record(1, entry=entry)], SQS.view)
    return bool(passed)


@settings(max_examples=400, deadline=None)
@given(patterns(scalars | operators), events)
def test_filters_agree_with_the_slow_evaluator_on_arrays_of_everything(pattern: Tree, event: Tree) -> None:
    assert passes(pattern, event) is any(holds(pattern, choice) for choice in choices(event))


@settings(max_examples=400, deadline=None)
@given(patterns(scalars | operators | st.just({"exists": False})), flat_events)
def test_filters_agree_with_the_slow_evaluator_on_absence(pattern: Tree, event: Tree) -> None:
    assert passes(pattern, event) is holds(pattern, event)
