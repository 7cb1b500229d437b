"""Streams through ``esm run`` when iterators expire, handlers block and records kill their target."""

import time
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


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb", "kafka"])
async def test_a_batch_is_halved_down_to_its_poison_which_is_retried_once_and_stored(tmp_path: Path, kind: str) -> None:
    sent = [f"{number:03d}" for number in range(40, 48)]
    options = {"batch_size": 8, "bisect_batch_on_function_error": True, "maximum_retry_attempts": 1, **ON_FAILURE}
    with MockCluster() as cluster:
        async with world_in(tmp_path) as world:
            match kind:
                case "kinesis":
                    stream = world.sandbox.kinesis.create_stream("lane", 1)
                    stream.put_many(("key", each.encode()) for each in sent)
                    mapping, info = world.stream("lane", **options), "KinesisBatchInfo"
                case "dynamodb":
                    table = world.make_table("lane")
                    for each in sent:
                        table.put({"pk": {"S": each}})
                    mapping, info = world.table("lane", **options), "DDBStreamBatchInfo"
                case _:
                    cluster.create_topic("lane")
                    async with cluster.producer() as producer:
                        for each in sent:
                            _ = await producer.send("lane", each.encode())
                        await producer.flush()
                    mapping, info = world.topic(cluster.bootstrap_servers, "lane", **options), "KafkaBatchInfo"
            attempts = await poisoned(world, world.config(mapping), sent, "lane")
            assert attempts[-8:] == [
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
            assert failure[info]["batchSize"] == 1


async def test_a_report_of_a_stream_has_the_lowest_named_record_and_all_after_it_sent_again(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        stream.put_many(("key", each.encode()) for each in "abcdef")

        async def reports(arrived: Arrived) -> object:
            names = {name: position for _, name, position in arrived.records}
            named = (
                [names[each] for each in ("e", "d") if each in names]
                if len(world.target.arrived["clicks"]) == 1
                else []
            )
            return {"batchItemFailures": [{"itemIdentifier": each} for each in named]}

        world.target.rule = reports
        mapping = world.stream(function_response_types=["ReportBatchItemFailures"])
        async with esm_run(tmp_path, world.config(mapping)) as worker:
            await until(lambda: len(world.target.arrived["clicks"]) == 2, "a second attempt", worker)
            await until(lambda: not world.target.open, "it is answered", worker)
            assert await world.stop(worker) == 0
        last = int(str(world.target.arrived["clicks"][-1].records[-1][2]))
        assert [through for _, _, through in world.leases().values()] == [last]
        assert [arrived.ids for arrived in world.target.arrived["clicks"]] == [list("abcdef"), list("def")]
