"""CPU of a record from poll to settled, beside a plain loop: ``python -m tests.support.cost_per_record``.

Each source is read to its end twice, by a worker and by the plain loop, each a process of its own on the same sandbox;
the start is not counted.  The plain loop (aiobotocore or aiokafka as they come)
reads, makes the event with ``json.dumps`` and settles; the worker does what a
worker does and calls a Python handler that returns at once.  Machines differ: the ratio counts.
"""

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from esm.sandbox.kafka import MockCluster
from tests.support.cost_world import mappings, working
from tests.support.sandbox_process import REGION, sandbox_process
from tests.support.worker_process import clean_environment

PRESETS = {
    "sqs": ("--queue=orders", "--generate=sqs:orders:{}"),
    "kinesis": ("--stream=clicks:2", "--generate=kinesis:clicks:{}"),
    "dynamodb": ("--table=carts:2", "--generate=dynamodb:carts:{}"),
}
NUMBERS = {"sqs": 20_000, "kinesis": 100_000, "dynamodb": 60_000, "kafka": 80_000}
PARTITIONS = 20
"""Of the topic: the mock cluster keeps 5 MiB in each."""
_WARM = 0.2
"""Of the records, read before CPU is counted."""


# -- the plain loops: ``python -m tests.support.cost_per_record --plain SOURCE URL NUMBER`` prints microseconds a record


class _Meter:
    """CPU from the moment on that a share of the records is read."""

    def __init__(self, total: int) -> None:
        self.read, self._total, self._from, self._cpu = 0, total, 0, 0.0

    def took(self, count: int) -> bool:
        """Whether there is more to come."""
        self.read += count
        if not self._from and self.read >= self._total * _WARM:
            self._from, self._cpu = self.read, time.process_time()
        return self.read < self._total

    def micros(self) -> float:
        """Of a record."""
        return (time.process_time() - self._cpu) / (self.read - self._from) * 1e6


def _encoded(records: list[Any]) -> bytes:
    def plain(value: Any) -> Any:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value.timestamp()

    return json.dumps({"Records": records}, default=plain).encode()


@asynccontextmanager
async def _client(service: str, url: str) -> AsyncGenerator[Any, None]:
    from aiobotocore.session import get_session

    async with get_session().create_client(service, region_name=REGION, endpoint_url=url) as client:
        yield client


async def _plain_sqs(url: str, meter: _Meter) -> None:
    async with _client("sqs", url) as sqs:
        queue = (await sqs.get_queue_url(QueueName="orders"))["QueueUrl"]
        more = True
        while more:
            reply = await sqs.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20, MessageSystemAttributeNames=["All"]
            )
            found = reply["Messages"]
            _encoded(found)
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(found)]
            await sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
            more = meter.took(len(found))


async def _plain_shards(client: Any, stream: str, shards: list[str], kind: dict[str, str], meter: _Meter) -> None:
    iterators = [
        (await client.get_shard_iterator(ShardId=shard, ShardIteratorType="TRIM_HORIZON", **kind))["ShardIterator"]
        for shard in shards
    ]
    more = True
    while more:
        for at, iterator in enumerate(iterators):
            reply = await client.get_records(ShardIterator=iterator, Limit=1000)
            iterators[at] = reply["NextShardIterator"]
            for begin in range(0, len(reply["Records"]), 100):
                _encoded(reply["Records"][begin : begin + 100])
            more = meter.took(len(reply["Records"]))
        await asyncio.sleep(0)


async def _plain_kinesis(url: str, meter: _Meter) -> None:
    async with _client("kinesis", url) as client:
        shards = [one["ShardId"] for one in (await client.list_shards(StreamName="clicks"))["Shards"]]
        await _plain_shards(client, "clicks", shards, {"StreamName": "clicks"}, meter)


