"""Queues whose messages are made as they are received."""

import json

import pytest

from esm.sandbox import Sandbox, SandboxClock
from esm.sandbox.sqs import Receive
from esm.sandbox.supply import Supply

pytestmark = pytest.mark.anyio


class Time:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def world() -> tuple[Time, Sandbox]:
    time = Time()
    return time, Sandbox(clock=SandboxClock(time))


def test_messages_arrive_at_their_rate_and_end_at_their_number() -> None:
    time, sandbox = world()
    supply = Supply(sandbox.world, 25, rate=10)
    assert (supply.waiting(time.now), supply.due(time.now)) == (0, time.now + 0.1)
    time.now += 1
    assert (supply.waiting(time.now), supply.due(time.now)) == (10, time.now)
    assert [json.loads(one.body)["n"] for one in supply.take(100, time.now)] == list(range(10))
    time.now += 100
    assert [json.loads(one.body)["n"] for one in supply.take(100, time.now)] == list(range(10, 25))
    assert (supply.waiting(time.now), supply.due(time.now)) == (0, float("inf"))


def test_a_message_has_about_the_size_and_the_age_that_were_asked_for() -> None:
    time, sandbox = world()
    supply = Supply(sandbox.world, 3, size=500, rate=1)
    time.now += 60
    made = supply.take(3, time.now)
    assert all(480 <= one.size() <= 500 for one in made)
    assert [time.now - one.sent_at for one in made] == [59, 58, 57]


def test_what_is_not_deleted_comes_back_and_only_that_is_held() -> None:
    time, sandbox = world()
    queue = sandbox.sqs.create_queue("orders", VisibilityTimeout=30)
    queue.supply = Supply(sandbox.world, 1000)
    for _ in range(50):
        for message in queue.receive(10, 30):
            queue.delete(message.handle)
    assert (queue.visible_count, len(queue.messages())) == (500, 0)
    first = queue.receive(10, 30)
    time.now += 31
    again = queue.receive(10, 30)
    assert [one.id for one in again] == [one.id for one in first]
    assert all(one.receives == 2 for one in again)


async def test_a_long_poll_ends_when_the_next_message_arrives() -> None:
    async with Sandbox.open() as sandbox:
        queue = sandbox.sqs.create_queue("orders")
        queue.supply = Supply(sandbox.world, 1, rate=20)
        answer = await sandbox.sqs.on_receive(Receive(queue.url, wait_time_seconds=20))
        assert isinstance(answer, dict)
        assert len(answer["Messages"]) == 1
