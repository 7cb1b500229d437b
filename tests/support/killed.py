"""The claim that a worker which dies loses nothing, told once for the sandbox and for real services."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import anyio

from tests.support.e2e_target import Arrived, RecordingTarget
from tests.support.e2e_world import ARN, FAILED, Settings, World
from tests.support.worker_process import PATIENCE_SECONDS, WorkerProcess, esm_run, until

POISONED: Settings = {
    "maximum_retry_attempts": 1,
    "bisect_batch_on_function_error": True,
    "destination_config": {"on_failure": {"destination": ARN.format(service="sqs", name=FAILED)}},
}
"""Options of a stream whose poison is found and set aside in the queue that the world has for that."""


class Given(Protocol):
    """What a worker reads, and what its services tell about it.  Members by mapping are keyed by its name."""

    world: World
    config: Settings
    sent: Mapping[str, Collection[str]]
    """All that was sent, what ``midway`` sends included.  Within a lane, records sort as they were sent."""
    poison: Collection[str]
    """Those of ``sent`` that the target never takes; they come early in their lanes."""
    queues: Collection[str]
    """Mappings without order; they take reports."""
    quota: Mapping[str, int]
    """Records of a lane that the target takes before it holds the next batch."""
    at_once: int
    """Batches that are held then: one of each lane, five of a queue."""

    async def midway(self) -> None:
        """Whatever happens to the sources while batches are held."""
        ...

    async def settled(self) -> bool:
        """Whether all that was taken is deleted, in a checkpoint, or committed."""
        ...

    async def forget(self) -> None:
        """Hide nothing any longer for the sake of a worker that is dead."""
        ...

    async def set_aside(self) -> Collection[str]:
        """The poison that arrived where failures go."""
        ...

    async def stop(self, worker: WorkerProcess) -> int:
        """SIGTERM; its exit code."""
        ...


class GivenMore(Given, Protocol):
    """Sources that can be told of once more."""

    async def more(self) -> Mapping[str, Collection[str]]:
        """Send a few more records to each lane; all that has not been taken since, by mapping."""
        ...


def duplicates(deliveries: Sequence[str]) -> int:
    """Deliveries beyond the first of a record."""
    return sum(count - 1 for count in Counter(deliveries).values())


def in_order(target: RecordingTarget, mapping: str) -> bool:
    """Whether records of each lane came first as they sort."""
    return all(lane == sorted(lane) for lane in target.first_arrivals(mapping).values())


def arrivals(target: RecordingTarget, mapping: str, since: int = 0) -> list[str]:
    """Records of all attempts from the ``since``-th on, whatever came of them."""
    return [name for arrived in target.arrived[mapping][since:] for name in arrived.ids]


async def taken(target: RecordingTarget, expected: Mapping[str, Collection[str]], worker: WorkerProcess) -> None:
    """Return once the target took what is ``expected`` of each mapping."""
    for name, records in expected.items():
        await until(
            lambda name=name, records=records: set(target.ids(name)) >= set(records),
            f"{name} is delivered ({len(records)} records)",
            worker,
        )


def last_positions(target: RecordingTarget, mapping: str) -> dict[str, int]:
    """Per lane the highest sequence number or offset that the target took."""
    last: dict[str, int] = {}
    for arrived in target.accepted[mapping]:
        for lane, _, where in arrived.records:
            position = where["offset"] if isinstance(where, dict) else int(str(where))
            last[lane] = max(last.get(lane, -1), position)
    return last


def discarded(world: World, mapping: str) -> set[str]:
    """The records of ``mapping`` that lie in the destination queue, each alone in its failure record."""
    names = {_place(lane, where): name for each in world.target.arrived[mapping] for lane, name, where in each.records}
    return {names[place] for place in map(_failed_place, world.failures()) if place in names}


def _place(lane: str, where: object) -> tuple[str, str]:
    return (lane, str(where["offset"])) if isinstance(where, dict) else ("", str(where))


def _failed_place(failure: Mapping[str, Any]) -> tuple[str, str]:
    assert failure["requestContext"]["condition"] == "RetryAttemptsExhausted", failure
    if "KafkaBatchInfo" in failure:
        [(lane, info)] = failure["KafkaBatchInfo"]["recordsInfo"].items()
        first, last = info["firstRecordOffset"], info["lastRecordOffset"]
    else:
        lane, info = "", failure.get("KinesisBatchInfo") or failure["DDBStreamBatchInfo"]
        first, last = info["startSequenceNumber"], info["endSequenceNumber"]
    assert first == last, f"one record, found alone: {failure}"
    return lane, str(first)


async def stopped_and_started_again(given: GivenMore) -> None:
    """A worker after one that was stopped by SIGTERM repeats nothing and takes what is new."""
    target = given.world.target
    attempts = {name: len(target.arrived[name]) for name in given.sent}
    async with esm_run(given.world.folder, given.config) as worker:
        await worker.ready()
        new = await given.more()
        await taken(target, new, worker)
        for name, expected in new.items():
            assert Counter(arrivals(target, name, attempts[name])) == Counter(expected), f"{name}: the new ones alone"
        assert await given.stop(worker) == 0


class Killed:
    """One telling of the claim."""

    def __init__(self, given: Given) -> None:
        self.given, self.target = given, given.world.target
        self._spoilt: set[str] = set()
        """Records of attempts that failed for the poison in them."""
        self._hold = anyio.Event()

    async def in_the_middle(self) -> None:
        """Kill a worker that holds a batch of each lane; the next one delivers the rest and repeats what was held."""
        given, target = self.given, self.target
        target.rule = self._first_part
        async with esm_run(given.world.folder, given.config) as worker:
            await until(lambda: target.open == given.at_once, "a batch of each lane is held", worker)
            await given.midway()
            await self._wait(given.settled, "the rest is settled", worker)
            before = {name: set(arrivals(target, name)) for name in given.sent}
            held = {name: before[name] - set(target.ids(name)) for name in given.sent}
            await worker.kill()
        self._hold.set()
        await until(lambda: not target.open, "the held answers went nowhere")
        assert all(held.values())

        spoilt, attempts = set(self._spoilt), {name: len(target.arrived[name]) for name in given.sent}
        target.rule = self._whatever_comes
        await given.forget()
        async with esm_run(given.world.folder, given.config) as worker:
            await taken(target, self._wholesome(), worker)
            await self._wait(self._poison_is_set_aside, "the poison is where failures go", worker)
            for name, wholesome in self._wholesome().items():
                again = set(arrivals(target, name, attempts[name])) & before[name]
                assert set(target.ids(name)) == wholesome, name
                assert duplicates(target.ids(name)) == 0, f"{name}: what was answered is never sent again"
                assert held[name] - set(given.poison) <= again <= held[name] | spoilt, f"{name}: only that is repeated"
                assert name in given.queues or in_order(target, name), f"{name}: order of first deliveries"
            assert await given.stop(worker) == 0

    # -- the target

    async def _first_part(self, arrived: Arrived) -> object:
        lane = arrived.records[0][0]
        taken = [each for each in self.target.accepted[arrived.mapping] if each.records[0][0] == lane]
        if sum(len(each.records) for each in taken) >= self.given.quota[arrived.mapping]:
            await self._hold.wait()
            return 500  # nobody hears it: the worker is gone by then
        return self._answer(arrived)

    async def _whatever_comes(self, arrived: Arrived) -> object:
        return self._answer(arrived)

    def _answer(self, arrived: Arrived) -> object:
        bad = [each for each in arrived.records if each[1] in self.given.poison]
        if not bad:
            return None
        if arrived.mapping not in self.given.queues:
            self._spoilt.update(arrived.ids)
            return 500
        self._spoilt.update(name for _, name, _ in bad)
        if good := [each for each in arrived.records if each not in bad]:
            self.target.accepted[arrived.mapping].append(Arrived(arrived.mapping, good))
        return {"batchItemFailures": [{"itemIdentifier": where} for _, _, where in bad]}

    # -- what to wait for

    def _wholesome(self) -> dict[str, set[str]]:
        return {name: set(sent) - set(self.given.poison) for name, sent in self.given.sent.items()}

    async def _poison_is_set_aside(self) -> bool:
        return set(await self.given.set_aside()) == set(self.given.poison)

    async def _wait(self, condition: Callable[[], Awaitable[bool]], what: str, worker: WorkerProcess) -> None:
        with anyio.move_on_after(PATIENCE_SECONDS) as scope:
            while not await condition():  # noqa: ASYNC110 - asked of other processes
                await anyio.sleep(0.05)
        assert not scope.cancelled_caught, f"waited {PATIENCE_SECONDS:g} s in vain until {what}: {worker}"
