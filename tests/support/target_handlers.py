"""Handlers that do what a script says: the Python callables of the contract of targets."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from esm.targets.lambda_context import LambdaContext


@dataclass(frozen=True)
class Seen:
    """What arrived behind a target; empty text where it does not hand that on."""

    event: object
    request_id: str
    trace: str


class Broken(Exception):
    """What a function raises by script."""


class Script:
    """What is done with each event behind a target, whatever the target is."""

    def __init__(self) -> None:
        self.reply: object = None
        self.raw: bytes | None = None
        """What is answered in place of ``reply`` by targets whose answers are bytes."""
        self.fails = False
        self.hangs = False
        self.seen: list[Seen] = []
        self.arrived = anyio.Event()
        self.released = threading.Event()
        """Lets the threads that hang return."""
        self._loop = asyncio.get_running_loop()

    def note(self, event: object, request_id: str, trace: str) -> None:
        """An event arrived, in any thread.  Raises Broken by script."""
        self.seen.append(Seen(event, request_id, trace))
        self._loop.call_soon_threadsafe(self.arrived.set)
        if self.fails:
            raise Broken("poison")

    def body(self) -> bytes:
        """The answer of targets that answer bytes."""
        return json.dumps(self.reply).encode() if self.raw is None else self.raw


_scripts: list[Script] = []


@contextmanager
def playing(script: Script) -> Iterator[None]:
    """Let the handlers follow ``script``."""
    _scripts.append(script)
    try:
        yield
    finally:
        script.released.set()
        _scripts.remove(script)


def plain(event: object, context: LambdaContext) -> object:
    """A plain handler."""
    script = _scripts[-1]
    hangs = script.hangs  # before the loop hears that the event arrived
    script.note(event, context.aws_request_id, context.trace_id)
    if hangs:
        script.released.wait(50)
    return script.reply


async def coroutine(event: object, context: LambdaContext) -> object:
    """An async handler."""
    script = _scripts[-1]
    script.note(event, context.aws_request_id, context.trace_id)
    if script.hangs:
        await asyncio.get_running_loop().create_future()
    return script.reply
