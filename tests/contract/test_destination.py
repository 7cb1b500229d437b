"""What every Destination promises."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

import pytest
from msgspec.structs import replace

from esm.destinations.memory import MemoryDestination
from esm.destinations.sqs import SqsDestination
from esm.domain.arn import Arn
from esm.domain.discarded import Discarded, Reason, Response, failure_record
from esm.domain.errors import DestinationRejected, DestinationUnavailable
from esm.domain.record import LaneId, Record
from esm.ports import Destination
from esm.sandbox import Drop, Fail, Fault, Garbage, LoseReply, ServerError, Throttle, first
from esm.sandbox.faults import Effect
from tests.support.sqs_servers import REGION, SqsQueue, SqsServer, moto_server, moto_sqs, sandbox_sqs

pytestmark = pytest.mark.anyio

LANE = LaneId("clicks", "shardId-000000000006")
WHAT = Discarded(
    id="2a7c9c5e-53b0-4f0e-9d5b-61a9e6f4d201",
    mapping_uuid="9f1c",
    lane=LANE,
    function_arn="arn:aws:lambda:eu-west-1:111122223333:function:tally",
    reason=Reason.RETRY_ATTEMPTS_EXHAUSTED,
    invoke_count=3,
    response=Response("$LATEST", "Unhandled"),
    records=[Record(LANE, 7, 0, "7", b"k", 1_767_222_000.123, b'{"secret":"payload"}')],
    at=1_767_259_864.835,
    batch_info=("KinesisBatchInfo", {"shardId": LANE.name, "batchSize": 1}),
)


class Room(Protocol):
    """A destination with a look at what it holds, and a way to break it."""

    destination: Destination

    async def documents(self) -> Sequence[object]:
        """Everything that was stored, decoded."""
        ...

    def go_away(self) -> None:
        """Take nothing more, until ``come_back``."""
        ...

    def come_back(self) -> None:
        """Take everything again."""
        ...

    def refuse(self) -> None:
        """From now on refuse records for what they are."""
        ...


class InMemory:
    """A Room in memory."""

    def __init__(self) -> None:
        self.destination = self.memory = MemoryDestination()

    async def documents(self) -> Sequence[object]:
        return [json.loads(json.dumps(failure_record(what))) for what in self.memory.stored]

    def go_away(self) -> None:
        self.memory.rule = lambda what: DestinationUnavailable("The memory destination is away.")

    def come_back(self) -> None:
        self.memory.rule = lambda what: None

    def refuse(self) -> None:
        self.memory.rule = lambda what: DestinationRejected(f"Record {what.id} is too large.")


class InQueue:
    """A Room in an SQS queue; only the sandbox can be broken."""

    def __init__(self, queue: SqsQueue, destination: SqsDestination) -> None:
        self.queue, self.destination = queue, destination
        self.fault: Fault | None = None

    async def documents(self) -> Sequence[object]:
        return [json.loads(body) for body in await self.queue.bodies()]

    def go_away(self) -> None:
        self.fault = self.queue.server.sandbox.faults.add(Fault("sqs:*", ServerError()))

    def come_back(self) -> None:
        assert self.fault is not None
        self.queue.server.sandbox.faults.remove(self.fault)

    def refuse(self) -> None:
        self.queue.server.sandbox.faults.add(Fault("sqs:SendMessage", Fail("InvalidMessageContents")))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


async def room_in(server: SqsServer) -> InQueue:
    queue = await server.create()
    return InQueue(queue, SqsDestination(Arn.parse(queue.arn), REGION, server.url, server.clients))


@pytest.fixture(params=["memory", "sandbox", "moto"])
async def room(request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    if request.param == "memory":
        yield InMemory()
    elif request.param == "sandbox":
        async with sandbox_sqs() as server:
            yield await room_in(server)
    else:
        async with moto_sqs(request.getfixturevalue("moto")) as server:
            yield await room_in(server)


@pytest.fixture(params=["memory", "sandbox"])
async def breakable(request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    if request.param == "memory":
        yield InMemory()
    else:
        async with sandbox_sqs() as server:
            yield await room_in(server)


@pytest.fixture
async def server() -> AsyncIterator[SqsServer]:
    async with sandbox_sqs() as server:
        yield server


async def test_the_failure_record_is_stored_as_aws_writes_it(room: Room) -> None:
    await room.destination.store(WHAT)
    assert await room.documents() == [
        {
            "requestContext": {
                "requestId": "2a7c9c5e-53b0-4f0e-9d5b-61a9e6f4d201",
                "functionArn": "arn:aws:lambda:eu-west-1:111122223333:function:tally",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 3,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "version": "1.0",
            "timestamp": "2026-01-01T09:31:04.835Z",
            "KinesisBatchInfo": {"shardId": "shardId-000000000006", "batchSize": 1},
        }
    ]


async def test_each_record_is_stored_for_itself(room: Room) -> None:
    for number in range(3):
        await room.destination.store(replace(WHAT, id=f"id-{number}"))
    assert sorted(map(request_id, await room.documents())) == ["id-0", "id-1", "id-2"]


async def test_the_same_record_offered_again_keeps_its_id(room: Room) -> None:
    await room.destination.store(WHAT)
    await room.destination.store(WHAT)
    assert {request_id(document) for document in await room.documents()} == {WHAT.id}


async def test_a_destination_that_is_away_stores_nothing_and_takes_the_record_later(breakable: Room) -> None:
    breakable.go_away()
    with pytest.raises(DestinationUnavailable):
        await breakable.destination.store(WHAT)
    breakable.come_back()
    assert await breakable.documents() == []
    await breakable.destination.store(WHAT)
    assert [request_id(document) for document in await breakable.documents()] == [WHAT.id]


async def test_a_destination_that_went_away_after_the_first_record_is_unavailable(breakable: Room) -> None:
    await breakable.destination.store(WHAT)
    breakable.go_away()
    with pytest.raises(DestinationUnavailable):
        await breakable.destination.store(replace(WHAT, id="second"))


async def test_a_record_that_is_refused_for_itself_is_rejected(breakable: Room) -> None:
    breakable.refuse()
    with pytest.raises(DestinationRejected):
        await breakable.destination.store(WHAT)


def request_id(document: object) -> str:
    assert isinstance(document, dict)
    return str(document["requestContext"]["requestId"])


# -- SQS alone


async def test_a_record_above_the_size_of_a_message_is_rejected_with_the_limit(server: SqsServer) -> None:
    queue = await server.create(MaximumMessageSize=1024)
    destination = SqsDestination(Arn.parse(queue.arn), REGION, server.url, server.clients)
    with pytest.raises(DestinationRejected, match=r"shorter than 1024 bytes"):
        await destination.store(replace(WHAT, function_arn="x" * 2000))


@pytest.mark.parametrize(
    "effect",
    [
        Throttle(),
        ServerError(),
        Drop(),
        Fail("AccessDenied", status=403),
        Fail("ExpiredToken", status=403),
        Fail("KmsDisabled"),
        Fail("MissingParameter"),
        Garbage(),
        Garbage(b"{}", 200),
    ],
    ids=["throttle", "server", "drop", "denied", "expired", "kms", "other", "garbage", "empty"],
)
async def test_whatever_is_not_the_records_fault_is_unavailable(server: SqsServer, effect: Effect) -> None:
    room = await room_in(server)
    server.sandbox.faults.add(Fault("sqs:SendMessage", effect, first(1)))
    with pytest.raises(DestinationUnavailable, match=rf"SQS queue {room.queue.name} in eu-west-1"):
        await room.destination.store(WHAT)
    await room.destination.store(WHAT)
    assert len(await room.documents()) == 1


async def test_a_lost_reply_is_unavailable_and_the_next_try_bears_the_same_id(server: SqsServer) -> None:
    room = await room_in(server)
    server.sandbox.faults.add(Fault("sqs:SendMessage", LoseReply(), first(1)))
    with pytest.raises(DestinationUnavailable):
        await room.destination.store(WHAT)
    await room.destination.store(WHAT)
    assert [request_id(document) for document in await room.documents()] == [WHAT.id, WHAT.id]


async def test_a_missing_queue_is_unavailable_until_somebody_makes_it(server: SqsServer) -> None:
    arn = f"arn:aws:sqs:{REGION}:123456789012:clicks-failed"
    destination = SqsDestination(Arn.parse(arn), REGION, server.url, server.clients)
    with pytest.raises(DestinationUnavailable, match="SQS queue clicks-failed in eu-west-1 does not exist"):
        await destination.store(WHAT)
    queue = server.sandbox.sqs.create_queue("clicks-failed")
    await destination.store(WHAT)
    assert len(queue.messages()) == 1


async def test_a_role_that_may_only_send_is_enough(server: SqsServer) -> None:
    room = await room_in(server)
    server.sandbox.faults.add(Fault("sqs:GetQueueUrl", Fail("AccessDenied", status=403)))
    await room.destination.store(WHAT)
    assert len(await room.documents()) == 1


async def test_the_message_has_no_attributes_and_no_payload(server: SqsServer) -> None:
    room = await room_in(server)
    await room.destination.store(WHAT)
    [message] = server.sandbox.sqs.queue(room.queue.name).messages()
    assert message.attributes is None
    assert "secret" not in message.body


async def test_the_memory_destination_can_lose_its_reply() -> None:
    destination = MemoryDestination()
    destination.loses_reply = True
    with pytest.raises(DestinationUnavailable):
        await destination.store(WHAT)
    destination.loses_reply = False
    await destination.store(WHAT)
    assert ([what.id for what in destination.stored], destination.tries) == ([WHAT.id, WHAT.id], 2)
