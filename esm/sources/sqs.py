"""An SQS standard queue as a ``ports.Source``."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from msgspec import Struct

from esm.clients.aws import AwsClients
from esm.clients.aws_errors import AWS_ERRORS, translate
from esm.domain.arn import Arn
from esm.domain.errors import NotReady
from esm.domain.record import LaneId
from esm.domain.retry import Jitter
from esm.ports import AttemptLimits, Clock, Lane, LaneFeed
from esm.sources.sqs_deletes import Deletes
from esm.sources.sqs_events import MessageRecords
from esm.sources.sqs_feed import QueueFeed
from esm.sources.sqs_lane import SqsLane
from esm.sources.sqs_queue import LONGEST_POLL, Calls, Queue, QueueState, find_queue
from esm.sources.sqs_receives import Receives
from esm.sources.sqs_releases import Releases
from esm.sources.sqs_shelter import Shelter
from esm.sources.sqs_watch import QueueWatch
from esm.telemetry.metrics import MappingMetrics

POLL_END_SECONDS = LONGEST_POLL + 5.0
"""How long leaving waits for a receive that a failed pipeline left open, so that no message is stranded."""
CLOSE_SECONDS = 2.0
"""How long leaving takes at most when it is cancelled, a hard stop."""


class Tools(Struct, frozen=True):
    """What a source is given besides its queue."""

    clock: Clock
    jitter: Jitter
    metrics: MappingMetrics


class SqsSource:
    """A queue, before it is reached.  ``endpoint_url`` is the mapping's own; see ``AwsClients.endpoint``."""

    def __init__(
        self,
        mapping: str,
        arn: Arn,
        region: str,
        endpoint_url: str | None,
        clients: AwsClients,
        clock: Clock,
        jitter: Jitter,
        metrics: MappingMetrics,
    ) -> None:
        self._arn, self._region, self._endpoint_url, self._clients = arn, region, endpoint_url, clients
        self._lane = LaneId(mapping, arn.name)
        self._tools = Tools(clock, jitter, metrics)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[LaneFeed, AttemptLimits], None]:
        """See Source.  Leaving waits for receives under way and for deletes; a cancelled leave for CLOSE_SECONDS."""
        if self._arn.name.endswith(".fifo"):
            raise NotReady(
                f"SQS queue {self._arn.name} in {self._region} is a FIFO queue, which is not supported yet: "
                "name a standard queue in event_source_arn."
            )
        queue = await find_queue(self._arn, self._region, self._endpoint_url, self._clients)
        state = await _state(queue)
        records = MessageRecords(self._lane, str(self._arn), self._region)
        raised: Exception | None = None
        async with anyio.create_task_group() as tasks:
            opened = open_queue(self._lane, records, queue, state, Shelter(tasks), self._tools)
            feed = QueueFeed(self._lane, opened.lane, self._tools.clock, self._tools.jitter)
            try:
                yield feed, AttemptLimits(visibility=state.visibility)
            except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it
                raised = error
            finally:
                await opened.close()
        if raised is not None:
            raise raised


class OpenQueue(Struct, frozen=True):
    """What all lanes of one connection share."""

    lane: Callable[[], Lane]
    receives: Receives
    deletes: Deletes
    shelter: Shelter

    async def close(self) -> None:
        """Wait for what is under way, not for long when cancelled, then end it."""
        try:
            with anyio.move_on_after(POLL_END_SECONDS):
                await self.receives.idle()
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self.receives.idle()
                await self.deletes.flush()
            self.shelter.close()


def open_queue(
    lane: LaneId, records: MessageRecords, queue: Calls, state: QueueState, shelter: Shelter, tools: Tools
) -> OpenQueue:
    """Put a queue's lane together; what runs longer than a lane runs in ``shelter``."""
    clock, jitter = tools.clock, tools.jitter
    watch = QueueWatch(queue, state, shelter, clock)
    releases = Releases(lane, queue, clock, jitter)
    receives = Receives(queue, records, watch, shelter, clock, releases.release)
    deletes = Deletes(lane, queue, shelter, clock, tools.metrics.deletes_failed, jitter)
    errors = tools.metrics.polls["error"]
    return OpenQueue(
        lambda: SqsLane(lane, receives, deletes, releases, watch, clock, jitter, errors), receives, deletes, shelter
    )


async def _state(queue: Queue) -> QueueState:
    """What the queue tells of itself.  Raises NotReady."""
    try:
        return await queue.state()
    except AWS_ERRORS as error:
        raise NotReady(translate(error, queue.subject).sentence) from error
