"""The whole configuration: its sections, and the rules between mappings."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from esm.config.base import (
    Breach,
    ConfigModel,
    Endpoint,
    Loc,
    Name,
    Region,
    Whole,
    elements,
    entries,
    find,
    given,
    whole,
)
from esm.config.mapping import DEFAULT_FLEET, MappingConfig, mapping_uuid
from esm.config.support import not_yet
from esm.config.targets import LambdaTarget, ResolvedTarget, TargetConfig

GRACE_BEYOND_TIMEOUT_IN_SECONDS = 25
"""What a soft stop needs beside the longest attempt: an open long poll of 20 s, and its deletes."""


class WorkerConfig(ConfigModel):
    """This process."""

    fleet: Name = DEFAULT_FLEET
    """Name of the installation; workers of one fleet share leases, and mappings get their identity from it."""
    id: Name | None = None
    """Name of this worker among them; default: the host name."""
    concurrency: Annotated[Whole, Field(ge=1, le=10_000)] = 1_000
    """Invocations that may run at once in this process."""
    grace_period_in_seconds: Annotated[Whole, Field(ge=0, le=86_400)] | None = None
    """How long a soft stop may take; default: the longest target timeout + 25."""
    buffer_bytes: Annotated[Whole, Field(ge=6_291_456)] = 256 * 1024 * 1024
    """Bytes of records that all mappings together hold in memory; at least one event (6,291,456)."""

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """What this version does not do."""
        yield from not_yet("worker", data)

    def grace_period(self, longest_timeout: float) -> float:
        """Seconds that a soft stop may take, given the longest timeout of a target in seconds."""
        set_here = self.grace_period_in_seconds
        return longest_timeout + GRACE_BEYOND_TIMEOUT_IN_SECONDS if set_here is None else float(set_here)


class AdminConfig(ConfigModel):
    """The admin server: health, metrics, status."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: Annotated[Whole, Field(ge=0, le=65_535)] = 8_080
    """Port to listen on; 0 takes a free one and logs it."""


class AwsConfig(ConfigModel):
    """How AWS is reached; credentials come from the standard AWS chain."""

    region: Region | None = None
    """Region where neither a mapping nor an ARN names one."""
    endpoint_url: Endpoint | None = None
    """Where all services are, if not at AWS's own addresses."""
    endpoint_urls: dict[str, Endpoint] = Field(default_factory=dict)
    """The same for single services: sqs, kinesis, dynamodb, dynamodbstreams, lambda, secretsmanager."""

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """Only services that the worker calls have an endpoint."""
        for loc, urls in find(data, "endpoint_urls"):
            for service, _ in entries(urls):
                if service not in SERVICES:
                    yield Breach((*loc, service), f"no service that is called, expected one of {', '.join(SERVICES)}")

    def endpoint(self, service: str) -> str | None:
        """Where ``service`` (``sqs``, ``dynamodbstreams``) is; None for AWS's own address."""
        return self.endpoint_urls.get(service, self.endpoint_url)


SERVICES = ("sqs", "kinesis", "dynamodb", "dynamodbstreams", "lambda", "secretsmanager")


class SqliteLeases(ConfigModel):
    """Leases in a file on a local disk, for one host."""

    path: Annotated[str, Field(min_length=1)] = "var/esm.db"
    """The file; its folder is made if need be."""


class MemoryLeases(ConfigModel):
    """Leases that end with the process."""


class LeasesConfig(ConfigModel):
    """Where the positions of shards are kept: one of sqlite and memory, else sqlite."""

    sqlite: SqliteLeases | None = None
    """A file on a local disk."""
    memory: MemoryLeases | None = None
    """Nowhere: a restart begins at starting_position."""

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """One place, not two."""
        yield from not_yet("leases", data)
        if len(stores := [str(loc[0]) for kind in ("sqlite", "memory") for loc, _ in find(data, kind)]) > 1:
            yield Breach((), f"{' and '.join(stores)}, expected one of sqlite and memory")

    @property
    def store(self) -> SqliteLeases | MemoryLeases:
        """The one that counts."""
        return self.memory or self.sqlite or SqliteLeases()


