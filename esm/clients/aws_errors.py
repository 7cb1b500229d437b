"""What went wrong at AWS: one class of failure and one sentence for every error of botocore and aiobotocore."""

from enum import StrEnum

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    LoginError,
    MetadataRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as NotConnected,
)
from botocore.parsers import ResponseParserError
from msgspec import Struct

AWS_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
"""For ``except AWS_ERRORS as error``: all that a call of a client raises because of AWS, network or credentials."""


class Kind(StrEnum):
    """Classes of failure, by what can be done about them."""

    THROTTLED = "throttled"
    """Too many calls: wait and try again.  It had no effect."""
    DENIED = "denied"
    """The credentials are good, the permission is missing (or the key of an encrypted source is out of bounds)."""
    CREDENTIALS = "credentials"
    """No credentials, wrong ones, expired ones, or a clock that is wrong."""
    MISSING = "missing"
    """There is no such queue, stream, table, function or secret."""
    SERVER = "server"
    """AWS had an internal error (5xx); whether the call had its effect is unknown."""
    UNREACHABLE = "unreachable"
    """No connection (name, route, refusal, TLS): the call was never sent."""
    TIMEOUT = "timeout"
    """No answer in time; whether the call had its effect is unknown."""
    LOST = "lost"
    """The connection ended before the answer was complete; whether the call had its effect is unknown."""
    OTHER = "other"
    """Every other error that the service answered; it had no effect.  ``AwsFailure.code`` says which."""


class Subject(Struct, frozen=True):
    """What a call is about, for sentences."""

    service: str
    """IAM's prefix: ``sqs``, ``kinesis``, ``dynamodb``, ``lambda``, ``secretsmanager``."""
    what: str
    """As an operator calls it: ``SQS queue orders``."""
    region: str
    option: str = ""
    """The option that names it: ``event_source_arn``."""


class AwsFailure(Struct, frozen=True):
    """One error, understood."""

    kind: Kind
    code: str
    """AWS's code without a prefix (``NonExistentQueue``), or the name of botocore's class."""
    sentence: str
    """Whole, for an operator: what was found, where, what to do.  Never a payload or a secret."""
    status: int | None = None
    """Of the HTTP answer, if there was one."""
    retry_after: float | None = None
    """Seconds that the service asked for."""

    @property
    def passing(self) -> bool:
        """Whether it may go away by itself within seconds, so that the same call is worth repeating soon."""
        return self.kind in _PASSING

    @property
    def maybe_done(self) -> bool:
        """Whether the call may have had its effect all the same."""
        return self.kind in _MAYBE_DONE


_PASSING = frozenset((Kind.THROTTLED, Kind.SERVER, Kind.UNREACHABLE, Kind.TIMEOUT, Kind.LOST))
_MAYBE_DONE = frozenset((Kind.SERVER, Kind.TIMEOUT, Kind.LOST))

_THROTTLES = frozenset(
    (
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "KMSThrottlingException",
        "KmsThrottled",
        "LimitExceededException",
        "OverLimit",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceQuotaExceededException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    )
)
_DENIALS = frozenset(
    (
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "KMSAccessDeniedException",
        "KMSDisabledException",
        "KMSInvalidStateException",
        "KMSNotFoundException",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidState",
        "KmsNotFound",
        "UnauthorizedOperation",
    )
)
_BAD_CREDENTIALS = frozenset(
    (
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    )
)
_MISSING = frozenset(
    (
        "NoSuchBucket",
        "NonExistentQueue",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
        "TopicNotFound",
    )
)
_QUOTING = frozenset(
    (
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidMessageContents",
        "InvalidRequestContentException",
        "SerializationException",
        "SerializedRequestEntityTooLargeException",
    )
)
"""Errors whose message repeats parts of the request: its payload, or its Authorization header."""
_LOGINS = frozenset(("AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken"))
"""Operations that botocore calls to get credentials, before the call that was asked for."""

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    MetadataRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
    SSOError,
    LoginError,
)
_PERMISSIONS = {
    ("lambda", "Invoke"): "lambda:InvokeFunction",
    ("lambda", "GetFunctionConfiguration"): "lambda:GetFunctionConfiguration",
}
HOW_TO_LOG_IN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the container a role; "
    "the standard AWS chain is searched"
)


def translate(error: Exception, subject: Subject) -> AwsFailure:
    """Understand ``error``, one of AWS_ERRORS, that a call about ``subject`` raised.  Never raises."""
    if isinstance(error, ClientError):
        return _refused(error, subject)
    kind, why = _unanswered(error)
    return AwsFailure(kind, type(error).__name__, f"{_place(subject)}: {why}.")


def _place(subject: Subject) -> str:
    return f"{subject.what} in {subject.region}" if subject.region else subject.what


def _refused(error: ClientError, subject: Subject) -> AwsFailure:
    """An answer of the service that is an error."""
    found = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    code = str(found.get("Code", "")).rsplit(".", 1)[-1].rsplit("#", 1)[-1] or "Unknown"
    status = metadata.get("HTTPStatusCode")
    kind = Kind.CREDENTIALS if error.operation_name in _LOGINS else _kind(code, status or 0)
    said = _quotable(kind, code, str(found.get("Message", "")))
    sentence = _sentence(kind, code, f"{code}: {said}" if said else code, error.operation_name, subject)
    headers = metadata.get("HTTPHeaders", {})
    return AwsFailure(kind, code, sentence, status, _seconds(headers.get("retry-after")))


