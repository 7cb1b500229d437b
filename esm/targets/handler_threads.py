"""Threads for handlers that block: bounded, reused, and never in the way of the end of the process.

Not anyio's worker threads: a limiter forgets a thread that was abandoned, and the interpreter waits for its end.  These
are daemons, counted until they really return; a process that leaves with some of them running does so by ``os._exit``.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], Callable[[], None]]
"""Runs in a thread; what it returns is called there once the thread counts as idle again.  Neither may raise."""


class HandlerThreads:
    """At most ``limit`` daemon threads, started when needed."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads = 0

    def submit(self, work: Work) -> bool:
        """Run ``work`` in a thread, at once.  False: all threads are busy, nothing was started."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                thread = threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True)
                thread.start()
            else:
                return False
            self._work.put(work)
        return True

    def close(self) -> None:
        """End the threads, each as soon as its work has returned."""
        with self._lock:
            for _ in range(self._threads):
                self._work.put(None)
            self._threads = self._idle = self._limit = 0

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            announce = work()
            # Idle first, announced second: who hears of the result may submit the next work at once.
            with self._lock:
                self._idle += 1
            announce()
            del work, announce  # an idle thread holds no event
