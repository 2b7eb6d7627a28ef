"""Puts the catcher together: server, mailbox, faults and page."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...client.client import SMTPClient
from ..live import Changes
from ..serving import Address, cannot_serve, serving
from .app import catcher_app
from .faults import Faults
from .keep import Folder
from .mailbox import Keeper, Mailbox
from .relay import relay_to
from .server import CatchingServer

__all__ = ["Catcher", "CatcherOptions", "catching"]

#: Messages that are held by default.
MOST_MESSAGES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CatcherOptions:
    """What a catcher does.

    Attributes:
        web: where the page is served.
        host, port: where SMTP is served.
        ssl_context: the certificate; None for no TLS.
        implicit_tls: TLS from the first byte instead of STARTTLS.
        require_tls: refuse mail before STARTTLS.
        login: offer AUTH, and take any name and password.
        require_login: refuse mail before AUTH.
        most: how many messages are held.
        keep: a folder that keeps them beyond the run.
        relay: a client of the server to which messages can be sent on.
    """

    web: Address
    host: str = "127.0.0.1"
    port: int = 1025
    ssl_context: ssl.SSLContext | None = None
    implicit_tls: bool = False
    require_tls: bool = False
    login: bool = False
    require_login: bool = False
    most: int = MOST_MESSAGES
    keep: Path | None = None
    relay: SMTPClient | None = None


class Catcher(NamedTuple):
    """A catcher that runs.

    Attributes:
        url: the page, with its token if it has one.
        server: the SMTP server.
        mailbox: the messages.
        faults: what goes wrong on purpose.
    """

    url: str
    server: CatchingServer
    mailbox: Mailbox
    faults: Faults


@contextlib.asynccontextmanager
async def catching(options: CatcherOptions) -> AsyncIterator[Catcher]:
    """Catch mail inside the context.

    Raises:
        InvalidArgument: the page or SMTP cannot be served where it is wanted.
        FileError: the folder cannot be used.
    """
    changes = Changes()
    mailbox = _mailbox(options, changes)
    server = CatchingServer(
        mailbox.deliver,
        host=options.host,
        port=options.port,
        ssl_context=options.ssl_context,
        implicit_tls=options.implicit_tls,
        require_tls=options.require_tls,
        any_login=options.login or options.require_login,
        require_auth=options.require_login,
        hostname="catcher.invalid",
    )
    faults = Faults(server)
    relay = None if options.relay is None else relay_to(options.relay)
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(server)
        except (OSError, OverflowError) as error:
            raise cannot_serve("SMTP", options.host, options.port, error) from error
        app = catcher_app(mailbox, faults, changes, about=_about(options, server), relay=relay)
        page = serving(app, options.web, closing=changes.close)
        yield Catcher(await stack.enter_async_context(page), server, mailbox, faults)


def _mailbox(options: CatcherOptions, changes: Changes) -> Mailbox:
    if options.keep is None:
        return Mailbox(most=options.most, changed=changes.announce)
    folder = Folder(options.keep)
    mailbox = Mailbox(most=options.most, keeper=Keeper(folder.save, folder.forget), changed=changes.announce)
    mailbox.restore(folder.messages())
    return mailbox


def _about(options: CatcherOptions, server: CatchingServer) -> dict[str, Any]:
    tls = "implicit" if options.implicit_tls else "required" if options.require_tls else "offered"
    return {
        "smtp": f"{server.host}:{server.port}",
        "tls": tls if options.ssl_context is not None else "none",
        "login": "required" if options.require_login else "offered" if options.login else "none",
        "kept": options.keep is not None,
        "most": options.most,
    }
