"""The contract of ``ports.Target``, held by every adapter against something real behind it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest
from aiohttp import web

from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation, Target
from esm.sandbox import Sandbox
from esm.sandbox.lambda_ import Context
from esm.targets.aws_lambda import LambdaTarget
from esm.targets.http import HttpTarget, http_session
from esm.targets.memory import MemoryTarget
from esm.targets.python import PythonTarget
from tests.support.raw_server import closed_port
from tests.support.sandbox_process import REGION, aws_clients
from tests.support.target_handlers import Broken, Script, playing

pytestmark = pytest.mark.anyio

ACCOUNT = "123456789012"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:tally"
TRACE = "Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1"


@dataclass(frozen=True)
class Bench:
    """A target with a script behind it, and one with nothing behind it."""

    target: Target
    nowhere: Target
    script: Script
    answers_bytes: bool = False
    """What is behind it can answer anything, not JSON alone."""
    bounds_reply: bool = True
    hands_on_id: bool = True
    ready_without_target: bool = False
    """Whether ``time_limit`` cannot tell that there is nothing behind it."""


@asynccontextmanager
async def memory(script: Script) -> AsyncIterator[Bench]:
    async def rule(call: Invocation) -> Outcome:
        try:
            script.note(json.loads(call.event), call.request_id, call.trace)
        except Broken as error:
            return Failed(f"The rule raised {error}.")
        if script.hangs:
            await anyio.sleep_forever()
        return Succeeded(script.body())

    nowhere = MemoryTarget(lambda _call: Refused("There is no such target."), function_arn=ARN)
    nowhere.not_ready = "There is no such target."
    yield Bench(MemoryTarget(rule, function_arn=ARN), nowhere, script, answers_bytes=True, bounds_reply=False)


@asynccontextmanager
async def http(script: Script) -> AsyncIterator[Bench]:
    async def handle(request: web.Request) -> web.Response:
        event = json.loads(await request.read())
        try:
            script.note(event, request.headers["X-Amzn-RequestId"], request.headers["X-Amzn-Trace-Id"])
        except Broken:
            return web.Response(status=500)
        if script.hangs:
            await anyio.sleep_forever()
        return web.Response(body=script.body())

    application = web.Application(client_max_size=10_000_000)
    application.router.add_post("/events", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    async with http_session() as session:
        target = HttpTarget(session, url, function_arn=ARN)
        nowhere = HttpTarget(session, f"http://127.0.0.1:{closed_port()}/events", function_arn=ARN)
        yield Bench(target, nowhere, script, answers_bytes=True, ready_without_target=True)
    await runner.cleanup()


@asynccontextmanager
async def aws_lambda(script: Script) -> AsyncIterator[Bench]:
    async def handle(event: object, context: Context) -> object:
        script.note(event, "", context.trace_id)
        if script.hangs:
            await anyio.sleep_forever()
        return script.reply

    async with Sandbox.open() as sandbox, aws_clients(sandbox.url) as clients:
        sandbox.functions.add_function("tally", handle, timeout=60)
        target = LambdaTarget(clients, "tally", region=REGION, account=ACCOUNT)
        nowhere = LambdaTarget(clients, "missing", region=REGION, account=ACCOUNT)
        yield Bench(target, nowhere, script, hands_on_id=False)


def python(handler: str) -> Callable[[Script], AbstractAsyncContextManager[Bench]]:
    @asynccontextmanager
    async def bench(script: Script) -> AsyncIterator[Bench]:
        def target(name: str) -> PythonTarget:
            return PythonTarget(name, name="tally", function_arn=ARN, concurrency=4)

        async with target(f"tests.support.target_handlers:{handler}") as found, target("no.such:module") as nowhere:
            yield Bench(found, nowhere, script)

    return bench


BENCHES = {
    "memory": memory,
    "http": http,
    "lambda": aws_lambda,
    "python-plain": python("plain"),
    "python-async": python("coroutine"),
}


@pytest.fixture(params=list(BENCHES))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    script = Script()
    with playing(script):
        async with BENCHES[request.param](script) as made:
            yield made
            script.released.set()


def call(event: object = None, *, seconds: float = 30, request_id: str = "request-1") -> Invocation:
    return Invocation(json.dumps(event).encode(), request_id, seconds, TRACE)


async def test_a_reply_is_success_and_the_event_arrives_as_it_was_sent(bench: Bench) -> None:
    event = {"Records": [{"body": 'ünïcode \u2028 "quoted"', "n": 1.5, "none": None}]}
    bench.script.reply = {"batchItemFailures": [{"itemIdentifier": "7"}]}
    outcome = await bench.target.invoke(call(event))
    assert isinstance(outcome, Succeeded)
    assert json.loads(outcome.reply) == bench.script.reply
    assert outcome.executed_version == "$LATEST"
    assert [seen.event for seen in bench.script.seen] == [event]


async def test_trace_and_request_id_reach_the_target(bench: Bench) -> None:
    await bench.target.invoke(call(request_id="request-42"))
    (seen,) = bench.script.seen
    assert seen.trace == TRACE
    assert seen.request_id == ("request-42" if bench.hands_on_id else "")


async def test_a_target_that_says_nothing_has_succeeded(bench: Bench) -> None:
    bench.script.reply, bench.script.raw = None, b""
    outcome = await bench.target.invoke(call())
    assert isinstance(outcome, Succeeded)
    assert outcome.reply == (b"" if bench.answers_bytes else b"null")


async def test_an_answer_that_is_no_json_is_handed_on_as_it_came(bench: Bench) -> None:
    if bench.answers_bytes:
        bench.script.raw = b"\xff{not json"
    else:
        bench.script.reply = "text"
    outcome = await bench.target.invoke(call())
    assert isinstance(outcome, Succeeded)
    assert outcome.reply == (bench.script.raw or b'"text"')


async def test_a_target_that_breaks_has_failed_and_saw_the_event_once(bench: Bench) -> None:
    bench.script.fails = True
    outcome = await bench.target.invoke(call({"secret": "payload"}))
    assert isinstance(outcome, Failed)
    assert not outcome.timed_out
    assert not outcome.too_large
    assert "payload" not in outcome.error
    assert len(bench.script.seen) == 1


async def test_a_target_that_does_not_answer_in_time_has_failed_and_the_next_attempt_succeeds(bench: Bench) -> None:
    assert isinstance(await bench.target.invoke(call()), Succeeded)  # so that connecting takes no time below
    bench.script.hangs = True
    outcome = await bench.target.invoke(call(seconds=0.1))
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert "0.1 s" in outcome.error
    bench.script.hangs = False
    assert isinstance(await bench.target.invoke(call()), Succeeded)


async def test_a_target_that_is_not_there_refuses_whatever_is_sent(bench: Bench) -> None:
    for _ in range(2):
        outcome = await bench.nowhere.invoke(call())
        assert isinstance(outcome, Refused)
        assert outcome.error.endswith((".", ")"))
        assert outcome.retry_after is None


async def test_time_limit_says_that_there_is_no_target_where_that_can_be_told(bench: Bench) -> None:
    if bench.ready_without_target:
        assert (await bench.nowhere.time_limit()).seconds == 60
    else:
        with pytest.raises(NotReady, match=r"no |does not exist"):
            await bench.nowhere.time_limit()


async def test_a_cancelled_attempt_is_given_up_at_once_and_the_target_goes_on(bench: Bench) -> None:
    bench.script.hangs = True
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.target.invoke, call(seconds=900))
            await bench.script.arrived.wait()
            tasks.cancel_scope.cancel()
        bench.script.hangs = False
        assert isinstance(await bench.target.invoke(call()), Succeeded)


async def test_an_event_of_6_mb_arrives_whole(bench: Bench) -> None:
    event = "x" * (6_291_456 - 2)
    outcome = await bench.target.invoke(call(event))
    assert isinstance(outcome, Succeeded)
    assert bench.script.seen[0].event == event


async def test_a_reply_of_6_mb_is_read_whole_and_a_larger_one_has_failed(bench: Bench) -> None:
    bench.script.reply = "x" * 6_291_454
    outcome = await bench.target.invoke(call())
    assert isinstance(outcome, Succeeded)
    assert len(outcome.reply) == 6_291_456
    bench.script.reply = "x" * 6_291_555
    outcome = await bench.target.invoke(call())
    assert isinstance(outcome, Failed if bench.bounds_reply else Succeeded)


async def test_attempts_run_side_by_side(bench: Bench) -> None:
    bench.script.hangs = True
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.target.invoke, call(seconds=900))
            await bench.script.arrived.wait()
            bench.script.hangs = False
            assert isinstance(await bench.target.invoke(call()), Succeeded)
            tasks.cancel_scope.cancel()


async def test_its_arn_is_the_one_that_failure_records_name(bench: Bench) -> None:
    assert bench.target.function_arn == ARN
    await bench.target.time_limit()
    assert bench.target.function_arn == ARN
