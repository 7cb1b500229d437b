"""Secrets as JSON objects: from a file, the environment or AWS Secrets Manager."""

import os
from collections.abc import Mapping

import anyio
import msgspec
from msgspec import Struct

from esm.clients.aws import AwsClients
from esm.clients.aws_errors import AWS_ERRORS, Subject, translate
from esm.domain.arn import Arn
from esm.domain.errors import NotReady

MOST_BYTES = 65_536


class Secret(Struct, frozen=True):
    """One secret.  Its content is never shown."""

    uri: str
    subject: str
    members: Mapping[str, object]

    def text(self, name: str, default: str | None = None) -> str:
        """The member ``name``.  Raises NotReady where it is absent without a ``default``, and where it is no text."""
        value = self.members.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (not value and default is None):
            found = "none" if value is None else "an empty one" if value == "" else type(value).__name__
            raise NotReady(f'{self.subject}: the secret at {self.uri} needs a text "{name}", found {found}.')
        return value

    def __repr__(self) -> str:
        return f"Secret({self.uri})"


async def secret_of(uri: str, aws: AwsClients | None, subject: str) -> Secret:
    """Read the secret at ``uri``: ``file:PATH``, ``env:NAME`` or the ARN of a secret.  Raises NotReady."""
    scheme, _, rest = uri.partition(":")
    if scheme == "file":
        content = await _from_file(rest, uri, subject)
    elif scheme == "env":
        if (content := os.environ.get(rest, "")) == "":
            raise NotReady(f"{subject}: the environment variable {rest} is not set; it should hold the secret, JSON.")
    else:
        content = await _from_aws(uri, aws, subject)
    return Secret(uri, subject, _members(content, uri, subject))


async def _from_file(path: str, uri: str, subject: str) -> str:
    try:
        return await anyio.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        where = await anyio.Path(path).absolute()
        raise NotReady(f"{subject}: the secret at {uri} does not exist ({where}); expected a JSON file.") from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise NotReady(f"{subject}: the secret at {uri} cannot be read ({why}).") from error


async def _from_aws(arn: str, aws: AwsClients | None, subject: str) -> str:
    if aws is None:
        raise NotReady(f"{subject}: the secret {arn} cannot be read: no client of AWS is configured.")
    region = Arn.parse(arn).region
    client = await aws.client("secretsmanager", region)
    try:
        reply: dict[str, object] = {**await client.get_secret_value(SecretId=arn)}  # has one of the two below
    except AWS_ERRORS as error:
        failure = translate(error, Subject("secretsmanager", f"secret {arn}", region, "source_access_configurations"))
        raise NotReady(f"{subject}: {failure.sentence}") from error
    text, binary = reply.get("SecretString"), reply.get("SecretBinary")
    if isinstance(text, str):
        return text
    return binary.decode("utf-8", "replace") if isinstance(binary, bytes) else ""


def _members(content: str, uri: str, subject: str) -> Mapping[str, object]:
    if len(content.encode()) > MOST_BYTES:
        raise NotReady(f"{subject}: the secret at {uri} is larger than {MOST_BYTES} bytes.")
    try:
        return msgspec.json.decode(content, type=dict[str, object])
    except msgspec.MsgspecError:
        # Without the parser's own words, which would show a piece of the secret.
        raise NotReady(
            f"{subject}: the secret at {uri} is not a JSON object; expected for example "
            '{"username": "…", "password": "…"}.'
        ) from None
