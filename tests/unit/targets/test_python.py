"""A Python callable as a target: whatever a handler does, the worker's loop runs on."""

import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation
from esm.targets.python import PythonTarget

pytestmark = pytest.mark.anyio

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:tally"
MODULE = "handlers_under_test"
PRELUDE = """
import asyncio, datetime, decimal, functools, os, sys, threading

gate = threading.Event()
entered = threading.Event()
log = []
"""

Open = Callable[..., AbstractAsyncContextManager[PythonTarget]]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes the module that holds the handlers."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(text: str, name: str = MODULE) -> None:
        (tmp_path / f"{name}.py").write_text(PRELUDE + text)

    yield write
    if (loaded := sys.modules.get(MODULE)) is not None:
        loaded.gate.set()  # lets every handler that blocks return
    for name in set(sys.modules) - before:
        if name.startswith(MODULE):
            del sys.modules[name]


@asynccontextmanager
async def opened(
    handler: str = "handle", *, concurrency: int = 4, seconds: float | None = None
) -> AsyncIterator[PythonTarget]:
    name = handler if ":" in handler else f"{MODULE}:{handler}"
    async with PythonTarget(name, name="tally", function_arn=ARN, concurrency=concurrency, seconds=seconds) as target:
        yield target


def call(event: object = None, *, seconds: float = 30, request_id: str = "request-1") -> Invocation:
    return Invocation(json.dumps(event).encode(), request_id, seconds, "Root=1-2-3")


async def outcome_of(handler: str = "handle", event: object = None) -> Outcome:
    async with opened(handler) as target:
        return await target.invoke(call(event))


def gate() -> threading.Event:
    found = sys.modules[MODULE].gate
    assert isinstance(found, threading.Event)
    return found


async def entered(target: PythonTarget) -> None:
    """Return once the handler says that it runs."""
    with anyio.fail_after(20):
        await target.time_limit()  # its module is imported
        await anyio.to_thread.run_sync(sys.modules[MODULE].entered.wait, 20)


async def turns(count: int) -> None:
    """Let the worker's loop turn ``count`` times."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


# -- what handlers return and raise


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize(
    "value,reply",
    [
        ("None", b"null"),
        ("{'batchItemFailures': []}", b'{"batchItemFailures":[]}'),
        ("{1: 'one'}", b'{"1":"one"}'),
        ("(1, 'zwei', True)", b'[1,"zwei",true]'),
        ("{'n': 2**70}", b'{"n": 1180591620717411303424}'),
        ("{'n': decimal.Decimal('1.5')}", b'{"n": 1.5}'),
        ("'\\ud800'", b'"\\ud800"'),
        ("event", b'{"a":"\xc3\xbc"}'),
    ],
)
async def test_what_a_handler_returns_is_the_reply(
    source: Callable[[str], None], prefix: str, value: str, reply: bytes
) -> None:
    source(f"{prefix}def handle(event, context): return {value}")
    assert await outcome_of(event={"a": "ü"}) == Succeeded(reply)


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize("value", ["object()", "{'a': {1, 2}}", "lambda: 1", "b'bytes'", "loop()"])
async def test_a_reply_that_is_no_json_is_failed(source: Callable[[str], None], prefix: str, value: str) -> None:
    source(
        "def loop():\n    made = []\n    made.append(made)\n    return made\n"
        f"{prefix}def handle(event, context): return {value}"
    )
    outcome = await outcome_of()
    assert isinstance(outcome, Failed)
    assert "which is no JSON" in outcome.error


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize(
    "statement,named",
    [
        ("raise ValueError('bad record')", "ValueError: bad record"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("sys.exit('bye')", "SystemExit: bye"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise BaseException('worst')", "BaseException: worst"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("raise StopIteration", "StopIteration"),
        ("raise Mute", "Mute"),
        ("raise TimeoutError", "TimeoutError"),
        ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
    ],
)
async def test_whatever_a_handler_raises_is_failed_and_the_next_attempt_succeeds(
    source: Callable[[str], None], prefix: str, statement: str, named: str
) -> None:
    source(
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError('no text')\n"
        f"{prefix}def handle(event, context):\n    if event: {statement}"
    )
    async with opened() as target:
        outcome = await target.invoke(call("secret payload"))
        assert isinstance(outcome, Failed)
        assert named in outcome.error
        assert not outcome.timed_out
        assert outcome.still_running is None
        assert "payload" not in outcome.error
        assert await target.invoke(call()) == Succeeded(b"null")


async def test_the_place_of_an_error_is_told(source: Callable[[str], None]) -> None:
    source("def handle(event, context):\n    raise ValueError('bad')")
    outcome = await outcome_of()
    assert isinstance(outcome, Failed)
    line = PRELUDE.count("\n") + 2
    assert outcome.error == f"The handler raised ValueError: bad ({MODULE}.py:{line})"


async def test_a_task_that_ends_the_process_ends_no_other_handler(source: Callable[[str], None]) -> None:
    source(
        "async def quit(): sys.exit(1)\n"
        "async def handle(event, context):\n"
        "    task = asyncio.ensure_future(quit())\n"
        "    await asyncio.wait([task])\n"
        "    log.append(task.exception())\n"
        "    return 'alive'"
    )
    assert await outcome_of() == Succeeded(b'"alive"')


@pytest.mark.parametrize(
    "definition",
    [
        "class Handler:\n    def __call__(self, event, context): return 'done'\nhandle = Handler()",
        "class Handler:\n    async def __call__(self, event, context): return 'done'\nhandle = Handler()",
        "class Handlers:\n    def handle(self, event, context): return 'done'\nhandle = Handlers().handle",
        "def made(event, context, more): return 'done'\nhandle = functools.partial(made, more=1)",
        "async def made(event, context, more): return 'done'\nhandle = functools.partial(made, more=1)",
        "async def made(event, context): return 'done'\ndef handle(event, context): return made(event, context)",
        "async def made(event, context): return 'done'\nhandle = lambda event, context: made(event, context)",
        "def handle(*arguments): return 'done'",
    ],
)
async def test_every_kind_of_callable_is_called(source: Callable[[str], None], definition: str) -> None:
    source(definition)
    assert await outcome_of() == Succeeded(b'"done"')


async def test_a_lone_surrogate_in_an_event_reaches_the_handler(source: Callable[[str], None]) -> None:
    source("def handle(event, context): return len(event['a'])")
    async with opened() as target:
        assert await target.invoke(Invocation(b'{"a":"\\ud800"}', "r", 30, "")) == Succeeded(b"1")


# -- the context


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_the_context_has_the_members_of_lambdas_own(source: Callable[[str], None], prefix: str) -> None:
    source(f"""
