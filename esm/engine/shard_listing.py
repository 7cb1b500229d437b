"""Which shards a source lists: when it is asked again, and what it means that a shard is missing."""

from collections.abc import Sequence

import structlog

from esm.domain.errors import NotReady
from esm.domain.leasing import Lease, Shards, trimmed
from esm.domain.retry import Backoff, Jitter
from esm.ports import Clock, ShardSource

log = structlog.get_logger()

DISCOVERY_SECONDS = 60.0
"""How often shards are listed while none ends."""
CONFIRM_SECONDS = 1.0
"""When to ask again for a shard that should be listed."""
_LIST_AGAIN = Backoff(base=1, cap=60)
"""After a failed or incomplete listing."""


class Recreated(NotReady):
    """The stream behind the name is another one now: its mapping starts again, with leases of its own."""


class ShardListing:
    """The newest listing of one mapping's source, and its number."""

    def __init__(self, mapping: str, source: ShardSource, clock: Clock, jitter: Jitter, first: Shards) -> None:
        self._mapping, self._source, self._clock, self._jitter = mapping, source, clock, jitter
        self.number = 0
        """How many listings there were."""
        self.due = 0.0
        """When to ask again (elapsed)."""
        self._failures = 0
        self._missing: dict[str, int] = {}  # shards whose leases are not ended → number of the first that lacked it
        self._took(first)

    @property
    def failing(self) -> bool:
        """The last try failed or was incomplete: ask again when it is due, not before."""
        return self._failures > 0

    async def ask(self) -> bool:
        """List anew; False = the source did not answer, what was known stands.  Raises Recreated."""
        try:
            shards = await self._source.discover()
        except NotReady as error:
            self._failed(str(error))
            return False
        if shards.stream != self.shards.stream:
            raise Recreated(
                f"Mapping {self._mapping}: the stream was deleted and made anew (was {self.shards.stream}, is "
                f"{shards.stream}); reading begins anew."
            )
        self._took(shards)
        return True

    def _took(self, shards: Shards) -> None:
        self.shards = shards
        self.number += 1
        if not shards.complete:
            self._failed("the listing has holes")
            return
        self._failures = 0
        self.due = self._now() + DISCOVERY_SECONDS * (0.9 + 0.2 * self._jitter())

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self._failures == 1 or self._failures % 10 == 0:
            log.warning("shards_not_listed", mapping=self._mapping, why=why, times=self._failures)
        self.due = self._now() + _LIST_AGAIN.delay(self._failures, self._jitter)

    def surely_trimmed(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Those of ``leases`` (all of the app) that are not ended and that two listings in a row lacked.

        One that is missing for the first time is asked for again soon: listings may lag behind.
        """
        lost = trimmed(self.shards, leases)
        self._missing = {lease.shard: self._missing.get(lease.shard, self.number) for lease in lost}
        if self.number in self._missing.values():
            self.again_soon()
        return [lease for lease in lost if self._missing[lease.shard] < self.number]

    def shows(self, shards: Sequence[str]) -> bool:
        """Whether all of ``shards`` are listed."""
        return {shard.id for shard in self.shards.shards}.issuperset(shards)

    def again_soon(self) -> None:
        """Ask in a second: the listing is behind what is known."""
        self.due = min(self.due, self._now() + CONFIRM_SECONDS)

    def _now(self) -> float:
        return self._clock.instant().elapsed
