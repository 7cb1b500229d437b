"""A world that is not as a mapping needs it: the sentence in /readyz and in the log, the others unharmed, recovery."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from esm.sandbox.kafka import MockCluster
from tests.support.e2e_target import Arrived, recording_target
from tests.support.e2e_world import World, world_in
from tests.support.worker_process import WorkerProcess, esm_run, until

pytestmark = pytest.mark.anyio
KEY = "AKIDEXAMPLE"
"""The access key id of every worker here."""


@contextmanager
def free_port() -> Iterator[int]:
    """A port at which nobody listens, and which the system gives to nobody else meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def works(world: World, worker: WorkerProcess, body: str) -> None:
    """The queue of the mapping that has no trouble is served."""
    world.sandbox.sqs.send("orders", body)
    await until(lambda: body in world.target.ids("orders"), f"{body} is delivered", worker)


async def test_what_is_missing_is_said_per_mapping_the_others_work_and_what_is_made_later_is_found(
    tmp_path: Path,
) -> None:
    with MockCluster() as cluster:
        async with world_in(tmp_path) as world:
            world.make_queue()
            world.make_queue("in").send_many(["a"])
            world.make_queue("in2").send_many(["a"])
            missing = {
                "queue": ("SQS queue queue", "does not exist"),
                "stream": ("Kinesis stream stream", "does not exist"),
                "table": ("DynamoDB", "does not exist"),
                "topic": ("Kafka topic topic", "the topic does not exist"),
                "in": ("missing-function", "does not exist"),
                "in2": ("app:handle", "app"),
            }
            config = world.config(
                world.queue(),
                world.queue("queue"),
                world.stream("stream"),
                world.table("table"),
                world.topic(cluster.bootstrap_servers, "topic"),
                world.queue("in", function_name="missing-function"),
                world.queue("in2", target={"python": {"handler": "app:handle", "timeout_in_seconds": 20}}),
            )
            async with esm_run(tmp_path, config) as worker:
                for name, (what, why) in missing.items():
                    told = await worker.why(name, why)
                    assert what in told, told
                    assert await worker.log("mapping_not_ready", mapping=name, why=told)
                status, told_all = await worker.readyz()
                assert status == 503
                assert told_all["orders"] is None
                assert (await worker.admin("/healthz"))[0] == 200, "alive, whatever it cannot reach"
                await works(world, worker, "meanwhile")

                world.make_queue("queue").send_many(["a"])
                world.sandbox.kinesis.create_stream("stream", 1).put("a", b"a")
                world.make_table("table").put({"pk": {"S": "a"}})
                cluster.create_topic("topic")
                world.sandbox.functions.add_function("missing-function", _answer, timeout=3)
                (tmp_path / "app.py").write_text("def handle(event, context):\n    return None\n")
                await worker.ready()
                for name in ("queue", "stream", "table"):
                    await until(lambda name=name: world.target.ids(name) == ["a"], f"{name} is delivered", worker)
                for name in ("in", "in2"):
                    queue = world.sandbox.sqs.queue(name)
                    await until(lambda queue=queue: not queue.messages(), f"{name} is delivered", worker)
                for name in missing:
                    await worker.log("mapping_ready", mapping=name)
                assert await world.stop(worker) == 0


async def _answer(_event: object, _context: object) -> object:
    return None


