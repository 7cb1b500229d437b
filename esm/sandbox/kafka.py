"""A Kafka cluster in this process: the mock that librdkafka carries, reached through the confluent-kafka wheel.

It holds 5 MiB a partition and drops the oldest beyond that: a producer has to wait for the consumer.  It knows
consumer groups of one member, no logins, no admin calls and no look-up by time, answers an empty fetch only when the
fetch's wait is over, and lets a group that was left be joined again a session minus one second later.
"""

import ctypes
import importlib.util
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

RETAINED_BYTES = 5 * 1_048_576
"""Of one partition, with the framing of its batches."""
REBALANCE_DELAY_MS = 100
"""The library waits 3 s for more members by default."""

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH = 0, 1, 2, 3, 8, 9
FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 10, 11, 12, 13, 14
"""Kafka's numbers of its operations, for ``MockCluster.fail``."""

_PRODUCER = 0
_ERROR_BYTES = 512

_SIGNATURES: dict[str, tuple[Any, Sequence[Any]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, ()),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "rd_kafka_new": (ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)),
    "rd_kafka_mock_cluster_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "rd_kafka_mock_topic_create": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        (ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)),
    ),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
}


class KafkaUnavailable(Exception):
    """There is no Kafka cluster in this process; the text says why and what to do."""


def library_files() -> Sequence[Path]:
    """Where the wheel of confluent-kafka keeps librdkafka: beside the package, or inside it (macOS)."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or not found.origin:
        return ()
    package = Path(found.origin).parent
    folders = (package.parent / "confluent_kafka.libs", package / ".dylibs")
    return [file for folder in folders for file in sorted(folder.glob("librdkafka*"))]


def load(files: Sequence[Path] | None = None) -> Any:
    """librdkafka with every symbol that is used here; raises KafkaUnavailable."""
    files = library_files() if files is None else files
    if not files:
        raise KafkaUnavailable(
            "The demo's Kafka needs librdkafka from the confluent-kafka wheel, which is not installed: "
            "pip install 'esm[demo]'."
        )
    try:
        library = ctypes.CDLL(str(files[0]))
        for name, (answer, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = answer, list(arguments)
    except (OSError, AttributeError) as error:
        raise KafkaUnavailable(
            f"The demo's Kafka needs the mock cluster of librdkafka; {files[0].name} of the confluent-kafka wheel does "
            f"not offer it ({error}): install the version of constraints.txt."
        ) from error
    return library


class MockCluster:
    """A cluster on free ports of 127.0.0.1 that lives as long as its context.  Entering raises KafkaUnavailable."""

    def __init__(self, brokers: int = 1) -> None:
        self.brokers = brokers
        self._library: Any = None
        self._client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> Self:
        self._library = library = load()
        failed = ctypes.create_string_buffer(_ERROR_BYTES)
        settings = library.rd_kafka_conf_new()
        # The client that carries the cluster connects to nothing and says nothing.
        for name, value in ((b"log_level", b"0"), (b"bootstrap.servers", b"127.0.0.1:1")):
            library.rd_kafka_conf_set(settings, name, value, failed, _ERROR_BYTES)
        self._client = library.rd_kafka_new(_PRODUCER, settings, failed, _ERROR_BYTES)
        if not self._client:
            raise KafkaUnavailable(f"librdkafka did not start: {failed.value.decode(errors='replace')}.")
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, self.brokers)
        if not self._cluster:
            self._close()
            raise KafkaUnavailable("librdkafka did not start its mock cluster: are there ports free on 127.0.0.1?")
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, REBALANCE_DELAY_MS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        if self._client:
            self._library.rd_kafka_destroy(self._client)
        self._cluster = self._client = None

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:port``, comma-separated."""
        found: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return found.decode()

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create an empty topic."""
        failed = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if failed:
            raise ValueError(f"the topic {name} could not be made: error {failed} of librdkafka")

    def fail(self, operation: int, *errors: int) -> None:
        """Answer the next requests of ``operation`` with these errors of Kafka, one each; 0 lets one pass."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, operation, len(errors), codes)

    def set_down(self, broker: int = 1) -> None:
        """End all connections of a broker (from 1) and accept none."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def set_up(self, broker: int = 1) -> None:
        """Have it back, with all it holds."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)

    @asynccontextmanager
    async def producer(self) -> "AsyncGenerator[AIOKafkaProducer]":
        """A producer of bytes for this cluster."""
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()
