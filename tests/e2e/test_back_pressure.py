"""A target that does not answer over a large backlog: polls stop, memory stays."""

from pathlib import Path

import anyio
import pytest

from esm.sandbox.supply import Supply
from tests.support.e2e_target import Arrived
from tests.support.e2e_world import World, world_in
from tests.support.worker_process import WorkerProcess, esm_run, until

pytestmark = pytest.mark.anyio
BACKLOG = 200_000
MOST_GROWTH = 50 * 2**20
POLLS = ("sqs:ReceiveMessage", "kinesis:GetRecords")


async def quiet(world: World, worker: WorkerProcess, seconds: float = 4) -> int:
    """Wait until no poll has come for so long; the largest memory of the worker that was seen meanwhile."""
    seen, since, largest = -1, anyio.current_time(), 0
    with anyio.fail_after(40):
        while anyio.current_time() - since < seconds:
            await anyio.sleep(0.02)
            largest = max(largest, worker.rss())
            now = sum(world.sandbox.calls[poll] for poll in POLLS)
            if now != seen:
                seen, since = now, anyio.current_time()
    return largest


async def test_a_target_that_hangs_over_a_backlog_of_200_000_stops_polls_and_memory_grows_by_50_mib_at_most(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world:
        target, hold = world.target, anyio.Event()

        async def hang(arrived: Arrived) -> object:
            await hold.wait()
            return None

        target.rule = hang
        orders = world.make_queue()
        stream = world.sandbox.kinesis.create_stream("clicks", 4)
        config = world.config(
            world.queue(batch_size=100, maximum_batching_window_in_seconds=1), world.stream(batch_size=100)
        )
        async with esm_run(tmp_path, config) as worker:
            await worker.ready()
            await until(lambda: all(world.sandbox.calls[poll] for poll in POLLS), "both are polled", worker)
            at_rest = worker.rss()
            stream.generate(BACKLOG // 4, size=1000)
            orders.supply = Supply(world.sandbox.world, BACKLOG, size=1000)
            world.sandbox.clock.advance(25)  # the poll that began before the backlog ends
            await until(lambda: target.open >= 9, "five batches of the queue and one of the shard hang", worker)
            largest = await quiet(world, worker)
            assert target.open == 9
            assert orders.in_flight_count <= 6 * 100
            assert largest - at_rest <= MOST_GROWTH, f"{at_rest} grew to {largest}"

            hold.set()
            await until(lambda: min(len(target.ids("orders")), len(target.ids("clicks"))) > 2_000, "both go on", worker)
            assert await world.stop(worker) == 0
