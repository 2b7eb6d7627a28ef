"""What is wrong with a server, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import SMTPError
from .opening import Route
from .protocol.extensions import NO_EXTENSIONS, Extensions
from .reply import Reply
from .tls.info import ConnectionInfo

if TYPE_CHECKING:
    from .pool import Pool

__all__ = ["ServerReport", "examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """What a check saw.

    Attributes:
        server: host and port, or the path of the socket.
        greeting: the server's first reply, if it came that far.
        extensions: what it offers, under TLS if that came up.
        info: what was negotiated, if the connection stood.
        error: what ended the check early.
        findings: everything that is wrong, one sentence each.
    """

    server: str
    greeting: Reply | None = None
    extensions: Extensions = NO_EXTENSIONS
    info: ConnectionInfo | None = None
    error: SMTPError | None = None
    findings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return self.error is None and not self.findings


async def examine(pool: Pool, route: Route) -> ServerReport:
    """Open a session, say NOOP and QUIT, and report."""
    session = await pool.lend()
    greeting = None
    error: SMTPError | None = None
    try:
        greeting = await session.connect()
        await session.noop()
        await session.quit()
    except SMTPError as caught:
        error = caught
    finally:
        session.abort()
        pool.give_back(session)
    return ServerReport(
        server=route.name,
        greeting=greeting,
        extensions=session.extensions,
        info=session.info if greeting is not None else None,
        error=error,
    )
