"""How ``esm run`` starts, stops and refuses: signals, exit codes, what a terminal is told, nothing left behind."""

import json
import os
import pty
import re
import signal
import socket
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from esm.sandbox.faults import Fault, Hang
from tests.support.e2e_target import Arrived
from tests.support.e2e_world import world_in
from tests.support.side_by_side import side_by_side
from tests.support.worker_process import command, esm_run, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_batch_end_and_gives_leases_back(tmp_path: Path, number: signal.Signals) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        hold = anyio.Event()

        async def held(arrived: Arrived) -> object:
            await hold.wait()
            return None

        world.target.rule = held
        stream.put("a", b"a")
        config = world.config(world.stream(batch_size=1))
        async with esm_run(tmp_path, config) as worker:
            await until(lambda: world.target.open == 1, "a batch is under way", worker)
            stream.put("b", b"b")
            worker.signal(number)
            await worker.log("worker_stopping", signal=number.name)
            status, _ = await worker.readyz()
            assert status == 503, "draining"
            hold.set()
            assert await worker.ended() == 0
            await worker.log("worker_stopped", clean=True)
            [(_, owner, through)] = world.leases().values()
            assert owner is None, "the lease is given back"
            assert through == int(str(world.target.accepted["clicks"][0].records[0][2])), "with its checkpoint"
        assert world.target.ids("clicks") == ["a"], "nothing new is begun during a stop"
        assert not [file for file in world.lease_file.parent.iterdir() if file.suffix == ".lock"]
        async with esm_run(tmp_path, config) as worker:
            await until(lambda: world.target.ids("clicks") == ["a", "b"], "the next worker goes on at once", worker)
            assert not worker.children()
            assert await world.stop(worker) == 0


