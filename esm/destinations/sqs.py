"""Failure records as messages of an SQS standard queue (failure-destinations 2.5)."""

from typing import TYPE_CHECKING

import msgspec

from esm.clients.aws import AwsClients
from esm.clients.aws_errors import AWS_ERRORS, AwsFailure, Kind, Subject, translate
from esm.domain.arn import Arn
from esm.domain.discarded import Discarded, failure_record
from esm.domain.errors import DestinationRejected, DestinationUnavailable, NotReady

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

_REJECTIONS = frozenset(
    (
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "InvalidParameterValueException",
        "MessageTooLong",
        "RequestEntityTooLarge",
    )
)
"""Codes that mean this very message: too large, or with characters that SQS does not take."""
_TOO_LARGE = 413


class SqsDestination:
    """A standard queue.  ``endpoint_url`` is the mapping's own; see ``AwsClients.endpoint``."""

    def __init__(self, arn: Arn, region: str, endpoint_url: str | None, clients: AwsClients) -> None:
        self._arn, self._region, self._endpoint_url, self._clients = arn, region, endpoint_url, clients
        self._subject = Subject("sqs", f"SQS queue {arn.name}", region, "destination_config")
        self._url: str | None = None

    async def store(self, what: Discarded) -> None:
        """Send the failure record, as JSON, without attributes.

        Raises DestinationRejected for a record that SQS will never take (too large), DestinationUnavailable for
        everything else; whether it was stored is unknown then.
        """
        body = msgspec.json.encode(failure_record(what)).decode()
        try:
            client = await self._clients.client("sqs", self._region, self._endpoint_url)
            url = self._url or await self._find(client)
            reply = await client.send_message(QueueUrl=url, MessageBody=body)
        except NotReady as error:
            raise DestinationUnavailable(str(error)) from error
        except AWS_ERRORS as error:
            raise self._error(translate(error, self._subject)) from error
        if not reply.get("MessageId"):  # garbage with status 200 is read as {}
            raise DestinationUnavailable(
                f"{self._subject.what} in {self._region}: the endpoint does not answer as SQS does: check endpoint_url."
            )
        self._url = url

    async def _find(self, client: "SQSClient") -> str:
        """The queue's URL.  Raises AWS_ERRORS."""
        try:
            found = await client.get_queue_url(QueueName=self._arn.name, QueueOwnerAWSAccountId=self._arn.account)
            url = found.get("QueueUrl", "")
        except AWS_ERRORS as error:
            if translate(error, self._subject).kind is not Kind.DENIED:
                raise
            url = ""
        # The role of a Lambda mapping may send to its destination, not ask for the URL; but URLs are regular.
        return url or f"{client.meta.endpoint_url.rstrip('/')}/{self._arn.account}/{self._arn.name}"

    def _error(self, failure: AwsFailure) -> DestinationUnavailable | DestinationRejected:
        if failure.code in _REJECTIONS or failure.status == _TOO_LARGE:
            return DestinationRejected(failure.sentence)
        if failure.kind is Kind.MISSING:
            self._url = None  # it may come back under another
        return DestinationUnavailable(failure.sentence)
