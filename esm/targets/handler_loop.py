"""An event loop of its own for async handlers, in one daemon thread: one that blocks it stops no lease."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine

STOP_SECONDS = 1.0
"""How long each of two cancellations of what still runs is waited for."""


class HandlerLoop:
    """One loop, started with the first handler."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self._closing = False
        self._ended: Callable[[], None] = _nothing
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(
        self, work: Callable[[], Coroutine[object, object, None]], ended: Callable[[], None]
    ) -> Callable[[], None]:
        """Run ``work()`` as a task of the loop; what is answered cancels it, from any thread.

        ``ended`` is called in the loop's thread once the task is over, also when it was cancelled before it began.
        """
        loop = self._running()
        task: asyncio.Task[None] | None = None

        def start() -> None:
            nonlocal task
            task = loop.create_task(work())
            self._tasks.add(task)  # a loop keeps only weak references
            task.add_done_callback(over)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            ended()

        def cancel() -> None:
            if task is not None:
                task.cancel()

        loop.call_soon_threadsafe(start)
        return lambda: _soon(loop, cancel)

    def close(self, ended: Callable[[], None]) -> None:
        """Cancel what runs and end the loop, as soon as its handlers let it; then ``ended`` is called, in its thread.

        Returns at once.
        """
        with self._starting:
            self._closing = True
            loop, self._loop, self._ended = self._loop, None, ended
        if loop is None:
            ended()
        else:
            _soon(loop, loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._closing:
                raise RuntimeError(f"{self._name} is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True).start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._closing:
            # SystemExit of a task that a handler started leaves here; the other handlers go on.
            with contextlib.suppress(BaseException):
                loop.run_forever()
        with contextlib.suppress(BaseException):
            self._stop_tasks(loop)
        asyncio.set_event_loop(None)
        if not self._tasks:  # closing a loop under a running task would only add noise to its end
            loop.close()
        self._ended()

    def _stop_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        # Twice at most: a handler that swallows its cancellation does not hold up the end.
        for _ in range(2):
            if tasks := set(self._tasks):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())


def _nothing() -> None: ...


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: what was to be stopped has ended
        loop.call_soon_threadsafe(call)
