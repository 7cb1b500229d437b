"""A queue as a source over a real connection: why it is not ready, faults on the wire, nothing lost or stranded."""

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
import structlog.testing

from esm.clients.aws import AwsClients, AwsSettings
from esm.domain.errors import LaneFailed, NotReady
from esm.domain.record import LaneId
from esm.ports import Lane
from esm.sandbox import Fail, FailEntries, Fault, Garbage, Hang, LoseReply, ServerError, Throttle, every, first, nth
from esm.sandbox.faults import Effect
from esm.sources.sqs_feed import QueueFeed
from tests.support.queue_worlds import SIZE, body_of, granted_by, opened, take
from tests.support.sqs_servers import REGION, SqsServer, aws_session, sandbox_sqs
from tests.support.time import BACKENDS, LoopClock, jumping

pytestmark = pytest.mark.anyio

ARN = f"arn:aws:sqs:{REGION}:123456789012:orders"


@pytest.fixture
async def server() -> AsyncIterator[SqsServer]:
    async with sandbox_sqs() as server:
        yield server


async def refusal(server: SqsServer, arn: str = ARN) -> str:
    """The sentence with which a source of ``server`` is not ready."""
    with pytest.raises(NotReady) as caught:
        async with server.source(arn).connect():
            pass
    return str(caught.value)


# -- not ready


async def test_a_missing_queue_is_named_with_the_option_that_names_it(server: SqsServer) -> None:
    said = await refusal(server)
    assert said.startswith("SQS queue orders in eu-west-1 does not exist (")
    assert "check event_source_arn" in said


async def test_wrong_credentials_are_told_from_a_missing_queue() -> None:
    async with sandbox_sqs(access_keys=("another",)) as server:
        said = await refusal(server)
    assert said.startswith("SQS queue orders in eu-west-1: AWS does not accept the credentials (")


async def test_a_denied_queue_names_the_permission_that_is_missing(server: SqsServer) -> None:
    server.sandbox.sqs.create_queue("orders")
    server.sandbox.faults.add(Fault("sqs:Get*", Fail("AccessDenied", "Not for you.", 403)))
    assert "allow sqs:GetQueueAttributes to the worker's role" in await refusal(server)


async def test_a_role_without_get_queue_url_is_enough_as_it_is_for_lambda(server: SqsServer) -> None:
    queue = await server.create()
    server.sandbox.faults.add(Fault("sqs:GetQueueUrl", Fail("AccessDenied", "Not for you.", 403)))
    await queue.send("a")
    async with opened(queue.source()) as lane:
        assert [body_of(record) for record in await take(lane, 1)] == ["a"]


async def test_a_server_that_nobody_runs_is_out_of_reach() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with AwsClients(session=aws_session()) as clients:
            said = await refusal(SqsServer(url, clients))
    assert said.startswith(f"SQS queue orders in eu-west-1: {url} cannot be reached (")


async def test_a_server_that_is_none_of_aws_is_not_ready(server: SqsServer) -> None:
    server.sandbox.faults.add(Fault("sqs:*", Garbage(status=404)))
    assert "check endpoint_url" in await refusal(server)


async def test_an_endpoint_that_is_no_url_is_not_ready() -> None:
    async with AwsClients(AwsSettings(), aws_session()) as clients:
        assert "check endpoint_url" in await refusal(SqsServer("not a url", clients))


async def test_a_fifo_queue_is_not_supported_yet_and_nobody_is_asked(server: SqsServer) -> None:
    said = await refusal(server, ARN + ".fifo")
    assert "SQS queue orders.fifo in eu-west-1 is a FIFO queue, which is not supported yet" in said
    assert not server.sandbox.calls.counts


async def test_a_queue_that_is_made_later_becomes_ready(server: SqsServer) -> None:
    await refusal(server)
    server.sandbox.sqs.create_queue("orders")
    server.sandbox.sqs.send("orders", "a")
    async with opened(server.source(ARN)) as lane:
        assert len(await take(lane, 1)) == 1


# -- what is asked of SQS


