"""What the lane of a queue promises, and the feed that grants it."""

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from esm.domain.errors import NotReady
from esm.domain.record import LaneId
from esm.ports import Granted
from tests.support.queue_worlds import SIZE, MemoryWorld, QueueWorld, SqsWorld, body_of, granted_by, opened, take
from tests.support.sqs_servers import moto_server, moto_sqs, sandbox_sqs

pytestmark = pytest.mark.anyio

VISIBILITY = 30


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def visibility() -> int:
    """Seconds; a test that waits for the end of a receipt asks for fewer."""
    return VISIBILITY


@pytest.fixture(params=["memory", "sandbox", "moto"])
async def world(request: pytest.FixtureRequest, visibility: int) -> AsyncIterator[QueueWorld]:
    if request.param == "memory":
        yield MemoryWorld(visibility)
    elif request.param == "sandbox":
        async with sandbox_sqs() as server:
            yield SqsWorld(server, await server.create(VisibilityTimeout=visibility))
    else:
        async with moto_sqs(request.getfixturevalue("moto")) as server:
            yield SqsWorld(server, await server.create(VisibilityTimeout=visibility))


async def test_a_record_is_the_message(world: QueueWorld) -> None:
    [sent] = await world.send("hello")
    async with opened(world.source()) as lane:
        [record] = await take(lane, 1)
    assert (record.id, body_of(record), record.receives, record.key) == (sent, "hello", 1, None)
    assert record.lane == LaneId("orders", world.name) == lane.id
    assert record.size == len(record.entry)


async def test_a_queue_is_always_ours_and_remembers_no_mark(world: QueueWorld) -> None:
    async with opened(world.source()) as lane:
        assert (lane.owned(), lane.resumed) == (True, None)


async def test_an_empty_queue_answers_an_empty_chunk_after_the_wait(world: QueueWorld) -> None:
    async with opened(world.source()) as lane:
        for wait in (0.0, 0.5):
            chunk = await lane.read(10, SIZE, wait)
            assert (list(chunk.records), chunk.more, chunk.ended, chunk.through) == ([], False, None, None)


async def test_a_read_that_waits_brings_what_is_sent_meanwhile(world: QueueWorld) -> None:
    got: list[str] = []

    async def read() -> None:
        got.extend(body_of(record) for record in (await lane.read(10, SIZE, 20)).records)

    async with opened(world.source()) as lane, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.lowlevel.checkpoint()
        await world.send("meanwhile")
    assert got == ["meanwhile"]


async def test_no_read_brings_more_than_its_limit(world: QueueWorld) -> None:
    await world.send(*"abcdefgh")
    sizes: list[int] = []
    async with opened(world.source()) as lane:
        while sum(sizes) < 8:
            sizes.append(len((await lane.read(3, SIZE, 20)).records))
    assert max(sizes) == 3


async def test_a_backlog_is_read_whole_and_each_message_once(world: QueueWorld) -> None:
    sent = await world.send(*map(str, range(57)))
    async with opened(world.source()) as lane:
        records = await take(lane, 57)
        assert sorted(record.id for record in records) == sorted(sent)
        assert not (await lane.read(100, SIZE, 0)).records
    positions = [record.position for record in records]
    assert positions == sorted(set(positions)), "a receive counter that only grows"


async def test_a_full_answer_tells_that_there_is_more(world: QueueWorld) -> None:
    await world.send(*map(str, range(12)))
    async with opened(world.source()) as lane:
        first = await lane.read(10, SIZE, 20)
        assert (len(first.records), first.more) == (10, True)
        rest = await take(lane, 2, limit=10)
        last = await lane.read(10, SIZE, 0)
    assert (len(rest), last.more) == (2, False)


async def test_what_is_settled_is_gone_after_a_flush(world: QueueWorld) -> None:
    await world.send(*map(str, range(25)))
    async with opened(world.source()) as lane:
        records = await take(lane, 25)
        assert await world.left() == 25
        await lane.settle(records[:7], None)
        await lane.settle(records[7:24], None)
        await lane.settle([], None)
        await lane.flush()
        assert await world.left() == 1


