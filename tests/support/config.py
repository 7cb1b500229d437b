"""Configurations of tests: a few lines of YAML in, what was said about them out."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from esm.config.load import Loaded, load
from esm.config.mapping import MappingConfig
from esm.config.mistakes import ConfigError, Mistake

SQS = "arn:aws:sqs:eu-west-1:123456789012:orders"
KINESIS = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
DYNAMODB = "arn:aws:dynamodb:eu-west-1:123456789012:table/carts/stream/2026-01-01T00:00:00.000"

SOURCES = {
    "SQS": f"event_source_arn: {SQS}",
    "Kinesis": f"event_source_arn: {KINESIS}, starting_position: TRIM_HORIZON",
    "DynamoDB Streams": f"event_source_arn: {DYNAMODB}, starting_position: TRIM_HORIZON",
    "Kafka": 'self_managed_event_source: {endpoints: {KAFKA_BOOTSTRAP_SERVERS: ["kafka:9092"]}}, topics: [payments]',
}
"""Label of a kind of source → the least that a mapping has to say about one, in flow style."""


def mapping_of(source: str, more: str = "", name: str = "m") -> str:
    """A whole file with one mapping on a line of its own (the second); ``more`` in flow style."""
    settings = ", ".join(part for part in (f"name: {name}", SOURCES[source], "function_name: f", more) if part)
    return f"mappings:\n- {{{settings}}}\n"


def load_text(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    """What ``text`` says as a file of ``folder``.  Raises ConfigError."""
    file = folder / "esm.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return load(file, environ or {})


def only_mapping(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> MappingConfig:
    """The one mapping of ``text``."""
    (mapping,) = load_text(folder, text, environ).config.mappings
    return mapping


def mistakes_at(path: Path, environ: Mapping[str, str] | None = None) -> list[Mistake]:
    """The mistakes of a file or folder that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return list(caught.value.mistakes)


def complaints(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The mistakes of ``text``, each as ``LINE: path: sentence``, without the file's name where it is that."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, environ)
    return [str(mistake).removeprefix(f"{folder / 'esm.yaml'}:").strip() for mistake in caught.value.mistakes]


def notices_of(folder: Path, text: str) -> list[str]:
    """What is worth knowing about ``text``, as ``complaints`` shows it."""
    return [str(notice).removeprefix(f"{folder / 'esm.yaml'}:").strip() for notice in load_text(folder, text).notices]
