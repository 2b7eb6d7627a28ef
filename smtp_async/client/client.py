"""What applications hold: one `SMTPClient` for the process, used by any number of tasks."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ..auth.mechanism import Credentials
from ..connection.connection import Connection
from ..connection.drive import Drive
from ..connection.job import Job
from ..connection.route import Surroundings
from ..connection.session import Session
from ..errors import (
    InvalidArgument,
    NotConnected,
    SettingInUse,
    SMTPError,
    UsageError,
)
from ..hooks import Observed
from ..mail.coerce import Raw, addressed, dispose, mail_at_once, mail_for, mail_of
from ..message.builder import Message
from ..model.address import Address
from ..model.content import Mail, Origin
from ..model.envelope import Recipient
from ..model.receipt import Receipt
from ..model.reply import Reply
from ..model.secret import Secret
from ..pool.limits import PoolStatistics
from ..pool.pool import Pool
from ..protocol.options import SendOptions
from ..sources.unread import Unread
from ..sources.weight import is_heavy
from ..tls.context import Security
from .bulk import SendAll
from .diagnose import ServerReport, examine
from .options import ClientOptions, credentials_of, parse_url, route_of

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["SMTPClient"]

#: What a client is made with unless it is told otherwise.
_DEFAULTS: Final = ClientOptions()

M = TypeVar("M")


class _Forks:
    """How often this process has forked, counted in the child: cheaper to compare than to ask the system who we are."""

    def __init__(self) -> None:
        self.count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


_forks: Final = _Forks()


class SMTPClient(Observed):
    """Send mail through one server, from any number of tasks.

    Connections are opened when they are needed and kept for the next message. Close the client when the application
    ends, or use it as an async context manager.

    Args:
        host: name or address of the server; a path (beginning with "/") is a Unix socket.
        port: None takes 587, with IMPLICIT 465, with PLAINTEXT or OPPORTUNISTIC 25, with LMTP 24.
        username, password: to log in with; both or neither.
        credentials: the same with more choices, in place of `username` and `password`.
        security: when TLS starts; see `Security`.
        options: everything else.

    Raises:
        MissingHost, InvalidPort, InvalidArgument: what cannot be meant.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        username: str | None = None,
        password: str | Secret | None = None,
        credentials: Credentials | None = None,
        security: Security = Security.AUTO,
        options: ClientOptions = _DEFAULTS,
    ) -> None:
        if password is not None:
            # First of all: tracebacks may show local variables.
            password = Secret(password)
        self._options = options
        self._route = route_of(host, port, credentials_of(username, password, credentials), security, options)
        super().__init__()
        self._surroundings = Surroundings()
        self._pool: Pool | None = None
        self._drive: Drive | None = None
        self._thread = 0
        self._forks = 0
        self._closed = False
        self._wishes = self._allowed(options.send)
        # BDAT pays where a window lets messages follow each other unanswered.
        self._chunking = options.chunking and options.pool.window > 1
        self._session_count = 0
        self._job_count = 0

    @classmethod
    def from_url(cls, url: str, *, options: ClientOptions = _DEFAULTS) -> Self:
        """Make a client from a URL.

        `smtps://user:password@host[:465]` is TLS from the first byte, `smtp://user:password@host[:587]` requires
        STARTTLS, `smtp+plain://host[:25]` uses no TLS, `lmtp://host[:24]` and `lmtp+unix:///path` speak LMTP. User and
        password are percent-encoded.

        Raises:
            InvalidArgument: not such a URL. It is not repeated in the message: it may hold a password.
        """
        hidden = Secret(url)
        # It may hold a password, and tracebacks may show local variables.
        del url
        return cls(**parse_url(hidden, options))

    def __repr__(self) -> str:
        if not hasattr(self, "_job_count"):
            return "<SMTPClient, not made>"
        pool = self._pool
        state = "closed" if self._closed else "not used yet" if pool is None else repr(pool)
        return f"<SMTPClient {self._route.name} {self._route.security.value}: {state}>"

    # --- what is so ------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The server's name, or the path of its socket."""
        return self._route.path or self._route.host

    @host.setter
    def host(self, value: str) -> None:
        raise SettingInUse.of("host")

    @property
    def port(self) -> int:
        """The server's port; 0 for a Unix socket."""
        return self._route.port

    @port.setter
    def port(self, value: int) -> None:
        raise SettingInUse.of("port")

    @property
    def security(self) -> Security:
        """When TLS starts; AUTO is resolved."""
        return self._route.security

    @property
    def options(self) -> ClientOptions:
        """What the client was made with."""
        return self._options

    def statistics(self) -> PoolStatistics:
        """Return what the pool holds and has done."""
        if self._pool is None:
            return PoolStatistics(self._options.pool.max_connections, *[0] * 11)
        return self._pool.statistics()

    # --- sending ---------------------------------------------------------------------------------------------

    async def send(
        self,
        message: Message | EmailMessage | Mail,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        options: SendOptions | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Send one message and return what became of each recipient.

        Args:
            message: what to send; it is left as it is, and must not be changed before the call has ended: what is
                large is rendered in a thread, and a message may have to be rendered again for another connection.
            sender: another envelope sender than the message's; the header does not change.
            recipients: other envelope recipients; plain texts count as To.
            options: how to send it; None takes the client's.
            deadline: seconds for everything, from the call on: reading the message, opening its sources, waiting for a
                connection. None takes `timeouts.send`. The call ends in time whatever a source does; one that takes
                no notice goes on by itself.

        Returns:
            The receipt; its outcome is ACCEPTED or PARTIAL.

        Raises:
            SenderRefused, RecipientsRefused, MessageRefused: the server said no.
            NotSent: it did not leave; sending again is safe. Also when the deadline passed in time.
            OutcomeUnknown: it may or may not be delivered. Also when the deadline passed too late.
            UsageError: the message or the call makes no sense.
            SMTPError: no connection could be had; every one of these has a `receipt`.
        """
        wishes = self._wishes if options is None else options
        try:
            due = self._due(deadline)
        except SMTPError:
            await dispose(message, wishes)
            raise
        mail = mail_at_once(message, exact=wishes.exact, close=wishes.close_source)
        if mail is None:
            mail = await self._read(mail_of(message, exact=wishes.exact, close=wishes.close_source), due)
        if sender is not None or recipients is not None:
            try:
                mail = addressed(mail, sender, recipients)
            except SMTPError:
                await Unread(mail).aclose()
                raise
        try:
            job = self._begin(mail, options, due, heavy=is_heavy(message))
        except SMTPError:
            await Unread(mail).aclose()
            raise
        assert self._drive is not None
        return await self._drive.deliver(job)

    async def send_raw(
        self,
        source: bytes | Origin,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        options: SendOptions | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Send a message that is complete already.

        Bare CR and LF become CRLF, Bcc and Resent-Bcc are cut out; nothing else is changed, and `exact=True` and
        `remove_bcc=False` in the options change even less.

        Args:
            source: header, empty line, body: as bytes, or a path, a binary file object, an iterable or async iterable
                of bytes, read while it is sent.
            sender, recipients: the envelope; what is not given is read from the message's own header.
            options, deadline: as for `send`.

        Returns:
            The receipt, as `send`.

        Raises:
            SMTPError: as `send`.
        """
        wishes = self._wishes if options is None else options
        raw = Raw(source, sender, recipients, wishes.close_source)
        try:
            due = self._due(deadline)
        except SMTPError:
            await dispose(raw, wishes)
            raise
        mail = mail_at_once(raw, exact=wishes.exact, remove_bcc=wishes.remove_bcc)
        if mail is None:
            mail = await self._read(mail_of(raw, exact=wishes.exact, remove_bcc=wishes.remove_bcc), due)
        try:
            job = self._begin(mail, options, due)
        except SMTPError:
            await Unread(mail).aclose()
            raise
        assert self._drive is not None
        return await self._drive.deliver(job)

    def _allowed(self, options: SendOptions) -> SendOptions:
        return options if self._options.chunking else replace(options, chunking="never")

    def _due(self, deadline: float | None) -> float | None:
        """Begin a call: return the loop time at which its caller no longer waits."""
        pool = self._use()
        if deadline is None:
            deadline = self._options.timeouts.send
        elif math.isnan(deadline):
            raise InvalidArgument("deadline is a number of seconds, not NaN")
        return None if deadline is None else pool.loop.time() + deadline

    async def _read(self, work: Coroutine[Any, Any, Mail], due: float | None) -> Mail:
        assert self._drive is not None
        return await self._drive.read(work, due)

    def _begin(
        self, mail: Mail, options: SendOptions | None, due: float | None, *, heavy: bool = False
    ) -> Job:
        assert self._pool is not None
        wishes = self._wishes if options is None else self._allowed(options)
        self._job_count += 1
        job = Job(
            self._job_count,
            mail,
            wishes,
            due,
            chunking=self._chunking,
            heavy=heavy,
            temp_dir=self._options.temp_dir,
        )
        job.extensions = self._pool.extensions
        return job

    def send_all(
        self, messages: Iterable[M] | AsyncIterable[M], *, options: SendOptions | None = None
    ) -> SendAll[M]:
        """Send many messages, at the speed of the connections, with constant memory.

        The input may be endless. An iterable is pulled by the task that iterates over this, an async iterable by a
        task of its own; at most twice as many messages as the pool can carry are on their way. Leaving the loop early
        is safe.

        Args:
            messages: any iterable or async iterable of `Message`, `email.message.Message` or `Raw`.
            options: how to send them; None takes the client's.

        Returns:
            An async iterator of `(message, receipt)` in the order in which they end. A message that cannot be sent
            is a receipt with its `error`. When no connection can be had, that is raised after the receipts of what
            was under way.
        """
        wishes = self._wishes if options is None else self._allowed(options)
        pool = self._use()
        assert self._drive is not None
        return SendAll(
            pool,
            self._drive,
            messages,
            number_job=self._next_job,
            chunking=self._chunking,
            temp_dir=self._options.temp_dir,
            options=wishes,
            limit=self._options.timeouts.send,
        )

    # --- other calls -----------------------------------------------------------------------------------------

    async def check(self) -> ServerReport:
        """Connect, negotiate TLS, log in, say NOOP and QUIT, and report what was seen and what is wrong.

        Never raises for what the server does: a failure is a finding of the report.
        """
        pool = self._use()
        return await examine(pool, self._session_on, self._route)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Give one conversation to the caller alone, not connected yet.

        It counts against the pool's bound. It is closed at the end, never pooled.
        """
        pool = self._use()
        connection = await pool.lend()
        session = self._session_on(connection)
        try:
            yield session
        except BaseException:
            connection.let_go()
            raise
        else:
            await session.quit()
        finally:
            connection.let_go()
            pool.give_back(connection)

    async def verify(self, address: str) -> Reply:
        """Ask whether an address exists (VRFY, RFC 5321 section 3.5); most servers answer 252.

        Raises:
            CommandRefused: the server says no, or does not tell.
        """
        async with self.session() as session:
            await session.connect()
            return await session.verify(address)

    async def expand(self, name: str) -> list[Address]:
        """Ask for the members of a mailing list (EXPN, RFC 5321 section 3.5).

        Raises:
            CommandRefused: the server says no, or does not tell.
        """
        async with self.session() as session:
            await session.connect()
            return await session.expand(name)

    # --- the end ---------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Fail what waits as not sent, let running messages end within `timeouts.close`, then say QUIT."""
        self._hooks.refuse_reentry()
        pool = self._pool
        if pool is not None:
            self._demand_own_loop()
        self._closed = True
        if pool is not None:
            await pool.close()

    async def __aenter__(self) -> Self:
        self._use()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _use(self) -> Pool:
        """Return the pool, made by the first call; it belongs to this loop and this process."""
        if self._hooks.active:
            self._hooks.refuse_reentry()
        if self._closed:
            raise NotConnected("the client is closed")
        pool = self._pool
        if pool is None:
            self._thread, self._forks = get_ident(), _forks.count
            pool = self._pool = Pool(self._options.pool, self._options.timeouts, self._make)
            self._drive = Drive(pool, pool.deadlines)
        # The common case without asking asyncio for the running loop: that costs a system call.
        elif self._thread != get_ident() or self._forks != _forks.count or not pool.loop.is_running():
            self._demand_own_loop()
        return pool

    def _demand_own_loop(self) -> None:
        if self._forks != _forks.count:
            raise UsageError("this client was used before the process forked: make one in the child")
        if self._pool is not None and self._pool.loop is not asyncio.get_running_loop():
            raise UsageError("this client belongs to another event loop: make one for each")

    def _make(self, pool: Pool) -> Connection:
        self._session_count += 1
        return Connection(
            self._route,
            number=self._session_count,
            timeouts=self._options.timeouts,
            hooks=self._hooks,
            surroundings=self._surroundings,
            conduct=pool.conduct,
            owner=pool,
        )

    def _session_on(self, connection: Connection) -> Session:
        return Session(
            connection,
            hooks=self._hooks,
            options=self._wishes,
            allow=self._allowed,
            adapt=mail_for,
            number_job=self._next_job,
            temp_dir=self._options.temp_dir,
        )

    def _next_job(self) -> int:
        self._job_count += 1
        return self._job_count
