"""``esm run`` against Apache Kafka: a broker that dies, workers that share a group, logins, positions."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from esm.clients.kafka import HEARTBEAT_SECONDS
from tests.integration.kafka import SCRAM_PASSWORD, USER, Kafka
from tests.integration.waiting import until as until_asked
from tests.support.e2e_target import Arrived
from tests.support.e2e_world import World, world_in
from tests.support.killed import duplicates, in_order
from tests.support.real_sources import PARTITIONS, committed, send, topic
from tests.support.worker_process import WorkerProcess, esm_run, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


@pytest.fixture
async def payments(kafka: Kafka, unique: str) -> str:
    """An empty topic; its mapping and its group are called like it."""
    await kafka.create_topic(unique, PARTITIONS)
    return unique


def ends(name: str, each: int) -> dict[str, int]:
    """What is committed once ``each`` records of every partition are settled."""
    return {f"{name}-{lane}": each for lane in range(PARTITIONS)}


async def test_a_broker_killed_and_back_in_mid_run_costs_no_record(world: World, kafka: Kafka, payments: str) -> None:
    target = world.target
    sent = await send(kafka.bootstrap, payments, range(600))

    async def slowly(arrived: Arrived) -> object:
        await anyio.sleep(0.03)
        return None

    target.rule = slowly
    async with esm_run(world.folder, world.config(topic(world, kafka.bootstrap, payments, batch_size=20))) as worker:
        await until(lambda: len(target.ids(payments)) >= 300, "it is in the middle", worker)
        await anyio.to_thread.run_sync(kafka.kill)
        assert len(set(target.ids(payments))) < len(sent)
        await anyio.to_thread.run_sync(kafka.start)
        sent |= await send(kafka.bootstrap, payments, range(600, 800))
        await until(lambda: set(target.ids(payments)) >= sent, "it goes on by itself", worker)
        await until_asked(lambda: _is(committed(kafka.bootstrap, payments), ends(payments, 800)))
        await worker.ready()
        assert await world.stop(worker) == 0
    assert set(target.ids(payments)) == sent
    assert in_order(target, payments)
    assert max(Counter(target.ids(payments)).values()) <= 2, "what could not be committed is repeated once"


async def _is(told: Awaitable[object], expected: object) -> bool:
    return await told == expected


class Watched:
    """A target's rule that holds attempts while it is told to, and notes records in two attempts at once."""

    def __init__(self) -> None:
        self.hold = anyio.Event()
        self.clashes: list[set[str]] = []
        self._under_way: set[str] = set()

    async def rule(self, arrived: Arrived) -> object:
        ids = set(arrived.ids)
        if clash := ids & self._under_way:
            self.clashes.append(clash)
        self._under_way |= ids
        await self.hold.wait()
        await anyio.sleep(0.01)
        self._under_way -= ids
        return None

    def release(self) -> None:
        """Let all go that is held, and what comes."""
        self.hold.set()

    def hold_again(self) -> None:
        """Hold what comes from now on."""
        self.hold = anyio.Event()


async def test_two_workers_of_a_group_share_it_and_one_takes_over_from_the_other_when_attempts_have_ended(
    world: World, kafka: Kafka, payments: str
) -> None:
    target, watched = world.target, Watched()
    target.rule = watched.rule
    folders = [world.folder / "one", world.folder / "two"]
    for folder in folders:
        folder.mkdir()
    config = world.config(topic(world, kafka.bootstrap, payments, batch_size=20))
    sent = await send(kafka.bootstrap, payments, range(400))
    async with esm_run(folders[0], config) as one:
        await until(lambda: target.open == PARTITIONS, "a batch of each lane is held", one)
        async with esm_run(folders[1], config) as two:
            await until_asked(lambda: _state(kafka, payments, "PreparingRebalance"))
            await anyio.sleep(HEARTBEAT_SECONDS + 1)  # attempts take so long; the first worker has heard of it by then
            assert await _state(kafka, payments, "PreparingRebalance")
            assert target.open == PARTITIONS, "the group waits for the attempts"
            assert await _lanes(two, payments) == 0
            watched.release()
            await until_asked(lambda: _shared(one, two, payments))
            sent |= await send(kafka.bootstrap, payments, range(400, 600))
            await until(lambda: set(target.ids(payments)) >= sent, "all is delivered by both", two)

            watched.hold_again()
            sent |= await send(kafka.bootstrap, payments, range(600, 800))
            await until(lambda: target.open == PARTITIONS, "a batch of each lane is held again", one)
            one.signal(signal.SIGTERM)
            await one.log("worker_stopping")
            assert one.running, "its attempts end first"
            watched.release()
            assert await one.ended() == 0
            await until_asked(lambda: _owns_all(two, payments))
            await until(lambda: set(target.ids(payments)) >= sent, "the other one took over", two)
            assert await world.stop(two) == 0
    assert set(target.ids(payments)) == sent
    assert watched.clashes == []
    assert duplicates(target.ids(payments)) == 0
    assert in_order(target, payments)
    assert await committed(kafka.bootstrap, payments) == ends(payments, 800)


