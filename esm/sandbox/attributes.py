"""Values of DynamoDB: ``{"S": "x"}`` and the like, compared as AWS compares them."""

import base64
from collections.abc import Mapping
from decimal import Context, Decimal, InvalidOperation
from typing import Any, TypeAlias, cast

from esm.sandbox.wire import AwsError

Value: TypeAlias = dict[str, Any]
"""One attribute value as it travels: a single member, named by its type."""

Item: TypeAlias = dict[str, Value]

Canon: TypeAlias = tuple[str, Any]
"""A value that equals another exactly when AWS says so; of types S, N and B also ordered."""

DIGITS = Context(prec=38)
"""Numbers of DynamoDB have 38 digits."""


def canon(value: Value) -> Canon:
    """The comparable form of ``value``.  Raises AwsError for what is no attribute value."""
    if len(value) != 1:
        message = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
        raise AwsError("ValidationException", message)
    kind, content = next(iter(value.items()))
    match kind:
        case "S" | "BOOL":
            return kind, content
        case "NULL":
            return kind, True
        case "N":
            return kind, number(content)
        case "B":
            return kind, base64.b64decode(content)
        case "SS":
            return kind, frozenset(content)
        case "NS":
            return kind, frozenset(number(one) for one in content)
        case "BS":
            return kind, frozenset(base64.b64decode(one) for one in content)
        case "L":
            return kind, tuple(canon(one) for one in content)
        case "M":
            return kind, tuple(sorted((name, canon(one)) for name, one in content.items()))
        case _:
            raise AwsError("ValidationException", f"{kind} is no type of an attribute value.")


def number(text: str) -> Decimal:
    """The number of an N value.  Raises AwsError."""
    try:
        return Decimal(text)
    except InvalidOperation as error:
        message = f"The parameter cannot be converted to a numeric value: {text}"
        raise AwsError("ValidationException", message) from error


def number_text(value: Decimal) -> str:
    """A number as DynamoDB writes it: no exponent, no trailing zeros."""
    plain = format(value.normalize(DIGITS), "f")
    return plain if value else "0"


def size_of(value: Value) -> int:
    """Bytes of ``value``, roughly as DynamoDB counts them."""
    kind, content = next(iter(value.items()))
    match kind:
        case "S":
            return len(cast("str", content).encode())
        case "N":
            return len(cast("str", content)) // 2 + 1
        case "B":
            return len(cast("str", content)) * 3 // 4
        case "SS" | "NS" | "BS":
            return sum(len(one) for one in cast("list[str]", content))
        case "L":
            return 3 + sum(size_of(one) + 1 for one in cast("list[Value]", content))
        case "M":
            return 3 + size_of_item(cast("Item", content))
        case _:
            return 1


def size_of_item(item: Mapping[str, Value]) -> int:
    """Bytes of names and values."""
    return sum(len(name.encode()) + size_of(value) for name, value in item.items())
