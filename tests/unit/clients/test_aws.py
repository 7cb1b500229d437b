"""Clients of AWS: one for each use, closed in the end, with no retries and no pool of ten."""

import gc
import os

import anyio
import pytest

from esm.clients.aws import AwsClients, AwsSettings
from esm.domain.errors import NotReady
from esm.sandbox import Fault, Hang, Sandbox, ServerError
from tests.support.sandbox_process import REGION, aws_clients

pytestmark = pytest.mark.anyio


def sockets() -> int:
    """Sockets that this process holds open."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.exists(link) and os.readlink(link).startswith("socket:") for link in links)


async def test_the_same_client_serves_all_who_ask_for_the_same() -> None:
    async with aws_clients("http://127.0.0.1:9") as clients:
        first = await clients.client("sqs", REGION)
        assert await clients.client("sqs", REGION) is first
        others = [
            await clients.client("sqs", "us-east-1"),
            await clients.client("sqs", REGION, use="long-poll"),
            await clients.client("sqs", REGION, read_timeout=25),
            await clients.client("sqs", REGION, "http://127.0.0.1:10"),
        ]
        assert len({id(one) for one in [first, *others]}) == 5


async def test_a_client_that_many_ask_for_at_once_is_opened_once() -> None:
    async with aws_clients("http://127.0.0.1:9") as clients:
        found: list[object] = []

        async def ask() -> None:
            found.append(await clients.client("kinesis", REGION))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
        assert len({id(one) for one in found}) == 1


def test_an_endpoint_is_the_mappings_then_the_services_then_the_general_one() -> None:
    clients = AwsClients(AwsSettings("http://all", {"sqs": "http://queues"}))
    assert clients.endpoint("kinesis") == "http://all"
    assert clients.endpoint("sqs") == "http://queues"
    assert clients.endpoint("sqs", "http://mine") == "http://mine"
    assert AwsClients().endpoint("sqs") is None


async def test_an_endpoint_that_is_no_url_is_not_ready_with_what_to_check() -> None:
    async with aws_clients("nonsense") as clients:
        with pytest.raises(NotReady, match="check endpoint_url"):
            await clients.client("sqs", REGION)


async def test_a_closed_set_of_clients_hands_out_none() -> None:
    async with aws_clients("http://127.0.0.1:9") as clients:
        await clients.client("sqs", REGION)
    with pytest.raises(RuntimeError, match="not open"):
        await clients.client("sqs", REGION)


async def test_a_failed_call_is_sent_once_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    async with Sandbox.open() as sandbox, aws_clients(sandbox.url) as clients:
        sandbox.faults.add(Fault("*", ServerError()))
        sqs = await clients.client("sqs", REGION)
        kinesis = await clients.client("kinesis", REGION)
        dynamodb = await clients.client("dynamodb", REGION)
        for fail in (sqs.list_queues, kinesis.list_streams, dynamodb.list_tables):
            with pytest.raises(sqs.exceptions.ClientError):
                await fail()
        assert sorted(sandbox.calls.counts.values()) == [1, 1, 1]


async def test_forty_long_polls_hold_up_no_other_call() -> None:
    async with Sandbox.open() as sandbox, aws_clients(sandbox.url) as clients:
        url = sandbox.sqs.create_queue("orders").url
        sqs = await clients.client("sqs", REGION, read_timeout=30)
        async with anyio.create_task_group() as tasks:

            async def poll() -> None:
                await sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)

            for _ in range(40):
                tasks.start_soon(poll)
            with anyio.fail_after(15):
                while sandbox.calls["sqs:ReceiveMessage"] < 40:
                    await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            tasks.cancel_scope.cancel()


async def test_closing_leaves_no_socket_behind_though_a_call_was_under_way() -> None:
    async with Sandbox.open() as sandbox:
        sandbox.faults.add(Fault("sqs:*", Hang()))
        before = sockets()
        async with aws_clients(sandbox.url) as clients:
            sqs = await clients.client("sqs", REGION)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sqs.list_queues)
                with anyio.fail_after(15):
                    while not sandbox.calls["sqs:ListQueues"]:
                        await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert sockets() > before
        gc.collect()
        with anyio.fail_after(15):
            while sockets() > before:
                await anyio.lowlevel.checkpoint()


async def test_our_name_is_the_user_agent() -> None:
    async with aws_clients("http://127.0.0.1:9") as clients:
        client = await clients.client("sqs", REGION)
        assert client.meta.config.user_agent.startswith("esm ")
