"""One event pattern, read once into closures (filtering 3 to 6).

A test takes a value and says whether it fits.  An absent member is an object without members: neither has a leaf.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from msgspec import Struct

from esm.domain.errors import EsmError
from esm.domain.operators import OFFERED, OPERATORS, Fits, Members, OperatorMistake, shown
from esm.domain.views import NOTHING, Number, Value

LONGEST = 4_096
DEEPEST = 100
OR = "$or"

Test = Callable[[Value], bool]
Place = tuple[str | int, ...]


class BadPattern(EsmError):
    """A filter's pattern that is none; the text says where in the pattern, what was found and what was expected."""

    def __init__(self, place: Place, text: str) -> None:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
        super().__init__(f"Invalid filter pattern definition. {where + ': ' if where else ''}{text}")


class Checked(Struct, frozen=True):
    """A test, and whether it asks for nothing but absence: then every element of an array has to fit, not just one."""

    test: Test
    absence: bool = False


def read(text: str) -> Members:
    """The JSON object of a pattern.  Raises BadPattern."""
    if len(text) > LONGEST:
        raise BadPattern((), f"It has {len(text)} characters, expected at most {LONGEST}.")
    try:
        found: object = json.loads(
            text or "{}", object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=_no_number
        )
    except json.JSONDecodeError as error:
        raise BadPattern((), f"It is no JSON at line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except RecursionError as error:
        raise BadPattern((), "It is nested too deeply.") from error
    if not isinstance(found, Members):
        raise BadPattern((), f"Found {shown(found)}, expected a JSON object.")
    return found


def _no_number(constant: str) -> object:
    raise BadPattern((), f"It is no JSON: {constant} is no number.")


def fields_of(members: Members, place: Place) -> Iterator[tuple[str, object, Place]]:
    """Name, content and place of each member.  Raises BadPattern for a name that is given twice."""
    seen: set[str] = set()
    for name, content in members:
        if name in seen:
            raise BadPattern((*place, name), "The member is given twice; join both into one.")
        seen.add(name)
        yield name, content, (*place, name)


def alternatives(name: str, content: object) -> Sequence[Members] | None:
    """The alternatives of an ``$or``; None for an ordinary member, which it is with less than two or with operators."""
    if name != OR or type(content) is not list:
        return None
    items = cast("list[object]", content)
    objects = [item for item in items if isinstance(item, Members)]
    if len(items) < 2 or len(objects) < len(items):
        return None
    return None if any(name in OPERATORS for item in objects for name, _ in item) else objects


def checked_object(members: Members, place: Place) -> Checked:
    """The test of an object: all of its members must fit.  Raises BadPattern."""
    if not members:
        raise BadPattern(place, "Found an empty object, expected an object with members or an array of values.")
    if len(place) > DEEPEST:
        raise BadPattern((), f"It is nested deeper than {DEEPEST} levels.")
    fields: list[tuple[str, Test]] = []
    whole: list[Test] = []
    absence = True
    for name, content, at in fields_of(members, place):
        if (several := alternatives(name, content)) is not None:
            checked = [checked_object(each, (*at, index)) for index, each in enumerate(several)]
            whole.append(any_of([each.test for each in checked]))
            absence = absence and all(each.absence for each in checked)
        else:
            one = checked_member(content, at)
            fields.append((name, one.test))
            absence = absence and one.absence
    return Checked(_object_test(fields, whole, absence), absence)


def any_of(tests: Sequence[Test]) -> Test:
    """Fits where one of ``tests`` does."""
    return lambda value: any(test(value) for test in tests)


def _object_test(fields: Sequence[tuple[str, Test]], whole: Sequence[Test], absence: bool) -> Test:
    def fits_one(value: Value) -> bool:
        members = value if type(value) is dict else NOTHING
        for name, test in fields:
            if not test(members.get(name, NOTHING)):
                return False
        return all(test(members) for test in whole)

    def fits(value: Value) -> bool:
        if type(value) is not list:
            return fits_one(value)
        # One element has to fit as a whole: conditions below one array are met by the same element.
        return (all if absence else any)(fits_one(element) for element in _flat(value))

    return fits


def _flat(array: list[Value]) -> Iterator[Value]:
    """The elements of ``array`` and of the arrays in it; without recursion, since data may be nested deeply."""
    open_arrays = [iter(array)]
    while open_arrays:
        for element in open_arrays[-1]:
            if type(element) is list:
                open_arrays.append(iter(element))
                break
            yield element
        else:
            open_arrays.pop()


def checked_member(content: object, place: Place) -> Checked:
    """The test of what stands behind a name: an object or a leaf array.  Raises BadPattern."""
    if isinstance(content, Members):
        return checked_object(content, place)
    if type(content) is not list:
        raise BadPattern(place, f"Found {shown(content)}, expected an array of values such as [{shown(content)}].")
    entries = cast("list[object]", content)
    if not entries:
        raise BadPattern(place, "Found an empty array, expected at least one value or operator.")
    return _leaf(entries, place)


def _leaf(entries: Sequence[object], place: Place) -> Checked:
    texts: set[str] = set()
    numbers: set[str] = set()
    constants: list[bool | None] = []
    fits: list[Fits] = []
    exists: set[bool] = set()
    for index, entry in enumerate(entries):
        if isinstance(entry, Number):
            numbers.add(str(entry))
        elif isinstance(entry, str):
            texts.add(entry)
        elif entry is None or isinstance(entry, bool):
            constants.append(entry)
        else:
            operator = _operator(entry, (*place, index))
            exists.add(operator) if isinstance(operator, bool) else fits.append(operator)
    one = _one_value(frozenset(texts), frozenset(numbers), tuple(constants), tuple(fits))
    return Checked(_leaf_test(one, exists), absence=len(entries) == 1 and exists == {False})


def _operator(entry: object, place: Place) -> Fits | bool:
    """The test of an operator; for ``exists`` whether the leaf must be there.  Raises BadPattern."""
    if not isinstance(entry, Members):
        raise BadPattern(place, f"Found {shown(entry)}, expected a value or an operator.")
    if len(entry) != 1:
        raise BadPattern(place, f"Found an object of {len(entry)} members, expected one operator such as {_EXAMPLE}.")
    name, content = entry[0]
    compiled = OPERATORS.get(name)
    if compiled is None:
        hint = " An $or takes at least two objects." if OR in place[-2:] else ""
        raise BadPattern((*place, name), f"There is no such operator, expected one of {', '.join(OFFERED)}.{hint}")
    try:
        return compiled(content)
    except OperatorMistake as error:
        raise BadPattern((*place, name), str(error)) from None


_EXAMPLE = '{"prefix": "a"}'


def _one_value(
    texts: frozenset[str], numbers: frozenset[str], constants: tuple[bool | None, ...], fits: tuple[Fits, ...]
) -> Test:
    def test(value: Value) -> bool:
        if type(value) is str:
            known = value in texts
        elif isinstance(value, Number):
            known = str(value) in numbers
        else:
            known = any(value is constant for constant in constants)
        return known or any(fit(value) for fit in fits)

    return test


def _leaf_test(one: Test, exists: set[bool]) -> Test:
    present, absent = True in exists, False in exists

    def test(value: Value) -> bool:
        if type(value) is dict:
            return absent
        if type(value) is not list:
            return present or one(value)
        found = False
        for leaf in _flat(value):
            if type(leaf) is not dict:
                found = True
                if present or one(leaf):
                    return True
        return absent and not found

    return test
