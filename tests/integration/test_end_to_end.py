"""``esm run`` against real services: what tests/e2e/test_killed.py tells on the sandbox, and the events themselves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from esm.clients.aws import AwsClients
from tests.integration.kafka import Kafka
from tests.integration.services import DynamoDbLocal, ElasticMq, Kinesalite
from tests.support import as_on_aws
from tests.support.as_on_aws import misfits
from tests.support.e2e_world import ARN, World, world_in
from tests.support.killed import Killed, stopped_and_started_again
from tests.support.real_sources import ACCOUNT, PARTITIONS, RealQueue, RealStream, RealTable, RealTopic
from tests.support.sqs_servers import aws_session

# A killed consumer is missed by its group after 10 s, a message that nobody deleted comes back after 10 s, three times.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


@pytest.fixture
async def clients() -> AsyncIterator[AwsClients]:
    async with AwsClients(session=aws_session()) as clients:
        yield clients


async def test_kinesis_loses_nothing_over_kill_split_and_stop(
    world: World, kinesalite: Kinesalite, clients: AwsClients, unique: str
) -> None:
    stream = RealStream(world, unique, kinesalite.endpoint, clients)
    await stream.create()
    await Killed(stream).in_the_middle()
    await stopped_and_started_again(stream)
    for key, names in stream.by_key().items():
        assert names == sorted(names), f"{key}: children come after their parent"
    assert len(world.leases()) == 2 + 2 + 2
    event = world.target.first_events[unique]
    assert misfits(event, as_on_aws.kinesis(ARN.format(service="kinesis", name=f"stream/{unique}"), ACCOUNT)) == []


async def test_dynamodb_streams_lose_nothing_over_kill_and_stop(
    world: World, dynamodb_local: DynamoDbLocal, clients: AwsClients, unique: str
) -> None:
    table = await RealTable.create(world, unique, dynamodb_local.endpoint, clients)
    await Killed(table).in_the_middle()
    await stopped_and_started_again(table)
    event = world.target.first_events[unique]
    for record in event["Records"]:  # what DynamoDB Local has of its own
        assert record.pop("eventID").count("-") == 4
        assert record.pop("awsRegion") == "ddblocal"
        record |= {"eventID": "0" * 32, "awsRegion": "eu-west-1"}
    item = {"pk": {"S": str}, "total": {"N": "12.5"}}
    assert misfits(event, as_on_aws.dynamodb(table.arn, item)) == []


async def test_sqs_loses_nothing_over_kill_and_stop_and_strands_nothing(
    world: World, elasticmq: ElasticMq, clients: AwsClients, unique: str
) -> None:
    queue = RealQueue(world, unique, elasticmq.endpoint, clients)
    await queue.create()
    await Killed(queue).in_the_middle()
    await stopped_and_started_again(queue)
    event = world.target.first_events[unique]
    assert misfits(event, as_on_aws.sqs(ARN.format(service="sqs", name=unique))) == []
    assert all(each["md5OfBody"] == as_on_aws.md5(each["body"]) for each in event["Records"])


async def test_kafka_loses_nothing_over_kill_and_stop_whatever_the_compression(
    world: World, kafka: Kafka, unique: str
) -> None:
    await kafka.create_topic(unique, PARTITIONS)
    topic = RealTopic(world, unique, kafka.bootstrap)
    await topic.fill()
    await Killed(topic).in_the_middle()
    await stopped_and_started_again(topic)
    event = world.target.first_events[unique]
    [lane] = event["records"]
    assert misfits(event, as_on_aws.kafka(kafka.bootstrap, lane, int(lane[-1]))) == []
