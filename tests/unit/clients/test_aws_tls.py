"""TLS of AWS clients: what is trusted is read once, and only where there is TLS."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiobotocore.session import AioSession
from aiohttp import web
from botocore.exceptions import SSLError

from esm.clients.aws import AwsClients, AwsSettings
from esm.clients.aws_tls import PlainHttp
from tests.support.certificates import server_tls
from tests.support.sandbox_process import REGION

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def nothing_served(tls: ssl.SSLContext | None) -> AsyncGenerator[str, None]:
    """The URL of a server that answers every call with an empty object."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def clients_of(url: str) -> AwsClients:
    """With a session of their own: what is trusted is looked up once for each."""
    session = AioSession()
    session.set_credentials("AKIDEXAMPLE", "any")
    return AwsClients(AwsSettings(endpoint_url=url), session)


async def test_certificates_are_read_once_for_all_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = server_tls(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "server.pem"))
    async with nothing_served(tls) as url, clients_of(url) as clients:
        await (await clients.client("sqs", REGION)).list_queues()
        (tmp_path / "server.pem").unlink()
        await (await clients.client("kinesis", REGION)).list_streams()
        await (await clients.client("sqs", REGION, use="long-poll")).list_queues()


async def test_a_bundle_of_one_session_is_not_trusted_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = server_tls(tmp_path)
    async with nothing_served(tls) as url:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "server.pem"))
        async with clients_of(url) as clients:
            await (await clients.client("sqs", REGION)).list_queues()
        monkeypatch.delenv("AWS_CA_BUNDLE")
        async with clients_of(url) as clients:
            sqs = await clients.client("sqs", REGION)
            with pytest.raises(SSLError):
                await sqs.list_queues()


async def test_plain_http_reads_no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    async with nothing_served(None) as url, clients_of(url) as clients:
        await (await clients.client("sqs", REGION)).list_queues()


def test_what_plain_http_would_use_for_tls_trusts_nobody() -> None:
    context, proxy = PlainHttp()._build_ssl_contexts(None)
    assert (context.verify_mode, context.check_hostname, context.get_ca_certs()) == (ssl.CERT_REQUIRED, True, [])
    assert proxy is None