async def _plain_dynamodb(url: str, meter: _Meter) -> None:
    async with _client("dynamodbstreams", url) as client:
        arn = (await client.list_streams(TableName="carts"))["Streams"][0]["StreamArn"]
        told = (await client.describe_stream(StreamArn=arn))["StreamDescription"]["Shards"]
        await _plain_shards(client, arn, [one["ShardId"] for one in told], {"StreamArn": arn}, meter)


async def _plain_kafka(bootstrap: str, meter: _Meter) -> None:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        "payments",
        bootstrap_servers=bootstrap,
        group_id="plain",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    more = True
    while more:
        for found in (await consumer.getmany(timeout_ms=500, max_records=1000)).values():
            for begin in range(0, len(found), 100):
                _encoded([{"offset": one.offset, "value": one.value} for one in found[begin : begin + 100]])
            more = meter.took(len(found))
        await consumer.commit()
    await consumer.stop()


_PLAIN: dict[str, Callable[[str, _Meter], Awaitable[None]]] = {
    "sqs": _plain_sqs,
    "kinesis": _plain_kinesis,
    "dynamodb": _plain_dynamodb,
    "kafka": _plain_kafka,
}


async def _plain(source: str, url: str, number: int) -> float:
    meter = _Meter(number)
    await _PLAIN[source](url, meter)
    return meter.micros()


# -- the worker, and both side by side


async def _worked(source: str, url: str, number: int) -> float:
    """Microseconds a record of a worker."""
    with tempfile.TemporaryDirectory() as folder:
        told = mappings(source, bootstrap=url)
        async with working(Path(folder), url if source != "kafka" else "http://127.0.0.1:9", told) as worker:
            await worker.log("worker_started")
            begin: tuple[float, float] | None = None
            while True:
                done = await worker.metric("esm_records_settled_total", outcome="delivered")
                if begin is None and done >= number * _WARM:
                    begin = worker.cpu(), done
                if begin is not None and done >= number:
                    return (worker.cpu() - begin[0]) / (done - begin[1]) * 1e6
                await anyio.sleep(0.05)


def _plain_process(source: str, url: str, number: int) -> float:
    command = [sys.executable, "-m", __spec__.name, "--plain", source, url, str(number)]
    return float(subprocess.run(command, env=clean_environment(), check=True, capture_output=True, text=True).stdout)


def _both(source: str, number: int) -> tuple[float, float]:
    if source == "kafka":
        with MockCluster() as cluster:
            asyncio.run(_produce(cluster, number))
            url = cluster.bootstrap_servers
            return _plain_process(source, url, number), anyio.run(_worked, source, url, number)
    options = [each.format(number) for each in PRESETS[source]]
    with sandbox_process(*options) as sandbox:
        plain = _plain_process(source, sandbox.url, number)
    with sandbox_process(*options) as sandbox:
        return plain, anyio.run(_worked, source, sandbox.url, number)


async def _produce(cluster: MockCluster, number: int) -> None:
    """In batches of 200 records: the mock cluster answers a fetch with one of each partition."""
    from aiokafka import AIOKafkaProducer

    cluster.create_topic("payments", PARTITIONS)
    async with AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, max_batch_size=220_000, linger_ms=50
    ) as producer:
        for begin in range(0, number, 200):
            for _ in range(200):
                await producer.send("payments", b"x" * 1024, partition=begin // 200 % PARTITIONS)
        await producer.flush()


def main() -> None:
    """Print a line for each source, or what one plain loop took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", nargs=3, metavar=("SOURCE", "URL", "NUMBER"))
    parser.add_argument("--sources", default=",".join(NUMBERS))
    told = parser.parse_args()
    if told.plain:
        source, url, number = told.plain
        sys.stdout.write(f"{asyncio.run(_plain(source, url, int(number)))}\n")
        return
    for source in told.sources.split(","):
        plain, worked = _both(source, NUMBERS[source])
        sys.stdout.write(f"{source}: plain {plain:.1f} µs, worker {worked:.1f} µs, ratio {worked / plain:.2f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