async def _lanes(worker: WorkerProcess, mapping: str) -> float:
    return await worker.metric("esm_lanes_owned", mapping=mapping)


async def _shared(one: WorkerProcess, two: WorkerProcess, mapping: str) -> bool:
    return sorted([await _lanes(one, mapping), await _lanes(two, mapping)]) == [1, 2]


async def _owns_all(worker: WorkerProcess, mapping: str) -> bool:
    return await _lanes(worker, mapping) == PARTITIONS


async def _state(kafka: Kafka, group: str, state: str) -> bool:
    """Whether the coordinator tells this of the group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        [answer] = await admin.describe_consumer_groups([group])
        return bool(answer.to_object()["groups"][0]["state"] == state)
    finally:
        await admin.close()


async def test_a_wrong_password_is_said_and_once_repaired_records_come_over_scram_and_tls(
    world: World, kafka: Kafka, payments: str
) -> None:
    login, authority = world.folder / "login.json", world.folder / "authority.json"
    login.write_text(json.dumps({"username": USER, "password": "wrong-secret"}))
    authority.write_text(json.dumps({"certificate": kafka.authority_file.read_text()}))
    access = [
        {"type": "SASL_SCRAM_512_AUTH", "uri": f"file:{login}"},
        {"type": "SERVER_ROOT_CA_CERTIFICATE", "uri": f"file:{authority}"},
    ]
    sent = await send(kafka.bootstrap, payments, range(100))
    world.make_queue().send_many(["an order"])
    mapping = topic(world, kafka.sasl_tls, payments, source_access_configurations=access)
    async with esm_run(world.folder, world.config(mapping, world.queue())) as worker:
        why = await worker.why(payments, "refused the login")
        assert f"{login}" in why
        assert f"user {USER}" in why
        assert (await worker.readyz())[0] == 503
        await worker.ready("orders")
        await until(lambda: world.target.ids("orders") == ["an order"], "the other mapping is unharmed", worker)
        assert world.target.arrived[payments] == []

        login.write_text(json.dumps({"username": USER, "password": SCRAM_PASSWORD}))
        await worker.ready()
        await until(lambda: set(world.target.ids(payments)) == sent, "records come", worker)
        assert await world.stop(worker) == 0
        told = f"{worker.logs}{worker.lines}"
    assert SCRAM_PASSWORD not in told
    assert "wrong-secret" not in told
    assert await committed(kafka.bootstrap, payments) == ends(payments, 100)


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_latest_is_kept_so_that_what_comes_while_the_worker_is_down_is_delivered(
    world: World, kafka: Kafka, payments: str, end: str
) -> None:
    old = await send(kafka.bootstrap, payments, range(10))
    config = world.config(topic(world, kafka.bootstrap, payments, starting_position="LATEST"))
    async with esm_run(world.folder, config) as worker:
        await until_asked(lambda: _is(committed(kafka.bootstrap, payments), ends(payments, 10)))
        if end == "stopped":
            assert await world.stop(worker) == 0
        else:
            await worker.kill()
    new = await send(kafka.bootstrap, payments, range(10, 20))
    async with esm_run(world.folder, config) as worker:
        await until(lambda: set(world.target.ids(payments)) >= new, "what came meanwhile is delivered", worker)
        assert await world.stop(worker) == 0
    assert not old & set(world.target.ids(payments))
    assert duplicates(world.target.ids(payments)) == 0
