"""A Python callable of this process as a target.

Plain handlers run in threads, async ones on a loop of their own, so that a handler that blocks stops no lease and no
other mapping.  A handler cannot be killed: when it times out the attempt has failed, and ``Failed.still_running`` is
set when it really returns (an async one is asked to stop by cancelling it).  One that never returns holds its slot
and its key, and does not hold up the end of the process: its thread is a daemon, and a worker leaves by ``os._exit``
after its grace.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Refused
from esm.ports import Invocation, TimeLimit
from esm.targets.answers import DEFAULT_SECONDS
from esm.targets.handler_loop import HandlerLoop
from esm.targets.handler_threads import HandlerThreads
from esm.targets.handlers import Handler, finish, is_async, load_handler, perform, perform_async
from esm.targets.lambda_context import TRACE_ID, LambdaContext

__all__ = ["PythonTarget"]

CLOSE_SECONDS = 1.0
"""How long closing waits for async handlers that were cancelled."""

T = TypeVar("T")


class _Pending(Generic[T]):
    """A result that another thread will bring into this loop."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.result: T | None = None
        self._loop = asyncio.get_running_loop()  # anyio's way back would block the other thread until it is heard

    def resolve(self, result: T) -> None:
        """To be called once, in another thread."""
        self.result = result
        try:
            self._loop.call_soon_threadsafe(self.done.set)
        except RuntimeError:
            return  # the worker's loop was closed: nobody waits any more


class PythonTarget:
    """``module:function(event, context)``; open it with ``async with``."""

    def __init__(
        self, handler: str, *, name: str, function_arn: str, concurrency: int, seconds: float | None = None
    ) -> None:
        """``concurrency`` bounds the threads; ``seconds`` is the configured timeout, None = 60."""
        self._handler_name = handler
        self._name = name
        self._function_arn = function_arn
        self._seconds = seconds
        self._concurrency = concurrency
        self._threads = HandlerThreads(f"handler-{name}", max(1, concurrency))
        self._loop = HandlerLoop(f"handlers-{name}")
        self._handler: Handler | None = None
        self._async = False
        self._loading = anyio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.close()
        ended: _Pending[bool] = _Pending()
        self._loop.close(lambda: ended.resolve(True))
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await ended.done.wait()

    @property
    def function_arn(self) -> str:
        """The ARN failure records name, made up of the target's name."""
        return self._function_arn

    @property
    def role(self) -> str | None:
        """None: it runs as nobody that AWS knows."""
        return None

    async def time_limit(self) -> TimeLimit:
        """The configured timeout, else 60 s.  Raises NotReady when there is no such handler."""
        await self._load()
        return TimeLimit(DEFAULT_SECONDS if self._seconds is None else self._seconds, self._seconds)

    async def invoke(self, call: Invocation) -> Outcome:
        """Call the handler; Refused where there is none, or where all its threads are held by timed-out ones."""
        try:
            handler = await self._load()
        except NotReady as error:
            return Refused(str(error))
        pending: _Pending[Outcome] = _Pending()
        stop = self._start(handler, call, pending)
        if stop is None:
            return Refused(
                f"All {self._concurrency} threads of handler {self._handler_name} are taken.", throttled=True
            )
        try:
            with anyio.move_on_after(call.seconds):
                await pending.done.wait()
        finally:
            if not pending.done.is_set():
                stop()
        if pending.result is not None and pending.done.is_set():
            return pending.result
        return Failed(
            f"Handler {self._handler_name} did not return within {call.seconds:g} s.",
            timed_out=True,
            still_running=pending.done,
        )

    def _start(self, handler: Handler, call: Invocation, pending: _Pending[Outcome]) -> Callable[[], None] | None:
        """Start the handler; the answer asks it to stop.  None: there was no thread for it."""
        deadline = time.monotonic() + call.seconds
        context = LambdaContext(self._name, self._function_arn, call.request_id, deadline, call.trace)
        if self._async:
            return self._await(lambda: perform_async(handler, call.event, context), call.trace, pending)

        def work() -> Callable[[], None]:
            TRACE_ID.set(call.trace)
            outcome = perform(handler, call.event, context)
            if isinstance(outcome, Awaitable):  # a plain function that wraps an async one
                self._await(lambda: finish(outcome), call.trace, pending)
                return lambda: None
            return lambda: pending.resolve(outcome)

        return (lambda: None) if self._threads.submit(work) else None

    def _await(
        self, work: Callable[[], Awaitable[Outcome]], trace: str, pending: _Pending[Outcome]
    ) -> Callable[[], None]:
        outcome: Outcome = Failed(f"Handler {self._handler_name} was cancelled before it began.")

        async def run() -> None:
            nonlocal outcome
            TRACE_ID.set(trace)
            outcome = await work()

        return self._loop.submit(run, lambda: pending.resolve(outcome))

    async def _load(self) -> Handler:
        """The handler, imported in a thread when it is first needed; a failed import is tried again each time."""
        if self._handler is not None:
            return self._handler
        async with self._loading:
            if self._handler is None:
                self._handler = await self._import()
                self._async = is_async(self._handler)
            return self._handler

    async def _import(self) -> Handler:
        pending: _Pending[Handler | NotReady] = _Pending()

        def work() -> Callable[[], None]:
            try:
                found: Handler | NotReady = load_handler(self._handler_name)
            except NotReady as error:
                found = error
            return lambda: pending.resolve(found)

        if not self._threads.submit(work):
            raise NotReady(
                f"Handler {self._handler_name}: all {self._concurrency} threads are taken, none can import it."
            )
        await pending.done.wait()
        assert pending.result is not None
        if isinstance(pending.result, NotReady):
            raise pending.result
        return pending.result
