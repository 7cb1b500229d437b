"""One mapping: ranges, defaults per source, and the rules between parameters (mapping-parameters 2, 3 and 5)."""

import re
import time
from pathlib import Path
from uuid import UUID

import pytest

from esm.config.mapping import OnDestinationFailure, mapping_uuid
from esm.config.sources import AccessType, SourceKind, StartingPosition
from tests.support.config import DYNAMODB, KINESIS, SOURCES, SQS, complaints, load_text, mapping_of, only_mapping

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failed"


def said(folder: Path, source: str, more: str = "") -> list[str]:
    """What is wrong with the one mapping, without its place in the file."""
    lines = complaints(folder, mapping_of(source, more))
    return [re.sub(r"^2: mappings\[0\][.:] ?", "", line) for line in lines]


# --- defaults


@pytest.mark.parametrize(
    "source, kind, size, window",
    [
        ("SQS", SourceKind.SQS, 10, 0.0),
        ("Kinesis", SourceKind.KINESIS, 100, 0.0),
        ("DynamoDB Streams", SourceKind.DYNAMODB, 100, 0.0),
        ("Kafka", SourceKind.KAFKA, 100, 0.5),
    ],
)
def test_defaults_are_those_of_the_source(
    tmp_path: Path, source: str, kind: SourceKind, size: int, window: float
) -> None:
    mapping = only_mapping(tmp_path, mapping_of(source))
    assert (mapping.kind, mapping.batch_size, mapping.window) == (kind, size, window)
    assert mapping.enabled
    assert mapping.starting_position is StartingPosition.TRIM_HORIZON
    assert (mapping.maximum_retry_attempts, mapping.maximum_record_age_in_seconds) == (-1, -1)
    assert (mapping.parallelization_factor, mapping.tumbling_window_in_seconds) == (1, 0)
    assert not mapping.bisect_batch_on_function_error
    assert not mapping.report_batch_item_failures
    assert mapping.on_failure is None
    assert mapping.on_destination_failure is OnDestinationFailure.WAIT
    assert mapping.maximum_concurrency is None


def test_an_explicit_window_of_zero_is_a_real_zero_on_kafka(tmp_path: Path) -> None:
    assert only_mapping(tmp_path, mapping_of("Kafka", "maximum_batching_window_in_seconds: 0")).window == 0.0


# --- ranges


