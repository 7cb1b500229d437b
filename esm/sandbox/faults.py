"""Faults by script: which call of which operation goes wrong, and how."""

import asyncio
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from esm.sandbox.wire import AwsError, ConnectionDropped, Exchange, Reply, encoded

Calls = Callable[[int], bool]
"""Given the number of a matching call since the fault was added (from 1): does it go wrong?"""


def always(_number: int) -> bool:
    """Every call."""
    return True


def every(step: int) -> Calls:
    """Each ``step``-th call: numbers step, 2 step, 3 step…"""
    return lambda number: number % step == 0


def nth(*numbers: int) -> Calls:
    """The calls of these numbers, from 1."""
    wanted = frozenset(numbers)
    return lambda number: number in wanted


def first(count: int) -> Calls:
    """The next ``count`` calls."""
    return lambda number: number <= count


def after(count: int) -> Calls:
    """All but the next ``count`` calls."""
    return lambda number: number > count


class Effect(Protocol):
    """What happens to a call in place of being performed."""

    async def apply(self, exchange: Exchange) -> Reply:
        """Answer ``exchange``.  Raises AwsError for an error answer, ConnectionDropped for no answer."""
        ...


@dataclass(frozen=True)
class Fail:
    """An error of AWS's shape, without the effect of the call."""

    code: str
    message: str = "This call fails by script."
    status: int = 400

    async def apply(self, exchange: Exchange) -> Reply:
        raise AwsError(self.code, self.message, self.status, query_code=self.code if exchange.service == "sqs" else "")


_THROTTLES = {
    "sqs": AwsError("RequestThrottled", "Request is throttled.", query_code="RequestThrottled"),
    "kinesis": AwsError("ProvisionedThroughputExceededException", "Rate exceeded for shard by script."),
    "dynamodb": AwsError(
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded.",
    ),
    "streams": AwsError("ThrottlingException", "Rate exceeded"),
    "lambda": AwsError(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        fields={"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"},
    ),
    "s3": AwsError("SlowDown", "Please reduce your request rate.", 503),
    "sns": AwsError("Throttled", "Rate exceeded", 429),
}


@dataclass(frozen=True)
class Throttle:
    """The throttling error of the service; with ``retry_after`` seconds as a Retry-After header."""

    retry_after: float | None = None

    async def apply(self, exchange: Exchange) -> Reply:
        error = _THROTTLES.get(exchange.service, AwsError("ThrottlingException", "Rate exceeded"))
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
        raise AwsError(
            error.code,
            error.message,
            error.status,
            query_code=error.query_code,
            fields=error.fields,
            headers=headers,
        )


_SERVER_ERRORS = {
    "sqs": "InternalError",
    "kinesis": "InternalFailure",
    "dynamodb": "InternalServerError",
    "streams": "InternalServerError",
    "lambda": "ServiceException",
    "secretsmanager": "InternalServiceError",
    "s3": "InternalError",
    "sns": "InternalError",
}


@dataclass(frozen=True)
class ServerError:
    """The service's own internal error (500), or ServiceUnavailable (503), without the effect of the call."""

    status: int = 500

    async def apply(self, exchange: Exchange) -> Reply:
        code = _SERVER_ERRORS.get(exchange.service, "InternalFailure") if self.status == 500 else "ServiceUnavailable"
        query = code if exchange.service == "sqs" else ""
        raise AwsError(code, "The service has an internal problem by script.", self.status, query_code=query)


@dataclass(frozen=True)
class Garbage:
    """An answer that no service of AWS gives (a proxy's error page); the call has no effect."""

    body: bytes = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
    status: int = 502
    content_type: str = "text/html"

    async def apply(self, exchange: Exchange) -> Reply:
        return Reply(self.status, self.body, {"Content-Type": self.content_type})


@dataclass(frozen=True)
class Hang:
    """No answer until the sandbox closes, before the effect of the call or after it."""

    after_effect: bool = False

    async def apply(self, exchange: Exchange) -> Reply:
        if self.after_effect:
            await exchange.perform(exchange.body)
        await asyncio.get_running_loop().create_future()
        raise ConnectionDropped


