"""What a worker costs: its start, its rest, and what a long run leaves behind.  Seconds of CPU, never of a clock."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from esm.sandbox import Sandbox
from esm.sandbox.kafka import MockCluster
from esm.sandbox.preset import add_table
from tests.support.cost_world import SOURCES, mappings, working
from tests.support.sandbox_process import sandbox_process
from tests.support.worker_process import until

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
START_SECONDS = 0.5
REST_MEMORY = 110 * MIB
REST_SHARE = 0.01
REST_SECONDS = 15.0
GROWTH = 5 * MIB


def fill(sandbox: Sandbox) -> None:
    """One source of each kind, without records."""
    sandbox.sqs.create_queue("orders")
    sandbox.kinesis.create_stream("clicks", 2)
    add_table(sandbox, "carts:2")


def polls(sandbox: Sandbox) -> int:
    """Reads of any source of AWS so far."""
    return sum(sandbox.calls[each] for each in ("sqs:ReceiveMessage", "kinesis:GetRecords", "streams:GetRecords"))


async def test_a_start_takes_half_a_second_of_cpu_to_the_first_poll(tmp_path: Path) -> None:
    taken: list[float] = []
    with MockCluster() as cluster:
        cluster.create_topic("payments")
        while len(taken) < 3 and min(taken, default=1.0) > START_SECONDS:
            async with Sandbox.open() as sandbox:
                fill(sandbox)
                told = mappings(*SOURCES, bootstrap=cluster.bootstrap_servers)
                async with working(tmp_path, sandbox.url, told) as worker:
                    await until(lambda: polls(sandbox), "it polls")
                    taken.append(worker.cpu())
    assert min(taken) <= START_SECONDS, taken


async def test_a_worker_at_rest_uses_a_hundredth_of_a_core_and_little_memory(tmp_path: Path) -> None:
    with MockCluster() as cluster:
        cluster.create_topic("payments")
        async with Sandbox.open() as sandbox:
            fill(sandbox)
            told = mappings(*SOURCES, bootstrap=cluster.bootstrap_servers)
            async with working(tmp_path, sandbox.url, told) as worker:
                await worker.ready()
                await until(lambda: polls(sandbox) > 10, "it polls again and again")
                shares: list[float] = []
                # A neighbour that empties the caches of the machine makes each call dearer: the lesser of two counts.
                while len(shares) < 2 and min(shares, default=1.0) >= REST_SHARE:
                    shares.append(await _share(worker.cpu))
                assert polls(sandbox) > 10 + 3 * REST_SECONDS  # it was at rest, not asleep
                assert min(shares) < REST_SHARE, shares
                assert worker.rss() < REST_MEMORY, worker.rss() / MIB


async def _share(cpu: Callable[[], float]) -> float:
    before, began = cpu(), anyio.current_time()
    await anyio.sleep(REST_SECONDS)
    return (cpu() - before) / (anyio.current_time() - began)


async def test_memory_is_the_same_after_20_000_and_after_200_000_records(tmp_path: Path) -> None:
    generated = {"kinesis:clicks": 130_000, "dynamodb:carts": 60_000, "sqs:orders": 10_000}
    options = [f"--generate={source}:{number}" for source, number in generated.items()]
    with sandbox_process("--queue=orders", "--stream=clicks:2", "--table=carts:2", *options) as sandbox:
        told = mappings("sqs", "kinesis", "dynamodb")
        async with working(tmp_path, sandbox.url, told) as worker:

            async def settled(number: int) -> int:
                """Bytes of memory as soon as so many records are settled."""
                name = "esm_records_settled_total"
                while await worker.metric(name, outcome="delivered") < number:  # noqa: ASYNC110 - another process
                    await anyio.sleep(0.1)
                return worker.rss()

            early = await settled(20_000)
            late = await settled(sum(generated.values()))
            assert abs(late - early) <= GROWTH, (early / MIB, late / MIB)
