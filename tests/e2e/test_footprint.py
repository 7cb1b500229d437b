"""What a worker costs: memory and CPU at rest, and memory over a long run."""

import contextlib
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from esm.sandbox.kafka import MockCluster
from tests.support.e2e_world import world_in
from tests.support.sandbox_process import sandbox_process
from tests.support.side_by_side import side_by_side
from tests.support.worker_process import WorkerProcess, esm_run

pytestmark = pytest.mark.anyio
MIB = 2**20
REST_SECONDS = 15


@side_by_side
async def test_a_worker_at_rest_with_a_mapping_per_source_holds_less_than_110_mib_and_uses_1_percent_of_a_core_at_most(
    folder: Path,
) -> None:
    with MockCluster() as cluster:
        cluster.create_topic("payments")
        async with world_in(folder) as world:
            world.make_queue()
            world.sandbox.kinesis.create_stream("clicks", 1)
            world.make_table()
            config = world.config(world.queue(), world.stream(), world.table(), world.topic(cluster.bootstrap_servers))
            async with esm_run(folder, config) as worker:
                await worker.ready()
                await _group_is_joined(worker)
                used, since = worker.cpu(), anyio.current_time()
                await anyio.sleep(REST_SECONDS)  # the time that is measured, not a wait for something
                share = (worker.cpu() - used) / (anyio.current_time() - since)
                assert share < 0.01
                assert worker.rss() < 110 * MIB
                assert await world.stop(worker) == 0


async def _group_is_joined(worker: WorkerProcess) -> None:
    with anyio.fail_after(30):
        while await worker.metric("esm_lanes_owned", mapping="payments") < 1:  # noqa: ASYNC110 - in another process
            await anyio.sleep(0.1)


async def test_memory_is_the_same_after_20_000_and_after_200_000_records(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("async def handle(event, context):\n    return None\n")
    with contextlib.ExitStack() as stack:
        options = ("--stream", "clicks:4", "--generate", "kinesis:clicks:200000")
        sandbox = await anyio.to_thread.run_sync(lambda: stack.enter_context(sandbox_process(*options)))
        mapping = {
            "name": "clicks",
            "event_source_arn": "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks",
            "target": {"python": {"handler": "app:handle"}},
            "starting_position": "TRIM_HORIZON",
        }
        aws = {"region": "eu-west-1", "endpoint_url": sandbox.url}
        async with esm_run(tmp_path, {"aws": aws, "mappings": [mapping]}) as worker:
            early = await _rss_after(worker, 20_000)
            late = await _rss_after(worker, 200_000)
            assert late - early < 5 * MIB


async def _rss_after(worker: WorkerProcess, records: int) -> int:
    with anyio.fail_after(50):
        while await worker.metric("esm_records_settled_total", outcome="delivered") < records:  # noqa: ASYNC110
            await anyio.sleep(0.1)
    return worker.rss()
