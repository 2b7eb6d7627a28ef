"""`smtp-async catch`: keep mail instead of delivering it, and show it on a page."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..client.client import SMTPClient
from ..client.options import ClientOptions
from ..errors import InvalidArgument
from ..tls.stores import CertificateStore
from .log import log_on
from .option_groups import grouped
from .options import KEY_PASSWORD_VARIABLE, PASSWORD_VARIABLE, Access
from .output import Output
from .server import client_for
from .web_options import WebOptions

if TYPE_CHECKING:
    from ..web.catcher.catching import CatcherOptions

__all__ = ["catch", "until_stopped"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class TLS(Enum):
    """When the server speaks TLS."""

    NONE = "none"
    OFFER = "offer"
    REQUIRE = "require"
    IMPLICIT = "implicit"


class Auth(Enum):
    """Whether clients log in."""

    NONE = "none"
    OFFER = "offer"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The SMTP service: where it is, its certificate, and whether clients log in."""

    smtp: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port of SMTP.")] = 1025
    smtp_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address on which SMTP is served.")
    ] = "127.0.0.1"
    tls: Annotated[
        TLS, typer.Option(help="STARTTLS that is offered or required, or TLS from the first byte.")
    ] = TLS.NONE
    cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The server's certificate and key, in PEM or PKCS#12; without it, a certificate for localhost is made "
            f"that no client trusts. The password of the key is read from {KEY_PASSWORD_VARIABLE}.",
        ),
    ] = None
    auth: Annotated[
        Auth, typer.Option(help="Whether clients may or must log in; any name and any password will do.")
    ] = Auth.NONE

    def context(self) -> ssl.SSLContext | None:
        """Return the settings of TLS, None without TLS.

        Raises:
            InvalidArgument: there is a certificate, but no TLS.
            CertificateStoreError: the certificate cannot be read.
            TLSError: the key does not fit.
        """
        if self.tls is TLS.NONE:
            if self.cert is not None:
                raise InvalidArgument("--cert needs --tls")
            return None
        if self.cert is None:
            from ..web.catcher.certificate import own_context

            return own_context()
        identity = CertificateStore.load(self.cert, os.environ.get(KEY_PASSWORD_VARIABLE)).identity()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        identity.load_into(context)
        return context


@grouped
def catch(
    page: WebOptions,
    service: Service,
    web: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port of the page.")] = 8025,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder that keeps the messages, so that the next run shows them, too."
        ),
    ] = None,
    relay: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A real server, to which the page can send a message on; a password is read from "
            f"{PASSWORD_VARIABLE}, or asked for.",
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many messages are held; the oldest go first.")
    ] = 10_000,
) -> None:
    """Catch mail: a server for development that delivers nothing, and a page that shows what it got.

    Point your program to port 1025, and your browser to http://127.0.0.1:8025/.
    """
    output = Output()
    with output.errors_as_sentences(), log_on(output):
        address = page.address(web)
        from ..web.catcher.catching import CatcherOptions

        options = CatcherOptions(
            web=address,
            host=service.smtp_host,
            port=service.smtp,
            ssl_context=service.context(),
            implicit_tls=service.tls is TLS.IMPLICIT,
            require_tls=service.tls is TLS.REQUIRE,
            login=service.auth is Auth.OFFER,
            require_login=service.auth is Auth.REQUIRE,
            most=most,
            keep=keep,
            relay=None if relay is None else _relay(relay),
        )
        asyncio.run(_catch(output, options))


def _relay(url: str) -> SMTPClient:
    return client_for(url, Access(), ClientOptions())


async def _catch(output: Output, options: CatcherOptions) -> None:
    from ..web.catcher.catching import catching

    async with contextlib.AsyncExitStack() as stack:
        if options.relay is not None:
            await stack.enter_async_context(options.relay)
        catcher = await stack.enter_async_context(catching(options))
        output.success(f"SMTP on {catcher.server.host}:{catcher.server.port}")
        output.success(f"Page on {catcher.url}")
        # Who reads a pipe wants the ports now.
        output.out.file.flush()
        if len(catcher.mailbox):
            output.line(f"{len(catcher.mailbox):,} messages were kept.", "dim")
        await until_stopped()


async def until_stopped() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stopped = asyncio.Event()
    with _handled(stopped):
        await stopped.wait()


@contextlib.contextmanager
def _handled(stopped: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    handled = []
    for number in _SIGNALS:
        # Without signal handlers in the loop, as on Windows, Ctrl-C is a KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
