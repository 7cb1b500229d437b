"""Logs: one line an event, JSON for machines or plain text for people, ours and the vendors' alike.

What a line may hold is decided here, once: names, numbers, short texts.  Bytes and objects that nobody made for a log
are shown by their size or type alone, so a record that slips into a field does not take its payload along.
"""

import json
import logging
import math
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from traceback import FrameSummary, extract_tb
from types import TracebackType
from typing import Literal, TextIO, cast, get_args

import structlog

from esm.domain.record import LaneId

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)

_TEXT = 2000
"""Characters of a field that are shown."""
_FRAMES = 8
"""Frames of an exception that are shown, the innermost first."""
_CHAIN = 5
"""Exceptions of a chain or a group that are shown."""


def configure(level: Level, console: bool, stream: TextIO | None = None) -> None:
    """Send all logs from ``level`` on to ``stream`` (stderr): as JSON, or with ``console`` as text.

    Text is coloured on a terminal only.  Vendors (aiokafka, botocore, aiohttp) and Python's own warnings come out the
    same way, from WARNING on: below that they write what they send.
    """
    to = stream or sys.stderr
    lines = _Lines(to)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception_as_text,
            _showable,
            _renderer(console, to.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,  # a logger that was used before this call must obey it too
    )
    root = logging.getLogger()
    root.handlers[:] = [_Vendors()]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.captureWarnings(True)


def _renderer(console: bool, terminal: bool) -> structlog.typing.Processor:
    if console:
        return structlog.dev.ConsoleRenderer(
            colors=terminal,
            sort_keys=False,
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,  # not used: exceptions are text by then
        )
    return _as_json


def _as_json(_logger: object, _method: str, event: MutableMapping[str, object]) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return json.dumps({**first, **event})  # in ASCII: no U+2028, no lone surrogate that a reader stumbles over


class _Lines:
    """Writes lines; when nobody reads them any more the worker goes on without."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a closed pipe, a closed file
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


class _Vendors(logging.Handler):
    """Hands what libraries log with Python's logging over to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments that do not fit a vendor's text are his mistake
            text = f"{record.msg} ({type(error).__name__} while formatting)"
        level = logging.ERROR if record.levelno >= logging.ERROR else record.levelno
        failure = record.exc_info[1] if record.exc_info else None
        fields: dict[str, object] = {"exc_info": failure} if failure else {}
        structlog.get_logger().log(level, text.strip(), logger=record.name, **fields)


# -- what a field may show


def _showable(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    for name, value in event.items():
        event[name] = shown(value)
    return event


def shown(value: object) -> object:
    """``value`` as a log shows it: JSON types, bounded; bytes by their number, unknown objects by their type."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Enum():
            return shown(value.value)
        case str():
            return value if len(value) <= _TEXT else f"{value[:_TEXT]}… ({len(value)} characters)"
        case LaneId() | PurePath():
            return str(value)
        case BaseException():
            return shown(f"{type(value).__name__}: {value}")
        case _:
            return _of_many(value)


def _of_many(value: object) -> object:
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return {str(shown(name)): shown(each) for name, each in members.items()}
    if isinstance(value, (list, tuple)):
        return [shown(each) for each in cast("Sequence[object]", value)]
    if isinstance(value, AbstractSet):
        return sorted((shown(each) for each in cast("AbstractSet[object]", value)), key=str)
    return f"<{type(value).__name__}>"


# -- exceptions


def _exception_as_text(
    _logger: object, _method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Replace ``exc_info`` by ``exception``: type, text and innermost frames, on one line."""
    info = event.pop("exc_info", None)
    error = info if isinstance(info, BaseException) else sys.exc_info()[1] if info else None
    if error is not None:
        event["exception"] = compact(error)
    return event


def compact(error: BaseException) -> str:
    """``ValueError: no (engine/slots.py:12 in take < engine/lane.py:40 in run); caused by …``, on one line."""
    told: list[str] = []
    waiting: list[tuple[str, BaseException]] = [("", error)]
    while waiting and len(told) < _CHAIN:
        how, error = waiting.pop()
        text = " ".join(str(shown(error)).split())
        told.append(f"{how}{text}{_frames(error.__traceback__)}")
        if error.__cause__ is not None:
            waiting.append(("caused by ", error.__cause__))
        elif error.__context__ is not None and not error.__suppress_context__:
            waiting.append(("while handling ", error.__context__))
        if isinstance(error, BaseExceptionGroup):
            held = cast("BaseExceptionGroup[BaseException]", error).exceptions
            waiting += [("holds ", each) for each in reversed(held)]
    return "; ".join(told)


def _frames(traceback: TracebackType | None) -> str:
    frames = extract_tb(traceback, limit=-_FRAMES)
    return f" ({' < '.join(_place(frame) for frame in reversed(frames))})" if frames else ""


def _place(frame: FrameSummary) -> str:
    return f"{'/'.join(PurePath(frame.filename).parts[-2:])}:{frame.lineno} in {frame.name}"
