"""How one attempt ended, as a target tells it."""

from typing import Protocol

from msgspec import Struct


class Finishing(Protocol):
    """Something that can be waited for: set when a timed-out handler has really returned."""

    async def wait(self) -> object:
        """Return once it happened."""
        ...


class Succeeded(Struct, frozen=True):
    """The target took the batch; its reply may still be a report of failures."""

    reply: bytes
    """The body as it came, JSON or empty."""
    executed_version: str = "$LATEST"


class Failed(Struct, frozen=True):
    """The target saw the batch and failed, or may have: this spends a retry."""

    error: str
    """A sentence for the log: what happened; never a payload."""
    timed_out: bool = False
    too_large: bool = False
    """The target says that the event is too large (413): halve it whatever bisect says."""
    executed_version: str = "$LATEST"
    still_running: Finishing | None = None
    """Set where the handler goes on after its time-out: slot and key stay taken until it returns."""


class Refused(Struct, frozen=True):
    """The target did not see the batch: wait and try again, no retry is spent."""

    error: str
    """A sentence for the log and the status page."""
    throttled: bool = False
    """True for a throttle (429, 503 with Retry-After), False for an outage or a configuration problem."""
    retry_after: float | None = None
    """Seconds the target asked for."""


Outcome = Succeeded | Failed | Refused
