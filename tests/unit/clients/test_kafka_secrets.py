"""Secrets of Kafka logins: where they come from, and what is said when they are not there."""

import json
from pathlib import Path

import pytest

from esm.clients.aws import AwsClients, AwsSettings
from esm.clients.kafka_secrets import secret_of
from esm.domain.errors import NotReady
from esm.sandbox import Sandbox
from tests.support.sqs_servers import aws_session

pytestmark = pytest.mark.anyio

SUBJECT = "Kafka topic payments at kafka:9092"
MISSING = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:nobody-AbCdEf"
CONTENT = json.dumps({"username": "u", "password": "hunter2"})


async def test_a_file_and_the_environment_hold_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret.json"
    file.write_text(CONTENT)
    monkeypatch.setenv("KAFKA_SECRET", CONTENT)
    for uri in (f"file:{file}", "env:KAFKA_SECRET"):
        secret = await secret_of(uri, None, SUBJECT)
        assert (secret.text("username"), secret.text("password")) == ("u", "hunter2")
        assert "hunter2" not in repr(secret)


@pytest.mark.parametrize("value", [CONTENT, CONTENT.encode()])
async def test_secrets_manager_holds_text_or_bytes(value: str | bytes) -> None:
    async with Sandbox.open() as sandbox:
        arn = sandbox.secrets.put("kafka/payments", value)
        async with AwsClients(AwsSettings(endpoint_url=sandbox.url), aws_session()) as aws:
            assert (await secret_of(arn, aws, SUBJECT)).text("password") == "hunter2"
            with pytest.raises(NotReady, match=f"{SUBJECT}: secret {MISSING} in eu-west-1 does not exist"):
                await secret_of(MISSING, aws, SUBJECT)


async def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_SECRET", raising=False)
    for uri, sentence in (
        (f"file:{tmp_path}/none", f"the secret at file:{tmp_path}/none does not exist"),
        (f"file:{tmp_path}", f"the secret at file:{tmp_path} cannot be read"),
        ("env:KAFKA_SECRET", "the environment variable KAFKA_SECRET is not set"),
        (MISSING, f"the secret {MISSING} cannot be read: no client of AWS is configured"),
    ):
        with pytest.raises(NotReady, match=f"^{SUBJECT}: {sentence}"):
            await secret_of(uri, None, SUBJECT)


@pytest.mark.parametrize("content", ["hunter2", '{"password": hunter2}', '["hunter2"]', '"hunter2"', "\xff\xfehunter2"])
async def test_what_is_no_json_object_is_said_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(NotReady, match=r"is not a JSON object|is not UTF-8") as raised:
        await secret_of(f"file:{file}", None, SUBJECT)
    assert "hunter2" not in str(raised.value)


async def test_a_secret_has_a_size_limit(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(json.dumps({"password": "x" * 65_536}))
    with pytest.raises(NotReady, match="larger than 65536 bytes"):
        await secret_of(f"file:{file}", None, SUBJECT)


@pytest.mark.parametrize("members, found", [({}, "none"), ({"password": ""}, "an empty one"), ({"password": 5}, "int")])
async def test_a_member_that_is_missing_or_no_text_is_named(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, object], found: str
) -> None:
    monkeypatch.setenv("KAFKA_SECRET", json.dumps(members))
    secret = await secret_of("env:KAFKA_SECRET", None, SUBJECT)
    with pytest.raises(NotReady, match=f'the secret at env:KAFKA_SECRET needs a text "password", found {found}'):
        secret.text("password")
    assert secret.text("privateKeyPassword", "") == ""
