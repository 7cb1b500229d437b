"""Certificates of the system, read when somebody needs them.

aiohttp reads them twice when it is imported, 50 ms of CPU, for connections that most workers never make: AWS is trusted
by certificates of its own.
"""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class TrustingLater(ssl.SSLContext):
    """A context that reads what the system trusts when it is used first."""

    _pending = True

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """See SSLContext: asyncio and uvloop call this one."""
        self._trust()
        return super().wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """See SSLContext."""
        self._trust()
        return super().wrap_socket(*args, **options)

    def _trust(self) -> None:
        if self._pending and self.verify_mode is not ssl.CERT_NONE:
            self._pending = False
            self.set_default_verify_paths()


@contextmanager
def trusting_later() -> Generator[None]:
    """Contexts that are told inside to trust what the system trusts do so when they are used first."""

    def postpone(context: ssl.SSLContext) -> None:
        if type(context) is ssl.SSLContext:
            context.__class__ = TrustingLater
        elif not isinstance(context, TrustingLater):
            super(ssl.SSLContext, context).set_default_verify_paths()

    name = "set_default_verify_paths"  # inherited, so there is nothing to put back
    setattr(ssl.SSLContext, name, postpone)
    try:
        yield
    finally:
        delattr(ssl.SSLContext, name)
