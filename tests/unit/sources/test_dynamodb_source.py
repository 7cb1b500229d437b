"""DynamoDB Streams against the sandbox: listings, moments, trimmed shards, faults by script."""

import json
from collections.abc import AsyncIterator, Sequence

import pytest

from esm.domain.errors import LaneFailed, NotReady
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import Record
from esm.sandbox import Fail, Fault, Garbage, LoseReply, SandboxClock, ServerError, Throttle, first, nth
from esm.sandbox.table_stream import TableStream
from esm.sources.shards import Pace
from tests.support.shard_worlds import (
    LIMIT,
    SIZE,
    DynamoDBWorld,
    next_chunk,
    read_to_end,
    sandbox_server,
    take,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> AsyncIterator[DynamoDBWorld]:
    async with sandbox_server() as server:
        yield await DynamoDBWorld.create(server)


def stream_of(world: DynamoDBWorld) -> TableStream:
    return world.server.sandbox.streams.stream(world.arn)


def data(world: DynamoDBWorld, records: Sequence[Record]) -> list[str]:
    return [world.data_of(record) for record in records]


# -- listings


async def test_a_listing_names_table_and_label(world: DynamoDBWorld) -> None:
    shards = await world.source().discover()
    assert shards.stream == f"{world.table}:{stream_of(world).label}"


async def test_a_shard_that_rolled_over_is_the_parent_of_the_next(world: DynamoDBWorld) -> None:
    parent = await world.shard()
    [child] = stream_of(world).roll()
    shards = {shard.id: shard for shard in (await world.source().discover()).shards}
    assert (shards[parent].closed, shards[child.id].parents, shards[child.id].closed) == (True, (parent,), False)
    assert shards[child.id].first == child.number(-1)


async def test_a_long_listing_is_read_page_by_page(world: DynamoDBWorld) -> None:
    for _ in range(249):
        stream_of(world).roll()
    shards = await world.source().discover()
    assert (len({shard.id for shard in shards.shards}), shards.complete) == (250, True)
    assert world.server.sandbox.calls["streams:DescribeStream"] == 3


async def test_a_listing_whose_second_page_fails_is_incomplete(world: DynamoDBWorld) -> None:
    for _ in range(149):
        stream_of(world).roll()
    world.server.sandbox.faults.add(Fault("streams:DescribeStream", Fail("ValidationException"), nth(2)))
    shards = await world.source().discover()
    assert (len(shards.shards), shards.complete) == (100, False)


async def test_a_disabled_stream_lists_its_closed_shards_completely(world: DynamoDBWorld) -> None:
    stream_of(world).disable()
    shards = await world.source().discover()
    assert ([shard.closed for shard in shards.shards], shards.complete) == ([True], True)


async def test_a_stream_that_is_being_enabled_is_not_ready(world: DynamoDBWorld) -> None:
    body = json.dumps({"StreamDescription": {"StreamStatus": "ENABLING", "Shards": []}}).encode()
    fault = Fault("streams:DescribeStream", Garbage(body, 200, "application/x-amz-json-1.0"))
    world.server.sandbox.faults.add(fault)
    with pytest.raises(NotReady, match="still being enabled"):
        await world.source().discover()


async def test_wrong_credentials_are_one_sentence_with_what_to_do() -> None:
    async with sandbox_server(access_keys=["another"]) as server:
        table = server.sandbox.dynamodb.create_table("carts", stream="NEW_IMAGE")
        assert table.stream is not None
        with pytest.raises(
            NotReady, match=r"AWS does not accept the credentials .* check key, secret, token"
        ) as caught:
            await server.dynamodb(table.stream.arn).discover()
    assert f"DynamoDB stream {table.stream.label} of table carts in eu-west-1" in str(caught.value)


async def test_a_denied_call_names_the_permission(world: DynamoDBWorld) -> None:
    world.server.sandbox.faults.add(Fault("streams:DescribeStream", Fail("AccessDeniedException")))
    with pytest.raises(NotReady, match="allow dynamodb:DescribeStream to the worker's role"):
        await world.source().discover()


# -- moments


async def test_from_a_moment_on_every_record_of_its_second_comes_and_no_older_one() -> None:
    async with sandbox_server(clock=SandboxClock(lambda: 1_767_222_000.0)) as server:
        world = await DynamoDBWorld.create(server)
        for step, name in ((0.9, "before"), (0.3, "early in the second"), (0.5, "late in it"), (5, "after")):
            server.advance(step)
            await world.put(name)
        async with world.source().open(await world.shard(), Start(moment=1_767_222_001.5)) as reader:
            assert data(world, await take(reader, 3)) == ["early in the second", "late in it", "after"]


async def test_a_moment_without_records_after_it_passes_all_older_ones(world: DynamoDBWorld) -> None:
    await world.put("a", "b")
    await world.pass_time(60)
    moment = world.server.sandbox.clock.now()
    async with world.source().open(await world.shard(), Start(moment=moment)) as reader:
        passed = await reader.read(LIMIT, SIZE, 0.1)
        assert list(passed.records) == []
        assert passed.through is not None
        await world.put("c")
        assert data(world, await take(reader, 1)) == ["c"]


# -- reading


async def test_ttl_deletions_and_all_events_of_an_item_come_in_order() -> None:
    async with sandbox_server() as server:
        table = server.sandbox.dynamodb.create_table("carts", stream="NEW_AND_OLD_IMAGES")
        assert table.stream is not None
        item = {"pk": {"S": "a"}, "n": {"N": "1"}, "raw": {"B": "AAEC"}, "tags": {"BS": ["/w=="]}}
        table.put(item)
        table.put({**item, "n": {"N": "2"}})
        table.delete({"pk": {"S": "a"}}, by_ttl=True)
        async with server.dynamodb(table.stream.arn).open(table.stream.open_shards()[0].id, HORIZON) as reader:
            entries = [json.loads(record.entry) for record in await take(reader, 3)]
    assert [entry["eventName"] for entry in entries] == ["INSERT", "MODIFY", "REMOVE"]
    assert [sorted(set(entry["dynamodb"]) & {"NewImage", "OldImage"}) for entry in entries] == [
        ["NewImage"],
        ["NewImage", "OldImage"],
        ["OldImage"],
    ]
    assert entries[0]["dynamodb"]["NewImage"] == item
    assert [entry.get("userIdentity") for entry in entries] == [
        None,
        None,
        {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
    ]
    assert entries[0]["eventSourceARN"] == table.stream.arn


async def test_an_iterator_that_expires_behind_a_blocked_reader_is_renewed_behind_what_was_read(
    world: DynamoDBWorld,
) -> None:
    calls = world.server.sandbox.calls
    await world.put("a", "b", "c")
    async with world.source().open(await world.shard(), HORIZON) as reader:
        assert data(world, (await reader.read(2, SIZE, 5)).records) == ["a", "b"]
        world.server.advance(901)
        await world.put("d")
        assert data(world, await take(reader, 2)) == ["c", "d"]
    assert calls["streams:GetShardIterator"] == 2
    assert calls.outcomes["streams:GetRecords", "ExpiredIteratorException"] == 1


async def test_records_that_are_trimmed_while_a_batch_blocks_leave_a_gap(world: DynamoDBWorld) -> None:
    await world.put("a", "b", "c")
    shard = await world.shard()
    async with world.source().open(shard, HORIZON) as reader:
        chunk = await reader.read(1, SIZE, 5)
        await world.trim(shard, 2)
        behind = await next_chunk(reader)
    assert data(world, behind.records) == ["c"]
    assert behind.gap is not None
    assert (behind.gap.after, behind.gap.before) == (chunk.records[0].at, behind.records[0].at)


@pytest.mark.parametrize(
    "operation, effect",
    [
        ("GetRecords", Throttle()),
        ("GetRecords", ServerError()),
        ("GetRecords", LoseReply()),
        ("GetRecords", Garbage(status=200)),
        ("GetShardIterator", Throttle()),
    ],
)
async def test_reading_outlives_what_passes_and_each_record_comes_once(
    world: DynamoDBWorld, operation: str, effect: Throttle
) -> None:
    fault = world.server.sandbox.faults.add(Fault(f"streams:{operation}", effect, first(1)))
    await world.put("a", "b")
    async with world.source().open(await world.shard(), HORIZON) as reader:
        assert data(world, await take(reader, 2)) == ["a", "b"]
        await world.put("c")
        assert data(world, await take(reader, 1)) == ["c"]
    assert fault.hits == 1


async def test_a_shard_that_is_known_to_be_closed_is_read_on_without_idling(world: DynamoDBWorld) -> None:
    await world.put("a")
    parent = await world.shard()
    stream_of(world).roll()
    source = world.server.dynamodb(world.arn, Pace(busy=0.0, idle=3600.0))
    await source.discover()
    calls = await world.server.client("dynamodbstreams")
    made = await calls.get_shard_iterator(StreamArn=world.arn, ShardId=parent, ShardIteratorType="TRIM_HORIZON")
    body = json.dumps({"Records": [], "NextShardIterator": made["ShardIterator"]}).encode()
    empty = Garbage(body, 200, "application/x-amz-json-1.0")
    world.server.sandbox.faults.add(Fault("streams:GetRecords", empty, first(3)))
    records, last = await read_to_end(source, parent)
    assert (data(world, records), last.ended is not None) == (["a"], True)


async def test_a_shard_that_vanished_fails_the_lane_with_the_sentence(world: DynamoDBWorld) -> None:
    async with world.source().open("shardId-00000000000000000000-gone", HORIZON) as reader:
        with pytest.raises(LaneFailed, match=f"of table {world.table} in eu-west-1 does not exist"):
            await reader.read(LIMIT, SIZE, 5)


async def test_a_server_is_asked_for_records_of_a_thousand_at_most() -> None:
    async with sandbox_server() as server:
        table = server.sandbox.dynamodb.create_table("carts", stream="NEW_IMAGE")
        assert table.stream is not None
        table.stream.generate(2500, size=100)
        async with server.dynamodb(table.stream.arn).open(table.stream.open_shards()[0].id, HORIZON) as reader:
            chunks = [await reader.read(10_000, SIZE, 5) for _ in range(3)]
    assert [len(chunk.records) for chunk in chunks] == [1000, 1000, 500]
    positions = [record.position for chunk in chunks for record in chunk.records]
    assert positions == sorted(set(positions))
