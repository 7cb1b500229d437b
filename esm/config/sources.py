"""What a mapping says about its source: its kind, and the nested settings of AWS's parameters."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, WithJsonSchema

from esm.config.base import ConfigModel, Whole, find, given, hidden, mistaken
from esm.domain.arn import Arn


class SourceKind(StrEnum):
    """The kinds of sources that this version reads; all that differs per source hangs on it."""

    SQS = "sqs"
    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"
    KAFKA = "kafka"

    @property
    def label(self) -> str:
        """As people write it."""
        return {"sqs": "SQS", "kinesis": "Kinesis", "dynamodb": "DynamoDB Streams", "kafka": "Kafka"}[self.value]

    @property
    def default_batch_size(self) -> int:
        """AWS's default of batch_size."""
        return 10 if self is SourceKind.SQS else 100

    @property
    def default_window(self) -> float:
        """AWS's default window in seconds; Kafka's half second cannot be written, only left."""
        return 0.5 if self is SourceKind.KAFKA else 0.0


class StartingPosition(StrEnum):
    """Where reading starts when there is no checkpoint."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"


_SHAPES = {
    "sqs": (SourceKind.SQS, r"[A-Za-z0-9_-]{1,80}(\.fifo)?", "arn:aws:sqs:region:account:queue"),
    "kinesis": (
        SourceKind.KINESIS,
        r"stream/[A-Za-z0-9_.-]{1,128}(/consumer/[A-Za-z0-9_.-]{1,128}:\d+)?",
        "arn:aws:kinesis:region:account:stream/name",
    ),
    "dynamodb": (
        SourceKind.DYNAMODB,
        r"table/[A-Za-z0-9_.-]{3,255}/stream/[^/]+",
        "the ARN of the table's stream, arn:aws:dynamodb:region:account:table/name/stream/label",
    ),
    "kafka": (SourceKind.KAFKA, r"cluster/[^/]+/[^/]+", "arn:aws:kafka:region:account:cluster/name/uuid"),
}


def source_arn(text: str) -> tuple[SourceKind, Arn]:
    """The kind of a source, from its ARN.  Raises ValueError with what was expected."""
    arn = Arn.parse(text)
    if arn.service not in _SHAPES:
        raise ValueError("expected the ARN of an SQS queue, a Kinesis stream or a DynamoDB stream")
    kind, shape, example = _SHAPES[arn.service]
    if not re.fullmatch(shape, arn.resource) or not arn.region or not re.fullmatch(r"\d{12}", arn.account):
        raise ValueError(f"expected {example}, with a region and an account of 12 digits")
    return kind, arn


def kind_of(data: object) -> SourceKind | None:
    """The kind of source that a mapping as written means, or None where it does not say."""
    arn = given(data, "event_source_arn")
    if isinstance(arn, str):
        service = arn.split(":")[2] if arn.count(":") >= 2 else ""
        return _SHAPES[service][0] if service in _SHAPES else None
    return SourceKind.KAFKA if any(find(data, "self_managed_event_source")) else None


def _checked_source(text: str) -> str:
    try:
        source_arn(text)
    except ValueError as error:
        raise mistaken(str(error)) from None
    return text


SourceArn = Annotated[str, AfterValidator(_checked_source)]


# --- Kafka ---------------------------------------------------------------------------------------------------------


def _broker(text: str) -> str:
    match = re.fullmatch(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})", text)
    if not match or not 1 <= int(match["port"]) <= 65_535 or len(text) > 300:
        raise mistaken("expected host:port, without a scheme")
    return text


def _split(value: object) -> object:
    """Terraform writes the brokers as one string with commas."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _topic(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}", text):
        raise mistaken("expected up to 249 letters, digits, dots, dashes or underscores, no dot first")
    return text


