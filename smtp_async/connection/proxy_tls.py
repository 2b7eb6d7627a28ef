"""The TLS context for HTTPS proxies, shared by the connections of a client."""

from __future__ import annotations

import asyncio
import ssl

__all__ = ["ProxyTLS"]


class ProxyTLS:
    """The TLS context for HTTPS proxies that have none of their own; made in a thread when it is first needed."""

    __slots__ = ("_context",)

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the context: the system's authorities, names verified, TLS 1.2 or later."""
        if self._context is None:
            self._context = await asyncio.to_thread(_proxy_context)
        return self._context


def _proxy_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
