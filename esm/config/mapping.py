"""One mapping: AWS's parameters of an event source mapping, and our own beside them."""

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from pydantic import AfterValidator, Discriminator, Field, Tag

from esm.config.base import (
    Breach,
    ConfigModel,
    Endpoint,
    Flag,
    Name,
    Region,
    Whole,
    find,
    given,
    mistaken,
    place,
    truth,
    whole,
)
from esm.config.sources import (
    CERTIFICATES,
    LOGINS,
    NETWORK,
    DestinationConfig,
    FilterCriteria,
    KafkaSourceConfig,
    LoggingConfig,
    MetricsConfig,
    Moment,
    ProvisionedPollerConfig,
    RecordAge,
    ScalingConfig,
    SelfManagedEventSource,
    SourceAccessConfiguration,
    SourceArn,
    SourceKind,
    StartingPosition,
    Topic,
    epoch_of,
    kind_of,
    queue_arn,
    source_arn,
)
from esm.config.support import not_here, not_yet
from esm.config.targets import FunctionName, TargetConfig
from esm.domain.arn import Arn
from esm.domain.filtering import DATA_RULES, judge_of
from esm.domain.patterns import BadPattern

DEFAULT_FLEET = "esm"
_NAMESPACE = UUID("3c6ad6f6-8f0c-5f0e-9a55-6f2d3b1f6a10")


class OnDestinationFailure(StrEnum):
    """What happens to a batch that its failure destination does not take."""

    WAIT = "wait"
    DROP = "drop"


def mapping_uuid(fleet: str, name: str) -> str:
    """The identity of a mapping that has no uuid of its own: the same wherever fleet and name are the same."""
    return str(uuid5(_NAMESPACE, f"{fleet}/{name}"))


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise mistaken("expected a UUID, like 5f6f0a52-1c0e-4c6a-9d2b-7a3f1f6f2c10") from None


def _role(text: str) -> str:
    try:
        fine = Arn.parse(text).service == "iam"
    except ValueError:
        fine = False
    if not fine:
        raise mistaken("expected the ARN of a role, arn:aws:iam::account:role/name")
    return text


def _kind_from(data: dict[str, Any]) -> SourceKind:
    arn = data["event_source_arn"]
    return source_arn(arn)[0] if arn else SourceKind.KAFKA


def _batch_size(data: dict[str, Any]) -> int:
    return _kind_from(data).default_batch_size


def _own_uuid(data: dict[str, Any]) -> str:
    return mapping_uuid(DEFAULT_FLEET, data["name"])


def _target_form(value: object) -> str:
    return "<name>" if isinstance(value, str) else "<inline>"


TargetField = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated[TargetConfig, Tag("<inline>")], Discriminator(_target_form)
]


