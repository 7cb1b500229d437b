"""Configuration → live objects: the one file that knows every adapter."""

import os
import random
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import structlog
from aiohttp import ClientSession
from msgspec import Struct

from esm import __version__
from esm.admin.status import Health
from esm.clients.aws import AwsClients, AwsSettings
from esm.clock import SystemClock
from esm.config.mapping import MappingConfig, OnDestinationFailure
from esm.config.models import Config, SqliteLeases
from esm.config.sources import SourceKind, StartingPosition
from esm.config.targets import HttpTarget, LambdaTarget, PythonTarget, ResolvedTarget
from esm.domain.arn import Arn
from esm.domain.delivery import NewDelivery, QueueDelivery, StreamDelivery
from esm.domain.events import DynamoDBKind, EventKind, KafkaKind, KinesisKind, Origin, SqsKind
from esm.domain.filtering import Filters
from esm.domain.leasing import LATEST, TRIM_HORIZON, Starting, owner_name
from esm.domain.retry import RetryPolicy
from esm.engine.buffer import Buffer
from esm.engine.mapping import Mapping
from esm.engine.plan import Plan
from esm.engine.shard_feed import LeasedSource
from esm.engine.slots import SlotPools
from esm.engine.worker import Worker
from esm.ports import Clock, Destination, LeaseStore, ShardSource, Source, Target
from esm.telemetry.metrics import MappingMetrics, Metrics

log = structlog.get_logger()

BATCHES_OF_A_QUEUE = 5
"""What a queue without a cap runs at once (delivery-semantics 2.2: the start of AWS's ramp)."""
NO_ACCOUNT = "000000000000"
"""In ARNs of targets that have none, where the source has no account either."""
NO_REGION = "us-east-1"


class SystemChance:
    """``Chance`` of production."""

    def new_id(self) -> str:
        """A UUID."""
        return str(uuid4())

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return random.random()  # noqa: S311 - spreads retries, guards nothing


class Assembled(Struct, frozen=True):
    """What runs, ready to be started."""

    worker: Worker
    metrics: Metrics

    def health(self) -> Health:
        """For the admin server."""
        return Health(tuple(self.worker.statuses()), draining=self.worker.stopping)


@asynccontextmanager
async def assembled(config: Config) -> AsyncGenerator[Assembled, None]:
    """Make everything that ``config`` names; it is closed when the context ends, leases last."""
    async with AsyncExitStack() as stack:
        yield await _Assembly(config, stack).all()


