"""What went wrong at AWS, understood: one kind and one sentence each, and no secret in any."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from esm.clients.aws import AWS_ERRORS, AwsClients, AwsSettings, Kind, Subject, translate
from esm.clients.aws_errors import AwsFailure
from esm.domain.errors import NotReady
from esm.sandbox import Drop, Fail, Fault, Garbage, Hang, LoseReply, Sandbox, ServerError, Throttle
from esm.sandbox.faults import Effect
from tests.support.certificates import server_tls
from tests.support.raw_server import Request, answering, closed_port, raw_server, reset
from tests.support.sandbox_process import REGION, aws_clients

pytestmark = pytest.mark.anyio

QUEUE = Subject("sqs", "SQS queue orders", REGION, "event_source_arn")


def refused(
    code: str, message: str = "It said so.", status: int = 400, operation: str = "ReceiveMessage"
) -> AwsFailure:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}}
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    return translate(ClientError(answer, operation), QUEUE)  # type: ignore[arg-type]  # as much of an answer as is read


async def failure_at(url: str, *, read_timeout: float = 30) -> AwsFailure:
    """How a call of SQS at ``url`` fails."""
    async with aws_clients(url) as clients:
        client = await clients.client("sqs", REGION, read_timeout=read_timeout)
        with pytest.raises(AWS_ERRORS) as caught:
            await client.get_queue_url(QueueName="orders")
    return translate(caught.value, QUEUE)


async def failure_by(effect: Effect, *, read_timeout: float = 30) -> AwsFailure:
    """How a call of SQS fails with a fault of the sandbox; it is sent once."""
    async with Sandbox.open() as sandbox:
        sandbox.sqs.create_queue("orders")
        sandbox.faults.add(Fault("sqs:GetQueueUrl", effect))
        failure = await failure_at(sandbox.url, read_timeout=read_timeout)
        assert sandbox.calls["sqs:GetQueueUrl"] == 1
    return failure


# -- errors that a service answers


@pytest.mark.parametrize(
    "code,status,kind",
    [
        ("RequestThrottled", 400, Kind.THROTTLED),
        ("ThrottlingException", 400, Kind.THROTTLED),
        ("ProvisionedThroughputExceededException", 400, Kind.THROTTLED),
        ("LimitExceededException", 400, Kind.THROTTLED),
        ("KMSThrottlingException", 400, Kind.THROTTLED),
        ("SomethingNew", 429, Kind.THROTTLED),
        ("AccessDenied", 403, Kind.DENIED),
        ("AccessDeniedException", 400, Kind.DENIED),
        ("KMSAccessDeniedException", 400, Kind.DENIED),
        ("SomethingNew", 403, Kind.DENIED),
        ("InvalidClientTokenId", 403, Kind.CREDENTIALS),
        ("UnrecognizedClientException", 400, Kind.CREDENTIALS),
        ("ExpiredTokenException", 400, Kind.CREDENTIALS),
        ("SignatureDoesNotMatch", 403, Kind.CREDENTIALS),
        ("RequestTimeTooSkewed", 403, Kind.CREDENTIALS),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, Kind.MISSING),
        ("com.amazonaws.sqs#QueueDoesNotExist", 400, Kind.MISSING),
        ("ResourceNotFoundException", 400, Kind.MISSING),
        ("InternalFailure", 500, Kind.SERVER),
        ("ServiceUnavailable", 503, Kind.SERVER),
        ("ExpiredIteratorException", 400, Kind.OTHER),
        ("", 400, Kind.OTHER),
    ],
)
def test_a_code_is_of_a_kind(code: str, status: int, kind: Kind) -> None:
    failure = refused(code, status=status)
    assert failure.kind is kind
    assert failure.status == status
    assert failure.code == (code.rpartition("#")[2].rpartition(".")[2] or "Unknown")
    assert failure.sentence.startswith("SQS queue orders in eu-west-1")
    assert failure.sentence.endswith(".")


def test_what_passes_by_itself_and_what_may_have_had_its_effect_are_told_apart() -> None:
    assert [refused("RequestThrottled").passing, refused("RequestThrottled").maybe_done] == [True, False]
    assert [refused("InternalError", status=500).passing, refused("InternalError", status=500).maybe_done] == [
        True,
        True,
    ]
    assert [refused("AccessDenied").passing, refused("AccessDenied").maybe_done] == [False, False]


@pytest.mark.parametrize(
    "code,operation,sentence",
    [
        (
            "QueueDoesNotExist",
            "ReceiveMessage",
            (
                "SQS queue orders in eu-west-1 does not exist (QueueDoesNotExist: It said so): "
                "check event_source_arn (region, account, name), or create it."
            ),
        ),
        (
            "AccessDenied",
            "DeleteMessageBatch",
            (
                "SQS queue orders in eu-west-1 may not be used (AccessDenied: It said so): "
                "allow sqs:DeleteMessage to the worker's role."
            ),
        ),
        (
            "KMSAccessDeniedException",
            "ReceiveMessage",
            (
                "SQS queue orders in eu-west-1 cannot be decrypted (KMSAccessDeniedException: It said so): "
                "allow kms:Decrypt to the worker's role and check its key."
            ),
        ),
        (
            "ExpiredToken",
            "ReceiveMessage",
            (
                "SQS queue orders in eu-west-1: AWS does not accept the credentials (ExpiredToken: It said so): "
                "check key, secret, token and this machine's clock."
            ),
        ),
        (
            "AccessDenied",
            "AssumeRoleWithWebIdentity",
            (
                "SQS queue orders in eu-west-1: AWS does not accept the credentials (AccessDenied: It said so): "
                "check key, secret, token and this machine's clock."
            ),
        ),
        (
            "RequestThrottled",
            "ReceiveMessage",
            "SQS queue orders in eu-west-1 is throttled at ReceiveMessage (RequestThrottled: It said so).",
        ),
    ],
)
def test_a_sentence_says_what_to_do(code: str, operation: str, sentence: str) -> None:
    assert refused(code, operation=operation).sentence == sentence


def test_the_permission_to_invoke_has_iams_own_name() -> None:
    metadata = {"HTTPStatusCode": 403, "HTTPHeaders": {}}
    answer = {"Error": {"Code": "AccessDeniedException", "Message": ""}, "ResponseMetadata": metadata}
    subject = Subject("lambda", "Lambda function tally", REGION, "function_name")
    failure = translate(ClientError(answer, "Invoke"), subject)  # type: ignore[arg-type]  # as above
    assert "allow lambda:InvokeFunction to the worker's role" in failure.sentence


@pytest.mark.parametrize(
    "code,message",
    [
        ("SignatureDoesNotMatch", "It does not match.\n\nThe Canonical String should be\nx-amz-security-token:TOKEN"),
        ("IncompleteSignature", "'Credential=TOKEN' not a valid key=value pair in Authorization header"),
        ("InvalidRequestContentException", 'Could not parse request body into json at [Source: "{TOKEN"]'),
        ("SerializationException", "Unexpected TOKEN in the body"),
        ("503", "<html>TOKEN</html>"),
    ],
)
def test_no_sentence_repeats_payload_or_secret(code: str, message: str) -> None:
    assert "TOKEN" not in refused(code, message).sentence


def test_a_long_message_is_cut() -> None:
    assert len(refused("ValidationException", "long " * 500).sentence) < 500


@pytest.mark.parametrize("header,seconds", [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None)])
def test_retry_after_is_read_as_seconds(header: str, seconds: float | None) -> None:
    metadata = {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": header}}
    answer = {"Error": {"Code": "TooManyRequestsException"}, "ResponseMetadata": metadata}
    assert translate(ClientError(answer, "Invoke"), QUEUE).retry_after == seconds  # type: ignore[arg-type]  # as above


# -- errors without an answer


@pytest.mark.parametrize(
    "error,sentence",
    [
        (NoCredentialsError(), "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (
            PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            "the AWS credentials cannot be loaded",
        ),
        (CredentialRetrievalError(provider="role", error_msg="denied"), "the AWS credentials cannot be loaded"),
        (ProfileNotFound(profile="prod"), "The config profile (prod) could not be found"),
        (UnauthorizedSSOTokenError(), "the AWS credentials cannot be loaded"),
    ],
)
def test_credentials_that_cannot_be_had_are_a_kind_of_their_own(error: BotoCoreError, sentence: str) -> None:
    failure = translate(error, QUEUE)
    assert failure.kind is Kind.CREDENTIALS
    assert not failure.passing
    assert sentence in failure.sentence
    assert failure.sentence.endswith("the standard AWS chain is searched.")


def test_errors_that_quote_requests_or_answers_are_not_repeated() -> None:
    for error in (ParamValidationError(report="TOKEN"), ResponseParserError("invalid XML received: TOKEN")):
        assert "TOKEN" not in translate(error, QUEUE).sentence


def test_every_other_error_is_still_a_sentence() -> None:
    failure = translate(NoRegionError(), QUEUE)
    assert (failure.kind, failure.code) == (Kind.OTHER, "NoRegionError")
    assert failure.sentence == "SQS queue orders in eu-west-1: You must specify a region."


# -- the same, met for real


async def test_a_throttle_is_throttled_and_not_tried_again() -> None:
    failure = await failure_by(Throttle(retry_after=3))
    assert (failure.kind, failure.retry_after) == (Kind.THROTTLED, 3.0)


@pytest.mark.parametrize("effect", [ServerError(), ServerError(503), Garbage(), Garbage(b"", 504)])
async def test_an_internal_error_is_the_servers_and_not_tried_again(effect: Effect) -> None:
    assert (await failure_by(effect)).kind is Kind.SERVER


async def test_a_denial_names_the_permission() -> None:
    failure = await failure_by(Fail("AccessDeniedException", "User arn:aws:iam::1:user/x is not authorized.", 403))
    assert failure.kind is Kind.DENIED
    assert "allow sqs:GetQueueUrl to the worker's role" in failure.sentence


@pytest.mark.parametrize("effect", [Drop(), LoseReply()])
async def test_a_connection_that_ends_without_an_answer_is_lost(effect: Effect) -> None:
    failure = await failure_by(effect)
    assert failure.kind is Kind.LOST
    assert failure.maybe_done


async def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    failure = await failure_by(Hang(), read_timeout=0.1)
    assert failure.kind is Kind.TIMEOUT
    assert failure.maybe_done
    assert "did not answer in time" in failure.sentence


async def test_a_reset_after_sending_is_lost_and_not_unreachable() -> None:
    async with raw_server(reset) as server:
        assert (await failure_at(server.url)).kind is Kind.LOST
        assert len(server.requests) == 1


async def test_an_answer_that_ends_too_early_is_lost() -> None:
    async def half(_request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        return False

    async with raw_server(half) as server:
        assert (await failure_at(server.url)).kind is Kind.LOST


@pytest.mark.parametrize("status", [200, 404])
async def test_an_answer_that_is_no_aws_makes_no_crash(status: int) -> None:
    async with raw_server(answering(status, b"<html>hello</html>")) as server, aws_clients(server.url) as clients:
        client = await clients.client("sqs", REGION)
        if status == 200:
            assert "QueueUrl" not in await client.get_queue_url(QueueName="orders")
        else:
            with pytest.raises(AWS_ERRORS) as caught:
                await client.get_queue_url(QueueName="orders")
            failure = translate(caught.value, QUEUE)
            assert failure.kind is Kind.OTHER
            assert "the endpoint does not answer as AWS does" in failure.sentence


async def test_nobody_listening_is_unreachable_with_what_to_check() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    failure = await failure_at(url)
    assert failure.kind is Kind.UNREACHABLE
    assert not failure.maybe_done
    assert failure.sentence.startswith(f"SQS queue orders in eu-west-1: {url} cannot be reached (Connect")
    assert failure.sentence.endswith("check network, region and endpoint_url.")


async def test_an_unknown_name_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # asking a real name server would leave this machine
    failure = await failure_at("http://nowhere.invalid")
    assert failure.kind is Kind.UNREACHABLE
    assert "http://nowhere.invalid cannot be reached (Name or service not known)" in failure.sentence


async def test_a_certificate_that_nobody_vouches_for_is_unreachable(tmp_path: Path) -> None:
    async with raw_server(answering(200), tls=server_tls(tmp_path)) as server:
        failure = await failure_at(server.url)
        assert server.requests == []
    assert failure.kind is Kind.UNREACHABLE
    assert "TLS with https://127.0.0.1" in failure.sentence
    assert "check the certificate and AWS_CA_BUNDLE" in failure.sentence


async def test_tls_towards_a_server_that_speaks_none_is_unreachable() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-plain\r\n")
        await writer.drain()
        writer.close()

    plain = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with plain:
        failure = await failure_at(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}")
    assert failure.kind is Kind.UNREACHABLE


async def test_credentials_that_aws_does_not_know_are_told_with_what_to_check() -> None:
    async with Sandbox.open(access_keys=["AKIDOTHER"]) as sandbox:
        failure = await failure_at(sandbox.url)
    assert failure.kind is Kind.CREDENTIALS
    assert "check key, secret, token and this machine's clock" in failure.sentence
    assert "secret-of-the-sandbox" not in failure.sentence


async def test_a_missing_queue_is_missing() -> None:
    async with Sandbox.open() as sandbox:
        failure = await failure_at(sandbox.url)
    assert (failure.kind, failure.code) == (Kind.MISSING, "NonExistentQueue")


async def test_missing_credentials_are_not_ready_until_they_appear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    async with Sandbox.open() as sandbox:
        sandbox.sqs.create_queue("orders")
        async with AwsClients(AwsSettings(endpoint_url=sandbox.url), AioSession()) as clients:
            for _ in range(2):
                with pytest.raises(NotReady, match="no AWS credentials were found: set AWS_ACCESS_KEY_ID"):
                    await clients.client("sqs", REGION)
            (tmp_path / "credentials").write_text("[default]\naws_access_key_id=a\naws_secret_access_key=b\n")
            client = await clients.client("sqs", REGION)
            assert "orders" in (await client.get_queue_url(QueueName="orders"))["QueueUrl"]
