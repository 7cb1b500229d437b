"""Contexts that read what the system trusts when they are used first."""

import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from esm.clients.trust import TrustingLater, trusting_later
from tests.support.certificates import server_tls

pytestmark = pytest.mark.anyio


def wrapped(context: ssl.SSLContext) -> ssl.SSLObject:
    """What a connection does with its context."""
    return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="127.0.0.1")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context; its certificate is the only one that this system trusts."""
    tls = server_tls(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return tls


@pytest.mark.usefixtures("system")
def test_certificates_are_read_at_the_first_use_and_not_before() -> None:
    with trusting_later():
        context = ssl.create_default_context()
    assert context.cert_store_stats()["x509"] == 0
    wrapped(context)
    wrapped(context)
    assert context.cert_store_stats()["x509"] == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.usefixtures("system")
def test_a_context_that_asks_for_no_certificate_reads_none_until_it_does() -> None:
    with trusting_later():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_default_verify_paths()
    wrapped(context)
    assert context.cert_store_stats()["x509"] == 0
    context.verify_mode = ssl.CERT_REQUIRED
    wrapped(context)
    assert context.cert_store_stats()["x509"] == 1


@pytest.mark.usefixtures("system")
def test_contexts_that_are_made_afterwards_are_the_usual_ones() -> None:
    with trusting_later():
        pass
    context = ssl.create_default_context()
    assert type(context) is ssl.SSLContext
    assert context.cert_store_stats()["x509"] == 1


@pytest.mark.usefixtures("system")
def test_contexts_of_other_classes_are_left_alone() -> None:
    class Own(ssl.SSLContext):
        pass

    with trusting_later():
        context = Own(ssl.PROTOCOL_TLS_CLIENT)
        context.set_default_verify_paths()
    assert type(context) is Own
    assert context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_connection_is_checked_against_what_the_system_trusts(
    system: ssl.SSLContext, trusted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with trusting_later():
        context = ssl.create_default_context()
    assert isinstance(context, TrustingLater)
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=system).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            if trusted:
                async with session.get(url, ssl=context) as answer:
                    assert answer.status == 404
            else:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(url, ssl=context)
    finally:
        await runner.cleanup()
