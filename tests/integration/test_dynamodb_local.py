"""What a source of shards promises, on DynamoDB Local: its streams have one shard, which ends with the stream."""

from collections.abc import AsyncIterator

import pytest

from esm.domain.errors import NotReady
from tests.contract import test_shard_source
from tests.integration.contracts import claims
from tests.integration.services import DynamoDbLocal
from tests.support.shard_worlds import DynamoDBWorld, read_to_end, server_at

pytestmark = pytest.mark.anyio

ABSENT = "test_a_stream_that_does_not_exist_is_not_ready_and_named"  # names its own worlds; told again below
# AWS tells the second of a record's creation, DynamoDB Local the minute: what seems older than the moment is skipped.
MOMENT = "test_from_a_moment_on_nothing_is_missing_and_nothing_clearly_older_comes"

globals().update(claims(test_shard_source, "world", but=frozenset({ABSENT, MOMENT})))


@pytest.fixture
async def world(dynamodb_local: DynamoDbLocal) -> AsyncIterator[DynamoDBWorld]:
    async with server_at(dynamodb_local.endpoint) as server:
        yield await DynamoDBWorld.create(server)


async def test_a_stream_that_does_not_exist_is_not_ready_and_named(world: DynamoDBWorld) -> None:
    with pytest.raises(NotReady, match="of table carps in eu-west-1 does not exist"):
        await world.server.dynamodb(world.arn.replace(world.table, "carps")).discover()


async def test_a_stream_that_was_disabled_is_read_to_its_end(world: DynamoDBWorld) -> None:
    await world.put("a", "b")
    [shard] = (await world.source().discover()).shards
    tables = await world.server.client("dynamodb")
    await tables.update_table(TableName=world.table, StreamSpecification={"StreamEnabled": False})
    [closed] = (await world.source().discover()).shards
    assert (closed.id, closed.closed) == (shard.id, True)
    records, last = await read_to_end(world.source(), shard.id)
    assert [world.data_of(record) for record in records] == ["a", "b"]
    assert last.ended is not None
    assert last.ended.children == ()
