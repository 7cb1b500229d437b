"""The real engine in seeded worlds of faults, on trio with a jumping clock: nothing lost, no order broken."""

import random
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio._core._run as trio_run

from tests.simulation.world import Simulation
from tests.support.time import JumpClock

LIMIT_SECONDS = 12 * 3600
"""Virtual seconds after which a world is stuck."""


def in_virtual_time(seed: int, main: Callable[[], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``main`` with a scheduler that repeats itself: both private lines of trio are needed for that."""
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio_run, "_r", random.Random(seed))

    async def limited() -> None:
        with anyio.fail_after(LIMIT_SECONDS):
            await main()

    anyio.run(limited, backend="trio", backend_options={"clock": JumpClock()})


def verdict(simulation: Simulation) -> str:
    """What was broken, with the command that shows it again."""
    lines = [f"{part.ledger.mapping}: {text}" for part in simulation.parts for text in part.ledger.broken[:5]]
    lines += [f"{part.ledger.mapping}: lost {part.ledger.open[:5]}" for part in simulation.parts if part.ledger.open]
    if lines:
        lines.append(f"replay: ESM_SEED={simulation.seed} make test ARGS='tests/simulation -p no:randomly'")
        lines += [event for part in simulation.parts for event in part.ledger.events[-40:]]
    return "\n".join(lines)


def test_nothing_is_lost_and_no_order_broken(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(seed)
    try:
        in_virtual_time(seed, simulation.run, monkeypatch)
    except* TimeoutError:
        assert verdict(simulation), "the world is stuck though every record is accounted for"
    assert not verdict(simulation), verdict(simulation)


def test_a_seed_has_one_history(monkeypatch: pytest.MonkeyPatch) -> None:
    def history() -> list[list[str]]:
        simulation = Simulation(3)
        in_virtual_time(3, simulation.run, monkeypatch)
        return [part.ledger.events for part in simulation.parts]

    assert history() == history()
