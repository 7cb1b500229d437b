"""How a mapping logs in at its Kafka cluster: secrets from a file, the environment or Secrets Manager (4.4)."""

import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
from msgspec import Struct

from esm.clients.aws import AwsClients
from esm.clients.kafka_secrets import secret_of
from esm.domain.errors import NotReady

BASIC = "BASIC_AUTH"
SCRAM_256 = "SASL_SCRAM_256_AUTH"
SCRAM_512 = "SASL_SCRAM_512_AUTH"
CLIENT_CERTIFICATE = "CLIENT_CERTIFICATE_TLS_AUTH"
SERVER_CA = "SERVER_ROOT_CA_CERTIFICATE"

MECHANISMS = {BASIC: "PLAIN", SCRAM_256: "SCRAM-SHA-256", SCRAM_512: "SCRAM-SHA-512"}


class Access(Struct, frozen=True):
    """One entry of `source_access_configurations`."""

    type: str
    """AWS's word: ``BASIC_AUTH``, ``SASL_SCRAM_512_AUTH``, ``CLIENT_CERTIFICATE_TLS_AUTH``…"""
    uri: str
    """Where its secret is: ``file:PATH``, ``env:NAME`` or the ARN of a secret; says nothing secret itself."""


class Login(Struct, frozen=True):
    """What a connection to a broker starts with."""

    tls: ssl.SSLContext | None = None
    mechanism: str | None = None
    """SASL; None = no login, or that of a client's certificate."""
    username: str = ""
    password: str = ""
    access: Access | None = None
    """Where user or client certificate come from, for sentences."""

    @property
    def protocol(self) -> str:
        """Kafka's name of it: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        name = "SSL" if self.tls else "PLAINTEXT"
        return f"SASL_{name}" if self.mechanism else name

    def __repr__(self) -> str:
        return f"Login({self.protocol})"  # never the password


async def login_of(accesses: Sequence[Access], tls: bool, aws: AwsClients | None, subject: str) -> Login:
    """Read the secrets of ``accesses`` anew: passwords change.

    ``subject`` begins the sentences: ``Kafka topic payments at kafka:9092``.  Raises NotReady where a secret is
    missing or not laid out as AWS has it, and where certificates make no sense.
    """
    secrets = {access.type: (access, await secret_of(access.uri, aws, subject)) for access in accesses}
    for kind, (access, _) in secrets.items():
        if kind not in (*MECHANISMS, CLIENT_CERTIFICATE, SERVER_CA):
            raise NotReady(f"{subject}: a login by {access.type} is not supported yet.")
    certificate, authority = secrets.get(CLIENT_CERTIFICATE), secrets.get(SERVER_CA)
    context = None
    if tls:
        pem = authority[1].text("certificate") if authority else None
        context = _trusting(pem, authority[0] if authority else None, subject)
        if certificate:
            chain, key = certificate[1].text("certificate"), certificate[1].text("privateKey")
            password = certificate[1].text("privateKeyPassword", "")
            await anyio.to_thread.run_sync(_identify, context, chain, key, password, certificate[0], subject)
    for kind, mechanism in MECHANISMS.items():
        if kind in secrets:
            access, secret = secrets[kind]
            return Login(context, mechanism, secret.text("username"), secret.text("password"), access)
    return Login(context, access=certificate[0] if certificate else None)


def _trusting(pem: str | None, access: Access | None, subject: str) -> ssl.SSLContext:
    """A context that trusts the given authority alone, or what this machine trusts."""
    try:
        return ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        uri = access.uri if access else ""
        raise NotReady(
            f"{subject}: the certificate of {SERVER_CA} at {uri} cannot be read ({_short(error)}): expected PEM text."
        ) from error


def _identify(context: ssl.SSLContext, chain: str, key: str, password: str, access: Access, subject: str) -> None:
    """Show ``chain`` to servers.  The standard library reads it from files alone, so they exist for this moment."""
    with tempfile.TemporaryDirectory() as folder:  # readable by this user alone
        certificate, private = Path(folder, "chain.pem"), Path(folder, "key.pem")
        certificate.write_text(chain, encoding="utf-8")
        private.write_text(key, encoding="utf-8")
        try:
            # A password is always given: without one OpenSSL would ask for it on the terminal.
            context.load_cert_chain(certificate, private, password=lambda: password)
        except (ssl.SSLError, ValueError) as error:
            raise NotReady(
                f"{subject}: certificate and privateKey of {CLIENT_CERTIFICATE} at {access.uri} cannot be used "
                f"({_short(error)}): expected PEM, the client's certificate first in its chain, its own key, and "
                "privateKeyPassword where the key is encrypted."
            ) from error


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).replace("_", " ").lower().strip(".")
