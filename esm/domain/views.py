"""What filters see of a record: its members, and its data decoded only when a pattern asks for them (filtering 1, 2).

Numbers keep their text, since a literal in a pattern equals a number that is written the same way, and no other.
"""

import json
from binascii import Error as NoBase64
from binascii import a2b_base64
from collections.abc import Callable


class Number(str):
    """A JSON number as it was written; never equal to text, as long as types are looked at first."""

    __slots__ = ()


Value = None | bool | str | list["Value"] | dict[str, "Value"]
"""Parsed JSON; numbers are ``Number``."""
NOTHING: dict[str, Value] = {}
"""Stands for a member that is absent: like an empty object it has no leaf and no member."""


class View:
    """One record as filters see it; made for one look and dropped."""

    __slots__ = ("_document", "_read", "_text", "fields")

    def __init__(self, fields: dict[str, Value], read: Callable[[], Value]) -> None:
        self.fields = fields
        """Members beside the data."""
        self._read: Callable[[], Value] | None = read
        self._text: str | None = None
        self._document: dict[str, Value] | None = None

    @property
    def text(self) -> str | None:
        """The data as text; None where they are no UTF-8, absent, or no text at all."""
        self._decode()
        return self._text

    @property
    def document(self) -> dict[str, Value] | None:
        """The data as a JSON object; None where they are none.  Other JSON (``5``, ``"x"``, ``[1]``) is just text."""
        self._decode()
        return self._document

    def _decode(self) -> None:
        if self._read is None:
            return
        data, self._read = self._read(), None
        if isinstance(data, str):
            self._text = data
            data = _parsed(data) if data.lstrip(" \t\r\n")[:1] == "{" else None
        if isinstance(data, dict):
            self._document = data


def members_of(entry: bytes) -> dict[str, Value]:
    """The members of an entry of an event.  Raises ValueError where it is no JSON object."""
    members = parsed(entry.decode())
    if not isinstance(members, dict):
        raise ValueError("expected a JSON object")
    return members


def parsed(text: str) -> Value:
    """JSON whose numbers keep their text.  Raises ValueError for what is none, or is nested beyond reason."""
    try:
        value: Value = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _parsed(text: str) -> Value:
    try:
        return parsed(text)
    except ValueError:
        return None


def _refused(constant: str) -> Value:
    raise ValueError(f"{constant} is no JSON")


def message_view(entry: bytes) -> View:
    """SQS: the data are ``body``."""
    fields = members_of(entry)
    body = fields.pop("body", None)
    return View(fields, lambda: body)


def kinesis_view(entry: bytes) -> View:
    """Kinesis: the data are ``data``; all that stands under ``kinesis`` stands at the top for a filter."""
    fields = members_of(entry)
    inner = fields.pop("kinesis", None)
    if isinstance(inner, dict):
        fields.update(inner)
    data = fields.pop("data", None)
    return View(fields, lambda: _decoded(data))


def dynamodb_view(entry: bytes) -> View:
    """DynamoDB: the data are ``dynamodb``, typed values as they are."""
    fields = members_of(entry)
    change = fields.pop("dynamodb", None)
    return View(fields, lambda: change)


def kafka_view(entry: bytes) -> View:
    """Kafka: the data are ``value``; key and headers stay as the event shows them."""
    fields = members_of(entry)
    value = fields.pop("value", None)
    return View(fields, lambda: _decoded(value))


def _decoded(data: Value) -> str | None:
    if type(data) is not str:
        return None
    try:
        return a2b_base64(data).decode()
    except (NoBase64, ValueError):
        return None
