"""A worker that is killed with -9 and started again: nothing is lost, and what arrives first arrives in order."""

import random
import time
from collections.abc import Collection
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from esm.engine.lease_keeper import FAILOVER_SECONDS
from esm.sandbox.kafka import MockCluster
from tests.support.e2e_target import Arrived, numbered
from tests.support.e2e_world import World, world_in
from tests.support.killed import POISONED, Killed, discarded, last_positions
from tests.support.side_by_side import side_by_side
from tests.support.worker_process import WorkerProcess, esm_run, until

pytestmark = pytest.mark.anyio
PER_LANE = 200
BATCH = 20
GROUP = {"self_managed_kafka_event_source_config": {"consumer_group_id": "payments"}}
STREAMS = ("clicks", "carts", "payments")
VISIBILITY = 40


def names(prefix: str) -> list[str]:
    """Records that sort as they were sent."""
    return [f"{prefix}-{number:04d}" for number in range(PER_LANE)]


class SandboxSources:
    """Two lanes of each source (a queue is one) with PER_LANE records each, and poison in each stream."""

    queues = ("orders",)
    at_once = 5 + 2 + 2 + 2

    def __init__(self, world: World, cluster: MockCluster) -> None:
        self.world, self._cluster = world, cluster
        self.config = world.config(
            world.queue(),
            world.stream(batch_size=BATCH, **POISONED),
            world.table(batch_size=BATCH, **POISONED),
            world.topic(cluster.bootstrap_servers, batch_size=BATCH, **GROUP, **POISONED),
        )
        self.sent: dict[str, set[str]] = {name: {*names(f"{name}-a"), *names(f"{name}-b")} for name in STREAMS}
        self.sent["orders"] = set(names("orders"))
        self.quota = dict.fromkeys(self.sent, PER_LANE // 2)
        self.poison = {"clicks-a-0030", "clicks-b-0170", "payments-b-0050"}

    async def fill(self) -> None:
        """Make the sources and send everything."""
        self.world.make_queue(visibility=VISIBILITY).send_many(names("orders"))
        clicks = self.world.sandbox.kinesis.create_stream("clicks", 2)
        for shard, lane in zip(clicks.open_shards(), "ab", strict=True):
            for each in names(f"clicks-{lane}"):
                clicks.put("key", each.encode(), explicit_hash=shard.start_hash)
        carts = self.world.make_table("carts", shards=2).stream
        carts.generate(PER_LANE)
        self.sent["carts"] = {numbered(shard.id, number) for shard in carts.open_shards() for number in range(PER_LANE)}
        self.poison.add(numbered(carts.open_shards()[1].id, 77))
        self._cluster.create_topic("payments", 2)
        async with self._cluster.producer() as producer:
            for partition, lane in enumerate("ab"):
                for each in names(f"payments-{lane}"):
                    _ = await producer.send("payments", each.encode(), partition=partition)
            await producer.flush()

    async def midway(self) -> None:
        """Nothing happens."""

    async def settled(self) -> bool:
        """Whether queue, lease file and group hold what was taken."""
        target, queue = self.world.target, self.world.sandbox.sqs.queue("orders")
        taken = [position for name in ("clicks", "carts") for position in last_positions(target, name).values()]
        kept = [through for _, _, through in self.world.leases().values() if through is not None]
        return (
            len(queue.messages()) == PER_LANE - len(target.ids("orders"))
            and sorted(kept) == sorted(taken)
            and await self._committed() == sum(last + 1 for last in last_positions(target, "payments").values())
        )

    async def _committed(self) -> int:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._cluster.bootstrap_servers, group_id="payments")
        await consumer.start()
        try:
            return sum([await consumer.committed(TopicPartition("payments", number)) or 0 for number in range(2)])
        finally:
            await consumer.stop()

    async def forget(self) -> None:
        """The messages that the dead worker held are visible again."""
        self.world.sandbox.clock.advance(VISIBILITY + 1)

    async def set_aside(self) -> Collection[str]:
        """The poison in the destination queue."""
        return {name for mapping in STREAMS for name in discarded(self.world, mapping)}

    async def stop(self, worker: WorkerProcess) -> int:
        """SIGTERM; its exit code."""
        assert not self.world.sandbox.sqs.queue("orders").messages()
        return await self.world.stop(worker)


@side_by_side
async def test_a_killed_worker_that_starts_again_loses_nothing_of_any_source_and_repeats_what_was_under_way(
    tmp_path: Path,
) -> None:
    with MockCluster() as cluster:
        async with world_in(tmp_path) as world:
            sources = SandboxSources(world, cluster)
            await sources.fill()
            await Killed(sources).in_the_middle()
            assert all(len(world.target.first_arrivals(name)) == 2 for name in STREAMS)


SHARDS, PER_SHARD, KILLS = 4, 5000, 5


async def test_a_worker_killed_at_random_moments_delivers_20_000_kinesis_records_each_shard_in_order(
    tmp_path: Path,
) -> None:
    chance = random.Random()
    seed = chance.randrange(2**32)
    chance.seed(seed)
    async with world_in(tmp_path) as world:
        world.sandbox.kinesis.create_stream("clicks", SHARDS).generate(PER_SHARD, size=100)
        target = world.target

        async def slowly(arrived: Arrived) -> object:
            await anyio.sleep(0.01)  # else all would be over before the first kill
            return None

        target.rule = slowly
        config = world.config(world.stream(batch_size=50))
        resumed: list[float] = []
        for number in range(KILLS + 1):
            before = len(target.arrived["clicks"])
            async with esm_run(tmp_path, config) as worker:
                await worker.log("worker_started")
                began = time.monotonic()
                if number == KILLS:
                    await until(
                        lambda: len(set(target.ids("clicks"))) == SHARDS * PER_SHARD,
                        f"all arrived (seed {seed})",
                        worker,
                    )
                    assert await world.stop(worker) == 0
                elif number == KILLS - 1:  # once on the way up, whatever it is doing
                    await anyio.sleep(chance.random())
                else:
                    more = before + chance.randint(1, 120)
                    await until(lambda before=before: len(target.arrived["clicks"]) > before, "it goes on", worker)
                    resumed.append(time.monotonic() - began)
                    await until(lambda more=more: len(target.arrived["clicks"]) >= more, "the moment has come", worker)
        lanes = target.first_arrivals("clicks")
        assert sorted(lanes) == [shard.id for shard in world.sandbox.kinesis.stream("clicks").shards()]
        for shard, lane in lanes.items():
            assert lane == [numbered(shard, number) for number in range(PER_SHARD)], f"seed {seed}"
        # The owner is dead, and its lock says so: nobody waits until its leases would have run out.
        assert max(resumed) < FAILOVER_SECONDS, f"seed {seed}"
