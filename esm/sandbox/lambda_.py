"""Lambda by its REST protocol: functions are Python callables in the process of the sandbox."""

import asyncio
import base64
import contextlib
import inspect
import math
import re
import threading
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from esm.sandbox.wire import AwsError, Exchange, Reply, encoded
from esm.sandbox.world import World

MAX_REQUEST = 6_291_456
MAX_RESPONSE = 6_291_556
_JSON = {"Content-Type": "application/json"}
_PATH = re.compile(r"/2015-03-31/functions/([^/]+)/(invocations|configuration)")
_NAME = re.compile(
    r"(?:arn:aws[a-z-]*:lambda:[a-z0-9-]+:)?(?:\d{12}:)?(?:function:)?([A-Za-z0-9_-]+)(?::([A-Za-z0-9$_-]+))?"
)


class Context(msgspec.Struct, frozen=True):
    """What a function is told about its invocation, under the names that handlers of Lambda use."""

    function_name: str
    function_version: str
    invoked_function_arn: str
    aws_request_id: str
    memory_limit_in_mb: int
    trace_id: str
    body: bytes
    """The event as it was sent."""


Handler = Callable[..., object]
"""``handler(event, context)``, sync or async: what it returns is the answer, what it raises a function error."""


class Invocation(msgspec.Struct, frozen=True):
    """One invocation as a function with ``record`` remembers it.

    ``number`` counts the function's invocations from 1; ``at`` is its start in epoch seconds; ``outcome`` is ``ok``,
    ``error``, ``timeout`` or ``dropped`` (it was cancelled).
    """

    function: str
    number: int
    request_id: str
    at: float
    event: msgspec.Raw
    outcome: str


class TimedOut(Exception):
    """The function did not answer within its timeout."""


class Function:
    """One function; the attributes are settings that may be changed at any time.

    ``timeout`` (seconds) ends async handlers and stops waiting for threads.  A sync handler runs on the sandbox's own
    loop, and holds up everything unless ``threaded``: then in a daemon thread of its own.  ``reserved_concurrency``
    makes further invocations fail with 429; 0 throttles all.  With ``record`` invocations are kept as they end,
    ``keep_bytes`` of events at most; the oldest are forgotten first.
    """

    def __init__(self, name: str, handler: Handler, arn: str, seconds: float) -> None:
        self.name = name
        self.handler = handler
        self.arn = arn
        self.timeout = seconds
        self.memory = 128
        self.version = "$LATEST"
        self.threaded = False
        self.record = False
        self.keep_bytes = 64 * 1024 * 1024
        self.reserved_concurrency: int | None = None
        self.running = 0
        self.started = 0
        """Invocations so far that reached the handler."""
        self.forgotten = 0
        """Remembered invocations that had to be forgotten."""
        self.invocations: deque[Invocation] = deque()
        self._kept_bytes = 0

    def remember(self, invocation: Invocation) -> None:
        """Keep ``invocation`` if this function records."""
        if not self.record:
            return
        self.invocations.append(invocation)
        self._kept_bytes += len(bytes(invocation.event))
        while self._kept_bytes > self.keep_bytes and self.invocations:
            self._kept_bytes -= len(bytes(self.invocations.popleft().event))
            self.forgotten += 1

    def forget(self) -> None:
        """Drop what was remembered."""
        self.invocations.clear()
        self._kept_bytes = 0

    async def run(self, event: object, context: Context) -> object:
        """Call the handler.  Raises whatever it raises, TimedOut past the timeout."""
        answer: object = _in_thread(self.handler, event, context) if self.threaded else self.handler(event, context)
        if not inspect.isawaitable(answer):
            return answer
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                return await cast("Awaitable[object]", answer)
        except TimeoutError as error:
            if limit.expired():
                raise TimedOut from error
            raise


