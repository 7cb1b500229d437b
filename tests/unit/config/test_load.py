"""Files and folders → one configuration, or every mistake in them at once, each with its place."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from esm.config.load import known_keys, load_config
from esm.config.mistakes import ConfigError
from tests.support.config import KINESIS, SQS, complaints, load_text, mapping_of, mistakes_at


def said(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    return [str(mistake).replace(f"{path}{os.sep}", "") for mistake in mistakes_at(path, environ)]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_every_mistake_of_a_file_is_reported_at_once_with_line_path_found_and_allowed(tmp_path: Path) -> None:
    text = f"""\
        worker: {{fleet: prod, concurency: 5, grace_period_in_seconds: -1}}
        admin:
          port: 70000
        targets:
          tally:
            http: {{url: "ftp://x"}}
            reserved_concurrency: many
        mappings:
          - name: orders
            event_source_arn: {SQS}
            batch_size: 20000
            maximum_retry_attempts: 3
            function_name: f
          - name: orders
            event_source_arn: {KINESIS}
            starting_positon: LATEST
            target: taly
            function_response_types: [ReportBatchItemFailure]
            on_destination_failure: waits
            enabled: no
          - name: 12
            topics: [a, b]
            self_managed_event_source: {{endpoints: {{KAFKA_BOOTSTRAP_SERVERS: ["http://kafka:9092"]}}}}
            target: {{python: {{handler: "x"}}, http: {{url: "http://a"}}}}
            tls: 5
          - foo
        """
    assert complaints(tmp_path, text) == [
        "1: worker.concurency: unknown, did you mean concurrency?",
        "1: worker.grace_period_in_seconds: -1, at least 0",
        "3: admin.port: 70000, at most 65535",
        "6: targets.tally.http.url: ftp://x, expected http://host:port/path or https://…",
        "7: targets.tally.reserved_concurrency: many, expected a whole number",
        "11: mappings[0].batch_size: 20000, at most 10000",
        "12: mappings[0].maximum_retry_attempts: does not apply to SQS",
        "14: mappings[1].name: orders, mappings[0] has it too",
        "14: mappings[1].starting_position: is missing, expected TRIM_HORIZON, LATEST or AT_TIMESTAMP",
        "16: mappings[1].starting_positon: unknown, did you mean starting_position?",
        "17: mappings[1].target: taly, no such target, expected one of tally",
        "18: mappings[1].function_response_types[0]: ReportBatchItemFailure, expected ReportBatchItemFailures",
        "19: mappings[1].on_destination_failure: waits, expected one of wait, drop, did you mean wait?",
        "20: mappings[1].enabled: no, expected true or false",
        "21: mappings[2].name: 12, expected text: put it in quotes",
        "22: mappings[2].topics: 2 items, at most 1",
        (
            "23: mappings[2].self_managed_event_source.endpoints.KAFKA_BOOTSTRAP_SERVERS[0]: http://kafka:9092, "
            "expected host:port, without a scheme"
        ),
        "24: mappings[2].target: http and python, expected one of lambda, http and python",
        "24: mappings[2].target.python.handler: x, expected module:function",
        "25: mappings[2].tls: 5, expected true or false",
        "26: mappings[3]: foo, expected a mapping of settings",
    ]


@pytest.mark.parametrize(
    "text, said",
    [
        ("worker: {}\n", "mappings: is missing"),
        ("mappings: []\n", "1: mappings: expected at least 1 item"),
        ("mappings: {}\n", "1: mappings: a mapping, expected a list"),
        ("mappings:\n", "1: mappings: is missing"),
        ("worker: 5\n" + mapping_of("SQS"), "1: worker: 5, expected a mapping of settings"),
        ("targets: [a]\n" + mapping_of("SQS"), "1: targets: a list, expected a mapping"),
        ("maping: 1\n" + mapping_of("SQS"), "1: maping: unknown, did you mean mappings?"),
        ("zzz: 1\n" + mapping_of("SQS"), "1: zzz: unknown"),
        (
            "leases: {failover_time_in_seconds: 10}\n" + mapping_of("SQS"),
            "1: leases.failover_time_in_seconds: the sharing of leases is not supported yet",
        ),
        (
            "worker: {fleet: 'a b'}\n" + mapping_of("SQS"),
            (
                "1: worker.fleet: 'a b', expected 1 to 128 letters, digits, "
                "dots, dashes or underscores, a letter or digit first"
            ),
        ),
        ("worker: {concurrency: 1.5}\n" + mapping_of("SQS"), "1: worker.concurrency: 1.5, expected a whole number"),
        ("worker: {concurrency: true}\n" + mapping_of("SQS"), "1: worker.concurrency: true, expected a whole number"),
        ("worker: {buffer_bytes: 100}\n" + mapping_of("SQS"), "1: worker.buffer_bytes: 100, at least 6291456"),
        (
            "worker: {processes: 4}\n" + mapping_of("SQS"),
            ("1: worker.processes: more than one process is not supported yet"),
        ),
        (
            "leases: {dynamodb: {table_name: x}}\n" + mapping_of("SQS"),
            ("1: leases.dynamodb: a lease table in DynamoDB is not supported yet"),
        ),
        (
            "leases: {sqlite: {}, memory: {}}\n" + mapping_of("SQS"),
            ("1: leases: sqlite and memory, expected one of sqlite and memory"),
        ),
        (
            "aws: {endpoint_urls: {sns: 'http://a'}}\n" + mapping_of("SQS"),
            (
                "1: aws.endpoint_urls.sns: no service that "
                "is called, expected one of sqs, kinesis, dynamodb, dynamodbstreams, lambda, secretsmanager"
            ),
        ),
    ],
)
def test_sections_are_checked(tmp_path: Path, text: str, said: str) -> None:
    assert complaints(tmp_path, text) == [said]


def test_a_secret_that_stands_where_its_place_should_is_not_repeated(tmp_path: Path) -> None:
    lines = complaints(
        tmp_path, mapping_of("Kafka", "source_access_configurations: [{type: BASIC_AUTH, uri: hunter2}]", name="m")
    )
    assert "hunter2" not in "\n".join(lines)
    assert any("uri: expected file:PATH, env:NAME or the ARN of a secret" in line for line in lines)


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    text = """\
        aws: {endpoint_url: "http://me:hunter2@host:x"}
        targets:
          a: {http: {url: "http://a", headers: {authorization: 5, x: [hunter2]}}}
        """ + mapping_of("SQS", "target: {http: {url: 'https://me:hunter2@host:0'}}", name="m")
    lines = complaints(tmp_path, text.replace("        ", ""))
    assert len(lines) >= 4
    assert "hunter2" not in "\n".join(lines)
    assert "1: aws.endpoint_url: http://***@host:x, expected http://host:port/path or https://…" in lines
    assert any("authorization: the value (not shown): expected text" in line for line in lines)


def test_long_and_strange_values_are_shown_short_and_on_one_line(tmp_path: Path) -> None:
    value = "a\\nb" + "x" * 500
    (line,) = complaints(tmp_path, mapping_of("SQS", f'batch_size: "{value}"'))
    assert "\n" not in line
    assert len(line) < 200
    assert line.startswith("2: mappings[0].batch_size: 'a\\nbxxx")


@pytest.mark.parametrize(
    "twice, said",
    [
        ("batch_size: 5, BatchSize: 5", "BatchSize: is given twice, also as batch_size"),
        ("batch_size: 5, batch_size: 5", "batch_size: is given twice, first on line 2"),
    ],
)
def test_one_key_in_two_spellings_or_twice_is_a_mistake(tmp_path: Path, twice: str, said: str) -> None:
    assert complaints(tmp_path, mapping_of("SQS", twice)) == [f"2: mappings[0].{said}"]


def test_terraforms_word_beside_the_apis_is_a_mistake(tmp_path: Path) -> None:
    queue = "arn:aws:sqs:eu-west-1:123456789012:failed"
    more = f"destination_config: {{on_failure: {{destination: '{queue}', destination_arn: '{queue}'}}}}"
    assert complaints(tmp_path, mapping_of("Kinesis", more)) == [
        "2: mappings[0].destination_config.on_failure.destination_arn: is given twice, also as destination"
    ]


def test_guesses_know_every_level(tmp_path: Path) -> None:
    more = "target: {lambda: {function_nam: x}}, scaling_config: {max_concurrency: 5}, BatchSise: 3"
    text = mapping_of("SQS", more).replace("function_name: f, ", "")
    assert complaints(tmp_path, text) == [
        "2: mappings[0].BatchSise: unknown, did you mean batch_size?",
        "2: mappings[0].scaling_config.max_concurrency: unknown, did you mean maximum_concurrency?",
        "2: mappings[0].target.lambda.function_nam: unknown, did you mean function_name?",
        "2: mappings[0].target.lambda.function_name: is missing",
    ]
    assert "kafka_bootstrap_servers".upper() in known_keys(("mappings", 0, "SelfManagedEventSource", "Endpoints", "x"))


# --- files and folders


def test_a_folder_is_all_its_yaml_files_joined(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="targets: {one: {http: {url: 'http://a'}}}\nworker: {fleet: prod}\n",
        b=mapping_of("SQS", name="first"),
        c="targets: {two: {http: {url: 'http://b'}}}\n" + mapping_of("Kafka", "", name="second"),
    )
    (tmp_path / "d.yml").write_text(mapping_of("Kinesis", name="third"))
    (tmp_path / ".hidden.yaml").write_text("broken: [")
    (tmp_path / "notes.txt").write_text("broken: [")
    (tmp_path / "folder.yaml").mkdir()
    config = load_config(tmp_path, {})
    assert [mapping.name for mapping in config.mappings] == ["first", "second", "third"]
    assert list(config.targets) == ["one", "two"]
    assert config.worker.fleet == "prod"


def test_mistakes_in_a_folder_name_the_file_and_the_place_in_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        a=mapping_of("SQS", "batch_size: 0", name="same"),
        b="worker: {id: '-'}\n" + mapping_of("Kinesis", "target: nope", name="same").replace("function_name: f, ", ""),
        c="worker: {id: x}\nmappings: no\n",
    )
    assert said(tmp_path) == [
        "a.yaml:2: mappings[0].batch_size: 0, at least 1",
        (
            "b.yaml:1: worker.id: '-', expected 1 to 128 letters, digits, dots, dashes or underscores, "
            "a letter or digit first"
        ),
        "b.yaml:3: mappings[0].name: same, mappings[0] in a.yaml has it too",
        "b.yaml:3: mappings[0].target: nope, no such target, and there is no targets section",
        "c.yaml:1: worker: is given twice, also in b.yaml",
        "c.yaml:2: mappings: is given twice, also in a.yaml",
    ]


def test_a_targets_name_in_two_files_is_a_mistake(tmp_path: Path) -> None:
    target = "targets: {one: {http: {url: 'http://a'}}}\n"
    write(tmp_path, a=target + mapping_of("SQS"), b=target)
    assert said(tmp_path) == ["b.yaml:1: targets.one: is given twice, also in a.yaml"]


def test_an_unreadable_file_of_a_folder_hides_no_mistakes_of_the_others(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="targets: [broken\n",
        b=mapping_of("SQS", "target: in_a, batch_size: 0").replace("function_name: f, ", ""),
        c="",
    )
    lines = said(tmp_path)
    assert lines[0].startswith("a.yaml:2: is not YAML: ")
    assert lines[1:] == [
        "b.yaml:2: mappings[0].batch_size: 0, at least 1",
        "c.yaml: is empty, expected settings and mappings",
    ]


def test_a_variable_missing_in_the_second_file_of_a_folder_is_the_only_thing_said(tmp_path: Path) -> None:
    write(tmp_path, a=mapping_of("SQS", name="one"), b=mapping_of("Kafka", "batch_size: '${N}'", name="'${NAME}'"))
    assert [line.split(";")[0] for line in said(tmp_path)] == [
        "b.yaml:2: mappings[0].batch_size: the environment has no N",
        "b.yaml:2: mappings[0].name: the environment has no NAME",
    ]


def test_no_mappings_in_a_whole_folder_is_said_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, a="worker: {id: a}\n", b="admin: {port: 0}\n")
    assert said(tmp_path) == [f"{tmp_path}: mappings: is missing"]


def test_what_is_neither_file_nor_folder_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    nothing = tmp_path / "nothing.yaml"
    assert said(nothing) == [f"{nothing}: no such file or folder"]
    assert said(tmp_path) == [f"{tmp_path}: is a folder without *.yaml or *.yml files"]
    assert said(tmp_path / "pipe") == [f"{tmp_path / 'pipe'}: is neither a file nor a folder"]
    assert "cannot be looked at: " in said(tmp_path / ("x" * 300))[0]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything; be nobody for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_may_not_be_read_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        file = folder / "a.yaml"
        file.write_text(mapping_of("SQS"))
        file.chmod(0)
        closed = folder / "closed"
        closed.mkdir(mode=0)
        with without_privileges():
            assert said(file) == [f"{file}: cannot be read: Permission denied"]
            assert said(folder) == ["a.yaml: cannot be read: Permission denied"]
            assert said(closed) == [f"{closed}: cannot be looked at: Permission denied"]
        closed.chmod(0o755)


def test_a_config_error_is_one_text_with_a_line_for_each_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "a: 1\nb: 2\n" + mapping_of("SQS"))
    assert str(caught.value).count("\n") == 1