class MappingConfig(ConfigModel):
    """Joins one source to one target."""

    name: Name
    """What the mapping is called in logs, metrics and messages; unique."""
    uuid: Annotated[str, AfterValidator(_uuid)] = Field(default_factory=_own_uuid)
    """Identity of the mapping: leases and the Kafka group hang on it; default: made of fleet and name."""
    enabled: Flag = True
    """False keeps the mapping in the file and polls nothing."""

    event_source_arn: SourceArn | None = None
    """The queue or stream to read."""
    self_managed_event_source: SelfManagedEventSource | None = None
    """The Kafka cluster to read, in place of event_source_arn."""
    topics: Annotated[tuple[Topic, ...], Field(min_length=1, max_length=1)] | None = None
    """Kafka: the one topic to read."""
    source_access_configurations: Annotated[tuple[SourceAccessConfiguration, ...], Field(max_length=23)] = ()
    """Kafka: credentials and certificates; with any of them the connection uses TLS."""
    tls: Flag | None = None
    """Kafka: decides about TLS, whatever source_access_configurations holds."""
    self_managed_kafka_event_source_config: KafkaSourceConfig | None = None
    """Kafka: the consumer group."""
    region: Region | None = None
    """Region of the source; default: the one in its ARN."""
    role: Annotated[str, AfterValidator(_role)] | None = None
    """Role that failure records and events name as the invoking identity."""
    endpoint_url: Endpoint | None = None
    """Where the source's service is, if not at AWS's own address."""

    function_name: FunctionName | None = None
    """The Lambda function to invoke; or else target."""
    target: TargetField | None = None
    """The target to invoke: a name from targets, or inline lambda, http or python."""

    batch_size: Annotated[Whole, Field(ge=1, le=10_000)] = Field(default_factory=_batch_size)
    """Records of one batch at most; default: 10 for SQS, 100 for streams and Kafka."""
    maximum_batching_window_in_seconds: Annotated[Whole, Field(ge=0, le=300)] | None = None
    """How long to gather a batch; default: 0, and half a second for Kafka."""
    starting_position: StartingPosition = StartingPosition.TRIM_HORIZON
    """Where a stream is read from without a checkpoint; required for Kinesis and DynamoDB, TRIM_HORIZON for Kafka."""
    starting_position_timestamp: Moment | None = None
    """With AT_TIMESTAMP: epoch seconds, or a time with its offset."""
    parallelization_factor: Annotated[Whole, Field(ge=1, le=10)] = 1
    """Batches of one shard that may run side by side, each key in one of them."""
    tumbling_window_in_seconds: Annotated[Whole, Field(ge=0, le=900)] = 0
    """Length of the aggregation window; 0 for none."""

    maximum_retry_attempts: Annotated[Whole, Field(ge=-1, le=10_000)] = -1
    """Retries of a failing batch before it is discarded; -1 for ever."""
    maximum_record_age_in_seconds: RecordAge = -1
    """Seconds since arrival after which a record is discarded; -1 keeps it until it leaves the source."""
    bisect_batch_on_function_error: Flag = False
    """Halve a failing batch and try its halves."""
    function_response_types: Annotated[tuple[Literal["ReportBatchItemFailures"], ...], Field(max_length=1)] = ()
    """ReportBatchItemFailures: the reply may name the records that failed."""
    destination_config: DestinationConfig | None = None
    """Where discarded batches go."""
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.WAIT
    """While the destination does not take a batch: wait for it, or drop the batch as AWS does."""
    scaling_config: ScalingConfig | None = None
    """How many invocations of this mapping may run at once."""
    filter_criteria: FilterCriteria | None = None
    """Which records are delivered."""

    provisioned_poller_config: ProvisionedPollerConfig | None = None
    """Accepted, of no effect here."""
    metrics_config: MetricsConfig | None = None
    """Accepted, of no effect here."""
    logging_config: LoggingConfig | None = None
    """Accepted, of no effect here."""
    tags: dict[str, str] | None = None
    """Accepted, of no effect here."""

    # Named so that a neutral value is not an unknown key; anything else is refused by `support`.
    kms_key_arn: Literal[""] | None = None
    """Not supported yet."""

    @property
    def arn(self) -> Arn | None:
        """The source's ARN, taken apart; None for self-managed Kafka."""
        return Arn.parse(self.event_source_arn) if self.event_source_arn else None

    @property
    def kind(self) -> SourceKind:
        """sqs, kinesis, dynamodb or kafka."""
        return source_arn(self.event_source_arn)[0] if self.event_source_arn else SourceKind.KAFKA

    @property
    def source_name(self) -> str:
        """What people call the source: the queue, stream, table or topic."""
        return self.arn.name if self.arn else self.topic

    @property
    def source_region(self) -> str | None:
        """Region to talk to: region, else the ARN's; None leaves it to aws.region."""
        return self.region or (self.arn.region if self.arn else None)

    @property
    def window(self) -> float:
        """The batching window in seconds, the source's default where none is set."""
        window = self.maximum_batching_window_in_seconds
        return self.kind.default_window if window is None else float(window)

    @property
    def report_batch_item_failures(self) -> bool:
        """Whether replies are read as reports."""
        return "ReportBatchItemFailures" in self.function_response_types

    @property
    def on_failure(self) -> Arn | None:
        """The queue that discarded batches go to."""
        config = self.destination_config
        return queue_arn(config.on_failure.destination) if config and config.on_failure else None

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of its filters; none lets every record pass."""
        return tuple(each.pattern for each in self.filter_criteria.filters) if self.filter_criteria else ()

    @property
    def maximum_concurrency(self) -> int | None:
        """The mapping's own cap on invocations; None for no cap."""
        return self.scaling_config.maximum_concurrency if self.scaling_config else None

    @property
    def topic(self) -> str:
        """Kafka: the topic; empty elsewhere."""
        return self.topics[0] if self.topics else ""

    @property
    def bootstrap_servers(self) -> tuple[str, ...]:
        """Kafka: host:port of the brokers to start with; empty elsewhere."""
        source = self.self_managed_event_source
        return source.endpoints.kafka_bootstrap_servers if source else ()

    @property
    def consumer_group_id(self) -> str:
        """Kafka: the group to read as, the mapping's uuid unless given."""
        config = self.self_managed_kafka_event_source_config
        return (config.consumer_group_id if config else None) or self.uuid

    @property
    def access(self) -> tuple[SourceAccessConfiguration, ...]:
        """Kafka: the credentials and certificates that count here, without AWS's network settings."""
        return tuple(each for each in self.source_access_configurations if each.type not in NETWORK)

    @property
    def uses_tls(self) -> bool:
        """Kafka: TLS when an access configuration is given, plaintext when none, unless ``tls`` says otherwise."""
        return bool(self.access) if self.tls is None else self.tls

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """The rules between parameters (mapping-parameters 5.2), as far as nothing outside has to be asked."""
        kind = kind_of(data)
        if kind:
            yield from not_here(kind, data)
        yield from not_yet("mapping", data)
        yield from _one_target(data)
        yield from _one_source(data)
        if kind:
            yield from _window_of_queue(kind, data)
            yield from _start(kind, data)
            yield from _filters(kind, data)
        if kind is SourceKind.KAFKA:
            yield from _kafka(data)