@pytest.mark.parametrize(
    "option, low, high",
    [
        ("batch_size", 1, 10_000),
        ("maximum_batching_window_in_seconds", 0, 300),
        ("maximum_retry_attempts", -1, 10_000),
    ],
)
def test_whole_numbers_keep_to_their_range(tmp_path: Path, option: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(only_mapping(tmp_path, mapping_of("Kinesis", f"{option}: {value}")), option) == value
    assert said(tmp_path, "Kinesis", f"{option}: {low - 1}") == [f"{option}: {low - 1}, at least {low}"]
    assert said(tmp_path, "Kinesis", f"{option}: {high + 1}") == [f"{option}: {high + 1}, at most {high}"]
    assert said(tmp_path, "Kinesis", f"{option}: 1.0") == [f"{option}: 1.0, expected a whole number"]


@pytest.mark.parametrize("age", [-1, 60, 604_800])
def test_record_ages_that_are_taken(tmp_path: Path, age: int) -> None:
    mapping = only_mapping(tmp_path, mapping_of("Kinesis", f"maximum_record_age_in_seconds: {age}"))
    assert mapping.maximum_record_age_in_seconds == age


@pytest.mark.parametrize("age", [0, 1, 59])
def test_a_record_age_below_a_minute_is_refused_in_awss_words(tmp_path: Path, age: int) -> None:
    assert said(tmp_path, "DynamoDB Streams", f"maximum_record_age_in_seconds: {age}") == [
        f"maximum_record_age_in_seconds: {age}, must be either -1 (forever) or between 60 and 604800 (inclusive)"
    ]


def test_scaling_goes_from_2_to_1000_and_empty_is_no_cap(tmp_path: Path) -> None:
    assert only_mapping(tmp_path, mapping_of("SQS", "scaling_config: {}")).maximum_concurrency is None
    text = mapping_of("SQS", "scaling_config: {maximum_concurrency: 2}")
    assert only_mapping(tmp_path, text).maximum_concurrency == 2
    assert said(tmp_path, "SQS", "ScalingConfig: {MaximumConcurrency: 1}") == [
        "ScalingConfig.MaximumConcurrency: 1, at least 2"
    ]


# --- spellings


def test_cloudformations_spelling_is_understood(tmp_path: Path) -> None:
    text = f"""\
        Mappings:
          - Name: clicks
            UUID: 5F6F0A52-1C0E-4C6A-9D2B-7A3F1F6F2C10
            EventSourceArn: {KINESIS}
            FunctionName: f
            StartingPosition: LATEST
            MaximumBatchingWindowInSeconds: 3
            BisectBatchOnFunctionError: true
            FunctionResponseTypes: [ReportBatchItemFailures]
            FilterCriteria: {{Filters: []}}
            KMSKeyArn: ""
            DestinationConfig: {{OnFailure: {{Destination: "{QUEUE}"}}}}
        """
    mapping = only_mapping(tmp_path, text)
    assert mapping.uuid == "5f6f0a52-1c0e-4c6a-9d2b-7a3f1f6f2c10"
    assert mapping.window == 3.0
    assert mapping.bisect_batch_on_function_error
    assert mapping.report_batch_item_failures
    assert str(mapping.on_failure) == QUEUE


def test_cloudformations_kafka_is_understood(tmp_path: Path) -> None:
    text = """\
        mappings:
          - Name: payments
            FunctionName: f
            Topics: [payments]
            SelfManagedEventSource: {Endpoints: {KafkaBootstrapServers: ["a:1", "b:2"]}}
            SelfManagedKafkaEventSourceConfig: {ConsumerGroupId: "old uuid"}
            SourceAccessConfigurations: [{Type: BASIC_AUTH, URI: "env:LOGIN"}]
        """
    mapping = only_mapping(tmp_path, text)
    assert mapping.bootstrap_servers == ("a:1", "b:2")
    assert mapping.consumer_group_id == "old uuid"
    assert [(access.type, access.uri) for access in mapping.access] == [(AccessType.BASIC_AUTH, "env:LOGIN")]


def test_terraforms_words_are_understood(tmp_path: Path) -> None:
    text = f"""\
        mappings:
          - name: payments
            function_name: f
            topics: [payments]
            self_managed_event_source: {{endpoints: {{KAFKA_BOOTSTRAP_SERVERS: "a:1, b:2"}}}}
            source_access_configuration: [{{type: BASIC_AUTH, uri: "file:/x"}}]
            filter_criteria: {{filter: []}}
            destination_config: {{on_failure: {{destination_arn: "{QUEUE}"}}}}
        """
    mapping = only_mapping(tmp_path, text)
    assert mapping.bootstrap_servers == ("a:1", "b:2")
    assert len(mapping.access) == 1
    assert str(mapping.on_failure) == QUEUE


# --- source and target


def test_a_mapping_has_one_target(tmp_path: Path) -> None:
    both = mapping_of("SQS", "target: {http: {url: 'http://a'}}")
    assert complaints(tmp_path, both) == ["2: mappings[0].target: expected function_name or target, found both"]
    neither = mapping_of("SQS").replace(", function_name: f", "")
    assert complaints(tmp_path, neither) == ["2: mappings[0]: expected function_name or target, found neither"]


def test_a_mapping_has_one_source(tmp_path: Path) -> None:
    both = mapping_of("Kafka", f"event_source_arn: {SQS}")
    lines = complaints(tmp_path, both)
    assert "2: mappings[0].self_managed_event_source: does not apply to SQS" in lines
    neither = "mappings: [{name: a, function_name: f}]"
    assert complaints(tmp_path, neither) == [
        "1: mappings[0]: expected event_source_arn or self_managed_event_source, found neither"
    ]


@pytest.mark.parametrize(
    "arn, said",
    [
        ("orders", "expected an ARN, arn:partition:service:region:account:resource"),
        ("arn:aws:s3:::bucket", "expected the ARN of an SQS queue, a Kinesis stream or a DynamoDB stream"),
        (
            "arn:aws:sqs:eu-west-1:1234:orders",
            "expected arn:aws:sqs:region:account:queue, with a region and an account of 12 digits",
        ),
        (
            "arn:aws:sqs::123456789012:orders",
            "expected arn:aws:sqs:region:account:queue, with a region and an account of 12 digits",
        ),
        (
            "arn:aws:kinesis:eu-west-1:123456789012:clicks",
            "expected arn:aws:kinesis:region:account:stream/name, with a region and an account of 12 digits",
        ),
        (
            "arn:aws:dynamodb:eu-west-1:123456789012:table/carts",
            (
                "expected the ARN of the table's stream, arn:aws:dynamodb:region:account:table/name/stream/label, "
                "with a region and an account of 12 digits"
            ),
        ),
    ],
)
def test_an_arn_of_no_source_says_what_was_expected(tmp_path: Path, arn: str, said: str) -> None:
    text = f"mappings: [{{name: a, function_name: f, starting_position: LATEST, event_source_arn: '{arn}'}}]"
    lines = [line for line in complaints(tmp_path, text) if "event_source_arn" in line]
    assert lines == [f"1: mappings[0].event_source_arn: {arn}, {said}"]


def test_region_role_and_endpoint_are_the_mappings_own(tmp_path: Path) -> None:
    role = "arn:aws:iam::123456789012:role/x"
    more = f"region: us-east-1, role: '{role}', endpoint_url: 'http://127.0.0.1:9324'"
    mapping = only_mapping(tmp_path, mapping_of("SQS", more))
    assert (mapping.source_region, mapping.role, mapping.endpoint_url) == ("us-east-1", role, "http://127.0.0.1:9324")
    assert only_mapping(tmp_path, mapping_of("SQS")).source_region == "eu-west-1"
    assert only_mapping(tmp_path, mapping_of("Kafka")).source_region is None
    assert said(tmp_path, "SQS", "role: me, endpoint_url: localhost, region: ''") == [
        "endpoint_url: localhost, expected http://host:port/path or https://…",
        "region: '', expected a region, like eu-west-1",
        "role: me, expected the ARN of a role, arn:aws:iam::account:role/name",
    ]


@pytest.mark.parametrize(
    "source, name", [("SQS", "orders"), ("Kinesis", "clicks"), ("DynamoDB Streams", "carts"), ("Kafka", "payments")]
)
def test_a_source_is_called_what_people_call_it(tmp_path: Path, source: str, name: str) -> None:
    assert only_mapping(tmp_path, mapping_of(source)).source_name == name


@pytest.mark.parametrize(
    "name", ["f", "f:PROD", "123456789012:function:f", "arn:aws:lambda:eu-west-1:123456789012:function:f:$LATEST"]
)
def test_functions_are_named_as_lambda_names_them(tmp_path: Path, name: str) -> None:
    text = f"mappings: [{{name: a, event_source_arn: '{SQS}', function_name: '{name}'}}]"
    assert only_mapping(tmp_path, text).function_name == name


@pytest.mark.parametrize("name", ["", "a b", "f:", "x" * 65, "arn:aws:lambda:eu-west-1:1:function:f", "http://f"])
def test_what_is_no_functions_name_is_refused(tmp_path: Path, name: str) -> None:
    (line,) = complaints(tmp_path, f"mappings: [{{name: a, event_source_arn: '{SQS}', function_name: '{name}'}}]")
    assert line.endswith("expected NAME, NAME:ALIAS, ACCOUNT:function:NAME or the ARN of a function")


# --- identity


def test_a_uuid_is_made_of_fleet_and_name(tmp_path: Path) -> None:
    plain = only_mapping(tmp_path, mapping_of("SQS", name="a")).uuid
    prod = only_mapping(tmp_path, "worker: {fleet: prod}\n" + mapping_of("SQS", name="a")).uuid
    other = only_mapping(tmp_path, "worker: {fleet: prod}\n" + mapping_of("SQS", name="b")).uuid
    assert len({plain, prod, other}) == 3
    assert (plain, prod) == (mapping_uuid("esm", "a"), mapping_uuid("prod", "a"))
    assert str(UUID(plain)) == plain


def test_the_way_a_uuid_is_made_never_changes() -> None:
    """Leases and consumer groups of running installations hang on it."""
    assert mapping_uuid("esm", "orders") == "a70751a7-33bb-5cf8-ad43-1c467f991b7a"


def test_the_variable_of_the_fleet_counts_for_uuids(tmp_path: Path) -> None:
    text = mapping_of("SQS", name="a")
    assert only_mapping(tmp_path, text, {"ESM_WORKER__FLEET": "prod"}).uuid == mapping_uuid("prod", "a")


def test_a_uuid_that_is_given_stays_whatever_the_fleet(tmp_path: Path) -> None:
    given = "5f6f0a52-1c0e-4c6a-9d2b-7a3f1f6f2c10"
    text = "worker: {fleet: prod}\n" + mapping_of("Kafka", f"uuid: {given}")
    mapping = only_mapping(tmp_path, text)
    assert (mapping.uuid, mapping.consumer_group_id) == (given, given)
    assert said(tmp_path, "SQS", "uuid: orders") == [
        "uuid: orders, expected a UUID, like 5f6f0a52-1c0e-4c6a-9d2b-7a3f1f6f2c10"
    ]


# --- rules between parameters


def test_a_queue_needs_a_window_above_ten_messages(tmp_path: Path) -> None:
    rule = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
    assert said(tmp_path, "SQS", "batch_size: 11") == [f"batch_size: 11, {rule}"]
    assert said(tmp_path, "SQS", "BatchSize: 11, maximum_batching_window_in_seconds: 0") == [f"BatchSize: 11, {rule}"]
    assert only_mapping(tmp_path, mapping_of("SQS", "batch_size: 10")).batch_size == 10
    assert (
        only_mapping(tmp_path, mapping_of("SQS", "batch_size: 11, maximum_batching_window_in_seconds: 1")).window == 1
    )
    for source in ("Kinesis", "DynamoDB Streams", "Kafka"):
        assert only_mapping(tmp_path, mapping_of(source, "batch_size: 10000")).batch_size == 10_000


def test_streams_need_a_starting_position_and_kafka_does_not(tmp_path: Path) -> None:
    for arn, words in ((KINESIS, "TRIM_HORIZON, LATEST or AT_TIMESTAMP"), (DYNAMODB, "TRIM_HORIZON or LATEST")):
        text = f"mappings: [{{name: a, function_name: f, event_source_arn: '{arn}'}}]"
        assert complaints(tmp_path, text) == [f"1: mappings[0].starting_position: is missing, expected {words}"]
    assert only_mapping(tmp_path, mapping_of("Kafka")).starting_position is StartingPosition.TRIM_HORIZON


def test_a_position_is_a_word_of_three(tmp_path: Path) -> None:
    text = f"mappings: [{{name: a, function_name: f, event_source_arn: '{KINESIS}', starting_position: latest}}]"
    assert complaints(tmp_path, text) == [
        (
            "1: mappings[0].starting_position: latest, expected one of TRIM_HORIZON, LATEST, AT_TIMESTAMP, "
            "did you mean LATEST?"
        )
    ]


@pytest.mark.parametrize(
    "moment, epoch",
    [
        ("1767222000", 1767222000.0),
        ("1767222000.5", 1767222000.5),
        ("'1767222000'", 1767222000.0),
        ("2026-01-01T00:00:00+01:00", 1767222000.0),
        ("2025-12-31T23:00:00Z", 1767222000.0),
        ("0", 0.0),
    ],
)
def test_a_moment_is_epoch_seconds_or_a_time_with_its_offset(tmp_path: Path, moment: str, epoch: float) -> None:
    text = f"mappings: [{{name: a, function_name: f, event_source_arn: '{KINESIS}', starting_position: AT_TIMESTAMP, "
    mapping = only_mapping(tmp_path, text + f"starting_position_timestamp: {moment}}}]")
    assert mapping.starting_position_timestamp == epoch


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "yesterday", "true", "-1", "1e30"])
def test_a_moment_without_an_offset_or_sense_is_refused(tmp_path: Path, moment: str) -> None:
    text = f"mappings: [{{name: a, function_name: f, event_source_arn: '{KINESIS}', starting_position: AT_TIMESTAMP, "
    (line,) = complaints(tmp_path, text + f"starting_position_timestamp: {moment}}}]")
    assert "expected seconds since 1970 or a time with its offset, like 2026-01-31T12:00:00Z" in line


