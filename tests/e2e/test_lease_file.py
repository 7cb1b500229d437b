"""What happens to a worker when its lease file is taken away, filled up, or was never usable."""

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.support.e2e_target import Arrived
from tests.support.e2e_world import World, world_in
from tests.support.side_by_side import side_by_side
from tests.support.worker_process import WorkerProcess, esm_run, until

pytestmark = pytest.mark.anyio


async def trouble_begins(world: World, worker: WorkerProcess) -> int:
    """The store has failed: wait until the lane closes; answers how many batches of the stream had arrived then."""
    await worker.log("lease_store_failed", mapping="clicks")
    await worker.log("lease_lost", shard="shardId-000000000000")
    await until(lambda: worker.said("lane_closed", mapping="clicks"), "the lane is closed", worker)
    assert await worker.metric("esm_lanes_owned", mapping="clicks") == 0
    return len(world.target.arrived["clicks"])


async def unharmed(world: World, worker: WorkerProcess, body: str) -> None:
    """The mapping of the queue works as before."""
    world.sandbox.sqs.send("orders", body)
    await until(lambda: body in world.target.ids("orders"), f"{body} is delivered", worker)


@side_by_side
async def test_a_deleted_lease_file_is_noticed_lanes_close_nothing_is_written_and_a_queue_goes_on(folder: Path) -> None:
    async with world_in(folder) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        world.make_queue()
        stream.put_many((each, each.encode()) for each in "ab")
        async with esm_run(folder, world.config(world.stream(), world.queue())) as worker:
            await until(lambda: world.target.ids("clicks") == ["a", "b"], "the first records are delivered", worker)
            position = int(str(world.target.accepted["clicks"][-1].records[-1][2]))
            await until(lambda: [row[2] for row in world.leases().values()] == [position], "a checkpoint", worker)
            aside = world.lease_file.with_name("aside.db")
            world.lease_file.rename(aside)
            arrived = await trouble_begins(world, worker)
            assert worker.said("lease_store_failed")[0]["why"].startswith(
                f"The lease file {world.lease_file} was deleted"
            )
            stream.put("c", b"c")
            await unharmed(world, worker, "meanwhile")
            assert not world.lease_file.exists(), "nothing is written to a new file"
            assert len(world.target.arrived["clicks"]) == arrived, "nothing is sent without a lease"

            aside.rename(world.lease_file)
            await until(lambda: world.target.ids("clicks") == ["a", "b", "c"], "it goes on where it was", worker)
            await worker.log("lease_store_works_again", mapping="clicks")
            assert await world.stop(worker) == 0


@side_by_side
async def test_a_lease_file_on_a_full_disk_is_noticed_lanes_close_and_go_on_when_there_is_room(folder: Path) -> None:
    """No file of the worker may grow: what a full disk is to a process."""
    async with world_in(folder) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        world.make_queue()
        async with esm_run(folder, world.config(world.stream(), world.queue())) as worker:
            stream.put("a", b"a")
            await until(lambda: world.target.ids("clicks") == ["a"], "the first record is delivered", worker)
            _, most = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, most))
            stream.put("b", b"b")
            await trouble_begins(world, worker)
            assert "lease file" in worker.said("lease_store_failed")[0]["why"]
            stream.put("c", b"c")
            await unharmed(world, worker, "meanwhile")

            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (most, most))
            await until(lambda: {"b", "c"} <= set(world.target.ids("clicks")), "it goes on", worker)
            assert world.target.first_arrivals("clicks") == {"shardId-000000000000": ["a", "b", "c"]}
            assert await world.stop(worker) == 0


@side_by_side
async def test_an_answer_that_comes_after_the_lease_was_lost_settles_nothing(folder: Path) -> None:
    async with world_in(folder) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        hold = anyio.Event()

        async def held(arrived: Arrived) -> object:
            await hold.wait()
            return None

        world.target.rule = held
        async with esm_run(folder, world.config(world.stream())) as worker:
            stream.put("a", b"a")
            await until(lambda: world.target.open == 1, "the batch is under way", worker)
            aside = world.lease_file.with_name("aside.db")
            world.lease_file.rename(aside)
            await trouble_begins(world, worker)
            hold.set()
            aside.rename(world.lease_file)
            await until(lambda: len(world.target.arrived["clicks"]) == 2, "it is sent again by the next owner", worker)
            assert await world.stop(worker) == 0


async def test_an_unusable_lease_file_at_the_start_keeps_shards_waiting_and_no_queue(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(never_usable, tmp_path / "folder", "cannot be written")
        tasks.start_soon(never_usable, tmp_path / "foreign", "is a SQLite database of another program")
        tasks.start_soon(never_usable, tmp_path / "text", "is no SQLite database")


def put_something(file: Path, what: str) -> None:
    """What no lease file is, at its place."""
    file.parent.mkdir()
    match what:
        case "folder":
            file.mkdir()
        case "text":
            file.write_text("these are my notes\n" * 100)
        case _:
            with closing(sqlite3.connect(file)) as other:
                other.execute("CREATE TABLE things (name)")


async def never_usable(folder: Path, sentence: str) -> None:
    async with world_in(folder) as world:
        file = world.lease_file
        put_something(file, folder.name)
        world.sandbox.kinesis.create_stream("clicks", 1).put("a", b"a")
        world.make_table()
        world.make_queue()
        async with esm_run(folder, world.config(world.stream(), world.table(), world.queue())) as worker:
            why = await worker.why("clicks", sentence)
            assert str(file) in why
            assert await worker.why("carts", sentence) == why
            assert (await worker.log("mapping_not_ready", mapping="clicks"))["why"] == why
            await unharmed(world, worker, "meanwhile")
            assert (await worker.readyz())[1]["orders"] is None
            assert worker.running

            file.rename(folder / "aside")
            await until(lambda: world.target.ids("clicks") == ["a"], "it starts once the place is free", worker)
            await worker.ready()
            assert await world.stop(worker) == 0