async def test_a_receive_asks_for_everything_that_an_event_tells(server: SqsServer) -> None:
    queue = await server.create(VisibilityTimeout=45)
    await queue.send("a")
    async with opened(queue.source()) as lane:
        await take(lane, 1)
    [call] = server.sandbox.calls.of("sqs:ReceiveMessage")
    assert json.loads(call.body) == {
        "QueueUrl": queue.url,
        "MaxNumberOfMessages": 10,
        "WaitTimeSeconds": 20,
        "VisibilityTimeout": 45,
        "MessageSystemAttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    }


async def test_deletes_do_not_wait_behind_long_polls(server: SqsServer) -> None:
    queue = await server.create()
    await queue.send("a")
    async with opened(queue.source()) as lane, anyio.create_task_group() as tasks:
        records = await take(lane, 1)
        for _ in range(12):
            tasks.start_soon(lane.read, 10, SIZE, 20)
        await arrived(server, "sqs:ReceiveMessage", 13)
        await lane.settle(records, None)
        with anyio.fail_after(10):
            await lane.flush()
        assert await queue.left() == 0
        for _ in range(12):
            await queue.send("end")


async def arrived(server: SqsServer, operation: str, count: int) -> None:
    """Return once ``count`` calls of ``operation`` came in."""
    with anyio.fail_after(10):
        while server.sandbox.calls[operation] < count:
            await anyio.lowlevel.checkpoint()


# -- faults


@pytest.mark.parametrize("effect", [Throttle(), ServerError(), Garbage()], ids=["throttle", "server", "garbage"])
async def test_a_receive_that_fails_is_retried_inside_the_read(server: SqsServer, effect: Effect) -> None:
    queue = await server.create()
    await queue.send("a")
    server.sandbox.faults.add(Fault("sqs:ReceiveMessage", effect, first(1)))
    async with opened(queue.source()) as lane:
        assert [body_of(record) for record in (await lane.read(10, SIZE, 20)).records] == ["a"]


async def test_a_queue_that_is_deleted_under_the_lane_fails_it_and_its_return_heals_the_next(server: SqsServer) -> None:
    async def read_what_is_deleted() -> None:
        async with granted_by(await feed.change()) as lane:
            server.sandbox.sqs.delete_queue("orders")
            await lane.read(10, SIZE, 20)

    server.sandbox.sqs.create_queue("orders")
    async with server.source(ARN).connect() as (feed, _limits):
        with pytest.raises(LaneFailed, match="SQS queue orders in eu-west-1 does not exist"):
            await read_what_is_deleted()
        await feed.left(LaneId("orders", "orders"))
        server.sandbox.sqs.create_queue("orders")
        server.sandbox.sqs.send("orders", "a")
        async with granted_by(await feed.change()) as lane:
            assert len(await take(lane, 1)) == 1


async def test_an_error_of_whoever_reads_leaves_the_source_as_it_is(server: SqsServer) -> None:
    queue = await server.create()
    with pytest.raises(ZeroDivisionError):
        async with opened(queue.source()):
            raise ZeroDivisionError


async def deliver(lane: Lane, count: int) -> list[str]:
    """Read and settle, as the engine does; every body as often as it came."""
    seen: list[str] = []
    while len(set(seen)) < count:
        records = (await lane.read(100, SIZE, 20)).records
        seen += [body_of(record) for record in records]
        await lane.settle(records, None)
    await lane.flush()
    return seen


async def test_one_delete_in_ten_fails_and_nothing_is_lost_or_left(server: SqsServer) -> None:
    queue = await server.create()
    server.sandbox.sqs.queue(queue.name).send_many(map(str, range(300)))
    server.sandbox.faults.add(Fault("sqs:DeleteMessageBatch", FailEntries(every(10))))
    async with opened(queue.source()) as lane:
        seen = await deliver(lane, 300)
    assert sorted(seen, key=int) == [str(number) for number in range(300)], "each once"
    assert await queue.left() == 0


@pytest.mark.parametrize("effect", [LoseReply(), Throttle(), ServerError()], ids=["reply lost", "throttle", "server"])
async def test_a_delete_call_that_fails_is_made_again(server: SqsServer, effect: Effect) -> None:
    queue = await server.create()
    server.sandbox.sqs.queue(queue.name).send_many(map(str, range(40)))
    server.sandbox.faults.add(Fault("sqs:DeleteMessageBatch", effect, nth(1, 3)))
    async with opened(queue.source()) as lane:
        assert len(await deliver(lane, 40)) == 40
    assert await queue.left() == 0
    assert failed_deletes(server) == 0


async def test_a_message_whose_delete_fails_until_its_receipt_dies_is_delivered_again(server: SqsServer) -> None:
    queue = await server.create(VisibilityTimeout=1)
    await queue.send("a")
    fault = server.sandbox.faults.add(Fault("sqs:DeleteMessageBatch", ServerError()))
    async with opened(queue.source()) as lane:
        with structlog.testing.capture_logs() as logs:
            await lane.settle(await take(lane, 1), None)
            await lane.flush()
        assert failed_deletes(server) == 1
        assert {"sqs_delete_failed", "sqs_delete_failing"} == {entry["event"] for entry in logs}
        server.sandbox.faults.remove(fault)
        [again] = await take(lane, 1)
        assert again.receives == 2
        await lane.settle([again], None)
        await lane.flush()
    assert await queue.left() == 0


def failed_deletes(server: SqsServer) -> float:
    return float(server.metrics.deletes_failed._value.get())


# -- never stranded


async def stray(server: SqsServer, lane: Lane, disturb: Callable[[], Awaitable[object]]) -> None:
    """Cancel a read whose long poll the server holds, then do something."""
    before = server.sandbox.calls["sqs:ReceiveMessage"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lane.read, 10, SIZE, 20)
        await arrived(server, "sqs:ReceiveMessage", before + 1)
        tasks.cancel_scope.cancel()
    await disturb()


async def test_a_message_that_comes_after_the_read_was_cancelled_is_free_again_at_once(server: SqsServer) -> None:
    queue = await server.create(VisibilityTimeout=3600)
    async with opened(queue.source()) as lane:
        await stray(server, lane, lambda: queue.send("a"))
        [record] = await take(lane, 1)
        assert record.receives in (1, 2), "by the poll that nobody waits for, or straight"
        await lane.settle([record], None)
    assert await queue.left() == 0


async def test_a_message_that_comes_while_the_source_is_left_is_there_for_the_next_worker(server: SqsServer) -> None:
    queue = await server.create(VisibilityTimeout=3600)

    async def send_later() -> None:
        await started.wait()
        await queue.send("a")

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_later)
        async with opened(queue.source()) as lane:
            await stray(server, lane, anyio.lowlevel.checkpoint)
            started.set()
    assert await queue.bodies() == ["a"]


