"""Sources of real services, filled and watched from outside, for the claim of ``tests.support.killed``."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from esm.clients.aws import AwsClients
from tests.support.e2e_world import ARN, Settings, World
from tests.support.killed import POISONED, discarded, last_positions
from tests.support.worker_process import WorkerProcess

REGION = "eu-west-1"
ACCOUNT = "123456789012"
BATCH = 50
PARTITIONS = 3
CODECS = ("zstd", "lz4", "snappy", "gzip")


def numbered(numbers: range, key: str) -> list[str]:
    """Records that sort as they were sent."""
    return [f"{number:04d}-{key}" for number in numbers]


def batched(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """``items`` in pieces of ``size``."""
    left = iter(items)
    while piece := list(islice(left, size)):
        yield piece


class RealSource:
    """What most of them have in common: one mapping, of the name ``name``."""

    poison: Collection[str] = ()
    queues: Collection[str] = ()
    at_once = 1

    def __init__(self, world: World, name: str, endpoints: Mapping[str, str], mapping: Settings) -> None:
        self.world, self.name = world, name
        aws = {"region": REGION, "endpoint_url": world.sandbox.url, "endpoint_urls": endpoints}
        self.config = world.config(mapping, aws=aws)
        self.sent: dict[str, set[str]] = {}
        self.quota: dict[str, int] = {}

    async def midway(self) -> None:
        """Nothing happens."""

    async def forget(self) -> None:
        """Real services have their own time."""

    async def settled(self) -> bool:
        """Whether the lease file holds what was taken."""
        kept = [through for _, _, through in self.world.leases().values() if through is not None]
        return sorted(kept) == sorted(last_positions(self.world.target, self.name).values())

    async def set_aside(self) -> Collection[str]:
        """The poison in the destination queue."""
        return discarded(self.world, self.name)

    async def stop(self, worker: WorkerProcess) -> int:
        """SIGTERM; its exit code."""
        return await self.world.stop(worker)


class RealStream(RealSource):
    """A Kinesis stream of two shards, the first of which is split in the middle, and again at the end.

    Three partition keys: ``a`` and ``c`` in the first shard, whose children part them, and ``b`` in the second.
    """

    KEYS: ClassVar = {"a": 0, "c": 2**126, "b": 2**127}
    """Where each lies."""
    BEFORE, EACH = 400, 667
    """Records of a key before the split, and in all."""

    def __init__(self, world: World, name: str, endpoint: str, clients: AwsClients) -> None:
        super().__init__(world, name, {"kinesis": endpoint}, world.stream(name, batch_size=BATCH, **POISONED))
        self._endpoint, self._clients = endpoint, clients
        self.at_once = 2
        self.sent[name] = {each for key in self.KEYS for each in numbered(range(self.EACH), key)}
        self.quota[name] = 300
        self.poison = {"0070-a", "0500-c", "0120-b"}

    async def create(self) -> None:
        """Make the stream and fill it to where it will be split."""
        calls = await self._calls()
        await calls.create_stream(StreamName=self.name, ShardCount=2)
        await self._active()
        await self._put(range(self.BEFORE))

    async def midway(self) -> None:
        """Split the first shard and send the rest."""
        await self._split(str(self.KEYS["c"]))
        await self._put(range(self.BEFORE, self.EACH))

    async def more(self) -> Mapping[str, Collection[str]]:
        """Split the shard of ``b`` under the eyes of the worker, with a record before and one after it."""
        await self._put(range(self.EACH, self.EACH + 1))
        await self._split(str(2**127 + 2**126))
        await self._put(range(self.EACH + 1, self.EACH + 2))
        return {self.name: {each for key in self.KEYS for each in numbered(range(self.EACH, self.EACH + 2), key)}}

    def by_key(self) -> Mapping[str, Sequence[str]]:
        """Per partition key the records in the order of their first arrival."""
        firsts = dict.fromkeys(name for each in self.world.target.arrived[self.name] for name in each.ids)
        return {key: [name for name in firsts if name.endswith(key)] for key in self.KEYS}

    async def _calls(self) -> Any:
        return await self._clients.client("kinesis", REGION, self._endpoint)

    async def _put(self, numbers: range) -> None:
        calls = await self._calls()
        entries = [
            {"Data": f"{number:04d}-{key}".encode(), "PartitionKey": key, "ExplicitHashKey": str(place)}
            for number in numbers
            for key, place in self.KEYS.items()
        ]
        for piece in batched(entries, 300):
            reply = await calls.put_records(StreamName=self.name, Records=piece)
            assert not reply["FailedRecordCount"], reply

    async def _split(self, at: str) -> None:
        calls = await self._calls()
        shards = (await calls.list_shards(StreamName=self.name))["Shards"]
        [parent] = [each["ShardId"] for each in shards if _open_and_holds(each, int(at))]
        await calls.split_shard(StreamName=self.name, ShardToSplit=parent, NewStartingHashKey=at)
        await self._active()

    async def _active(self) -> None:
        calls = await self._calls()
        with anyio.fail_after(20):
            while True:
                summary = await calls.describe_stream_summary(StreamName=self.name)
                if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                    return
                await anyio.sleep(0.02)


def _open_and_holds(shard: Any, place: int) -> bool:
    ranged = shard["HashKeyRange"]
    holds = int(ranged["StartingHashKey"]) <= place <= int(ranged["EndingHashKey"])
    return holds and "EndingSequenceNumber" not in shard["SequenceNumberRange"]


class RealTable(RealSource):
    """A DynamoDB table whose stream has one shard."""

    ITEMS = 1000

    def __init__(self, world: World, name: str, arn: str, endpoint: str, clients: AwsClients) -> None:
        endpoints = {"dynamodb": endpoint, "dynamodbstreams": endpoint}
        options = {"event_source_arn": arn, "region": REGION, "batch_size": BATCH, **POISONED}
        super().__init__(world, name, endpoints, world.table(name, **options))
        self.arn = arn
        self._endpoint, self._clients = endpoint, clients
        self.sent[name] = set(numbered(range(self.ITEMS), "cart"))
        self.quota[name] = self.ITEMS // 2
        self.poison = {"0123-cart", "0777-cart"}

    @classmethod
    async def create(cls, world: World, name: str, endpoint: str, clients: AwsClients) -> "RealTable":
        """Make the table and put its items."""
        calls = await clients.client("dynamodb", REGION, endpoint)
        made = await calls.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        table = cls(world, name, made["TableDescription"]["LatestStreamArn"], endpoint, clients)
        await table._put(range(cls.ITEMS))
        return table

    async def more(self) -> Mapping[str, Collection[str]]:
        """Two more items."""
        await self._put(range(self.ITEMS, self.ITEMS + 2))
        return {self.name: numbered(range(self.ITEMS, self.ITEMS + 2), "cart")}

    async def _put(self, numbers: range) -> None:
        calls = await self._clients.client("dynamodb", REGION, self._endpoint)
        for pk in numbered(numbers, "cart"):
            await calls.put_item(TableName=self.name, Item={"pk": {"S": pk}, "total": {"N": "12.50"}})


class RealQueue(RealSource):
    """An SQS queue with a dead-letter queue."""

    MESSAGES = 2000
    VISIBILITY = 10
    at_once = 5

    def __init__(self, world: World, name: str, endpoint: str, clients: AwsClients) -> None:
        target = {"http": {"url": world.target.url(name), "timeout_in_seconds": self.VISIBILITY}}
        reports = ["ReportBatchItemFailures"]
        mapping = world.queue(name, target=target, function_response_types=reports)
        super().__init__(world, name, {"sqs": endpoint}, mapping)
        self._endpoint, self._clients = endpoint, clients
        self._late = 0
        self.queues = {name}
        self.sent[name] = set(numbered(range(self.MESSAGES), "order"))
        self.quota[name] = self.MESSAGES // 2
        self.poison = {"0003-order"}

    async def create(self) -> None:
        """Make both queues and fill the one."""
        calls = await self._calls()
        await calls.create_queue(QueueName=self._dead)
        redrive = f'{{"deadLetterTargetArn": "{ARN.format(service="sqs", name=self._dead)}", "maxReceiveCount": 2}}'
        attributes = {"VisibilityTimeout": str(self.VISIBILITY), "RedrivePolicy": redrive}
        await calls.create_queue(QueueName=self.name, Attributes=attributes)
        await self._send(*numbered(range(self.MESSAGES), "order"))

    async def settled(self) -> bool:
        """Whether nothing is left but what was not taken."""
        left = await self._count("ApproximateNumberOfMessages") + await self.hidden()
        return left == self.MESSAGES - len(set(self.world.target.ids(self.name)))

    async def set_aside(self) -> Collection[str]:
        """The poison in the dead-letter queue."""
        calls = await self._calls()
        url = await self._url(self._dead)
        reply = await calls.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return {each["Body"] for each in reply.get("Messages", ())}

    async def stop(self, worker: WorkerProcess) -> int:
        """SIGTERM, and a message that the open long poll brings during the stop: it is not stranded."""
        code, _ = await _both(super().stop(worker), self._send_late(worker))
        assert await self.hidden() == 0, "a message that came during the stop was delivered or given back"
        return code

    async def more(self) -> Mapping[str, Collection[str]]:
        """Two more messages, and those of the stop before that were given back."""
        await self._send("x-more", "y-more")
        late = {f"late-{number}" for number in range(self._late)} - set(self.world.target.ids(self.name))
        return {self.name: {"x-more", "y-more", *late}}

    async def hidden(self) -> int:
        """Messages that somebody received and neither deleted nor gave back."""
        return await self._count("ApproximateNumberOfMessagesNotVisible")

    @property
    def _dead(self) -> str:
        return f"{self.name}-dead"

    async def _send_late(self, worker: WorkerProcess) -> None:
        await worker.log("worker_stopping")
        await self._send(f"late-{self._late}")
        self._late += 1

    async def _send(self, *bodies: str) -> None:
        calls, url = await self._calls(), await self._url(self.name)
        for piece in batched(bodies, 10):
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(piece)]
            await calls.send_message_batch(QueueUrl=url, Entries=entries)

    async def _count(self, attribute: str) -> int:
        calls, url = await self._calls(), await self._url(self.name)
        reply = await calls.get_queue_attributes(QueueUrl=url, AttributeNames=[attribute])
        return int(reply["Attributes"][attribute])

    async def _url(self, name: str) -> str:
        return str((await (await self._calls()).get_queue_url(QueueName=name))["QueueUrl"])

    async def _calls(self) -> Any:
        return await self._clients.client("sqs", REGION, self._endpoint)


async def _both(one: Any, other: Any) -> tuple[Any, Any]:
    answers: dict[int, Any] = {}

    async def keep(number: int, work: Any) -> None:
        answers[number] = await work

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep, 0, one)
        tasks.start_soon(keep, 1, other)
    return answers[0], answers[1]


class RealTopic(RealSource):
    """A Kafka topic of three partitions, compressed in four ways."""

    EACH = 1667
    """Records of a partition."""
    at_once = PARTITIONS

    def __init__(self, world: World, name: str, bootstrap: str) -> None:
        mapping = topic(world, bootstrap, name, batch_size=BATCH, **POISONED)
        super().__init__(world, name, {}, mapping)
        self._bootstrap = bootstrap
        self.sent[name] = {each for lane in range(PARTITIONS) for each in numbered(range(self.EACH), str(lane))}
        self.quota[name] = self.EACH // 2
        self.poison = {"0050-0", "0444-1", "1600-2"}

    async def fill(self) -> None:
        """Send everything, a quarter with each codec."""
        quarter = -(-self.EACH // len(CODECS))
        for part, codec in enumerate(CODECS):
            await send(self._bootstrap, self.name, range(part * quarter, min((part + 1) * quarter, self.EACH)), codec)

    async def settled(self) -> bool:
        """Whether the group has committed what was taken."""
        last = last_positions(self.world.target, self.name)
        return await committed(self._bootstrap, self.name) == {lane: offset + 1 for lane, offset in last.items()}

    async def more(self) -> Mapping[str, Collection[str]]:
        """Two more in each partition."""
        numbers = range(self.EACH, self.EACH + 2)
        await send(self._bootstrap, self.name, numbers)
        return {self.name: {each for lane in range(PARTITIONS) for each in numbered(numbers, str(lane))}}


def topic(world: World, bootstrap: str, name: str, **more: object) -> Settings:
    """A mapping of a topic whose group is called like it."""
    group = {"self_managed_kafka_event_source_config": {"consumer_group_id": name}}
    return world.topic(bootstrap, name, **group, **more)


async def send(bootstrap: str, topic: str, numbers: range, codec: str | None = None) -> set[str]:
    """Append a record per number and partition; what was sent."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=codec)
    await producer.start()
    try:
        sent = [(lane, name) for lane in range(PARTITIONS) for name in numbered(numbers, str(lane))]
        for lane, name in sent:
            await producer.send(topic, name.encode(), key=b"k", partition=lane, headers=[("trace", b"abc")])
        await producer.flush()
    finally:
        await producer.stop()
    return {name for _, name in sent}


async def committed(bootstrap: str, group: str) -> dict[str, int]:
    """Per lane the offset that the group of this name has committed for the topic of the same name, if any."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        found = {lane: await consumer.committed(TopicPartition(group, lane)) for lane in range(PARTITIONS)}
        return {f"{group}-{lane}": offset for lane, offset in found.items() if offset is not None}
    finally:
        await consumer.stop()
