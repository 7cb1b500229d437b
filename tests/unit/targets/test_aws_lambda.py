"""A Lambda function as a target: what is failed, what is refused, and how often it is invoked: once."""

import asyncio
import json
from collections.abc import AsyncIterator

import anyio
import pytest
from aiobotocore.session import AioSession
from structlog.testing import capture_logs

from esm.clients.aws import AwsClients, AwsSettings
from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation
from esm.sandbox import Delay, Drop, Fail, Fault, Garbage, Hang, LoseReply, Sandbox, ServerError, Throttle, nth
from esm.sandbox.faults import Effect
from esm.sandbox.lambda_ import Context
from esm.targets import aws_lambda
from esm.targets.aws_lambda import LambdaTarget
from tests.support.raw_server import Request, answering, closed_port, raw_server, reset
from tests.support.sandbox_process import REGION, aws_clients

pytestmark = pytest.mark.anyio

ACCOUNT = "123456789012"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:tally"
EVENT = b'{"Records":[{"body":"secret payload"}]}'


class World:
    """A sandbox with a function ``tally``, our clients, and a target."""

    def __init__(self, sandbox: Sandbox, clients: AwsClients) -> None:
        self.sandbox = sandbox
        self.clients = clients
        self.function = sandbox.functions.add_function("tally", lambda _event, _context: {"ok": True})

    def target(self, function_name: str = "tally", **options: object) -> LambdaTarget:
        return LambdaTarget(self.clients, function_name, region=REGION, account=ACCOUNT, **options)  # type: ignore[arg-type]  # a test's own options

    def fault(self, effect: Effect, operation: str = "lambda:Invoke") -> Fault:
        return self.sandbox.faults.add(Fault(operation, effect))

    @property
    def invokes(self) -> int:
        return self.sandbox.calls["lambda:Invoke"]


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[tuple[Sandbox, AwsClients]]:
    """A sandbox and clients for all tests here."""
    async with Sandbox.open() as sandbox, aws_clients(sandbox.url) as clients:
        yield sandbox, clients


@pytest.fixture
async def world(house: tuple[Sandbox, AwsClients]) -> World:
    sandbox, clients = house
    sandbox.faults.clear()
    sandbox.calls.clear()
    sandbox.access_keys = frozenset()
    return World(sandbox, clients)


def call(event: bytes = EVENT, seconds: float = 30) -> Invocation:
    return Invocation(event, "request-1", seconds, "Root=1-2-3")


async def invoke_at(url: str) -> Outcome:
    async with aws_clients(url) as clients:
        return await LambdaTarget(clients, "tally", region=REGION, account=ACCOUNT).invoke(call())


# -- names


