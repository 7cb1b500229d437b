"""Kinesis against the sandbox: listings, expired iterators, faults by script, clocks that differ."""

import json
from collections.abc import AsyncIterator, Sequence

import pytest
from aiobotocore.session import get_session

from esm.clients.aws import AwsClients
from esm.domain.arn import Arn
from esm.domain.errors import LaneFailed, NotReady
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import Record
from esm.sandbox import (
    Drop,
    Fail,
    Fault,
    Garbage,
    LoseReply,
    Sandbox,
    SandboxClock,
    ServerError,
    Throttle,
    always,
    first,
    nth,
)
from esm.sources.kinesis import KinesisSource
from tests.support.shard_worlds import (
    ACCOUNT,
    LIMIT,
    REGION,
    SIZE,
    AwsServer,
    KinesisWorld,
    next_chunk,
    read_to_end,
    sandbox_server,
    take,
)
from tests.support.sqs_servers import aws_session

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[AwsServer]:
    async with sandbox_server() as opened:
        yield opened


@pytest.fixture
async def world(server: AwsServer) -> KinesisWorld:
    return await KinesisWorld.create(server)


def data(world: KinesisWorld, records: Sequence[Record]) -> list[str]:
    return [world.data_of(record) for record in records]


# -- listings


async def test_a_listing_names_the_stream_and_tells_a_new_one_of_that_name_from_it(server: AwsServer) -> None:
    streams = []
    for _ in range(2):
        server.sandbox.kinesis.create_stream("clicks", 1)
        streams.append((await server.kinesis("clicks").discover()).stream)
        server.sandbox.kinesis.delete_stream("clicks")
        server.advance(1)
    assert [name.partition(":")[0] for name in streams] == ["clicks", "clicks"]
    assert len(set(streams)) == 2
    assert all(name.partition(":")[2].isdecimal() for name in streams)


async def test_a_merged_shard_lists_both_parents(server: AwsServer) -> None:
    stream = server.sandbox.kinesis.create_stream("clicks", 2)
    left, right = stream.open_shards()
    child = stream.merge(left.id, right.id)
    shards = {shard.id: shard for shard in (await server.kinesis("clicks").discover()).shards}
    assert sorted(shards[child.id].parents) == sorted([left.id, right.id])
    assert [shards[name].closed for name in (left.id, right.id, child.id)] == [True, True, False]
    assert shards[child.id].first == child.starting


async def test_a_merged_shard_is_named_at_the_end_of_both_parents(server: AwsServer) -> None:
    stream = server.sandbox.kinesis.create_stream("clicks", 2)
    left, right = stream.open_shards()
    child = stream.merge(left.id, right.id)
    for parent in (left, right):
        _, last = await read_to_end(server.kinesis("clicks"), parent.id)
        assert last.ended is not None
        assert last.ended.children == (child.id,)


async def test_a_long_listing_is_read_page_by_page(server: AwsServer) -> None:
    server.sandbox.kinesis.create_stream("clicks", 2500)
    shards = await server.kinesis("clicks").discover()
    assert (len({shard.id for shard in shards.shards}), shards.complete) == (2500, True)
    assert server.sandbox.calls["kinesis:ListShards"] == 3


async def test_a_listing_whose_second_page_fails_is_incomplete(server: AwsServer) -> None:
    server.sandbox.kinesis.create_stream("clicks", 1500)
    server.sandbox.faults.add(Fault("kinesis:ListShards", Fail("ExpiredNextTokenException"), nth(2)))
    shards = await server.kinesis("clicks").discover()
    assert (len(shards.shards), shards.complete) == (1000, False)


@pytest.mark.parametrize(
    "operation, effect",
    [
        ("DescribeStreamSummary", Throttle()),
        ("DescribeStreamSummary", Garbage(status=200)),
        ("ListShards", ServerError()),
        ("ListShards", LoseReply()),
        ("ListShards", Garbage(status=200)),
    ],
)
async def test_a_listing_outlives_what_passes(world: KinesisWorld, operation: str, effect: Throttle) -> None:
    world.server.sandbox.faults.add(Fault(f"kinesis:{operation}", effect, first(1)))
    assert len((await world.source().discover()).shards) == 1


