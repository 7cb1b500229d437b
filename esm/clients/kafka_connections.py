"""Connections that aiokafka forgets: a ``start`` that is cancelled leaves the one it was asking behind, unclosed."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_starting: ContextVar["Opened | None"] = ContextVar("kafka_opened", default=None)


class Opened:
    """The connections that were opened while ``noted``."""

    def __init__(self) -> None:
        self._connections: list[Any] = []
        self._noting = False

    @contextmanager
    def noted(self) -> Generator[None]:
        """Note each connection that is opened in this block; nothing that its tasks open later."""
        _watch()
        token = _starting.set(self)
        self._noting = True
        try:
            yield
        finally:
            self._noting = False
            _starting.reset(token)

    def note(self, connection: Any) -> None:
        """A connection was opened."""
        if self._noting:
            self._connections.append(connection)

    def forget(self) -> None:
        """All is well: the library closes what it opened."""
        self._connections.clear()

    def close(self) -> None:
        """Close all; one that is closed already stays so."""
        while self._connections:
            self._connections.pop().close()


def _watch() -> None:
    from aiokafka import client

    module: Any = client
    create: Callable[..., Awaitable[Any]] = module.create_conn
    if getattr(create, "is_watched", False):
        return

    async def create_conn(*args: Any, **options: Any) -> Any:
        connection = await create(*args, **options)
        if (opened := _starting.get()) is not None:
            opened.note(connection)
        return connection

    create_conn.is_watched = True  # type: ignore[attr-defined]  # a mark, so that it is wrapped once
    module.create_conn = create_conn
