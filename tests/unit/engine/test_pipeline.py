"""How far one lane reads ahead of its target; on asyncio and trio."""

import anyio
import pytest

from esm.domain.outcome import Outcome, Succeeded
from esm.engine.pipeline import AHEAD_BYTES, AHEAD_RECORDS, MOST_RECORDS
from esm.ports import Invocation
from esm.sources.memory_group import MemoryGroup
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, bodies, until
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio
BATCH = 100


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


async def read_before_it_hangs(payload: int, delivered: int, records: int, batch_size: int = BATCH) -> int:
    """How many records of ``payload`` bytes were read when the target hangs after ``delivered`` of them."""
    world = World()
    group = MemoryGroup("clicks", world.clock)
    for _ in range(records):
        group.put(0, "x" * payload)
    done = 0

    async def rule(call: Invocation) -> Outcome:
        nonlocal done
        if done >= delivered:
            await anyio.sleep_forever()
        done += len(bodies([call.event])[0])
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=10_000)
    world.stream(group, target, batch_size=batch_size)
    async with world.running(grace=1):
        await until(lambda: done >= delivered and target.running == 1)
        await anyio.sleep(100)
        return int(world.count("esm_records_polled_total", mapping="clicks", source="kinesis"))


async def test_a_lane_whose_target_hangs_reads_a_thousand_records_at_first() -> None:
    assert await read_before_it_hangs(100, 0, 5_000) == AHEAD_RECORDS


async def test_a_lane_reads_large_records_ahead_by_their_bytes() -> None:
    payload = 20_000
    read = await read_before_it_hangs(payload, AHEAD_RECORDS, 3_000)
    ahead = (read - AHEAD_RECORDS) * payload
    assert AHEAD_BYTES < ahead < 2 * AHEAD_BYTES, "one read became a batch, another one waits behind it"


async def test_a_lane_reads_small_records_ahead_by_thousands() -> None:
    assert await read_before_it_hangs(1, AHEAD_RECORDS, 15_000) == AHEAD_RECORDS + MOST_RECORDS


async def test_a_batch_size_beyond_what_is_read_ahead_is_read_at_once() -> None:
    assert await read_before_it_hangs(1000, 0, 12_000, batch_size=5_000) == 10_000, "one batch runs, another waits"