async def test_a_second_signal_stops_at_once_with_exit_code_1_and_its_leases_are_free(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        over = anyio.Event()

        async def hang(arrived: Arrived) -> object:
            await over.wait()
            return None

        world.target.rule = hang
        stream.put("a", b"a")
        config = world.config(world.stream())
        async with esm_run(tmp_path, config) as worker:
            await until(lambda: world.target.open == 1, "a batch is under way", worker)
            worker.signal(signal.SIGTERM)
            await worker.log("worker_stopping")
            assert worker.running
            worker.signal(signal.SIGINT)
            await worker.log("worker_stops_now", signal="SIGINT")
            assert await worker.ended(within=15) == 1
        over.set()
        [(_, owner, _)] = world.leases().values()
        assert owner is None
        async with esm_run(tmp_path, config) as worker:
            await until(lambda: len(world.target.arrived["clicks"]) == 2, "it is sent again by the next", worker)
            assert await world.stop(worker) == 0


@side_by_side
async def test_a_stop_takes_no_longer_than_its_grace_period(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue(visibility=600).send_many(["a"])
        over = anyio.Event()

        async def hang(arrived: Arrived) -> object:
            await over.wait()
            return None

        world.target.rule = hang
        config = world.config(world.queue(), worker={"grace_period_in_seconds": 2})
        async with esm_run(tmp_path, config) as worker:
            await until(lambda: world.target.open == 1, "a message is under way", worker)
            began = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert (await worker.log("worker_stopping"))["grace_seconds"] == 2
            code = await worker.ended()
            assert time.monotonic() - began < 15, "the attempt alone may take 30 s"
            assert code == 1
            await worker.log("worker_stopped", clean=False)
        over.set()
        assert world.sandbox.sqs.queue("orders").in_flight_count == 1, "the target may still be at it"


STUCK = """\
import pathlib, time

def handle(event, context):
    pathlib.Path("began").touch()
    while True:
        time.sleep(1)
"""


@pytest.mark.parametrize("heard", [True, False])
async def test_a_python_handler_that_never_returns_keeps_no_process_beyond_the_grace_period(
    tmp_path: Path, heard: bool
) -> None:
    """Whether anybody reads what the worker logs, or not."""
    (tmp_path / "app.py").write_text(STUCK)
    async with world_in(tmp_path) as world:
        world.sandbox.kinesis.create_stream("clicks", 1).put("a", b"a")
        python = {"python": {"handler": "app:handle"}}
        config = world.config(world.stream(target=python), worker={"grace_period_in_seconds": 1})
        async with esm_run(tmp_path, config) as worker:
            await until((tmp_path / "began").exists, "the handler runs", worker)
            if not heard:
                await worker.stop_listening()
            worker.signal(signal.SIGTERM)
            assert await worker.ended(within=20) == 1
        [(_, owner, through)] = world.leases().values()
        assert (owner, through) == (None, None), "its lease is given back without a checkpoint"


async def test_a_stop_while_no_source_answers_takes_no_time_and_is_clean(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        for operation in ("sqs:GetQueueUrl", "kinesis:DescribeStreamSummary", "streams:DescribeStream", "lambda:*"):
            world.sandbox.faults.add(Fault(operation, Hang()))
        world.make_queue()
        world.make_queue("other")
        with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections and says nothing
            config = world.config(
                world.queue(),
                world.stream(),
                world.table(),
                world.queue("other", function_name="f"),
                world.topic(f"127.0.0.1:{silent.getsockname()[1]}"),
            )
            async with esm_run(tmp_path, config) as worker:
                await until(lambda: len(world.sandbox.calls.counts) >= 3, "it asks them all", worker)
                began = time.monotonic()
                worker.signal(signal.SIGTERM)
                assert await worker.ended(within=30) == 0
                assert time.monotonic() - began < 15
                assert worker.said("worker_stopped", clean=True)


async def test_a_terminal_is_told_what_a_stop_waits_for(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue()
        world.make_queue("returns")
        file = tmp_path / "esm.yaml"
        file.write_text(json.dumps({"admin": {"port": 0}, **world.config(world.queue(), world.queue("returns"))}))
        leader, follower = pty.openpty()
        shown = bytearray()
        try:
            async with command(tmp_path, ["-m", "esm", "run", "-c", str(file)], errors=follower) as worker:
                os.close(follower)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_read, leader, shown)
                    await until(lambda: world.sandbox.calls["sqs:ReceiveMessage"] == 2, "both polls are open", worker)
                    worker.signal(signal.SIGINT)
                    await until(lambda: b"stops now" in shown, "it says what it waits for", shown)
                    worker.signal(signal.SIGINT)
                    assert await worker.ended(within=20) == 1
        finally:
            os.close(leader)
    text = shown.decode()
    assert re.search(r"waiting for 2 open polls, (19|20|1\d) s at most; Ctrl-C again stops now", text), text
    assert "worker_started" in text
    assert '{"' not in text, "a terminal is for people"


async def _read(leader: int, shown: bytearray) -> None:
    while True:
        try:
            shown += await anyio.to_thread.run_sync(os.read, leader, 65_536)
        except OSError:  # how Linux says that nobody has the terminal any more
            return


async def test_an_admin_port_in_use_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        world.make_queue()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with esm_run(tmp_path, world.config(world.queue(), admin={"port": port})) as worker:
                assert await worker.ended() == 1
                await until(lambda: worker.silent, "all is said")
        [line] = worker.lines
        assert f"127.0.0.1:{port}" in line
        assert "admin.port" in line
        assert world.sandbox.calls["sqs:ReceiveMessage"] == 0


@pytest.mark.parametrize(
    "text,said",
    [
        ("mappings:\n- {name: m, batch_size: 0, event_source_arn: nonsense, function_name: f}\n", "batch_size"),
        ("", "mappings"),
        ("worker: [", "esm.yaml"),
    ],
)
async def test_a_configuration_that_cannot_be_used_is_exit_code_2_and_nothing_is_started(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "esm.yaml"
    file.write_text(text)
    async with command(tmp_path, ["-m", "esm", "run", "-c", str(file)]) as worker:
        assert await worker.ended() == 2
        await until(lambda: worker.silent, "all is said")
    assert not worker.logs
    assert "nothing was started" in worker.lines[-1]
    assert any(said in line for line in worker.lines), worker.lines
    assert not any("Traceback" in line for line in worker.lines)


async def test_mappings_that_are_disabled_or_whose_target_is_turned_off_are_not_polled(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        for name in ("orders", "off", "reserved"):
            world.make_queue(name).send_many(["a"])
        targets = {
            "closed": {
                "http": {"url": world.target.url("reserved"), "timeout_in_seconds": 20},
                "reserved_concurrency": 0,
            }
        }
        config = world.config(
            world.queue(), world.queue("off", enabled=False), world.queue("reserved", target="closed"), targets=targets
        )
        async with esm_run(tmp_path, config) as worker:
            await worker.log("mapping_disabled", mapping="off")
            await worker.why("reserved", "turned off: its reserved_concurrency is 0")
            await until(lambda: world.target.ids("orders") == ["a"], "the third works", worker)
            status, told = await worker.readyz()
            assert (status, set(told)) == (503, {"orders", "reserved"})
            assert await world.stop(worker) == 0
        for name in ("off", "reserved"):
            assert world.sandbox.sqs.queue(name).visible_count == 1
            assert not world.target.arrived[name]


async def test_of_two_workers_with_one_lease_file_the_second_waits_and_takes_over_when_the_first_stops(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        config = world.config(world.stream())
        async with esm_run(tmp_path, config) as one:
            stream.put("a", b"a")
            await until(lambda: world.target.ids("clicks") == ["a"], "the first works", one)
            async with esm_run(tmp_path, config) as two:
                await two.ready()
                stream.put("b", b"b")
                await until(lambda: world.target.ids("clicks") == ["a", "b"], "the first goes on", one)
                assert await two.metric("esm_lanes_owned", mapping="clicks") == 0
                assert await world.stop(one) == 0
                stream.put("c", b"c")
                await until(lambda: world.target.ids("clicks") == ["a", "b", "c"], "the second takes over", two)
                assert await world.stop(two) == 0


@side_by_side
async def test_a_worker_that_was_frozen_until_its_leases_were_taken_sends_and_writes_nothing_more(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world:
        stream = world.sandbox.kinesis.create_stream("clicks", 1)
        config = world.config(world.stream())
        async with esm_run(tmp_path, config) as one:
            stream.put("a", b"a")
            await until(lambda: world.target.ids("clicks") == ["a"], "the first works", one)
            await until(lambda: next(iter(world.leases().values()))[2] is not None, "its checkpoint is written", one)
            one.signal(signal.SIGSTOP)
            async with esm_run(tmp_path, config) as two:
                stream.put("b", b"b")
                await until(lambda: world.target.ids("clicks") == ["a", "b"], "the second takes over", two)
                one.signal(signal.SIGCONT)
                await one.log("lease_lost", mapping="clicks")
                stream.put("c", b"c")
                await until(lambda: world.target.ids("clicks") == ["a", "b", "c"], "the second goes on", two)
                assert await one.metric("esm_lanes_owned", mapping="clicks") == 0
                assert await two.metric("esm_lanes_owned", mapping="clicks") == 1
                assert await world.stop(one) == 0
                assert await world.stop(two) == 0
