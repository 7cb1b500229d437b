"""A queue whose deletes fail, whose replies get lost, and whose messages come at the worst moment."""

import signal
from collections import Counter
from pathlib import Path

import anyio
import pytest

from esm.sandbox.faults import FailEntries, Fault, LoseReply, every, nth
from esm.sandbox.wire import Exchange, Reply
from tests.support.e2e_target import Arrived
from tests.support.e2e_world import world_in
from tests.support.side_by_side import side_by_side
from tests.support.worker_process import esm_run, until

pytestmark = pytest.mark.anyio
DELETE = "sqs:DeleteMessageBatch"
COUNT = 500


class NeverDeletes:
    """One message cannot be deleted by its first receipt, until that is void; all other entries are deleted."""

    def __init__(self) -> None:
        self.handle = ""
        self.tries = 0

    async def apply(self, exchange: Exchange) -> Reply:
        """Fail the entry of that receipt, the first one that is seen."""
        entries = exchange.json()["Entries"]
        self.handle = self.handle or entries[0]["ReceiptHandle"]
        places = {index + 1 for index, entry in enumerate(entries) if entry["ReceiptHandle"] == self.handle}
        self.tries += bool(places)
        return await FailEntries(nth(*places)).apply(exchange)


async def test_when_one_delete_in_ten_fails_or_a_reply_is_lost_all_is_delivered_once_and_the_queue_ends_empty(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world:
        orders = world.make_queue()
        sent = [f"{number}" for number in range(COUNT)]
        orders.send_many(sent)
        failing = world.sandbox.faults.add(Fault(DELETE, FailEntries(every(10)), lambda number: number % 7 != 0))
        lost = world.sandbox.faults.add(Fault(DELETE, LoseReply(), every(7)))
        world.sandbox.faults.add(Fault("sqs:ReceiveMessage", LoseReply(), nth(3)))  # its messages come back by time
        async with esm_run(tmp_path, world.config(world.queue())) as worker:
            await until(lambda: len(orders.messages()) == 10, "all is deleted but what was received in vain", worker)
            world.sandbox.clock.advance(61)
            await until(lambda: not orders.messages(), "the queue is empty", worker)
            assert await worker.metric("esm_deletes_failed_total", mapping="orders") == 0
            assert await world.stop(worker) == 0
        assert Counter(world.target.ids("orders")) == Counter(sent)
        assert failing.hits > 20
        assert lost.hits > 5


@side_by_side
async def test_only_a_message_whose_delete_is_lost_for_good_is_delivered_again(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        orders = world.make_queue(visibility=5)
        sent = [f"{number}" for number in range(30)]
        orders.send_many(sent)
        never = NeverDeletes()
        world.sandbox.faults.add(Fault(DELETE, never))
        target = {"http": {"url": world.target.url("orders"), "timeout_in_seconds": 2}}
        async with esm_run(tmp_path, world.config(world.queue(target=target))) as worker:
            await until(lambda: len(orders.messages()) == 1, "all but one are deleted", worker)
            await until(lambda: not orders.messages(), "that one is delivered again and deleted", worker)
            await worker.log("sqs_delete_failed", mapping="orders", messages=1)
            assert await worker.metric("esm_deletes_failed_total", mapping="orders") == 1
            assert await world.stop(worker) == 0
        assert never.tries > 1, "it was tried again while its receipt lived"
        deliveries = Counter(world.target.ids("orders"))
        assert sorted(deliveries) == sorted(sent)
        assert sorted(deliveries.values())[-2:] == [1, 2]


async def test_a_message_that_arrives_during_sigterm_is_delivered_and_the_worker_ends_with_0(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        orders = world.make_queue(visibility=600)
        async with esm_run(tmp_path, world.config(world.queue())) as worker:
            await until(lambda: world.sandbox.calls["sqs:ReceiveMessage"] == 1, "a long poll is open", worker)
            worker.signal(signal.SIGTERM)
            await worker.log("worker_stopping")
            orders.send_many(["late"])
            assert await worker.ended() == 0
        assert world.target.ids("orders") == ["late"]
        assert not orders.messages(), "delivered, and deleted before the end"
        assert world.sandbox.calls["sqs:ReceiveMessage"] == 1, "a stop polls no more"


async def test_messages_that_arrive_during_sigterm_while_the_target_is_down_are_visible_again_at_once(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world:
        orders = world.make_queue(visibility=600)

        async def busy(arrived: Arrived) -> object:
            return 503

        world.target.rule = busy
        async with esm_run(tmp_path, world.config(world.queue())) as worker:
            await until(lambda: world.sandbox.calls["sqs:ReceiveMessage"] == 1, "a long poll is open", worker)
            worker.signal(signal.SIGTERM)
            await worker.log("worker_stopping")
            orders.send_many(["a", "b", "c"])
            assert await worker.ended() == 0
        assert (orders.visible_count, orders.in_flight_count) == (3, 0)


async def test_a_second_signal_gives_back_the_messages_that_no_attempt_holds(tmp_path: Path) -> None:
    """The one that the target has keeps its visibility."""
    async with world_in(tmp_path) as world:
        orders = world.make_queue(visibility=600)
        orders.send_many(["a", "b", "c"])
        over = anyio.Event()

        async def hang(arrived: Arrived) -> object:
            await over.wait()
            return None

        world.target.rule = hang
        config = world.config(world.queue(batch_size=1), worker={"concurrency": 1})
        async with esm_run(tmp_path, config) as worker:
            await until(lambda: orders.in_flight_count == 3 and world.target.open == 1, "one is under way", worker)
            worker.signal(signal.SIGTERM)
            await worker.log("worker_stopping")
            worker.signal(signal.SIGTERM)
            assert await worker.ended(within=15) == 1
            await worker.log("worker_stops_now")
        over.set()
        assert (orders.visible_count, orders.in_flight_count) == (2, 1)


async def test_a_report_keeps_the_messages_it_names_and_garbage_in_its_place_fails_the_batch(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        dead = world.sandbox.sqs.create_queue("orders-dead")
        orders = world.sandbox.sqs.create_queue("orders", redrive_to=dead, max_receives=2, VisibilityTimeout=60)
        orders.send_many(["fine", "poison", "garbled"])

        async def rule(arrived: Arrived) -> object:
            [(_, body, name)] = arrived.records
            match body:
                case "poison":
                    return {"batchItemFailures": [{"itemIdentifier": name}]}
                case "garbled":
                    return {"batchItemFailures": [{"itemIdentifier": "nobody"}]}
                case _:
                    return {"batchItemFailures": []}

        world.target.rule = rule
        mapping = world.queue(batch_size=1, function_response_types=["ReportBatchItemFailures"])
        async with esm_run(tmp_path, world.config(mapping)) as worker:
            await until(lambda: len(world.target.arrived["orders"]) == 3, "each was sent once", worker)
            world.sandbox.clock.advance(61)
            await until(lambda: len(world.target.arrived["orders"]) == 5, "two are sent again", worker)
            world.sandbox.clock.advance(61)
            await until(lambda: len(dead.messages()) == 2, "two are dead letters", worker)
            assert await worker.metric("esm_invocations_total", mapping="orders", outcome="failed") >= 2
            assert await world.stop(worker) == 0
        assert sorted(message.body for message in dead.messages()) == ["garbled", "poison"]
        assert not orders.messages()
