"""What an operator should know about a configuration that can be used."""

from pathlib import Path

import pytest

from tests.support.config import SQS, mapping_of, notices_of

LIMIT = "maximum_retry_attempts: 3"
QUEUE = "destination_config: {on_failure: {destination: 'arn:aws:sqs:eu-west-1:123456789012:failed'}}"


@pytest.mark.parametrize("source, lane", [("Kinesis", "shard"), ("DynamoDB Streams", "shard"), ("Kafka", "partition")])
def test_endless_retries_without_a_destination_are_warned_of(tmp_path: Path, source: str, lane: str) -> None:
    assert notices_of(tmp_path, mapping_of(source)) == [
        (
            f"2: mappings[0]: a record that always fails blocks its {lane} until it expires; "
            "set maximum_retry_attempts or maximum_record_age_in_seconds, and a destination_config"
        )
    ]
    assert notices_of(tmp_path, mapping_of(source, QUEUE)) == [
        (
            "2: mappings[0].destination_config: nothing is ever discarded, so the destination stays unused; "
            "set maximum_retry_attempts or maximum_record_age_in_seconds"
        )
    ]
    assert notices_of(tmp_path, mapping_of(source, f"{LIMIT}, {QUEUE}")) == []
    assert notices_of(tmp_path, mapping_of(source, f"maximum_record_age_in_seconds: 60, {QUEUE}")) == []


def test_a_limit_without_a_destination_loses_what_it_discards(tmp_path: Path) -> None:
    assert notices_of(tmp_path, mapping_of("Kinesis", LIMIT)) == [
        ("2: mappings[0]: what its limits discard is counted and logged, but kept nowhere; set a destination_config")
    ]


def test_a_queue_is_not_warned_of(tmp_path: Path) -> None:
    assert notices_of(tmp_path, mapping_of("SQS")) == []


@pytest.mark.parametrize(
    "option",
    ["provisioned_poller_config: {minimum_pollers: 2}", "metrics_config: {metrics: [EventCount]}", "tags: {a: b}"],
)
def test_options_without_effect_are_named(tmp_path: Path, option: str) -> None:
    assert notices_of(tmp_path, mapping_of("SQS", option)) == [
        f"2: mappings[0].{option.partition(':')[0]}: has no effect here"
    ]


def test_what_has_no_effect_on_kafka_is_named_too(tmp_path: Path) -> None:
    more = (
        f"{LIMIT}, {QUEUE}, logging_config: {{system_log_level: DEBUG}}, source_access_configurations: "
        "[{type: VPC_SUBNET, uri: 'subnet:subnet-1'}, {type: VPC_SECURITY_GROUP, uri: 'security_group:sg-1'}]"
    )
    assert notices_of(tmp_path, mapping_of("Kafka", more)) == [
        "2: mappings[0].logging_config: has no effect here",
        (
            "2: mappings[0].source_access_configurations[0]: VPC_SUBNET has no effect here: the network is "
            "the worker's own"
        ),
        (
            "2: mappings[0].source_access_configurations[1]: VPC_SECURITY_GROUP has no effect here: the network is the "
            "worker's own"
        ),
    ]


def test_two_mappings_of_one_queue_compete(tmp_path: Path) -> None:
    text = mapping_of("SQS", name="a") + f"- {{name: b, event_source_arn: {SQS}, function_name: g%s}}\n"
    assert notices_of(tmp_path, text % "") == [
        "3: mappings[1].event_source_arn: reads the same queue as a: each message reaches one of them, not both"
    ]
    assert notices_of(tmp_path, text % ", enabled: false") == []


def test_memory_forgets_and_idle_targets_are_named(tmp_path: Path) -> None:
    text = """\
leases: {memory: {}}
targets:
  idle: {http: {url: 'http://a'}}
  off: {http: {url: 'http://a'}, reserved_concurrency: 0}
"""
    kinesis = mapping_of("Kinesis", f"{LIMIT}, {QUEUE}, target: off", name="clicks").replace("function_name: f, ", "")
    assert notices_of(tmp_path, text + kinesis) == [
        "1: leases.memory: a restart forgets the positions of clicks",
        "3: targets.idle: no mapping uses it",
        "4: targets.off.reserved_concurrency: 0 turns the target off: its mappings wait",
    ]


def test_a_mapping_that_is_off_is_warned_of_when_it_is_on(tmp_path: Path) -> None:
    assert notices_of(tmp_path, mapping_of("Kinesis", "enabled: false")) == []
