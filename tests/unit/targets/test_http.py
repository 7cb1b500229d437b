"""A web server as a target: what is failed, what is refused, and how often the event is sent: once."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest

from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation
from esm.targets.http import HttpTarget, http_session
from tests.support.certificates import server_tls
from tests.support.raw_server import (
    RawServer,
    Request,
    answering,
    closed_port,
    drop,
    hang,
    raw_server,
    reset,
    response,
)

pytestmark = pytest.mark.anyio

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:tally"
EMULATOR = "/2015-03-31/functions/function/invocations"
EVENT = b'{"Records":[{"body":"secret payload"}]}'


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(answering(200, b"null")) as made:
        yield made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with http_session() as made:
        yield made


def target(session: aiohttp.ClientSession, url: str, **headers: str) -> HttpTarget:
    return HttpTarget(session, url, function_arn=ARN, headers=headers)


def call(event: bytes = EVENT, seconds: float = 30) -> Invocation:
    return Invocation(event, "request-1", seconds, "Root=1-2-3")


async def invoke(session: aiohttp.ClientSession, server: RawServer, path: str = "/", seconds: float = 30) -> Outcome:
    return await target(session, server.url + path).invoke(call(seconds=seconds))


# -- what is sent


async def test_an_event_is_posted_with_its_ids_and_the_configured_headers(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    made = target(session, f"{server.url}/events?x=1", Authorization="Bearer 123", **{"content-type": "text/json"})
    assert isinstance(await made.invoke(call()), Succeeded)
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/events?x=1", EVENT)
    sent = {
        name: request.headers[name] for name in ("x-amzn-requestid", "x-amzn-trace-id", "authorization", "content-type")
    }
    assert list(sent.values()) == ["request-1", "Root=1-2-3", "Bearer 123", "text/json"]
    assert request.headers["content-length"] == str(len(EVENT))


async def test_connections_are_reused(session: aiohttp.ClientSession, server: RawServer) -> None:
    for _ in range(5):
        assert isinstance(await invoke(session, server), Succeeded)
    assert (len(server.requests), server.connections) == (5, 1)


async def test_150_attempts_are_under_way_at_once(session: aiohttp.ClientSession, server: RawServer) -> None:
    everyone = anyio.Event()

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> bool:
        if len(server.requests) == 150:
            everyone.set()
        await everyone.wait()
        writer.write(response(200))
        return True

    server.answer = answer
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(150):
                tasks.start_soon(invoke, session, server)
    assert len(server.requests) == 150


# -- success


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_2xx_is_success(session: aiohttp.ClientSession, server: RawServer, status: int) -> None:
    server.answer = answering(status, b"" if status == 204 else b'{"batchItemFailures":[]}')
    outcome = await invoke(session, server)
    assert outcome == Succeeded(b"" if status == 204 else b'{"batchItemFailures":[]}')


async def test_the_version_that_ran_is_the_one_that_the_server_tells(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    server.answer = answering(200, b"null", {"X-Amz-Executed-Version": "7"})
    assert await invoke(session, server) == Succeeded(b"null", "7")


async def test_an_object_with_an_error_type_is_a_reply_unless_the_url_is_an_emulators(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    body = b'{"errorType":"ValueError","errorMessage":"poison"}'
    server.answer = answering(200, body)
    assert await invoke(session, server) == Succeeded(body)
    outcome = await invoke(session, server, EMULATOR)
    assert outcome == Failed("The function failed (Unhandled): ValueError: poison")


# -- refused: the target did not see the event


async def test_a_refused_connection_is_refused(session: aiohttp.ClientSession) -> None:
    url = f"http://user:pass@127.0.0.1:{closed_port()}/path?token=hidden"
    outcome = await target(session, url).invoke(call())
    assert isinstance(outcome, Refused)
    assert not outcome.throttled
    assert outcome.error.startswith("http://127.0.0.1:")
    assert "cannot be reached: Connect" in outcome.error
    for secret in ("pass", "hidden", "payload"):
        assert secret not in outcome.error


async def test_an_unknown_name_is_refused(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # asking a real name server would leave this machine
    outcome = await target(session, "http://nowhere.invalid/").invoke(call())
    assert isinstance(outcome, Refused)
    assert "http://nowhere.invalid cannot be reached: the name is not known" in outcome.error


async def test_a_certificate_that_nobody_vouches_for_is_refused(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with raw_server(answering(200), tls=server_tls(tmp_path)) as server:
        outcome = await invoke(session, server)
        assert isinstance(outcome, Refused)
        assert "certificate is not accepted" in outcome.error
        assert server.requests == []


async def test_tls_towards_a_server_without_it_is_refused(session: aiohttp.ClientSession, server: RawServer) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-plain\r\n")
        await writer.drain()
        writer.close()

    plain = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with plain:
        port = plain.sockets[0].getsockname()[1]
        outcome = await target(session, f"https://127.0.0.1:{port}/").invoke(call())
    assert isinstance(outcome, Refused)


async def test_a_server_that_does_not_end_its_greeting_in_time_is_refused(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    url = server.url.replace("http:", "https:")  # it waits for the end of a request, never for TLS
    outcome = await target(session, url).invoke(call(seconds=0.05))
    assert outcome == Refused(f"{url} could not be connected to within 0.05 s.")


@pytest.mark.parametrize("url", ["http://a..b/", f"http://{'a' * 70}.example/", "nonsense", "http://"])
async def test_an_address_that_makes_no_sense_is_refused_and_never_raises(
    session: aiohttp.ClientSession, url: str
) -> None:
    assert isinstance(await target(session, url).invoke(call()), Refused)


@pytest.mark.parametrize(
    "status,throttled,sentence",
    [
        (401, False, "check the headers"),
        (407, False, "a proxy in between wants a login"),
        (429, True, "asks to wait"),
        (503, True, "asks to wait"),
    ],
)
async def test_401_407_429_and_503_are_refused(
    session: aiohttp.ClientSession, server: RawServer, status: int, *, throttled: bool, sentence: str
) -> None:
    server.answer = answering(status, b"secret payload")
    outcome = await invoke(session, server)
    assert isinstance(outcome, Refused)
    assert (outcome.throttled, outcome.retry_after) == (throttled, None)
    assert str(status) in outcome.error
    assert sentence in outcome.error
    assert "payload" not in outcome.error
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "headers,seconds",
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 2.5 "}, 2.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "Sun, 01 Jan 2017 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": ""}, None),
    ],
)
async def test_retry_after_is_read_in_both_forms(
    session: aiohttp.ClientSession, server: RawServer, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    server.answer = answering(status, b"", headers)
    outcome = await invoke(session, server)
    assert isinstance(outcome, Refused)
    assert outcome.retry_after == seconds


# -- failed: the target saw the event, or may have


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 403, 404, 405, 408, 409, 422, 500, 501, 502, 504, 599])
async def test_every_other_status_is_failed_and_sent_once(
    session: aiohttp.ClientSession, server: RawServer, status: int
) -> None:
    server.answer = answering(status, b"secret payload", {"Location": f"{server.url}/elsewhere"})
    outcome = await invoke(session, server)
    assert isinstance(outcome, Failed)
    assert not outcome.too_large
    assert f"answered {status}" in outcome.error
    assert "payload" not in outcome.error
    assert [request.path for request in server.requests] == ["/"]


async def test_413_says_that_the_event_is_too_large(session: aiohttp.ClientSession, server: RawServer) -> None:
    server.answer = answering(413)
    outcome = await invoke(session, server)
    assert isinstance(outcome, Failed)
    assert outcome.too_large


async def test_a_server_that_does_not_answer_in_time_has_failed(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    assert isinstance(await invoke(session, server), Succeeded)
    server.answer = hang
    outcome = await invoke(session, server, seconds=0.05)
    assert outcome == Failed(f"{server.url} did not answer within 0.05 s.", timed_out=True)


async def test_a_server_that_stops_in_the_middle_of_its_answer_has_failed_in_time(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    async def halfway(request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        return await hang(request, writer)

    server.answer = halfway
    outcome = await invoke(session, server, seconds=0.1)
    assert isinstance(outcome, Failed)
    assert outcome.timed_out


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"",
    ],
)
async def test_an_answer_that_is_no_http_or_ends_too_early_has_failed_and_is_not_asked_for_again(
    session: aiohttp.ClientSession, server: RawServer, answer: bytes
) -> None:
    async def write(_request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        return False

    server.answer = write
    outcome = await invoke(session, server)
    assert isinstance(outcome, Failed)
    assert "connection broke before the answer was complete" in outcome.error
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", [drop, reset])
@pytest.mark.parametrize("kept", [False, True], ids=["new-connection", "kept-connection"])
async def test_a_server_that_drops_the_connection_for_one_record_has_failed_and_saw_it_once(
    session: aiohttp.ClientSession, server: RawServer, *, kept: bool, end: object
) -> None:
    if kept:
        assert isinstance(await invoke(session, server), Succeeded)
    good = server.answer

    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        dying = drop if end is drop else reset
        return await (dying if b"poison" in request.body else good)(request, writer)

    server.answer = answer
    for _ in range(3):  # it is poison for ever, and what comes in between is not harmed
        outcome = await target(session, server.url).invoke(call(b'"poison"'))
        assert isinstance(outcome, Failed)
        assert not outcome.timed_out
        assert isinstance(await invoke(session, server), Succeeded)
    assert [request.body for request in server.requests].count(b'"poison"') == 3
    assert len(server.requests) == 6 + kept


async def test_a_large_event_whose_connection_breaks_while_it_is_sent_has_failed(
    session: aiohttp.ClientSession,
) -> None:
    async def read_a_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.transport.abort()

    server = await asyncio.start_server(read_a_little, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert isinstance(await target(session, url).invoke(call(b'"' + b"x" * 6_000_000 + b'"')), Failed)


# -- kept connections


async def test_a_kept_connection_that_its_server_closed_meanwhile_is_not_used(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    for attempt in range(1, 6):
        assert isinstance(await invoke(session, server), Succeeded)
        server.close_connections()  # its end arrives while the next attempt looks for a connection
        assert server.connections == attempt
    assert len(server.requests) == 5


async def test_a_server_that_closes_after_each_answer_gets_each_event_once(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    async def answer_and_close(_request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(response(200))
        return False

    server.answer = answer_and_close
    for _ in range(20):
        assert isinstance(await invoke(session, server), Succeeded)
    assert len(server.requests) == 20


async def test_a_reply_that_was_too_large_leaves_no_connection_behind(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    server.answer = answering(200, b"x" * 6_291_557)
    outcome = await invoke(session, server)
    assert outcome == Failed(f"{server.url} answered with more than 6291556 bytes.")
    server.answer = answering(200, b"null")
    assert await invoke(session, server) == Succeeded(b"null")
    assert server.connections == 2


async def test_a_reply_without_a_length_is_bounded_too(session: aiohttp.ClientSession, server: RawServer) -> None:
    async def endless(_request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    server.answer = endless
    assert isinstance(await invoke(session, server), Failed)


# -- the Runtime Interface Emulator of a Lambda container


@pytest.mark.parametrize(
    "status,body,outcome",
    [
        (200, b'{"ok":true}', Succeeded(b'{"ok":true}')),
        (
            200,
            b'{"errorMessage":"poison","errorType":"ValueError","stackTrace":[]}',
            Failed("The function failed (Unhandled): ValueError: poison"),
        ),
        (200, b'{"errorType":""}', Succeeded(b'{"errorType":""}')),
        (200, b'"mentions \\"errorType\\" only"', Succeeded(b'"mentions \\"errorType\\" only"')),
    ],
)
async def test_the_emulators_replies_are_understood(
    session: aiohttp.ClientSession, server: RawServer, status: int, body: bytes, outcome: Outcome
) -> None:
    server.answer = answering(status, body)
    assert await invoke(session, server, EMULATOR) == outcome


async def test_the_emulators_timeout_has_failed_as_one(session: aiohttp.ClientSession, server: RawServer) -> None:
    server.answer = answering(200, b"Task timed out after 3.00 seconds")
    outcome = await invoke(session, server, EMULATOR)
    assert isinstance(outcome, Failed)
    assert outcome.timed_out


async def test_an_emulator_that_is_busy_refuses_and_its_other_400_is_failed(
    session: aiohttp.ClientSession, server: RawServer
) -> None:
    server.answer = answering(400)
    outcome = await invoke(session, server, EMULATOR)
    assert isinstance(outcome, Refused)
    assert outcome.throttled
    server.answer = answering(400, b"no JSON")
    assert isinstance(await invoke(session, server, EMULATOR), Failed)


@pytest.mark.parametrize("header", ["X-Amz-Function-Error", "Lambda-Runtime-Function-Error-Type"])
async def test_a_function_error_in_a_header_is_failed_whatever_the_path(
    session: aiohttp.ClientSession, server: RawServer, header: str
) -> None:
    body = b'{"errorType":"Sandbox.Timedout","errorMessage":"Task timed out after 3.00 seconds"}'
    server.answer = answering(200, body, {header: "Unhandled", "X-Amz-Executed-Version": "3"})
    outcome = await invoke(session, server)
    assert isinstance(outcome, Failed)
    assert (outcome.timed_out, outcome.executed_version) == (True, "3")


# -- time


@pytest.mark.parametrize("seconds,limit,required", [(None, 60, None), (5, 5, 5)])
async def test_its_time_limit_is_the_configured_one_or_60(
    session: aiohttp.ClientSession, seconds: float | None, limit: float, required: float | None
) -> None:
    made = HttpTarget(session, "http://127.0.0.1:9/", function_arn=ARN, seconds=seconds)
    found = await made.time_limit()
    assert (found.seconds, found.required) == (limit, required)


async def test_a_server_that_its_machine_trusts_is_reached_by_tls(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = server_tls(tmp_path)
    async with raw_server(answering(200, b"null"), tls=tls) as server:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        assert session.connector is not None
        monkeypatch.setattr(session.connector, "_ssl", trusted)
        for _ in range(2):
            assert await invoke(session, server) == Succeeded(b"null")
        assert server.connections == 1