class Config(ConfigModel):
    """What one or more workers run."""

    worker: WorkerConfig = Field(default_factory=WorkerConfig)
    """This process."""
    admin: AdminConfig = Field(default_factory=AdminConfig)
    """The admin server."""
    aws: AwsConfig = Field(default_factory=AwsConfig)
    """How AWS is reached."""
    leases: LeasesConfig = Field(default_factory=LeasesConfig)
    """Where the positions of shards are kept."""
    targets: dict[Name, TargetConfig] = Field(default_factory=dict)
    """Targets by name, for mappings to use."""
    mappings: Annotated[tuple[MappingConfig, ...], Field(min_length=1)]
    """What to read and where to send it."""

    @model_validator(mode="after")
    def _identify(self) -> Self:
        """Give each mapping without a uuid the one of this fleet."""
        for mapping in self.mappings:
            if "uuid" not in mapping.model_fields_set:
                # Frozen for everyone else; nobody has seen this mapping yet.
                object.__setattr__(mapping, "uuid", mapping_uuid(self.worker.fleet, mapping.name))
        return self

    def target_of(self, mapping: MappingConfig) -> ResolvedTarget:
        """The target of ``mapping``, whether named, inline or a function_name."""
        match mapping.target:
            case str(name):
                return ResolvedTarget(name, self.targets[name], shared=True)
            case TargetConfig() as inline:
                return ResolvedTarget(mapping.name, inline, shared=False)
            case None:
                assert mapping.function_name, "breaches() lets no mapping without a target pass"
                function = LambdaTarget(function_name=mapping.function_name)
                config = TargetConfig.model_validate({"lambda": function})
                return ResolvedTarget(mapping.function_name, config, shared=False)

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """What one mapping cannot say for itself."""
        for mappings_loc, mappings in find(data, "mappings"):
            places = [((*mappings_loc, index), mapping) for index, mapping in enumerate(elements(mappings))]
            yield from _once(places, "name")
            yield from _once(places, "uuid")
            yield from _once(places, "self_managed_kafka_event_source_config", "consumer_group_id")
            yield from _pairs_once(places)
            yield from _known_targets(places, given(data, "targets"))
        yield from _reservations(data)


Places = list[tuple[Loc, object]]


def _once(places: Places, *path: str) -> Iterator[Breach]:
    seen: dict[str, Loc] = {}
    for loc, mapping in places:
        for key, value in find(mapping, *path):
            text = value.lower() if path == ("uuid",) and isinstance(value, str) else value
            if isinstance(text, str) and seen.setdefault(text, loc) != loc:
                yield Breach((*loc, *key), "{other} has it too", shows=True, other=seen[text])


def _pairs_once(places: Places) -> Iterator[Breach]:
    """Two enabled mappings do not bring the same source to the same target (mapping-parameters 5.2, rule 31)."""
    seen: dict[str, Loc] = {}
    for loc, mapping in places:
        source = [given(mapping, "event_source_arn"), given(mapping, *_BROKERS)]
        target = [given(mapping, "function_name"), given(mapping, "target")]
        if not any(source) or not any(target) or given(mapping, "enabled") in (False, "false"):
            continue
        pair = repr([*source, given(mapping, "topics"), *target])
        if seen.setdefault(pair, loc) != loc:
            text = "the same source and target as {other}; disable or delete one of them"
            yield Breach(loc, text, other=seen[pair])


_BROKERS = ("self_managed_event_source", "endpoints", "kafka_bootstrap_servers")


def _known_targets(places: Places, targets: object) -> Iterator[Breach]:
    names = [name for name, _ in entries(targets)]
    for loc, mapping in places:
        for key, name in find(mapping, "target"):
            if isinstance(name, str) and name not in names:
                known = f"expected one of {', '.join(names)}" if names else "and there is no targets section"
                yield Breach((*loc, *key), f"no such target, {known}", shows=True)


def _reservations(data: object) -> Iterator[Breach]:
    """What targets reserve fits into the worker."""
    concurrency = whole(given(data, "worker", "concurrency")) or 1_000
    reserved = [
        whole(given(target, "reserved_concurrency")) or 0
        for _, target in [*entries(given(data, "targets")), *(("", each) for each in _inline(data))]
    ]
    if sum(reserved) > concurrency:
        text = f"targets reserve {sum(reserved)} invocations, worker.concurrency is {concurrency}"
        yield Breach(("targets",), text)


def _inline(data: object) -> list[object]:
    return [value for _, value in find(data, "mappings", "*", "target") if isinstance(value, dict)]
