"""A web server as a target: each event is POSTed, any 2xx is success.

Beside the configured headers a request carries ``X-Amzn-RequestId`` (the same over plain retries) and
``X-Amzn-Trace-Id``.  Where sending begins is exact: errors before the first byte of the event was handed to an open
connection are *refused* (name, connection, TLS), all later ones *failed*.  Redirects are not followed.

A Lambda container (its Runtime Interface Emulator) is understood: it answers 200 with an error object when the handler
failed, 200 with a plain text when it timed out, and an empty 400 while it is busy with another event.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import anyio

from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation, TimeLimit
from esm.targets.answers import DEFAULT_SECONDS, MAX_REPLY_BYTES, function_error, is_error_object, sendable, short
from esm.targets.http_connections import Sending, http_session

__all__ = ["HttpTarget", "http_session"]

_EMULATOR = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
_FUNCTION_ERROR_HEADERS = ("X-Amz-Function-Error", "Lambda-Runtime-Function-Error-Type")


class HttpTarget:
    """POSTs events to ``url``."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        function_arn: str,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> None:
        """``session`` is one of ``http_session``; ``seconds`` is the configured timeout, None = 60."""
        self._session = session
        self._url = url
        self._function_arn = function_arn
        self._headers = {"Content-Type": "application/json"} | _without_content_type(headers or {})
        self._seconds = seconds
        parts = urlsplit(url)
        self._emulator = _EMULATOR.fullmatch(parts.path) is not None
        # For sentences: neither path nor query nor login, which may be secrets.
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def function_arn(self) -> str:
        """The ARN failure records name, made up of the target's name."""
        return self._function_arn

    @property
    def role(self) -> str | None:
        """None: it runs as nobody that AWS knows."""
        return None

    async def time_limit(self) -> TimeLimit:
        """The configured timeout, else 60 s.  A server that is down is no reason not to start: events wait."""
        return TimeLimit(DEFAULT_SECONDS if self._seconds is None else self._seconds, self._seconds)

    async def invoke(self, call: Invocation) -> Outcome:
        """POST the event once."""
        sending = Sending()
        with anyio.move_on_after(call.seconds):
            try:
                return await self._post(call, sending)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                # TimeoutError of connecting is an OSError, a name that cannot be encoded a ValueError.
                return self._broken(error, sending)
        if not sending.began:
            return Refused(f"{self._where} could not be connected to within {call.seconds:g} s.")
        return Failed(f"{self._where} did not answer within {call.seconds:g} s.", timed_out=True)

    async def _post(self, call: Invocation, sending: Sending) -> Outcome:
        headers = self._headers | {"X-Amzn-RequestId": call.request_id, "X-Amzn-Trace-Id": call.trace}
        async with self._session.post(
            self._url,
            data=sendable(call.event),
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=sending,
        ) as response:
            # The body of an error is read where somebody understands it, never quoted: it may repeat the event.
            if not 200 <= response.status < 300:
                return await self._error(response)
            body = await _read(response)
            if body is None:
                return Failed(f"{self._where} answered with more than {MAX_REPLY_BYTES} bytes.")
            return self._success(body, response.headers)

    def _success(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        version = headers.get("X-Amz-Executed-Version", "$LATEST")
        for name in _FUNCTION_ERROR_HEADERS:
            if kind := headers.get(name):
                return function_error(body, short(kind), version)
        if self._emulator:
            if is_error_object(body):
                return function_error(body, "Unhandled", version)
            if body.startswith(b"Task timed out after "):
                return Failed(f"{self._where}: {short(body[:100].decode('utf-8', 'replace'))}.", timed_out=True)
        return Succeeded(body, version)

    async def _error(self, response: aiohttp.ClientResponse) -> Outcome:
        answered = f"{self._where} answered {response.status}"
        match response.status:
            case 401:
                return Refused(f"{answered} (Unauthorized): check the headers of the target.")
            case 407:
                return Refused(f"{answered} (Proxy Authentication Required): a proxy in between wants a login.")
            case 413:
                return Failed(f"{answered} (Content Too Large).", too_large=True)
            case 429 | 503:
                return Refused(
                    f"{answered}: it asks to wait.", throttled=True, retry_after=_retry_after(response.headers)
                )
            case 400 if self._emulator and await _read(response) == b"":
                return Refused(f"{answered}: it runs one event at a time and is busy.", throttled=True)
            case status if 300 <= status < 400:
                return Failed(f"{answered}: redirects are not followed, use the final address.")
            case _:
                return Failed(f"{answered}, expected 2xx.")

    def _broken(self, error: Exception, sending: Sending) -> Outcome:
        if sending.began:
            name = type(error).__name__
            return Failed(f"{self._where}: the connection broke before the answer was complete ({name}).")
        return Refused(f"{self._where} cannot be reached: {_reason(error)}.")


def _without_content_type(headers: Mapping[str, str]) -> dict[str, str]:
    return {("Content-Type" if name.lower() == "content-type" else name): value for name, value in headers.items()}


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body; None where it is larger than a reply may be.  Leaving it unread closes the connection."""
    if (response.content_length or 0) > MAX_REPLY_BYTES:
        return None
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_REPLY_BYTES:
            return None
    return bytes(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from either form of Retry-After: a number, or a date (by the server's own clock)."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted ({short(str(error.certificate_error))})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name is not known ({short(str(error.os_error))})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return short(error.os_error.strerror or str(error.os_error))
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return short(str(error)) or type(error).__name__
