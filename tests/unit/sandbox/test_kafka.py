"""The mock cluster of librdkafka: found, or one clear error."""

import ctypes.util
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from esm.sandbox.kafka import RETAINED_BYTES, KafkaUnavailable, MockCluster, library_files, load

pytestmark = pytest.mark.anyio


def test_the_wheel_holds_the_library() -> None:
    assert [file.name.startswith("librdkafka") for file in library_files()] == [True]


def test_a_wheel_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(KafkaUnavailable, match=r"not installed: pip install 'esm\[demo\]'"):
        load([])


def test_a_library_without_the_symbols_is_one_clear_error(tmp_path: Path) -> None:
    foreign = ctypes.util.find_library("c")
    assert foreign is not None
    with pytest.raises(KafkaUnavailable, match=f"{foreign} of the confluent-kafka wheel does not offer it"):
        load([Path(foreign)])
    with pytest.raises(KafkaUnavailable, match=r"librdkafka\.so of the confluent-kafka wheel does not offer it"):
        load([tmp_path / "librdkafka.so"])


def test_entering_says_that_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esm.sandbox.kafka.library_files", list[Path])
    with pytest.raises(KafkaUnavailable), MockCluster():
        pass


async def test_records_go_in_and_come_out_on_loopback() -> None:
    with MockCluster() as cluster:
        cluster.create_topic("payments", partitions=2)
        assert cluster.bootstrap_servers.startswith("127.0.0.1:")
        async with cluster.producer() as producer:
            for number in range(10):
                await producer.send("payments", b"%d" % number, partition=number % 2)
            await producer.flush()
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, fetch_max_wait_ms=50)
        await consumer.start()
        try:
            ats = [TopicPartition("payments", each) for each in range(2)]
            assert await consumer.end_offsets(ats) == dict.fromkeys(ats, 5)
        finally:
            await consumer.stop()


async def test_a_partition_keeps_five_mebibytes() -> None:
    with MockCluster() as cluster:
        cluster.create_topic("payments")
        async with cluster.producer() as producer:
            for _ in range(80):
                await producer.send_and_wait("payments", bytes(100_000), partition=0)
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers)
        await consumer.start()
        try:
            at = TopicPartition("payments", 0)
            kept = (await consumer.end_offsets([at]))[at] - (await consumer.beginning_offsets([at]))[at]
        finally:
            await consumer.stop()
    assert 0.9 * RETAINED_BYTES < kept * 100_000 <= RETAINED_BYTES


def test_a_topic_is_made_once() -> None:
    with MockCluster() as cluster:
        cluster.create_topic("payments")
        with pytest.raises(ValueError, match="the topic payments could not be made"):
            cluster.create_topic("payments")
