"""``python -m esm.sandbox``: what its options make, and how it starts and ends."""

import json
import signal
from pathlib import Path

import pytest

from esm.sandbox.__main__ import main
from tests.support.sandbox_process import REGION, aws_clients, sandbox_process

pytestmark = pytest.mark.anyio

STREAM_ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/carts/stream/2026-01-01T00:00:00.000"
SCRIPT = """
from esm.sandbox import Fail, Fault, nth

def count(event, context):
    return {"records": len(event["Records"])}

async def prepare(sandbox):
    sandbox.faults.add(Fault("sqs:PurgeQueue", Fail("PurgeQueueInProgress"), nth(1)))
"""


async def test_its_options_make_queues_streams_tables_and_functions_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "sandbox_script.py").write_text(SCRIPT)
    with sandbox_process(
        *("--queue", "dead", "--queue", "orders,VisibilityTimeout=7,dead_letters=dead,max_receives=2"),
        *("--stream", "clicks:3", "--table", "carts:2"),
        *("--function", "tally=sandbox_script:count", "--function-timeout", "9"),
        cwd=tmp_path,
    ) as sandbox:
        async with aws_clients(sandbox.url) as clients:
            sqs = await clients.client("sqs", REGION)
            url = (await sqs.get_queue_url(QueueName="orders"))["QueueUrl"]
            found = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            assert found["Attributes"]["VisibilityTimeout"] == "7"
            assert json.loads(found["Attributes"]["RedrivePolicy"])["maxReceiveCount"] in (2, "2")
            kinesis = await clients.client("kinesis", REGION)
            assert len((await kinesis.list_shards(StreamName="clicks"))["Shards"]) == 3
            streams = await clients.client("dynamodbstreams", REGION)
            described = await streams.describe_stream(StreamArn=STREAM_ARN)
            assert len(described["StreamDescription"]["Shards"]) == 2
            functions = await clients.client("lambda", REGION)
            answer = await functions.invoke(FunctionName="tally", Payload=b'{"Records": [1, 2]}')
            assert await answer["Payload"].read() == b'{"records":2}'
            assert (await functions.get_function_configuration(FunctionName="tally"))["Timeout"] == 9


