"""One session and few clients of AWS for the whole process.

What vendor defaults would undo is set here: no retries of botocore's own (one ``invoke`` reached a function five
times), no pool of ten connections (a delete behind ten idle long polls took 3.9 s), read timeouts that the caller
names.
"""

import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import anyio
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from msgspec import Struct

from esm.clients.aws_errors import AWS_ERRORS, HOW_TO_LOG_IN, AwsFailure, Kind, Subject, translate
from esm.clients.aws_models import read_quickly
from esm.clients.aws_tls import PlainHttp, SharedTls
from esm.domain.errors import NotReady

if TYPE_CHECKING:  # the vendor's stubs are not installed where esm runs
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_dynamodbstreams import DynamoDBStreamsClient
    from types_aiobotocore_kinesis import KinesisClient
    from types_aiobotocore_lambda import LambdaClient
    from types_aiobotocore_secretsmanager import SecretsManagerClient
    from types_aiobotocore_sqs import SQSClient

__all__ = ["AWS_ERRORS", "AwsClients", "AwsFailure", "AwsSettings", "Kind", "Subject", "translate"]

log = structlog.get_logger()

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
CLOSE_SECONDS = 5.0
KEEPALIVE_SECONDS = 60
"""TCP keep-alive: NAT gateways forget a silent connection after 350 s, an invocation may take 900."""


class AwsSettings(Struct, frozen=True):
    """The `aws` section."""

    endpoint_url: str | None = None
    """For every service that ``endpoint_urls`` does not name; None = AWS's own, or AWS_ENDPOINT_URL."""
    endpoint_urls: Mapping[str, str] = {}
    """By service as botocore calls it: ``{"sqs": "http://127.0.0.1:9324"}``."""
    user_agent: str = "esm"


class _Key(Struct, frozen=True):
    service: str
    region: str
    endpoint_url: str | None
    use: str
    read_timeout: float


class AwsClients:
    """Hands out clients; all of them are closed when this context ends.

    A client is opened when it is first asked for and then shared by whoever asks for the same service, region,
    endpoint, use and read timeout.  ``use`` keeps apart what must not wait for each other: ``"calls"``, and
    ``"long-poll"`` for reads that stay open.  Connections of a client are not limited: callers limit what they have
    under way.
    """

    def __init__(self, settings: AwsSettings | None = None, session: AioSession | None = None) -> None:
        self._settings = settings or AwsSettings()
        self._session = session or get_session()
        self._clients: dict[_Key, Any] = {}
        self._contexts: list[AbstractAsyncContextManager[Any]] = []
        self._opening = anyio.Lock()
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._clients.clear()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True) as scope:  # aiobotocore expects to be cancelled once
            while self._contexts:
                await self._contexts.pop().__aexit__(None, None, None)
        if scope.cancelled_caught:
            log.warning("aws_clients_not_closed", seconds=CLOSE_SECONDS, left=len(self._contexts))

    def endpoint(self, service: str, endpoint_url: str | None = None) -> str | None:
        """Where ``service`` is called: a mapping's own ``endpoint_url`` first, then the `aws` section; None = AWS."""
        return endpoint_url or self._settings.endpoint_urls.get(service) or self._settings.endpoint_url

    @overload
    async def client(
        self,
        service: Literal["sqs"],
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> "SQSClient": ...
    @overload
    async def client(
        self,
        service: Literal["kinesis"],
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> "KinesisClient": ...
    @overload
    async def client(
        self,
        service: Literal["dynamodb"],
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> "DynamoDBClient": ...
    @overload
    async def client(
        self,
        service: Literal["dynamodbstreams"],
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> "DynamoDBStreamsClient": ...
    @overload
    async def client(
        self,
        service: Literal["lambda"],
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> "LambdaClient": ...
    @overload
    async def client(
        self,
        service: Literal["secretsmanager"],
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> "SecretsManagerClient": ...

    async def client(
        self,
        service: str,
        region: str,
        endpoint_url: str | None = None,
        use: str = "calls",
        read_timeout: float = READ_SECONDS,
    ) -> Any:
        """An open client; never close it.

        ``endpoint_url`` is a mapping's own (see ``endpoint``).  ``read_timeout``: seconds of silence after which a call
        fails, longer than the operation may take.  Calls raise AWS_ERRORS, for ``translate``.  Raises NotReady when no
        credentials are found or region or endpoint make no sense; asking again looks again.
        """
        key = _Key(service, region, self.endpoint(service, endpoint_url), use, read_timeout)
        if (known := self._clients.get(key)) is not None:
            return known
        async with self._opening:
            if not self._open:
                raise RuntimeError("AwsClients is not open")
            if key not in self._clients:
                self._clients[key] = await self._create(key)
            return self._clients[key]

    async def _create(self, key: _Key) -> Any:
        subject = Subject(key.service, f"AWS service {key.service}", key.region, "region")
        try:
            # A client that was made without credentials would never look for them again.
            if await self._session.get_credentials() is None:
                raise NotReady(f"AWS service {key.service}: no AWS credentials were found: {HOW_TO_LOG_IN}.")
            read_quickly(self._session)
            context = self._context(key)
            client = await context.__aenter__()
        except AWS_ERRORS as error:
            raise NotReady(translate(error, subject).sentence) from error
        except ValueError as error:  # botocore's word for an endpoint that is no URL
            raise NotReady(f"AWS service {key.service} in {key.region}: {error}; check endpoint_url.") from error
        self._contexts.append(context)
        return client

    def _context(self, key: _Key) -> AbstractAsyncContextManager[Any]:
        plain = (key.endpoint_url or "").startswith("http://")
        config = AioConfig(
            http_session_cls=PlainHttp if plain else SharedTls,
            connector_args={"socket_factory": _socket},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=key.read_timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=0,  # unlimited
            parameter_validation=False,
            user_agent=self._settings.user_agent,
        )
        session: Any = self._session  # its stubs list each service; here it is a variable
        context: AbstractAsyncContextManager[Any] = session.create_client(
            key.service, region_name=key.region, endpoint_url=key.endpoint_url, config=config
        )
        return context


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for ``address`` (family, type, protocol, …) that notices a peer that vanished.

    aiobotocore ignores botocore's `tcp_keepalive`, so it is set here.
    """
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # named differently outside Linux
        if number := getattr(socket, option, None):
            made.setsockopt(socket.IPPROTO_TCP, number, KEEPALIVE_SECONDS)
    return made
