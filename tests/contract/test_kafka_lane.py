"""What a lane of Kafka promises, on the mock cluster of the sandbox; tests/integration asks Apache Kafka the same."""

from collections.abc import Iterator

import anyio
import pytest

from esm.clients.kafka import GroupConsumer
from esm.domain.errors import LaneFailed, LaneLost, NotReady
from esm.domain.record import Gap, Mark
from esm.ports import Gone
from esm.sandbox.kafka import FETCH, HEARTBEAT, OFFSET_COMMIT, OFFSET_FETCH, MockCluster
from tests.support.kafka_clusters import SIZE, KafkaWorld, Mock, fed, granted, offsets, opened, settled, take
from tests.support.kafka_contract import KafkaLaneContract

pytestmark = pytest.mark.anyio

COORDINATOR_LOADING, NOT_COORDINATOR, ILLEGAL_GENERATION, UNKNOWN_MEMBER = 14, 16, 22, 25
NOT_LEADER = 6


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with MockCluster() as cluster:
        yield Mock(cluster)


@pytest.fixture
def world(mock: Mock) -> KafkaWorld:
    return KafkaWorld(mock)


class TestOnTheMock(KafkaLaneContract):
    """The whole contract."""


async def test_a_commit_that_the_group_cannot_take_yet_is_tried_again(world: KafkaWorld, mock: Mock) -> None:
    await world.create()
    await world.put(b"one")
    async with opened(world.source()) as lane:
        records = await take(lane, 1)
        mock.cluster.fail(OFFSET_COMMIT, COORDINATOR_LOADING, NOT_COORDINATOR)
        await settled(lane, records)
        assert await world.committed() == 1


async def test_a_commit_of_a_generation_that_is_over_loses_the_lane(world: KafkaWorld, mock: Mock) -> None:
    await world.create()
    await world.put(b"one")
    async with fed(world.source()) as feed:
        change = await granted(feed)
        async with change.lane as lane:
            records = await take(lane, 1)
            mock.cluster.fail(OFFSET_COMMIT, ILLEGAL_GENERATION)
            with pytest.raises(LaneLost):
                await settled(lane, records)
        assert await world.committed() is None


async def test_an_expelled_member_writes_nothing_and_joins_again(world: KafkaWorld, mock: Mock) -> None:
    await world.create()
    await world.put(b"one", b"two")
    async with fed(world.source()) as feed:
        change = await granted(feed)
        async with change.lane as lane:
            records = await take(lane, 2)
            await settled(lane, records[:1])
            mock.cluster.fail(HEARTBEAT, UNKNOWN_MEMBER)
            with anyio.fail_after(10):
                assert await feed.change() == Gone(change.id)
            assert not lane.owned()
            with pytest.raises(LaneLost):
                await lane.settle(records, Mark((1, 0)))
            with pytest.raises(LaneLost):
                await lane.read(1, SIZE, 1)
        await feed.left(change.id)
        again = await granted(feed)
        async with again.lane as lane:
            assert offsets(await take(lane, 1)) == [1]
        await feed.left(again.id)


async def test_errors_of_a_fetch_are_retried_by_the_lane(world: KafkaWorld, mock: Mock) -> None:
    await world.create()
    await world.put(b"one")
    async with opened(world.source()) as lane:
        mock.cluster.fail(FETCH, NOT_LEADER, NOT_LEADER)
        assert offsets(await take(lane, 1)) == [0]


async def test_reading_goes_on_by_itself_after_the_broker_was_away(world: KafkaWorld, mock: Mock) -> None:
    await world.create()
    await world.put(b"before")
    async with opened(world.source(session=6.0)) as lane:
        before = await take(lane, 1)
        mock.cluster.set_down()
        assert list((await lane.read(10, SIZE, 0.5)).records) == []
        await lane.settle(before, Mark((0, 0)))
        mock.cluster.set_up()
        await world.put(b"after")
        assert offsets(await take(lane, 1)) == [1]
        await lane.flush()
        assert await world.committed() == 1


async def test_records_that_expired_behind_an_open_lane_are_a_gap(world: KafkaWorld) -> None:
    await world.create()
    await world.put(b"first")
    async with opened(world.source()) as lane:
        await settled(lane, await take(lane, 1))
        await _overflow(world)
        gap = None
        while gap is None:
            chunk = await lane.read(1_000, SIZE, 1)
            gap = chunk.gap
        assert gap.after is not None
        assert gap.before is not None
        assert chunk.through == (gap.before[0] - 1, 0) > gap.after
        assert offsets(await take(lane, 1)) == [gap.before[0]]


async def test_a_commit_that_expired_is_a_gap_at_the_beginning(world: KafkaWorld) -> None:
    await world.create()
    await world.put(b"first")
    async with opened(world.source()) as lane:
        await settled(lane, await take(lane, 1))
    await _overflow(world)
    async with opened(world.source()) as lane:
        chunk = await lane.read(10, SIZE, 1)
        first = (await take(lane, 1))[0].position
        assert first > 1
        assert (list(chunk.records), chunk.gap, chunk.through) == ([], Gap((0, 0), (first, 0)), (first - 1, 0))


async def _overflow(world: KafkaWorld) -> None:
    """More than the mock holds."""
    await world.put(*(bytes(100_000) for _ in range(70)))


async def test_a_cluster_out_of_reach_is_named_with_the_reason() -> None:
    with MockCluster() as cluster:
        gone = KafkaWorld(Mock(cluster))
        source = gone.source()
    with pytest.raises(NotReady, match=r"at 127\.0\.0\.1:\d+: the broker cannot be reached .*Connect call failed"):
        async with fed(source):
            pass


async def test_a_coordinator_that_refuses_the_group_is_named(world: KafkaWorld, mock: Mock) -> None:
    await world.create()
    mock.cluster.fail(OFFSET_FETCH, 30)  # GROUP_AUTHORIZATION_FAILED
    with pytest.raises(NotReady, match=f"may not use the group {world.group}"):
        async with fed(world.source()):
            pass


async def test_a_record_that_cannot_be_decoded_closes_its_lane_with_what_to_do(
    world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create()
    await world.put(b"one")

    async def undecodable(*_: object) -> object:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    async with opened(world.source()) as lane:
        monkeypatch.setattr(GroupConsumer, "read", undecodable)
        with pytest.raises(LaneFailed, match=r"cannot be decoded .*kafka-delete-records"):
            await lane.read(10, SIZE, 1)
