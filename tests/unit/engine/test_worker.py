"""How a stop of the worker ends; on asyncio and trio."""

import anyio
import pytest

from esm.domain.outcome import Outcome, Succeeded
from esm.engine.worker import Worker
from esm.ports import Invocation, Source
from esm.sources.memory import MemoryQueue
from esm.sources.memory_group import MemoryGroup
from esm.targets.memory import MemoryTarget
from tests.support.engine import World, lane, until
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def mapped(world: World, kind: str, target: MemoryTarget) -> Source:
    """A mapping of a source with one record."""
    if kind == "queue":
        queue = MemoryQueue(lane("orders", "orders"), world.clock)
        queue.send("a")
        world.queue(queue, target)
        return queue
    group = MemoryGroup("clicks", world.clock)
    group.put(0, "a")
    world.stream(group, target)
    return group


@pytest.mark.parametrize("kind", ["queue", "stream"])
@pytest.mark.parametrize("seconds", [10, 1_000])
async def test_a_stop_is_clean_unless_the_grace_period_cuts_an_attempt(kind: str, seconds: int) -> None:
    world = World()

    async def rule(call: Invocation) -> Outcome:
        await anyio.sleep(seconds)
        return Succeeded(b"")

    target = MemoryTarget(rule, seconds=20)
    mapped(world, kind, target)
    worker = Worker(world.mappings, world.clock, grace=25 if seconds == 10 else 5)
    clean: list[bool] = []

    async def run() -> None:
        clean.append(await worker.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: target.running == 1)
        began = anyio.current_time()
        worker.stop()
    assert clean == [seconds == 10]
    assert anyio.current_time() - began < 30
