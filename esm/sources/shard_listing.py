"""Lists the shards of a stream page by page, and tells a listing that may be believed from one with holes."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

import anyio
from msgspec import Struct

from esm.clients.aws_errors import AWS_ERRORS, AwsFailure, Kind, Subject, translate
from esm.domain.errors import NotReady
from esm.domain.leasing import Shard
from esm.domain.retry import Backoff, Jitter

T = TypeVar("T")

_TRIES = 5
"""Calls for one page while the service is throttled or fails."""
_AGAIN = Backoff(base=0.2, cap=2)
_SOON_OVER = frozenset((Kind.THROTTLED, Kind.SERVER, Kind.LOST))
_FATAL = frozenset((Kind.MISSING, Kind.DENIED, Kind.CREDENTIALS))
_LEAF_LISTINGS = 5
"""Listings in a row that show a closed shard without children before that is believed."""


class ShardPage(Struct, frozen=True):
    """One reply of a listing."""

    shards: Sequence[Shard]
    next: str | None
    """Asks for the next page; None = this was the last."""
    over: bool = False
    """The stream is at its end: its last shards will have no children."""


class ShardListing:
    """The listings of one stream, one after the other."""

    def __init__(self, subject: Subject, jitter: Jitter) -> None:
        self._subject, self._jitter = subject, jitter
        self._leaves: dict[str, int] = {}
        """Closed shards without children, and in how many listings in a row they were."""

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` answers; throttles and failures of the service are retried for a few seconds.

        Raises NotReady with the sentence for everything else.
        """
        answer = await self._tried(call)
        if isinstance(answer, AwsFailure):
            raise NotReady(answer.sentence)
        return answer

    async def all(self, page: Callable[[str | None], Awaitable[ShardPage]]) -> tuple[Sequence[Shard], bool]:
        """All shards that ``page`` brings, from None on, and whether the listing is complete.

        It is not where a later page cannot be had, and while a closed shard shows no children: they are listed a little
        later.  Raises NotReady.
        """
        found: dict[str, Shard] = {}
        token: str | None = None
        while True:
            answer = await self._tried(partial(page, token))
            if isinstance(answer, AwsFailure):
                if token is None or answer.kind in _FATAL:
                    raise NotReady(answer.sentence)
                return tuple(found.values()), False
            found.update((shard.id, shard) for shard in answer.shards)
            token = answer.next
            if token is None:
                return tuple(found.values()), self._whole(found.values()) or answer.over

    def _whole(self, shards: Collection[Shard]) -> bool:
        parents = {parent for shard in shards for parent in shard.parents}
        leaves = [shard.id for shard in shards if shard.closed and shard.id not in parents]
        self._leaves = {leaf: self._leaves.get(leaf, 0) + 1 for leaf in leaves}
        return all(times >= _LEAF_LISTINGS for times in self._leaves.values())

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T | AwsFailure:
        times = 0
        while True:
            try:
                return await call()
            except AWS_ERRORS as error:
                failure = translate(error, self._subject)
            times += 1
            if times >= _TRIES or failure.kind not in _SOON_OVER:
                return failure
            await anyio.sleep(_AGAIN.delay(times, self._jitter))
