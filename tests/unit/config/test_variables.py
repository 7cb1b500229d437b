"""``${NAME}`` in a file, and ``ESM_<SECTION>__<KEY>`` over its settings."""

from pathlib import Path

import pytest

from esm.config.variables import expand
from tests.support.config import complaints, load_text, mapping_of


@pytest.mark.parametrize(
    "text, value",
    [
        ("${A}", "one"),
        ("<${A}-${B}>", "<one-two>"),
        ("${NONE:-x}", "x"),
        ("${NONE:-}", ""),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${A:-x}", "one"),
        ("${NONE:-http://a:1/?b=c}", "http://a:1/?b=c"),
        ("$${A}", "${A}"),
        ("$A $$ $", "$A $$ $"),
        ("${NESTED}", "${A}"),
    ],
)
def test_references_are_replaced_once(text: str, value: str) -> None:
    assert expand(text, {"A": "one", "B": "two", "EMPTY": "", "NESTED": "${A}"}) == (value, [])


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A", "${A-x}", "${A B}"])
def test_a_reference_that_is_none_is_a_mistake(text: str) -> None:
    _, problems = expand(text, {"A": "one"})
    assert problems == ["${ without a name and a closing brace; expected ${NAME} or ${NAME:-default}, $${ for itself"]


def test_each_missing_variable_is_named() -> None:
    _, problems = expand("${A}${B:-}${C}", {})
    assert [problem.split(";")[0] for problem in problems] == ["the environment has no A", "the environment has no C"]


def test_numbers_and_flags_may_come_from_variables(tmp_path: Path) -> None:
    text = "worker: {concurrency: '${N}'}\n" + mapping_of("SQS", "enabled: '${ON}', batch_size: '${SIZE:-7}'")
    config = load_text(tmp_path, text, {"N": "12", "ON": "False"}).config
    assert (config.worker.concurrency, config.mappings[0].enabled, config.mappings[0].batch_size) == (12, False, 7)


def test_a_missing_variable_is_the_only_thing_said_about_its_place(tmp_path: Path) -> None:
    text = """\
        worker: {concurrency: "${A}"}
        mappings:
        - name: ${B}
          event_source_arn: ${C}
          target: ${D}
        """
    lines = complaints(tmp_path, text)
    assert [line.split(";")[0] for line in lines] == [
        "1: worker.concurrency: the environment has no A",
        "3: mappings[0].name: the environment has no B",
        "4: mappings[0].event_source_arn: the environment has no C",
        "5: mappings[0].target: the environment has no D",
    ]


def test_the_value_of_a_variable_is_not_shown_but_what_is_written(tmp_path: Path) -> None:
    lines = complaints(tmp_path, mapping_of("SQS", "batch_size: '${SIZE}'"), {"SIZE": "hunter2"})
    assert lines == ["2: mappings[0].batch_size: the value of ${SIZE}: expected a whole number"]


def test_settings_come_from_the_environment_and_win_over_the_file(tmp_path: Path) -> None:
    environ = {
        "ESM_WORKER__CONCURRENCY": "5",
        "ESM_WORKER__FLEET": "prod",
        "ESM_ADMIN__PORT": "0",
        "ESM_AWS__ENDPOINT_URLS__SQS": "http://127.0.0.1:1",
        "ESM_LEASES__SQLITE__PATH": "/x.db",
        "ESM_CONFIG": "elsewhere",
        "ESM_SERVICE_PORT": "80",
    }
    text = "Worker: {Concurrency: 9}\naws: {endpoint_urls: {kinesis: http://127.0.0.1:2}}\n" + mapping_of("SQS")
    config = load_text(tmp_path, text, environ).config
    assert (config.worker.concurrency, config.worker.fleet, config.admin.port) == (5, "prod", 0)
    assert config.aws.endpoint_urls == {"sqs": "http://127.0.0.1:1", "kinesis": "http://127.0.0.1:2"}
    assert config.leases.sqlite is not None
    assert config.leases.sqlite.path == "/x.db"


def test_an_empty_mapping_can_be_said_by_a_variable(tmp_path: Path) -> None:
    assert load_text(tmp_path, mapping_of("SQS"), {"ESM_LEASES__MEMORY": "{}"}).config.leases.memory is not None


def test_mistakes_in_variables_name_the_variable(tmp_path: Path) -> None:
    environ = {
        "ESM_WORKER__CONCURRENCY": "0",
        "ESM_WORKER__CONCURENCY": "5",
        "ESM_WORKR__ID": "a",
        "ESM_FRUIT__ID": "a",
        "ESM_MAPPINGS__0__NAME": "x",
        "ESM_TARGETS__T__HTTP": "x",
        "ESM_ADMIN__PORT__X": "1",
    }
    text = "admin: {port: 8080}\n" + mapping_of("SQS")
    assert complaints(tmp_path, text, environ) == [
        "ESM_ADMIN__PORT__X: admin is no mapping of settings in the file",
        "ESM_FRUIT__ID: there is no section fruit, expected one of worker, admin, aws, leases",
        "ESM_MAPPINGS__0__NAME: mappings are not set by variables; write ${NAME} in the file",
        "ESM_TARGETS__T__HTTP: targets are not set by variables; write ${NAME} in the file",
        "ESM_WORKER__CONCURENCY: worker.concurency: unknown, did you mean concurrency?",
        "ESM_WORKER__CONCURRENCY: worker.concurrency: '0', at least 1",
        "ESM_WORKR__ID: there is no section workr, did you mean worker?",
    ]
