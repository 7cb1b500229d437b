"""The calls of a queue without a network, on any loop and any clock: they wait, fail and forget as they are told."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from botocore.exceptions import ClientError, EndpointConnectionError

from esm.clients.aws_errors import Subject
from esm.sources.sqs_queue import QueueState

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

Answer = Callable[[Sequence[str]], Mapping[int, str]]
"""What becomes of a batch call for these handles: failures by index.  May raise one of AWS_ERRORS."""


def refused(code: str, status: int = 400) -> ClientError:
    """An error that SQS answers."""
    return ClientError(
        {"Error": {"Code": code, "Message": "By script."}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call"
    )


def unreachable() -> EndpointConnectionError:
    """No connection was made."""
    return EndpointConnectionError(endpoint_url="http://127.0.0.1:1/", error=OSError("refused"))


class ScriptedQueue:
    """Messages are bodies; handles are their numbers.  Visibility does not end by itself here."""

    subject = Subject("sqs", "SQS queue orders", "eu-west-1", "event_source_arn")

    def __init__(self, visibility: int = 30) -> None:
        self.visibility = visibility
        self.ready: deque[str] = deque()
        self.in_flight: dict[str, str] = {}
        """Bodies by handle."""
        self.troubles: deque[Exception] = deque()
        """Raised by the next receives, one each."""
        self.trouble: Exception | None = None
        """Raised by every receive."""
        self.holds = True
        """False: receives do not wait for messages."""
        self.journey = 0.0
        """Seconds that an answer of a receive takes to come home."""
        self.receives: list[tuple[float, int, int, int]] = []
        """(when, count, wait, visibility) of each."""
        self.deletes: list[tuple[float, Sequence[str]]] = []
        self.changes: list[tuple[Sequence[str], int]] = []
        self.states = 0
        self.state_error: Exception | None = None
        self.on_delete: Answer = lambda handles: {}
        self.on_change: Answer = lambda handles: {}
        self._news = anyio.Event()
        self._number = 0

    def send(self, *bodies: str) -> None:
        """Put messages in."""
        self.ready.extend(bodies)
        self._news.set()
        self._news = anyio.Event()

    async def state(self) -> QueueState:
        """See Calls."""
        await anyio.lowlevel.checkpoint()
        self.states += 1
        if self.state_error is not None:
            raise self.state_error
        return QueueState(self.visibility, len(self.ready))

    async def receive(self, count: int, wait: int, visibility: int) -> "Sequence[MessageTypeDef]":
        """See Calls."""
        self.receives.append((anyio.current_time(), count, wait, visibility))
        await anyio.lowlevel.checkpoint()
        if self.troubles:
            raise self.troubles.popleft()
        if self.trouble is not None:
            raise self.trouble
        if self.holds:
            with anyio.move_on_after(wait):
                while not self.ready:
                    await self._news.wait()
        taken: list[MessageTypeDef] = [self._take() for _ in range(min(count, len(self.ready)))]
        await anyio.sleep(self.journey)
        return taken

    def _take(self) -> "MessageTypeDef":
        self._number += 1
        handle, body = str(self._number), self.ready.popleft()
        self.in_flight[handle] = body
        return {"MessageId": f"m{handle}", "ReceiptHandle": handle, "Body": body}

    async def delete(self, handles: Sequence[str]) -> Mapping[int, str]:
        """See Calls."""
        self.deletes.append((anyio.current_time(), list(handles)))
        await anyio.lowlevel.checkpoint()
        failures = self.on_delete(handles)
        for index, handle in enumerate(handles):
            if index not in failures:
                self.in_flight.pop(handle, None)
        return failures

    async def change_visibility(self, handles: Sequence[str], seconds: int) -> Mapping[int, str]:
        """See Calls."""
        self.changes.append((list(handles), seconds))
        await anyio.lowlevel.checkpoint()
        failures = self.on_change(handles)
        for index, handle in enumerate(handles):
            if index not in failures and handle in self.in_flight:
                self.send(self.in_flight.pop(handle))
        return failures
