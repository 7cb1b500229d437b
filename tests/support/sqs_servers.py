"""SQS as two servers tell it, ours in this loop and moto in a thread; and what speaks to them."""

import random
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

from aiobotocore.session import AioSession, get_session
from moto.server import ThreadedMotoServer

from esm.clients.aws import AwsClients
from esm.domain.arn import Arn
from esm.sandbox import Sandbox
from esm.sources.sqs import SqsSource
from esm.telemetry.metrics import MappingMetrics, Metrics
from tests.support.time import LoopClock

REGION = "eu-west-1"


@cache
def aws_session(key: str = "key") -> AioSession:
    """A session with credentials that need no environment; one per key, since it reads botocore's models once."""
    session = get_session()
    session.set_credentials(key, "secret")
    return session


@contextmanager
def moto_server() -> Iterator[str]:
    """The URL of a moto server on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class SqsServer:
    """A server with clients; queues get names of their own, since moto's outlive a test."""

    def __init__(self, url: str, clients: AwsClients, sandbox: Sandbox | None = None) -> None:
        self.url, self.clients = url, clients
        self._sandbox = sandbox
        self.clock = LoopClock()
        self.metrics = mapping_metrics()

    @property
    def sandbox(self) -> Sandbox:
        """Ours; only where the test asked for it."""
        assert self._sandbox is not None
        return self._sandbox

    async def calls(self) -> Any:
        """The client of calls."""
        return await self.clients.client("sqs", REGION, self.url)

    async def create(self, **attributes: object) -> "SqsQueue":
        """A new queue; keywords are AWS's attributes."""
        name = f"orders-{uuid.uuid4().hex[:8]}"
        calls = await self.calls()
        made = await calls.create_queue(
            QueueName=name, Attributes={key: str(value) for key, value in attributes.items()}
        )
        return SqsQueue(self, name, made["QueueUrl"])

    def source(self, arn: str) -> SqsSource:
        """The source of the queue that ``arn`` names."""
        return SqsSource(
            "orders", Arn.parse(arn), REGION, self.url, self.clients, self.clock, random.random, self.metrics
        )


class SqsQueue:
    """One queue of a server, from the outside."""

    def __init__(self, server: SqsServer, name: str, url: str) -> None:
        self.server, self.name, self.url = server, name, url
        self.arn = f"arn:aws:sqs:{REGION}:123456789012:{name}"

    def source(self) -> SqsSource:
        """It, as a source."""
        return self.server.source(self.arn)

    async def send(self, *bodies: str, **more: object) -> Sequence[str]:
        """Put messages in; answers their ids."""
        calls = await self.server.calls()
        return [(await calls.send_message(QueueUrl=self.url, MessageBody=body, **more))["MessageId"] for body in bodies]

    async def bodies(self) -> list[str]:
        """What can be received now, taken out."""
        calls = await self.server.calls()
        found: list[str] = []
        while messages := (await calls.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)).get("Messages"):
            found += [message["Body"] for message in messages]
        return found

    async def left(self) -> int:
        """Messages that are not deleted, hidden ones included."""
        calls = await self.server.calls()
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        reply = await calls.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(reply["Attributes"][name]) for name in names)


def mapping_metrics() -> MappingMetrics:
    """Numbers of one mapping, all zero."""
    return Metrics("0").mapping("orders", "sqs")


@asynccontextmanager
async def sandbox_sqs(**options: Any) -> AsyncIterator[SqsServer]:
    """SQS of a sandbox of its own."""
    async with Sandbox.open(**options) as sandbox, AwsClients(session=aws_session()) as clients:
        yield SqsServer(sandbox.url, clients, sandbox)


@asynccontextmanager
async def moto_sqs(url: str) -> AsyncIterator[SqsServer]:
    """SQS of a moto server that runs."""
    async with AwsClients(session=aws_session()) as clients:
        yield SqsServer(url, clients)