@pytest.mark.parametrize(
    "name,qualifier,arn",
    [
        ("tally", None, ARN),
        ("tally:PROD", None, f"{ARN}:PROD"),
        ("tally", "PROD", f"{ARN}:PROD"),
        (f"{ACCOUNT}:function:tally:7", None, f"{ARN}:7"),
        ("999999999999:function:tally", None, f"arn:aws:lambda:{REGION}:999999999999:function:tally"),
        (ARN, None, ARN),
        (f"{ARN}:$LATEST", None, f"{ARN}:$LATEST"),
        ("my-function:PROD", None, f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:my-function:PROD"),
        ("function", "1", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:function:1"),
        (f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:function:PROD", None, None),
    ],
)
async def test_a_function_is_named_in_all_of_lambdas_ways(
    world: World, name: str, qualifier: str | None, arn: str | None
) -> None:
    assert world.target(name, qualifier=qualifier).function_arn == (arn or name)


async def test_the_qualifier_reaches_lambda_and_the_version_that_ran_is_told(world: World) -> None:
    seen: list[str] = []

    def handle(_event: object, context: Context) -> None:
        seen.append(context.invoked_function_arn)

    world.sandbox.functions.add_function("tally", handle).version = "7"
    for name, qualifier in (("tally", "PROD"), ("tally:PROD", None), (f"{ARN}:PROD", None)):
        assert await world.target(name, qualifier=qualifier).invoke(call()) == Succeeded(b"null", "7")
    assert seen == [f"{ARN}:PROD"] * 3


async def test_attempts_side_by_side_carry_their_own_traces(world: World) -> None:
    seen: dict[object, str] = {}

    async def handle(event: object, context: Context) -> None:
        seen[event] = context.trace_id

    world.sandbox.functions.add_function("tally", handle)
    target = world.target()
    async with anyio.create_task_group() as tasks:
        for index in range(20):
            tasks.start_soon(target.invoke, Invocation(str(index).encode(), "r", 30, f"Root=1-{index}"))
    assert seen == {index: f"Root=1-{index}" for index in range(20)}


# -- failed


@pytest.mark.parametrize(
    "error,sentence", [(ValueError("poison"), "ValueError: poison"), (SystemExit(3), "Runtime.ExitError: RequestId: ")]
)
async def test_a_function_error_is_failed(world: World, error: BaseException, sentence: str) -> None:
    def handle(_event: object, _context: Context) -> None:
        raise error

    world.sandbox.functions.add_function("tally", handle).version = "3"
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith(f"The function failed (Unhandled): {sentence}")
    assert (outcome.timed_out, outcome.executed_version) == (False, "3")
    assert world.invokes == 1


async def test_a_function_that_times_out_is_failed_as_timed_out(world: World) -> None:
    async def handle(_event: object, _context: Context) -> None:
        await anyio.sleep_forever()

    world.sandbox.functions.add_function("tally", handle, timeout=0.05)
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert "Task timed out after 0.05 seconds" in outcome.error


@pytest.mark.parametrize("effect", [Drop(), LoseReply()])
async def test_a_connection_that_breaks_after_sending_is_failed_and_invoked_once(world: World, effect: Effect) -> None:
    assert isinstance(await world.target().invoke(call()), Succeeded)  # on a kept connection
    fault = world.fault(effect)
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Failed)
    assert not outcome.timed_out
    assert "broke before the answer was complete" in outcome.error
    assert (fault.seen, world.invokes) == (1, 2)


@pytest.mark.parametrize("effect", [Hang(), Hang(after_effect=True), Delay(500)])
async def test_an_answer_that_does_not_come_is_failed_as_timed_out_and_invoked_once(
    world: World, effect: Effect
) -> None:
    assert isinstance(await world.target().invoke(call()), Succeeded)
    world.fault(effect)
    outcome = await world.target().invoke(call(seconds=0.1))
    assert outcome == Failed("Lambda function tally did not answer within 0.1 s.", timed_out=True)
    assert world.invokes == 2


async def test_a_read_timeout_of_the_client_is_failed_as_timed_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws_lambda, "READ_SECONDS", 0.1)
    world.fault(Hang())
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert "did not answer in time" in outcome.error
    assert world.invokes == 1


async def test_an_event_that_lambda_calls_too_large_is_failed_as_that(world: World) -> None:
    outcome = await world.target().invoke(call(b'"' + b"x" * 6_291_456 + b'"'))
    assert isinstance(outcome, Failed)
    assert outcome.too_large


@pytest.mark.parametrize("status", [400, 403, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"<html><body>secret payload</body></html>", b"", b'{"message": "secret payload"}'])
async def test_an_answer_that_is_not_lambdas_is_failed(world: World, status: int, body: bytes) -> None:
    world.fault(Garbage(body, status))
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Failed)
    assert not outcome.timed_out
    assert "payload" not in outcome.error
    assert world.invokes == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"garbage\r\n\r\n",
    ],
)
async def test_an_answer_that_ends_too_early_is_failed(answer: bytes) -> None:
    async def write(_request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        return False

    async with raw_server(write) as server:
        assert isinstance(await invoke_at(server.url), Failed)
        assert len(server.requests) == 1


async def test_a_connection_that_is_reset_after_sending_is_failed() -> None:
    async with raw_server(reset) as server:
        assert isinstance(await invoke_at(server.url), Failed)
        assert len(server.requests) == 1


# -- refused


@pytest.mark.parametrize("retry_after", [None, 2.0])
async def test_a_throttle_is_refused_with_what_lambda_asks_for(world: World, retry_after: float | None) -> None:
    world.fault(Throttle(retry_after))
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Refused)
    assert (outcome.throttled, outcome.retry_after) == (True, retry_after)
    assert world.invokes == 1


async def test_reserved_concurrency_of_0_throttles(world: World) -> None:
    world.function.reserved_concurrency = 0
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Refused)
    assert outcome.throttled


@pytest.mark.parametrize(
    "code,status",
    [
        ("InvalidParameterValueException", 400),
        ("InvalidRequestContentException", 400),
        ("RecursiveInvocationException", 400),
        ("ServiceQuotaExceededException", 402),
        ("EFSMountFailureException", 403),
        ("AccessDeniedException", 403),
        ("ResourceNotFoundException", 404),
        ("EFSMountTimeoutException", 408),
        ("ResourceConflictException", 409),
        ("EFSIOException", 410),
        ("UnsupportedMediaTypeException", 415),
        ("TooManyRequestsException", 429),
        ("ServiceException", 500),
        ("ResourceNotReadyException", 502),
        ("EC2UnexpectedException", 502),
        ("KMSAccessDeniedException", 502),
        ("ServiceUnavailableException", 503),
    ],
)
async def test_every_error_of_lambdas_own_is_refused_and_asked_once(world: World, code: str, status: int) -> None:
    world.fault(Fail(code, status=status))
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Refused)
    assert code in outcome.error
    assert world.invokes == 1