async def test_a_released_message_comes_at_once_with_its_receives_counted(world: QueueWorld) -> None:
    await world.send(*map(str, range(12)))
    async with opened(world.source()) as lane:
        records = await take(lane, 12)
        await lane.release(records)
        again = await take(lane, 12)
    assert sorted(record.id for record in again) == sorted(record.id for record in records)
    assert {record.receives for record in again} == {2}


async def test_a_message_released_with_a_delay_stays_hidden_until_then(world: QueueWorld) -> None:
    await world.send("later")
    async with opened(world.source()) as lane:
        records = await take(lane, 1)
        await lane.release(records, delay=0.7)
        assert not (await lane.read(10, SIZE, 0)).records
        assert [record.receives for record in await take(lane, 1)] == [2]


async def test_releasing_twice_or_what_is_settled_is_harmless(world: QueueWorld) -> None:
    await world.send("kept", "settled")
    async with opened(world.source()) as lane:
        records = await take(lane, 2)
        [kept] = [record for record in records if body_of(record) == "kept"]
        await lane.settle([record for record in records if record is not kept], None)
        await lane.flush()
        await lane.release(records)
        await lane.release(records)
        await lane.release([])
        assert [body_of(record) for record in await take(lane, 1)] == ["kept"]
        assert await world.left() == 1


@pytest.mark.parametrize("visibility", [1])
async def test_a_message_that_is_neither_settled_nor_released_comes_back(world: QueueWorld, visibility: int) -> None:
    await world.send("again")
    async with opened(world.source()) as lane:
        [first] = await take(lane, 1)
        [second] = await take(lane, 1)
        assert (second.id, second.receives) == (first.id, 2)
        assert list(lane.usable([first, second], 0)) == [second], "the first receipt is dead"


async def test_records_are_usable_while_their_receipts_live(world: QueueWorld) -> None:
    await world.send("a", "b")
    async with opened(world.source()) as lane:
        records = await take(lane, 2)
        assert lane.usable(records, VISIBILITY - 15) is records
        assert list(lane.usable(records, VISIBILITY + 1)) == []


async def test_a_cancelled_read_strands_no_message(world: QueueWorld) -> None:
    async with opened(world.source()) as lane:
        for number in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lane.read, 10, SIZE, 20)
                for _ in range(number * 5):  # at several moments of the receive
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await world.send(str(number))
            [record] = await take(lane, 1)  # ends long before the visibility does
            assert body_of(record) == str(number)
            await lane.settle([record], None)
        await lane.flush()
        assert await world.left() == 0


async def test_one_lane_is_granted_and_again_after_it_was_left(world: QueueWorld) -> None:
    await world.send("a", "b")
    async with world.source().connect() as (feed, _limits):
        granted = await feed.change()
        assert isinstance(granted, Granted)
        assert granted.id == LaneId("orders", world.name)
        async with granted.lane as lane:
            before = await take(lane, 2)
            await lane.release(before)
        with anyio.move_on_after(0.05) as scope:
            await feed.change()
        assert scope.cancelled_caught, "it is granted once, and waiting for a change may be cancelled"
        await feed.left(granted.id)
        async with granted_by(await feed.change()) as lane:
            after = await take(lane, 2)
            await lane.settle(after, None)
            await lane.flush()
        assert min(record.position for record in after) > max(record.position for record in before)
    assert await world.left() == 0


async def test_attempts_are_limited_by_the_visibility_of_the_queue(world: QueueWorld) -> None:
    async with world.source().connect() as (_feed, limits):
        assert limits.visibility == VISIBILITY


async def test_a_queue_that_is_not_there_is_not_ready_and_says_which(world: QueueWorld) -> None:
    with pytest.raises(NotReady, match=r"orders.* does not exist"):
        async with world.absent().connect():
            pass
