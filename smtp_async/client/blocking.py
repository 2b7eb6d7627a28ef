"""Sending from programs without an event loop: a client for all threads, and a call for a single message."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from ..auth.credentials import Credentials, TokenProvider
from ..errors import NotConnected, UsageError
from ..mail.coerce import Raw
from ..message.builder import Message
from ..model.address import Address
from ..model.content import Mail, Origin
from ..model.envelope import Recipient
from ..model.receipt import Receipt
from ..model.secret import Secret
from ..pool.limits import PoolStatistics
from ..protocol.options import SendOptions
from ..tls.context import Security
from .client import SMTPClient
from .constructors import ClientConstructors
from .diagnose import ServerReport
from .loop_thread import LoopThread, Serving
from .options import ClientOptions, as_secret

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

__all__ = ["BlockingClient", "send_blocking"]

_DEFAULTS: Final = ClientOptions()

M = TypeVar("M")
T = TypeVar("T")


class BlockingClient(ClientConstructors):
    """Send mail through one server, from any number of threads, without an event loop.

    An `SMTPClient` for programs that do not use asyncio: the same arguments, errors and receipts, and connections that
    stay open for the next message. It runs in an event loop of its own, in a thread that the first call starts. A
    forked child starts with connections of its own. Close the client when the program ends, or use it as a context
    manager.

    What the client calls (hooks of signing and of progress, token providers, sources that are async) runs in its
    thread. A call that is interrupted, as by Ctrl-C, is cancelled.

    Args:
        host, port, username, password, token, credentials, security, options: as for `SMTPClient`.

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
        # As in `SMTPClient`: tracebacks may show local variables.
        password, token = as_secret(password), as_secret(token)
        self._set_up(
            partial(
                SMTPClient,
                host,
                port,
                username=username,
                password=password,
                token=token,
                credentials=credentials,
                security=security,
                options=options,
            )
        )

    @classmethod
    def for_domain(
        cls,
        domain: str,
        *,
        security: Security = Security.AUTO,
        port: int = 25,
        options: ClientOptions = _DEFAULTS,
    ) -> Self:
        """Make a client that delivers to the mail exchangers of a domain, as `SMTPClient.for_domain`.

        Raises:
            MissingHost, InvalidHost, InvalidPort, InvalidArgument: an argument makes no sense.
        """
        self = cls.__new__(cls)
        self._set_up(partial(SMTPClient.for_domain, domain, security=security, port=port, options=options))
        return self

    def _set_up(self, make: Callable[[], SMTPClient]) -> None:
        # First, because `make` may raise, and `__del__` is called then, too.
        self._thread = LoopThread("smtp_async client")
        self._make = make
        # The first one is made here, so that wrong arguments are refused at once.
        self._first = make()
        self._first_used = False

    def __repr__(self) -> str:
        if not hasattr(self, "_first_used"):
            return "<BlockingClient, not made>"
        state = "closed" if self._thread.closed else "open" if self._thread.running else "not used yet"
        return f"<BlockingClient {self.host}:{self.port} {self.security.value}: {state}>"

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The server's name, or the path of its socket."""
        return self._first.host

    @property
    def port(self) -> int:
        """The server's port; 0 for a Unix socket."""
        return self._first.port

    @property
    def security(self) -> Security:
        """When TLS starts; AUTO is resolved."""
        return self._first.security

    @property
    def options(self) -> ClientOptions:
        """The options that the client was made with."""
        return self._first.options

    def statistics(self) -> PoolStatistics:
        """Return the pool's present state and what it has done in this process.

        Raises:
            UsageError: as `send`.
        """
        return self._run(_statistics)

    # --- calls -----------------------------------------------------------------------------------------------

    def send(
        self,
        message: Message | EmailMessage | Mail | Raw,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        options: SendOptions | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Send one message and return what became of each recipient; any number of threads may call this.

        Args:
            message, sender, recipients, options, deadline: as for `SMTPClient.send`.

        Returns:
            The receipt; its outcome is ACCEPTED or PARTIAL.

        Raises:
            UsageError: an event loop is running in this thread: it would stand still. Or the message makes no sense.
            SMTPError: as `SMTPClient.send`.
        """

        def call(client: SMTPClient) -> Coroutine[Any, Any, Receipt]:
            return client.send(
                message, sender=sender, recipients=recipients, options=options, deadline=deadline
            )

        return self._run(call)

    def send_raw(
        self,
        source: bytes | Origin,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        options: SendOptions | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Send a message that is complete already, as `SMTPClient.send_raw`.

        Raises:
            SMTPError: as `send`.
        """
        return self.send(Raw(source, sender, recipients), options=options, deadline=deadline)

    def send_all(
        self, messages: Iterable[M], *, options: SendOptions | None = None
    ) -> Iterator[tuple[M, Receipt]]:
        """Send many messages over all connections, with constant memory.

        The input may be endless. It is pulled in the caller's thread, and as far ahead as by `SMTPClient.send_all`.
        Leaving the loop early is safe.

        Args:
            messages: any iterable of `Message`, `email.message.Message` or `Raw`.
            options: how to send them; None takes the client's.

        Returns:
            An iterator of `(message, receipt)` in the order in which the messages end. A message that cannot be sent
            has a receipt with its `error`. When no connection can be had, that error is raised after the receipts of
            the messages under way.

        Raises:
            UsageError, NotConnected: as `send`.
        """
        serving, client = self._use()
        return self._receipts(serving, client, iter(messages), options)

    def _receipts(
        self, serving: Serving, client: SMTPClient, source: Iterator[M], options: SendOptions | None
    ) -> Iterator[tuple[M, Receipt]]:
        """Iterate over receipts. As a method, so that the iterator keeps its client from being collected."""
        exchange: _Exchange[M] = _Exchange()
        sending = serving.submit(exchange.send(client, options), awaited=False)
        try:
            while (told := exchange.told.get()) is not _END:
                if told is _WANTED:
                    exchange.give(source)
                else:
                    yield told
            try:
                # The end is told before the future has its result.
                sending.result()
            except concurrent.futures.CancelledError:
                raise NotConnected("the client was closed") from None
        finally:
            sending.cancel()

    def check(self) -> ServerReport:
        """Connect, log in, send NOOP and QUIT, and report what was seen and what is wrong, as `SMTPClient.check`.

        Raises:
            UsageError, NotConnected: as `send`.
        """
        return self._run(SMTPClient.check)

    # --- the thread ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Fail waiting messages as not sent, let running ones end within `timeouts.close`, then send QUIT."""
        self._thread.close()

    def __enter__(self) -> Self:
        self._use()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Without a thread, the arguments of the constructor were wrong.
        thread = getattr(self, "_thread", None)
        if thread is not None and thread.running and not thread.closed:
            # First, because a warning may be an error.
            thread.stop()
            warnings.warn(f"a client was not closed: {self!r}", ResourceWarning, stacklevel=2)

    def _use(self) -> tuple[Serving, SMTPClient]:
        """Return the running loop and the client in it."""
        _refuse_event_loop("BlockingClient", "SMTPClient(…).send")
        serving = self._thread.serving()
        return serving, serving.keep(None, self._next_client)

    def _next_client(self) -> SMTPClient:
        """Return a client that was never used: the first one, unless this process was forked from one that used it."""
        if self._first_used:
            return self._make()
        self._first_used = True
        return self._first

    def _run(self, call: Callable[[SMTPClient], Coroutine[Any, Any, T]]) -> T:
        serving, client = self._use()
        return serving.run(call(client))


async def _statistics(client: SMTPClient) -> PoolStatistics:
    return client.statistics()


# --- send_all ------------------------------------------------------------------------------------------------

_WANTED: Final = object()
_END: Final = object()


class _Raised:
    """What the input raised instead of giving a message."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Exchange(Generic[M]):
    """What two threads tell each other: the caller's gives messages, the event loop's receipts.

    Attributes:
        told: receipts, requests for one more message, and the end.
    """

    def __init__(self) -> None:
        self.told: SimpleQueue[Any] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._given: asyncio.Future[Any] | None = None

    async def send(self, client: SMTPClient, options: SendOptions | None) -> None:
        """Send what is given, and tell the receipts. In the event loop."""
        self._loop = asyncio.get_running_loop()
        try:
            async for pair in client.send_all(self._messages(), options=options):
                self.told.put(pair)
        finally:
            self.told.put(_END)

    async def _messages(self) -> AsyncIterator[M]:
        assert self._loop is not None
        while True:
            self._given = self._loop.create_future()
            self.told.put(_WANTED)
            message = await self._given
            if message is _END:
                return
            if isinstance(message, _Raised):
                raise message.error
            yield message

    def give(self, source: Iterator[M]) -> None:
        """Answer a request with the next message, the end, or what the input raised. In the caller's thread."""
        assert self._loop is not None and self._given is not None
        try:
            answer: Any = next(source, _END)
        except Exception as error:
            answer = _Raised(error)
        # When the client was closed meanwhile, the loop may be, too, and has told the end.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_answer, self._given, answer)


def _answer(given: asyncio.Future[Any], answer: object) -> None:
    if not given.done():
        given.set_result(answer)


# --- one message ---------------------------------------------------------------------------------------------


def send_blocking(
    message: Message | EmailMessage | Mail, *, url: str, options: ClientOptions = _DEFAULTS
) -> Receipt:
    """Send one message from a script that has no event loop; `url` as for `SMTPClient.from_url`.

    For one message now and then. A program that sends more keeps a `BlockingClient`, whose connections stay open.

    Raises:
        UsageError: an event loop is running: await `smtp_async.send` there.
        SMTPError: as `SMTPClient.send`.
    """
    client = SMTPClient.from_url(url, options=options)
    # As in `from_url`: the URL may hold a password.
    del url
    _refuse_event_loop("send_blocking", "smtp_async.send")
    return asyncio.run(_send_once(message, client))


def _refuse_event_loop(name: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(f"{name} would stop the running event loop: await {instead} instead")


async def _send_once(message: Message | EmailMessage | Mail, client: SMTPClient) -> Receipt:
    async with client:
        return await client.send(message)
