"""A message of SQS: its life in a queue, and the checksums AWS makes over it."""

import base64
import enum
import hashlib
import re
import struct
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Protocol

import msgspec


class State(enum.Enum):
    """Where a message is."""

    READY = 1
    IN_FLIGHT = 2
    DELAYED = 3
    GONE = 4


class Attribute(msgspec.Struct, omit_defaults=True, rename="pascal"):
    """A message attribute as it travels; ``binary_value`` is base64."""

    data_type: str
    string_value: str | None = None
    binary_value: str | None = None

    def normalised(self) -> "Attribute":
        """As SQS stores it: ``0012.3400`` of a Number becomes ``12.34``."""
        if not self.data_type.startswith("Number") or self.string_value is None:
            return self
        try:
            number = Decimal(self.string_value).normalize()
        except InvalidOperation:
            return self
        return Attribute(self.data_type, format(number, "f"))


Attributes = Mapping[str, Attribute]


class Message(msgspec.Struct, kw_only=True):
    """One message; times in epoch seconds, 0 = not yet."""

    id: str
    body: str
    attributes: Attributes | None = None
    trace_header: str | None = None
    group: str | None = None
    deduplication_id: str | None = None
    sequence: str | None = None
    dead_letter_source: str | None = None
    sent_at: float = 0
    first_received_at: float = 0
    receives: int = 0
    receives_before: int = 0
    """Receives in the queue it was a dead letter of: its own redrive counts from there."""
    number: int = 0
    handle: str = ""
    state: State = State.READY
    due: float = 0
    version: int = 0
    """Rises whenever the message moves, so that what was planned for it before is known as void."""

    def as_dead_letter(self, source: str) -> "Message":
        """The same message for the dead-letter queue: id, body, age and receive count stay."""
        return Message(
            id=self.id,
            body=self.body,
            attributes=self.attributes,
            trace_header=self.trace_header,
            group=self.group,
            deduplication_id=self.deduplication_id,
            dead_letter_source=source,
            sent_at=self.sent_at,
            first_received_at=self.first_received_at,
            receives=self.receives,
            receives_before=self.receives,
        )

    def size(self) -> int:
        """Bytes that count against the maximum: body, names, types and values of the attributes."""
        size = len(self.body.encode())
        for name, attribute in (self.attributes or {}).items():
            size += len(name.encode()) + len(attribute.data_type) + len(attribute.string_value or "")
            size += len(attribute.binary_value or "") * 3 // 4
        return size


_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fit_for_sqs(text: str) -> bool:
    """Whether all characters of ``text`` may be in a message."""
    return _UNFIT.search(text) is None


def md5(text: str) -> str:
    """Hex MD5 of ``text`` as UTF-8."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Attributes) -> str:
    """Hex MD5 over attributes by name: lengths (4 bytes, big-endian), names, types, a kind byte, values."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        attribute = attributes[name]
        _add(digest, name.encode())
        _add(digest, attribute.data_type.encode())
        if attribute.binary_value is not None:
            digest.update(b"\x02")
            _add(digest, base64.b64decode(attribute.binary_value))
        else:
            digest.update(b"\x01")
            _add(digest, (attribute.string_value or "").encode())
    return digest.hexdigest()


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def _add(digest: _Digest, value: bytes) -> None:
    digest.update(struct.pack(">I", len(value)))
    digest.update(value)
