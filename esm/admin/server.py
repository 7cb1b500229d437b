"""The admin server: `/healthz`, `/readyz`, `/metrics`, `/api/v1/mappings` and a plain page at `/`."""

import html
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from socket import gaierror

import anyio
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from esm.admin.status import Health, Statuses
from esm.domain.errors import EsmError
from esm.engine.status import MappingStatus

SHUTDOWN_SECONDS = 0.5
"""How long a request under way may take at the end."""
CLOSE_SECONDS = 5.0


class AdminNotServed(EsmError):
    """The admin server cannot listen on its address: another program has the port, or the host is not this machine."""


@asynccontextmanager
async def serve(host: str, port: int, registry: CollectorRegistry, health: Statuses) -> AsyncGenerator[int, None]:
    """Serve while the context is open; gives the port, which the system chooses for ``port`` 0.

    Raises AdminNotServed.
    """
    runner = web.AppRunner(
        _Pages(registry, health).app(), handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS, access_log=None
    )
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise AdminNotServed(_not_served(host, port, error)) from error
        yield runner.addresses[0][1]
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await runner.cleanup()


def _not_served(host: str, port: int, error: OSError) -> str:
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # Of a bind that failed asyncio makes a text of its own; a name that cannot be resolved has no errno of the system.
    why = error.strerror if isinstance(error, gaierror) else os.strerror(error.errno or 0)
    return f"The admin server cannot listen on {at} ({why}): free the address, or set admin.host and admin.port."


class _Pages:
    """The answers, each made anew for each request."""

    def __init__(self, registry: CollectorRegistry, health: Statuses) -> None:
        self._registry, self._health = registry, health

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/healthz", self.healthz),
                web.get("/readyz", self.readyz),
                web.get("/metrics", self.metrics),
                web.get("/api/v1/mappings", self.mappings),
            ]
        )
        return app

    async def healthz(self, request: web.Request) -> web.Response:
        """The loop lives, or nobody could answer."""
        return _json({"healthy": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """200 when every mapping can work, else 503; who cannot, and why."""
        health = self._health()
        each = [{"name": one.name, "ready": one.ready, "why": one.why} for one in health.mappings]
        return _json(
            {"ready": health.ready, "draining": health.draining, "mappings": each}, 200 if health.ready else 503
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """All metrics in the format that the client accepts, plain text else."""
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": kind})

    async def mappings(self, request: web.Request) -> web.Response:
        """The status of each mapping."""
        return _json({"mappings": self._health().mappings})

    async def page(self, request: web.Request) -> web.Response:
        """For people: what is running, and where to read on."""
        return web.Response(text=_page(self._health()), content_type="text/html")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>esm</title></head><body>
<h1>esm: {state}</h1>
<table><thead><tr><th>mapping</th><th>source</th><th>state</th><th>lanes</th><th></th></tr></thead>
<tbody>
{rows}
</tbody></table>
<p><a href="/metrics">metrics</a> · <a href="/readyz">ready?</a> · <a href="/healthz">alive?</a> ·
<a href="/api/v1/mappings">mappings as JSON</a></p>
</body></html>
"""


def _page(health: Health) -> str:
    state = "draining" if health.draining else "ready" if health.ready else "not ready"
    return _PAGE.format(state=state, rows="\n".join(_row(mapping) for mapping in health.mappings))


def _row(mapping: MappingStatus) -> str:
    cells = (mapping.name, mapping.source, mapping.state, str(mapping.lanes), mapping.why or "")
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
