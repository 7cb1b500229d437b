"""A whole mapping over leased shards: pipelines, feed, keeper and store together, on time that jumps."""

import anyio
import pytest
from structlog.testing import capture_logs

from esm.domain.leasing import HORIZON, TRIM_HORIZON, Lease, NewLease
from esm.domain.outcome import Failed, Outcome, Succeeded
from esm.domain.record import Mark
from esm.engine.mapping import Mapping
from esm.engine.shard_feed import LeasedSource
from esm.leases.memory import MemoryLeases
from esm.ports import Invocation
from esm.sources.memory_shards import MemoryStream
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, bodies, until
from tests.support.leases import FaultyLeases
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio
S0 = "shardId-000000000000"
FAILOVER = 9.0


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


class Shared:
    """What workers share: a stream, a lease store and a target that fails what the test names."""

    def __init__(self, shards: int = 1) -> None:
        self.stream = MemoryStream("clicks", shards)
        self.store = FaultyLeases()
        self.poison: set[str] = set()
        self.seconds = 0.0
        """How long an attempt takes."""
        self.target = MemoryTarget(self._rule)

    async def _rule(self, call: Invocation) -> Outcome:
        await anyio.sleep(self.seconds)
        return Failed("poison") if self.poison & set(bodies([call.event], "data")[0]) else Succeeded(b"")

    def world(self, owner: str = "w1") -> tuple[World, Mapping]:
        world = World()
        source = LeasedSource(
            "clicks",
            "9f1c",
            self.stream,
            self.store,
            owner,
            TRIM_HORIZON,
            world.clock,
            world.chance.jitter,
            world.metrics.mapping("clicks", "kinesis"),
            FAILOVER,
        )
        return world, world.stream(source, self.target)

    def sent(self) -> list[str]:
        return [text for event in self.target.calls for text in bodies([event.event], "data")[0]]

    def row(self, shard: str = S0) -> Lease:
        [lease] = [lease for _, lease in self.store._rows.values() if lease.shard == shard]
        return lease

    def through(self, shard: str = S0) -> int:
        """Position of the stored mark; 0 = there is none."""
        marks = [lease.mark for _, lease in self.store._rows.values() if lease.shard == shard]
        return marks[0].through[0] if marks and marks[0] and marks[0].through else 0


async def test_a_stop_stores_everything_frees_the_lease_and_the_next_worker_repeats_nothing() -> None:
    shared = Shared()
    shared.seconds = 0.4
    for owner in ("w1", "w2", "w3"):
        for number in range(20):
            shared.stream.put(S0, f"{owner}-{number}")
        world, mapping = shared.world(owner)
        async with world.running():
            await until(lambda: shared.target.running == 1)
        assert (mapping.status().state, shared.row().owner) == ("stopped", None)
    assert shared.sent() == [f"{owner}-{number}" for owner in ("w1", "w2", "w3") for number in range(20)]


async def test_children_wait_until_a_poison_record_of_their_parent_is_settled() -> None:
    shared = Shared()
    shared.poison = {"poison"}
    shared.stream.put(S0, "poison")
    left, right = shared.stream.split(S0)
    shared.stream.put(left, "left")
    shared.stream.put(right, "right")
    world, _ = shared.world()
    async with world.running():
        await anyio.sleep(3 * 3600)
        assert set(shared.sent()) == {"poison"}
        shared.poison = set()
        await until(lambda: {"left", "right"} <= set(shared.sent()))
    assert (shared.row().ended, set(shared.row().children)) == (True, {left, right})


async def test_shards_that_end_one_after_another_close_without_a_complaint() -> None:
    shared = Shared()
    world, _ = shared.world()
    with capture_logs() as logs:
        async with world.running():
            shard = S0
            for generation in range(5):
                shared.stream.put(shard, str(generation))
                await until(lambda seen=str(generation): seen in shared.sent())  # type: ignore[misc]  # a bound default
                shard, _ = shared.stream.split(shard)
            await until(lambda: world.count("esm_lanes_owned", mapping="clicks") == 6)
    assert [entry for entry in logs if entry["log_level"] in ("warning", "error")] == []
    assert shared.sent() == ["0", "1", "2", "3", "4"]


