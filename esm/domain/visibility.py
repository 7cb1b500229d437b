"""How long an attempt and a window may take while the messages of a queue stay hidden (delivery-semantics 2.5)."""

from msgspec import Struct

MARGIN_SECONDS = 5.0
"""What deleting and a late clock may take after an attempt."""


class QueueTiming(Struct, frozen=True):
    """What a queue's visibility leaves."""

    seconds: float
    """Of an attempt."""
    window: float
    """Of gathering a batch."""
    needed: float
    """What a receipt must still live for an attempt to start."""


def queue_timing(visibility: float, seconds: float, required: float | None, window: float) -> QueueTiming | None:
    """Fit attempts of ``seconds`` and a window into ``visibility``; None when it is below ``required``.

    A timeout that nobody set (``required`` None) shrinks: the messages come back before a later answer could delete
    them.  The window closes early enough for a whole attempt behind it.  A receipt with half its life left is good
    enough for an attempt that is as long as the visibility: else no message could ever be sent.
    """
    if required is not None and visibility < required:
        return None
    if required is None:
        seconds = min(seconds, max(visibility - MARGIN_SECONDS - window, visibility / 2))
    seconds = max(1.0, min(seconds, visibility))
    return QueueTiming(
        seconds=seconds,
        window=max(0.0, min(window, visibility - seconds - MARGIN_SECONDS)),
        needed=min(seconds, visibility / 2),
    )
