"""The files of config/: each can be used, one shows every option, one is of one mind with the sandbox."""

import re
import shlex
from pathlib import Path

import pytest

from esm.config.load import Loaded, load
from esm.config.schema import json_schema
from esm.config.sources import SourceKind
from esm.sandbox import Sandbox
from esm.sandbox.__main__ import _parser, _prepare

CONFIG = Path(__file__).parents[3] / "config"
VARIABLES = {"complete.yaml": {"TALLY_TOKEN": "secret", "HOSTNAME": "here"}}
"""What a file says at its head that it needs; the others need nothing."""


def loaded(name: str) -> Loaded:
    return load(CONFIG / name, VARIABLES.get(name, {}))


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_can_be_used_as_it_is(file: Path) -> None:
    expected = {"complete.yaml": 5, "sandbox.yaml": 1}  # options that it shows although they have no effect; memory
    assert len(loaded(file.name).notices) == expected.get(file.name, 0)


def test_there_is_an_example_for_each_source_a_complete_one_and_one_without_aws() -> None:
    kinds = {f"{kind.value}.yaml": {kind} for kind in SourceKind}
    kinds |= {"complete.yaml": set(SourceKind), "sandbox.yaml": set(SourceKind) - {SourceKind.KAFKA}}
    assert {path.name for path in CONFIG.iterdir()} == set(kinds)
    for name, expected in kinds.items():
        assert {mapping.kind for mapping in loaded(name).config.mappings} == expected


@pytest.mark.parametrize("name", VARIABLES)
def test_an_example_names_the_variables_that_it_needs_at_its_head(name: str) -> None:
    head = (CONFIG / name).read_text().split("\n\n")[0]
    assert all(f"{variable}=" in head for variable in VARIABLES[name])


def test_the_complete_example_shows_every_option() -> None:
    text = (CONFIG / "complete.yaml").read_text()
    schema = json_schema()
    models = [*schema["$defs"].values(), schema]
    options = {key for model in models for key in model.get("properties", {})}
    assert len(options) > 60
    assert [key for key in sorted(options) if not re.search(rf"\b{key}\b", text)] == []


def test_the_complete_example_shows_every_kind_of_secret_and_no_secret() -> None:
    text = (CONFIG / "complete.yaml").read_text()
    assert all(word in text for word in ("env:", "file:", "${TALLY_TOKEN}"))
    assert loaded("complete.yaml").config.targets["tally"].http.headers == {"authorization": "Bearer secret"}  # type: ignore[union-attr] # it is an http target


@pytest.mark.anyio
async def test_the_sandbox_started_as_the_example_says_has_all_that_it_names() -> None:
    text = (CONFIG / "sandbox.yaml").read_text().replace("\\\n#", "")
    (command,) = re.findall(r"^#\s+python -m esm\.sandbox (.*)$", text, re.M)
    options = _parser().parse_args(shlex.split(command))
    async with Sandbox.open() as sandbox:
        await _prepare(sandbox, options)
        port = sandbox.url.rpartition(":")[2]
        config = load(CONFIG / "sandbox.yaml", {"SANDBOX_PORT": port}).config
        assert config.aws.endpoint("lambda") == sandbox.url
        orders, clicks, carts = config.mappings
        assert orders.arn is not None
        assert sandbox.sqs.queue(orders.arn.name).arn == orders.event_source_arn
        assert clicks.arn is not None
        assert sandbox.kinesis.stream(clicks.arn.name).arn == clicks.event_source_arn
        stream = sandbox.dynamodb.table("carts").stream
        assert stream is not None
        assert stream.arn == carts.event_source_arn
        for mapping in (clicks, carts):
            assert mapping.on_failure is not None
            assert sandbox.sqs.queue(mapping.on_failure.name).arn == str(mapping.on_failure)
        assert sandbox.functions.function("tally").name == "tally"


def test_the_port_of_the_sandbox_is_the_one_that_its_command_names() -> None:
    text = (CONFIG / "sandbox.yaml").read_text()
    assert loaded("sandbox.yaml").config.aws.endpoint_url == "http://127.0.0.1:4566"
    assert "--port 4566" in text
