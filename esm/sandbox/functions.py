"""Ready-made functions for a sandbox that runs as a process of its own: kinds that are named in text.

``ok``; ``hang``; ``sleep:0.05`` (seconds); ``fail_if:TEXT`` raises when a record's payload holds TEXT;
``report_if:TEXT`` reports those records as batchItemFailures; ``fail:N`` raises N times, then succeeds.  Kinds are
joined by ``,`` and act in that order; ``record`` and ``ids`` among them remember what arrived.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import cast

from esm.sandbox.lambda_ import Context, Function, Handler, Lambda
from esm.sandbox.wire import Json

WORDS = frozenset(("ok", "record", "ids", "fail", "sleep", "hang", "fail_if", "report_if"))
"""The kinds by name."""


class Poisoned(Exception):
    """A record that this function cannot bear."""


class Kind:
    """A function made of the words of ``text``.  Raises ValueError for a word that is unknown."""

    def __init__(self, text: str) -> None:
        self.record = False
        self.ids: list[str] | None = None
        """Identifiers of the records that arrived, in order, repeats included; None unless ``ids`` was named."""
        self._steps: list[tuple[str, str]] = []
        self._failures_left = 0
        for word in text.split(","):
            name, _, value = word.strip().partition(":")
            match name:
                case "ok":
                    pass
                case "record":
                    self.record = True
                case "ids":
                    self.ids = []
                case "fail":
                    self._failures_left = int(value)
                    self._steps.append((name, value))
                case "sleep":
                    float(value)
                    self._steps.append((name, value))
                case "hang" | "fail_if" | "report_if":
                    self._steps.append((name, value))
                case other:
                    raise ValueError(
                        f"{other!r} is no kind of function; expected ok, hang, sleep:SECONDS, fail_if:TEXT, "
                        "report_if:TEXT, fail:TIMES, record or ids"
                    )

    async def __call__(self, event: Json, _context: Context) -> object:
        if self.ids is not None:
            self.ids.extend(name if isinstance(name, str) else json.dumps(name) for name, _ in payloads(event))
        reported: list[object] = []
        for name, value in self._steps:
            match name:
                case "hang":
                    await asyncio.get_running_loop().create_future()
                case "sleep":
                    await asyncio.sleep(float(value))
                case "fail" if self._failures_left > 0:
                    self._failures_left -= 1
                    raise Poisoned("This function fails by script.")
                case "fail_if":
                    for identifier, payload in payloads(event):
                        if value in payload:
                            raise Poisoned(f"The record {identifier} holds {value!r}.")
                case "report_if":
                    reported += [identifier for identifier, payload in payloads(event) if value in payload]
                case _:
                    pass
        return {"batchItemFailures": [{"itemIdentifier": one} for one in reported]} if reported else None


def payloads(event: Json) -> Iterator[tuple[object, str]]:
    """Identifier (as a report names it) and decoded payload of each record of an event, whatever its source."""
    kafka = cast("dict[str, list[Json]]", event.get("records", {}))
    for partition, records in kafka.items():
        for record in records:
            yield {"partition": partition, "offset": record["offset"]}, _text(record.get("value"))
    for record in cast("list[Json]", event.get("Records", [])):
        if "kinesis" in record:
            yield record["kinesis"]["sequenceNumber"], _text(record["kinesis"]["data"])
        elif "dynamodb" in record:
            yield record["dynamodb"]["SequenceNumber"], json.dumps(record["dynamodb"], ensure_ascii=False)
        else:
            yield record.get("messageId", ""), str(record.get("body", ""))


def add_kind(functions: Lambda, name: str, text: str, seconds: float = 3) -> Function:
    """Register the function ``name`` of the kind ``text``; ``seconds`` is its timeout."""
    kind = Kind(text)
    handler: Handler = kind
    return functions.add_function(name, handler, timeout=seconds, record=kind.record)


def _text(data: str | None) -> str:
    return base64.b64decode(data or "").decode("utf-8", "replace")