class Lambda:
    """All functions of the sandbox."""

    name = "lambda"

    def __init__(self, world: World) -> None:
        self._world = world
        self._functions: dict[str, Function] = {}
        self._background: set[asyncio.Task[Reply]] = set()

    # -- direct use

    def add_function(
        self,
        name: str,
        handler: Handler,
        *,
        timeout: float = 3,
        record: bool = False,
        threaded: bool = False,
        reserved_concurrency: int | None = None,
    ) -> Function:
        """Register (or replace) a function; the settings are those of ``Function``."""
        arn = f"arn:aws:lambda:{self._world.region}:{self._world.account}:function:{name}"
        function = self._functions[name] = Function(name, handler, arn, timeout)
        function.record = record
        function.threaded = threaded
        function.reserved_concurrency = reserved_concurrency
        return function

    def function(self, name: str) -> Function:
        """The function of this name or ARN.  Raises AwsError (ResourceNotFoundException)."""
        found = _NAME.fullmatch(name)
        function = self._functions.get(found[1]) if found else None
        if function is None:
            message = f"Function not found: arn:aws:lambda:{self._world.region}:{self._world.account}:function:{name}"
            raise AwsError("ResourceNotFoundException", message, 404)
        return function

    def functions(self) -> list[Function]:
        """All functions, by name."""
        return [self._functions[name] for name in sorted(self._functions)]

    async def close(self) -> None:
        """End what runs in the background (invocations of type Event)."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # -- the protocol

    def exchange(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """The call of an HTTP request to a path of Lambda."""
        url = urlsplit(raw_path)
        found = _PATH.fullmatch(url.path)
        name = unquote(found[1]) if found else ""
        qualifier = parse_qs(url.query).get("Qualifier", [""])[0]
        if found and (method, found[2]) == ("POST", "invocations"):

            async def invoke(body: bytes) -> Reply:
                return await self._invoke(name, qualifier, headers, body)

            return Exchange("lambda:Invoke", body, invoke, refuse, name)
        if found and (method, found[2]) == ("GET", "configuration"):

            async def configuration(_body: bytes) -> Reply:
                return self._configuration(name, qualifier)

            return Exchange("lambda:GetFunctionConfiguration", body, configuration, refuse, name)

        async def unknown(_body: bytes) -> Reply:
            raise AwsError("UnknownOperationException", f"The sandbox does not know {method} {url.path}.", 404)

        return Exchange("lambda:Unknown", body, unknown, refuse)

    def _configuration(self, name: str, qualifier: str) -> Reply:
        function = self.function(name)
        shown = {
            "FunctionName": function.name,
            "FunctionArn": f"{function.arn}:{qualifier}" if qualifier else function.arn,
            "Runtime": "python3.11",
            "Role": f"arn:aws:iam::{self._world.account}:role/{function.name}-role",
            "Handler": "app.handler",
            "Timeout": max(1, math.ceil(function.timeout)),
            "MemorySize": function.memory,
            "Version": function.version,
            "PackageType": "Zip",
            "State": "Active",
            "LastUpdateStatus": "Successful",
        }
        return Reply(200, encoded(shown), _JSON)

    async def _invoke(self, name: str, qualifier: str, headers: Mapping[str, str], body: bytes) -> Reply:
        function = self.function(name)
        if len(body) > MAX_REQUEST:
            message = f"Request must be smaller than {MAX_REQUEST} bytes for the InvokeFunction operation"
            raise AwsError("RequestTooLargeException", message, 413)
        try:
            event: object = msgspec.json.decode(body or b"{}")
        except msgspec.DecodeError as error:
            message = f"Could not parse request body into json: {error}"
            raise AwsError("InvalidRequestContentException", message) from error
        kind = headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind == "DryRun":
            return Reply(204, b"", {})
        if function.reserved_concurrency is not None and function.running >= function.reserved_concurrency:
            reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
            raise AwsError("TooManyRequestsException", "Rate Exceeded.", 429, fields={"Reason": reason})
        named = _NAME.fullmatch(name)
        qualifier = qualifier or (named[2] if named and named[2] else "")
        context = Context(
            function_name=function.name,
            function_version=function.version,
            invoked_function_arn=f"{function.arn}:{qualifier}" if qualifier else function.arn,
            aws_request_id=self._world.uuid(),
            memory_limit_in_mb=function.memory,
            trace_id=headers.get("X-Amzn-Trace-Id", ""),
            body=body or b"{}",
        )
        if kind == "Event":
            task = asyncio.create_task(self._run(function, event, context))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            return Reply(202, b"", {})
        reply = await self._run(function, event, context)
        if headers.get("X-Amz-Log-Type") == "Tail":
            log = base64.b64encode(f"END RequestId: {context.aws_request_id}".encode()).decode()
            return Reply(reply.status, reply.body, {**reply.headers, "X-Amz-Log-Result": log})
        return reply

    async def _run(self, function: Function, event: object, context: Context) -> Reply:
        """Run the function to its answer or error object."""
        at = self._world.clock.now()
        function.running += 1
        function.started += 1
        number = function.started
        outcome, answer = "dropped", b""
        try:
            outcome, answer = await _outcome(function, event, context)
        finally:
            function.running -= 1
            request_id, sent = context.aws_request_id, msgspec.Raw(context.body)
            function.remember(Invocation(function.name, number, request_id, at, sent, outcome))
        headers = {**_JSON, "X-Amz-Executed-Version": function.version}
        if outcome != "ok":
            headers["X-Amz-Function-Error"] = "Unhandled"
        return Reply(200, answer, headers)


def refuse(error: AwsError) -> Reply:
    """An error of the call itself, as Lambda puts it."""
    shown = {"Type": "User" if error.sender else "Service", "message": error.message, **error.fields}
    return Reply(error.status, encoded(shown), {**_JSON, "x-amzn-ErrorType": error.code, **error.headers})


async def _outcome(function: Function, event: object, context: Context) -> tuple[str, bytes]:
    """Run the function; answers its outcome, and its reply or error object."""
    request_id = context.aws_request_id
    try:
        answer = msgspec.json.encode(await function.run(event, context))
    except TimedOut:
        message = f"RequestId: {request_id} Error: Task timed out after {function.timeout:.2f} seconds"
        return "timeout", encoded({"errorType": "Sandbox.Timedout", "errorMessage": message})
    except SystemExit as error:
        message = f"RequestId: {request_id} Error: Runtime exited with error: exit status {error.code}"
        return "error", encoded({"errorType": "Runtime.ExitError", "errorMessage": message})
    except Exception as error:  # noqa: BLE001 - whatever a function raises is its error object
        return "error", encoded(_error_object(error, request_id))
    if len(answer) > MAX_RESPONSE:
        message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
        return "error", encoded({"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"})
    return "ok", answer


async def _in_thread(handler: Handler, event: object, context: Context) -> object:
    """Call ``handler`` in a daemon thread: one that hangs does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()

    def resolve(result: object, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result, failure = None, None
        try:
            result = handler(event, context)
        except BaseException as error:  # noqa: BLE001 - it goes to whoever waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(resolve, result, failure)

    threading.Thread(target=work, daemon=True).start()
    return await done


def _error_object(error: Exception, request_id: str) -> dict[str, object]:
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "requestId": request_id,
        "stackTrace": traceback.format_tb(error.__traceback__),
    }