@dataclass(frozen=True)
class Delay:
    """The call is performed ``seconds`` of real time later."""

    seconds: float

    async def apply(self, exchange: Exchange) -> Reply:
        await asyncio.sleep(self.seconds)
        return await exchange.perform(exchange.body)


@dataclass(frozen=True)
class Drop:
    """The connection is closed without the effect of the call."""

    async def apply(self, exchange: Exchange) -> Reply:
        raise ConnectionDropped


@dataclass(frozen=True)
class LoseReply:
    """The call has its effect, then the connection is closed without an answer."""

    async def apply(self, exchange: Exchange) -> Reply:
        await exchange.perform(exchange.body)
        raise ConnectionDropped


@dataclass
class FailEntries:
    """Some entries of a batch call fail, the others are performed (SQS batch calls, PutRecords).

    ``entries`` counts the entries of all calls that this fault caught, from 1: ``every(10)`` is one delete in ten.
    """

    entries: Calls = always
    code: str = "InternalError"
    message: str = "This entry fails by script."
    _seen: int = field(default=0, init=False)

    async def apply(self, exchange: Exchange) -> Reply:
        body = exchange.json()
        member = "Records" if "Records" in body else "Entries"
        offered: list[dict[str, object]] = body.get(member, [])
        failing = [index for index in range(len(offered)) if self.entries(self._seen + index + 1)]
        self._seen += len(offered)
        if not failing:
            return await exchange.perform(exchange.body)
        refused = frozenset(failing)
        body[member] = [entry for index, entry in enumerate(offered) if index not in refused]
        answer: dict[str, object] = (
            {"Successful": []} if member == "Entries" else {"Records": [], "FailedRecordCount": 0}
        )
        headers = {"Content-Type": "application/x-amz-json-1.0"}
        if body[member]:
            reply = await exchange.perform(encoded(body))
            answer = Exchange(exchange.operation, reply.body, exchange.perform, exchange.refuse).json()
            headers = dict(reply.headers)
        self._add_failures(answer, member, offered, failing)
        return Reply(200, encoded(answer), headers)

    def _add_failures(
        self, answer: dict[str, object], member: str, offered: list[dict[str, object]], failing: list[int]
    ) -> None:
        if member == "Entries":
            failed = cast("list[object]", answer.setdefault("Failed", []))
            for index in failing:
                name = offered[index].get("Id", "")
                failed.append({"Id": name, "SenderFault": False, "Code": self.code, "Message": self.message})
            return
        records = cast("list[dict[str, object]]", answer["Records"])
        for index in failing:  # ascending: each insert finds its place
            records.insert(index, {"ErrorCode": self.code, "ErrorMessage": self.message})
        answer["FailedRecordCount"] = sum("ErrorCode" in record for record in records)


@dataclass
class Fault:
    """Makes chosen calls of an operation go wrong.

    ``operation`` is ``service:Operation``, with ``*`` and ``?`` as in file names.  ``where`` sees the call and narrows
    it further; ``calls`` then picks by number among the calls that match, counted from 1 since the fault was added.
    """

    operation: str
    effect: Effect
    calls: Calls = always
    where: Callable[[Exchange], bool] | None = None
    seen: int = field(default=0, init=False)
    """Calls that matched so far."""
    hits: int = field(default=0, init=False)
    """Calls that went wrong so far."""

    def catches(self, exchange: Exchange) -> bool:
        """Count ``exchange`` if it matches; True if it goes wrong."""
        if self.operation != exchange.operation and not fnmatch.fnmatchcase(exchange.operation, self.operation):
            return False
        if self.where is not None and not self.where(exchange):
            return False
        self.seen += 1
        caught = self.calls(self.seen)
        self.hits += caught
        return caught


class Faults:
    """The script: the first fault that catches a call decides what happens to it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Put ``fault`` at the end of the script; it counts calls from now on."""
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take ``fault`` out; harmless when it is not there."""
        self._faults = [one for one in self._faults if one is not fault]

    def clear(self) -> None:
        """Forget the whole script."""
        self._faults.clear()

    def draw(self, exchange: Exchange) -> Effect | None:
        """What goes wrong with ``exchange``; None when nothing does."""
        caught: Effect | None = None
        for fault in self._faults:
            if fault.catches(exchange) and caught is None:
                caught = fault.effect
        return caught
