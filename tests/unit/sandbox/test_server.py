"""One server for all services: what it answers, how it starts and how it ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import anyio
import pytest
from aiobotocore.session import AioSession

from esm.sandbox import Drop, Fault, Hang, Sandbox
from tests.support.sandbox_process import REGION, aws_clients

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox.open() as made:
        yield made


async def raw(sandbox: Sandbox, target: str, body: bytes = b"{}", method: str = "POST") -> tuple[int, bytes]:
    headers = {"X-Amz-Target": target} if target else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{sandbox.url}/", data=body, headers=headers) as response,
    ):
        return response.status, await response.read()


async def test_it_starts_in_a_fraction_of_a_second_of_cpu() -> None:
    begun = time.process_time()
    for _ in range(20):
        async with Sandbox.open() as made:
            assert made.url.startswith("http://127.0.0.1:")
    assert (time.process_time() - begun) / 20 < 0.2


async def test_every_service_answers_a_real_client(sandbox: Sandbox) -> None:
    sandbox.sqs.create_queue("served")
    sandbox.kinesis.create_stream("served")
    sandbox.dynamodb.create_table("served", stream="KEYS_ONLY")
    sandbox.functions.add_function("served", lambda event, _context: event)
    arn = sandbox.secrets.put("served", "hidden")
    async with aws_clients(sandbox.url) as clients:
        sqs = await clients.client("sqs", REGION)
        assert "served" in (await sqs.get_queue_url(QueueName="served"))["QueueUrl"]
        kinesis = await clients.client("kinesis", REGION)
        assert len((await kinesis.list_shards(StreamName="served"))["Shards"]) == 1
        tables = await clients.client("dynamodb", REGION)
        await tables.put_item(TableName="served", Item={"pk": {"S": "a"}})
        found = await tables.get_item(TableName="served", Key={"pk": {"S": "a"}})
        assert found["Item"] == {"pk": {"S": "a"}}
        streams = await clients.client("dynamodbstreams", REGION)
        assert len((await streams.list_streams(TableName="served"))["Streams"]) == 1
        functions = await clients.client("lambda", REGION)
        answer = await functions.invoke(FunctionName="served", Payload=b"[1]")
        assert await answer["Payload"].read() == b"[1]"
        secrets = await clients.client("secretsmanager", REGION)
        for name in (arn, "served"):
            assert (await secrets.get_secret_value(SecretId=name))["SecretString"] == "hidden"
        with pytest.raises(secrets.exceptions.ResourceNotFoundException):
            await secrets.get_secret_value(SecretId="missing")


async def test_sns_publishes_to_queues_and_sts_tells_who_calls(sandbox: Sandbox) -> None:
    topic = sandbox.sns.create_topic("news")
    queue = sandbox.sqs.create_queue("news")
    topic.queues = {"news": True}
    session = AioSession()
    session.set_credentials("a", "b")
    async with (
        session.create_client("sns", REGION, endpoint_url=sandbox.url) as sns,
        session.create_client("sts", REGION, endpoint_url=sandbox.url) as sts,
    ):
        attribute = {"kind": {"DataType": "String", "StringValue": "x"}}
        await sns.publish(TopicArn=topic.arn, Message="a & <b>", MessageAttributes=attribute)
        with pytest.raises(sns.exceptions.NotFoundException):
            await sns.publish(TopicArn=f"{topic.arn}-missing", Message="x")
        assert (await sts.get_caller_identity())["Account"] == "123456789012"
    assert [message.body for message in queue.messages()] == ["a & <b>"]
    assert topic.published[0].attributes == {"kind": ("String", "x")}


async def test_s3_keeps_objects(sandbox: Sandbox) -> None:
    session = AioSession()
    session.set_credentials("a", "b")
    objects = sandbox.s3.create_bucket("kept")
    async with session.create_client("s3", REGION, endpoint_url=sandbox.url) as s3:
        await s3.put_object(Bucket="kept", Key="a/ü b.json", Body=b"{}", Metadata={"reason": "poison"})
        found = await s3.get_object(Bucket="kept", Key="a/ü b.json")
        assert (await found["Body"].read(), found["Metadata"]) == (b"{}", {"reason": "poison"})
        for index in range(3):
            await s3.put_object(Bucket="kept", Key=f"page/{index}", Body=b"x")
        pages = [
            [entry["Key"] for entry in page["Contents"]]
            async for page in s3.get_paginator("list_objects_v2").paginate(
                Bucket="kept", Prefix="page/", PaginationConfig={"PageSize": 2}
            )
        ]
        assert pages == [["page/0", "page/1"], ["page/2"]]
        await s3.delete_object(Bucket="kept", Key="a/ü b.json")
        with pytest.raises(s3.exceptions.NoSuchKey):
            await s3.get_object(Bucket="kept", Key="a/ü b.json")
        with pytest.raises(s3.exceptions.NoSuchBucket):
            await s3.put_object(Bucket="missing", Key="x", Body=b"x")
    assert sorted(objects) == ["page/0", "page/1", "page/2"]


@pytest.mark.parametrize(
    "target,body,code",
    [
        ("AmazonSQS.Fly", b"{}", "UnknownOperationException"),
        ("Nothing_20000101.Fly", b"{}", "UnknownOperationException"),
        ("AmazonSQS.SendMessage", b"no json", "SerializationException"),
        ("AmazonSQS.SendMessage", b'{"QueueUrl": 7}', "ValidationException"),
        ("AmazonSQS.ReceiveMessage", b"[]", "ValidationException"),
    ],
)
async def test_calls_that_make_no_sense_are_errors_and_no_crash(
    sandbox: Sandbox, target: str, body: bytes, code: str
) -> None:
    status, answer = await raw(sandbox, target, body)
    assert (status, json.loads(answer)["__type"]) == (400, code)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_a_request_that_is_no_call_of_aws_is_an_error(sandbox: Sandbox, method: str) -> None:
    status, answer = await raw(sandbox, "", b"", method)
    assert status in (404, 405)
    assert answer.startswith(b"<Error>")


async def test_calls_are_counted_and_the_last_bodies_kept_within_bounds() -> None:
    async with Sandbox.open(keep_bytes=2000) as sandbox:
        sandbox.sqs.create_queue("orders")
        for _ in range(20):
            await raw(sandbox, "AmazonSQS.GetQueueUrl", b'{"QueueName": "orders"}')
        await raw(sandbox, "AmazonSQS.GetQueueUrl", b'{"QueueName": "missing"}')
        assert sandbox.calls["sqs:GetQueueUrl"] == 21
        assert sandbox.calls.outcomes["sqs:GetQueueUrl", "ok"] == 20
        assert sandbox.calls.outcomes["sqs:GetQueueUrl", "QueueDoesNotExist"] == 1
        kept = sandbox.calls.of("sqs:GetQueueUrl")
        assert 1 < len(kept) < 10
        assert kept[-1].body == b'{"QueueName": "missing"}'
        sandbox.calls.clear()
        assert sandbox.calls["sqs:GetQueueUrl"] == 0


async def test_only_known_access_keys_are_let_in_where_some_are_named() -> None:
    async with Sandbox.open(access_keys=["AKIDSANDBOX"]) as sandbox, aws_clients(sandbox.url) as clients:
        sqs = await clients.client("sqs", REGION)
        await sqs.list_queues()
        status, answer = await raw(sandbox, "AmazonSQS.ListQueues")
        assert (status, json.loads(answer)["__type"]) == (403, "UnrecognizedClientException")


async def test_a_dropped_call_closes_its_connection_without_an_answer(sandbox: Sandbox) -> None:
    fault = sandbox.faults.add(Fault("sqs:ListQueues", Drop()))
    with pytest.raises(aiohttp.ClientConnectionError):
        await raw(sandbox, "AmazonSQS.ListQueues")
    assert sandbox.calls.outcomes["sqs:ListQueues", "dropped"] == 1
    sandbox.faults.remove(fault)
    assert (await raw(sandbox, "AmazonSQS.ListQueues"))[0] == 200


async def test_it_ends_at_once_though_calls_hang_and_polls_wait() -> None:
    results: list[BaseException] = []

    async def ask(sandbox: Sandbox, target: str, body: bytes) -> None:
        try:
            await raw(sandbox, target, body)
        except aiohttp.ClientError as error:
            results.append(error)

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks, Sandbox.open() as sandbox:
            queue = sandbox.sqs.create_queue("orders")
            sandbox.faults.add(Fault("sqs:ListQueues", Hang()))
            tasks.start_soon(ask, sandbox, "AmazonSQS.ListQueues", b"{}")
            poll = json.dumps({"QueueUrl": queue.url, "WaitTimeSeconds": 20}).encode()
            tasks.start_soon(ask, sandbox, "AmazonSQS.ReceiveMessage", poll)
            while sum(sandbox.calls.counts.values()) < 2:
                await anyio.lowlevel.checkpoint()
    assert len(results) == 2


async def test_a_port_that_is_taken_is_an_os_error(sandbox: Sandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        async with Sandbox.open(port):
            pass


async def test_two_sandboxes_share_nothing(sandbox: Sandbox) -> None:
    async with Sandbox.open() as other:
        other.sqs.create_queue("mine")
        assert (await raw(sandbox, "AmazonSQS.GetQueueUrl", b'{"QueueName": "mine"}'))[0] == 400
        assert (await raw(other, "AmazonSQS.GetQueueUrl", b'{"QueueName": "mine"}'))[0] == 200


async def test_a_client_that_asks_to_continue_is_told_to(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 2\r\n"
    writer.write(head + b"Expect: 100-continue\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    await reader.readline()
    writer.write(b"{}")
    assert b" 200 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
