"""Secrets Manager by its JSON protocol: secrets that are read."""

import base64
from collections.abc import Mapping

import msgspec

from esm.sandbox.wire import Answer, AwsError, Perform, operation
from esm.sandbox.world import World


class GetSecretValue(msgspec.Struct, rename="pascal"):
    """GetSecretValue."""

    secret_id: str


class Secret(msgspec.Struct, frozen=True):
    """A stored secret: text, or bytes."""

    name: str
    arn: str
    value: str | bytes
    version: str
    at: float


class Secrets:
    """All secrets of the sandbox."""

    name = "secretsmanager"

    def __init__(self, world: World) -> None:
        self._world = world
        self._secrets: dict[str, Secret] = {}
        self.operations: Mapping[str, Perform] = {"GetSecretValue": operation(GetSecretValue, self.on_get)}

    def put(self, name: str, value: str | bytes) -> str:
        """Store (or replace) a secret; answers its ARN, which stays the same."""
        known = self._secrets.get(name)
        arn = f"arn:aws:secretsmanager:{self._world.region}:{self._world.account}:secret:{name}-"
        arn = known.arn if known else arn + self._world.uuid()[:6]
        self._secrets[name] = Secret(name, arn, value, self._world.uuid(), self._world.clock.now())
        return arn

    def on_get(self, request: GetSecretValue) -> Answer:
        wanted = request.secret_id
        found = next((one for one in self._secrets.values() if wanted in (one.name, one.arn, one.arn[:-7])), None)
        if found is None:
            raise AwsError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        shown: dict[str, object] = {
            "ARN": found.arn,
            "Name": found.name,
            "VersionId": found.version,
            "VersionStages": ["AWSCURRENT"],
            "CreatedDate": found.at,
        }
        if isinstance(found.value, str):
            shown["SecretString"] = found.value
        else:
            shown["SecretBinary"] = base64.b64encode(found.value).decode()
        return shown
