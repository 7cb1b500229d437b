"""Which option works on which source, and what this version does not do yet: said, never ignored."""

from pathlib import Path

import pytest

from esm.config.mapping import MappingConfig
from esm.config.sources import SourceKind
from esm.config.support import APPLIES, NOT_YET, NotYet
from tests.support.config import SOURCES, complaints, load_text, mapping_of

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failed"
OPTIONS = {  # option → a value that is fine where it applies
    "parallelization_factor": "1",
    "tumbling_window_in_seconds": "0",
    "maximum_retry_attempts": "3",
    "maximum_record_age_in_seconds": "60",
    "bisect_batch_on_function_error": "true",
    "destination_config": f"{{on_failure: {{destination: '{QUEUE}'}}}}",
    "on_destination_failure": "drop",
    "scaling_config": "{maximum_concurrency: 5}",
    "provisioned_poller_config": "{minimum_pollers: 2}",
    "logging_config": "{system_log_level: INFO}",
    "tls": "true",
    "source_access_configurations": "[{type: BASIC_AUTH, uri: 'env:X'}]",
    "self_managed_kafka_event_source_config": "{}",
    "batch_size": "5",
    "maximum_batching_window_in_seconds": "5",
    "function_response_types": "[ReportBatchItemFailures]",
    "filter_criteria": "{filters: []}",
    "metrics_config": "{metrics: [EventCount]}",
    "tags": "{a: b}",
    "region": "eu-west-1",
}
KINDS = {kind.label: kind for kind in SourceKind}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_an_option_applies_to_a_source_or_is_refused(tmp_path: Path, source: str, option: str) -> None:
    text = mapping_of(source, f"{option}: {OPTIONS[option]}")
    if KINDS[source] in APPLIES.get(option, frozenset(SourceKind)):
        (mapping,) = load_text(tmp_path, text).config.mappings
        assert option in mapping.model_fields_set
    else:
        assert complaints(tmp_path, text) == [f"2: mappings[0].{option}: does not apply to {source}"]


@pytest.mark.parametrize(
    "source, options",
    [
        ("SQS", {"starting_position: LATEST", "starting_position_timestamp: 5", "topics: [a]", "queues: [a]"}),
        ("Kinesis", {"topics: [a]", "queues: [a]", "document_db_event_source_config: {database_name: a}"}),
        ("DynamoDB Streams", {"starting_position_timestamp: 5", "deaggregate: true"}),
        ("Kafka", {"queues: [a]", "kcl_application: a", "deaggregate: true"}),
    ],
)
def test_options_of_other_sources_do_not_apply(tmp_path: Path, source: str, options: set[str]) -> None:
    lines = complaints(tmp_path, mapping_of(source, ", ".join(options)))
    expected = sorted(f"2: mappings[0].{option.split(':')[0]}: does not apply to {source}" for option in options)
    assert sorted(lines) == expected


def test_every_refused_option_is_a_field_or_known_to_be_none() -> None:
    """A typing error in the tables would let an option pass unseen."""
    foreign = {
        "amazon_managed_kafka_event_source_config",
        "queues",
        "document_db_event_source_config",
        "deaggregate",
        "kcl_application",
    }
    assert set(APPLIES) - set(MappingConfig.model_fields) == foreign