# -- not ready


async def test_wrong_credentials_are_one_sentence_with_what_to_do() -> None:
    async with sandbox_server(access_keys=["another"]) as server:
        server.sandbox.kinesis.create_stream("clicks")
        with pytest.raises(NotReady) as caught:
            await server.kinesis("clicks").discover()
    assert str(caught.value) == (
        "Kinesis stream clicks in eu-west-1: AWS does not accept the credentials (UnrecognizedClientException: The "
        "security token included in the request is invalid): check key, secret, token and this machine's clock."
    )


async def test_a_denied_call_names_the_permission(world: KinesisWorld) -> None:
    world.server.sandbox.faults.add(Fault("kinesis:ListShards", Fail("AccessDeniedException")))
    with pytest.raises(NotReady, match="allow kinesis:ListShards to the worker's role"):
        await world.source().discover()


async def test_a_server_that_is_away_is_named_with_what_to_check() -> None:
    async with sandbox_server() as server:
        url = server.url
    async with AwsClients(session=aws_session()) as clients:
        with pytest.raises(NotReady, match=f"Kinesis stream clicks in eu-west-1: {url} cannot be reached"):
            await AwsServer(url, clients).kinesis("clicks").discover()


async def test_a_consumer_arn_is_refused_with_the_stream_to_name_instead(server: AwsServer) -> None:
    arn = Arn("aws", "kinesis", REGION, ACCOUNT, "stream/clicks/consumer/c1:1767222000")
    source = KinesisSource(
        "m", arn, REGION, server.url, lambda: "", server.clients, server.clock, lambda: 0.5, server.metrics
    )
    with pytest.raises(NotReady, match=f"event_source_arn, arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks\\."):
        await source.discover()


async def test_a_stream_that_is_being_created_is_not_ready(world: KinesisWorld) -> None:
    summary = {"StreamName": world.name, "StreamStatus": "CREATING", "StreamCreationTimestamp": 1767222000}
    body = json.dumps({"StreamDescriptionSummary": summary}).encode()
    garbage = Garbage(body, 200, "application/x-amz-json-1.1")
    world.server.sandbox.faults.add(Fault("kinesis:DescribeStreamSummary", garbage))
    with pytest.raises(NotReady, match="still being created"):
        await world.source().discover()


# -- iterators


async def test_an_iterator_that_expires_behind_a_blocked_reader_is_renewed_behind_what_was_read(
    world: KinesisWorld,
) -> None:
    calls = world.server.sandbox.calls
    await world.put("a", "b", "c")
    async with world.source().open(await world.shard(), HORIZON) as reader:
        chunk = await reader.read(2, SIZE, 5)
        assert data(world, chunk.records) == ["a", "b"]
        world.server.advance(301)  # the batch blocks: nobody reads
        await world.put("d")
        assert data(world, await take(reader, 2)) == ["c", "d"]
    assert calls["kinesis:GetShardIterator"] == 2
    assert calls.outcomes["kinesis:GetRecords", "ExpiredIteratorException"] == 1


async def test_an_iterator_at_a_moment_that_expires_unused_is_asked_for_at_the_same_moment(world: KinesisWorld) -> None:
    await world.put("old")
    await world.pass_time(10)
    moment = world.server.sandbox.clock.now() - 1
    async with world.source().open(await world.shard(), Start(moment=moment)) as reader:
        assert not (await reader.read(LIMIT, SIZE, 0)).records
        await world.put("new")
        world.server.advance(301)
        assert data(world, await take(reader, 1)) == ["new"]


async def test_a_moment_that_is_ahead_of_the_services_clock_loses_nothing() -> None:
    async with sandbox_server() as server:
        world = await KinesisWorld.create(server)
        await world.put("long ago")
        server.advance(3600)
        here = server.sandbox.clock.now() + 45  # our clock is ahead: LATEST was written down as a time still to come
        async with world.source().open(await world.shard(), Start(moment=here)) as reader:
            await world.put("new")
            assert data(world, await take(reader, 1)) == ["new"]