from esm.targets.lambda_context import TRACE_ID

{prefix}def handle(event, context):
    context.log("")
    return {{
        "id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "name": context.function_name,
        "version": context.function_version,
        "memory": int(context.memory_limit_in_mb),
        "group": context.log_group_name,
        "stream": context.log_stream_name.startswith("[$LATEST]"),
        "remaining": 0 < context.get_remaining_time_in_millis() <= 30_000,
        "identity": context.identity.cognito_identity_id,
        "client": context.client_context,
        "trace": [context.trace_id, TRACE_ID.get()],
        "shown": repr(context),
    }}
""")
    outcome = await outcome_of()
    assert isinstance(outcome, Succeeded)
    assert json.loads(outcome.reply) == {
        "id": "request-1",
        "arn": ARN,
        "name": "tally",
        "version": "$LATEST",
        "memory": 128,
        "group": "/aws/lambda/tally",
        "stream": True,
        "remaining": True,
        "identity": None,
        "client": None,
        "trace": ["Root=1-2-3", "Root=1-2-3"],
        "shown": "LambdaContext('tally', aws_request_id='request-1')",
    }


async def test_no_time_remains_after_the_timeout(source: Callable[[str], None]) -> None:
    source("def handle(event, context):\n    gate.wait(50)\n    log.append(context.get_remaining_time_in_millis())")
    async with opened() as target:
        outcome = await target.invoke(call(seconds=0.05))
        assert isinstance(outcome, Failed)
        assert outcome.still_running is not None
        gate().set()
        await outcome.still_running.wait()
        assert sys.modules[MODULE].log == [0]


# -- handlers that block


async def test_a_plain_handler_that_blocks_does_not_stop_the_workers_loop(source: Callable[[str], None]) -> None:
    source("def handle(event, context):\n    if event: entered.set(); gate.wait(50)\n    return event")
    async with opened() as target, anyio.create_task_group() as tasks:
        results: list[Outcome] = []

        async def invoke() -> None:
            results.append(await target.invoke(call("slow")))

        tasks.start_soon(invoke)
        await entered(target)
        await turns(1000)
        assert await target.invoke(call()) == Succeeded(b"null")  # another thread, meanwhile
        assert results == []
        gate().set()
    assert results == [Succeeded(b'"slow"')]


async def test_an_async_handler_that_blocks_its_loop_does_not_stop_the_workers(source: Callable[[str], None]) -> None:
    source(
        "async def handle(event, context):\n    entered.set(); gate.wait(50)\n    return 'slow'\n"
        "def plain(event, context): return 'quick'"
    )
    async with opened() as target, opened("plain") as other, anyio.create_task_group() as tasks:
        results: list[Outcome] = []

        async def invoke() -> None:
            results.append(await target.invoke(call()))

        tasks.start_soon(invoke)
        await entered(target)
        await turns(1000)
        assert await other.invoke(call()) == Succeeded(b'"quick"')
        assert results == []
        gate().set()
    assert results == [Succeeded(b'"slow"')]


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_handler_that_blocks_past_its_timeout_is_still_running_until_it_returns(
    source: Callable[[str], None], prefix: str
) -> None:
    source(f"{prefix}def handle(event, context):\n    entered.set(); gate.wait(50); log.append('returned')")
    async with opened() as target:
        outcome = await target.invoke(call(seconds=0.05))
        assert isinstance(outcome, Failed)
        assert outcome.timed_out
        assert outcome.error == f"Handler {MODULE}:handle did not return within 0.05 s."
        assert outcome.still_running is not None
        with anyio.move_on_after(0) as waited:
            await outcome.still_running.wait()
        assert waited.cancelled_caught
        gate().set()
        with anyio.fail_after(20):
            await outcome.still_running.wait()
        assert sys.modules[MODULE].log == ["returned"]


async def test_an_async_handler_is_cancelled_at_its_timeout(source: Callable[[str], None]) -> None:
    source(
        "async def handle(event, context):\n    try: await asyncio.Event().wait()\n    finally: log.append('cancelled')"
    )
    async with opened() as target:
        outcome = await target.invoke(call(seconds=0.05))
        assert isinstance(outcome, Failed)
        assert outcome.still_running is not None
        with anyio.fail_after(20):
            await outcome.still_running.wait()
        assert sys.modules[MODULE].log == ["cancelled"]


async def test_an_async_handler_that_swallows_its_cancellation_is_still_running(source: Callable[[str], None]) -> None:
    source(
        "async def handle(event, context):\n"
        "    try: await asyncio.Event().wait()\n"
        "    except asyncio.CancelledError: log.append('ignored')\n"
        "    while not gate.is_set(): await asyncio.sleep(0.01)\n"
        "    log.append('returned')"
    )
    async with opened() as target:
        outcome = await target.invoke(call(seconds=0.05))
        assert isinstance(outcome, Failed)
        assert outcome.still_running is not None
        gate().set()
        with anyio.fail_after(20):
            await outcome.still_running.wait()
        assert sys.modules[MODULE].log == ["ignored", "returned"]


async def test_an_attempt_that_times_out_before_its_handler_began_ends(source: Callable[[str], None]) -> None:
    source("async def handle(event, context):\n    log.append(event)\n    if event: entered.set(); gate.wait(50)")
    async with opened() as target, anyio.create_task_group() as tasks:
        tasks.start_soon(target.invoke, call("blocks the loop of all handlers"))
        await entered(target)
        outcome = await target.invoke(call(seconds=0.05))
        assert isinstance(outcome, Failed)
        assert outcome.timed_out
        assert outcome.still_running is not None
        gate().set()
        with anyio.fail_after(20):
            await outcome.still_running.wait()  # else its slot and its key would be taken for ever
        assert await target.invoke(call()) == Succeeded(b"null")


async def test_with_all_threads_held_by_late_handlers_it_refuses_until_one_returns(
    source: Callable[[str], None],
) -> None:
    source("def handle(event, context):\n    if event: gate.wait(50)")
    async with opened(concurrency=2) as target:
        late = [await target.invoke(call("late", seconds=0.05)) for _ in range(2)]
        outcome = await target.invoke(call())
        assert isinstance(outcome, Refused)
        assert outcome.throttled
        assert f"All 2 threads of handler {MODULE}:handle are taken" in outcome.error
        gate().set()
        with anyio.fail_after(20):
            for one in late:
                assert isinstance(one, Failed)
                assert one.still_running is not None
                await one.still_running.wait()
        assert await target.invoke(call()) == Succeeded(b"null")


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_closing_does_not_wait_for_a_handler_that_never_returns(
    source: Callable[[str], None], prefix: str
) -> None:
    source(f"{prefix}def handle(event, context):\n    entered.set(); gate.wait(50)")
    with anyio.fail_after(20):
        async with opened() as target:
            outcome = await target.invoke(call(seconds=0.05))
    assert isinstance(outcome, Failed)
    assert not gate().is_set()


async def test_closing_cancels_async_handlers_and_ends_their_thread(source: Callable[[str], None]) -> None:
    source(
        "async def handle(event, context):\n"
        "    entered.set()\n"
        "    try: await asyncio.Event().wait()\n"
        "    finally: log.append('cancelled')"
    )
    async with anyio.create_task_group() as tasks:
        async with opened() as target:
            tasks.start_soon(target.invoke, call(seconds=900))
            await entered(target)
            (thread,) = [one for one in threading.enumerate() if one.name == "handlers-tally"]
        assert sys.modules[MODULE].log == ["cancelled"]
        thread.join(20)
        assert not thread.is_alive()
        tasks.cancel_scope.cancel()


async def test_threads_are_reused_and_end_with_the_target(source: Callable[[str], None]) -> None:
    source("def handle(event, context): return threading.current_thread().name")
    async with opened() as target:
        names = {str(await target.invoke(call())) for _ in range(20)}
        assert len(names) == 1
        (thread,) = [one for one in threading.enumerate() if one.name.startswith("handler-tally")]
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(thread.join, 20)
    assert not thread.is_alive()


# -- handlers that are not there


@pytest.mark.parametrize(
    "handler,text,sentence",
    [
        ("no_such_module_at_all:handle", "", "there is no module no_such_module_at_all in "),
        ("no_such_package.inner:handle", "", "there is no module no_such_package in "),
        (f"{MODULE}:absent", "", f"module {MODULE} has no absent; expected module:function"),
        (f"{MODULE}:handle.inner", "def handle(event, context): ...", "handle has no inner"),
        (f"{MODULE}:value", "value = 7", "is of type int, expected a function (event, context)"),
        (f"{MODULE}:handle", "def handle(event): ...", "takes (event), expected two arguments (event, context)"),
        (f"{MODULE}:handle", "import nowhere_to_be_found", "imports nowhere_to_be_found, which is not installed"),
        (f"{MODULE}:handle", "raise RuntimeError('no database')", "failed: RuntimeError: no database"),
        (f"{MODULE}:handle", "def handle(", "failed: SyntaxError"),
        (f"{MODULE}:handle", "sys.exit(5)", "failed: SystemExit: 5"),
        (MODULE + ":", "", "has no name; expected module:function"),
    ],
)
async def test_a_handler_that_is_not_there_is_not_ready_with_a_sentence_and_refuses(
    source: Callable[[str], None], handler: str, text: str, sentence: str
) -> None:
    source(text)
    async with opened(handler) as target:
        with pytest.raises(NotReady) as caught:
            await target.time_limit()
        assert str(caught.value).startswith(f"Handler {handler}")
        assert sentence in str(caught.value)
        outcome = await target.invoke(call())
        assert isinstance(outcome, Refused)
        assert sentence in outcome.error


async def test_a_module_that_appears_later_is_found(source: Callable[..., None]) -> None:
    name = f"{MODULE}_later"
    async with opened(f"{name}:handle") as target:
        with pytest.raises(NotReady):
            await target.time_limit()
        source("def handle(event, context): return 'here'", name)
        assert (await target.time_limit()).seconds == 60
        assert await target.invoke(call()) == Succeeded(b'"here"')


async def test_a_module_that_blocks_while_it_is_imported_does_not_stop_the_loop(
    source: Callable[[str], None],
) -> None:
    source(
        "started = __import__('pathlib').Path(__file__).with_suffix('.started')\nstarted.touch()\ngate.wait(50)\n"
        "def handle(event, context): return 'here'"
    )
    async with opened() as target, anyio.create_task_group() as tasks:
        results: list[Outcome] = []

        async def invoke() -> None:
            results.append(await target.invoke(call()))

        tasks.start_soon(invoke)
        with anyio.fail_after(20):
            while not hasattr(sys.modules.get(MODULE), "started"):
                await anyio.lowlevel.checkpoint()
        await turns(1000)
        assert results == []
        gate().set()
    assert results == [Succeeded(b'"here"')]


# -- time


@pytest.mark.parametrize("seconds,limit,required", [(None, 60, None), (7, 7, 7)])
async def test_its_time_limit_is_the_configured_one_or_60(
    source: Callable[[str], None], seconds: float | None, limit: float, required: float | None
) -> None:
    source("def handle(event, context): ...")
    async with opened(seconds=seconds) as target:
        found = await target.time_limit()
        assert (found.seconds, found.required) == (limit, required)