async def test_wrong_credentials_are_said_and_right_ones_are_taken(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue().send_many(["a"])
        world.sandbox.kinesis.create_stream("clicks", 1).put("a", b"a")
        world.sandbox.access_keys = frozenset({"AKIDOTHER"})
        async with esm_run(tmp_path, world.config(world.queue(), world.stream())) as worker:
            for name in ("orders", "clicks"):
                told = await worker.why(name, "credentials")
                await worker.log("mapping_not_ready", mapping=name, why=told)
            assert not any(word == "any" for log in worker.logs for word in str(log).split()), "no secret is logged"
            world.sandbox.access_keys = frozenset({KEY})
            await worker.ready()
            await until(lambda: world.target.ids("orders") == world.target.ids("clicks") == ["a"], "they work", worker)

            world.sandbox.access_keys = frozenset({"AKIDOTHER"})  # rotated away in mid-run
            world.sandbox.clock.advance(25)
            for name in ("orders", "clicks"):
                await worker.why(name, "credentials")
            world.sandbox.access_keys = frozenset({KEY})
            world.sandbox.sqs.send("orders", "b")
            world.sandbox.kinesis.stream("clicks").put("b", b"b")
            await until(
                lambda: world.target.ids("orders") == world.target.ids("clicks") == ["a", "b"], "they go on", worker
            )
            await worker.ready()
            assert await world.stop(worker) == 0


async def test_no_credentials_at_all_are_said_with_what_to_do(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue()
        environ = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        async with esm_run(tmp_path, world.config(world.queue()), **environ) as worker:
            told = await worker.why("orders", "no AWS credentials were found")
            assert "AWS_ACCESS_KEY_ID" in told
            assert await world.stop(worker) == 0


async def test_an_unreachable_kafka_is_said_and_met_again_when_it_is_up(tmp_path: Path) -> None:
    with MockCluster() as cluster:
        cluster.create_topic("payments")
        cluster.set_down()
        async with world_in(tmp_path) as world:
            world.make_queue()
            mapping = world.topic(cluster.bootstrap_servers)
            async with esm_run(tmp_path, world.config(mapping, world.queue())) as worker:
                told = await worker.why("payments", f"Kafka topic payments at {cluster.bootstrap_servers}")
                await worker.log("mapping_not_ready", mapping="payments", why=told)
                await works(world, worker, "meanwhile")
                cluster.set_up()
                async with cluster.producer() as producer:
                    _ = await producer.send_and_wait("payments", b"a")
                    await until(lambda: world.target.ids("payments") == ["a"], "it is met again", worker)
                    await worker.ready()
                    cluster.set_down()  # and in mid-run
                    await works(world, worker, "again")
                    cluster.set_up()
                    _ = await producer.send_and_wait("payments", b"b")
                    await until(lambda: "b" in world.target.ids("payments"), "it goes on", worker)
                assert await world.stop(worker) == 0


async def test_a_target_that_is_down_costs_no_retry_and_gets_everything_once_it_is_up(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue()
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        for each in "abc":
            stream.put("key", each.encode())
        with free_port() as port:
            target = {"http": {"url": f"http://127.0.0.1:{port}/clicks", "timeout_in_seconds": 5}}
            mapping = world.stream(target=target, maximum_retry_attempts=0)
            async with esm_run(tmp_path, world.config(mapping, world.queue())) as worker:
                said = await worker.log("attempt_failed", mapping="clicks", outcome="refused")
                assert f"http://127.0.0.1:{port} cannot be reached" in said["error"]
                await works(world, worker, "meanwhile")
                async with recording_target(port) as late:
                    await until(lambda: late.ids("clicks") == ["a", "b", "c"], "all arrive, in order", worker)
                    assert await world.stop(worker) == 0
                assert not worker.said("records_discarded")


async def test_a_target_that_breaks_the_rules_of_a_report_harms_no_other_mapping(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue()
        world.sandbox.kinesis.create_stream("clicks", 1).put("a", b"a")
        answers: list[object] = [
            {"batchItemFailures": "all"},
            {"batchItemFailures": [{"itemIdentifier": 7}]},
            {"batchItemFailures": [{}]},
            [],
            "garbage",
        ]

        async def garbage(arrived: Arrived) -> object:
            return answers.pop(0) if answers and arrived.mapping == "clicks" else None

        world.target.rule = garbage
        mapping = world.stream(function_response_types=["ReportBatchItemFailures"])
        async with esm_run(tmp_path, world.config(mapping, world.queue())) as worker:
            await works(world, worker, "meanwhile")
            await until(lambda: len(world.target.arrived["clicks"]) >= 4, "it is tried again", worker)
            await works(world, worker, "still")
            assert await world.stop(worker) == 0
        assert not worker.said("mapping_failed")
