"""A mapping's source of Kafka against Apache Kafka: the contract, rebalances, logins, outages."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from esm.domain.errors import LaneLost, LeaseStoreFailed, NotReady
from esm.domain.leasing import LATEST, Starting
from esm.domain.record import Gap, Mark
from esm.ports import Gone, Granted, LaneFeed, Leaving
from esm.sources.kafka import Access, KafkaSource
from tests.integration.kafka import PLAIN_PASSWORD, SCRAM_PASSWORD, USER, Kafka
from tests.support.kafka_clusters import (
    SIZE,
    KafkaWorld,
    fed,
    granted,
    offsets,
    opened,
    settled,
    take,
    until,
)
from tests.support.kafka_contract import KafkaLaneContract
from tests.support.time import LoopClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(kafka: Kafka) -> KafkaWorld:
    return KafkaWorld(kafka)


@asynccontextmanager
async def admin_of(kafka: Kafka) -> AsyncGenerator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


class TestOnApacheKafka(KafkaLaneContract):
    """The whole contract."""


# --- positions -----------------------------------------------------------------------------------------------------


async def test_reading_begins_at_a_moment_and_keeps_it_over_a_restart(world: KafkaWorld, kafka: Kafka) -> None:
    begin = int(time.time()) - 7200  # of late: what is older than a week the broker deletes, within a second
    await world.create(partitions=2)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for second in range(10):
        await producer.send_and_wait(world.topic, b"x", partition=0, timestamp_ms=(begin + second) * 1000)
    await producer.send_and_wait(world.topic, b"old", partition=1, timestamp_ms=(begin - 3600) * 1000)
    await producer.stop()
    starting = Starting(moment=begin + 4.0)
    async with fed(world.source(starting)) as feed:
        changes = [await granted(feed), await granted(feed)]
        assert (await world.committed(0), await world.committed(1)) == (4, 1)
        for change in changes:
            await feed.left(change.id)
    async with fed(world.source(starting)) as feed:
        first = min([await granted(feed), await granted(feed)], key=lambda change: change.id.name)
        async with first.lane as lane:
            assert offsets(await take(lane, 6)) == [4, 5, 6, 7, 8, 9]


async def test_transactions_are_read_once_committed_and_their_markers_are_passed(
    world: KafkaWorld, kafka: Kafka
) -> None:
    await world.create()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=world.topic)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(world.topic, b"kept", partition=0)
    await producer.begin_transaction()
    await producer.send_and_wait(world.topic, b"aborted", partition=0)
    await producer.abort_transaction()
    await producer.stop()
    async with opened(world.source()) as lane:
        chunks = []

        async def through_the_last_marker() -> bool:
            chunks.append(await lane.read(10, SIZE, 0.2))
            return chunks[-1].through == (3, 0)

        await until(through_the_last_marker)
        assert [record.position for chunk in chunks for record in chunk.records] == [0]
        assert (chunks[-1].more, chunks[-1].lag_records) == (False, 0)
        await lane.settle((), Mark((3, 0)))
        await lane.flush()
    assert await world.committed() == 4


async def test_deleted_records_are_a_gap(world: KafkaWorld, kafka: Kafka) -> None:
    await world.create()
    await world.put(*(b"%d" % number for number in range(10)))
    async with admin_of(kafka) as admin, opened(world.source()) as lane:
        await settled(lane, await take(lane, 2))
    async with admin_of(kafka) as admin:
        await admin.delete_records({TopicPartition(world.topic, 0): RecordsToDelete(6)})
    async with opened(world.source()) as lane:
        chunk = await lane.read(10, SIZE, 1)
        assert (chunk.gap, chunk.through) == (Gap((1, 0), (6, 0)), (5, 0))
        assert offsets(await take(lane, 4)) == [6, 7, 8, 9]


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(world: KafkaWorld, kafka: Kafka) -> None:
    await world.create()
    await world.put(*(b"%d" % number for number in range(10)))
    async with fed(world.source(LATEST, metadata_age=0.5)) as feed:
        change = await granted(feed)
        async with admin_of(kafka) as admin:
            await admin.delete_topics([world.topic])
        with anyio.fail_after(20):
            assert isinstance(await feed.change(), Leaving | Gone)
            await feed.left(change.id)
            await world.create()
            await world.put(b"new")
            while not isinstance(again := await feed.change(), Granted):
                pass
        async with again.lane as lane:
            assert offsets(await take(lane, 1)) == [0]


async def test_a_partition_that_is_added_is_read_from_its_beginning_even_with_latest(
    world: KafkaWorld, kafka: Kafka
) -> None:
    await world.create()
    await world.put(b"before")
    async with fed(world.source(LATEST, metadata_age=0.5)) as feed:
        old = await granted(feed)
        async with admin_of(kafka) as admin:
            await admin.create_partitions({world.topic: NewPartitions(2)})

        async def is_there() -> bool:
            try:
                await world.put(b"new", partition=1)
            except AssertionError:  # the library's word for a partition that it does not know yet
                return False
            return True

        await until(is_there)
        with anyio.fail_after(20):
            assert await feed.change() == Leaving(old.id, pytest.approx(anyio.current_time(), abs=60))
        await feed.left(old.id)
        changes = {(change := await granted(feed)).id: change for _ in range(2)}
        async with changes[world.lane(1)].lane as lane:
            assert offsets(await take(lane, 1)) == [0]
        async with changes[world.lane(0)].lane as lane:
            assert list((await lane.read(10, SIZE, 0.2)).records) == []


# --- the group -----------------------------------------------------------------------------------------------------


class Member:
    """One worker of a group, as the engine would be: it settles what it reads and leaves when it is told to."""

    def __init__(self, feed: LaneFeed) -> None:
        self.feed = feed
        self.read: list[tuple[str, int]] = []
        self.lanes: set[str] = set()
        self.late = False
        """Whether it ignores that it has to leave."""

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            scopes: dict[str, anyio.CancelScope] = {}
            while True:
                change = await self.feed.change()
                if isinstance(change, Granted):
                    scopes[change.id.name] = anyio.CancelScope()
                    tasks.start_soon(self._work, change, scopes[change.id.name])
                elif not (self.late and isinstance(change, Leaving)):
                    scopes[change.id.name].cancel()

    async def _work(self, change: Granted, scope: anyio.CancelScope) -> None:
        self.lanes.add(change.id.name)
        try:
            with scope:
                async with change.lane as lane:
                    while True:
                        chunk = await lane.read(7, SIZE, 0.1)
                        if chunk.records:
                            await lane.settle(chunk.records, Mark(chunk.through))
                            self.read += [(change.id.name, record.position) for record in chunk.records]
        except LaneLost:
            pass
        finally:
            self.lanes.discard(change.id.name)
            with anyio.CancelScope(shield=True):
                await self.feed.left(change.id)


async def test_a_second_member_takes_its_share_and_nothing_is_read_twice(world: KafkaWorld) -> None:
    await world.create(partitions=4)
    for partition in range(4):
        await world.put(*(b"%d" % number for number in range(100)), partition=partition)
    async with anyio.create_task_group() as tasks, fed(world.source()) as feed, fed(world.source()) as other:
        one, two = Member(feed), Member(other)
        tasks.start_soon(one.run)
        tasks.start_soon(two.run)
        await until(lambda: len(one.lanes) == len(two.lanes) == 2)
        for partition in range(4):
            await world.put(*(b"%d" % number for number in range(100)), partition=partition)
        await until(lambda: len(one.read) + len(two.read) >= 800)
        everything = sorted(one.read + two.read)
        assert everything == sorted((world.lane(each).name, offset) for each in range(4) for offset in range(200))
        tasks.cancel_scope.cancel()


async def test_a_member_that_hands_over_too_late_loses_its_lanes(world: KafkaWorld) -> None:
    await world.create(partitions=2)
    async with anyio.create_task_group() as tasks, fed(world.source(hand_over=0.5)) as feed:
        one = Member(feed)
        one.late = True
        tasks.start_soon(one.run)
        await until(lambda: len(one.lanes) == 2)
        async with fed(world.source(hand_over=0.5)) as other:
            two = Member(other)
            tasks.start_soon(two.run)
            await until(lambda: len(one.lanes) == len(two.lanes) == 1)
            tasks.cancel_scope.cancel()


# --- logins --------------------------------------------------------------------------------------------------------


def _secret(folder: Path, **members: str) -> str:
    file = folder / "secret.json"
    file.write_text(json.dumps(members))
    return f"file:{file}"


@pytest.fixture
def authority(kafka: Kafka, tmp_path: Path) -> Access:
    file = tmp_path / "authority.json"
    file.write_text(json.dumps({"certificate": kafka.authority_file.read_text()}))
    return Access("SERVER_ROOT_CA_CERTIFICATE", f"file:{file}")


def _at(world: KafkaWorld, server: str, accesses: Sequence[Access] = (), tls: bool = False) -> KafkaSource:
    settings = world.settings(bootstrap_servers=(server,))
    return KafkaSource(settings, LoopClock(), random.random, accesses=accesses, tls=tls)


LOGINS = [
    ("BASIC_AUTH", PLAIN_PASSWORD),
    ("SASL_SCRAM_256_AUTH", SCRAM_PASSWORD),
    ("SASL_SCRAM_512_AUTH", SCRAM_PASSWORD),
]


@pytest.mark.parametrize("kind, password", LOGINS)
async def test_users_log_in_over_tls(
    world: KafkaWorld, kafka: Kafka, authority: Access, tmp_path: Path, kind: str, password: str
) -> None:
    await world.create()
    await world.put(b"one")
    access = Access(kind, _secret(tmp_path, username=USER, password=password))
    async with opened(_at(world, kafka.sasl_tls, [access, authority], tls=True)) as lane:
        assert offsets(await take(lane, 1)) == [0]


@pytest.mark.parametrize("kind, password", LOGINS)
async def test_users_log_in_without_tls_where_it_is_turned_off(
    world: KafkaWorld, kafka: Kafka, tmp_path: Path, kind: str, password: str
) -> None:
    await world.create()
    access = Access(kind, _secret(tmp_path, username=USER, password=password))
    async with fed(_at(world, kafka.sasl, [access])) as feed:
        await granted(feed)


async def test_a_client_logs_in_by_its_certificate(
    world: KafkaWorld, kafka: Kafka, authority: Access, tmp_path: Path
) -> None:
    await world.create()
    uri = _secret(tmp_path, certificate=kafka.client.certificate, privateKey=kafka.client.key)
    access = Access("CLIENT_CERTIFICATE_TLS_AUTH", uri)
    async with fed(_at(world, kafka.mtls, [access, authority], tls=True)) as feed:
        await granted(feed)


@pytest.fixture(params=LOGINS)
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> Access:
    return Access(request.param[0], _secret(tmp_path, username=USER, password="not-the-password"))


async def test_a_wrong_password_is_said_and_not_shown(
    world: KafkaWorld, kafka: Kafka, authority: Access, wrong: Access
) -> None:
    for source in (_at(world, kafka.sasl_tls, [wrong, authority], tls=True), _at(world, kafka.sasl, [wrong])):
        with pytest.raises(NotReady) as raised:
            async with fed(source):
                pass
        assert f"refused the login of user {USER} by" in str(raised.value)
        assert f"check username and password in {wrong.uri}." in str(raised.value)
        assert "not-the-password" not in str(raised.value)


async def test_each_way_not_to_connect_has_its_sentence(
    world: KafkaWorld, kafka: Kafka, authority: Access, tmp_path: Path
) -> None:
    user = Access("BASIC_AUTH", _secret(tmp_path, username=USER, password=PLAIN_PASSWORD))
    for source, sentence in (
        (_at(world, kafka.mtls, [authority], tls=True), "the broker asks for a client's certificate"),
        (_at(world, kafka.sasl_tls, [user], tls=True), "the broker's certificate is not trusted"),
        (_at(world, kafka.bootstrap, [authority], tls=True), "the broker speaks no TLS on this port|ended the conn"),
        (_at(world, kafka.mtls), "tls: true"),
        (_at(world, kafka.bootstrap, [user]), "does not take a login by PLAIN"),
        (_at(world, kafka.sasl), "ended the connection|does not answer"),
    ):
        with pytest.raises(NotReady, match=sentence):
            async with fed(source):
                pass


# --- outages -------------------------------------------------------------------------------------------------------


async def test_a_broker_that_was_killed_and_came_back_is_read_on(world: KafkaWorld, kafka: Kafka) -> None:
    await world.create()
    await world.put(*(b"%d" % number for number in range(100)))
    async with anyio.create_task_group() as tasks, fed(world.source(session=6.0)) as feed:
        member = Member(feed)
        tasks.start_soon(member.run)
        await until(lambda: len(member.read) >= 50)
        kafka.kill()
        await anyio.to_thread.run_sync(kafka.start)
        await world.put(*(b"%d" % number for number in range(100)))
        await until(lambda: {offset for _, offset in member.read} == set(range(200)))

        async def all_are_committed() -> bool:
            return await world.committed() == 200

        await until(all_are_committed)
        tasks.cancel_scope.cancel()


async def test_a_frozen_broker_holds_up_neither_a_flush_nor_a_stop_for_long(world: KafkaWorld, kafka: Kafka) -> None:
    await world.create()
    await world.put(b"one")
    before = asyncio.all_tasks()
    try:
        async with fed(world.source()) as feed:
            change = await granted(feed)
            async with change.lane as lane:
                records = await take(lane, 1)
                kafka.freeze()
                await lane.settle(records, Mark((0, 0)))
                with anyio.fail_after(30), pytest.raises(LeaseStoreFailed):
                    await lane.flush()
            await feed.left(change.id)
            started = anyio.current_time()
        assert anyio.current_time() - started < 25
        assert asyncio.all_tasks() == before
    finally:
        kafka.thaw()
    await world.put(b"two")
    async with opened(world.source()) as lane:  # the commit was under way: taken after all, or not
        expected = [0, 1] if lane.resumed is None else [1]
        assert offsets(await take(lane, len(expected))) == expected