async def test_moments_are_told_apart_by_milliseconds() -> None:
    async with sandbox_server(clock=SandboxClock(lambda: 1_767_222_000.0)) as server:
        world = await KinesisWorld.create(server)
        for name in ("a", "b", "c"):
            server.advance(0.004)
            await world.put(name)
        shard = await world.shard()
        async with world.source().open(shard, HORIZON) as reader:
            second = (await take(reader, 3))[1]
        async with world.source().open(shard, Start(moment=second.arrived_at)) as reader:
            assert data(world, await take(reader, 2)) == ["b", "c"]


async def test_a_position_that_was_trimmed_is_read_from_the_oldest_record_where_the_service_does_so(
    world: KinesisWorld,
) -> None:
    await world.put("a", "b", "c")
    shard = await world.shard()
    async with world.source().open(shard, HORIZON) as reader:
        records = await take(reader, 3)
    await world.trim(shard, 2)
    async with world.source().open(shard, Start(after=records[0].at)) as reader:
        assert data(world, (await next_chunk(reader)).records) == ["c"]


# -- reading


@pytest.mark.parametrize(
    "operation, effect",
    [
        ("GetRecords", Throttle()),
        ("GetRecords", ServerError(503)),
        ("GetRecords", LoseReply()),
        ("GetRecords", Garbage()),
        ("GetRecords", Garbage(status=200)),
        ("GetShardIterator", Drop()),
        ("GetShardIterator", Garbage(status=200)),
    ],
)
async def test_reading_outlives_what_passes_and_each_record_comes_once(
    world: KinesisWorld, operation: str, effect: Throttle
) -> None:
    fault = world.server.sandbox.faults.add(Fault(f"kinesis:{operation}", effect, first(1)))
    await world.put("a", "b")
    async with world.source().open(await world.shard(), HORIZON) as reader:
        assert data(world, await take(reader, 2)) == ["a", "b"]
        await world.put("c")
        assert data(world, await take(reader, 1)) == ["c"]
    assert fault.hits == 1


async def test_garbage_with_status_200_is_never_the_end_of_a_shard(world: KinesisWorld) -> None:
    world.server.sandbox.faults.add(Fault("kinesis:GetRecords", Garbage(status=200), always))
    async with world.source().open(await world.shard(), HORIZON) as reader:
        chunk = await reader.read(LIMIT, SIZE, 0.1)
    assert (list(chunk.records), chunk.ended) == ([], None)


async def test_a_deleted_stream_fails_the_lane_with_the_sentence(world: KinesisWorld) -> None:
    async with world.source().open(await world.shard(), HORIZON) as reader:
        await reader.read(LIMIT, SIZE, 0)
        world.server.sandbox.kinesis.delete_stream(world.name)
        with pytest.raises(LaneFailed, match=f"Shard shardId-000000000000 of Kinesis stream {world.name} in eu-west-1"):
            await reader.read(LIMIT, SIZE, 5)


async def test_without_credentials_a_shard_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    async with Sandbox.open() as sandbox, AwsClients(session=get_session()) as clients:
        source = AwsServer(sandbox.url, clients, sandbox).kinesis("clicks")
        with pytest.raises(NotReady, match="no AWS credentials were found"):
            await source.discover()
        with pytest.raises(LaneFailed, match="no AWS credentials were found"):
            async with source.open("shardId-000000000000", HORIZON):
                pass


async def test_all_sources_share_one_client(world: KinesisWorld) -> None:
    async with AwsClients(session=aws_session()) as clients:
        server = AwsServer(world.server.url, clients)
        for _ in range(3):
            await server.kinesis(world.name).discover()
        assert len(clients._clients) == 1


async def test_records_are_read_as_the_sandbox_makes_them_by_the_thousand(server: AwsServer) -> None:
    stream = server.sandbox.kinesis.create_stream("clicks", 1)
    stream.generate(3000, size=200)
    async with server.kinesis("clicks").open("shardId-000000000000", HORIZON) as reader:
        first_chunk = await reader.read(10_000, SIZE, 5)
    assert len(first_chunk.records) == 3000
    assert len({record.id for record in first_chunk.records}) == 3000
    assert not first_chunk.more
    assert first_chunk.lag_seconds == 0.0
