"""One queue as SQS serves it: the calls, in groups of ten, and what went wrong with which message."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict

from msgspec import Struct

from esm.clients.aws import AwsClients
from esm.clients.aws_errors import AWS_ERRORS, Kind, Subject, translate
from esm.domain.arn import Arn
from esm.domain.errors import NotReady

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

PER_CALL = 10
"""Messages in one call at most, receives, deletes and changes of visibility alike."""
LONGEST_POLL = 20
"""Whole seconds for which SQS holds a receive open at most."""
POLL_READ_SECONDS = LONGEST_POLL + 10.0
"""Silence after which a receive has failed."""


class QueueState(Struct, frozen=True):
    """What GetQueueAttributes tells."""

    visibility: int
    """Whole seconds for which a received message is hidden."""
    waiting: int
    """About how many messages can be received now."""


class _Handle(TypedDict):
    Id: str
    ReceiptHandle: str


class Calls(Protocol):
    """The calls of one queue.  Every method raises AWS_ERRORS."""

    subject: Subject
    """For ``translate``."""

    async def state(self) -> QueueState:
        """Its visibility timeout, and about how much waits in it."""
        ...

    async def receive(self, count: int, wait: int, visibility: int) -> "Sequence[MessageTypeDef]":
        """Up to ``count`` (1–10) messages, hidden for ``visibility`` seconds from the moment that SQS takes them.

        ``wait`` whole seconds (0–20) at most until there is one.
        """
        ...

    async def delete(self, handles: Sequence[str]) -> Mapping[int, str]:
        """Delete up to ten messages; for each that was not deleted: its index, and why (AWS's code)."""
        ...

    async def change_visibility(self, handles: Sequence[str], seconds: int) -> Mapping[int, str]:
        """Have up to ten messages come back after ``seconds``; failures as for ``delete``."""
        ...


async def find_queue(arn: Arn, region: str, endpoint_url: str | None, clients: AwsClients) -> "Queue":
    """The queue that ``arn`` names.  Raises NotReady when it is missing, denied or out of reach."""
    subject = Subject("sqs", f"SQS queue {arn.name}", region, "event_source_arn")
    calls = await clients.client("sqs", region, endpoint_url)
    polls = await clients.client("sqs", region, endpoint_url, use="long-poll", read_timeout=POLL_READ_SECONDS)
    try:
        found = await calls.get_queue_url(QueueName=arn.name, QueueOwnerAWSAccountId=arn.account)
        url = found.get("QueueUrl", "")  # garbage with status 200 is read as {}
    except AWS_ERRORS as error:
        failure = translate(error, subject)
        if failure.kind is not Kind.DENIED:
            raise NotReady(failure.sentence) from error
        url = ""
    # The role of a Lambda mapping may receive, delete and ask for attributes, not for the URL; but URLs are regular.
    return Queue(subject, url or f"{calls.meta.endpoint_url.rstrip('/')}/{arn.account}/{arn.name}", calls, polls)


class Queue:
    """See Calls."""

    def __init__(self, subject: Subject, url: str, calls: "SQSClient", polls: "SQSClient") -> None:
        self.subject = subject
        self._url = url
        self._calls = calls
        self._polls = polls

    async def state(self) -> QueueState:
        """See Calls."""
        reply = await self._calls.get_queue_attributes(
            QueueUrl=self._url, AttributeNames=["VisibilityTimeout", "ApproximateNumberOfMessages"]
        )
        found = reply.get("Attributes", {})
        return QueueState(int(found.get("VisibilityTimeout", 30)), int(found.get("ApproximateNumberOfMessages", 0)))

    async def receive(self, count: int, wait: int, visibility: int) -> "Sequence[MessageTypeDef]":
        """See Calls."""
        reply = await self._polls.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return reply.get("Messages", ())

    async def delete(self, handles: Sequence[str]) -> Mapping[int, str]:
        """See Calls."""
        entries: list[_Handle] = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
        reply = await self._calls.delete_message_batch(QueueUrl=self._url, Entries=entries)
        return _failures(len(handles), reply.get("Successful", ()), reply.get("Failed", ()))

    async def change_visibility(self, handles: Sequence[str], seconds: int) -> Mapping[int, str]:
        """See Calls."""
        reply = await self._calls.change_message_visibility_batch(
            QueueUrl=self._url,
            Entries=[
                {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
                for index, handle in enumerate(handles)
            ],
        )
        return _failures(len(handles), reply.get("Successful", ()), reply.get("Failed", ()))


def _failures(
    count: int, successful: "Sequence[Mapping[str, object]]", failed: "Sequence[Mapping[str, object]]"
) -> Mapping[int, str]:
    """Index → code.  What the reply does not name has failed too: botocore reads garbage with status 200 as {}."""
    done = {entry["Id"] for entry in successful}
    if len(done) == count:
        return {}
    why = {entry["Id"]: str(entry.get("Code", "Unknown")).rsplit(".", 1)[-1] for entry in failed}
    return {index: why.get(str(index), "Unanswered") for index in range(count) if str(index) not in done}
