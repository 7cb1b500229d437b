"""The operators that stand in the array of a pattern's leaf, each read once into a closure (filtering 3, 4).

What a test is given is one scalar: text, a ``Number``, true, false or null.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from esm.domain.views import Number, Value

HIGHEST = 5.0e9
"""Numbers of ``numeric`` lie between this and its negative; AWS allows 15 digits and 6 decimals."""
MOST_DIGITS, MOST_DECIMALS = 15, 6

Fits = Callable[[Value], bool]


class Members(list[tuple[str, object]]):
    """A JSON object of a pattern, with its members in order and none dropped for having a name twice."""


class OperatorMistake(Exception):
    """What an operator was given is not what it takes; the text is a sentence."""


def shown(value: object) -> str:
    """A value of a pattern as JSON, cut where it is long."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Members):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _text(content: object) -> str:
    if type(content) is not str:
        raise OperatorMistake(f"Found {shown(content)}, expected text.")
    return content


def fold(text: str) -> str:
    """``text`` without case, letter by letter: no letter becomes two."""
    if text.isascii():
        return text.lower()
    return "".join(each if len(each) == 1 else letter for letter in text for each in [letter.casefold()])


def _without_case(content: object) -> str | None:
    """The text of ``{"equals-ignore-case": …}``; None where ``content`` is no object."""
    if not isinstance(content, Members):
        return None
    if len(content) != 1 or content[0][0] != "equals-ignore-case":
        raise OperatorMistake('Found an object, expected text or {"equals-ignore-case": text}.')
    return fold(_text(content[0][1]))


def _prefix(content: object) -> Fits:
    if (folded := _without_case(content)) is not None:
        return lambda value: type(value) is str and fold(value).startswith(folded)
    text = _text(content)
    return lambda value: type(value) is str and value.startswith(text)


def _suffix(content: object) -> Fits:
    if (folded := _without_case(content)) is not None:
        return lambda value: type(value) is str and fold(value).endswith(folded)
    text = _text(content)
    return lambda value: type(value) is str and value.endswith(text)


def _equals_ignore_case(content: object) -> Fits:
    folded = fold(_text(content))
    return lambda value: type(value) is str and fold(value) == folded


def _anything_but(content: object) -> Fits:
    if isinstance(content, Members):
        raise OperatorMistake(
            "Found an operator inside, which AWS does not offer in event source mappings; expected values."
        )
    entries = cast("Sequence[object]", content) if isinstance(content, list) else (content,)
    if not entries:
        raise OperatorMistake("Found an empty array, expected at least one value.")
    for entry in entries:
        if not isinstance(entry, str):  # a Number is one, too
            raise OperatorMistake(f"Found {shown(entry)}, expected text or numbers.")
    kinds = {type(entry) for entry in entries}
    if len(kinds) > 1:
        raise OperatorMistake("Found text and numbers, expected one of them.")
    (kind,), known = kinds, frozenset(str(entry) for entry in entries)
    return lambda value: type(value) is not kind or str(value) not in known


_COMPARES: Mapping[str, Callable[[float, float], bool]] = {
    "=": lambda found, bound: found == bound,
    "<": lambda found, bound: found < bound,
    "<=": lambda found, bound: found <= bound,
    ">": lambda found, bound: found > bound,
    ">=": lambda found, bound: found >= bound,
}


def _numeric(content: object) -> Fits:
    parts = cast("list[object]", content) if type(content) is list else []
    if len(parts) not in (2, 4):
        raise OperatorMistake('Expected an array of one or two comparisons, such as [">", 0, "<=", 5].')
    signs = [_sign(part) for part in parts[::2]]
    bounds = [_bound(part) for part in parts[1::2]]
    if len(signs) == 2:
        _check_range(signs, bounds)
    rules = [(_COMPARES[sign], bound) for sign, bound in zip(signs, bounds, strict=True)]

    def fits(value: Value) -> bool:
        if not isinstance(value, Number):
            return False
        number = float(value)
        return all(compare(number, bound) for compare, bound in rules)

    return fits


def _sign(part: object) -> str:
    if type(part) is not str or part not in _COMPARES:
        raise OperatorMistake(f"Found {shown(part)}, expected one of {' '.join(_COMPARES)}.")
    return part


def _bound(part: object) -> float:
    if not isinstance(part, Number):
        raise OperatorMistake(f"Found {shown(part)}, expected a number.")
    number = float(part)
    if not -HIGHEST <= number <= HIGHEST:
        raise OperatorMistake(f"Found {shown(part)}, expected a number from -5.0e9 to 5.0e9.")
    mantissa = part.lower().partition("e")[0].lstrip("-")
    digits = mantissa.replace(".", "").strip("0")
    # A comparison with rounding: in text with an exponent the decimals are not those that are written.
    if len(digits) > MOST_DIGITS or abs(round(number, MOST_DECIMALS) - number) > 1e-12 * max(1.0, abs(number)):
        raise OperatorMistake(
            f"Found {shown(part)}, expected a number of at most {MOST_DIGITS} digits and {MOST_DECIMALS} decimals."
        )
    return number


def _check_range(signs: Sequence[str], bounds: Sequence[float]) -> None:
    """Two comparisons are one range: a bound from below, then one from above that is not under it."""
    if signs[0][0] == "<" and signs[1][0] == ">":
        signs, bounds = signs[::-1], bounds[::-1]
    if signs[0][0] != ">" or signs[1][0] != "<":
        raise OperatorMistake(f"Found {' and '.join(signs)}, expected at most one lower and one upper bound.")
    if bounds[0] > bounds[1] or (bounds[0] == bounds[1] and signs != [">=", "<="]):
        raise OperatorMistake("The lower bound is not below the upper bound: no number lies between.")


def _exists(content: object) -> bool:
    if not isinstance(content, bool):
        raise OperatorMistake(f"Found {shown(content)}, expected true or false.")
    return content


def _not_offered(_: object) -> Fits:
    raise OperatorMistake("AWS does not offer this operator in event source mappings.")


OPERATORS: Mapping[str, Callable[[object], Fits | bool]] = {
    "equals-ignore-case": _equals_ignore_case,
    "prefix": _prefix,
    "suffix": _suffix,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
    "cidr": _not_offered,
    "wildcard": _not_offered,
}
"""Operator → how it is read; each raises OperatorMistake.  ``exists`` is about the leaf and not about one value."""
OFFERED = tuple(name for name, reader in OPERATORS.items() if reader is not _not_offered)
"""Those that AWS offers in event source mappings."""
