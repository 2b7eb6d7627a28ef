"""A private conversation with a server, for one task: the user's interface to a connection."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ..auth.credentials import Credentials
from ..errors import (
    Busy,
    CommandRefused,
    ConnectFirst,
    InvalidAddress,
    InvalidArgument,
)
from ..hooks import Hooks
from ..model.address import Address, parse_list
from ..model.receipt import Receipt
from ..model.reply import Reply
from ..protocol.extensions import Extensions
from ..protocol.machine import ClientProtocol, Exchange
from ..protocol.options import SendOptions
from ..protocol.states import Stage
from ..tls.info import ConnectionInfo
from .connection import Connection
from .opening import log_in

__all__ = ["Session"]

#: An enhanced status code (RFC 2034) at the beginning of a line.
_STATUS: Final = re.compile(r"2\.\d{1,3}\.\d{1,3} +")
#: A source route, which is ignored (RFC 5321 section 4.1.2).
_ROUTE: Final = re.compile(r"<@[^<>:]*:")


class Session:
    """One connection to a server, used by one task at a time.

    `SMTPClient.session()` gives one that is not connected yet. While a task's call is running, a call of another
    task raises `Busy`.

    Args:
        connection: not started yet.
        hooks: the registered observers; none of them may call the session.
        deliver: sends a message over the connection as the client would.

    Attributes:
        connected: can mail be sent?
        idle: is no call of this session running?
        stage: where the conversation stands.
        extensions: what the server offers.
        last_reply: the reply that was read last.
        info: what was negotiated.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        hooks: Hooks,
        deliver: Callable[[Connection, Any, SendOptions | None], Awaitable[Receipt]],
    ) -> None:
        self._connection = connection
        self._deliver = deliver
        self._call = _Call(hooks)

    def __repr__(self) -> str:
        connection = self._connection
        return f"<Session {connection.number} to {connection.route.name}: {self.stage.value}>"

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Can mail be sent?"""
        return self._connection.connected

    @property
    def idle(self) -> bool:
        """Is no call of this session running?"""
        return not self._call.running

    @property
    def stage(self) -> Stage:
        """Where the conversation stands."""
        return self._connection.stage

    @property
    def extensions(self) -> Extensions:
        """What the server offers."""
        return self._connection.extensions

    @property
    def last_reply(self) -> Reply | None:
        """The reply that was read last, None before the first."""
        return self._connection.channel.last_reply

    @property
    def info(self) -> ConnectionInfo:
        """What was negotiated; known also when the login failed.

        Raises:
            ConnectFirst: it was never connected.
        """
        info = self._connection.channel.info
        if info is None:
            raise ConnectFirst("this session was never connected")
        return info

    # --- beginning and end -----------------------------------------------------------------------------------

    async def connect(self) -> Reply:
        """Dial, negotiate TLS, greet and log in as the client's options say.

        Returns:
            The server's greeting.

        Raises:
            AlreadyConnected, AlreadyConnecting: it was called before.
            NotConnected: the session has ended.
            SMTPError: of the class that names the step that failed.
        """
        self._connection.demand_unused()
        with self._call:
            return await self._connection.connect()

    async def login(self, credentials: Credentials | None = None) -> Reply:
        """Authenticate, RFC 4954; a transaction that is open is reset first.

        With `ClientOptions(login=Login.MANUAL)` a session connects without logging in.

        Args:
            credentials: None means the client's.

        Raises:
            InvalidArgument: there are no credentials, or they are not enough for any mechanism.
            AuthenticationUnavailable: no mechanism is offered that fits and is safe here, or `before_auth` refused.
            AuthenticationFailed: the server refused.
            TokenRefused, TokenUnavailable: the token provider has no token.
            FeatureUnavailable: a mechanism was named whose extra is not installed.
            CommandRefused: the server refused to reset the transaction.
        """
        chosen = credentials or self._connection.route.credentials
        if chosen is None:
            raise InvalidArgument("there are no credentials to log in with")
        wanted: Credentials = chosen
        connection = self._connection

        async def work() -> Reply:
            if connection.channel.machine.reset_needed:
                # RFC 4954 section 4: no AUTH within a transaction, and a refused message leaves one open.
                self._demand_positive(await connection.converse(lambda machine: machine.reset()))
            return await log_in(connection.channel, connection.route, connection.shared, wanted)

        with self._call:
            return await connection.ask(work)

    async def quit(self) -> None:
        """Send QUIT and close; never raises for what the server does then. Safe to call again.

        After `abort` there is nothing to wait for, unless hooks are to hear of the end.
        """
        connection = self._connection
        connection.finish()
        if connection.channel.hooks.active or not connection.dropped:
            await connection.wait_ended()

    def abort(self) -> None:
        """Close at once; a message under way ends as not sent or unknown. Synchronous."""
        self._connection.abort()

    # --- mail ------------------------------------------------------------------------------------------------

    async def send(self, mail: Any, *, options: SendOptions | None = None) -> Receipt:
        """Send one message; arguments, result and errors as `SMTPClient.send`."""
        with self._call:
            self._connection.demand_connected()
            return await self._deliver(self._connection, mail, options)

    # --- commands --------------------------------------------------------------------------------------------

    async def verify(self, address: str) -> Reply:
        """Ask whether an address exists, RFC 5321 section 3.5; most servers answer 252.

        Raises:
            CommandRefused: the server refused to answer.
        """
        return await self._query(lambda machine: machine.verify(address))

    async def expand(self, name: str) -> list[Address]:
        """Ask for the members of a mailing list, RFC 5321 section 3.5; lines without an address are ignored.

        Raises:
            CommandRefused: the server refused to answer.
        """
        connection = self._connection

        async def work() -> list[Address]:
            members = _members(self._demand_positive(await connection.converse(lambda one: one.expand(name))))
            transcript = connection.channel.transcript
            transcript.members(members)
            if transcript.events:
                await transcript.tell()
            return members

        with self._call:
            return await connection.ask(work)

    async def command(self, line: str) -> Reply:
        """Send any other command of one line and return its one reply, whatever it is.

        For example `HELP` (RFC 5321 section 4.1.1.8) and `ETRN example.com` (RFC 1985).

        Raises:
            UsageError: the verb is the library's own (DATA, BDAT, EHLO, HELO, LHLO, STARTTLS, AUTH, XCLIENT).
            InvalidArgument: a control character in the line.
        """
        return await self._converse(lambda machine: machine.command(line))

    async def reset(self) -> Reply:
        """Abort the transaction that `command` may have begun, RFC 5321 section 4.1.1.5."""
        return await self._query(lambda machine: machine.reset())

    async def noop(self) -> Reply:
        """Send NOOP, RFC 5321 section 4.1.1.9, to see whether the server answers."""
        return await self._query(lambda machine: machine.noop())

    async def _query(self, write: Callable[[ClientProtocol], Exchange]) -> Reply:
        return self._demand_positive(await self._converse(write))

    def _demand_positive(self, reply: Reply) -> Reply:
        if not reply.positive:
            raise CommandRefused("the server refused the command", reply=reply, stage=self.stage.value)
        return reply

    async def _converse(self, write: Callable[[ClientProtocol], Exchange]) -> Reply:
        connection = self._connection
        with self._call:
            return await connection.ask(lambda: connection.converse(write))


class _Call:
    """The call of a session that is running, if any.

    Entering it raises
        Busy: another task's call is running, or a hook of the session makes this one.
    """

    __slots__ = ("_hooks", "running")

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.running = False

    def __enter__(self) -> None:
        self._hooks.refuse_reentry()
        if self.running:
            raise Busy("another task is using this session: every task needs its own, or the client itself")
        self.running = True

    def __exit__(self, *exc_info: object) -> None:
        self.running = False


def _members(reply: Reply) -> list[Address]:
    """Return the addresses in the reply to EXPN."""
    members: list[Address] = []
    for line in reply.lines:
        with contextlib.suppress(InvalidAddress):  # a line of text
            members += parse_list(_ROUTE.sub("<", _STATUS.sub("", line)))
    return members
