"""A Lambda function as a target, through the Invoke API.

A function error, a time-out and a connection that broke after sending are *failed*.  Every error that Lambda itself
answers is *refused*: the function did not run (429, missing function, no permission, internal errors of the service).
An answer without an error of Lambda's in it comes from something in between, and is in doubt: *failed*.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import structlog

from esm.clients.aws import AWS_ERRORS, AwsClients, AwsFailure, Kind, Subject, translate
from esm.domain.arn import Arn
from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation, TimeLimit
from esm.targets.answers import DEFAULT_SECONDS, MAX_REPLY_BYTES, function_error, sendable

if TYPE_CHECKING:  # the vendor's stubs are not installed where esm runs
    from types_aiobotocore_lambda import LambdaClient
    from types_aiobotocore_lambda.type_defs import InvocationResponseTypeDef

log = structlog.get_logger()

READ_SECONDS = 960.0
"""Above the longest attempt (900): the deadline of an attempt is kept here, not by the client."""
BEYOND_FUNCTION_SECONDS = 5.0
"""What an attempt gets beyond the function's own timeout, for Lambda to answer that it timed out."""
ASK_SECONDS = 30.0
"""How long Lambda may take to tell a function's timeout."""
PART_BYTES = 256 * 1024
_NEVER_RAN = frozenset((401, 404, 405, 407))
"""Status of answers that are not Lambda's own, and yet tell that no function was run."""
_NAME = re.compile(r"((?:arn:[^:]+:lambda:[^:]+:)?(?:\d{12}:function:)?[^:]+)(?::(.+))?")
_NOT_TOLD = frozenset(("403", "404", "405", "501"))  # what emulators of Invoke alone answer

_trace: ContextVar[str] = ContextVar("esm_invoke_trace", default="")