async def test_an_attempt_that_blocks_for_half_an_hour_costs_no_lease() -> None:
    shared = Shared()
    shared.target.seconds = 3600
    shared.seconds = 1800
    shared.stream.put(S0, "slow")
    world, _ = shared.world()
    other, _ = shared.world("w2")
    async with world.running(), other.running():
        await until(lambda: shared.through() == 1, within=3600)
    assert shared.sent() == ["slow"]


async def test_a_lease_lost_during_an_attempt_ignores_its_result_and_writes_nothing() -> None:
    shared = Shared()
    shared.seconds = 30
    shared.stream.put(S0, "a")
    world, mapping = shared.world()
    async with world.running():
        await until(lambda: shared.target.running == 1)
        stolen = await shared.store.take(shared.row(), "w2")
        await until(lambda: mapping.status().lanes == 0, within=FAILOVER)
        assert shared.target.running == 0, "its attempt was given up"
        assert shared.row() == stolen
        assert world.count("esm_records_settled_total", mapping="clicks", outcome="delivered") == 0


async def test_a_store_that_fails_closes_lanes_writes_nothing_and_all_goes_on_when_it_works_again() -> None:
    shared = Shared(shards=3)
    world, mapping = shared.world()
    async with world.running():
        for number in range(3):
            shared.stream.put(f"shardId-{number:012d}", f"before-{number}")
        await until(lambda: sum(shared.through(f"shardId-{number:012d}") > 0 for number in range(3)) == 3)
        shared.store.failing = "The lease file was deleted."
        shared.stream.put(S0, "meanwhile")
        await until(lambda: mapping.status().lanes == 0, within=FAILOVER + 1)
        rows = dict(shared.store._rows)
        await anyio.sleep(600)
        assert shared.store._rows == rows
        sent = len(shared.sent())
        await anyio.sleep(600)
        assert len(shared.sent()) == sent, "nothing is sent without a lease"
        shared.store.failing = None
        await until(lambda: mapping.status().lanes == 3, within=5)
        await until(lambda: shared.through() == 4)


async def test_two_workers_never_read_one_shard_at_once() -> None:
    shared = Shared(shards=4)
    shared.seconds = 0.2
    first, one = shared.world("w1")
    second, two = shared.world("w2")
    async with second.running():
        async with first.running():
            for number in range(200):
                shared.stream.put(f"shardId-{number % 4:012d}", str(number))
                await anyio.sleep(0.05)
                assert one.status().lanes + two.status().lanes <= 4
            await until(lambda: len(shared.sent()) == 200)
        for number in range(200, 240):
            shared.stream.put(f"shardId-{number % 4:012d}", str(number))
        await until(lambda: two.status().lanes == 4, within=5)
        await until(lambda: len(shared.sent()) == 240)
    assert sorted(shared.sent(), key=int) == [str(number) for number in range(240)]


async def test_a_renamed_mapping_is_told_of_the_positions_that_others_have() -> None:
    world = World()
    store, stream = MemoryLeases(), MemoryStream("clicks")
    await store.create("before/memory:1", [NewLease("before/a", "a", HORIZON)])
    [free] = await store.leases("before/memory:1")
    held = await store.take(free, "me, before")
    assert held is not None
    await store.keep({held.key: (held, Mark((1, 0)))})
    metrics = world.metrics.mapping("clicks", "kinesis")
    source = LeasedSource("clicks", "now", stream, store, "me", TRIM_HORIZON, world.clock, world.chance.jitter, metrics)
    with capture_logs() as logs:
        async with source.connect():
            pass
    [said] = [entry for entry in logs if entry["event"] == "no_position_found"]
    assert (said["log_level"], said["other_positions"]) == ("warning", 1)
    assert "uuid" in said["hint"]
