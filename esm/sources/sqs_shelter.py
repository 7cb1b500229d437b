"""Work that outlives whoever began it: receives that must not be cut short, deletes, releases."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup


class Shelter:
    """Tasks of a source that a cancellation of a lane does not reach: they end by themselves or by ``close``."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._scopes: set[anyio.CancelScope] = set()
        self._closed = False

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` beside the caller."""
        self._tasks.start_soon(self._run, work)

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            if self._closed:
                scope.cancel()
            try:
                await work()
            finally:
                self._scopes.discard(scope)

    def close(self) -> None:
        """End every task now, and those that are started later as soon as they wait."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()
