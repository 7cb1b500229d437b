"""The queues of the sandbox do what SQS does, as far as a worker can tell the difference."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from esm.sandbox import AwsError, FailEntries, Fault, LoseReply, Sandbox, SandboxClock, first, nth
from esm.sandbox.messages import Message, State
from esm.sandbox.queues import Queue
from tests.support.sqs_servers import SqsQueue, SqsServer, sandbox_sqs

pytestmark = pytest.mark.anyio

START = 1_767_222_000.0


@pytest.fixture
def sandbox() -> Sandbox:
    """Not listening; its clock stands still unless it is moved."""
    return Sandbox(clock=SandboxClock(lambda: START))


@pytest.fixture
async def server() -> AsyncIterator[SqsServer]:
    async with sandbox_sqs(clock=SandboxClock(lambda: START)) as server:
        yield server


def received(queue: Queue, visibility: float = 30, limit: int = 10) -> list[str]:
    return [message.body for message in queue.receive(limit, visibility)]


def test_a_received_message_is_hidden_until_its_visibility_ends(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    sandbox.sqs.send("orders", "a")
    assert received(queue) == ["a"]
    sandbox.clock.advance(29.9)
    assert received(queue) == []
    sandbox.clock.advance(0.2)
    [message] = queue.receive(10, 30)
    assert (message.body, message.receives) == ("a", 2)


def test_each_receive_gives_a_receipt_of_its_own_and_an_old_one_deletes_nothing(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    sandbox.sqs.send("orders", "a")
    old = queue.receive(1, 1)[0].handle
    sandbox.clock.advance(2)
    new = queue.receive(1, 30)[0].handle
    queue.delete(old)
    assert (old != new, len(queue.messages())) == (True, 1)
    queue.delete(new)
    assert queue.messages() == []
    queue.delete(new)  # twice is success, as it is with SQS


def test_an_expired_receipt_still_deletes_while_nobody_else_received(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    sandbox.sqs.send("orders", "a")
    [message] = queue.receive(1, 1)
    sandbox.clock.advance(2)
    queue.delete(message.handle)
    assert (queue.messages(), received(queue), queue.ready_count) == ([], [], 0)


def test_changing_the_visibility_counts_from_now(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    sandbox.sqs.send("orders", "a")
    [message] = queue.receive(1, 30)
    sandbox.clock.advance(20)
    queue.change_visibility(message.handle, 30)
    sandbox.clock.advance(29)
    assert received(queue) == []
    sandbox.clock.advance(2)
    assert received(queue) == ["a"]


def test_the_visibility_of_a_message_that_came_back_cannot_be_changed(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    sandbox.sqs.send("orders", "a")
    [message] = queue.receive(1, 1)
    sandbox.clock.advance(2)
    with pytest.raises(AwsError, match="not in flight"):
        queue.change_visibility(message.handle, 0)


def test_a_receipt_of_another_queue_or_of_nothing_is_invalid(sandbox: Sandbox) -> None:
    queue, other = sandbox.sqs.create_queue("orders"), sandbox.sqs.create_queue("other")
    sandbox.sqs.send("other", "a")
    for handle in (other.receive(1, 30)[0].handle, "AQEBnonsense", ""):
        with pytest.raises(AwsError) as caught:
            queue.delete(handle)
        assert caught.value.code == "ReceiptHandleIsInvalid"


def test_a_delayed_message_appears_when_its_delay_is_over(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders", DelaySeconds=5)
    sandbox.sqs.send("orders", "a")
    assert (received(queue), queue.delayed_count) == ([], 1)
    sandbox.clock.advance(5)
    assert (received(queue), queue.delayed_count) == (["a"], 0)


def test_a_message_that_was_received_too_often_is_a_dead_letter_at_the_next_receive(sandbox: Sandbox) -> None:
    letters = sandbox.sqs.create_queue("letters")
    queue = sandbox.sqs.create_queue("orders", redrive_to=letters, max_receives=2)
    sent = sandbox.sqs.send("orders", "poison")
    for _ in range(2):
        assert received(queue, visibility=1) == ["poison"]
        assert letters.messages() == []
        sandbox.clock.advance(2)
    assert received(queue) == []
    [letter] = letters.messages()
    assert (letter.id, letter.receives, letter.sent_at, letter.dead_letter_source) == (sent, 2, START, queue.arn)
    assert (queue.messages(), queue.ready_count) == ([], 0)
    assert received(letters) == ["poison"]


def test_a_message_leaves_when_its_retention_is_over(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders", MessageRetentionPeriod=60)
    sandbox.sqs.send("orders", "old")
    sandbox.clock.advance(59)
    sandbox.sqs.send("orders", "young")
    sandbox.clock.advance(1)
    assert received(queue) == ["young"]


def test_counts_follow_messages_through_their_life(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    queue.send_many(map(str, range(25)))
    taken = queue.receive(10, 30)
    for message in taken[:4]:
        queue.delete(message.handle)
    queue.change_visibility(taken[4].handle, 0)
    assert (queue.ready_count, queue.in_flight_count, len(queue.messages())) == (16, 5, 21)
    sandbox.clock.advance(31)
    queue.refresh()
    assert (queue.ready_count, queue.in_flight_count) == (21, 0)


def test_no_more_than_the_limit_is_in_flight(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    queue.in_flight_limit = 12
    queue.send_many(map(str, range(20)))
    assert [len(queue.receive(10, 30)) for _ in range(3)] == [10, 2, 0]


def test_states_are_what_they_seem(sandbox: Sandbox) -> None:
    queue = sandbox.sqs.create_queue("orders")
    message = queue.add(Message(id="m", body="a"))
    assert message.state is State.READY
    queue.receive(1, 30)
    assert message.state is State.IN_FLIGHT
    queue.delete(message.handle)
    assert message.state is State.GONE


# -- long polls


class Poll:
    """A long poll that runs beside the test."""

    def __init__(self, queue: SqsQueue, visibility: int = 30) -> None:
        self.queue, self.visibility = queue, visibility
        self.bodies: list[str] | None = None
        """None while it waits."""

    async def run(self) -> None:
        calls = await self.queue.server.calls()
        reply = await calls.receive_message(
            QueueUrl=self.queue.url, MaxNumberOfMessages=10, WaitTimeSeconds=20, VisibilityTimeout=self.visibility
        )
        self.bodies = [message["Body"] for message in reply.get("Messages", [])]


async def until_polls(server: SqsServer, count: int) -> None:
    """Return once ``count`` receives came in."""
    with anyio.fail_after(10):
        while server.sandbox.calls["sqs:ReceiveMessage"] < count:
            await anyio.lowlevel.checkpoint()
    for _ in range(5):
        await anyio.lowlevel.checkpoint()  # from the door to where they wait


async def until_answered(*polls: Poll) -> None:
    """Return once all of ``polls`` have an answer."""
    with anyio.fail_after(10):
        while any(poll.bodies is None for poll in polls):
            await anyio.lowlevel.checkpoint()


async def test_a_long_poll_ends_empty_when_its_time_is_over(server: SqsServer) -> None:
    poll = Poll(await server.create())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll.run)
        await until_polls(server, 1)
        server.sandbox.clock.advance(19)
        await until_polls(server, 1)
        assert poll.bodies is None
        server.sandbox.clock.advance(2)
        await until_answered(poll)
    assert poll.bodies == []


async def test_one_message_ends_one_of_several_long_polls(server: SqsServer) -> None:
    queue = await server.create()
    polls = [Poll(queue) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for poll in polls:
            tasks.start_soon(poll.run)
        await until_polls(server, 3)
        await queue.send("a")
        with anyio.fail_after(10):
            while not any(poll.bodies for poll in polls):
                await anyio.lowlevel.checkpoint()
        server.sandbox.clock.advance(1)
        assert sorted(poll.bodies is None for poll in polls) == [False, True, True]
        tasks.cancel_scope.cancel()


async def test_many_messages_end_as_many_long_polls_as_they_fill(server: SqsServer) -> None:
    queue = await server.create()
    polls = [Poll(queue) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for poll in polls:
            tasks.start_soon(poll.run)
        await until_polls(server, 3)
        server.sandbox.sqs.queue(queue.name).send_many(map(str, range(25)))
        await until_answered(*polls)
    assert sorted(len(poll.bodies or ()) for poll in polls) == [5, 10, 10]


async def test_a_message_that_another_took_wakes_the_waiting_poll_when_it_comes_back() -> None:
    async with sandbox_sqs() as server:  # on the clock of the wall: one that is moved wakes everybody
        queue = await server.create()
        quick, patient = Poll(queue, visibility=1), Poll(queue, visibility=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(quick.run)
            await until_polls(server, 1)
            tasks.start_soon(patient.run)
            await until_polls(server, 2)
            await queue.send("a")
            await until_answered(quick)
            assert (quick.bodies, patient.bodies) == (["a"], None)
            await until_answered(patient)  # within ten seconds, not at the end of its twenty
        assert patient.bodies == ["a"]


# -- faults


async def test_a_lost_reply_had_its_effect(server: SqsServer) -> None:
    queue = await server.create()
    [_, kept] = await queue.send("deleted", "kept")
    calls = await server.calls()
    messages = (await calls.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=1))["Messages"]
    server.sandbox.faults.add(Fault("sqs:DeleteMessage", LoseReply(), first(1)))
    with pytest.raises(Exception, match="onnect"):
        await calls.delete_message(QueueUrl=queue.url, ReceiptHandle=messages[0]["ReceiptHandle"])
    assert [message.id for message in server.sandbox.sqs.queue(queue.name).messages()] == [kept]


async def test_entries_that_fail_by_script_have_no_effect_and_the_others_have(server: SqsServer) -> None:
    queue = await server.create()
    await queue.send(*"abcd")
    calls = await server.calls()
    messages = (await calls.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10))["Messages"]
    server.sandbox.faults.add(Fault("sqs:DeleteMessageBatch", FailEntries(nth(2, 3))))
    entries = [{"Id": message["Body"], "ReceiptHandle": message["ReceiptHandle"]} for message in messages]
    reply = await calls.delete_message_batch(QueueUrl=queue.url, Entries=entries)
    assert [entry["Id"] for entry in reply["Successful"]] == ["a", "d"]
    assert [(entry["Id"], entry["Code"]) for entry in reply["Failed"]] == [
        ("b", "InternalError"),
        ("c", "InternalError"),
    ]
    assert [message.body for message in server.sandbox.sqs.queue(queue.name).messages()] == ["b", "c"]
