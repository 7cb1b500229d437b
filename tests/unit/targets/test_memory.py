"""The target of tests and simulation, on both backends."""

import anyio
import pytest

from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.ports import Invocation
from esm.targets.memory import MemoryTarget
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


def call(seconds: float = 60) -> Invocation:
    return Invocation(b"{}", "r", seconds, "")


async def test_an_attempt_times_out_after_its_own_seconds() -> None:
    async def slow(_call: Invocation) -> Outcome:
        await anyio.sleep(900)
        return Succeeded(b"late")

    target = MemoryTarget(slow)
    begun = anyio.current_time()
    outcome = await target.invoke(call(600))
    assert isinstance(outcome, Failed)
    assert outcome.timed_out
    assert anyio.current_time() - begun == 600
    assert await target.invoke(call(901)) == Succeeded(b"late")


async def test_it_remembers_what_it_was_asked_and_how_much_ran_at_once() -> None:
    async def slow(_call: Invocation) -> Outcome:
        await anyio.sleep(1)
        return Succeeded(b"")

    target = MemoryTarget(slow, keep=2)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(target.invoke, call())
    assert (target.started, target.running, target.most_running, len(target.calls)) == (3, 0, 3, 2)


async def test_its_rule_and_its_readiness_may_change_at_any_time() -> None:
    target = MemoryTarget(seconds=30, required=25)
    assert (await target.time_limit()).required == 25
    assert await target.invoke(call()) == Succeeded(b"null")
    target.rule = lambda _call: Refused("away", retry_after=2)
    target.not_ready = "The target is away."
    assert await target.invoke(call()) == Refused("away", retry_after=2)
    with pytest.raises(NotReady, match="The target is away"):
        await target.time_limit()


async def test_a_cancelled_attempt_no_longer_counts_as_running() -> None:
    async def never(_call: Invocation) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    target = MemoryTarget(never)
    with anyio.move_on_after(5):
        await target.invoke(call(900))
    assert (target.started, target.running) == (1, 0)
