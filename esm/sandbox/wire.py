"""How AWS speaks: a call on its way in, an answer or an error on its way out, apart from HTTP itself."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import msgspec

Json: TypeAlias = dict[str, Any]
"""A decoded JSON object of a vendor's protocol: the one border where values have no better type."""

Answer: TypeAlias = bytes | Mapping[str, object]
"""What an operation answers: an object to encode, or its JSON already encoded."""

R = TypeVar("R")


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer: status, body and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class AwsError(Exception):
    """An error that a client of AWS sees: its code, message and HTTP status.

    ``query_code`` is the code that clients of a service with a query history get (SQS); ``fields`` are further members
    of the body, ``headers`` further headers.  ``sender`` says whose fault it is.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        query_code: str = "",
        fields: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.query_code = query_code
        self.fields = fields or {}
        self.headers = headers or {}

    @property
    def sender(self) -> bool:
        """True when the caller is to blame."""
        return self.status < 500


class ConnectionDropped(Exception):
    """The connection is to be closed without an answer."""


Perform: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""One operation of a service: a JSON body in, an encoded answer out.  Raises AwsError."""


def operation(request: type[R], run: Callable[[R], Answer | Awaitable[Answer]]) -> Perform:
    """The operation that ``run`` performs with bodies that fit the struct ``request``."""
    decoder = msgspec.json.Decoder(request)

    async def perform(body: bytes) -> bytes:
        try:
            decoded = decoder.decode(body or b"{}")
        except msgspec.ValidationError as error:
            raise AwsError("ValidationException", f"The request does not fit the operation: {error}") from error
        except msgspec.DecodeError as error:
            raise AwsError("SerializationException", f"The body is not JSON: {error}") from error
        answer = run(decoded)
        if not isinstance(answer, (bytes, Mapping)):
            answer = await answer
        return answer if isinstance(answer, bytes) else msgspec.json.encode(answer)

    return perform


class JsonService(Protocol):
    """A service that is called by ``X-Amz-Target``."""

    name: str
    operations: Mapping[str, Perform]


class Exchange:
    """One call on its way through the sandbox: what is asked, how to perform it, how an error of it is put."""

    def __init__(
        self,
        operation: str,
        body: bytes,
        perform: Callable[[bytes], Awaitable[Reply]],
        refuse: Callable[[AwsError], Reply],
        resource: str = "",
    ) -> None:
        self.operation = operation
        """``service:Operation``, e.g. ``sqs:DeleteMessageBatch``."""
        self.body = body
        self.perform = perform
        self.refuse = refuse
        self.resource = resource
        """What the path names (a function, an object of a bucket), else empty: JSON protocols name it in the body."""

    @property
    def service(self) -> str:
        """``sqs``, ``kinesis``, ``dynamodb``, ``streams``, ``lambda``, ``secretsmanager``, ``sns``, ``s3``, ``sts``."""
        return self.operation.partition(":")[0]

    def json(self) -> Json:
        """The body as a JSON object; empty when it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return cast("Json", found) if isinstance(found, dict) else {}


def encoded(value: object) -> bytes:
    """JSON of ``value`` as UTF-8 bytes."""
    return msgspec.json.encode(value)