class _Assembly:
    """What the mappings of one worker share while they are made."""

    def __init__(self, config: Config, stack: AsyncExitStack) -> None:
        self._config, self._stack = config, stack
        self._clock: Clock = SystemClock()
        self._chance = SystemChance()
        self._metrics = Metrics(__version__)
        self._pools = SlotPools(config.worker.concurrency)
        self._buffer = Buffer(config.worker.buffer_bytes)
        self._metrics.buffered.set_function(lambda: self._buffer.held)
        worker_id = config.worker.id or socket.gethostname()
        self._owner = owner_name(worker_id, 0, secrets.token_hex(4))
        self._targets: dict[str, Target] = {}
        self._http_session: ClientSession | None = None
        self._leases: LeaseStore | None = None

    async def all(self) -> Assembled:
        config = self._config
        settings = AwsSettings(config.aws.endpoint_url, config.aws.endpoint_urls, f"esm/{__version__}")
        self._aws = await self._stack.enter_async_context(AwsClients(settings))
        enabled = [mapping for mapping in config.mappings if mapping.enabled]
        if any(mapping.kind in (SourceKind.KINESIS, SourceKind.DYNAMODB) for mapping in enabled):
            self._leases = await self._lease_store()
        for mapping in enabled:
            self._reserve(config.target_of(mapping))
        mappings = [await self._mapping(mapping) for mapping in enabled]
        for mapping in config.mappings:
            if not mapping.enabled:
                log.info("mapping_disabled", mapping=mapping.name)
        grace = config.worker.grace_period_in_seconds
        return Assembled(Worker(mappings, self._clock, None if grace is None else float(grace)), self._metrics)

    async def _lease_store(self) -> LeaseStore:
        match self._config.leases.store:
            case SqliteLeases(path=path):
                from esm.leases.sqlite import SqliteLeases as Store

                # Opened by the first mapping that needs it, which is not ready while it cannot be; queues go on.
                return await self._stack.enter_async_context(Store(Path(path), when_needed=True))
            case _:
                from esm.leases.memory import MemoryLeases

                return MemoryLeases()

    def _reserve(self, target: ResolvedTarget) -> None:
        if target.config.reserved_concurrency is not None:
            self._pools.reserve(_pool_name(target), target.config.reserved_concurrency)

    # -- one mapping

    async def _mapping(self, mapping: MappingConfig) -> Mapping:
        resolved = self._config.target_of(mapping)
        target = await self._target(mapping, resolved)
        metrics = self._metrics.mapping(mapping.name, mapping.kind.value)
        kind = self._event_kind(mapping)
        ordered = mapping.kind is not SourceKind.SQS
        plan = Plan(
            name=mapping.name,
            uuid=mapping.uuid,
            source_kind=mapping.kind.value,
            source_name=mapping.source_name,
            source=self._source(mapping, target, metrics),
            kind=kind,
            target=target,
            new_delivery=self._delivery(mapping, kind),
            ordered=ordered,
            batch_size=mapping.batch_size,
            window=mapping.window,
            batches=mapping.parallelization_factor if ordered else mapping.maximum_concurrency or BATCHES_OF_A_QUEUE,
            destination=self._destination(mapping),
            drops=mapping.on_destination_failure is OnDestinationFailure.DROP,
            filters=Filters(mapping.kind.value, mapping.patterns) if mapping.patterns else None,
            waits_for=self._turned_off(resolved),
        )
        return Mapping(plan, self._pools.of(_pool_name(resolved)), self._buffer, self._clock, self._chance, metrics)

    def _turned_off(self, target: ResolvedTarget) -> str | None:
        if target.config.reserved_concurrency == 0:
            return f"Target {target.name} is turned off: its reserved_concurrency is 0. Nothing is read."
        if target.config.reserved_concurrency is None and self._pools.shared == 0:
            return (
                f"Target {target.name} can never be invoked: other targets reserve all "
                f"{self._config.worker.concurrency} invocations of this worker. "
                "Raise worker.concurrency or lower reserved_concurrency."
            )
        return None

    def _delivery(self, mapping: MappingConfig, kind: EventKind) -> NewDelivery:
        chance, reports = self._chance, mapping.report_batch_item_failures
        if mapping.kind is SourceKind.SQS:
            return lambda records, now: QueueDelivery(records, reports, kind, now, chance)
        kafka = mapping.kind is SourceKind.KAFKA
        policy = RetryPolicy(
            max_retries=mapping.maximum_retry_attempts,
            max_age=mapping.maximum_record_age_in_seconds,
            bisect=mapping.bisect_batch_on_function_error,
            reports=reports,
            resumes_at_lowest=not kafka,
            oversize_spends_retries=not kafka,
        )
        return lambda records, now: StreamDelivery(records, policy, kind, now, chance)

    def _destination(self, mapping: MappingConfig) -> Destination | None:
        arn = mapping.on_failure
        if arn is None:
            return None
        from esm.destinations.sqs import SqsDestination

        return SqsDestination(arn, arn.region, None, self._aws)

    # -- sources

    def _event_kind(self, mapping: MappingConfig) -> EventKind:
        kinds: dict[SourceKind, Callable[[Origin], EventKind]] = {
            SourceKind.SQS: SqsKind,
            SourceKind.KINESIS: KinesisKind,
            SourceKind.DYNAMODB: DynamoDBKind,
            SourceKind.KAFKA: KafkaKind,
        }
        return kinds[mapping.kind](
            Origin(
                arn=mapping.event_source_arn or "",
                region=self._region(mapping),
                account=_account(mapping),
                bootstrap=",".join(mapping.bootstrap_servers),
            )
        )

    def _source(self, mapping: MappingConfig, target: Target, metrics: MappingMetrics) -> Source:
        if mapping.kind is SourceKind.KAFKA:
            return self._kafka(mapping, target)
        arn = mapping.arn
        assert arn is not None, "only Kafka mappings have no ARN"
        region, endpoint = self._region(mapping), mapping.endpoint_url
        jitter = self._chance.jitter
        match mapping.kind:
            case SourceKind.SQS:
                from esm.sources.sqs import SqsSource

                return SqsSource(mapping.name, arn, region, endpoint, self._aws, self._clock, jitter, metrics)
            case SourceKind.KINESIS:
                from esm.sources.kinesis import KinesisSource

                role = _identity(mapping, target)
                return self._leased(
                    mapping,
                    KinesisSource(mapping.name, arn, region, endpoint, role, self._aws, self._clock, jitter, metrics),
                    metrics,
                )
            case _:
                from esm.sources.dynamodb_streams import DynamoDBStreamsSource

                return self._leased(
                    mapping,
                    DynamoDBStreamsSource(mapping.name, arn, region, endpoint, self._aws, self._clock, jitter, metrics),
                    metrics,
                )

    def _leased(self, mapping: MappingConfig, source: ShardSource, metrics: MappingMetrics) -> Source:
        assert self._leases is not None, "made before the mappings"
        return LeasedSource(
            mapping.name,
            mapping.uuid,
            source,
            self._leases,
            self._owner,
            _starting(mapping),
            self._clock,
            self._chance.jitter,
            metrics,
        )

    def _kafka(self, mapping: MappingConfig, target: Target) -> Source:
        from esm.clients.kafka import KafkaSettings
        from esm.clients.kafka_logins import Access
        from esm.sources.kafka import KafkaSource

        settings = KafkaSettings(
            mapping=mapping.name,
            bootstrap_servers=mapping.bootstrap_servers,
            topic=mapping.topic,
            group=mapping.consumer_group_id,
        )

        async def longest() -> float:
            return (await target.time_limit()).seconds

        accesses = [Access(str(each.type), each.uri) for each in mapping.access]
        jitter = self._chance.jitter
        return KafkaSource(
            settings, self._clock, jitter, _starting(mapping), accesses, mapping.uses_tls, self._aws, longest
        )

    def _region(self, mapping: MappingConfig) -> str:
        return mapping.source_region or self._config.aws.region or os.environ.get("AWS_REGION") or NO_REGION

    # -- targets

    async def _target(self, mapping: MappingConfig, resolved: ResolvedTarget) -> Target:
        """The target of ``mapping``; a named one is made once, for all mappings that use it."""
        key = resolved.name if resolved.shared else f"{mapping.name} → {resolved.name}"
        if key not in self._targets:
            self._targets[key] = await self._made_target(mapping, resolved)
        return self._targets[key]

    async def _made_target(self, mapping: MappingConfig, resolved: ResolvedTarget) -> Target:
        region = self._region(mapping)
        account = _account(mapping) or NO_ACCOUNT
        arn = str(Arn("aws", "lambda", region, account, f"function:{resolved.name}"))
        match resolved.settings:
            case LambdaTarget() as settings:
                return self._lambda(settings, region, account)
            case HttpTarget() as settings:
                return await self._http(settings, arn)
            case PythonTarget() as settings:
                from esm.targets.python import PythonTarget as Python

                reserved = resolved.config.reserved_concurrency
                target = Python(
                    settings.handler,
                    name=resolved.name,
                    function_arn=arn,
                    concurrency=self._config.worker.concurrency if reserved is None else max(1, reserved),
                    seconds=settings.timeout_in_seconds,
                )
                return await self._stack.enter_async_context(target)

    def _lambda(self, settings: LambdaTarget, region: str, account: str) -> Target:
        from esm.targets.aws_lambda import LambdaTarget as Lambda

        own = settings.arn
        region = settings.region or (own.region if own else None) or self._config.aws.region or region
        return Lambda(
            self._aws,
            settings.function_name,
            region=region,
            account=account,
            qualifier=settings.qualifier,
            seconds=settings.timeout_in_seconds,
            endpoint_url=settings.endpoint_url,
        )

    async def _http(self, settings: HttpTarget, arn: str) -> Target:
        from esm.targets.http import HttpTarget as Http
        from esm.targets.http import http_session

        if self._http_session is None:
            self._http_session = await self._stack.enter_async_context(http_session(f"esm/{__version__}"))
        return Http(
            self._http_session,
            settings.url,
            function_arn=arn,
            headers=settings.headers,
            seconds=settings.timeout_in_seconds,
        )


def _pool_name(target: ResolvedTarget) -> str:
    return target.name if target.shared else f"→ {target.name}"


def _account(mapping: MappingConfig) -> str:
    return mapping.arn.account if mapping.arn else ""


def _starting(mapping: MappingConfig) -> Starting:
    match mapping.starting_position:
        case StartingPosition.LATEST:
            return LATEST
        case StartingPosition.AT_TIMESTAMP:
            return Starting(moment=mapping.starting_position_timestamp)
        case StartingPosition.TRIM_HORIZON:
            return TRIM_HORIZON


def _identity(mapping: MappingConfig, target: Target) -> Callable[[], str]:
    """`invokeIdentityArn`: the mapping's role, else the function's, else one made up of the source's account."""
    made_up = f"arn:aws:iam::{_account(mapping)}:role/esm"
    return lambda: mapping.role or target.role or made_up
