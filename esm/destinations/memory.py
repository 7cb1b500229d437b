"""A destination in memory, for tests and the simulation; it fails by rule."""

from collections.abc import Callable

import anyio.lowlevel

from esm.domain.discarded import Discarded
from esm.domain.errors import DestinationRejected, DestinationUnavailable

Rule = Callable[[Discarded], DestinationUnavailable | DestinationRejected | None]
"""What a try ends as: an error to raise, or None for stored."""


def take_all(_what: Discarded) -> None:
    """The rule of a destination that never fails."""


class MemoryDestination:
    """Keeps what it is given.  Change ``rule`` at any time."""

    def __init__(self, rule: Rule = take_all) -> None:
        self.rule = rule
        self.stored: list[Discarded] = []
        """In order; a record whose reply was lost appears twice, with one id."""
        self.loses_reply = False
        """True: records are stored, and answered with DestinationUnavailable all the same."""
        self.tries = 0

    async def store(self, what: Discarded) -> None:
        """See Destination.  Raises what ``rule`` says."""
        await anyio.lowlevel.checkpoint()
        self.tries += 1
        if (error := self.rule(what)) is not None:
            raise error
        self.stored.append(what)
        if self.loses_reply:
            raise DestinationUnavailable("The memory destination lost its reply.")
