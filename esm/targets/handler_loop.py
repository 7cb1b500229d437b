"""An event loop of its own for async handlers, in one daemon thread: one that blocks it stops no lease."""

import asyncio
import threading
from collections.abc import Callable, Coroutine


class HandlerLoop:
    """One loop, started with the first handler."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, work: Callable[[], Coroutine[object, object, None]]) -> Callable[[], None]:
        """Run ``work()``, which must not raise, as a task of the loop; the answer cancels it, from any thread."""
        loop = self._running()
        task: asyncio.Task[None] | None = None

        def start() -> None:
            nonlocal task
            task = loop.create_task(work())
            self._tasks.add(task)  # a loop keeps only weak references
            task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            if task is not None:
                task.cancel()

        loop.call_soon_threadsafe(start)
        return lambda: _soon(loop, cancel)

    def close(self) -> None:
        """Cancel what runs and end the loop, as soon as its handlers let it.  Returns at once."""
        if self._loop is not None:
            _soon(self._loop, self._loop.stop)
            self._loop = None

    def ended(self) -> bool:
        """Whether the thread is gone, or never was."""
        return self._thread is None or not self._thread.is_alive()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            # Twice at most: a handler that swallows its cancellation does not hold up the end.
            for _ in range(2):
                if tasks := set(self._tasks):
                    for task in tasks:
                        task.cancel()
                    loop.run_until_complete(asyncio.wait(tasks, timeout=1))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            if self._tasks:
                return  # closing a loop under a running task would only add noise to its end
            loop.close()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return  # the loop was closed meanwhile: what was to be stopped has ended