def _one_target(data: object) -> Iterator[Breach]:
    function, target = given(data, "function_name"), given(data, "target")
    if function is None and target is None:
        yield Breach((), "expected function_name or target, found neither")
    elif function is not None and target is not None:
        yield Breach(place(data, "target"), "expected function_name or target, found both")


def _one_source(data: object) -> Iterator[Breach]:
    arn, cluster = given(data, "event_source_arn"), given(data, "self_managed_event_source")
    if arn is None and cluster is None:
        yield Breach((), "expected event_source_arn or self_managed_event_source, found neither")
    elif arn is not None and cluster is not None:
        yield Breach(place(data, "self_managed_event_source"), "expected it or event_source_arn, found both")


def _window_of_queue(kind: SourceKind, data: object) -> Iterator[Breach]:
    size, window = whole(given(data, "batch_size")), given(data, "maximum_batching_window_in_seconds")
    if kind is SourceKind.SQS and size and 10 < size <= 10_000 and whole(window) in (None, 0):
        text = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        yield Breach(place(data, "batch_size"), text, shows=True)


def _start(kind: SourceKind, data: object) -> Iterator[Breach]:
    position, moment = given(data, "starting_position"), given(data, "starting_position_timestamp")
    at, when = place(data, "starting_position"), place(data, "starting_position_timestamp")
    if kind in (SourceKind.KINESIS, SourceKind.DYNAMODB) and position is None:
        words = "TRIM_HORIZON, LATEST or AT_TIMESTAMP" if kind is SourceKind.KINESIS else "TRIM_HORIZON or LATEST"
        yield Breach(at, f"is missing, expected {words}")
    if kind is SourceKind.SQS:
        return
    if position == "AT_TIMESTAMP":
        if kind is SourceKind.DYNAMODB:
            yield Breach(at, "DynamoDB Streams know no AT_TIMESTAMP, expected TRIM_HORIZON or LATEST", shows=True)
        elif moment is None:
            yield Breach(at, "a starting_position_timestamp must be provided", shows=True)
    elif moment is not None:
        yield Breach(when, "Timestamp only valid with StartingPosition AT_TIMESTAMP")
    seconds = epoch_of(moment)
    if seconds is not None and seconds > time.time():
        yield Breach(when, "lies in the future", shows=True)


def _filters(kind: SourceKind, data: object) -> Iterator[Breach]:
    """Each pattern that is none for a source of this kind, with the place in it."""
    for loc, text in find(data, "filter_criteria", "filters", "*", "pattern"):
        if isinstance(text, str):
            try:
                judge_of(DATA_RULES[kind.value], text)
            except BadPattern as error:
                yield Breach(loc, str(error).rstrip("."))


def _kafka(data: object) -> Iterator[Breach]:
    if given(data, "topics") is None:
        yield Breach(("topics",), "is missing, expected a list with the one topic to read")
    entries = list(find(data, "source_access_configurations", "*", "type"))
    logins = [value for _, value in entries if value in LOGINS]
    seen: set[object] = set()
    for loc, value in entries:
        if value in LOGINS and value != logins[0]:
            yield Breach(loc, f"a second way to log in, beside {logins[0]}; expected one", shows=True)
        elif value in seen and value not in NETWORK:
            yield Breach(loc, "is given twice", shows=True)
        seen.add(value if isinstance(value, str) else None)
    certificates = [value for _, value in entries if value in CERTIFICATES]
    if certificates and truth(given(data, "tls")) is False:
        yield Breach(place(data, "tls"), f"{certificates[0]} needs TLS", shows=True)
