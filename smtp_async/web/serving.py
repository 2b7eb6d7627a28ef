"""Serves a page in the event loop of a command that does other things, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from ..errors import InvalidArgument
from ..model.secret import Secret
from .guard import Guard, is_loopback

__all__ = ["Address", "cannot_serve", "serving"]

#: Seconds that an answer has when the page is closed.
_GRACE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a page is served, and to whom.

    Attributes:
        port: 0 for a free one.
        host: the address to listen on.
        names: host names by which the page may be addressed, besides `localhost`, addresses and `host`.
        token: required of each visitor; None makes one where other machines can reach the page.
    """

    port: int
    host: str = "127.0.0.1"
    names: Collection[str] = ()
    token: Secret | None = None


class _Server(uvicorn.Server):
    """Leaves the signals to the command, and no socket behind."""

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until `should_exit` is set."""
        try:
            await self.serve(sockets=[listener])
        finally:
            # Told to exit while it starts, uvicorn returns without closing what it has opened.
            for one in getattr(self, "servers", ()):
                one.close()
            listener.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, address: Address, *, closing: Callable[[], None]) -> AsyncIterator[str]:
    """Serve a page inside the context, which is given the URL to open, the token included.

    Args:
        app: the program.
        address: where.
        closing: called before the end, so that answers without end come to one.

    Raises:
        InvalidArgument: the address cannot be listened on.
    """
    token = address.token
    if token is None and not is_loopback(address.host):
        token = Secret(secrets.token_urlsafe(24))
    listener = _listener(address)
    port = listener.getsockname()[1]
    guarded = Guard(app, names=(*address.names, address.host, socket.gethostname()), token=token)
    config = uvicorn.Config(
        guarded, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=_GRACE,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.create_task(server.serve_on(listener), name="smtp_async page")
    try:
        yield _url(address.host, port, token)
    finally:
        closing()
        server.should_exit = True
        # If this wait is cancelled, the server still ends, and closes its sockets.
        await asyncio.wait({task})


def _listener(address: Address) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family)
    except (OSError, OverflowError) as error:
        raise cannot_serve("the page", address.host, address.port, error) from error


def cannot_serve(what: str, host: str, port: int, error: OSError | OverflowError) -> InvalidArgument:
    """Return the error that an address cannot be listened on."""
    # What asyncio raises has a sentence of its own, with the reason behind it.
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number is not None and number > 0 else str(error)
    return InvalidArgument(f"{what} cannot be served on {host}, port {port}: {reason.lower()}")


def _url(host: str, port: int, token: Secret | None) -> str:
    # The unspecified address is none to open.
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    query = "" if token is None else f"?token={token.reveal()}"
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/{query}"
