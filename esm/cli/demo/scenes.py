"""One scene per source: what is made in the sandbox, how records get there, which mapping reads them.

Each scene knows its records by an id in their text, and tells which of them were given up: by the failure records in
the destination, or by the queue's own dead letters.
"""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from esm.cli.demo.tally import POISON, Tally
from esm.sandbox import Sandbox
from esm.sandbox.kafka import MockCluster

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

FAILED = "failed"
"""The queue that discarded batches go to."""
SHARDS = 2
Event = dict[str, Any]  # what a function gets: JSON of the source's own shape
Mapping = dict[str, object]


class Scene(Protocol):
    """One source of the demo."""

    tally: Tally

    def mapping(self) -> Mapping:
        """Its entry in the configuration."""
        ...

    def opened(self) -> "AsyncGenerator[None, None]":
        """Make what it needs in the sandbox; a context."""
        ...

    async def send(self, ids: Sequence[str]) -> None:
        """Put records with these ids in."""
        ...

    def look(self) -> None:
        """Note which records were given up by now."""
        ...

    def how_to_send(self) -> str:
        """A command that sends one more record."""
        ...


def poison_ids(name: str, count: int) -> set[str]:
    """The records that no function can bear: two messages of the queue, one record of each stream."""
    places = (count // 3, 2 * count // 3) if name == "sqs" else (count // 3,)
    return {record_id(name, place) for place in places}


def record_id(name: str, number: int) -> str:
    """Such as ``kinesis-000017``."""
    return f"{name}-{number:06d}"


def body(record: str, poison: set[str]) -> str:
    """The text of a record."""
    return json.dumps({"id": record, "kind": POISON if record in poison else "fine"})


class Queue:
    """A standard queue whose function reports what it cannot bear; three receives later that is a dead letter."""

    def __init__(self, sandbox: Sandbox, count: int) -> None:
        self.tally = Tally("sqs")
        self._sandbox = sandbox
        self._poison = poison_ids("sqs", count)

    def mapping(self) -> Mapping:
        """See Scene."""
        return {
            "name": "sqs",
            "event_source_arn": "arn:aws:sqs:eu-west-1:123456789012:orders",
            "function_name": "demo-sqs",
            "function_response_types": ["ReportBatchItemFailures"],
        }

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """See Scene."""
        dead = self._sandbox.sqs.create_queue("orders-dead")
        self._orders = self._sandbox.sqs.create_queue("orders", redrive_to=dead, max_receives=3, VisibilityTimeout=5)
        self._sandbox.functions.add_function("demo-sqs", self._function, timeout=1)
        yield

    async def send(self, ids: Sequence[str]) -> None:
        """See Scene."""
        self.tally.sent.update(ids)
        self._orders.send_many(body(each, self._poison) for each in ids)

    async def _function(self, event: Event, _context: object) -> object:
        bodies = {record["messageId"]: json.loads(record["body"]) for record in event["Records"]}
        bad = [message for message, content in bodies.items() if content["kind"] == POISON]
        self.tally.took(content["id"] for content in bodies.values() if content["kind"] != POISON)
        self.tally.retries += bool(bad)
        return {"batchItemFailures": [{"itemIdentifier": message} for message in bad]}

    def look(self) -> None:
        """See Scene."""
        letters = self._sandbox.sqs.queue("orders-dead").messages()
        self.tally.discarded.update(json.loads(letter.body)["id"] for letter in letters)

    def how_to_send(self) -> str:
        """See Scene."""
        text = body("sqs-mine", set())
        return (
            f"aws sqs send-message --endpoint-url {self._sandbox.url} --queue-url {self._orders.url} "
            f"--message-body '{text}'"
        )


class _Ordered(ABC):
    """What the three ordered sources share: a function that fails as a whole, a destination for what is given up."""

    name: str
    info: str
    """The member of a failure record that tells its batch."""

    def __init__(self, sandbox: Sandbox, count: int) -> None:
        self.tally = Tally(self.name)
        self._sandbox = sandbox
        self._poison = poison_ids(self.name, count)
        self._seen: dict[tuple[str, int], str] = {}  # (shard or partition, position) → id, as the function saw it
        self._looked = 0

    def _common(self) -> Mapping:
        return {
            "name": self.name,
            "function_name": f"demo-{self.name}",
            "starting_position": "TRIM_HORIZON",
            "batch_size": 100,
            "bisect_batch_on_function_error": True,
            "maximum_retry_attempts": 1,
            "destination_config": {"on_failure": {"destination": f"arn:aws:sqs:eu-west-1:123456789012:{FAILED}"}},
        }

    @abstractmethod
    def _records(self, event: Event) -> list[tuple[str, int, Event]]:
        """Lane, position and content of each record of an event."""

    def _ranges(self, info: Event) -> list[tuple[str, int, int]]:
        """Lane, first and last position of what a failure record tells of."""
        return [(info["shardId"], int(info["startSequenceNumber"]), int(info["endSequenceNumber"]))]

    async def _function(self, event: Event, _context: object) -> object:
        records = self._records(event)
        for lane, position, content in records:
            self._seen[lane, position] = content["id"]
        if any(content["kind"] == POISON for _, _, content in records):
            self.tally.retries += 1
            raise ValueError(POISON)
        self.tally.took(content["id"] for _, _, content in records)
        return None

    def look(self) -> None:
        """See Scene."""
        messages = self._sandbox.sqs.queue(FAILED).messages()
        for message in messages[self._looked :]:
            info = json.loads(message.body).get(self.info)
            for lane, first, last in self._ranges(info) if info else ():
                self.tally.discarded.update(
                    name for (where, at), name in self._seen.items() if where == lane and first <= at <= last
                )
        self._looked = len(messages)


class Kinesis(_Ordered):
    """A stream of two shards."""

    name = "kinesis"
    info = "KinesisBatchInfo"

    def mapping(self) -> Mapping:
        """See Scene."""
        return self._common() | {"event_source_arn": "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"}

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """See Scene."""
        self._stream = self._sandbox.kinesis.create_stream("clicks", SHARDS)
        self._sandbox.functions.add_function("demo-kinesis", self._function)
        yield

    async def send(self, ids: Sequence[str]) -> None:
        """See Scene."""
        self.tally.sent.update(ids)
        self._stream.put_many((each, body(each, self._poison).encode()) for each in ids)

    def _records(self, event: Event) -> list[tuple[str, int, Event]]:
        return [
            (
                record["eventID"].partition(":")[0],
                int(record["kinesis"]["sequenceNumber"]),
                json.loads(base64.b64decode(record["kinesis"]["data"])),
            )
            for record in event["Records"]
        ]

    def how_to_send(self) -> str:
        """See Scene."""
        return (
            f"echo '{body('kinesis-mine', set())}' | aws kinesis put-record --endpoint-url {self._sandbox.url} "
            "--stream-name clicks --partition-key mine --data fileb:///dev/stdin"
        )


class Table(_Ordered):
    """A table with a stream of two shards."""

    name = "dynamodb"
    info = "DDBStreamBatchInfo"

    def mapping(self) -> Mapping:
        """See Scene."""
        stream = self._table.stream
        assert stream is not None, "made with a stream"
        return self._common() | {"event_source_arn": stream.arn}

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """See Scene."""
        self._table = self._sandbox.dynamodb.create_table("carts", stream="NEW_AND_OLD_IMAGES", shards=SHARDS)
        self._sandbox.functions.add_function("demo-dynamodb", self._function)
        yield

    async def send(self, ids: Sequence[str]) -> None:
        """See Scene."""
        self.tally.sent.update(ids)
        for each in ids:
            kind = POISON if each in self._poison else "fine"
            self._table.put({"pk": {"S": each}, "kind": {"S": kind}})

    def _records(self, event: Event) -> list[tuple[str, int, Event]]:
        # The event of a table does not name the shard, and its positions are unique in the stream.
        return [
            (
                "",
                int(record["dynamodb"]["SequenceNumber"]),
                {name: record["dynamodb"]["NewImage"][key]["S"] for name, key in (("id", "pk"), ("kind", "kind"))},
            )
            for record in event["Records"]
        ]

    def _ranges(self, info: Event) -> list[tuple[str, int, int]]:
        return [("", first, last) for _, first, last in super()._ranges(info)]

    def how_to_send(self) -> str:
        """See Scene."""
        item = json.dumps({"pk": {"S": "dynamodb-mine"}, "kind": {"S": "fine"}})
        return f"aws dynamodb put-item --endpoint-url {self._sandbox.url} --table-name carts --item '{item}'"


class Kafka(_Ordered):
    """A topic of two partitions, on the mock cluster."""

    name = "kafka"
    info = "KafkaBatchInfo"

    def mapping(self) -> Mapping:
        """See Scene."""
        servers = self._cluster.bootstrap_servers.split(",")
        return self._common() | {
            "self_managed_event_source": {"endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers}},
            "topics": ["payments"],
        }

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """See Scene.  Raises KafkaUnavailable."""
        self._sandbox.functions.add_function("demo-kafka", self._function)
        with MockCluster() as self._cluster:
            self._cluster.create_topic("payments", SHARDS)
            async with self._cluster.producer() as producer:
                self._producer: AIOKafkaProducer = producer
                yield

    async def send(self, ids: Sequence[str]) -> None:
        """See Scene."""
        self.tally.sent.update(ids)
        for number, each in enumerate(ids):
            text = body(each, self._poison).encode()
            _ = await self._producer.send("payments", text, partition=number % SHARDS)  # its reply: see flush
        await self._producer.flush()

    def _records(self, event: Event) -> list[tuple[str, int, Event]]:
        return [
            (lane, record["offset"], json.loads(base64.b64decode(record["value"])))
            for lane, records in event["records"].items()
            for record in records
        ]

    def _ranges(self, info: Event) -> list[tuple[str, int, int]]:
        return [
            (lane, int(each["firstRecordOffset"]), int(each["lastRecordOffset"]))
            for lane, each in info["recordsInfo"].items()
        ]

    def how_to_send(self) -> str:
        """See Scene."""
        servers = self._cluster.bootstrap_servers
        return f"echo '{body('kafka-mine', set())}' | kcat -P -b {servers} -t payments"


SCENES: dict[str, type[Queue | Kinesis | Table | Kafka]] = {
    "sqs": Queue,
    "kinesis": Kinesis,
    "dynamodb": Table,
    "kafka": Kafka,
}
"""By the name that ``--sources`` takes."""
