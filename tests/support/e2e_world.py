"""A sandbox, a target and a folder: what an ``esm run`` of a test works with, and mappings for all of it."""

import json
import signal
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import msgspec

from esm.sandbox import Sandbox
from esm.sandbox.preset import STREAM_LABEL, add_table
from esm.sandbox.queues import Queue
from tests.support.e2e_target import RecordingTarget, recording_target
from tests.support.worker_process import LONG_POLL_SECONDS, WorkerProcess

ARN = "arn:aws:{service}:eu-west-1:123456789012:{name}"
FAILED = "failed"
"""The queue that failure records go to."""

Settings = dict[str, object]


class World:
    """Where one test lives."""

    def __init__(self, sandbox: Sandbox, target: RecordingTarget, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.sandbox, self.target, self.folder = sandbox, target, folder

    @property
    def lease_file(self) -> Path:
        """Where workers of this world keep their leases."""
        return self.folder / "var" / "esm.db"

    def config(self, *mappings: Settings, **sections: object) -> Settings:
        """A whole file."""
        aws = {"region": "eu-west-1", "endpoint_url": self.sandbox.url}
        return {"aws": aws, "mappings": list(mappings), **sections}

    # -- mappings; each is called like its source unless ``more`` says otherwise

    def queue(self, name: str = "orders", **more: object) -> Settings:
        """A mapping of a queue to the target."""
        return self._mapping(name, more) | {"event_source_arn": ARN.format(service="sqs", name=name)} | more

    def stream(self, name: str = "clicks", **more: object) -> Settings:
        """A mapping of a Kinesis stream."""
        arn = ARN.format(service="kinesis", name=f"stream/{name}")
        return self._ordered(name, more) | {"event_source_arn": arn} | more

    def table(self, name: str = "carts", **more: object) -> Settings:
        """A mapping of a table's stream, which ``make_table`` makes."""
        arn = ARN.format(service="dynamodb", name=f"table/{name}/stream/{STREAM_LABEL}")
        return self._ordered(name, more) | {"event_source_arn": arn} | more

    def topic(self, servers: str, name: str = "payments", **more: object) -> Settings:
        """A mapping of a Kafka topic."""
        source = {"endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers.split(",")}}
        return self._ordered(name, more) | {"self_managed_event_source": source, "topics": [name]} | more

    def _mapping(self, name: str, more: Mapping[str, object]) -> Settings:
        if "function_name" in more or "target" in more:
            return {"name": name}
        return {"name": name, "target": {"http": {"url": self.target.url(name), "timeout_in_seconds": 30}}}

    def _ordered(self, name: str, more: Mapping[str, object]) -> Settings:
        return self._mapping(name, more) | {"starting_position": "TRIM_HORIZON"}

    # -- sources

    def make_queue(self, name: str = "orders", visibility: int = 60) -> Queue:
        """An empty queue."""
        return self.sandbox.sqs.create_queue(name, VisibilityTimeout=visibility)

    def make_table(self, name: str = "carts", shards: int = 1) -> Any:
        """A table whose stream has the ARN that ``table`` names."""
        add_table(self.sandbox, f"{name}:{shards}")
        return self.sandbox.dynamodb.table(name)

    def failures(self) -> list[dict[str, Any]]:
        """The failure records in the destination."""
        return [json.loads(message.body) for message in self.sandbox.sqs.queue(FAILED).messages()]

    # -- leases, as the file has them

    def leases(self) -> dict[str, tuple[int, str | None, int | None]]:
        """Per shard: counter, owner, and the position through which it is settled."""
        with closing(sqlite3.connect(f"file:{self.lease_file}?mode=ro", uri=True, timeout=10)) as connection:
            rows = connection.execute("SELECT shard, counter, owner, mark FROM leases").fetchall()
        return {shard: (counter, owner, _through(mark)) for shard, counter, owner, mark in rows}

    # -- the end of a worker

    async def stop(self, worker: WorkerProcess) -> int:
        """SIGTERM, and the end of the long polls that it waits for; its exit code."""
        worker.signal(signal.SIGTERM)
        await worker.log("worker_stopping")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_polls)
            code = await worker.ended()
            tasks.cancel_scope.cancel()
        return code

    async def _end_polls(self) -> None:
        while True:
            self.sandbox.clock.advance(LONG_POLL_SECONDS)
            await anyio.sleep(0.1)


def _through(mark: str | None) -> int | None:
    through = msgspec.json.decode(mark)["through"] if mark else None
    return int(through[0]) if through else None


@asynccontextmanager
async def world_in(folder: Path) -> AsyncGenerator[World, None]:
    """A world whose workers run in ``folder``; it has the queue of failure records, nothing else."""
    async with Sandbox.open() as sandbox, recording_target() as target:
        sandbox.sqs.create_queue(FAILED)
        yield World(sandbox, target, folder)
