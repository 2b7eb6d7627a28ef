"""One conversation with a server, for a task that wants it to itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from ..auth.mechanism import Credentials
from ..errors import (
    AlreadyConnected,
    AlreadyConnecting,
    Busy,
    CommandRefused,
    InvalidAddress,
    InvalidArgument,
    NotConnected,
    SMTPError,
)
from ..model.address import Address, parse_list
from ..model.content import Mail
from ..model.receipt import Receipt
from ..model.reply import Reply
from ..protocol.machine import ClientProtocol, Exchange
from ..protocol.options import SendOptions
from ..sources import TempDir
from ..sources.unsent import UnsentSources
from ..sources.weight import is_heavy
from .connection import Pump
from .drive import Drive
from .job import Job
from .opening import authenticate, secure

__all__ = ["Session"]

#: An enhanced status code (RFC 2034) before what a line says.
_STATUS: Final = re.compile(r"2\.\d{1,3}\.\d{1,3} +")
#: A source route, which is passed over (RFC 5321 section 4.1.2).
_ROUTE: Final = re.compile(r"<@[^<>:]*:")


class Session(Pump):
    """One connection to a server, used by one task at a time.

    `SMTPClient.session()` gives one that is not connected yet. While a task's call is running, a call of another
    task raises `Busy`.

    Attributes:
        connected: can mail be sent?
        stage: where the conversation stands.
        extensions: what the server offers.
        last_reply: the reply that was read last.
        info: what was negotiated.
    """

    def __init__(
        self,
        *args: Any,
        options: SendOptions,
        allow: Callable[[SendOptions], SendOptions],
        adapt: Callable[[Any, SendOptions], Awaitable[Mail]],
        number_job: Callable[[], int],
        temp_dir: TempDir = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._options = options
        self._allow = allow
        self._adapt = adapt
        self._number_job = number_job
        self._temp_dir = temp_dir
        self._in_use = False

    async def connect(self) -> Reply:
        """Dial, negotiate TLS, greet and log in as the client's options say.

        Returns:
            The server's greeting.

        Raises:
            AlreadyConnected, AlreadyConnecting: it was called before.
            SMTPError: of the class that names the step that failed.
        """
        if self._over or self.leaving or self._given_notice:
            raise NotConnected("this session has ended: make another one")
        if self.connected:
            raise AlreadyConnected("this session is connected")
        if self._task is not None:
            raise AlreadyConnecting("this session is being connected")
        with self._use():
            self.start()
            assert self._ready is not None
            try:
                await asyncio.shield(self._ready)
            except asyncio.CancelledError:
                self.abort()
                raise
        greeting = self._joint.machine.greeting.reply
        assert greeting is not None
        return greeting

    async def login(self, credentials: Credentials | None = None) -> Reply:
        """Authenticate, RFC 4954; a transaction that is open is reset first.

        Args:
            credentials: whose; None means the client's.

        Raises:
            InvalidArgument: there are no credentials.
            AuthenticationUnavailable: no mechanism is offered that fits and is safe here.
            AuthenticationFailed: the server refused.
            CommandRefused: it refused to reset the transaction.
        """
        chosen = credentials or self.route.credentials
        if chosen is None:
            raise InvalidArgument("there are no credentials to log in with")
        wanted: Credentials = chosen

        async def work() -> Reply:
            if self._joint.machine.reset_needed:
                # RFC 4954 section 4: no AUTH within a transaction, and a refused message leaves one open.
                self._demand_positive(await self.converse(lambda machine: machine.reset()))
            return await authenticate(self._joint, wanted, secure=secure(self.route, self.info))

        with self._use():
            return await self.ask(work)

    async def send(self, mail: Any, *, options: SendOptions | None = None) -> Receipt:
        """Send one message; arguments, result and errors as `SMTPClient.send`."""
        with self._use():
            self.demand_connected()
            wishes = self._options if options is None else self._allow(options)
            ready = await self._adapt(mail, wishes)
            try:
                heavy = is_heavy(mail)
                job = Job(self._number_job(), ready, wishes, heavy=heavy, temp_dir=self._temp_dir)
            except SMTPError:
                await UnsentSources(ready).aclose()
                raise
            job.pinned = True
            job.offer = self.extensions
            return await Drive(self).deliver(job)

    def submit(self, job: Job) -> None:
        """Begin a job of this session's user.

        Raises:
            NotConnected: this connection cannot carry another message; it may have died while files were opened.
        """
        if not self.may_begin:
            raise NotConnected("this connection cannot carry another message")
        self.offer(job)

    def give_up(self, job: Job) -> None:
        """Nothing: the calls of a session have no deadline."""

    async def verify(self, address: str) -> Reply:
        """Ask whether an address exists, RFC 5321 section 3.5; most servers answer 252.

        Raises:
            CommandRefused: the server says no, or does not tell.
        """
        return await self._query(lambda machine: machine.verify(address))

    async def expand(self, name: str) -> list[Address]:
        """Ask for the members of a mailing list, RFC 5321 section 3.5; lines without an address are passed over.

        Raises:
            CommandRefused: the server says no, or does not tell.
        """
        reply = await self._query(lambda machine: machine.expand(name))
        members: list[Address] = []
        for line in reply.lines:
            with contextlib.suppress(InvalidAddress):  # words for people
                members += parse_list(_ROUTE.sub("<", _STATUS.sub("", line)))
        return members

    async def command(self, line: str) -> Reply:
        """Send any other command of one line and return its one reply, whatever it is.

        Raises:
            UsageError: the verb is the library's own (DATA, BDAT, EHLO, HELO, LHLO, STARTTLS, AUTH, XCLIENT).
            InvalidArgument: a control character in the line.
        """
        return await self._converse(lambda machine: machine.command(line))

    async def reset(self) -> Reply:
        """Abort the transaction that `command` may have begun, RFC 5321 section 4.1.1.5."""
        return await self._query(lambda machine: machine.reset())

    async def noop(self) -> Reply:
        """Ask for a sign of life, RFC 5321 section 4.1.1.9."""
        return await self._query(lambda machine: machine.noop())

    async def quit(self) -> None:
        """Say goodbye and close; never raises for what the server does then. Safe to call again."""
        self.finish()
        await self.wait_ended()

    async def _query(self, write: Callable[[ClientProtocol], Exchange]) -> Reply:
        return self._demand_positive(await self._converse(write))

    def _demand_positive(self, reply: Reply) -> Reply:
        if not reply.positive:
            raise CommandRefused("the server refused the command", reply=reply, stage=self.stage.value)
        return reply

    async def _converse(self, write: Callable[[ClientProtocol], Exchange]) -> Reply:
        with self._use():
            return await self.ask(lambda: self.converse(write))

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        self._hooks.refuse_reentry()
        if self._in_use:
            raise Busy("another task is using this session: every task needs its own, or the client itself")
        self._in_use = True
        try:
            yield
        finally:
            self._in_use = False