def test_the_rules_of_at_timestamp(tmp_path: Path) -> None:
    def told(arn: str, rest: str) -> list[str]:
        text = f"mappings: [{{name: a, function_name: f, event_source_arn: '{arn}', {rest}}}]"
        return [line.removeprefix("1: mappings[0].") for line in complaints(tmp_path, text)]

    assert told(KINESIS, "starting_position: AT_TIMESTAMP") == [
        "starting_position: AT_TIMESTAMP, a starting_position_timestamp must be provided"
    ]
    assert told(KINESIS, "starting_position: LATEST, starting_position_timestamp: 5") == [
        "starting_position_timestamp: Timestamp only valid with StartingPosition AT_TIMESTAMP"
    ]
    future = int(time.time()) + 3600
    assert told(KINESIS, f"starting_position: AT_TIMESTAMP, starting_position_timestamp: {future}") == [
        f"starting_position_timestamp: {future}, lies in the future"
    ]
    assert told(DYNAMODB, "starting_position: AT_TIMESTAMP, starting_position_timestamp: 5") == [
        "starting_position: AT_TIMESTAMP, DynamoDB Streams know no AT_TIMESTAMP, expected TRIM_HORIZON or LATEST",
        "starting_position_timestamp: does not apply to DynamoDB Streams",
    ]


