"""What the lane of a queue promises, on ElasticMQ."""

from collections.abc import AsyncIterator

import pytest

from esm.clients.aws import AwsClients
from tests.contract.test_queue_lane import *  # noqa: F403 - every test of the contract, with this file's world
from tests.integration.services import ElasticMq
from tests.support.queue_worlds import QueueWorld, SqsWorld
from tests.support.sqs_servers import SqsServer, aws_session

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(elasticmq: ElasticMq, visibility: int) -> AsyncIterator[QueueWorld]:
    async with AwsClients(session=aws_session()) as clients:
        server = SqsServer(elasticmq.endpoint, clients)
        yield SqsWorld(server, await server.create(VisibilityTimeout=visibility))