def _quotable(kind: Kind, code: str, message: str) -> str:
    """As much of AWS's message as holds neither payload nor secret.

    What follows the first paragraph of a credentials error is the canonical request, session token included.
    """
    if code in _QUOTING or code.isdecimal() or code == "Unknown":  # the latter: somebody else's page
        return ""
    text = message.strip()
    return _short(text.partition("\n")[0] if kind is Kind.CREDENTIALS else text).rstrip(".")


def _kind(code: str, status: int) -> Kind:
    for kind, codes in (
        (Kind.THROTTLED, _THROTTLES),
        (Kind.DENIED, _DENIALS),
        (Kind.CREDENTIALS, _BAD_CREDENTIALS),
        (Kind.MISSING, _MISSING),
    ):
        if code in codes:
            return kind
    if status == 429:
        return Kind.THROTTLED
    if status >= 500:
        return Kind.SERVER
    return Kind.DENIED if status in (401, 403) else Kind.OTHER


def _sentence(kind: Kind, code: str, said: str, operation: str, subject: Subject) -> str:
    place = _place(subject)
    check = (
        f"check {subject.option} (region, account, name)" if subject.option else "check its name, region and account"
    )
    match kind:
        case Kind.MISSING:
            return f"{place} does not exist ({said}): {check}, or create it."
        case Kind.DENIED if code.upper().startswith("KMS"):
            return f"{place} cannot be decrypted ({said}): allow kms:Decrypt to the worker's role and check its key."
        case Kind.DENIED:
            return f"{place} may not be used ({said}): allow {_permission(operation, subject)} to the worker's role."
        case Kind.CREDENTIALS:
            todo = "check key, secret, token and this machine's clock"
            return f"{place}: AWS does not accept the credentials ({said}): {todo}."
        case Kind.THROTTLED:
            return f"{place} is throttled at {operation} ({said})."
        case Kind.SERVER:
            return f"{place}: AWS failed at {operation} ({said})."
        case Kind.OTHER if code.isdecimal() or code == "Unknown":  # no AWS error in the body
            return f"{place}: the endpoint does not answer as AWS does ({said}): check endpoint_url."
        case _:
            return f"{place}: {operation} was refused ({said})."


def _permission(operation: str, subject: Subject) -> str:
    known = _PERMISSIONS.get((subject.service, operation))
    return known or f"{subject.service}:{operation.removesuffix('Batch') if subject.service == 'sqs' else operation}"


def _unanswered(error: Exception) -> tuple[Kind, str]:
    """Kind and half a sentence for an error without an answer of the service."""
    if isinstance(error, NoCredentialsError):
        return Kind.CREDENTIALS, f"no AWS credentials were found: {HOW_TO_LOG_IN}"
    if isinstance(error, _NO_CREDENTIALS):
        return Kind.CREDENTIALS, f"the AWS credentials cannot be loaded ({_short(str(error))}): {HOW_TO_LOG_IN}"
    where = _endpoint(error)
    if isinstance(error, ReadTimeoutError):
        return Kind.TIMEOUT, f"{where} did not answer in time"
    if isinstance(error, EndpointConnectionError) and not _never_connected(error):
        return Kind.LOST, f"the connection to {where} broke before the answer was complete"
    if isinstance(error, SSLError):
        return Kind.UNREACHABLE, f"TLS with {where} failed ({_reason(error)}): check the certificate and AWS_CA_BUNDLE"
    if isinstance(error, ProxyConnectionError):
        return Kind.UNREACHABLE, f"the proxy does not answer ({_short(str(error))}): check HTTPS_PROXY"
    if isinstance(error, NotConnected):
        return Kind.UNREACHABLE, f"{where} cannot be reached ({_reason(error)}): check network, region and endpoint_url"
    if isinstance(error, HTTPClientError):
        return Kind.LOST, f"the connection to {where} broke before the answer was complete"
    if isinstance(error, ResponseParserError):
        return Kind.LOST, "an answer came that is not AWS's: check endpoint_url"  # its text quotes the answer
    if isinstance(error, ParamValidationError):  # its text quotes the request
        return Kind.OTHER, "the request has parameters that AWS's client does not take"
    return Kind.OTHER, _short(str(error)).rstrip(".")


def _never_connected(error: EndpointConnectionError) -> bool:
    """Whether the connection was never made.

    aiobotocore raises EndpointConnectionError for a refused connection *and* for a reset after sending (aiohttp's
    ClientOSError); only the original error, which it keeps, tells them apart.  Any doubt counts as sent.
    """
    original = error.kwargs.get("error")
    return isinstance(original, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) or (
        isinstance(original, OSError) and not isinstance(original, aiohttp.ClientError)  # name resolution
    )


def _endpoint(error: Exception) -> str:
    """Scheme and host that were called, without the path (a path may name a function or a queue)."""
    url = str(error.kwargs.get("endpoint_url", "")) if isinstance(error, BotoCoreError) else ""
    return "/".join(url.split("/", 3)[:3]).partition("?")[0] or "the service"


def _reason(error: BotoCoreError) -> str:
    original = error.kwargs.get("error")
    if isinstance(original, aiohttp.ClientConnectorError) and original.os_error.strerror:
        return _short(original.os_error.strerror)
    return _short(str(original)) if original is not None else type(error).__name__


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 300 else one_line[:297] + "..."


def _seconds(header: object) -> float | None:
    """Retry-After in seconds; its other form, a date, is not used by AWS."""
    try:
        return max(0.0, float(str(header))) if header is not None else None
    except ValueError:
        return None
