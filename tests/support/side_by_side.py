"""Tests that mostly wait (for leases that run out, groups that expel, handlers that block), run all at once."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import anyio.lowlevel

Scenario = Callable[[Path], Awaitable[None]]
Results = Mapping[str, Exception | None]
SCENARIO = "side_by_side_scenario"
"""Attribute of a test function that ``side_by_side`` made."""


def side_by_side(scenario: Scenario) -> Callable[[Results], Awaitable[None]]:
    """Make a test of ``scenario`` (given a folder of its own), which runs together with all that are made so.

    The first of these tests to run waits for all of them, in the fixture ``beside``; each fails by itself.
    """

    async def test(beside: Results) -> None:
        await anyio.lowlevel.checkpoint()
        if (error := beside[name]) is not None:
            raise error

    name = f"{scenario.__module__}:{scenario.__name__}"  # type: ignore[attr-defined]  # a function, not any callable
    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__  # type: ignore[attr-defined]  # as above
    setattr(test, SCENARIO, (name, scenario))
    return test


async def run_all(scenarios: Iterable[tuple[str, Scenario]], folder: Path) -> Results:
    """Run ``scenarios``, each in a folder of its own below ``folder``; what each raised, by name."""
    results: dict[str, Exception | None] = {}

    async def run(name: str, scenario: Scenario, own: Path) -> None:
        try:
            await scenario(own)
        except Exception as error:  # noqa: BLE001 - raised again by its own test
            results[name] = error
        else:
            results[name] = None

    async with anyio.create_task_group() as tasks:
        for number, (name, scenario) in enumerate(scenarios):
            own = folder / str(number)
            own.mkdir()
            tasks.start_soon(run, name, scenario, own)
    return results
