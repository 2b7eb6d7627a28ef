"""The client that an application makes: one `SMTPClient` for the process, used by any number of tasks."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ..auth.credentials import Credentials, TokenProvider
from ..connection.connection import Connection
from ..connection.route import SharedResources
from ..connection.send_job import SendJob
from ..connection.session import Session
from ..errors import InvalidArgument, NotConnected, SettingInUse, SMTPError
from ..hooks import Observed
from ..mail.coerce import PendingMail, Raw, read_mail, to_mail, unsent_sources
from ..message.builder import Message
from ..model.address import Address
from ..model.content import Mail, Origin
from ..model.envelope import Recipient
from ..model.receipt import Receipt
from ..model.reply import Reply
from ..model.secret import Secret
from ..pool.limits import PoolStatistics
from ..pool.paced import PacedPool
from ..protocol.options import SendOptions
from ..sources.render_cost import is_heavy
from ..sources.unsent import UnsentSources
from ..tls.context import Security
from .binding import Binding
from .bulk import SendAll
from .constructors import ClientConstructors
from .diagnose import ServerReport, examine
from .drive import Drive, OneConnection
from .fork_count import fork_count
from .options import ClientOptions, as_secret, credentials_of, demand_domain, route_of
from .telemetry import ClientTelemetry
from .wire_log import WireLog

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["SMTPClient"]

#: The options of a client that is given none.
_DEFAULTS: Final = ClientOptions()

M = TypeVar("M")


class SMTPClient(Observed, ClientConstructors):
    """Send mail through one server, from any number of tasks.

    Connections are opened when they are needed and kept for the next message. Close the client when the application
    ends, or use it as an async context manager.

    Args:
        host: name or address of the server; a path (beginning with "/") is a Unix socket.
        port: None takes 587, with IMPLICIT 465, with PLAINTEXT or OPPORTUNISTIC 25, with LMTP 24.
        username, password, token: to log in with: the account, and its password or OAuth 2.0 token (`Credentials`).
        credentials: the same with more choices, in place of these.
        security: when TLS starts; see `Security`.
        options: everything else.

    Raises:
        MissingHost, InvalidPort, InvalidArgument: an argument makes no sense.
        FileError: the wire log cannot be opened.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        username: str | None = None,
        password: str | Secret | None = None,
        token: str | Secret | TokenProvider | None = None,
        credentials: Credentials | None = None,
        security: Security = Security.AUTO,
        options: ClientOptions = _DEFAULTS,
    ) -> None:
        # Wrapped first of all, because tracebacks may show local variables.
        password, token = as_secret(password), as_secret(token)
        self._options = options
        account = credentials_of(username, password, token, credentials)
        self._route = route_of(host, port, account, security, options)
        super().__init__()
        self._shared = SharedResources(rates=options.rates)
        self._binding: Binding | None = None
        self._closed = False
        self._send_options = self._permitted(options.send)
        # BDAT pays where a window lets messages follow each other unanswered.
        self._chunking = options.chunking and options.pool.window > 1
        self._session_numbers = itertools.count(1)
        self._job_count = 0
        self._telemetry: ClientTelemetry | None = None
        if options.telemetry is not None:
            self._telemetry = options.telemetry.client(self.host, self.port, lmtp=options.lmtp)
        self._wire_log: WireLog | None = None
        if options.wire_log is not None:
            self._wire_log = WireLog(options.wire_log)
            self._wire_log.attach(self._hooks)

    @classmethod
    def for_domain(
        cls,
        domain: str,
        *,
        security: Security = Security.AUTO,
        port: int = 25,
        options: ClientOptions = _DEFAULTS,
    ) -> Self:
        """Make a client that delivers to the mail exchangers of a domain, as a mail server does.

        They are looked up (MX, RFC 5321 section 5.1) when a connection opens, and tried in turn until one can be
        reached and does not refuse the connection with its greeting. There is no login.

        Args:
            domain: what stands behind the @ of the recipients.
            security: AUTO uses STARTTLS where it is offered, without verification, as mail servers do.
            port: the port of the mail exchangers.
            options: everything else.

        Raises:
            MissingHost, InvalidHost, InvalidPort, InvalidArgument: an argument makes no sense.
        """
        demand_domain(domain, options)
        client = cls(domain, port, security=security, options=options)
        client._route = replace(client._route, mx=True)
        return client

    def __repr__(self) -> str:
        if not hasattr(self, "_job_count"):
            return "<SMTPClient, not made>"
        binding = self._binding
        state = "closed" if self._closed else "not used yet" if binding is None else repr(binding.pool)
        return f"<SMTPClient {self._route.name} {self._route.security.value}: {state}>"

    # --- state -----------------------------------------------------------------------------------------------

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
        """The options that the client was made with."""
        return self._options

    def statistics(self) -> PoolStatistics:
        """Return the pool's present state and what it has done in this event loop."""
        if self._binding is None:
            return PoolStatistics(self._options.pool.max_connections, *[0] * 11)
        statistics, throttle = self._binding.pool.statistics(), self._shared.throttle
        return statistics if throttle is None else statistics._replace(byte_pauses=throttle.waited)

    # --- sending ---------------------------------------------------------------------------------------------

    async def send(
        self,
        message: Message | EmailMessage | Mail | Raw,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        options: SendOptions | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Send one message and return what became of each recipient.

        Args:
            message: what to send: a `Message`, an `email.message.Message`, or a `Raw`, which is a message that is
                complete already. It is left as it is, and must not be changed before the call has ended: what is
                large is rendered in a thread, and a message may have to be rendered again for another connection.
            sender: another envelope sender than the message's; the header does not change.
            recipients: other envelope recipients; plain texts count as To.
            options: how to send it; None takes the client's.
            deadline: seconds for the whole call: reading the message, opening its sources, waiting for a connection,
                sending. None takes `timeouts.send`. The call ends in time whatever a source does; a source that ignores
                its cancellation is left to itself.

        Returns:
            The receipt; its outcome is ACCEPTED or PARTIAL.

        Raises:
            SenderRefused, RecipientsRefused, MessageRefused: the server refused the message.
            NotSent: the message did not leave, also because the deadline passed before; sending again is safe.
            OutcomeUnknown: the message may or may not be delivered, also because the deadline passed after its end was
                sent.
            UsageError: the message or the call makes no sense.
            SMTPError: no connection could be had; every one of these has a `receipt`.
        """
        wanted = self._send_options if options is None else self._permitted(options)
        try:
            binding = self._use()
            due = self._deadline(binding, deadline)
            mail = to_mail(message, wanted, sender, recipients)
        except SMTPError:
            await unsent_sources(message, wanted).aclose()
            raise
        drive = binding.drive
        if isinstance(mail, PendingMail):
            mail = await drive.read(mail.read(self._options.temp_dir), due)
        number = self._job_count = self._job_count + 1
        # What is left of a `Raw` here needs no rendering.
        heavy, temp_dir = not isinstance(message, Raw) and is_heavy(message), self._options.temp_dir
        try:
            job = SendJob(number, mail, wanted, due, chunking=self._chunking, heavy=heavy, temp_dir=temp_dir)
        except SMTPError:
            await UnsentSources(mail).aclose()
            raise
        job.server_offer = binding.pool.extensions
        if self._telemetry is not None:
            return await self._telemetry.send(job, drive.deliver(job))
        return await drive.deliver(job)

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
        return await self.send(Raw(source, sender, recipients), options=options, deadline=deadline)

    def _permitted(self, options: SendOptions) -> SendOptions:
        """Return `options` as far as the client's own options permit, with the client's way of signing."""
        options = options if options.sign is not None else options.signed_by(self._options.sign)
        return options if self._options.chunking else replace(options, chunking="never")

    def _deadline(self, binding: Binding, seconds: float | None) -> float | None:
        """Return the loop time after which the caller of a call that begins now no longer waits."""
        if seconds is None:
            seconds = self._options.timeouts.send
        elif math.isnan(seconds):
            raise InvalidArgument("deadline is a number of seconds, not NaN")
        return None if seconds is None else binding.pool.loop.time() + seconds

    def send_all(
        self, messages: Iterable[M] | AsyncIterable[M], *, options: SendOptions | None = None
    ) -> SendAll[M]:
        """Send many messages, at the speed of the connections, with constant memory.

        The input may be endless. An iterable is pulled by the task that iterates over the result, an async iterable by
        a task of its own; at most twice as many messages as the pool can carry are under way. Leaving the loop early is
        safe.

        Args:
            messages: any iterable or async iterable of `Message`, `email.message.Message` or `Raw`.
            options: how to send them; None takes the client's.

        Returns:
            An async iterator of `(message, receipt)` in the order in which the messages end. A message that cannot be
            sent has a receipt with its `error`. When no connection can be had, that error is raised after the receipts
            of the messages under way.
        """
        binding = self._use()
        return SendAll(
            binding.pool,
            binding.drive,
            messages,
            number_job=self._next_job,
            chunking=self._chunking,
            temp_dir=self._options.temp_dir,
            options=self._send_options if options is None else self._permitted(options),
            limit=self._options.timeouts.send,
            telemetry=self._telemetry,
        )

    # --- other calls -----------------------------------------------------------------------------------------

    async def check(self) -> ServerReport:
        """Connect, negotiate TLS, log in, send NOOP and QUIT, and report what was seen and what is wrong.

        Does not raise for what the server does: a failure is a finding of the report.
        """
        pool = self._use().pool
        return await examine(pool, self._session_on, self._route)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Give the caller a session of its own, not connected yet.

        The session counts against the pool's bound. It is closed at the end of the block, never pooled.
        """
        pool = self._use().pool
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
            CommandRefused: the server refuses the command, or does not answer the question.
        """
        async with self.session() as session:
            await session.connect()
            return await session.verify(address)

    async def expand(self, name: str) -> list[Address]:
        """Ask for the members of a mailing list (EXPN, RFC 5321 section 3.5).

        Raises:
            CommandRefused: the server refuses the command, or does not answer the question.
        """
        async with self.session() as session:
            await session.connect()
            return await session.expand(name)

    # --- where it belongs ------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Fail waiting messages as not sent, let running ones end within `timeouts.close`, then send QUIT."""
        self._hooks.refuse_reentry()
        binding = self._binding
        if binding is not None and not binding.over:
            binding.demand_own_loop()
        self._closed = True
        if binding is not None and not binding.over:
            await binding.close()
        wire_log, self._wire_log = self._wire_log, None
        if wire_log is not None:
            wire_log.close(self._hooks)

    async def __aenter__(self) -> Self:
        self._use()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __del__(self) -> None:
        # One whose arguments made no sense has no binding.
        binding = getattr(self, "_binding", None)
        if binding is not None and not self._closed:
            binding.abandon(repr(self))

    def _use(self) -> Binding:
        """Return the binding to the running event loop and process, which the first call makes."""
        if self._hooks.active:
            self._hooks.refuse_reentry()
        if self._closed:
            raise NotConnected("the client is closed: make a new one, or leave its `async with` block later")
        binding = self._binding
        # The common case does not ask asyncio for the running loop, because that costs a system call.
        if (
            binding is None
            or binding.thread != get_ident()
            or binding.made_at_fork != fork_count.count
            or not binding.pool.loop.is_running()
        ):
            return self._bind()
        return binding

    def _bind(self) -> Binding:
        """Bind the client to the running event loop, at its first call or when the loop of before is closed."""
        former = self._binding
        if former is not None and not former.over:
            former.demand_own_loop()
            return former
        binding = self._binding = Binding(
            self._route,
            self._options,
            self._hooks,
            self._shared,
            self._telemetry,
            self._session_numbers,
            former=former,
        )
        return binding

    # --- sessions --------------------------------------------------------------------------------------------

    def _session_on(self, connection: Connection) -> Session:
        return Session(connection, hooks=self._hooks, deliver=self._send_over)

    async def _send_over(self, connection: Connection, message: Any, options: SendOptions | None) -> Receipt:
        """Send a message over a session's connection; it waits for no other one, and has no deadline."""
        wanted = self._send_options if options is None else self._permitted(options)
        mail = await read_mail(message, wanted, self._options.temp_dir)
        try:
            heavy = is_heavy(message)
            job = SendJob(self._next_job(), mail, wanted, heavy=heavy, temp_dir=self._options.temp_dir)
        except SMTPError:
            await UnsentSources(mail).aclose()
            raise
        job.pinned, job.server_offer = True, connection.extensions
        binding = self._binding
        assert binding is not None
        pool = binding.pool
        async with pool.turn(job) if isinstance(pool, PacedPool) else contextlib.nullcontext():
            outcome = Drive(OneConnection(connection)).deliver(job)
            return await (outcome if self._telemetry is None else self._telemetry.send(job, outcome))

    def _next_job(self) -> int:
        self._job_count += 1
        return self._job_count
