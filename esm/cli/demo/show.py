"""The demo itself: makes the sources, runs the worker, sends the records, counts, and says what came of it."""

import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import structlog
from msgspec import Struct
from rich.console import Console

from esm.assembly import Assembled, assembled
from esm.cli.demo.scenes import FAILED, SCENES, Kafka, Kinesis, Queue, Table, record_id
from esm.cli.demo.screen import LiveScreen, NoScreen, PlainScreen, sentence_of, table_of
from esm.cli.demo.story import Story
from esm.cli.output import Output, complain, say
from esm.config.models import Config
from esm.sandbox import Sandbox
from esm.sandbox.kafka import KafkaUnavailable

CHUNKS = 80
CHUNK_SECONDS = 0.1
"""Records are sent in so many parts, so far apart: long enough to watch."""
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 120.0
"""Without any change for so long, what still waits counts as lost."""
LONG_POLL_SECONDS = 30.0

AScene = Queue | Kinesis | Table | Kafka


class Summary(Struct, frozen=True):
    """How it ended."""

    sources: dict[str, dict[str, int]]
    text: str
    missing: bool = False
    """A source that was asked for could not be shown."""


class Show:
    """One run of the demo."""

    def __init__(self, names: Sequence[str], records: int, output: Output, keep_running: bool) -> None:
        self._names, self._records, self._output, self._keep = names, records, output, keep_running
        self._scenes: list[AScene] = []
        self._missing = False
        self._story = Story()

    async def run(self) -> Summary:
        """From nothing to the summary; everything that was started has ended then."""
        structlog.configure(processors=[self._story], cache_logger_on_first_use=False)
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="esm-demo-"))
            sandbox = await stack.enter_async_context(Sandbox.open())
            sandbox.sqs.create_queue(FAILED)
            await self._open_scenes(sandbox, stack)
            config = Config.model_validate(self._config(sandbox, Path(folder)))
            async with assembled(config) as live, self._working(live, sandbox):
                await self._watch()
                summary = self._summary()
                if self._keep:
                    await self._stay(sandbox, summary)
        return summary

    def _summary(self) -> Summary:
        """Of the demo's own records: those that a person sends afterwards are shown, not counted."""
        tallies = [scene.tally for scene in self._scenes]
        return Summary({tally.name: tally.summary() for tally in tallies}, sentence_of(tallies), self._missing)

    async def _open_scenes(self, sandbox: Sandbox, stack: AsyncExitStack) -> None:
        for name in self._names:
            scene = SCENES[name](sandbox, self._records)
            try:
                await stack.enter_async_context(scene.opened())
            except KafkaUnavailable as error:
                self._missing = True
                complain(f"WITHOUT KAFKA: {error}")
                continue
            self._scenes.append(scene)

    def _config(self, sandbox: Sandbox, folder: Path) -> dict[str, object]:
        return {
            "worker": {"fleet": "demo", "id": "demo"},
            "aws": {"region": "eu-west-1", "endpoint_url": sandbox.url},
            "leases": {"sqlite": {"path": str(folder / "esm.db")}},
            "mappings": [scene.mapping() for scene in self._scenes],
        }

    @asynccontextmanager
    async def _working(self, live: Assembled, sandbox: Sandbox) -> AsyncGenerator[None, None]:
        """The worker at work; its soft stop waits for no long poll, since the sandbox's clock can jump."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.worker.run)
            try:
                yield
            finally:
                live.worker.stop()
            sandbox.clock.advance(LONG_POLL_SECONDS)

    async def _watch(self) -> None:
        """Send, look and show until every record is accounted for, or nothing happens any more."""
        with self._screen() as screen:
            async with anyio.create_task_group() as tasks:
                for scene in self._scenes:
                    tasks.start_soon(self._send, scene)
                before, since = -1, anyio.current_time()
                while anyio.current_time() - since < PATIENCE_SECONDS:
                    await anyio.sleep(LOOK_SECONDS)
                    for scene in self._scenes:
                        scene.look()
                    screen.show()
                    if self._done():
                        break
                    state = self._state()
                    if state != before:
                        before, since = state, anyio.current_time()
                tasks.cancel_scope.cancel()
        if self._output is Output.TEXT:
            Console(width=None if sys.stdout.isatty() else 80).print(table_of([each.tally for each in self._scenes]))
            say("")

    def _screen(self) -> LiveScreen | PlainScreen | NoScreen:
        if self._output is Output.JSON:
            return NoScreen()
        if sys.stdout.isatty():
            return LiveScreen(Console(), [scene.tally for scene in self._scenes], self._story)
        return PlainScreen(say, self._story)

    async def _send(self, scene: AScene) -> None:
        name = scene.tally.name
        size = -(-self._records // CHUNKS)
        for start in range(0, self._records, size):
            numbers = range(start, min(start + size, self._records))
            await scene.send([record_id(name, number) for number in numbers])
            await anyio.sleep(CHUNK_SECONDS)

    def _done(self) -> bool:
        tallies = [scene.tally for scene in self._scenes]
        return all(len(tally.sent) == self._records and tally.waiting == 0 for tally in tallies)

    def _state(self) -> int:
        return sum(
            len(scene.tally.sent) + scene.tally.deliveries.total() + len(scene.tally.discarded)
            for scene in self._scenes
        )

    async def _stay(self, sandbox: Sandbox, summary: Summary) -> None:
        """Leave everything up until Ctrl-C, and say how to send a record."""
        complain(summary.text)
        complain(f"The sandbox listens at {sandbox.url}. With AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo")
        complain("AWS_DEFAULT_REGION=eu-west-1 set, one of these sends a record of your own:")
        for scene in self._scenes:
            complain(f"  {scene.how_to_send()}")
        complain('"kind": "poison" in place of "fine" makes a record that no function can bear.  Ctrl-C ends it.')
        from signal import SIGINT, SIGTERM

        with anyio.open_signal_receiver(SIGINT, SIGTERM) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tell_more)
                async for _ in signals:
                    tasks.cancel_scope.cancel()
                    break

    async def _tell_more(self) -> None:
        counted, told = self._state(), PlainScreen(say, self._story)
        told.skip()
        while True:
            await anyio.sleep(LOOK_SECONDS)
            for scene in self._scenes:
                scene.look()
            told.show()
            if (state := self._state()) != counted:
                counted = state
                say(", ".join(f"{scene.tally.name}: {scene.tally.delivered:,} delivered" for scene in self._scenes))
