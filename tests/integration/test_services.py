"""The services by themselves: a record goes in and comes out again, by the vendor's client."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from tests.integration.kafka import PLAIN_PASSWORD, SCRAM_PASSWORD, USER, Kafka
from tests.integration.services import DynamoDbLocal, ElasticMq, Kinesalite
from tests.integration.waiting import until

pytestmark = pytest.mark.anyio

Login = Callable[[Kafka], dict[str, Any]]


def sasl(mechanism: str, password: str) -> dict[str, Any]:
    return {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": password}


LOGINS: dict[str, Login] = {
    "none": lambda kafka: {"bootstrap_servers": kafka.bootstrap},
    "plain": lambda kafka: {
        "bootstrap_servers": kafka.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        **sasl("PLAIN", PLAIN_PASSWORD),
    },
    "scram-256": lambda kafka: {
        "bootstrap_servers": kafka.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        **sasl("SCRAM-SHA-256", SCRAM_PASSWORD),
    },
    "scram-512": lambda kafka: {
        "bootstrap_servers": kafka.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        **sasl("SCRAM-SHA-512", SCRAM_PASSWORD),
    },
    "certificate": lambda kafka: {
        "bootstrap_servers": kafka.mtls,
        "security_protocol": "SSL",
        "ssl_context": kafka.tls(certificate=True),
    },
    "plain in tls": lambda kafka: {
        "bootstrap_servers": kafka.sasl_tls,
        "security_protocol": "SASL_SSL",
        "ssl_context": kafka.tls(),
        **sasl("PLAIN", PLAIN_PASSWORD),
    },
    "scram-512 in tls": lambda kafka: {
        "bootstrap_servers": kafka.sasl_tls,
        "security_protocol": "SASL_SSL",
        "ssl_context": kafka.tls(),
        **sasl("SCRAM-SHA-512", SCRAM_PASSWORD),
    },
}
REFUSED: dict[str, Login] = {
    "wrong password": lambda kafka: {**LOGINS["scram-512"](kafka), "sasl_plain_password": "wrong"},
    "no certificate": lambda kafka: {**LOGINS["certificate"](kafka), "ssl_context": kafka.tls()},
    "no tls": lambda kafka: {"bootstrap_servers": kafka.mtls},
}


async def produce(kafka: Kafka, topic: str, value: bytes, login: Login = LOGINS["none"]) -> None:
    async with AIOKafkaProducer(**login(kafka)) as producer:
        await producer.send_and_wait(topic, value)


async def consume(kafka: Kafka, topic: str, login: Login = LOGINS["none"]) -> bytes | None:
    """The first record of ``topic``."""
    async with AIOKafkaConsumer(**login(kafka), auto_offset_reset="earliest", enable_auto_commit=False) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        with anyio.fail_after(20):
            return (await consumer.getone()).value


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS)
async def test_kafka_hands_a_record_on_to_whoever_logs_in(kafka: Kafka, login: Login, unique: str) -> None:
    await kafka.create_topic(unique)
    await produce(kafka, unique, b"hello", login)
    assert await consume(kafka, unique, login) == b"hello"


@pytest.mark.parametrize("login", REFUSED.values(), ids=REFUSED)
async def test_kafka_refuses_whoever_cannot_log_in(
    kafka: Kafka, login: Login, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "aiokafka")
    producer = AIOKafkaProducer(**login(kafka), request_timeout_ms=2000)
    try:
        with pytest.raises(KafkaConnectionError):
            await producer.start()
    finally:
        await producer.stop()


async def test_kafka_killed_and_started_again_has_its_records_at_the_same_address(kafka: Kafka, unique: str) -> None:
    await kafka.create_topic(unique)
    await produce(kafka, unique, b"kept")
    killed, address = kafka.pid, kafka.bootstrap
    kafka.kill()
    assert not kafka.running
    await anyio.to_thread.run_sync(kafka.start)
    assert (kafka.pid != killed, kafka.bootstrap) == (True, address)
    assert await consume(kafka, unique) == b"kept"


async def test_kafka_stopped_ends_by_itself(kafka: Kafka) -> None:
    process = kafka._process
    assert process is not None
    kafka.stop()
    assert process.returncode == 143, "SIGTERM, handled by Java: 128 + 15"


def client(service: str, endpoint: str) -> AbstractAsyncContextManager[Any]:
    """A client of aiobotocore."""
    return get_session().create_client(
        service,
        endpoint_url=endpoint,
        region_name="eu-west-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=AioConfig(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
async def queues(elasticmq: ElasticMq) -> AsyncIterator[Any]:
    async with client("sqs", elasticmq.endpoint) as sqs:
        yield sqs


async def test_elasticmq_hands_a_message_on(queues: Any, unique: str) -> None:
    url = (await queues.create_queue(QueueName=unique))["QueueUrl"]
    sent = await queues.send_message(QueueUrl=url, MessageBody="hello")
    [message] = (await queues.receive_message(QueueUrl=url, WaitTimeSeconds=5))["Messages"]
    assert (message["Body"], message["MessageId"]) == ("hello", sent["MessageId"])
    await queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    counts = await queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    assert counts["Attributes"]["ApproximateNumberOfMessages"] == "0"
    assert counts["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"


async def test_dynamodb_local_hands_a_change_of_a_table_on(dynamodb_local: DynamoDbLocal, unique: str) -> None:
    async with client("dynamodb", dynamodb_local.endpoint) as tables:
        table = await tables.create_table(
            TableName=unique,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        await tables.put_item(TableName=unique, Item={"id": {"S": "a"}, "n": {"N": "1"}})
    arn = table["TableDescription"]["LatestStreamArn"]
    async with client("dynamodbstreams", dynamodb_local.endpoint) as streams:
        [shard] = (await streams.describe_stream(StreamArn=arn))["StreamDescription"]["Shards"]
        iterator = await streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        [record] = (await streams.get_records(ShardIterator=iterator["ShardIterator"]))["Records"]
    assert (record["eventName"], record["dynamodb"]["NewImage"]) == ("INSERT", {"id": {"S": "a"}, "n": {"N": "1"}})


async def test_kinesalite_hands_a_record_on_and_splits(kinesalite: Kinesalite, unique: str) -> None:
    async with client("kinesis", kinesalite.endpoint) as kinesis:

        async def active() -> bool:
            answer = await kinesis.describe_stream_summary(StreamName=unique)
            return bool(answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

        await kinesis.create_stream(StreamName=unique, ShardCount=1)
        await until(active)
        put = await kinesis.put_record(StreamName=unique, Data=b"hello", PartitionKey="k")
        iterator = await kinesis.get_shard_iterator(
            StreamName=unique, ShardId=put["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        [record] = (await kinesis.get_records(ShardIterator=iterator["ShardIterator"]))["Records"]
        assert (record["Data"], record["SequenceNumber"]) == (b"hello", put["SequenceNumber"])

        await kinesis.split_shard(StreamName=unique, ShardToSplit=put["ShardId"], NewStartingHashKey=str(2**127))
        await until(active)
        shards = (await kinesis.list_shards(StreamName=unique))["Shards"]
        assert [shard.get("ParentShardId") for shard in shards] == [None, put["ShardId"], put["ShardId"]]
