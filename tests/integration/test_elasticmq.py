"""What the lane of a queue promises, on ElasticMQ."""

from collections.abc import AsyncIterator

import pytest

from esm.clients.aws import AwsClients
from tests.contract import test_queue_lane
from tests.integration.contracts import claims
from tests.integration.services import ElasticMq
from tests.support.queue_worlds import QueueWorld, SqsWorld
from tests.support.sqs_servers import SqsServer, aws_session

pytestmark = pytest.mark.anyio

globals().update(claims(test_queue_lane, "world"))


@pytest.fixture
def visibility() -> int:
    """Seconds; a test that waits for the end of a receipt asks for fewer."""
    return test_queue_lane.VISIBILITY


@pytest.fixture
async def world(elasticmq: ElasticMq, visibility: int) -> AsyncIterator[QueueWorld]:
    async with AwsClients(session=aws_session()) as clients:
        server = SqsServer(elasticmq.endpoint, clients)
        yield SqsWorld(server, await server.create(VisibilityTimeout=visibility))