async def test_a_message_that_comes_during_a_hard_stop_is_there_for_the_next_worker(server: SqsServer) -> None:
    queue = await server.create(VisibilityTimeout=3600)

    async def send_when_cancelled() -> None:
        await stopped.wait()
        await queue.send("a")

    stopped = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_when_cancelled)
        with anyio.CancelScope() as hard:
            async with opened(queue.source()) as lane, anyio.create_task_group() as pipeline:
                pipeline.start_soon(lane.read, 10, SIZE, 20)
                await arrived(server, "sqs:ReceiveMessage", 1)
                stopped.set()
                hard.cancel()
    assert await queue.bodies() == ["a"]


async def test_a_hard_stop_ends_while_the_server_is_silent(server: SqsServer) -> None:
    queue = await server.create()
    server.sandbox.faults.add(Fault("sqs:ReceiveMessage", Hang()))
    with anyio.fail_after(10), anyio.CancelScope() as hard:
        async with opened(queue.source()) as lane, anyio.create_task_group() as pipeline:
            pipeline.start_soon(lane.read, 10, SIZE, 20)
            await arrived(server, "sqs:ReceiveMessage", 1)
            hard.cancel()
    assert hard.cancelled_caught


async def test_a_dead_letter_keeps_its_way_through_the_lane(server: SqsServer) -> None:
    letters = server.sandbox.sqs.create_queue("letters")
    server.sandbox.sqs.create_queue("orders", redrive_to=letters, max_receives=2)
    server.sandbox.sqs.send("orders", "poison")
    async with opened(server.source(ARN)) as lane:
        for receives in (1, 2):
            [record] = await take(lane, 1)
            assert record.receives == receives
            await lane.release([record])
        assert not (await lane.read(10, SIZE, 0)).records
    assert [message.body for message in letters.messages()] == ["poison"]


# -- the feed


@pytest.mark.parametrize("anyio_backend", [jumping(name) for name in BACKENDS], ids=BACKENDS)
async def test_a_lane_that_is_left_again_and_again_is_granted_ever_later_until_it_held() -> None:
    def no_lane() -> Lane:
        raise AssertionError

    clock = LoopClock()
    feed = QueueFeed(LaneId("orders", "orders"), no_lane, clock, lambda: 0.5)
    pauses: list[float] = []

    async def leave() -> None:
        left = anyio.current_time()
        await feed.left(LaneId("orders", "orders"))
        await feed.change()
        pauses.append(anyio.current_time() - left)

    await feed.change()
    for _ in range(9):
        await leave()
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(1, rel=0.25)
    assert pauses[-1] == pytest.approx(60, rel=0.25)
    await anyio.sleep(61)
    await leave()
    assert pauses[-1] == pytest.approx(1, rel=0.25)
