"""Importing what a worker is made of, without what libraries do on the side that it never needs."""

import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Generator[None]:
    """Import inside without looking for garbage, for rich, and for plugins of pydantic.

    structlog loads rich where it is installed, for tracebacks that we never show: 40 ms, 3 MiB; who wants rich later
    gets it.  pydantic looks for plugins in all that is installed: 5 ms.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _without("rich"), _environment("PYDANTIC_DISABLE_PLUGINS", "1"):
            yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _without(module: str) -> Generator[None]:
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own sign for: there is no such module
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def _environment(name: str, value: str) -> Generator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
