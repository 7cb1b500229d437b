"""Lambda of the sandbox: Python functions behind the Invoke API, seen by a real client."""

import io
import json
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import pytest

from esm.sandbox import Sandbox
from esm.sandbox.functions import Kind, add_kind
from esm.sandbox.lambda_ import Context, Function, Handler
from tests.support.sandbox_process import REGION, aws_clients

if TYPE_CHECKING:  # the vendor's stubs
    from types_aiobotocore_lambda import LambdaClient
    from types_aiobotocore_lambda.type_defs import InvocationResponseTypeDef

pytestmark = pytest.mark.anyio

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:tally"


class World:
    def __init__(self, sandbox: Sandbox, client: "LambdaClient") -> None:
        self.sandbox = sandbox
        self.client = client

    def add(self, handler: Handler, **options: object) -> Function:
        return self.sandbox.functions.add_function("tally", handler, **options)  # type: ignore[arg-type]  # a test's own options

    async def invoke(self, event: object = None, **options: str) -> tuple["InvocationResponseTypeDef", bytes]:
        answer = await self.client.invoke(FunctionName="tally", Payload=json.dumps(event).encode(), **options)  # type: ignore[arg-type]  # as above
        return answer, await answer["Payload"].read()


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with Sandbox.open() as sandbox, aws_clients(sandbox.url) as clients:
        yield World(sandbox, await clients.client("lambda", REGION))


async def test_a_function_gets_event_and_context_and_its_answer_is_the_payload(world: World) -> None:
    seen: list[Context] = []

    def handle(event: object, context: Context) -> object:
        seen.append(context)
        return {"got": event}

    world.add(handle)
    answer, payload = await world.invoke({"a": 1})
    assert (answer["StatusCode"], answer["ExecutedVersion"], "FunctionError" in answer) == (200, "$LATEST", False)
    assert json.loads(payload) == {"got": {"a": 1}}
    assert seen[0].invoked_function_arn == ARN
    assert len(seen[0].aws_request_id) == 36


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    "error,kind,message",
    [
        (ValueError("poison"), "ValueError", "poison"),
        (TimeoutError("mine"), "TimeoutError", "mine"),
        (SystemExit(3), "Runtime.ExitError", "Runtime exited with error: exit status 3"),
    ],
)
async def test_what_a_function_raises_is_its_error_object(
    world: World, error: BaseException, kind: str, message: str, *, threaded: bool
) -> None:
    def handle(_event: object, _context: Context) -> None:
        raise error

    world.add(handle, threaded=threaded)
    answer, payload = await world.invoke()
    assert answer["FunctionError"] == "Unhandled"
    found = json.loads(payload)
    assert found["errorType"] == kind
    assert message in found["errorMessage"]


async def test_an_answer_that_is_no_json_or_too_large_is_an_error(world: World) -> None:
    world.add(lambda _event, _context: object())
    assert (await world.invoke())[0]["FunctionError"] == "Unhandled"
    function = world.add(lambda _event, _context: "x" * 6_291_555, record=True)
    answer, payload = await world.invoke()
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(payload)["errorType"] == "Function.ResponseSizeTooLarge"
    assert [one.outcome for one in function.invocations] == ["error"]
    world.add(lambda _event, _context: "x" * 6_291_554)
    assert len((await world.invoke())[1]) == 6_291_556


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_function_past_its_timeout_is_an_error_of_lambda(world: World, *, threaded: bool) -> None:
    over = threading.Event()

    async def forever(_event: object, _context: Context) -> None:
        await anyio.sleep_forever()

    def blocks(_event: object, _context: Context) -> None:
        over.wait(50)

    world.add(blocks if threaded else forever, threaded=threaded, timeout=0.05)
    answer, payload = await world.invoke()
    over.set()
    assert answer["FunctionError"] == "Unhandled"
    found = json.loads(payload)
    assert found["errorType"] == "Sandbox.Timedout"
    assert found["errorMessage"].endswith("Error: Task timed out after 0.05 seconds")


async def test_a_threaded_function_that_blocks_holds_up_no_other(world: World) -> None:
    over, began = threading.Event(), anyio.Event()
    loop = anyio.lowlevel.current_token().native_token

    def blocks(event: object, _context: Context) -> object:
        if event == "slow":
            loop.call_soon_threadsafe(began.set)
            over.wait(50)
        return event

    world.add(blocks, threaded=True, timeout=60)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.invoke, "slow")
        with anyio.fail_after(20):
            await began.wait()
            assert (await world.invoke("quick"))[1] == b'"quick"'
        over.set()


