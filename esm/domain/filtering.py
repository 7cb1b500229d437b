"""Which records a mapping lets through: patterns are read once, records are judged in a plain loop (filtering 1, 2).

A pattern's members are about the record's own members, save for one that is about its data: ``body``, ``data``,
``dynamodb`` or ``value``.  Data are compared as JSON where the pattern holds an object there, as text where it holds an
array.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from esm.domain.operators import Members
from esm.domain.patterns import (
    BadPattern,
    Place,
    Test,
    alternatives,
    checked_member,
    checked_object,
    fields_of,
    read,
)
from esm.domain.record import Record
from esm.domain.views import NOTHING, View, dynamodb_view, kafka_view, kinesis_view, message_view

MOST_PATTERNS = 10
"""AWS's quota is 5 and can be raised to 10."""

Judge = Callable[[View], bool]


class DataRule(Struct, frozen=True):
    """What patterns may say about the data of one kind of source."""

    member: str
    """The data's name in a pattern."""
    as_text: bool
    """Whether an array may stand there, for data as text."""
    passes_mismatch: bool
    """Whether data that are not of the pattern's form leave the decision to the other members, or set aside."""
    view: Callable[[bytes], View]
    """Reads an entry of an event.  Raises ValueError for what is no JSON object."""


DATA_RULES: Mapping[str, DataRule] = {
    "sqs": DataRule("body", as_text=True, passes_mismatch=False, view=message_view),
    "kinesis": DataRule("data", as_text=False, passes_mismatch=False, view=kinesis_view),
    "dynamodb": DataRule("dynamodb", as_text=False, passes_mismatch=False, view=dynamodb_view),
    "kafka": DataRule("value", as_text=True, passes_mismatch=True, view=kafka_view),
}
"""By kind of source."""


class Filters:
    """The patterns of one mapping: a record passes if one of them fits.

    ``kind`` is a key of DATA_RULES; no pattern at all lets everything pass.  Raises BadPattern.
    """

    def __init__(self, kind: str, patterns: Sequence[str]) -> None:
        self._judges = tuple(judge_of(DATA_RULES[kind], text) for text in patterns)

    def passes(self, view: View) -> bool:
        """Whether one of the patterns fits."""
        return not self._judges or any(judge(view) for judge in self._judges)

    def split(self, records: Sequence[Record], view: Callable[[Record], View]) -> tuple[list[Record], list[Record]]:
        """``records`` that pass and those that are set aside, each in order; a view lives for one record."""
        passed: list[Record] = []
        aside: list[Record] = []
        for record in records:
            (passed if self.passes(view(record)) else aside).append(record)
        return passed, aside


def judge_of(rule: DataRule, pattern: str) -> Judge:
    """One pattern as a closure; an empty one fits everything.  Raises BadPattern."""
    members = read(pattern)
    return _all_members(rule, members, ()) if members else lambda view: True


def _all_members(rule: DataRule, members: Members, place: Place) -> Judge:
    """All members must fit; those beside the data first, since they cost no decoding."""
    if not members:
        raise BadPattern(place, "Found an empty object, expected an object with members.")
    fields: list[tuple[str, Test]] = []
    others: list[Judge] = []
    for name, content, at in fields_of(members, place):
        if name == rule.member:
            others.append(_about_data(rule, content, at))
        elif (several := alternatives(name, content)) is not None:
            others.append(_any([_all_members(rule, each, (*at, index)) for index, each in enumerate(several)]))
        else:
            fields.append((name, checked_member(content, at).test))

    def judge(view: View) -> bool:
        found = view.fields
        for name, test in fields:
            if not test(found.get(name, NOTHING)):
                return False
        return all(other(view) for other in others)

    return judge


def _any(judges: Sequence[Judge]) -> Judge:
    return lambda view: any(judge(view) for judge in judges)


def _about_data(rule: DataRule, content: object, place: Place) -> Judge:
    if isinstance(content, Members):
        return _as_json(rule, checked_object(content, place).test)
    test = checked_member(content, place).test
    if not rule.as_text:
        raise BadPattern(place, "Found an array, expected an object: data of this source are compared as JSON alone.")
    return _as_text(rule, test)


def _as_json(rule: DataRule, test: Test) -> Judge:
    otherwise = rule.passes_mismatch

    def judge(view: View) -> bool:
        document = view.document
        return otherwise if document is None else test(document)

    return judge


def _as_text(rule: DataRule, test: Test) -> Judge:
    otherwise = rule.passes_mismatch

    def judge(view: View) -> bool:
        if view.document is not None or view.text is None:
            return otherwise
        return test(view.text)

    return judge