@pytest.mark.parametrize(
    "destination, said",
    [
        ("arn:aws:sqs:eu-west-1:123456789012:x.fifo", "a FIFO queue cannot be a destination; use a standard queue"),
        ("failed", "expected the ARN of an SQS queue, arn:aws:sqs:region:account:queue"),
        (
            "arn:aws:lambda:eu-west-1:123456789012:function:f",
            "expected the ARN of an SQS queue, arn:aws:sqs:region:account:queue",
        ),
    ],
)
def test_a_destination_is_a_standard_queue(tmp_path: Path, destination: str, said: str) -> None:
    more = f"destination_config: {{on_failure: {{destination: '{destination}'}}}}"
    (line,) = complaints(tmp_path, mapping_of("Kinesis", more))
    assert line == f"2: mappings[0].destination_config.on_failure.destination: {destination}, {said}"


def test_an_empty_destination_is_none(tmp_path: Path) -> None:
    for value in ("{on_failure: {destination: ''}}", "{on_failure: {}}", "{}"):
        assert only_mapping(tmp_path, mapping_of("Kinesis", f"destination_config: {value}")).on_failure is None


def test_a_batch_that_no_destination_takes_waits_or_is_dropped(tmp_path: Path) -> None:
    text = mapping_of("Kinesis", "on_destination_failure: drop")
    assert only_mapping(tmp_path, text).on_destination_failure is OnDestinationFailure.DROP


