"""An HTTP target that remembers what arrived, in order, and does with it what a rule says."""

import base64
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import web
from msgspec import Struct

Event = dict[str, Any]


class Arrived(Struct, frozen=True):
    """One attempt: the mapping whose URL was called, and per record its lane, id and item identifier."""

    mapping: str
    records: Sequence[tuple[str, str, object]]

    @property
    def ids(self) -> list[str]:
        """What the records say, in order."""
        return [name for _, name, _ in self.records]


class Drop(Exception):
    """Raised by a rule: close the connection without an answer."""


Rule = Callable[[Arrived], Awaitable[object]]
"""What to do with an attempt: None or a JSON reply = success, a number = that HTTP status.  May raise Drop."""


async def accept(arrived: Arrived) -> object:
    """Success at once."""
    return None


class RecordingTarget:
    """Paths are names of mappings: ``url("orders")``."""

    def __init__(self) -> None:
        self.rule: Rule = accept
        self.arrived: dict[str, list[Arrived]] = defaultdict(list)
        """Attempts by mapping, in the order of their arrival."""
        self.accepted: dict[str, list[Arrived]] = defaultdict(list)
        """Those that were answered with success and without a report, in the order of their answers."""
        self.first_events: dict[str, Event] = {}
        """The first event of each mapping, as it came."""
        self.open = 0
        """Attempts that wait for their answer."""
        self.port = 0

    def url(self, mapping: str) -> str:
        """Where the events of ``mapping`` go to."""
        return f"http://127.0.0.1:{self.port}/{mapping}"

    def ids(self, mapping: str) -> list[str]:
        """Records that were accepted, repeats included."""
        return [name for arrived in self.accepted[mapping] for name in arrived.ids]

    def first_arrivals(self, mapping: str) -> dict[str, list[str]]:
        """Per lane the records that arrived, each once, in the order of their first arrival."""
        lanes: dict[str, dict[str, None]] = defaultdict(dict)
        for arrived in self.arrived[mapping]:
            for lane, name, _ in arrived.records:
                lanes[lane].setdefault(name)
        return {lane: list(names) for lane, names in lanes.items()}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One attempt."""
        event = json.loads(await request.read())
        arrived = Arrived(request.path.removeprefix("/"), _records(event))
        self.arrived[arrived.mapping].append(arrived)
        self.first_events.setdefault(arrived.mapping, event)
        self.open += 1
        try:
            answer = await self.rule(arrived)
        except Drop:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        finally:
            self.open -= 1
        if isinstance(answer, int):
            return web.Response(status=answer)
        if answer is None:
            self.accepted[arrived.mapping].append(arrived)
            return web.Response()
        return web.json_response(answer)


@asynccontextmanager
async def recording_target(port: int = 0) -> AsyncGenerator[RecordingTarget, None]:
    """The target, listening on 127.0.0.1 until the block ends."""
    target = RecordingTarget()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/{mapping}", target.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        target.port = runner.addresses[0][1]
        yield target
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _records(event: Event) -> list[tuple[str, str, object]]:
    if "records" in event:
        return [
            (lane, _id(base64.b64decode(each["value"])), {"partition": lane, "offset": each["offset"]})
            for lane, records in event["records"].items()
            for each in records
        ]
    return [_record(each) for each in event["Records"]]


def _record(record: Event) -> tuple[str, str, object]:
    if "kinesis" in record:
        kinesis = record["kinesis"]
        return record["eventID"].partition(":")[0], _id(base64.b64decode(kinesis["data"])), kinesis["sequenceNumber"]
    if "dynamodb" in record:
        image = record["dynamodb"]["NewImage"]
        shard = image["shard"]["S"] if "shard" in image else ""  # the event of a table names no shard
        name = numbered(shard, int(image["n"]["N"])) if "n" in image else image["pk"]["S"]
        return shard, name, record["dynamodb"]["SequenceNumber"]
    return "", _id(record["body"].encode()), record["messageId"]


def _id(data: bytes) -> str:
    """What a record says: shard and number of what the sandbox generates, else its text."""
    if not data.startswith(b"{"):
        return data.decode()
    generated = json.loads(data)
    return numbered(generated.get("shard", ""), generated["n"])


def numbered(shard: str, number: int) -> str:
    """The id of a generated record: these sort as they were made."""
    return f"{shard}:{number:06d}"
