"""Connections to HTTP targets: reused, but never one that its server has already given up.

Sending on a kept connection that the server closed meanwhile looks exactly like a target that dies of a record, and
would spend a retry.  So a kept connection is used again only within ``REUSE_SECONDS`` (below the 2 s of gunicorn, the
5 s of Node and uvicorn), and before that the loop gets the chance to see a close that has already arrived.  What is
left is a close that crosses the event on the wire: that is in doubt, and *failed*.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
from aiohttp.connector import Connection

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

CONNECT_SECONDS = 10.0
"""Name resolution, connection and TLS together."""
REUSE_SECONDS = 1.0
CLOSE_SECONDS = 5.0
_KEEPALIVE_SECONDS = 60  # NAT gateways forget a silent connection after 350 s, a target may take 900
_TURNS = 3  # of the loop, until a close that is in the socket's buffer has reached the transport


class Sending:
    """What is known about one request on its way."""

    began = False
    """The first bytes were handed to an open connection: from here on the target may have seen the event."""


@asynccontextmanager
async def http_session(user_agent: str = "esm") -> AsyncGenerator[aiohttp.ClientSession, None]:
    """One session for all HTTP targets of a worker.

    No limit on connections (callers limit what is under way), no cookies, no proxies, no timeouts but that of
    connecting.  Requests carry a ``Sending`` as ``trace_request_ctx``.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(_on_chunk)
    session = aiohttp.ClientSession(
        connector=_FreshConnector(
            limit=0, keepalive_timeout=REUSE_SECONDS, timeout_ceil_threshold=1e9, socket_factory=_socket
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        trace_configs=[trace],
    )
    try:
        yield session
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await session.close()


class _FreshConnector(aiohttp.TCPConnector):
    """Hands out no connection that was closed by its server."""

    async def connect(  # aiohttp's signature
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp calls it so
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        # All kept connections get their chance in the same turns, so one more round finds an open one or makes one.
        for _ in range(2):
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if connection.transport is not None and not connection.transport.is_closing():
                break
            connection.close()
            connection = await super().connect(req, traces, timeout)
        return connection


async def _on_chunk(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _chunk: aiohttp.TraceRequestChunkSentParams
) -> None:
    """Just before bytes of the event, the headers in front of them, are written."""
    sending = context.trace_request_ctx
    if isinstance(sending, Sending):
        sending.began = True


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for ``address`` (family, type, protocol, …) that notices a peer that vanished."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # named differently outside Linux
        if number := getattr(socket, option, None):
            made.setsockopt(socket.IPPROTO_TCP, number, _KEEPALIVE_SECONDS)
    return made
