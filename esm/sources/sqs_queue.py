"""One queue as SQS serves it: the calls, in groups of ten, and what went wrong with which message."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from msgspec import Struct

from esm.clients.aws_errors import Subject

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

PER_CALL = 10
"""Messages in one call at most, receives, deletes and changes of visibility alike."""


class QueueState(Struct, frozen=True):
    """What GetQueueAttributes tells."""

    visibility: float
    """Seconds for which a received message is hidden."""
    waiting: int
    """About how many messages can be received now."""


class _Handle(TypedDict):
    Id: str
    ReceiptHandle: str


class Queue:
    """The calls of one queue.  Every method raises AWS_ERRORS."""

    def __init__(self, subject: Subject, url: str, calls: "SQSClient", polls: "SQSClient") -> None:
        self.subject = subject
        """For ``translate``."""
        self._url = url
        self._calls = calls
        self._polls = polls

    async def state(self) -> QueueState:
        """Its visibility timeout, and about how much waits in it."""
        reply = await self._calls.get_queue_attributes(
            QueueUrl=self._url, AttributeNames=["VisibilityTimeout", "ApproximateNumberOfMessages"]
        )
        found = reply.get("Attributes", {})
        return QueueState(float(found.get("VisibilityTimeout", 30)), int(found.get("ApproximateNumberOfMessages", 0)))

    async def receive(self, count: int, wait: int) -> "Sequence[MessageTypeDef]":
        """Up to ``count`` (1–10) messages; ``wait`` whole seconds (0–20) at most until there is one."""
        reply = await self._polls.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return reply.get("Messages", ())

    async def delete(self, handles: Sequence[str]) -> Mapping[int, str]:
        """Delete up to ten messages; for each that was not deleted: its index, and why (AWS's code)."""
        entries: list[_Handle] = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
        reply = await self._calls.delete_message_batch(QueueUrl=self._url, Entries=entries)
        return _failures(len(handles), reply.get("Successful", ()), reply.get("Failed", ()))

    async def change_visibility(self, handles: Sequence[str], seconds: int) -> Mapping[int, str]:
        """Have up to ten messages come back after ``seconds``; failures as for ``delete``."""
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
    """Index → code.  What the reply does not name at all has failed too: botocore reads garbage with status 200 as {}."""
    done = {entry["Id"] for entry in successful}
    if len(done) == count:
        return {}
    why = {entry["Id"]: str(entry.get("Code", "Unknown")).rsplit(".", 1)[-1] for entry in failed}
    return {index: why.get(str(index), "Unanswered") for index in range(count) if str(index) not in done}