# --- Kafka


@pytest.mark.parametrize(
    "more, tls",
    [
        ("", False),
        ("tls: true", True),
        ("tls: false", False),
        ("source_access_configurations: [{type: BASIC_AUTH, uri: 'env:X'}]", True),
        ("source_access_configurations: [{type: BASIC_AUTH, uri: 'env:X'}], tls: false", False),
        ("source_access_configurations: [{type: SERVER_ROOT_CA_CERTIFICATE, uri: 'file:/x'}]", True),
        ("source_access_configurations: [{type: VPC_SUBNET, uri: 'subnet:subnet-1'}]", False),
    ],
)
def test_tls_follows_the_access_configurations_unless_it_is_said(tmp_path: Path, more: str, tls: bool) -> None:
    assert only_mapping(tmp_path, mapping_of("Kafka", more)).uses_tls is tls


def test_certificates_need_tls_and_logins_are_one(tmp_path: Path) -> None:
    more = (
        "tls: false, source_access_configurations: [{type: SASL_SCRAM_512_AUTH, uri: 'file:/a'}, "
        "{type: BASIC_AUTH, uri: 'file:/b'}, {type: SERVER_ROOT_CA_CERTIFICATE, uri: 'file:/c'}, "
        "{type: SERVER_ROOT_CA_CERTIFICATE, uri: 'file:/d'}, {type: SASL_SCRAM_512_AUTH, uri: 'file:/e'}]"
    )
    assert said(tmp_path, "Kafka", more) == [
        (
            "source_access_configurations[1].type: BASIC_AUTH, a second way to log in, beside SASL_SCRAM_512_AUTH; "
            "expected one"
        ),
        "source_access_configurations[3].type: SERVER_ROOT_CA_CERTIFICATE, is given twice",
        "source_access_configurations[4].type: SASL_SCRAM_512_AUTH, is given twice",
        "tls: false, SERVER_ROOT_CA_CERTIFICATE needs TLS",
    ]


@pytest.mark.parametrize(
    "uri, taken",
    [
        ("file:/run/secrets/x", True),
        ("file:relative.json", True),
        ("env:LOGIN", True),
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:kafka-AbCdEf", True),
        ("file:", False),
        ("env:1X", False),
        ("env:A B", False),
        ("arn:aws:sqs:eu-west-1:123456789012:x", False),
        ("hunter2", False),
    ],
)
def test_a_secret_is_in_a_file_a_variable_or_secrets_manager(tmp_path: Path, uri: str, taken: bool) -> None:
    text = mapping_of("Kafka", f"source_access_configurations: [{{type: BASIC_AUTH, uri: '{uri}'}}]")
    if taken:
        (access,) = only_mapping(tmp_path, text).access
        assert access.uri == uri
        assert (access.arn is not None) == uri.startswith("arn:")
    else:
        (line,) = complaints(tmp_path, text)
        assert line.endswith("expected file:PATH, env:NAME or the ARN of a secret")


