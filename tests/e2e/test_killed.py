"""A worker that is killed with -9 and started again: nothing is lost, and what arrives first arrives in order."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from esm.engine.lease_keeper import FAILOVER_SECONDS
from esm.sandbox.kafka import MockCluster
from tests.support.e2e_target import Arrived, RecordingTarget, accept, numbered
from tests.support.e2e_world import World, world_in
from tests.support.worker_process import esm_run, until

pytestmark = pytest.mark.anyio
PER_LANE = 200
GROUP = {"self_managed_kafka_event_source_config": {"consumer_group_id": "payments"}}
SOURCES = ("orders", "clicks", "carts", "payments")


def names(prefix: str) -> list[str]:
    """Records that sort as they were sent."""
    return [f"{prefix}-{number:04d}" for number in range(PER_LANE)]


def duplicates(deliveries: Sequence[str]) -> int:
    """Deliveries beyond the first of a record."""
    return sum(count - 1 for count in Counter(deliveries).values())


async def filled(world: World, cluster: MockCluster) -> dict[str, set[str]]:
    """Two lanes of each source (a queue is one) with PER_LANE records each; all that were sent, by mapping."""
    orders = world.make_queue(visibility=40)
    orders.send_many(names("a"))
    clicks = world.sandbox.kinesis.create_stream("clicks", 2)
    first, second = clicks.open_shards()
    for shard, lane in ((first, "a"), (second, "b")):
        for each in names(lane):
            clicks.put("key", each.encode(), explicit_hash=shard.start_hash)
    carts = world.make_table("carts", shards=2).stream
    carts.generate(PER_LANE)
    cluster.create_topic("payments", 2)
    async with cluster.producer() as producer:
        for partition, lane in enumerate("ab"):
            for each in names(lane):
                _ = await producer.send("payments", each.encode(), partition=partition)
        await producer.flush()
    two_lanes = {*names("a"), *names("b")}
    return {
        "orders": set(names("a")),
        "clicks": two_lanes,
        "carts": {numbered(shard.id, number) for shard in carts.open_shards() for number in range(PER_LANE)},
        "payments": two_lanes,
    }


def all_sent(target: RecordingTarget, mapping: str) -> list[str]:
    """Records of all attempts, whatever came of them."""
    return [name for arrived in target.arrived[mapping] for name in arrived.ids]


async def committed(cluster: MockCluster) -> int:
    """Records that the group of payments has committed, over both partitions."""
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, group_id="payments")
    await consumer.start()
    try:
        return sum([await consumer.committed(TopicPartition("payments", number)) or 0 for number in range(2)])
    finally:
        await consumer.stop()


async def test_a_killed_worker_that_starts_again_loses_nothing_of_any_source_and_repeats_what_was_under_way(
    tmp_path: Path,
) -> None:
    with MockCluster() as cluster:
        async with world_in(tmp_path) as world:
            sent = await filled(world, cluster)
            target, hold = world.target, anyio.Event()

            async def half_then_hold(arrived: Arrived) -> object:
                if len(target.ids(arrived.mapping)) >= len(sent[arrived.mapping]) / 2:
                    await hold.wait()
                    return 500  # nobody hears it: the worker is gone by then
                return None

            target.rule = half_then_hold
            config = world.config(
                world.queue(),
                world.stream(batch_size=20),
                world.table(batch_size=20),
                world.topic(cluster.bootstrap_servers, batch_size=20, **GROUP),
            )
            async with esm_run(tmp_path, config) as worker:
                # A batch of each lane, and five of the queue, are held; all else is deleted or in a checkpoint.
                await until(lambda: target.open == 5 + 2 + 2 + 2, "a batch of each lane is held", worker)
                left = len(sent["orders"]) - len(target.ids("orders"))
                await until(lambda: len(world.sandbox.sqs.queue("orders").messages()) == left, "the rest is deleted")
                answered = {name: len(set(target.ids(name))) for name in SOURCES}
                with anyio.fail_after(20):
                    while await committed(cluster) < answered["payments"]:  # noqa: ASYNC110 - in another process
                        await anyio.sleep(0.05)
                await until(lambda: _checkpointed(world), "the checkpoints hold what was answered", worker)
                held = {name: len(all_sent(target, name)) - len(target.ids(name)) for name in SOURCES}
                await worker.kill()
            hold.set()
            await until(lambda: not target.open, "the held answers went nowhere")
            assert all(held.values())

            target.rule = accept
            world.sandbox.clock.advance(41)  # the messages that the dead worker held are visible again
            async with esm_run(tmp_path, config) as worker:
                for name in SOURCES:
                    await until(lambda name=name: set(target.ids(name)) >= sent[name], f"{name} is delivered", worker)
                assert await world.stop(worker) == 0
            for name in SOURCES:
                assert set(target.ids(name)) == sent[name], name
                assert duplicates(target.ids(name)) == 0, f"{name}: what was answered is never sent again"
                assert duplicates(all_sent(target, name)) == held[name], f"{name}: only what was under way is repeated"
            for name in SOURCES[1:]:
                lanes = target.first_arrivals(name)
                assert len(lanes) == 2
                assert all(lane == sorted(lane) for lane in lanes.values()), f"{name}: order of first deliveries"
            assert not world.sandbox.sqs.queue("orders").messages()


def _checkpointed(world: World) -> bool:
    """Whether every shard is settled in the lease file through what the target has answered."""
    answered: dict[str, int] = {}
    for name in ("clicks", "carts"):
        for arrived in world.target.accepted[name]:
            for lane, _, position in arrived.records:
                answered[lane] = max(answered.get(lane, 0), int(str(position)))
    return all(through == answered.get(shard) for shard, (_, _, through) in world.leases().items())


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
