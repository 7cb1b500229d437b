"""A target's partial-failure reply: which records it asks to see again (event-formats 7)."""

from collections.abc import Sequence

import msgspec

from esm.domain.discarded import Json
from esm.domain.errors import MalformedReport
from esm.domain.events import EventKind
from esm.domain.record import Record

_decode = msgspec.json.Decoder().decode


def failed_ids(reply: bytes, records: Sequence[Record], kind: EventKind) -> frozenset[str]:
    """Read which of ``records``, by id, the target asks to see again; empty when all succeeded.

    ``reply`` is the body as it came.  An empty body, and any JSON without a ``batchItemFailures`` list to speak of
    (null, ``{}``, ``[]``, ``""`` …), means that all succeeded (event-formats 7.2).  Raises MalformedReport for what is
    not JSON and for a list that holds anything but identifiers of records that were sent: the whole batch has failed.
    """
    decoded = _json(reply)
    failures = decoded.get("batchItemFailures") if isinstance(decoded, dict) else None
    if failures is None:
        return frozenset()
    if not isinstance(failures, list):
        raise MalformedReport(f"batchItemFailures is {_kind_of(failures)}, expected a list of objects.")
    if kind.tolerates_empty_items and all(item == {} for item in failures):
        return frozenset()
    named: set[str] = set()
    ids = {record.id for record in records} if failures else set[str]()
    for index, item in enumerate(failures):
        name = kind.named(item.get("itemIdentifier")) if isinstance(item, dict) else None
        if name is None or name not in ids:
            raise MalformedReport(
                f"batchItemFailures[{index}] names no record that was sent: expected an object whose itemIdentifier is "
                "that of a record in the event."
            )
        named.add(name)
    return frozenset(named)


def _json(reply: bytes) -> Json:
    if not reply.strip():
        return None
    try:
        decoded: Json = _decode(reply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedReport(f"The reply of {len(reply)} bytes is no JSON: {error}.") from error
    return decoded


def _kind_of(value: Json) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "a boolean"
    return "an object" if isinstance(value, dict) else "a number"
