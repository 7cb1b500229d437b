"""What went wrong at a Kafka cluster, in whole sentences."""

import re
from collections.abc import Iterable

from esm.clients.kafka_logins import CLIENT_CERTIFICATE, SERVER_CA, Login

_TLS_NEEDED = "if the broker expects TLS here, give source_access_configurations or tls: true"


def not_connected(subject: str, login: Login, reasons: Iterable[str]) -> str:
    """Why no broker could be reached: the reason is only in what aiokafka logged (``reasons``), oldest first."""
    said = list(reasons)
    for reason in reversed(said):
        if sentence := _login(subject, login, reason) or _tls(subject, login, reason):
            return sentence
    last = said[-1] if said else "no broker answered"
    if any("closed" in reason or "reset" in reason.lower() for reason in said):
        hint = _TLS_NEEDED if login.tls is None else "check that this port speaks TLS and takes this way to log in"
        return f"{subject}: the broker ended the connection ({_short(last)}): {hint}."
    if "TimeoutError" in last:
        hint = f"check host and port; {_TLS_NEEDED}" if login.tls is None else "check host and port"
        return f"{subject}: the broker does not answer ({_short(last)}): {hint}."
    return f"{subject}: the broker cannot be reached ({_short(last)}): check host and port, and that it runs."


def _login(subject: str, login: Login, reason: str) -> str | None:
    uri = login.access.uri if login.access else "source_access_configurations"
    if "UnsupportedSaslMechanism" in reason or "IllegalSaslState" in reason or "does not support" in reason:
        way = f"{login.mechanism} ({login.access.type})" if login.access else str(login.mechanism)
        return f"{subject}: the broker does not take a login by {way} on this port ({_short(reason)})."
    if re.search(r"Authentication ?Failed|SaslAuthenticat|Authentication failed|wrong signature", reason):
        return (
            f"{subject}: the broker refused the login of user {login.username} by {login.mechanism}: check username "
            f"and password in {uri}."
        )
    return None


def _tls(subject: str, login: Login, reason: str) -> str | None:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"{subject}: the broker's certificate is not trusted ({_certificate(reason)}): give its authority as "
            f"{SERVER_CA} in source_access_configurations, and the host name that the certificate bears."
        )
    if re.search(r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNKNOWN_CA|ALERT_CERTIFICATE", reason, re.I):
        if login.access and login.access.type == CLIENT_CERTIFICATE:
            return f"{subject}: the broker refused the client's certificate of {login.access.uri} ({_short(reason)})."
        where = f"{CLIENT_CERTIFICATE} in source_access_configurations"
        return f"{subject}: the broker asks for a client's certificate: give {where}."
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason or "PACKET_LENGTH" in reason.upper():
        return f"{subject}: the broker speaks no TLS on this port: use its TLS port, or tls: false."
    return None


def _certificate(reason: str) -> str:
    found = re.search(r"certificate verify failed: ([^(]*)", reason)
    return found[1].strip() if found else "certificate verify failed"


def _short(reason: str) -> str:
    text = reason.rstrip(". ")
    return text if len(text) <= 300 else text[:297] + "..."


def sentence_of(subject: str, error: BaseException, group: str) -> str:
    """An error of aiokafka after the connection stood."""
    name = type(error).__name__
    match name:
        case "GroupAuthorizationFailedError":
            return f"{subject}: the user may not use the group {group}: allow READ on it, or set consumer_group_id."
        case "TopicAuthorizationFailedError":
            return f"{subject}: the user may not read the topic: allow READ and DESCRIBE on it."
        case "InconsistentGroupProtocolError":
            return (
                f"{subject}: the group {group} is in use by consumers of another kind: stop them first, or set another "
                "consumer_group_id."
            )
        case "InvalidSessionTimeoutError" | "InvalidGroupIdError":
            return f"{subject}: the broker does not accept the group {group} ({name})."
        case "UnsupportedCodecError":
            return f"{subject}: a record is compressed in a way that cannot be read here ({_short(str(error))})."
        case "TimeoutError":
            return f"{subject}: the broker did not answer in time."
        case _:
            return f"{subject}: {name}: {_short(' '.join(str(error).split()))}."
