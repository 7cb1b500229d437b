"""Streams through ``esm run`` when iterators expire, handlers block and records kill their target."""

import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from esm.engine.lease_keeper import FAILOVER_SECONDS
from esm.sandbox.kafka import MockCluster
from tests.support.e2e_target import Arrived, Drop
from tests.support.e2e_world import FAILED, Settings, World, world_in
from tests.support.side_by_side import side_by_side
from tests.support.worker_process import esm_run, until

pytestmark = pytest.mark.anyio
ON_FAILURE: Settings = {
    "destination_config": {"on_failure": {"destination": f"arn:aws:sqs:eu-west-1:123456789012:{FAILED}"}}
}
BLOCKED_SECONDS = FAILOVER_SECONDS + 3
HANDLER = f"""\
import time, pathlib

def handle(event, context):
    pathlib.Path("began").touch()
    time.sleep({BLOCKED_SECONDS})
    pathlib.Path("ended").touch()
"""


async def test_an_iterator_that_expires_behind_a_blocked_batch_costs_no_record_and_repeats_none(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        sent = [f"{number:05d}" for number in range(3000)]
        stream.put_many(("key", each.encode()) for each in sent)
        hold = anyio.Event()

        async def held(arrived: Arrived) -> object:
            await hold.wait()
            return None

        world.target.rule = held
        async with esm_run(tmp_path, world.config(world.stream(batch_size=500))) as worker:
            await until(lambda: world.target.open == 1, "a batch is under way", worker)
            reads = world.sandbox.calls["kinesis:GetRecords"]
            world.sandbox.clock.advance(301)
            hold.set()
            await until(lambda: len(world.target.ids("clicks")) == 3000, "all are delivered", worker)
            assert world.sandbox.calls.outcomes["kinesis:GetRecords", "ExpiredIteratorException"] == 1
            assert world.sandbox.calls["kinesis:GetRecords"] > reads
            assert await world.stop(worker) == 0
        assert world.target.ids("clicks") == sent, "each once, in order"


@side_by_side
async def test_leases_are_renewed_and_the_admin_server_answers_while_a_python_handler_blocks(tmp_path: Path) -> None:
    """The handler blocks for longer than a lease lives without being renewed."""
    (tmp_path / "app.py").write_text(HANDLER)
    began, ended = tmp_path / "began", tmp_path / "ended"
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        world.make_queue()
        python = {"python": {"handler": "app:handle"}}
        async with esm_run(tmp_path, world.config(world.stream(target=python), world.queue())) as worker:
            stream.put("a", b"a")
            await until(began.exists, "the handler runs", worker)
            [(first, owner, _)] = world.leases().values()
            slowest, looks = 0.0, 0
            while not ended.exists():
                asked = time.monotonic()
                assert (await worker.admin("/healthz"))[0] == 200
                slowest, looks = max(slowest, time.monotonic() - asked), looks + 1
                world.sandbox.sqs.send("orders", f"{looks}")
                await until(lambda looks=looks: len(world.target.ids("orders")) == looks, "the queue goes on", worker)
                await anyio.sleep(0.2)
            [(counter, owner_now, _)] = world.leases().values()
            assert owner_now == owner
            assert counter - first >= 3, "renewed every few seconds"
            assert looks > 10
            assert slowest < 5
            assert not worker.said("lease_lost")
            await until(lambda: next(iter(world.leases().values()))[2] is not None, "the checkpoint is written", worker)
            assert await world.stop(worker) == 0


async def test_a_record_for_which_the_target_drops_the_connection_ends_as_poison_and_the_others_arrive(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        sent = [f"{number:03d}" for number in range(100)]
        stream.put_many(("key", each.encode()) for each in sent)

        async def drops(arrived: Arrived) -> object:
            if "042" in arrived.ids:
                raise Drop
            return None

        world.target.rule = drops
        mapping = world.stream(
            batch_size=20, bisect_batch_on_function_error=True, maximum_retry_attempts=1, **ON_FAILURE
        )
        async with esm_run(tmp_path, world.config(mapping)) as worker:
            await until(lambda: len(world.target.ids("clicks")) == 99, "the others are delivered", worker)
            await until(world.failures, "the poison is stored", worker)
            assert await world.stop(worker) == 0
        [failure] = world.failures()
        assert failure["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert failure["KinesisBatchInfo"]["batchSize"] == 1
        assert world.target.ids("clicks") == [each for each in sent if each != "042"], "in order, each once"


async def poisoned(world: World, worker_config: Settings, sent: list[str], name: str) -> list[list[str]]:
    """Run until all but "042" of ``sent`` are delivered; answers what was sent to the target, attempt by attempt."""

    async def fails(arrived: Arrived) -> object:
        return 500 if "042" in arrived.ids else None

    world.target.rule = fails
    async with esm_run(world.folder, worker_config) as worker:
        await until(lambda: len(set(world.target.ids(name))) == len(sent) - 1, "the others are delivered", worker)
        await until(world.failures, "the poison is stored", worker)
        assert await worker.metric("esm_records_settled_total", mapping=name, outcome="discarded") == 1
        assert await worker.metric("esm_failure_destination_total", mapping=name, outcome="stored") == 1
        assert await world.stop(worker) == 0
    assert sorted(world.target.ids(name)) == [each for each in sent if each != "042"], "each once"
    return [arrived.ids for arrived in world.target.arrived[name]]


KINDS = {"kinesis": "KinesisBatchInfo", "dynamodb": "DDBStreamBatchInfo", "kafka": "KafkaBatchInfo"}


async def filled(world: World, cluster: MockCluster, kind: str, sent: Sequence[str], **options: object) -> Settings:
    """A source called "lane" that holds ``sent`` in one lane; a mapping of it with ``options``."""
    match kind:
        case "kinesis":
            stream = world.sandbox.kinesis.create_stream("lane", 1)
            stream.put_many(("key", each.encode()) for each in sent)
            return world.stream("lane", **options)
        case "dynamodb":
            table = world.make_table("lane")
            for each in sent:
                table.put({"pk": {"S": each}})
            return world.table("lane", **options)
        case _:
            cluster.create_topic("lane")
            async with cluster.producer() as producer:
                for each in sent:
                    _ = await producer.send("lane", each.encode())
                await producer.flush()
            return world.topic(cluster.bootstrap_servers, "lane", **options)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_is_halved_down_to_its_poison_which_is_retried_once_and_stored(tmp_path: Path, kind: str) -> None:
    sent = [f"{number:03d}" for number in range(40, 48)]
    options = {"batch_size": 8, "bisect_batch_on_function_error": True, "maximum_retry_attempts": 1, **ON_FAILURE}
    with MockCluster() as cluster:
        async with world_in(tmp_path) as world:
            mapping = await filled(world, cluster, kind, sent, **options)
            attempts = await poisoned(world, world.config(mapping), sent, "lane")
            assert attempts == [
                sent,
                ["040", "041", "042", "043"],
                ["040", "041"],
                ["042", "043"],
                ["042"],
                ["042"],
                ["043"],
                ["044", "045", "046", "047"],
            ]
            [failure] = world.failures()
            assert failure["requestContext"]["condition"] == "RetryAttemptsExhausted"
            assert failure[KINDS[kind]]["batchSize"] == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_report_has_records_sent_again_from_the_lowest_of_a_stream_the_named_ones_of_kafka(
    tmp_path: Path, kind: str
) -> None:
    with MockCluster() as cluster:
        async with world_in(tmp_path) as world:
            mapping = await filled(world, cluster, kind, "abcdef", function_response_types=["ReportBatchItemFailures"])
            target = world.target

            async def reports(arrived: Arrived) -> object:
                names = {name: position for _, name, position in arrived.records}
                named = ("e", "c") if len(target.arrived["lane"]) == 1 else ()
                return {"batchItemFailures": [{"itemIdentifier": names[each]} for each in named]}

            target.rule = reports
            async with esm_run(tmp_path, world.config(mapping)) as worker:
                with anyio.fail_after(30):
                    while await worker.metric("esm_records_settled_total", outcome="delivered") < 6:  # noqa: ASYNC110 - in another process
                        await anyio.sleep(0.02)
                assert await worker.metric("esm_invocations_total", outcome="partial") == 1
                assert await world.stop(worker) == 0
            first, second = [arrived.ids for arrived in target.arrived["lane"]]
            assert (first, second) == (list("abcdef"), ["c", "e"] if kind == "kafka" else list("cdef"))


async def test_a_record_that_is_too_old_is_stored_without_being_sent_and_the_others_arrive(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        [shard] = stream.open_shards()
        shard.put("key", b"old", world.sandbox.clock.now() - 120)
        stream.put("key", b"new")
        mapping = world.stream(maximum_record_age_in_seconds=60, **ON_FAILURE)
        async with esm_run(tmp_path, world.config(mapping)) as worker:
            await until(lambda: world.target.ids("clicks") == ["new"], "the other one arrives", worker)
            await until(world.failures, "the old one is stored", worker)
            assert await world.stop(worker) == 0
        [failure] = world.failures()
        assert failure["requestContext"]["condition"] == "RecordAgeExceeded"
        assert failure["KinesisBatchInfo"]["batchSize"] == 1
        assert world.target.first_arrivals("clicks") == {shard.id: ["new"]}


@side_by_side
async def test_a_destination_that_is_missing_keeps_the_record_until_it_is_there(folder: Path) -> None:
    """The lane waits with it, and says so."""
    async with world_in(folder) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        stream.put_many(("key", each.encode()) for each in ("poison", "fine"))

        async def fails(arrived: Arrived) -> object:
            return 500 if "poison" in arrived.ids else None

        world.target.rule = fails
        later = "arn:aws:sqs:eu-west-1:123456789012:later"
        mapping = world.stream(
            batch_size=1, maximum_retry_attempts=0, destination_config={"on_failure": {"destination": later}}
        )
        async with esm_run(folder, world.config(mapping)) as worker:
            said = await worker.log("failure_record_not_stored", mapping="clicks")
            assert "later" in said["error"]
            assert world.target.ids("clicks") == [], "what comes behind it waits"
            world.sandbox.sqs.create_queue("later")
            await until(lambda: world.target.ids("clicks") == ["fine"], "it goes on", worker)
            assert len(world.sandbox.sqs.queue("later").messages()) == 1
            assert await world.stop(worker) == 0
