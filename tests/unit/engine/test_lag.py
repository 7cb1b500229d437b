"""`esm_lag_records`: what lies in the lanes that this worker reads and is not read yet."""

import anyio
import pytest

from esm.domain.outcome import Outcome, Succeeded
from esm.ports import Invocation
from esm.sources.memory_group import MemoryGroup
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, until
from tests.support.time import Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return jumping("asyncio")


async def test_lag_is_the_sum_of_what_is_not_read_and_a_lane_that_left_counts_no_more() -> None:
    world = World(buffer_bytes=1)  # each lane holds one reply and reads no more while its target hangs
    group = MemoryGroup("clicks", world.clock, partitions=2)
    free = anyio.Event()

    async def rule(call: Invocation) -> Outcome:
        await free.wait()
        return Succeeded(b"")

    def lag() -> float | None:
        return world.metrics.registry.get_sample_value("esm_lag_records", {"mapping": "clicks"})

    for partition, count in ((0, 1_007), (1, 1_020)):
        for number in range(count):
            group.put(partition, str(number))
    world.stream(group, MemoryTarget(rule), batch_size=100)
    assert lag() is None
    async with world.running():
        await until(lambda: lag() == 27)
        group.revoke(1, deadline=world.clock.instant().elapsed + 5)
        await until(lambda: lag() == 7)
        free.set()
        await until(lambda: lag() == 0)
