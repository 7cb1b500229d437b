"""Shards become lanes: found, taken, granted, ended, in the right order and after every fault."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import pytest
from structlog.testing import capture_logs

from esm.domain.errors import LaneFailed, LaneLost, LeaseStoreFailed, NotReady
from esm.domain.leasing import HORIZON, LATEST, Lease, NewLease, Start
from esm.domain.record import LaneEnd, Mark
from esm.leases.sqlite import SqliteLeases
from esm.ports import Granted
from esm.sources.memory_shards import MemoryStream
from tests.support.leases import FaultyLeases
from tests.support.reading import Reading, Worker, data
from tests.support.time import BACKENDS, EPOCH, Backend, LoopClock, jumping

pytestmark = pytest.mark.anyio
APP = "9f1c/memory:1"
S0, S1, S2, S3 = (f"shardId-{number:012d}" for number in range(4))


class World(Worker):
    """A stream, a store, and workers that read."""

    stream: MemoryStream
    store: FaultyLeases
    clock: LoopClock

    def __init__(self, shards: int = 1) -> None:
        super().__init__(MemoryStream("clicks", shards), FaultyLeases(), LoopClock())

    async def rows(self) -> dict[str, Lease]:
        return {lease.shard: lease for _, lease in self.store._rows.values()}

    def put(self, shard: str, *texts: str) -> None:
        for text in texts:
            self.stream.put(shard, text, arrived_at=self.clock.instant().epoch)


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def world_of_two() -> World:
    return World(shards=2)


def has(reading: Reading, *texts: str) -> bool:
    return set(texts) <= set(reading.delivered)


class TestReading:
    async def test_every_shard_is_read_and_its_mark_is_in_the_store_within_a_second(self, world_of_two: World) -> None:
        world = world_of_two
        async with world.running() as worker:
            world.put(S0, "a", "b")
            world.put(S1, "c")
            await worker.until(lambda: has(worker, "a", "b", "c"))
            await anyio.sleep(1.1)
            assert {shard: row.mark for shard, row in (await world.rows()).items()} == {
                S0: Mark((2, 0)),
                S1: Mark((3, 0)),
            }

    async def test_a_lane_whose_records_never_settle_stays_ours(self, world: World) -> None:
        async with world.running(holds_back=lambda _: True) as first, world.running("w2") as second:
            world.put(S0, "a")
            await first.until(lambda: has(first, "a"))
            await anyio.sleep(1800)
            assert first.lanes[S0].owned()
            assert (second.granted, first.gone, (await world.rows())[S0].mark) == ([], [], None)

    async def test_a_restart_resumes_behind_the_mark(self, world: World) -> None:
        world.put(S0, "a", "b")
        async with world.running() as first:
            await first.until(lambda: has(first, "a", "b"))
        world.put(S0, "c")
        async with world.running() as second:
            await second.until(lambda: has(second, "c"))
            assert second.delivered == ["c"]

    async def test_a_restart_skips_what_was_settled_above_the_mark(self, world: World) -> None:
        world.put(S0, "a", "stuck", "c", "d")
        async with world.running(holds_back=lambda record: data(record) == "stuck") as first:
            await first.until(lambda: has(first, "d"))
        assert (await world.rows())[S0].mark == Mark((1, 0), above=(((3, 0), (4, 0)),))
        world.put(S0, "e")
        async with world.running() as second:
            await second.until(lambda: has(second, "e"))
            assert second.delivered == ["stuck", "e"]

    async def test_a_start_without_any_lease_says_that_it_found_no_position(self, world: World) -> None:
        with capture_logs() as logs:
            async with world.running(starting=LATEST):
                pass
            async with world.running(starting=LATEST):
                pass
        assert [entry["starting"] for entry in logs if entry["event"] == "no_position_found"] == ["LATEST"]

    async def test_a_stop_frees_every_lease_so_that_a_successor_starts_at_once(self, world_of_two: World) -> None:
        world = world_of_two
        async with world.running("w1") as first:
            world.put(S0, "a")
            await first.until(lambda: has(first, "a"))
        assert {row.owner for row in (await world.rows()).values()} == {None}
        stopped = anyio.current_time()
        async with world.running("w2") as second:
            await second.until(lambda: len(second.granted) == 2)
            assert [at for at, _ in second.granted] == [stopped, stopped]

    async def test_a_worker_that_waits_takes_over_within_a_second_of_the_stop(self, world: World) -> None:
        async with anyio.create_task_group() as tasks:
            async with world.running("w1") as first:
                await first.until(lambda: first.granted)
                second = await tasks.start(_running, world, "w2")
                await anyio.sleep(100)
                assert second.granted == []
            stopped = anyio.current_time()
            await second.until(lambda: second.granted, within=2)
            assert second.granted[0][0] <= stopped + 1.1
            tasks.cancel_scope.cancel()

    async def test_leases_of_a_worker_that_went_silent_are_taken_after_the_failover(self, world: World) -> None:
        await world.store.create(APP, [NewLease(f"{APP}/{S0}", S0, HORIZON)])
        await world.store.take((await world.rows())[S0], "killed")
        began = anyio.current_time()
        async with world.running() as worker:
            await worker.until(lambda: worker.granted)
            assert began + world.failover < worker.granted[0][0] <= began + world.failover + 2


async def _running(world: World, owner: str, task_status: "anyio.abc.TaskStatus[Reading]") -> None:
    async with world.running(owner) as reading:
        task_status.started(reading)
        await anyio.sleep_forever()


class TestWhereReadingStarts:
    async def test_latest_is_a_moment_in_the_lease_before_anything_is_read(self, world: World) -> None:
        world.put(S0, "old")
        await anyio.sleep(10)
        async with world.running(starting=LATEST) as worker:
            await worker.until(lambda: worker.lanes)
            assert (await world.rows())[S0].start == Start(moment=EPOCH + anyio.current_time())
            assert (await world.rows())[S0].mark is None
            await anyio.sleep(1)
            world.put(S0, "new")
            await worker.until(lambda: has(worker, "new"))
            assert worker.delivered == ["new"]

    async def test_a_start_at_latest_without_a_checkpoint_reads_from_that_moment_the_next_time(
        self, world: World
    ) -> None:
        async with world.running(starting=LATEST) as first:
            await first.until(lambda: first.lanes)
        await anyio.sleep(600)
        world.put(S0, "came meanwhile")
        await anyio.sleep(600)
        async with world.running(starting=LATEST) as second:
            await second.until(lambda: has(second, "came meanwhile"))

    async def test_a_worker_that_died_while_it_made_the_first_leases_costs_no_record(self, world_of_two: World) -> None:
        world = world_of_two
        world.store.fails_after = 1
        with pytest.raises(NotReady, match=r"The worker died here\."):
            async with world.running(starting=LATEST):
                pass
        assert list(await world.rows()) == [S0]
        world.store.fails_after = None
        await anyio.sleep(60)
        world.put(S1, "came meanwhile")
        await anyio.sleep(60)
        async with world.running(starting=LATEST) as worker:
            await worker.until(lambda: has(worker, "came meanwhile"))

    async def test_a_new_shard_is_found_within_a_minute_or_so_and_read_from_its_beginning(self, world: World) -> None:
        async with world.running(starting=LATEST) as worker:
            await worker.until(lambda: worker.lanes)
            left, _ = world.stream.split(S0)
            world.put(left, "first of the child")
            await worker.until(lambda: has(worker, "first of the child"), within=70)

    async def test_shards_are_listed_about_once_a_minute(self, world: World) -> None:
        async with world.running():
            before = world.stream.listings
            await anyio.sleep(3600)
        assert 54 <= world.stream.listings - before <= 67


class TestParentsAndChildren:
    async def test_both_children_of_a_split_wait_until_the_parent_is_settled(self, world: World) -> None:
        stuck = {"last of the parent"}
        world.put(S0, "a", "last of the parent")
        left, right = world.stream.split(S0)
        world.put(left, "left")
        world.put(right, "right")
        async with world.running(holds_back=lambda record: data(record) in stuck) as first:
            await anyio.sleep(600)
            assert first.delivered == ["a", "last of the parent"]
        stuck.clear()
        async with world.running() as second:
            await second.until(lambda: has(second, "left", "right"))
            assert second.delivered[0] == "last of the parent"
            parent = (await world.rows())[S0]
            assert (parent.ended, parent.owner, set(parent.children)) == (True, None, {left, right})

    async def test_a_merged_child_waits_for_both_parents(self, world_of_two: World) -> None:
        world = world_of_two
        stuck = {"b"}
        world.put(S0, "a")
        world.put(S1, "b")
        child = world.stream.merge(S0, S1)
        world.put(child, "c")
        async with world.running(holds_back=lambda record: data(record) in stuck) as first:
            await anyio.sleep(600)
            assert sorted(first.delivered) == ["a", "b"]
            assert [(await world.rows())[shard].ended for shard in (S0, S1)] == [True, False]
        stuck.clear()
        async with world.running() as second:
            await second.until(lambda: has(second, "c"))
            assert second.delivered == ["b", "c"]

    async def test_children_start_at_once_not_with_the_next_listing(self, world: World) -> None:
        async with world.running() as worker:
            await worker.until(lambda: worker.lanes)
            await anyio.sleep(5)
            left, _ = world.stream.split(S0)
            world.put(left, "child")
            split = anyio.current_time()
            await worker.until(lambda: has(worker, "child"))
            assert anyio.current_time() <= split + 1

    async def test_generations_are_read_in_order_from_the_horizon(self, world: World) -> None:
        world.put(S0, "parent")
        left, _ = world.stream.split(S0)
        world.put(left, "child")
        grandchild, _ = world.stream.split(left)
        world.put(grandchild, "grandchild")
        async with world.running() as worker:
            await worker.until(lambda: has(worker, "grandchild"))
            assert worker.delivered == ["parent", "child", "grandchild"]

    async def test_a_stream_that_was_disabled_ends_without_children(self, world: World) -> None:
        world.put(S0, "a")
        world.stream.close(S0)
        async with world.running() as worker:
            await worker.until(lambda: has(worker, "a"))
            await anyio.sleep(120)
            assert [name for _, name in worker.granted] == [S0], "it is not granted again and again"
            assert (await world.rows())[S0].mark == Mark((1, 0), ended=LaneEnd())

    async def test_children_that_are_listed_late_are_read_soon_after(self, world: World) -> None:
        async with world.running() as worker:
            await worker.until(lambda: worker.lanes)
            world.stream.hidden = {S1, S2}
            world.stream.split(S0)
            world.put(S1, "late")
            await worker.until(lambda: not worker.lanes)
            await anyio.sleep(0.5)
            world.stream.hidden = set()
            await worker.until(lambda: has(worker, "late"), within=5)

    async def test_while_a_listing_has_holes_an_end_without_children_is_not_believed(self, world: World) -> None:
        async with world.running() as worker:
            await worker.until(lambda: worker.lanes)
            world.stream.complete, world.stream.hidden = False, {S1, S2}
            world.stream.split(S0)
            world.put(S1, "child")
            await worker.until(lambda: not worker.lanes)
            await anyio.sleep(4)
            assert not (await world.rows())[S0].ended
            world.stream.complete, world.stream.hidden = True, set()
            await worker.until(lambda: has(worker, "child"))
            assert (await world.rows())[S0].children == (S1, S2)

    async def test_an_end_that_comes_while_leases_are_looked_at_is_not_overlooked(self, world: World) -> None:
        async with world.source().connect() as (feed, _):
            granted = await feed.change()
            assert isinstance(granted, Granted)
            async with granted.lane as lane:
                world.store.slow = 0.3
                await anyio.sleep(60.1)  # the scan behind the listing of this minute is under way
                world.stream.split(S0)
                chunk = await lane.read(1, 1, 1)
                await lane.settle([], Mark(None, ended=chunk.ended))
                with anyio.fail_after(5):
                    assert (await feed.change()).id.name in (S1, S2)

    async def test_an_end_that_could_not_be_stored_is_stored_later(self, world: World) -> None:
        async with world.running() as worker:
            await worker.until(lambda: worker.lanes)
            world.store.failing = "The disk is full."
            left, _ = world.stream.split(S0)
            world.put(left, "child")
            await anyio.sleep(5)
            world.store.failing = None
            await worker.until(lambda: has(worker, "child"), within=5)

    async def test_a_finished_lease_is_deleted_once_its_shard_is_no_longer_listed(self, world: World) -> None:
        async with world.running() as worker:
            await worker.until(lambda: worker.lanes)
            world.stream.split(S0)
            await anyio.sleep(120)
            assert (await world.rows())[S0].ended
            world.stream.remove(S0)
            await anyio.sleep(120)
            assert S0 not in await world.rows()


class TestWhatLeftTheSource:
    async def test_a_shard_that_was_trimmed_unread_is_loud_and_lets_its_children_start(self, world: World) -> None:
        world.put(S0, "a")
        async with world.running() as first:
            await first.until(lambda: has(first, "a"))
        world.put(S0, "lost")
        left, _ = world.stream.split(S0)
        world.put(left, "child")
        await world.store.create(APP, [NewLease(f"{APP}/{left}", left, HORIZON, (S0,))])
        world.stream.remove(S0)
        with capture_logs() as logs:
            async with world.running() as second:
                await second.until(lambda: has(second, "child"))
                assert second.delivered == ["child"]
        [said] = [entry for entry in logs if entry["event"] == "shard_left_the_source_unread"]
        assert (said["shard"], said["settled_through"], said["log_level"]) == (S0, "1", "error")
        assert world.metrics.expired._value.get() == 1

    async def test_a_shard_is_gone_only_when_two_listings_in_a_row_lack_it(self, world_of_two: World) -> None:
        world = world_of_two
        with capture_logs() as logs:
            async with world.running() as worker:
                await worker.until(lambda: len(worker.lanes) == 2)
                world.stream.hidden = {S0}
                listings = world.stream.listings
                await anyio.sleep(60.2)
                assert world.stream.listings == listings + 1
                # A lease that another worker took makes us look at all leases again before the next listing.
                await world.store.take((await world.rows())[S1], "w2")
                world.put(S1, "not ours")
                await worker.until(lambda: has(worker, "not ours"))
                with pytest.raises(LaneLost):
                    await worker.lanes[S1].flush()
                await worker.until(lambda: worker.gone == [S1], within=0.2)
                assert world.stream.listings == listings + 1
                world.stream.hidden = set()
                await anyio.sleep(120)
                world.put(S0, "still here")
                await worker.until(lambda: has(worker, "still here"))
        assert "shard_left_the_source_unread" not in [entry["event"] for entry in logs]

    async def test_an_incomplete_listing_never_counts_as_gone(self, world_of_two: World) -> None:
        world = world_of_two
        with capture_logs() as logs:
            async with world.running() as worker:
                await worker.until(lambda: len(worker.lanes) == 2)
                world.stream.complete, world.stream.hidden = False, {S0}
                await anyio.sleep(600)
                world.put(S0, "still here")
                await worker.until(lambda: has(worker, "still here"))
        events = [entry["event"] for entry in logs]
        assert "shard_left_the_source_unread" not in events
        assert "shards_not_listed" in events
        assert set(await world.rows()) == {S0, S1}

    async def test_a_stream_that_was_made_anew_ends_the_feed_with_a_sentence_and_begins_with_leases_of_its_own(
        self, world: World
    ) -> None:
        world.put(S0, "of the old stream")
        async with world.source().connect() as (feed, _):
            assert isinstance(await feed.change(), Granted)
            world.stream.name = "memory:2"
            with pytest.raises(NotReady, match=r"made anew \(was memory:1, is memory:2\); reading begins anew\."):
                await feed.change()
        async with world.running() as worker:
            await worker.until(lambda: has(worker, "of the old stream"))
        assert {row.key.rpartition("/")[0] for _, row in world.store._rows.values()} == {APP, "9f1c/memory:2"}

    async def test_a_stream_that_is_out_of_reach_for_a_while_costs_nothing(self, world: World) -> None:
        with capture_logs() as logs:
            async with world.running() as worker:
                await worker.until(lambda: worker.lanes)
                world.stream.not_ready = "The stream is out of reach."
                await anyio.sleep(600)
                world.stream.not_ready = None
                world.stream.split(S0)
                world.put(S1, "child")
                await worker.until(lambda: has(worker, "child"))
        said = [entry["times"] for entry in logs if entry["event"] == "shards_not_listed"]
        assert said == [1, 10]

    async def test_a_stream_that_is_missing_at_the_start_is_not_ready(self, world: World) -> None:
        world.stream.not_ready = "Stream clicks does not exist."
        with pytest.raises(NotReady, match=r"Stream clicks does not exist\."):
            async with world.running():
                pass


class TestLanesThatFail:
    async def test_are_granted_again_after_waits_that_grow_to_a_minute(self, world: World) -> None:
        world.stream.unreadable = "The shard cannot be read."
        async with world.running() as worker:
            await anyio.sleep(600)
            times = [at for at, _ in worker.granted]
            waits = [later - earlier for earlier, later in pairwise(times)]
            assert 0.9 <= waits[0] <= 1.5
            assert all(later >= min(40, 1.9 * earlier) for earlier, later in pairwise(waits)), waits
            assert 40 < waits[-1] <= 60
            assert all(isinstance(error, LaneFailed) for error in worker.errors)
            world.stream.unreadable = None
            world.put(S0, "a")
            await worker.until(lambda: has(worker, "a"), within=61)

    async def test_after_a_long_steady_time_are_granted_again_soon(self, world: World) -> None:
        world.stream.unreadable = "The shard cannot be read."
        async with world.running() as worker:
            await anyio.sleep(100)
            world.stream.unreadable = None
            await anyio.sleep(600)
            world.stream.unreadable = "Again."
            await worker.until(lambda: not worker.lanes)
            left = anyio.current_time()
            grants = len(worker.granted)
            await worker.until(lambda: len(worker.granted) > grants)
            assert anyio.current_time() - left < 1.3

    async def test_resume_behind_what_was_settled_stored_or_not(self, world: World) -> None:
        async with world.running() as worker:
            world.put(S0, "a")
            await worker.until(lambda: has(worker, "a"))
            world.store.failing = "The disk is full."
            world.put(S0, "b")
            await worker.until(lambda: has(worker, "b"))
            world.stream.unreadable = "The shard cannot be read."
            world.put(S0, "c")
            await worker.until(lambda: worker.errors)
            world.stream.unreadable = None
            await worker.until(lambda: has(worker, "c"))
            assert worker.delivered == ["a", "b", "c"]

    async def test_leave_the_others_alone(self, world_of_two: World) -> None:
        world = world_of_two
        async with world.running() as worker:
            await worker.until(lambda: len(worker.lanes) == 2)
            world.stream.remove(S0)
            await worker.until(lambda: worker.errors)
            world.put(S1, "a")
            await worker.until(lambda: has(worker, "a"))
            assert [name for _, name in worker.granted].count(S1) == 1


class TestALostLease:
    async def test_closes_its_lane_and_nothing_more_is_written(self, world: World) -> None:
        async with world.running() as worker:
            world.put(S0, "a")
            await worker.until(lambda: has(worker, "a"))
            lane = worker.lanes[S0]
            await anyio.sleep(1.5)
            stolen = await world.store.take((await world.rows())[S0], "w2")
            await worker.until(lambda: worker.gone == [S0])
            assert not lane.owned()
            with pytest.raises(LaneLost):
                await lane.settle([], Mark((9, 0)))
            with pytest.raises(LaneLost):
                await lane.read(1, 1, 1)
            assert (await world.rows())[S0] == stolen

    async def test_whose_new_owner_falls_silent_comes_back(self, world: World) -> None:
        async with world.running() as worker:
            await worker.until(lambda: worker.lanes)
            await world.store.take((await world.rows())[S0], "w2")
            await worker.until(lambda: worker.gone)
            world.put(S0, "a")
            await worker.until(lambda: has(worker, "a"), within=20)

    async def test_that_was_granted_but_not_yet_opened_is_taken_back_silently(self, world: World) -> None:
        async with world.source().connect() as (feed, _):
            await anyio.sleep(0.1)  # the grant waits to be fetched
            await world.store.take((await world.rows())[S0], "w2")
            await anyio.sleep(4)
            with anyio.move_on_after(2):
                pytest.fail(f"there should be no change, found {await feed.change()}")

    async def test_that_was_fetched_but_not_yet_opened_cannot_be_opened(self, world: World) -> None:
        async with world.source().connect() as (feed, _):
            granted = await feed.change()
            assert isinstance(granted, Granted)
            await world.store.take((await world.rows())[S0], "w2")
            await anyio.sleep(4)
            with pytest.raises(LaneLost, match="another worker took it"):
                async with granted.lane:
                    pass

    async def test_a_store_that_fails_for_longer_than_the_failover_closes_all_lanes_until_it_works_again(
        self, world_of_two: World
    ) -> None:
        world = world_of_two
        with capture_logs() as logs:
            async with world.running() as worker:
                await worker.until(lambda: len(worker.lanes) == 2)
                before = await world.rows()
                world.store.failing = "The lease file was deleted."
                failed = anyio.current_time()
                world.put(S0, "not stored")
                await worker.until(lambda: not worker.lanes)
                assert anyio.current_time() <= failed + world.failover
                await anyio.sleep(3600)
                assert sorted(worker.gone) == [S0, S1]
                assert await world.rows() == before
                world.store.failing = None
                works = anyio.current_time()
                await worker.until(lambda: len(worker.lanes) == 2)
                assert anyio.current_time() <= works + 2
                await worker.until(lambda: worker.delivered == ["not stored", "not stored"])
        events = [entry["event"] for entry in logs]
        assert events.count("lease_store_works_again") == 1
        assert 1 <= events.count("lease_store_failed") <= 62, "once a minute at most"

    async def test_a_store_that_fails_at_the_start_is_not_ready(self, world: World) -> None:
        world.store.failing = "The lease file cannot be written."
        with pytest.raises(NotReady, match=r"The lease file cannot be written\."):
            async with world.running():
                pass


class TestALeaseFile:
    """With real files, so in real time: leases run out after half a second."""

    @pytest.fixture(params=["asyncio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteLeases]:
        async with SqliteLeases(tmp_path / "esm.db", largest=64 * 1024) as store:
            yield store

    async def test_that_is_deleted_closes_its_lanes_and_is_used_again_when_it_is_put_back(
        self, store: SqliteLeases, tmp_path: Path
    ) -> None:
        stream = MemoryStream("clicks")
        worker = Worker(stream, store, LoopClock(), failover=0.5)
        with capture_logs() as logs:
            async with worker.running() as reading:
                stream.put(S0, "a")
                await reading.until(lambda: has(reading, "a"))
                await reading.lanes[S0].flush()
                (tmp_path / "esm.db").rename(tmp_path / "aside")
                stream.put(S0, "b")
                await reading.until(lambda: reading.gone == [S0], within=30)
                assert not (tmp_path / "esm.db").exists(), "nobody starts an empty one"
                assert stored(copied(tmp_path / "aside", tmp_path / "esm.db-wal")) == Mark((1, 0))
                (tmp_path / "aside").rename(tmp_path / "esm.db")
                await reading.until(lambda: reading.lanes, within=30)
                await reading.until(lambda: reading.delivered == ["a", "b", "b"], within=30)
        assert stored(tmp_path / "esm.db") == Mark((2, 0))
        assert "was deleted while esm was using it" in next(
            str(entry["why"]) for entry in logs if entry["event"] == "lease_store_failed"
        )

    async def test_on_a_full_disk_closes_its_lanes_and_is_used_again_when_there_is_room(
        self, store: SqliteLeases, tmp_path: Path
    ) -> None:
        stream = MemoryStream("clicks")
        worker = Worker(stream, store, LoopClock(), failover=0.5)
        async with worker.running(holds_back=lambda record: data(record) == "stuck") as reading:
            stream.put(S0, "a")
            await reading.until(lambda: has(reading, "a"))
            await reading.lanes[S0].flush()
            await fill(store)
            before = stored(tmp_path / "esm.db")
            for _ in range(100):  # so many ranges make a mark that needs room
                stream.put(S0, "stuck")
                stream.put(S0, "fine")
            await reading.until(lambda: reading.gone == [S0], within=30)
            assert stored(tmp_path / "esm.db") == before == Mark((1, 0))
            make_room(tmp_path / "esm.db")
            granted = len(reading.granted)
            await reading.until(lambda: len(reading.granted) > granted and reading.lanes, within=30)
            stream.put(S0, "last")
            await reading.until(lambda: has(reading, "last"), within=30)
            await reading.lanes[S0].flush()
        kept = stored(tmp_path / "esm.db")
        assert kept is not None
        assert len(kept.above) == 100


async def fill(store: SqliteLeases) -> None:
    """Leave no page free in the lease file."""
    for size in (2000, 100):
        number = 0
        with suppress(LeaseStoreFailed):
            for number in range(1000):
                await store.create("junk", [NewLease(f"junk/{size}/{number}", "x" * size, HORIZON)])
        assert number < 999


def make_room(file: Path) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("DELETE FROM leases WHERE app = 'junk'")
    connection.close()


def stored(file: Path) -> Mark | None:
    """What the file says, read past the store."""
    connection = sqlite3.connect(file)
    [(text,)] = connection.execute("SELECT mark FROM leases WHERE app = ?", (APP,)).fetchall()
    connection.close()
    return msgspec.json.decode(text, type=Mark) if text else None


def copied(file: Path, log: Path) -> Path:
    """A copy of a lease file and its write-ahead log, which still bears the name from before."""
    copy = file.with_name("copy.db")
    shutil.copy(file, copy)
    shutil.copy(log, copy.with_name("copy.db-wal"))
    return copy