async def test_reserved_concurrency_throttles_what_is_beyond_it(world: World) -> None:
    began, over = anyio.Event(), anyio.Event()

    async def handle(_event: object, _context: Context) -> None:
        began.set()
        await over.wait()

    world.add(handle, reserved_concurrency=1, timeout=60)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.invoke)
        with anyio.fail_after(20):
            await began.wait()
            with pytest.raises(world.client.exceptions.TooManyRequestsException):
                await world.invoke()
        over.set()


async def test_an_event_invocation_is_answered_at_once_and_run_later(world: World) -> None:
    ran = anyio.Event()

    async def handle(_event: object, _context: Context) -> None:
        ran.set()

    world.add(handle)
    answer, payload = await world.invoke(InvocationType="Event")
    assert (answer["StatusCode"], payload) == (202, b"")
    with anyio.fail_after(20):
        await ran.wait()


async def test_a_dry_run_runs_nothing(world: World) -> None:
    function = world.add(lambda _event, _context: None)
    assert (await world.invoke(InvocationType="DryRun"))[0]["StatusCode"] == 204
    assert function.started == 0


async def test_what_a_recording_function_keeps_is_bounded(world: World) -> None:
    function = world.add(lambda _event, _context: None, record=True)
    function.keep_bytes = 1000
    for index in range(10):
        await world.invoke([index, "x" * 290])
    assert [one.number for one in function.invocations] == [8, 9, 10]
    assert function.forgotten == 7
    function.forget()
    assert not function.invocations


async def test_a_missing_function_and_bodies_that_lambda_does_not_take_are_its_errors(world: World) -> None:
    world.add(lambda _event, _context: None)
    with pytest.raises(world.client.exceptions.ResourceNotFoundException):
        await world.client.get_function_configuration(FunctionName="missing")
    with pytest.raises(world.client.exceptions.InvalidRequestContentException):
        await world.client.invoke(FunctionName="tally", Payload=b"{no json")
    with pytest.raises(world.client.exceptions.RequestTooLargeException):
        await world.client.invoke(FunctionName="tally", Payload=io.BytesIO(b'"' + b"x" * 6_291_456 + b'"'))


async def test_its_configuration_is_what_a_worker_asks_for(world: World) -> None:
    world.add(lambda _event, _context: None, timeout=120)
    found = await world.client.get_function_configuration(FunctionName=ARN, Qualifier="PROD")
    assert (found["FunctionArn"], found["Timeout"]) == (f"{ARN}:PROD", 120)


# -- ready-made functions

KINESIS = {
    "Records": [{"kinesis": {"sequenceNumber": str(n), "data": data}} for n, data in ((1, "b2s="), (2, "cG9pc29u"))]
}
SQS = {"Records": [{"messageId": "m1", "body": "ok"}, {"messageId": "m2", "body": "poison"}]}
DYNAMODB = {"Records": [{"dynamodb": {"SequenceNumber": "9", "NewImage": {"pk": {"S": "poison"}}}}]}
KAFKA = {"records": {"t-0": [{"offset": 4, "value": "cG9pc29u"}, {"offset": 5, "value": None}]}}


@pytest.mark.parametrize(
    "event,reported",
    [(KINESIS, ["2"]), (SQS, ["m2"]), (DYNAMODB, ["9"]), (KAFKA, [{"partition": "t-0", "offset": 4}])],
)
async def test_report_if_names_the_records_that_hold_a_text(
    world: World, event: dict[str, object], reported: list[object]
) -> None:
    add_kind(world.sandbox.functions, "tally", "report_if:poison")
    _, payload = await world.invoke(event)
    assert json.loads(payload) == {"batchItemFailures": [{"itemIdentifier": one} for one in reported]}
    assert (await world.invoke({"Records": []}))[1] == b"null"


async def test_fail_if_raises_and_ids_remembers_what_arrived(world: World) -> None:
    function = add_kind(world.sandbox.functions, "tally", "ids,fail_if:poison")
    assert (await world.invoke(SQS))[0]["FunctionError"] == "Unhandled"
    assert isinstance(function.handler, Kind)
    assert function.handler.ids == ["m1", "m2"]


async def test_fail_fails_as_often_as_it_says(world: World) -> None:
    add_kind(world.sandbox.functions, "tally", "fail:2")
    outcomes = ["FunctionError" in (await world.invoke(SQS))[0] for _ in range(3)]
    assert outcomes == [True, True, False]


async def test_hang_ends_with_the_timeout(world: World) -> None:
    add_kind(world.sandbox.functions, "tally", "hang", 0.05)
    assert json.loads((await world.invoke(SQS))[1])["errorType"] == "Sandbox.Timedout"


@pytest.mark.parametrize("text", ["dance", "fail:often", "sleep:long", ""])
def test_a_kind_that_is_unknown_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|invalid literal|could not convert"):
        Kind(text)