async def test_a_change_of_a_table_is_read_from_the_arn_that_was_known_before(tmp_path: Path) -> None:
    with sandbox_process("--table", "carts") as sandbox:
        async with aws_clients(sandbox.url) as clients:
            tables = await clients.client("dynamodb", REGION)
            await tables.put_item(TableName="carts", Item={"pk": {"S": "a"}})
            assert (await tables.describe_table(TableName="carts"))["Table"]["LatestStreamArn"] == STREAM_ARN
            streams = await clients.client("dynamodbstreams", REGION)
            shards = (await streams.describe_stream(StreamArn=STREAM_ARN))["StreamDescription"]["Shards"]
            iterator = await streams.get_shard_iterator(
                StreamArn=STREAM_ARN, ShardId=shards[0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            found = await streams.get_records(ShardIterator=iterator["ShardIterator"])
            assert [record["dynamodb"]["Keys"] for record in found["Records"]] == [{"pk": {"S": "a"}}]


async def test_faults_come_from_options_and_from_a_script(tmp_path: Path) -> None:
    (tmp_path / "sandbox_script.py").write_text(SCRIPT)
    with sandbox_process(
        *("--queue", "orders", "--fault", "sqs:SendMessageBatch=fail_entries@first:1"),
        *("--script", "sandbox_script:prepare"),
        cwd=tmp_path,
    ) as sandbox:
        async with aws_clients(sandbox.url) as clients:
            sqs = await clients.client("sqs", REGION)
            url = (await sqs.get_queue_url(QueueName="orders"))["QueueUrl"]
            entry = {"Id": "a", "MessageBody": "hello"}
            assert "Failed" in await sqs.send_message_batch(QueueUrl=url, Entries=[entry])
            assert "Failed" not in await sqs.send_message_batch(QueueUrl=url, Entries=[entry])
            with pytest.raises(sqs.exceptions.PurgeQueueInProgress):
                await sqs.purge_queue(QueueUrl=url)
            await sqs.purge_queue(QueueUrl=url)


async def test_other_access_keys_than_the_named_ones_are_turned_away() -> None:
    with sandbox_process("--queue", "orders", "--access-key", "AKIDOTHER") as sandbox:
        async with aws_clients(sandbox.url) as clients:
            sqs = await clients.client("sqs", REGION)
            with pytest.raises(sqs.exceptions.ClientError, match="security token"):
                await sqs.get_queue_url(QueueName="orders")


async def test_60_000_generated_records_of_a_stream_are_read_in_order_in_memory_that_stays() -> None:
    with sandbox_process("--stream", "clicks:2", "--generate", "kinesis:clicks:60000:200") as sandbox:
        async with aws_clients(sandbox.url) as clients:
            kinesis = await clients.client("kinesis", REGION)
            shard = "shardId-000000000000"
            first = await kinesis.get_shard_iterator(
                StreamName="clicks", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
            )
            iterator, read, early = first["ShardIterator"], 0, 0
            while read < 30_000:
                found = await kinesis.get_records(ShardIterator=iterator, Limit=10_000)
                numbers = [json.loads(record["Data"])["n"] for record in found["Records"]]
                assert numbers == list(range(read, read + len(numbers)))
                assert numbers, "the records end too early"
                read, iterator = read + len(numbers), found["NextShardIterator"]
                early = early or sandbox.rss()
            assert (await kinesis.get_records(ShardIterator=iterator))["Records"] == []
            assert sandbox.rss() - early < 8 * 1024 * 1024


async def test_generated_messages_are_made_when_received_counted_before_and_end_at_their_number() -> None:
    with sandbox_process("--queue", "orders,VisibilityTimeout=600", "--generate", "sqs:orders:25:100") as sandbox:
        async with aws_clients(sandbox.url) as clients:
            sqs = await clients.client("sqs", REGION)
            url = (await sqs.get_queue_url(QueueName="orders"))["QueueUrl"]
            name = "ApproximateNumberOfMessages"
            before = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
            bodies: list[int] = []
            while messages := (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages"):
                bodies += [json.loads(message["Body"])["n"] for message in messages]
                entries = [{"Id": one["MessageId"], "ReceiptHandle": one["ReceiptHandle"]} for one in messages]
                await sqs.delete_message_batch(QueueUrl=url, Entries=entries)
            after = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
            assert bodies == list(range(25))
            assert (before["Attributes"][name], after["Attributes"][name]) == ("25", "0")


async def test_generated_changes_of_a_table_are_read_from_its_stream() -> None:
    with sandbox_process("--table", "carts", "--generate", "dynamodb:carts:1500:100") as sandbox:
        async with aws_clients(sandbox.url) as clients:
            streams = await clients.client("dynamodbstreams", REGION)
            shards = (await streams.describe_stream(StreamArn=STREAM_ARN))["StreamDescription"]["Shards"]
            first = await streams.get_shard_iterator(
                StreamArn=STREAM_ARN, ShardId=shards[0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            page = await streams.get_records(ShardIterator=first["ShardIterator"])
            rest = await streams.get_records(ShardIterator=page["NextShardIterator"])
            keys = [record["dynamodb"]["Keys"]["pk"]["S"] for record in page["Records"] + rest["Records"]]
            assert keys == [f"item-{index}" for index in range(1500)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_although_a_function_hangs_in_a_thread(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text("import threading\ndef hang(event, context): threading.Event().wait()\n")
    with sandbox_process(
        "--function", "hang=hangs:hang", "--function-timeout", "600", "--queue", "orders", cwd=tmp_path
    ) as sandbox:
        async with aws_clients(sandbox.url) as clients:
            functions = await clients.client("lambda", REGION)
            await functions.invoke(FunctionName="hang", InvocationType="Event", Payload=b"{}")
            sandbox.process.send_signal(number)
            assert sandbox.process.wait(20) == 0


@pytest.mark.parametrize(
    "options,sentence",
    [
        (["--generate", "kinesis:clicks:10"], "Stream clicks under account 123456789012 not found"),
        (["--stream", "clicks:3", "--generate", "kinesis:clicks:10"], "10 records cannot be shared equally"),
        (["--stream", "clicks:none"], "'none' is no number of shards"),
        (["--function", "tally=nowhere:handler"], "No module named 'nowhere'"),
        (["--function", "tally=dance"], "expected module:function, or one of fail, fail_if"),
        (["--fault", "sqs:*=sulk"], "'sulk' is no effect"),
        (["--queue", "orders,Colour=red"], "Unknown Attribute Colour"),
        (["--queue", "orders.fifo", "--generate", "sqs:orders.fifo:5"], "only standard queues are generated"),
    ],
)
def test_options_that_make_no_sense_are_a_sentence_and_exit_code_2(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err


def test_a_taken_port_is_a_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with sandbox_process() as sandbox:
        port = sandbox.url.rpartition(":")[2]
        assert main(["--port", port]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
