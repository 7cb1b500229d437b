"""The sandbox: one HTTP server, one port, all services, and direct access to each of them."""

import asyncio
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from esm.sandbox.calls import CallLog
from esm.sandbox.clock import SandboxClock
from esm.sandbox.dynamodb import DynamoDb
from esm.sandbox.faults import Faults
from esm.sandbox.kinesis import Kinesis
from esm.sandbox.lambda_ import Lambda
from esm.sandbox.s3 import S3
from esm.sandbox.secrets import Secrets
from esm.sandbox.sns import Sns
from esm.sandbox.sqs import Sqs
from esm.sandbox.streams import Streams
from esm.sandbox.wire import AwsError, ConnectionDropped, Exchange, JsonService, Reply, encoded
from esm.sandbox.world import World

MAX_BODY = 256 * 1024 * 1024
_TARGETS = {
    "AmazonSQS": "sqs",
    "Kinesis_20131202": "kinesis",
    "DynamoDB_20120810": "dynamodb",
    "DynamoDBStreams_20120810": "streams",
    "secretsmanager": "secretsmanager",
}
_FUNCTIONS = "/2015-03-31/functions/"
_ACCESS_KEY = re.compile(r"Credential=([^/,]+)")


class Sandbox:
    """A local AWS that holds everything in memory.  Use ``async with Sandbox.open() as sandbox``."""

    def __init__(
        self,
        *,
        region: str = "eu-west-1",
        account: str = "123456789012",
        clock: SandboxClock | None = None,
        keep_bytes: int = 16 * 1024 * 1024,
        access_keys: Collection[str] = (),
    ) -> None:
        self.clock = clock or SandboxClock()
        self.world = World(region, account, self.clock)
        self.faults = Faults()
        self.calls = CallLog(keep_bytes)
        self.access_keys = frozenset(access_keys)
        """Access key ids that are let in; empty: everybody is."""
        self.sqs = Sqs(self.world)
        self.kinesis = Kinesis(self.world)
        self.dynamodb = DynamoDb(self.world)
        self.streams = Streams(self.world, self.dynamodb)
        self.functions = Lambda(self.world)
        self.sns = Sns(self.world, self.sqs)
        self.s3 = S3(self.world)
        self.secrets = Secrets(self.world)
        services: list[JsonService] = [self.sqs, self.kinesis, self.dynamodb, self.streams, self.secrets]
        self._json_services = {service.name: service for service in services}
        self._requests = 0
        self._handlers: set[asyncio.Task[object]] = set()

    @property
    def url(self) -> str:
        """The ``endpoint_url`` for every client."""
        return self.world.url

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        region: str = "eu-west-1",
        account: str = "123456789012",
        clock: SandboxClock | None = None,
        keep_bytes: int = 16 * 1024 * 1024,
        access_keys: Collection[str] = (),
    ) -> AsyncGenerator["Sandbox", None]:
        """A sandbox that listens on ``port`` (0: a free one) until the block ends.

        ``keep_bytes`` bounds the bodies of calls that ``calls`` keeps; ``access_keys``, if any are given, are the only
        access key ids that are let in.  Raises OSError when the port is taken.
        """
        sandbox = cls(region=region, account=account, clock=clock, keep_bytes=keep_bytes, access_keys=access_keys)
        server = web.Server(sandbox._handle, request_factory=_request, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=1024)
            await site.start()
            sandbox.world.url = f"http://{host}:{runner.addresses[0][1]}"
            yield sandbox
        finally:
            await sandbox._close(runner)

    async def _close(self, runner: web.ServerRunner) -> None:
        """End every call that still waits, then the server."""
        waiting = [task for task in self._handlers if task is not asyncio.current_task()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self.functions.close()
        await runner.cleanup()

    # -- one call

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # a handler always runs in the task of its connection
        self._handlers.add(task)
        self._requests += 1
        try:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await request.read()
            exchange = self._exchange(request, body)
            reply = await self._perform(exchange, request.headers)
            number = self._requests
            return _response(reply, f"5a4db0c5-0000-4000-8000-{number:012x}")
        except ConnectionDropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        finally:
            self._handlers.discard(task)

    async def _perform(self, exchange: Exchange, headers: Mapping[str, str]) -> Reply:
        operation = exchange.operation
        self.calls.began(operation)
        outcome = "ok"
        try:
            if self.access_keys:
                self._check_access_key(headers.get("Authorization", ""))
            effect = self.faults.draw(exchange)
            if effect is None:
                return await exchange.perform(exchange.body)
            return await effect.apply(exchange)
        except AwsError as error:
            outcome = error.code
            return exchange.refuse(error)
        except (ConnectionDropped, asyncio.CancelledError):
            outcome = "dropped"
            raise
        finally:
            self.calls.ended(operation, self.clock.now(), exchange.body, outcome)

    def _check_access_key(self, authorization: str) -> None:
        found = _ACCESS_KEY.search(authorization)
        if found is None or found[1] not in self.access_keys:
            message = "The security token included in the request is invalid."
            raise AwsError("UnrecognizedClientException", message, 403, query_code="InvalidClientTokenId")

    def _exchange(self, request: web.BaseRequest, body: bytes) -> Exchange:
        headers = request.headers
        content_type = headers.get("Content-Type", "application/x-amz-json-1.0")
        if (target := headers.get("X-Amz-Target")) is not None:
            return self._json_exchange(target, content_type, body)
        if request.path.startswith(_FUNCTIONS):
            return self.functions.exchange(request.method, request.raw_path, headers, body)
        if request.method == "POST" and content_type.startswith("application/x-www-form-urlencoded"):
            return self.sns.exchange(body)
        return self.s3.exchange(request.method, request.path, request.query, headers, body)

    def _json_exchange(self, target: str, content_type: str, body: bytes) -> Exchange:
        prefix, _, name = target.rpartition(".")
        service = _TARGETS.get(prefix, prefix)
        headers = {"Content-Type": content_type}

        async def perform(body: bytes) -> Reply:
            known = self._json_services.get(service)
            run = None if known is None else known.operations.get(name)
            if run is None:
                message = f"The sandbox does not know the operation {target}."
                raise AwsError("UnknownOperationException", message, query_code="InvalidAction")
            return Reply(200, await run(body), headers)

        def refuse(error: AwsError) -> Reply:
            shown = {"__type": error.code, "message": error.message, **error.fields}
            extra = {"x-amzn-ErrorType": error.code}
            if service == "sqs" and error.query_code:
                extra["x-amzn-query-error"] = f"{error.query_code};{'Sender' if error.sender else 'Receiver'}"
            return Reply(error.status, encoded(shown), headers | extra | dict(error.headers))

        return Exchange(f"{service}:{name}", body, perform, refuse)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


def _response(reply: Reply, request_id: str = "") -> web.Response:
    headers = dict(reply.headers)
    if request_id:
        headers["x-amzn-RequestId"] = request_id
    return web.Response(status=reply.status, body=reply.body, headers=headers)