def _group(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9 \-/*:_+=.@]{1,200}", text):
        raise mistaken("expected 1 to 200 letters, digits, spaces or - / * : _ + = . @")
    return text


Brokers = Annotated[
    tuple[Annotated[str, AfterValidator(_broker)], ...],
    BeforeValidator(_split),
    Field(min_length=1, max_length=10),
    WithJsonSchema(
        {"anyOf": [{"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 10}, {"type": "string"}]}
    ),
]
Topic = Annotated[str, AfterValidator(_topic)]
ConsumerGroupId = Annotated[str, AfterValidator(_group)]


class KafkaEndpoints(ConfigModel):
    """Where a self-managed cluster is."""

    kafka_bootstrap_servers: Brokers = Field(
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "kafka_bootstrap_servers", "KafkaBootstrapServers")
    )
    """1 to 10 of host:port; one string with commas will do."""


class SelfManagedEventSource(ConfigModel):
    """A Kafka cluster that is not Amazon MSK."""

    endpoints: KafkaEndpoints
    """Its bootstrap servers."""


class KafkaSourceConfig(ConfigModel):
    """Settings of the consumer group."""

    consumer_group_id: ConsumerGroupId | None = None
    """Group to read as; default: the mapping's uuid."""


class AccessType(StrEnum):
    """What a source access configuration provides."""

    BASIC_AUTH = "BASIC_AUTH"
    SASL_SCRAM_256_AUTH = "SASL_SCRAM_256_AUTH"
    SASL_SCRAM_512_AUTH = "SASL_SCRAM_512_AUTH"
    CLIENT_CERTIFICATE_TLS_AUTH = "CLIENT_CERTIFICATE_TLS_AUTH"
    SERVER_ROOT_CA_CERTIFICATE = "SERVER_ROOT_CA_CERTIFICATE"
    VPC_SUBNET = "VPC_SUBNET"
    VPC_SECURITY_GROUP = "VPC_SECURITY_GROUP"


LOGINS = (
    AccessType.BASIC_AUTH,
    AccessType.SASL_SCRAM_256_AUTH,
    AccessType.SASL_SCRAM_512_AUTH,
    AccessType.CLIENT_CERTIFICATE_TLS_AUTH,
)
"""A mapping logs in one way at most."""
CERTIFICATES = (AccessType.CLIENT_CERTIFICATE_TLS_AUTH, AccessType.SERVER_ROOT_CA_CERTIFICATE)
"""These mean nothing without TLS."""
NETWORK = (AccessType.VPC_SUBNET, AccessType.VPC_SECURITY_GROUP)
"""Of no effect here: the network is the one that the worker runs in."""


def _access_uri(text: str) -> str:
    scheme, _, rest = text.partition(":")
    match scheme:
        case "file" if rest.strip() and "\x00" not in rest:
            return text
        case "env" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", rest):
            return text
        case "arn" if re.fullmatch(r"arn:[a-z0-9-]+:secretsmanager:[a-z0-9-]+:\d{12}:secret:\S+", text):
            return text
        case "subnet" | "security_group" if rest:
            return text
        case _:  # somebody may have written the secret itself
            raise hidden("expected file:PATH, env:NAME or the ARN of a secret")


class SourceAccessConfiguration(ConfigModel):
    """One credential or certificate of a Kafka cluster."""

    type: AccessType
    """What the secret holds."""
    uri: Annotated[str, AfterValidator(_access_uri)]
    """Where the secret is: file:PATH, env:NAME or a secret's ARN.  It holds JSON, as AWS lays it out."""

    @property
    def arn(self) -> Arn | None:
        """The secret's ARN, where that is what was given."""
        return Arn.parse(self.uri) if self.uri.startswith("arn:") else None


# --- of every source -----------------------------------------------------------------------------------------------


class ScalingConfig(ConfigModel):
    """How far a mapping may scale."""

    maximum_concurrency: Annotated[Whole, Field(ge=2, le=1_000)] | None = None
    """Invocations of this mapping that may run at once; default: as many as its target and worker allow."""


def _queue(text: str) -> str:
    arn = queue_arn(text)
    if text and arn is None:
        raise mistaken("expected the ARN of an SQS queue, arn:aws:sqs:region:account:queue")
    if arn is not None and arn.resource.endswith(".fifo"):
        raise mistaken("a FIFO queue cannot be a destination; use a standard queue")
    return text


def queue_arn(text: str) -> Arn | None:
    """The ARN of an SQS queue, FIFO or not; None for anything else."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        return None
    shaped = arn.region and re.fullmatch(r"\d{12}", arn.account) and re.fullmatch(r"[\w-]{1,80}(\.fifo)?", arn.resource)
    return arn if arn.service == "sqs" and shaped else None


class OnFailure(ConfigModel):
    """Where discarded batches go."""

    destination: Annotated[str, AfterValidator(_queue), Field(max_length=350)] = ""
    """The ARN of a standard SQS queue; empty for none."""


class DestinationConfig(ConfigModel):
    """What happens to batches that were given up."""

    on_failure: OnFailure | None = None
    """Where they go."""


class FilterPattern(ConfigModel):
    """One event pattern."""

    pattern: Annotated[str, Field(max_length=4_096)]
    """JSON text, as AWS writes event patterns; `{}` lets every record pass."""


class FilterCriteria(ConfigModel):
    """Which records are delivered."""

    filters: Annotated[tuple[FilterPattern, ...], Field(max_length=10)] = ()
    """A record passes if one of the patterns fits."""


# --- accepted, of no effect here -----------------------------------------------------------------------------------


class ProvisionedPollerConfig(ConfigModel):
    """AWS's provisioned mode; of no effect here."""

    minimum_pollers: Annotated[Whole, Field(ge=1, le=200)] | None = None
    """The fewest pollers."""
    maximum_pollers: Annotated[Whole, Field(ge=1, le=10_000)] | None = None
    """The most pollers."""
    poller_group_name: Annotated[str, Field(max_length=128)] | None = None
    """Kafka: mappings that share pollers."""


class MetricsConfig(ConfigModel):
    """AWS's choice of metrics; of no effect here, /metrics has all of them."""

    metrics: Annotated[tuple[Literal["EventCount", "ErrorCount", "KafkaMetrics"], ...], Field(max_length=3)] = ()
    """Groups of metrics."""


class LoggingConfig(ConfigModel):
    """AWS's log level of a mapping; of no effect here, see --log-level."""

    system_log_level: Literal["DEBUG", "INFO", "WARN"] | None = None
    """The least that is logged."""


# --- times and ages ------------------------------------------------------------------------------------------------


def _epoch(value: object) -> float:
    """Epoch seconds of a number or of an ISO 8601 text with an offset."""
    seconds: float | None = None
    if (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"\d{1,12}(\.\d{1,9})?", value)
    ):
        seconds = float(value)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            seconds = moment.timestamp() if moment.tzinfo else None
        except (ValueError, OverflowError):
            seconds = None
    if seconds is None or not 0 <= seconds < 1e11:
        raise mistaken("expected seconds since 1970 or a time with its offset, like 2026-01-31T12:00:00Z")
    return seconds


Moment = Annotated[
    float,
    BeforeValidator(_epoch),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]
"""Epoch seconds, written as a number or as a time with its offset."""


def epoch_of(value: object) -> float | None:
    """The moment that ``value`` spells, or None."""
    try:
        return _epoch(value)
    except ValueError:
        return None


def _age(seconds: int) -> int:
    if 0 <= seconds < 60:
        raise mistaken("must be either -1 (forever) or between 60 and 604800 (inclusive)")
    return seconds


RecordAge = Annotated[
    Whole,
    Field(ge=-1, le=604_800),
    AfterValidator(_age),
    WithJsonSchema({"anyOf": [{"const": -1}, {"type": "integer", "minimum": 60, "maximum": 604_800}]}),
]