@pytest.mark.parametrize("status", [500, 503])
async def test_an_internal_error_of_lambda_is_refused_whatever_retries_the_environment_asks_for(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    world.fault(ServerError(status))
    async with aws_clients(world.sandbox.url) as clients:
        outcome = await LambdaTarget(clients, "tally", region=REGION, account=ACCOUNT).invoke(call())
    assert isinstance(outcome, Refused)
    assert not outcome.throttled
    assert world.invokes == 1


async def test_a_missing_function_is_refused_with_what_to_do(world: World) -> None:
    outcome = await world.target("missing").invoke(call())
    assert isinstance(outcome, Refused)
    assert "Lambda function missing in eu-west-1 does not exist" in outcome.error
    assert "check function_name (region, account, name), or create it" in outcome.error


async def test_a_server_that_is_no_lambda_is_refused() -> None:
    async with raw_server(answering(404, b"Not Found")) as server:
        outcome = await invoke_at(server.url)
        assert isinstance(outcome, Refused)
        assert "check endpoint_url" in outcome.error


async def test_a_refused_connection_is_refused() -> None:
    outcome = await invoke_at(f"http://127.0.0.1:{closed_port()}")
    assert isinstance(outcome, Refused)
    assert "cannot be reached" in outcome.error


async def test_missing_credentials_are_refused_with_how_to_give_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with AwsClients(AwsSettings(endpoint_url="http://127.0.0.1:9"), AioSession()) as clients:
        target = LambdaTarget(clients, "tally", region=REGION, account=ACCOUNT)
        outcome = await target.invoke(call())
        assert isinstance(outcome, Refused)
        assert "no AWS credentials were found: set AWS_ACCESS_KEY_ID" in outcome.error
        with pytest.raises(NotReady, match="no AWS credentials were found"):
            await target.time_limit()


async def test_a_failed_attempt_harms_no_other(world: World) -> None:
    world.sandbox.faults.add(Fault("lambda:Invoke", Drop(), nth(1)))
    target = world.target()
    assert isinstance(await target.invoke(call()), Failed)
    assert await target.invoke(call()) == Succeeded(b'{"ok":true}')


# -- the time limit


async def test_the_time_limit_is_the_functions_own_timeout_and_5(world: World) -> None:
    world.function.timeout = 120
    found = await world.target(qualifier="PROD").time_limit()
    assert (found.seconds, found.required) == (125, 120)


async def test_a_configured_timeout_wins_and_the_function_is_looked_for_all_the_same(world: World) -> None:
    found = await world.target(seconds=7).time_limit()
    assert (found.seconds, found.required) == (7, 7)
    with pytest.raises(NotReady, match="Lambda function missing in eu-west-1 does not exist"):
        await world.target("missing", seconds=7).time_limit()


@pytest.mark.parametrize("effect", [Fail("AccessDeniedException", status=403), Garbage(b"not here", 404)])
async def test_where_the_timeout_is_not_told_it_is_60_with_one_warning(world: World, effect: Effect) -> None:
    world.fault(effect, "lambda:GetFunctionConfiguration")
    target = world.target()
    with capture_logs() as logs:
        limits = [await target.time_limit() for _ in range(3)]
    assert {(one.seconds, one.required) for one in limits} == {(60, None)}
    assert [(entry["event"], entry["log_level"], entry["function"]) for entry in logs] == [
        ("function_timeout_unknown", "warning", ARN)
    ]
    assert "lambda:GetFunctionConfiguration" in logs[0]["hint"]


async def test_a_missing_function_is_not_ready(world: World) -> None:
    with pytest.raises(NotReady, match=r"Lambda function missing in eu-west-1 does not exist .*or create it\."):
        await world.target("missing").time_limit()


@pytest.mark.parametrize("effect", [ServerError(), Throttle(), Drop(), Fail("UnrecognizedClientException", status=403)])
async def test_while_lambda_cannot_be_asked_it_is_not_ready(world: World, effect: Effect) -> None:
    world.fault(effect, "lambda:GetFunctionConfiguration")
    with pytest.raises(NotReady):
        await world.target().time_limit()


async def test_a_configured_timeout_needs_no_answer(world: World) -> None:
    world.fault(ServerError(), "lambda:GetFunctionConfiguration")
    assert (await world.target(seconds=7).time_limit()).seconds == 7


async def test_credentials_that_are_not_accepted_are_not_ready_even_with_a_configured_timeout(world: World) -> None:
    world.sandbox.access_keys = frozenset(("AKIDOTHER",))
    with pytest.raises(NotReady, match="AWS does not accept the credentials"):
        await world.target(seconds=7).time_limit()


async def test_a_lambda_that_hangs_when_it_is_asked_is_not_ready_in_bounded_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws_lambda, "ASK_SECONDS", 0.1)
    world.fault(Hang(), "lambda:GetFunctionConfiguration")
    with pytest.raises(NotReady, match=r"did not tell the function's timeout within 0\.1 s"):
        await world.target().time_limit()
    assert (await world.target(seconds=7).time_limit()).seconds == 7


async def test_the_arn_is_lambdas_own_once_it_was_told(world: World) -> None:
    target = LambdaTarget(world.clients, "tally", region=REGION, account="000000000000", qualifier="PROD")
    assert target.function_arn == f"arn:aws:lambda:{REGION}:000000000000:function:tally:PROD"
    await target.time_limit()
    assert target.function_arn == f"{ARN}:PROD"


async def test_the_reply_is_what_the_function_returned(world: World) -> None:
    outcome = await world.target().invoke(call())
    assert isinstance(outcome, Succeeded)
    assert json.loads(outcome.reply) == {"ok": True}
