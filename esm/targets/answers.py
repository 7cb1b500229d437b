"""What several targets understand alike: the error object of a Lambda function, and the bounds of answers."""

import io

import msgspec

from esm.domain.outcome import Failed

DEFAULT_SECONDS = 60.0
"""How long an attempt may take where neither the configuration nor the target says it."""
MAX_REPLY_BYTES = 6_291_556
"""The largest reply that is read, Lambda's own limit (observability 6: it is 100 above that of a request)."""
_LARGE_BYTES = 1024 * 1024
MAX_TEXT = 300
"""Characters of somebody else's text in our sentences."""


class _ErrorObject(msgspec.Struct):
    """The body of an answer that is a function error; members depend on the runtime."""

    errorType: object = None  # noqa: N815 - Lambda's names
    errorMessage: object = None  # noqa: N815 - as above


_error_object = msgspec.json.Decoder(_ErrorObject).decode


def function_error(body: bytes, kind: str, executed_version: str = "$LATEST") -> Failed:
    """The failure that an error object tells; ``kind`` is ``Unhandled`` or ``Handled``.  Never raises."""
    try:
        found = _error_object(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = _ErrorObject()
    name, message = _text(found.errorType), _text(found.errorMessage)
    timed_out = name == "Sandbox.Timedout" or "Task timed out after" in message
    said = (
        ": ".join(part for part in (name, message) if part) or f"an error object of {len(body)} bytes without a message"
    )
    return Failed(
        f"The function failed ({kind}): {short(said)}", timed_out=timed_out, executed_version=executed_version
    )


def is_error_object(body: bytes) -> bool:
    """Whether ``body`` is an object with an ``errorType``: what a runtime answers when its handler has failed."""
    if b'"errorType"' not in body:  # almost always: no need to decode it
        return False
    try:
        return bool(_error_object(body).errorType)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def sendable(event: bytes) -> bytes | io.BytesIO:
    """``event`` in the form that aiohttp sends best: a large one as a file, which goes out in pieces."""
    return event if len(event) <= _LARGE_BYTES else io.BytesIO(event)


def short(text: str) -> str:
    """``text`` on one line, at most MAX_TEXT characters."""
    one_line = " ".join(text[: 4 * MAX_TEXT].split())
    return one_line if len(one_line) <= MAX_TEXT else one_line[: MAX_TEXT - 3] + "..."


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
