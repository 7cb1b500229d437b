"""What a source of shards promises, on kinesalite: it splits shards, but neither names children nor forgets records."""

from collections.abc import AsyncIterator, Sequence

import pytest

from esm.domain.errors import NotReady
from tests.contract import test_shard_source
from tests.integration.contracts import claims
from tests.integration.services import Kinesalite
from tests.integration.waiting import until
from tests.support.shard_worlds import KinesisWorld, server_at

pytestmark = pytest.mark.anyio

ABSENT = "test_a_stream_that_does_not_exist_is_not_ready_and_named"  # names its own worlds; told again below
TRIMS = "test_a_position_that_was_trimmed_away_leaves_a_gap"

globals().update(claims(test_shard_source, "world", but=frozenset({ABSENT})))
globals().update(claims(test_shard_source, "splittable", but=frozenset({TRIMS})))


class KinesaliteWorld(KinesisWorld):
    """A stream that is split by the API and settles after each change."""

    async def settled(self) -> None:
        """Wait until it is neither being created nor split."""
        calls = await self.server.client("kinesis")

        async def active() -> bool:
            summary = await calls.describe_stream_summary(StreamName=self.name)
            return bool(summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

        await until(active)

    async def split(self, shard: str) -> Sequence[str]:
        calls = await self.server.client("kinesis")
        await calls.split_shard(StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str(2**127))
        await self.settled()
        return [one["ShardId"] for one in await self.shards() if one.get("ParentShardId") == shard]


@pytest.fixture
async def world(kinesalite: Kinesalite) -> AsyncIterator[KinesaliteWorld]:
    async with server_at(kinesalite.endpoint) as server:
        made = await KinesaliteWorld.create(server)
        assert isinstance(made, KinesaliteWorld)
        await made.settled()
        yield made


@pytest.fixture
def splittable(world: KinesaliteWorld) -> KinesaliteWorld:
    return world


async def test_a_stream_that_does_not_exist_is_not_ready_and_named(world: KinesaliteWorld) -> None:
    with pytest.raises(NotReady, match="Kinesis stream clocks in eu-west-1 does not exist"):
        await world.server.kinesis("clocks").discover()
