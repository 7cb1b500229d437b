"""Sentences about Kafka clusters, from what aiokafka logs (recorded against Apache Kafka)."""

import ssl

import pytest
from aiokafka import errors

from esm.clients.kafka_errors import not_connected, sentence_of
from esm.clients.kafka_logins import Access, Login

SUBJECT = "Kafka topic payments at kafka:9092"
PLAIN = Login()
TLS = Login(tls=ssl.create_default_context())
USER = Login(TLS.tls, "SCRAM-SHA-512", "u", "hunter2", Access("SASL_SCRAM_512_AUTH", "file:secret"))
CERTIFICATE = Login(TLS.tls, access=Access("CLIENT_CERTIFICATE_TLS_AUTH", "env:CERTIFICATE"))


@pytest.mark.parametrize(
    "login, reason, sentence",
    [
        (
            PLAIN,
            """Unable connect to "kafka:9092": [Errno 111] Connect call failed ('127.0.0.1', 9092)""",
            "the broker cannot be reached (",
        ),
        (PLAIN, 'Unable connect to "kafka:9092": [Errno -2] Name or service not known', "check host and port"),
        (PLAIN, 'Unable connect to "kafka:9092": TimeoutError()', "if the broker expects TLS here"),
        (PLAIN, 'Unable connect to "kafka:9092": KafkaConnectionError: Connection at kafka:9092 closed', "tls: true"),
        (
            USER,
            (
                'Unable connect to "kafka:9092": [Error 58] SaslAuthenticationFailed: Authentication failed during '
                "authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512"
            ),
            "the broker refused the login of user u by SCRAM-SHA-512: check username and password in file:secret.",
        ),
        (
            USER,
            'Unable connect to "kafka:9092": [Error 33] UnsupportedSaslMechanismError: …',
            "the broker does not take a login by SCRAM-SHA-512 (SASL_SCRAM_512_AUTH) on this port",
        ),
        (
            TLS,
            (
                'Unable connect to "kafka:9092": [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: '
                "self-signed certificate in certificate chain (_ssl.c:1006)"
            ),
            "not trusted (self-signed certificate in certificate chain): give its authority as SERVER_ROOT_CA",
        ),
        (
            TLS,
            "Connection at kafka:9092 closed: SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert')",
            "the broker asks for a client's certificate: give CLIENT_CERTIFICATE_TLS_AUTH",
        ),
        (
            CERTIFICATE,
            "Connection at kafka:9092 closed: SSLError(1, '[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca')",
            "the broker refused the client's certificate of env:CERTIFICATE",
        ),
        (TLS, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "speaks no TLS on this port"),
        (TLS, 'Unable connect to "kafka:9092": ConnectionResetError()', "check that this port speaks TLS"),
    ],
)
def test_a_reason_becomes_a_sentence(login: Login, reason: str, sentence: str) -> None:
    said = not_connected(SUBJECT, login, ["Some earlier line", reason])
    assert said.startswith(f"{SUBJECT}: ")
    assert sentence in said
    assert said.endswith(".")
    assert "hunter2" not in said


def test_without_any_reason_there_is_a_sentence_too() -> None:
    assert not_connected(SUBJECT, PLAIN, []) == (
        f"{SUBJECT}: the broker cannot be reached (no broker answered): check host and port, and that it runs."
    )


@pytest.mark.parametrize(
    "error, sentence",
    [
        (errors.GroupAuthorizationFailedError("g"), "the user may not use the group g"),
        (errors.TopicAuthorizationFailedError("t"), "the user may not read the topic"),
        (errors.InconsistentGroupProtocolError(), "the group g is in use by consumers of another kind"),
        (errors.InvalidGroupIdError(), "the broker does not accept the group g (InvalidGroupIdError)"),
        (errors.UnsupportedCodecError("no lz4"), "compressed in a way that cannot be read here (UnsupportedCodec"),
        (TimeoutError(), "the broker did not answer in time"),
        (errors.CorruptRecordException("Invalid CRC"), "CorruptRecordException: "),
    ],
)
def test_an_error_of_the_library_becomes_a_sentence(error: Exception, sentence: str) -> None:
    assert sentence in sentence_of(SUBJECT, error, "g")