ACCESS = "source_access_configurations: [{{type: {}}}]"
FAILED = "destination_config: {{on_failure: {{destination: '{}'}}}}"
ASKED = [  # source, what is asked for, where the sentence stands, what it says
    ("Kinesis", "parallelization_factor: 2", "parallelization_factor", "a factor above 1"),
    ("Kinesis", "ParallelizationFactor: '10'", "ParallelizationFactor", "a factor above 1"),
    ("DynamoDB Streams", "tumbling_window_in_seconds: 1", "tumbling_window_in_seconds", "a tumbling window"),
    ("SQS", "kms_key_arn: 'arn:aws:kms:eu-west-1:1:key/a'", "kms_key_arn", "an encrypted filter"),
    ("Kinesis", "deaggregate: true", "deaggregate", "the taking apart of KPL aggregates"),
    ("SQS", "strict_response: true", "strict_response", "a strict response"),
    ("Kinesis", "payload: reference", "payload", "a payload in the failure record"),
    ("Kinesis", "kcl_application: old", "kcl_application", "a lease table of KCL"),
    (
        "Kinesis",
        f"destination_config: {{on_success: {{destination: '{QUEUE}'}}}}",
        "destination_config.on_success",
        "a destination for successes",
    ),
    *[
        ("Kafka", FAILED.format(uri), "destination_config.on_failure.destination", what)
        for uri, what in [
            ("arn:aws:sns:eu-west-1:123456789012:topic", "an SNS topic as a destination"),
            ("arn:aws:s3:::bucket", "an S3 bucket as a destination"),
            ("kafka://topic", "a Kafka topic as a destination"),
            ("https://example.com/", "a URL as a destination"),
            ("file:/x", "a file as a destination"),
        ]
    ],
    ("Kafka", ACCESS.format("IAM_AUTH"), "source_access_configurations[0]", "a login by IAM"),
    ("Kafka", ACCESS.format("OAUTHBEARER_AUTH, uri: 'env:X'"), "source_access_configurations[0]", "a login by OAuth"),
    (
        "Kafka",
        "self_managed_kafka_event_source_config: {schema_registry_config: {schema_registry_uri: 'http://a'}}",
        "self_managed_kafka_event_source_config.schema_registry_config",
        "a schema registry",
    ),
    (
        "Kafka",
        "amazon_managed_kafka_event_source_config: {consumer_group_id: a}",
        "amazon_managed_kafka_event_source_config",
        "an MSK cluster",
    ),
]


@pytest.mark.parametrize("source, asked, where, what", ASKED)
def test_what_is_not_built_is_refused_by_its_name_and_nothing_else_is_said(
    tmp_path: Path, source: str, asked: str, where: str, what: str
) -> None:
    assert complaints(tmp_path, mapping_of(source, asked)) == [f"2: mappings[0].{where}: {what} is not supported yet"]


SOURCE_ARNS = [
    ("sqs:eu-west-1:123456789012:orders.fifo", "a FIFO queue"),
    ("kinesis:eu-west-1:123456789012:stream/s/consumer/c:1700000000", "a stream consumer (enhanced fan-out)"),
    ("kafka:eu-west-1:123456789012:cluster/c/5f6f0a52", "an MSK cluster by its ARN"),
    ("mq:eu-west-1:123456789012:broker:b:b-1", "an Amazon MQ broker"),
    ("rds:eu-west-1:123456789012:cluster:c", "a DocumentDB cluster"),
]


@pytest.mark.parametrize("resource, what", SOURCE_ARNS)
def test_a_source_that_is_not_built_is_refused_by_its_name(tmp_path: Path, resource: str, what: str) -> None:
    more = "starting_position: LATEST" if "stream" in resource else "topics: [t]" if "kafka" in resource else ""
    text = f"mappings:\n- {{name: a, function_name: f, event_source_arn: 'arn:aws:{resource}', {more}}}\n"
    assert complaints(tmp_path, text) == [f"2: mappings[0].event_source_arn: {what} is not supported yet"]


def test_a_fifo_queue_is_refused_whatever_else_is_set(tmp_path: Path) -> None:
    text = mapping_of("SQS", "batch_size: 10").replace(":orders", ":orders.fifo")
    assert complaints(tmp_path, text) == ["2: mappings[0].event_source_arn: a FIFO queue is not supported yet"]


@pytest.mark.parametrize(
    "source, more",
    [
        ("Kinesis", "parallelization_factor: 1, tumbling_window_in_seconds: 0"),
        ("Kinesis", "filter_criteria: {}"),
        ("SQS", "filter_criteria: {filters: []}"),
        ("SQS", "kms_key_arn: ''"),
    ],
)
def test_a_neutral_value_asks_for_nothing(tmp_path: Path, source: str, more: str) -> None:
    assert load_text(tmp_path, mapping_of(source, more)).config.mappings


@pytest.mark.parametrize("row", NOT_YET, ids=lambda row: row.what)
def test_every_line_of_the_table_is_tested_here(row: NotYet) -> None:
    tested = {what for *_, what in ASKED} | {what for _, what in SOURCE_ARNS}
    elsewhere = {"a lease table in DynamoDB", "the sharing of leases", "more than one process"}  # test_load
    assert row.what in tested | elsewhere
