"""Which option works on which source, and what this version does not do yet: the two tables that every issue edits."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from esm.config.base import Breach, find, given, truth, whole
from esm.config.sources import SourceKind

SQS, KINESIS, DYNAMODB, KAFKA = SourceKind  # in the order of its members
SHARDS = frozenset({KINESIS, DYNAMODB})
ORDERED = SHARDS | {KAFKA}

APPLIES: dict[str, frozenset[SourceKind]] = {  # an option that is absent here applies to every source
    "starting_position": ORDERED,
    "starting_position_timestamp": frozenset({KINESIS, KAFKA}),
    "parallelization_factor": SHARDS,
    "tumbling_window_in_seconds": SHARDS,
    "maximum_retry_attempts": ORDERED,
    "maximum_record_age_in_seconds": ORDERED,
    "bisect_batch_on_function_error": ORDERED,
    "destination_config": ORDERED,
    "on_destination_failure": ORDERED,
    "scaling_config": frozenset({SQS}),
    "provisioned_poller_config": frozenset({SQS, KAFKA}),
    "logging_config": frozenset({KAFKA}),
    "topics": frozenset({KAFKA}),
    "tls": frozenset({KAFKA}),
    "source_access_configurations": frozenset({KAFKA}),
    "self_managed_event_source": frozenset({KAFKA}),
    "self_managed_kafka_event_source_config": frozenset({KAFKA}),
    "amazon_managed_kafka_event_source_config": frozenset({KAFKA}),
    "queues": frozenset(),
    "document_db_event_source_config": frozenset(),
    "deaggregate": frozenset({KINESIS}),
    "kcl_application": SHARDS,
}


class NotYet(Struct, frozen=True):
    """One thing that a configuration may ask for and that this version does not do."""

    model: str
    """The section it stands in: mapping, leases, worker."""
    path: tuple[str, ...]
    """Canonical keys from there; ``*`` is each element of a list."""
    what: str
    """The start of the sentence ``… is not supported yet``."""
    asked: Callable[[object], bool] = lambda value: True
    """Whether a value asks for it."""


def _above(limit: int) -> Callable[[object], bool]:
    return lambda value: (whole(value) or 0) > limit


def _starts(*prefixes: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value.startswith(prefixes)


def _of_type(*words: str) -> Callable[[object], bool]:
    return lambda value: given(value, "type") in words


def _service(name: str, *inside: str) -> Callable[[object], bool]:
    """An ARN of service ``name`` whose resource holds each of ``inside``."""

    def asked(value: object) -> bool:
        parts = value.split(":", 5) if isinstance(value, str) else []
        return len(parts) == 6 and parts[0] == "arn" and parts[2] == name and all(each in parts[5] for each in inside)

    return asked


def _fifo(value: object) -> bool:
    return _service("sqs")(value) and str(value).endswith(".fifo")


def _set(value: object) -> bool:
    """Neither false nor empty."""
    return truth(value) is not False and value not in ("", 0, [], {})


SOURCE = ("event_source_arn",)
FAILED = ("destination_config", "on_failure", "destination")
ACCESS = ("source_access_configurations", "*")
KAFKA_CONFIG = ("self_managed_kafka_event_source_config", "schema_registry_config")
OAUTH = ("OAUTHBEARER_AUTH", "OAUTHBEARER_SCOPE", "OAUTHBEARER_AUDIENCE", "OAUTHBEARER_LOGICAL_CLUSTER")

NOT_YET: tuple[NotYet, ...] = (  # an issue that builds one of these deletes its line
    NotYet("mapping", SOURCE, "a FIFO queue", _fifo),
    NotYet("mapping", SOURCE, "a stream consumer (enhanced fan-out)", _service("kinesis", "/consumer/")),
    NotYet("mapping", SOURCE, "an MSK cluster by its ARN", _service("kafka")),
    NotYet("mapping", SOURCE, "an Amazon MQ broker", _service("mq")),
    NotYet("mapping", SOURCE, "a DocumentDB cluster", _service("rds")),
    NotYet("mapping", ("parallelization_factor",), "a factor above 1", _above(1)),
    NotYet("mapping", ("tumbling_window_in_seconds",), "a tumbling window", _above(0)),
    NotYet("mapping", ("kms_key_arn",), "an encrypted filter", _set),
    NotYet("mapping", ("deaggregate",), "the taking apart of KPL aggregates", _set),
    NotYet("mapping", ("strict_response",), "a strict response", _set),
    NotYet("mapping", ("payload",), "a payload in the failure record"),
    NotYet("mapping", ("kcl_application",), "a lease table of KCL"),
    NotYet("mapping", ("destination_config", "on_success"), "a destination for successes", _set),
    NotYet("mapping", FAILED, "an SNS topic as a destination", _service("sns")),
    NotYet("mapping", FAILED, "an S3 bucket as a destination", _service("s3")),
    NotYet("mapping", FAILED, "a Kafka topic as a destination", _starts("kafka://")),
    NotYet("mapping", FAILED, "a URL as a destination", _starts("http://", "https://")),
    NotYet("mapping", FAILED, "a file as a destination", _starts("file:")),
    NotYet("mapping", ACCESS, "a login by IAM", _of_type("IAM_AUTH", "IAM_OAUTHBEARER_AUTH")),
    NotYet("mapping", ACCESS, "a login by OAuth", _of_type(*OAUTH, "OAUTHBEARER_IDENTITY_POOL")),
    NotYet("mapping", KAFKA_CONFIG, "a schema registry", _set),
    NotYet("mapping", ("amazon_managed_kafka_event_source_config",), "an MSK cluster"),
    NotYet("leases", ("dynamodb",), "a lease table in DynamoDB"),
    NotYet("leases", ("failover_time_in_seconds",), "the sharing of leases"),
    NotYet("worker", ("processes",), "more than one process", _above(1)),
)


def not_yet(model: str, data: object) -> Iterator[Breach]:
    """What ``data`` asks for and this version does not do."""
    for row in NOT_YET:
        if row.model == model:
            for loc, value in find(data, *row.path):
                if row.asked(value):
                    yield Breach(loc, f"{row.what} is not supported yet", covers=True)


def not_here(kind: SourceKind, data: object) -> Iterator[Breach]:
    """Options that a source of this kind does not have."""
    for option, kinds in APPLIES.items():
        if kind not in kinds:
            for loc, _ in find(data, option):
                yield Breach(loc, f"does not apply to {kind.label}", covers=True)