class LambdaTarget:
    """One function, with its version or alias."""

    def __init__(
        self,
        clients: AwsClients,
        function_name: str,
        *,
        region: str,
        account: str,
        qualifier: str | None = None,
        seconds: float | None = None,
        endpoint_url: str | None = None,
    ) -> None:
        """``function_name``: a name, partial ARN or ARN, with or without ``:qualifier``.

        ``account`` is used for the ARN of a function that is given by name, until Lambda tells it; ``seconds`` is the
        configured timeout, None asks Lambda for the function's own.
        """
        self._clients = clients
        self._region = region
        self._function, found = _split(function_name)
        self._qualifier = qualifier or found
        self._seconds = seconds
        self._endpoint_url = endpoint_url
        self._arn = _arn(self._function, region, account)
        self._subject = Subject("lambda", f"Lambda function {self._function}", region, "function_name")
        self._role: str | None = None
        self._warned = False

    @property
    def function_arn(self) -> str:
        """The function's ARN with its qualifier, as the mapping names it."""
        return f"{self._arn}:{self._qualifier}" if self._qualifier else self._arn

    @property
    def role(self) -> str | None:
        """The function's execution role, once Lambda told it."""
        return self._role

    # -- how long

    async def time_limit(self) -> TimeLimit:
        """The configured timeout; else the function's own + 5; else, where nobody tells it, 60 with a warning.

        Raises NotReady when there is no such function, when the credentials are not accepted, and, where the timeout is
        not configured, while Lambda cannot be asked.
        """
        try:
            with anyio.fail_after(ASK_SECONDS):
                own = await self._own_timeout()
        except AWS_ERRORS as error:
            failure = translate(error, self._subject)
            if not self._can_go_on(failure):
                raise NotReady(failure.sentence) from error
            own = None
        except TimeoutError as error:
            if self._seconds is None:
                text = f"{self._subject.what} in {self._region}: Lambda did not tell the function's timeout"
                raise NotReady(f"{text} within {ASK_SECONDS:g} s; set timeout_in_seconds of the target.") from error
            own = None
        if self._seconds is not None:
            return TimeLimit(self._seconds, self._seconds)
        if own is None:
            self._warn()
            return TimeLimit(DEFAULT_SECONDS)
        return TimeLimit(own + BEYOND_FUNCTION_SECONDS, own)

    async def _own_timeout(self) -> float | None:
        client = await self._client()
        found = await client.get_function_configuration(FunctionName=self._function, **self._qualified())
        if arn := found.get("FunctionArn"):
            self._arn = _split(arn)[0]
        self._role = found.get("Role")
        timeout = found.get("Timeout")
        return float(timeout) if timeout else None

    def _can_go_on(self, failure: AwsFailure) -> bool:
        if failure.kind in (Kind.MISSING, Kind.CREDENTIALS):
            return False
        if self._seconds is not None:  # the answer was not needed; that Lambda is down shows when invoking
            return True
        return failure.kind is Kind.DENIED or failure.code in _NOT_TOLD

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "function_timeout_unknown",
                function=self.function_arn,
                seconds=DEFAULT_SECONDS,
                hint="allow lambda:GetFunctionConfiguration, or set timeout_in_seconds of the target",
            )

    # -- one attempt

    async def invoke(self, call: Invocation) -> Outcome:
        """Invoke the function once and wait for its answer."""
        client: LambdaClient | None = None
        with anyio.move_on_after(call.seconds):
            try:
                client = await self._client()
            except NotReady as error:
                return Refused(str(error))
            token = _trace.set(call.trace)
            try:
                return await self._answer(await self._call(client, call))
            except AWS_ERRORS as error:
                return self._failure(translate(error, self._subject))
            except aiohttp.ClientError as error:  # of the reply's body; aiobotocore hands it on as it is
                name = type(error).__name__
                return Failed(f"{self._subject.what}: the connection broke before the reply was complete ({name}).")
            finally:
                _trace.reset(token)
        if client is None:
            return Refused(f"{self._subject.what}: no AWS credentials could be had within {call.seconds:g} s.")
        return Failed(f"{self._subject.what} did not answer within {call.seconds:g} s.", timed_out=True)

    async def _call(self, client: "LambdaClient", call: Invocation) -> "InvocationResponseTypeDef":
        return await client.invoke(
            FunctionName=self._function,
            InvocationType="RequestResponse",
            Payload=sendable(call.event),
            **self._qualified(),
        )

    async def _answer(self, answer: "InvocationResponseTypeDef") -> Outcome:
        version = answer.get("ExecutedVersion") or "$LATEST"
        async with answer["Payload"] as stream:
            body = bytearray()
            while part := await stream.read(PART_BYTES):
                body += part
                if len(body) > MAX_REPLY_BYTES:
                    return Failed(f"The reply has more than {MAX_REPLY_BYTES} bytes.", executed_version=version)
        if kind := answer.get("FunctionError"):
            return function_error(bytes(body), kind, version)
        return Succeeded(bytes(body), version)

    def _failure(self, failure: AwsFailure) -> Outcome:
        if failure.status == 413:
            return Failed(failure.sentence, too_large=True)
        if failure.kind in (Kind.TIMEOUT, Kind.LOST):
            return Failed(failure.sentence, timed_out=failure.kind is Kind.TIMEOUT)
        if _from_elsewhere(failure) and failure.status not in _NEVER_RAN and failure.kind is not Kind.THROTTLED:
            return Failed(failure.sentence)
        return Refused(failure.sentence, throttled=failure.kind is Kind.THROTTLED, retry_after=failure.retry_after)

    # -- the client

    def _qualified(self) -> dict[str, Any]:  # one optional argument of calls that are typed
        return {"Qualifier": self._qualifier} if self._qualifier else {}

    async def _client(self) -> "LambdaClient":
        client = await self._clients.client(
            "lambda", self._region, self._endpoint_url, use="invoke", read_timeout=READ_SECONDS
        )
        # The id makes it one hook a client, however many targets share it.
        client.meta.events.register("before-sign.lambda.Invoke", _add_trace, unique_id="esm-trace")
        return client


def _add_trace(request: Any, **_kwargs: object) -> None:  # botocore's AWSRequest
    """Send the trace of the attempt that this runs in; the Invoke operation has no parameter for it."""
    if trace := _trace.get():
        headers: Mapping[str, str] = request.headers
        if "X-Amzn-Trace-Id" in headers:
            del request.headers["X-Amzn-Trace-Id"]
        request.headers["X-Amzn-Trace-Id"] = trace


def _from_elsewhere(failure: AwsFailure) -> bool:
    """Whether an answer came that holds no error of Lambda's: a proxy's, a gateway's."""
    return failure.status is not None and (failure.code.isdecimal() or failure.code == "Unknown")


def _split(function_name: str) -> tuple[str, str | None]:
    """The function without its version or alias, and that."""
    found = _NAME.fullmatch(function_name)
    return (found[1], found[2]) if found else (function_name, None)


def _arn(function: str, region: str, account: str) -> str:
    """The ARN of a function given by name, partial ARN (``account:function:name``) or ARN, without a qualifier."""
    if function.startswith("arn:"):
        return function
    owner, found, name = function.rpartition(":function:")
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return str(Arn(partition, "lambda", region, owner if found else account, f"function:{name}"))