@pytest.mark.parametrize("broker", ["kafka", "kafka:0", "kafka:65536", "http://kafka:9092", "a b:1", ":1", ""])
def test_a_broker_is_host_and_port(tmp_path: Path, broker: str) -> None:
    (line,) = complaints(tmp_path, mapping_of("Kafka").replace("kafka:9092", broker))
    assert "KAFKA_BOOTSTRAP_SERVERS[0]: " in line
    assert line.endswith("expected host:port, without a scheme")


def test_brokers_may_be_addresses(tmp_path: Path) -> None:
    text = mapping_of("Kafka").replace('"kafka:9092"', '"[::1]:9092", "127.0.0.1:9093"')
    assert only_mapping(tmp_path, text).bootstrap_servers == ("[::1]:9092", "127.0.0.1:9093")


def test_kafka_reads_one_topic(tmp_path: Path) -> None:
    text = mapping_of("Kafka")
    assert complaints(tmp_path, text.replace(", topics: [payments]", "")) == [
        "2: mappings[0].topics: is missing, expected a list with the one topic to read"
    ]
    assert complaints(tmp_path, text.replace("[payments]", "[a, b]")) == ["2: mappings[0].topics: 2 items, at most 1"]
    assert complaints(tmp_path, text.replace("[payments]", "[.a]")) == [
        "2: mappings[0].topics[0]: '.a', expected up to 249 letters, digits, dots, dashes or underscores, no dot first"
    ]
    assert complaints(tmp_path, text.replace("[payments]", "payments")) == [
        "2: mappings[0].topics: payments, expected a list"
    ]


def test_the_group_is_the_uuid_unless_given(tmp_path: Path) -> None:
    mapping = only_mapping(tmp_path, mapping_of("Kafka", "self_managed_kafka_event_source_config: {}"))
    assert mapping.consumer_group_id == mapping.uuid
    more = "self_managed_kafka_event_source_config: {consumer_group_id: 'a!b'}"
    assert said(tmp_path, "Kafka", more) == [
        (
            "self_managed_kafka_event_source_config.consumer_group_id: 'a!b', expected 1 to 200 letters, "
            "digits, spaces or - / * : _ + = . @"
        )
    ]


# --- between mappings


def test_names_uuids_and_groups_are_unique(tmp_path: Path) -> None:
    kafka = SOURCES["Kafka"]
    uuid = "5f6f0a52-1c0e-4c6a-9d2b-7a3f1f6f2c10"
    group = "self_managed_kafka_event_source_config: {consumer_group_id: g}"
    text = f"""\
        mappings:
        - {{name: a, uuid: {uuid}, event_source_arn: {SQS}, function_name: f}}
        - {{name: a, uuid: {uuid.upper()}, event_source_arn: {SQS}, function_name: g}}
        - {{name: c, {kafka}, function_name: f, {group}}}
        - {{name: d, {kafka}, function_name: g, {group}}}
        """
    assert complaints(tmp_path, text) == [
        "3: mappings[1].name: a, mappings[0] has it too",
        f"3: mappings[1].uuid: '{uuid.upper()}', mappings[0] has it too",
        "5: mappings[3].self_managed_kafka_event_source_config.consumer_group_id: g, mappings[2] has it too",
    ]


def test_two_enabled_mappings_do_not_join_the_same_pair(tmp_path: Path) -> None:
    text = f"mappings:\n- {{name: a, event_source_arn: {SQS}, function_name: f}}\n"
    twice = text + f"- {{Name: b, EventSourceArn: {SQS}, FunctionName: f%s}}\n"
    assert complaints(tmp_path, twice % "") == [
        "3: mappings[1]: the same source and target as mappings[0]; disable or delete one of them"
    ]
    assert len(load_text(tmp_path, twice % ", Enabled: false").config.mappings) == 2
    assert len(load_text(tmp_path, twice % ":PROD").config.mappings) == 2  # with its qualifier it is another target


def test_a_mapping_that_is_off_is_checked_and_kept(tmp_path: Path) -> None:
    assert not only_mapping(tmp_path, mapping_of("SQS", "enabled: false")).enabled
    assert said(tmp_path, "SQS", "enabled: false, batch_size: 0") == ["batch_size: 0, at least 1"]
