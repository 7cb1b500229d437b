"""The JSON Schema: valid, complete, described, and of one mind with the models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from esm.config.document import read_document
from esm.config.schema import VARIABLE, json_schema
from tests.support.config import SOURCES, load_text, mapping_of

CONFIG = Path(__file__).parents[3] / "config"
KEYWORDS = {
    "$ref", "additionalProperties", "anyOf", "const", "default", "description", "enum", "items", "maxItems",
    "maxLength", "maximum", "minItems", "minLength", "minimum", "oneOf", "pattern", "properties", "required",
    "title", "type",
}  # fmt: skip


def written(path: Path) -> object:
    """The file as an editor sees it: scalars of YAML 1.2, variables as they are written."""

    class Itself(dict[str, str]):
        def get(self, key: str, default: Any = None) -> str:  # the signature of dict
            return f"${{{key}}}"

        def __contains__(self, key: object) -> bool:
            return True

    document = read_document(str(path), path.read_bytes(), Itself())
    assert document.mistakes == []
    return document.data


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its place."""
    yield path, node
    for name, below in {**node.get("properties", {}), **node.get("$defs", {})}.items():
        yield from nodes(below, f"{path}.{name}")
    for key in ("anyOf", "oneOf"):
        for index, below in enumerate(node.get(key, [])):
            yield from nodes(below, f"{path}.{key}[{index}]")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}.{key}")


def errors(data: object) -> list[str]:
    return [f"{each.json_path}: {each.message}" for each in Draft202012Validator(json_schema()).iter_errors(data)]


def test_it_is_a_json_schema_of_the_draft_that_it_names() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_every_keyword_in_it_means_something() -> None:
    for path, node in nodes(json_schema()):
        known = KEYWORDS | ({"$defs", "$schema"} if path == "" else set())
        assert set(node) <= known, path


def test_every_option_has_a_description() -> None:
    settings = [node for path, node in nodes(json_schema()) if "properties" in node]
    undescribed = [
        key for node in settings for key, below in node["properties"].items() if not below.get("description")
    ]
    assert len(settings) >= 20
    assert undescribed == []


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_validate(file: Path) -> None:
    assert errors(written(file)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_models_take_the_schema_takes(tmp_path: Path, source: str) -> None:
    text = mapping_of(source, "batch_size: 7, enabled: false, maximum_batching_window_in_seconds: 300")
    assert load_text(tmp_path, text).config.mappings
    assert errors(written(tmp_path / "esm.yaml")) == []


@pytest.mark.parametrize(
    "more",
    [
        "batch_size: 0",
        "batch_size: 10001",
        "batch_size: many",
        "enabled: no",
        "maximum_batching_window_in_seconds: 301",
        "batch_sise: 5",
        "starting_position: latest",
        "maximum_record_age_in_seconds: 59",
        "function_response_types: [All]",
        "topics: [a, b]",
        "target: {ftp: {}}",
        "scaling_config: {maximum_concurrency: 1}",
        "source_access_configurations: [{type: PASSWORD, uri: x}]",
        "parallelization_factor: 11",
    ],
)
def test_what_is_out_of_range_or_unknown_the_schema_refuses_too(tmp_path: Path, more: str) -> None:
    file = tmp_path / "esm.yaml"
    file.write_text(mapping_of("SQS", more))
    assert errors(written(file))


def test_a_variable_may_stand_wherever_a_value_may(tmp_path: Path) -> None:
    file = tmp_path / "esm.yaml"
    text = "admin: {port: '${PORT:-8080}'}\n"
    more = "enabled: '${ON}', batch_size: '${N}', starting_position: '${WHERE}', tls: '${TLS}', topics: ['${T}']"
    file.write_text(text + mapping_of("Kafka", more).replace(", topics: [payments]", ""))
    assert errors(written(file)) == []
    alternatives = [node["anyOf"] for _, node in nodes(json_schema()) if "anyOf" in node]
    assert sum(VARIABLE in each for each in alternatives) >= 20


def test_a_default_validates_against_its_own_schema() -> None:
    root = json_schema()
    checked = 0
    for path, node in nodes(root):
        if "default" in node:
            alone = cast("dict[str, Any]", {**node, "$defs": root["$defs"]})
            assert not list(Draft202012Validator(alone).iter_errors(node["default"])), path
            checked += 1
    assert checked > 30
