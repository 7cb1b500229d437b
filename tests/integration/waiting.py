"""Waiting for what a service of somebody else only tells when asked."""

from collections.abc import Awaitable, Callable

import anyio

SECONDS = 20.0


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Ask ``condition`` until it holds.  Raises TimeoutError after ``seconds``."""
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 - the service sets no event of ours
            await anyio.sleep(0.02)
