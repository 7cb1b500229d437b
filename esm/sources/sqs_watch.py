"""What a queue tells about itself, asked beside the polls."""

from esm.clients.aws_errors import AWS_ERRORS
from esm.ports import Clock
from esm.sources.sqs_queue import Calls, QueueState
from esm.sources.sqs_shelter import Shelter

ASK_SECONDS = 30.0
"""How often at most the queue is asked."""


class QueueWatch:
    """Visibility and backlog of one queue, at most ASK_SECONDS and one poll old."""

    def __init__(self, queue: Calls, state: QueueState, shelter: Shelter, clock: Clock) -> None:
        self._queue, self._shelter, self._clock = queue, shelter, clock
        self._visibility = self._at_first = state.visibility
        self._waiting: int | None = state.waiting
        self._due = clock.instant().elapsed + ASK_SECONDS

    @property
    def visibility(self) -> int:
        """Whole seconds for which messages are to be hidden: what the queue says, or said when it was connected.

        Attempts are timed by the latter, so a queue whose visibility was lowered since is asked for more.
        """
        return max(self._visibility, self._at_first)

    def look(self) -> None:
        """Ask the queue once more if the last answer is old; never waits."""
        now = self._clock.instant().elapsed
        if now >= self._due:
            self._due = now + ASK_SECONDS
            self._shelter.start(self._ask)

    def news(self) -> int | None:
        """About how many messages wait in the queue; None when that was told already."""
        waiting, self._waiting = self._waiting, None
        return waiting

    async def _ask(self) -> None:
        try:
            state = await self._queue.state()
        except AWS_ERRORS:
            return  # the polls meet the same trouble, and they tell it
        self._visibility, self._waiting = state.visibility, state.waiting
