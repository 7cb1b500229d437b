"""What source access configurations make of a connection (delivery-semantics 4.4)."""

import json
import ssl
from collections.abc import Mapping

import pytest

from esm.clients.kafka_logins import Access, Login, login_of
from esm.domain.errors import NotReady
from tests.integration.certificates import Authority

pytestmark = pytest.mark.anyio

SUBJECT = "Kafka topic payments at kafka:9092"
USER = {"username": "u", "password": "hunter2"}


class Given:
    """Secrets in the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def access(self, kind: str, members: Mapping[str, str]) -> Access:
        self._monkeypatch.setenv(kind, json.dumps(members))
        return Access(kind, f"env:{kind}")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    return Given(monkeypatch)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def test_without_access_there_is_no_login() -> None:
    plain, tls = await login_of((), False, None, SUBJECT), await login_of((), True, None, SUBJECT)
    assert (plain.protocol, plain.mechanism, tls.protocol, tls.mechanism) == ("PLAINTEXT", None, "SSL", None)
    assert tls.tls is not None
    assert (tls.tls.verify_mode, tls.tls.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    "kind, mechanism",
    [
        ("BASIC_AUTH", "PLAIN"),
        ("SASL_SCRAM_256_AUTH", "SCRAM-SHA-256"),
        ("SASL_SCRAM_512_AUTH", "SCRAM-SHA-512"),
    ],
)
async def test_users_log_in_by_sasl(given: Given, kind: str, mechanism: str) -> None:
    access = given.access(kind, USER)
    login = await login_of([access], True, None, SUBJECT)
    assert (login.protocol, login.mechanism, login.username, login.password) == ("SASL_SSL", mechanism, "u", "hunter2")
    assert login.access == access
    assert "hunter2" not in repr(login)
    assert (await login_of([access], False, None, SUBJECT)).protocol == "SASL_PLAINTEXT"


async def test_a_given_authority_is_the_only_one_that_is_trusted(given: Given, authority: Authority) -> None:
    access = given.access("SERVER_ROOT_CA_CERTIFICATE", {"certificate": authority.certificate})
    login = await login_of([access], True, None, SUBJECT)
    assert login.tls is not None
    assert len(login.tls.get_ca_certs()) == 1


async def test_a_client_shows_its_certificate(given: Given, authority: Authority) -> None:
    client = authority.client()
    for members in (
        {"certificate": client.certificate, "privateKey": client.key},
        {
            "certificate": client.certificate + authority.certificate,
            "privateKey": client.encrypted_key("open sesame"),
            "privateKeyPassword": "open sesame",
        },
    ):
        login = await login_of([given.access("CLIENT_CERTIFICATE_TLS_AUTH", members)], True, None, SUBJECT)
        assert (login.protocol, login.mechanism) == ("SSL", None)
        assert _shown_to_a_server(login, authority)


def _shown_to_a_server(login: Login, authority: Authority) -> bool:
    """Whether a server that demands a certificate of ``authority`` gets one."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.maximum_version = ssl.TLSVersion.TLSv1_2  # the client's certificate is part of its handshake
    identity = authority.server()
    _load(server_side, identity.certificate, identity.key)
    server_side.load_verify_locations(cadata=authority.certificate)
    server_side.verify_mode = ssl.CERT_REQUIRED
    assert login.tls is not None
    login.tls.load_verify_locations(cadata=authority.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = login.tls.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server.getpeercert() != {}


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "identity.pem")
        file.write_text(key + certificate)
        context.load_cert_chain(file)


async def test_certificates_that_make_no_sense_are_named(given: Given, authority: Authority) -> None:
    one, other = authority.client("one"), authority.client("other")
    for kind, members, sentence in (
        ("SERVER_ROOT_CA_CERTIFICATE", {"certificate": "no PEM"}, "certificate of SERVER_ROOT_CA_CERTIFICATE at env:"),
        ("SERVER_ROOT_CA_CERTIFICATE", {}, 'needs a text "certificate", found none'),
        (
            "CLIENT_CERTIFICATE_TLS_AUTH",
            {"certificate": one.certificate, "privateKey": other.key},
            r"cannot be used \(key values mismatch\)",
        ),
        (
            "CLIENT_CERTIFICATE_TLS_AUTH",
            {"certificate": one.certificate, "privateKey": one.encrypted_key("open sesame")},
            "privateKeyPassword where the key is encrypted",
        ),
        ("CLIENT_CERTIFICATE_TLS_AUTH", {"certificate": one.certificate}, 'needs a text "privateKey", found none'),
    ):
        with pytest.raises(NotReady, match=sentence) as raised:
            await login_of([given.access(kind, members)], True, None, SUBJECT)
        assert str(raised.value).startswith(SUBJECT)
        assert "PRIVATE KEY-" not in str(raised.value)


async def test_a_login_that_is_not_built_is_refused(given: Given) -> None:
    with pytest.raises(NotReady, match="a login by OAUTHBEARER_AUTH is not supported yet"):
        await login_of([given.access("OAUTHBEARER_AUTH", {})], True, None, SUBJECT)
