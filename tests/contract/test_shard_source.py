"""What every ShardSource and ShardReader promises."""

from collections.abc import AsyncIterator, Iterator
from math import floor

import anyio
import pytest

from esm.domain.errors import NotReady
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import LaneId
from tests.support.shard_worlds import (
    LIMIT,
    MAPPING,
    SIZE,
    DynamoDBWorld,
    KinesisWorld,
    MemoryWorld,
    ShardWorld,
    SplittableWorld,
    next_chunk,
    read_to_end,
    sandbox_server,
    server_at,
    take,
)
from tests.support.sqs_servers import moto_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


async def _sandbox(name: str) -> AsyncIterator[SplittableWorld]:
    async with sandbox_server() as server:
        yield await (KinesisWorld if name == "kinesis" else DynamoDBWorld).create(server)


@pytest.fixture(params=["memory", "kinesis", "dynamodb", "kinesis-moto", "dynamodb-moto"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[ShardWorld]:
    if request.param == "memory":
        yield MemoryWorld()
    elif request.param.endswith("-moto"):
        async with server_at(request.getfixturevalue("moto")) as server:
            yield await (KinesisWorld if "kinesis" in request.param else DynamoDBWorld).create(server)
    else:
        async for found in _sandbox(request.param):
            yield found


@pytest.fixture(params=["memory", "kinesis", "dynamodb"])
async def splittable(request: pytest.FixtureRequest) -> AsyncIterator[SplittableWorld]:
    """Moto moves no records to the children of a split shard, and trims none."""
    if request.param == "memory":
        yield MemoryWorld()
    else:
        async for found in _sandbox(request.param):
            yield found


async def test_an_open_shard_is_listed(world: ShardWorld) -> None:
    shards = await world.source().discover()
    [shard] = shards.shards
    assert (shard.id, shard.parents, shard.closed, shards.complete) == (await world.shard(), (), False, True)


async def test_a_stream_has_the_same_name_at_each_listing(world: ShardWorld) -> None:
    first, second = await world.source().discover(), await world.source().discover()
    assert first.stream == second.stream
    assert ":" in first.stream


async def test_records_come_once_in_the_order_of_their_positions(world: ShardWorld) -> None:
    data = [f"n{index}" for index in range(12)]
    await world.put(*data[:6])
    async with world.source().open(await world.shard(), HORIZON) as reader:
        records = await take(reader, 6)
        await world.put(*data[6:])
        records += await take(reader, 6)
    assert [world.data_of(record) for record in records] == data
    positions = [record.at for record in records]
    assert positions == sorted(set(positions))


async def test_a_record_tells_its_lane_id_key_and_arrival(world: ShardWorld) -> None:
    await world.put("a")
    shard = await world.shard()
    async with world.source().open(shard, HORIZON) as reader:
        [record] = await take(reader, 1)
    assert record.lane == LaneId(MAPPING, shard)
    assert (int(record.id), record.sub) == (record.position, 0)
    assert record.key
    assert record.arrived_at > 1_700_000_000


async def test_a_chunk_holds_no_more_than_the_limit_and_says_where_it_ends(world: ShardWorld) -> None:
    await world.put("a", "b", "c")
    async with world.source().open(await world.shard(), HORIZON) as reader:
        chunk = await next_chunk(reader, limit=2)
        rest = await next_chunk(reader, limit=2)
    assert [world.data_of(record) for record in (*chunk.records, *rest.records)] == ["a", "b", "c"]
    assert (len(chunk.records), chunk.through, chunk.more) == (2, chunk.records[-1].at, True)


async def test_reading_goes_on_behind_a_position(world: ShardWorld) -> None:
    await world.put("a", "b", "c")
    shard = await world.shard()
    async with world.source().open(shard, HORIZON) as reader:
        records = await take(reader, 3)
    async with world.source().open(shard, Start(after=records[1].at)) as reader:
        chunk = await next_chunk(reader)
    assert [world.data_of(record) for record in chunk.records] == ["c"]
    assert chunk.gap is None


async def test_a_position_counts_more_than_a_moment(world: ShardWorld) -> None:
    await world.put("a", "b")
    shard = await world.shard()
    async with world.source().open(shard, HORIZON) as reader:
        records = await take(reader, 2)
    start = Start(after=records[0].at, moment=records[0].arrived_at - 60)
    async with world.source().open(shard, start) as reader:
        assert [world.data_of(record) for record in await take(reader, 1)] == ["b"]


async def test_from_a_moment_on_nothing_is_missing_and_nothing_clearly_older_comes(world: ShardWorld) -> None:
    for data in ("a", "b", "c"):
        await world.put(data)
        await world.pass_time(5)
    shard = await world.shard()
    async with world.source().open(shard, HORIZON) as reader:
        records = await take(reader, 3)
    moment = records[1].arrived_at + world.resolution / 3
    oldest = floor(moment / world.resolution + 1e-6) * world.resolution if world.resolution else moment
    wanted = [record for record in records if record.arrived_at > oldest - 1e-6]
    async with world.source().open(shard, Start(moment=moment)) as reader:
        found = await take(reader, len(wanted))
    assert [world.data_of(record) for record in found] == [world.data_of(record) for record in wanted]


async def test_an_idle_shard_answers_an_empty_chunk_after_the_wait(world: ShardWorld) -> None:
    async with world.source().open(await world.shard(), HORIZON) as reader:
        for wait in (0.0, 0.05):
            begun = anyio.current_time()
            chunk = await reader.read(LIMIT, SIZE, wait)
            assert (list(chunk.records), chunk.ended, chunk.gap) == ([], None, None)
            assert anyio.current_time() - begun >= wait * 0.9


async def test_a_record_that_comes_ends_the_wait(world: ShardWorld) -> None:
    async with world.source().open(await world.shard(), HORIZON) as reader:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.put, "late")
                chunk = await reader.read(LIMIT, SIZE, 30)
    assert [world.data_of(record) for record in chunk.records] == ["late"]


async def test_a_cancelled_read_loses_nothing(world: ShardWorld) -> None:
    async with world.source().open(await world.shard(), HORIZON) as reader:
        for index in range(5):
            await world.put(f"n{index}")
            with anyio.move_on_after(0):
                await reader.read(LIMIT, SIZE, 5)
        records = await take(reader, 5)
    assert [world.data_of(record) for record in records] == [f"n{index}" for index in range(5)]


async def test_a_split_shard_is_listed_as_closed_with_its_children(splittable: SplittableWorld) -> None:
    parent = await splittable.shard()
    children = await splittable.split(parent)
    shards = await splittable.source().discover()
    assert {shard.id: (shard.parents, shard.closed) for shard in shards.shards} == {
        parent: ((), True),
        **dict.fromkeys(children, ((parent,), False)),
    }
    assert shards.complete


async def test_a_closed_shard_is_read_to_its_end_and_its_children_from_their_beginning(
    splittable: SplittableWorld,
) -> None:
    await splittable.put("a", "b")
    parent = await splittable.shard()
    children = await splittable.split(parent)
    source = splittable.source()
    records, last = await read_to_end(source, parent)
    assert [splittable.data_of(record) for record in records] == ["a", "b"]
    assert last.ended is not None
    assert set(last.ended.children) in (set(), set(children))  # DynamoDB does not name them
    await splittable.put("c")
    found: list[str] = []
    for child in children:
        async with source.open(child, HORIZON) as reader:
            chunk = await reader.read(LIMIT, SIZE, 0.1)
            found += [splittable.data_of(record) for record in chunk.records]
            assert chunk.ended is None
    assert found == ["c"]


async def test_behind_the_last_record_of_a_closed_shard_comes_its_end(splittable: SplittableWorld) -> None:
    await splittable.put("a")
    parent = await splittable.shard()
    await splittable.split(parent)
    records, _ = await read_to_end(splittable.source(), parent)
    rest, last = await read_to_end(splittable.source(), parent, Start(after=records[-1].at))
    assert (rest, last.through, last.more) == ([], records[-1].at, False)


async def test_an_ended_shard_says_so_again(splittable: SplittableWorld) -> None:
    parent = await splittable.shard()
    await splittable.split(parent)
    async with splittable.source().open(parent, HORIZON) as reader:
        first = await next_chunk(reader)
        second = await next_chunk(reader)
    assert first.ended is not None
    assert second.ended == first.ended


async def test_a_position_that_was_trimmed_away_leaves_a_gap(splittable: SplittableWorld) -> None:
    await splittable.put("a", "b", "c", "d")
    shard = await splittable.shard()
    if isinstance(splittable, KinesisWorld):
        splittable.server.sandbox.kinesis.stream(splittable.name).trimmed_is_error = True
    async with splittable.source().open(shard, HORIZON) as reader:
        records = await take(reader, 4)
    await splittable.trim(shard, 3)
    async with splittable.source().open(shard, Start(after=records[0].at)) as reader:
        chunk = await next_chunk(reader)
    assert [splittable.data_of(record) for record in chunk.records] == ["d"]
    assert chunk.gap is not None
    assert (chunk.gap.after, chunk.gap.before) == (records[0].at, records[3].at)


@pytest.mark.parametrize("world", ["kinesis", "dynamodb", "kinesis-moto", "dynamodb-moto"], indirect=True)
async def test_a_stream_that_does_not_exist_is_not_ready_and_named(world: KinesisWorld | DynamoDBWorld) -> None:
    if isinstance(world, KinesisWorld):
        source, name = world.server.kinesis("clocks"), "Kinesis stream clocks in eu-west-1 does not exist"
    else:
        arn = world.arn.replace(world.table, "carps")
        source, name = world.server.dynamodb(arn), "of table carps in eu-west-1 does not exist"
    with pytest.raises(NotReady) as caught:
        await source.discover()
    assert name in str(caught.value)
    assert "check event_source_arn (region, account, name), or create it." in str(caught.value)
