"""TLS of the AWS clients: the trusted certificates are read once for all of them, and only when one needs them.

aiobotocore reads them for each client, which takes 27 ms and 1 MiB each time, plain HTTP included.  It lets us choose
the class of its HTTP session; the method that is replaced there is not public, so aiobotocore is pinned below 3.11, and
the tests notice when it is not called any more.
"""

import ssl
from collections.abc import Callable
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession

Contexts = tuple[ssl.SSLContext, ssl.SSLContext | None]
"""For the endpoint, and for a proxy on the way to it."""

_build: Callable[[object, str | None], Contexts] = vars(AIOHTTPSession)["_build_ssl_contexts"]
_shared: dict[object, Contexts] = {}
"""By what is trusted: True, False, or the path of a bundle."""


class SharedTls(AIOHTTPSession):
    """An HTTP session that trusts what all others trust, with one and the same context."""

    _verify: bool | str
    _cert_file: Any

    def _build_ssl_contexts(self, proxy_url: str | None) -> Contexts:  # called in a thread: twice at once is harmless
        if proxy_url or self._cert_file:  # both change the contexts
            return _build(self, proxy_url)
        if self._verify not in _shared:
            _shared[self._verify] = _build(self, None)
        return _shared[self._verify]


class PlainHttp(AIOHTTPSession):
    """An HTTP session for an endpoint without TLS: its context trusts nobody, so there is nothing to read."""

    def _build_ssl_contexts(self, proxy_url: str | None) -> Contexts:
        return _build(self, proxy_url) if proxy_url else (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None)
