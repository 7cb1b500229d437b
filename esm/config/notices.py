"""What an operator should know about a configuration that is valid."""

from collections.abc import Iterator

from esm.config.base import Loc
from esm.config.mapping import MappingConfig
from esm.config.models import Config, MemoryLeases
from esm.config.sources import NETWORK, SourceKind

_SHARDED = (SourceKind.KINESIS, SourceKind.DYNAMODB)
NO_EFFECT = ("provisioned_poller_config", "metrics_config", "logging_config", "tags")


def notices(config: Config) -> Iterator[tuple[Loc, str]]:
    """Place and sentence of each: options without effect, endless retries, records that are shared or forgotten."""
    for index, mapping in enumerate(config.mappings):
        loc: Loc = ("mappings", index)
        for key, text in (*_no_effect(mapping), *_retries(mapping)):
            yield (*loc, *key), text
    yield from _shared_queues(config)
    yield from _targets(config)
    shards = [each.name for each in config.mappings if each.enabled and each.kind in _SHARDED]
    if shards and isinstance(config.leases.store, MemoryLeases):
        yield ("leases", "memory"), f"a restart forgets the positions of {', '.join(shards)}"


def _no_effect(mapping: MappingConfig) -> Iterator[tuple[Loc, str]]:
    for option in NO_EFFECT:
        if option in mapping.model_fields_set and getattr(mapping, option):
            yield (option,), "has no effect here"
    for index, access in enumerate(mapping.source_access_configurations):
        if access.type in NETWORK:
            text = f"{access.type} has no effect here: the network is the worker's own"
            yield ("source_access_configurations", index), text


def _retries(mapping: MappingConfig) -> Iterator[tuple[Loc, str]]:
    if mapping.kind is SourceKind.SQS or not mapping.enabled:  # a queue's own redrive policy decides
        return
    endless = mapping.maximum_retry_attempts == -1 and mapping.maximum_record_age_in_seconds == -1
    lane = "partition" if mapping.kind is SourceKind.KAFKA else "shard"
    cure = "set maximum_retry_attempts or maximum_record_age_in_seconds"
    if endless and mapping.on_failure is None:
        text = f"a record that always fails blocks its {lane} until it expires; {cure}, and a destination_config"
        yield (), text
    elif endless:
        yield ("destination_config",), f"nothing is ever discarded, so the destination stays unused; {cure}"
    elif mapping.on_failure is None:
        yield (), "what its limits discard is counted and logged, but kept nowhere; set a destination_config"


def _shared_queues(config: Config) -> Iterator[tuple[Loc, str]]:
    seen: dict[str, str] = {}
    for index, mapping in enumerate(config.mappings):
        if mapping.kind is SourceKind.SQS and mapping.enabled and mapping.event_source_arn:
            other = seen.setdefault(mapping.event_source_arn, mapping.name)
            if other != mapping.name:
                text = f"reads the same queue as {other}: each message reaches one of them, not both"
                yield ("mappings", index, "event_source_arn"), text


def _targets(config: Config) -> Iterator[tuple[Loc, str]]:
    used = {each.target for each in config.mappings if isinstance(each.target, str)}
    for name, target in config.targets.items():
        if name not in used:
            yield ("targets", name), "no mapping uses it"
        elif target.reserved_concurrency == 0:
            yield ("targets", name, "reserved_concurrency"), "0 turns the target off: its mappings wait"
