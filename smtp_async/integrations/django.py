"""Mail backends for Django: one that sends over pooled connections, and one that puts mail into a spool.

All backends of a process share one event loop in a thread of its own, and all backends with the same settings share one
client, because Django makes a new backend for each call of `send_mail`. So threads, and the event loops that Django
makes for asynchronous views, can use the same connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast, runtime_checkable

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import mail as django_mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import EmailMessage
from django.db import transaction

from ..client.client import SMTPClient
from ..client.loop_thread import LoopThread
from ..client.options import ClientOptions
from ..errors import SMTPError
from ..mail.coerce import to_mail
from ..model.content import Mail
from ..model.envelope import NOBODY
from ..model.receipt import Receipt
from ..model.secret import Secret
from ..model.timeouts import Timeouts
from ..protocol.options import SendOptions
from ..spool import DirectorySpool, Spool
from ..tls.context import Security
from ..tls.identity import Identity
from ..tls.stores import CertificateStore

__all__ = ["EmailBackend", "SpoolEmailBackend", "asend_mail"]

#: As Django's own backend: a message is sent if the server accepts one of its recipients.
_DEFAULTS: Final = ClientOptions(send=SendOptions(must_accept=NOBODY))

_thread: Final = LoopThread("smtp_async django")

T = TypeVar("T")


def _setting(name: str) -> Any:
    """Return what `settings.SMTP_ASYNC` says, None if it says nothing."""
    own = getattr(settings, "SMTP_ASYNC", {})
    unknown = set(own) - {"security", "options", "spool", "database"}
    if unknown:
        raise ImproperlyConfigured(f"SMTP_ASYNC has no setting {sorted(unknown)[0]!r}")
    return own.get(name)


def _email_setting(mailer: bool, name: str, default: Any, given: Any) -> Any:
    """Return what was given, else for a mailer the default, else what `settings` say."""
    if given is not None:
        return given
    return default if mailer else getattr(settings, f"EMAIL_{name}")


def _wrong(alias: str | None, problem: str) -> ImproperlyConfigured:
    """Return the error for wrong settings: that of a mailer, which Django has since 6.1, if there is one."""
    of_mailer: Any = getattr(django_mail, "InvalidMailer", None)
    if alias is None or of_mailer is None:
        return ImproperlyConfigured(problem)
    return cast(ImproperlyConfigured, of_mailer(problem, alias=alias))


class EmailBackend(BaseEmailBackend):
    """Send over the connections of a client that all threads and event loops of the process share.

        EMAIL_BACKEND = "smtp_async.integrations.django.EmailBackend"

    The arguments, and the EMAIL_* settings that stand in for them, are those of Django's SMTP backend; so are the
    OPTIONS of a mailer in MAILERS, which Django has since 6.1. Several messages are sent over several connections at
    once. A blocking call from a coroutine is not refused, because Django's own is not: `asend_mail` does not block.

    Args:
        host, port, username, password, use_tls, use_ssl, timeout, ssl_keyfile, ssl_certfile: None takes the setting.
            `timeout` limits each step of the dialogue. With neither TLS setting, TLS is used where it is offered, and
            required where there is a password.
        fail_silently: return the number of messages that were sent instead of raising `SMTPError`.
        security: when TLS starts, in place of `use_tls` and `use_ssl`; None takes `SMTP_ASYNC["security"]`, unless one
            of these arguments is true.
        options: of the client; None takes `SMTP_ASYNC["options"]`.

    Raises:
        ValueError: both `use_tls` and `use_ssl`, without a mailer.
        ImproperlyConfigured: there is no host, or SMTP_ASYNC has an unknown key; for a mailer it is Django's
            `InvalidMailer`, also for `use_tls` together with `use_ssl`.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        use_tls: bool | None = None,
        fail_silently: bool = False,
        use_ssl: bool | None = None,
        timeout: float | None = None,
        ssl_keyfile: str | None = None,
        ssl_certfile: str | None = None,
        *,
        security: Security | None = None,
        options: ClientOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fail_silently = fail_silently
        # For a mailer of MAILERS, its OPTIONS are everything. Django refuses to read the settings beside MAILERS.
        alias: str | None = kwargs.get("alias")
        setting = partial(_email_setting, alias is not None or hasattr(settings, "MAILERS"))
        self.use_tls: bool = setting("USE_TLS", False, use_tls)
        self.use_ssl: bool = setting("USE_SSL", False, use_ssl)
        if self.use_ssl and self.use_tls:
            if alias is not None:
                raise _wrong(alias, "use_tls and use_ssl exclude each other: set one of them to True")
            raise ValueError("EMAIL_USE_TLS and EMAIL_USE_SSL exclude each other: set one of them to True")
        self.host: str = setting("HOST", "", host or None)
        if not self.host:
            raise _wrong(
                alias, "no mail server is named: set host in its OPTIONS" if alias else "no host is named"
            )
        usual = 465 if self.use_ssl else 587 if self.use_tls else 25
        self.port: int = setting("PORT", usual, port or None)
        self.username: str | None = setting("HOST_USER", None, username)
        self.password: str | None = setting("HOST_PASSWORD", None, password)
        self.timeout: float | None = setting("TIMEOUT", None, timeout)
        self.ssl_keyfile: str | None = setting("SSL_KEYFILE", None, ssl_keyfile)
        self.ssl_certfile: str | None = setting("SSL_CERTFILE", None, ssl_certfile)
        # An argument, which may come from the OPTIONS of a mailer, is nearer than what holds for all backends.
        shared = None if use_tls or use_ssl else _setting("security")
        self.security: Security = security or shared or self._security()
        self.options: ClientOptions = options or _setting("options") or _DEFAULTS
        self._opened = False

    def _security(self) -> Security:
        if self.use_ssl:
            return Security.IMPLICIT
        return Security.STARTTLS if self.use_tls else Security.AUTO

    def open(self) -> bool | None:
        """Make sure that the server can be reached and accepts the login.

        A connection of the pool that is open proves that. Otherwise one is opened for the purpose.

        Returns:
            True, False if it was called before, None if it failed silently.

        Raises:
            SMTPError: the server cannot be reached, or refuses the login.
        """
        if self._opened:
            return False
        try:
            self._run(_reach)
        except SMTPError:
            if self.fail_silently:
                return None
            raise
        self._opened = True
        return True

    def close(self) -> None:
        """Do nothing that lasts: the connections stay open for the next message, until they have been idle too long."""
        self._opened = False

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Send messages and return how many were sent: accepted for at least one recipient.

        After a message that fails, those that have not been begun are not sent, unless failures are silent.

        Raises:
            SMTPError: a message was not sent, the first one that failed.
            BadHeaderError: a header has a line end.
        """
        mails = _mails(email_messages, silent=self.fail_silently)
        return self._run(partial(_send, mails=mails, silent=self.fail_silently)) if mails else 0

    async def asend_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """As `send_messages`, without blocking the event loop.

        Raises:
            SMTPError, BadHeaderError: as `send_messages`.
        """
        mails = _mails(email_messages, silent=self.fail_silently)
        if not mails:
            return 0
        sending = _thread.serving().submit(_send(self._client(), mails=mails, silent=self.fail_silently))
        return await asyncio.wrap_future(sending)

    def _run(self, call: Callable[[SMTPClient], Coroutine[Any, Any, T]]) -> T:
        return _thread.serving().run(call(self._client()))

    def _client(self) -> SMTPClient:
        """Return the client of these settings, which all backends with the same settings share."""
        key = (
            *(self.host, self.port, self.username, Secret(self.password or ""), self.security),
            *(self.timeout, self.ssl_keyfile, self.ssl_certfile, _Options(self.options)),
        )
        return _thread.serving().keep(key, self._make)

    def _make(self) -> SMTPClient:
        options = self.options
        if self.timeout is not None:
            options = replace(options, timeouts=Timeouts.all(self.timeout))
        if self.ssl_certfile or self.ssl_keyfile:
            options = replace(options, tls=replace(options.tls, identity=self._identity()))
        # As Django: one without the other is no login.
        login = bool(self.username and self.password)
        return SMTPClient(
            self.host,
            self.port,
            username=self.username if login else None,
            password=self.password if login else None,
            security=self.security,
            options=options,
        )

    def _identity(self) -> Identity:
        files = [name for name in (self.ssl_certfile, self.ssl_keyfile) if name]
        return CertificateStore.load(b"\n".join(Path(name).read_bytes() for name in files)).identity()


class SpoolEmailBackend(BaseEmailBackend):
    """Put messages into a spool, from which a `QueueProcessor` sends them.

        EMAIL_BACKEND = "smtp_async.integrations.django.SpoolEmailBackend"
        SMTP_ASYNC = {"spool": BASE_DIR / "spool"}

    A message of a transaction is put when the transaction is committed, and never if it is rolled back. A spool that
    can join a transaction of PostgreSQL stores the message within it, so that a crash loses either both or none. It
    does so if its URL and the settings of the database name the same server and database, or if the alias is named
    below, for example because one of them goes through a pooler.

    Args:
        fail_silently: return the number of messages that were put instead of raising `SMTPError`.
        spool: a directory, or a callable that returns a `Spool`; None takes `SMTP_ASYNC["spool"]`.
        database: the alias of the database whose transactions count; None takes `SMTP_ASYNC["database"]`, or "default".

    Raises:
        ImproperlyConfigured: no spool is named.
    """

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        spool: str | Path | Callable[[], Spool] | None = None,
        database: str | None = None,
        **kwargs: Any,
    ) -> None:
        # A login is of no use here, but `send_mail` hands it over.
        super().__init__(
            **{name: one for name, one in kwargs.items() if name not in ("username", "password")}
        )
        self.fail_silently = fail_silently
        self.spool = spool or _setting("spool")
        if self.spool is None:
            raise _wrong(
                kwargs.get("alias"), 'SMTP_ASYNC["spool"] names no spool: a directory, or what makes a Spool'
            )
        named = database or _setting("database")
        self._alias_named = named is not None
        self.database: str = named or "default"

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Put messages and return how many.

        Raises:
            SMTPError: a message could not be stored. The error of a message that is put by the commit is not raised:
                Django logs it, and goes on with its other hooks.
            BadHeaderError: a header has a line end.
        """
        mails = _mails(email_messages, silent=self.fail_silently)
        connection = transaction.get_connection(self.database)
        if not connection.in_atomic_block:
            return sum([self._silenced(self._store, mail) for mail in mails])
        spool: Any = self._spool() if connection.vendor == "postgresql" else None
        if isinstance(spool, _JoinsTransactions) and (self._alias_named or _is_in(spool, connection)):
            put = partial(spool.put_blocking, connection=connection)
            return sum([self._silenced(put, mail) for mail in mails])
        if mails:
            self._put_by_commit(mails)
        return len(mails)

    async def asend_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """As `send_messages`, without blocking the event loop. Asynchronous code of Django is in no transaction.

        Raises:
            SMTPError, BadHeaderError: as `send_messages`.
        """
        count = 0
        for mail in _mails(email_messages, silent=self.fail_silently):
            try:
                await asyncio.wrap_future(_thread.serving().submit(self._spool().put(mail)))
                count += 1
            except SMTPError:
                if not self.fail_silently:
                    raise
        return count

    def _put_by_commit(self, mails: Sequence[Mail]) -> None:
        """Have the commit of the transaction put messages; one that fails keeps no other from being put."""

        # Not a partial: Django names the function in its log.
        def put_mail() -> None:
            failed: Exception | None = None
            for mail in mails:
                try:
                    self._silenced(self._store, mail)
                except Exception as error:
                    failed = failed or error
            if failed is not None:
                raise failed

        # Robust, because otherwise Django would drop the hooks behind one that raises, and their mail with them.
        transaction.on_commit(put_mail, using=self.database, robust=True)

    def _store(self, mail: Mail) -> None:
        _thread.serving().run(self._spool().put(mail))

    def _silenced(self, call: Callable[[Mail], object], mail: Mail) -> bool:
        """Call, and return whether that succeeded."""
        try:
            call(mail)
        except SMTPError:
            if not self.fail_silently:
                raise
            return False
        return True

    def _spool(self) -> Spool:
        """Return the spool, which all backends of the process share; a directory is created unless it exists."""
        wanted: Any = self.spool
        make: Callable[[], Spool] = (
            wanted if callable(wanted) else partial(DirectorySpool, wanted, create=True)
        )
        spool: Spool = _thread.serving().keep(("spool", wanted), make)
        return spool


@runtime_checkable
class _JoinsTransactions(Protocol):
    """A spool that can store a message in the transaction of a connection."""

    def is_in(self, host: str, port: int, database: str) -> bool:
        """Tell whether the spool is in this database."""

    def put_blocking(self, message: Any, *, connection: Any) -> str:
        """Store a message in the open transaction."""


def _is_in(spool: _JoinsTransactions, connection: Any) -> bool:
    """Tell whether the spool is in the database of a connection, by the settings of both."""
    place = connection.settings_dict
    return spool.is_in(str(place["HOST"] or ""), int(place["PORT"] or 5432), str(place["NAME"] or ""))


async def asend_mail(
    subject: str,
    message: str,
    from_email: str | None,
    recipient_list: Sequence[str],
    *,
    fail_silently: bool = False,
    auth_user: str | None = None,
    auth_password: str | None = None,
    connection: Any = None,
    html_message: str | None = None,
    using: str | None = None,
) -> int:
    """As Django's `send_mail`, for asynchronous views: the event loop goes on while the message is sent.

    Works with every backend, those of Django's tests included; other backends than these are called in a thread.
    `using` names a mailer of MAILERS.

    Returns:
        The number of messages that were sent: 1, or 0 if it failed silently.

    Raises:
        SMTPError: the message was not sent.
        BadHeaderError: a header has a line end.
    """
    given = {"username": auth_user, "password": auth_password, "fail_silently": fail_silently or None}
    backend = connection or _backend(using, {name: one for name, one in given.items() if one is not None})
    mail = EmailMultiAlternatives(subject, message, from_email, recipient_list, connection=backend)
    if html_message:
        mail.attach_alternative(html_message, "text/html")
    send: Callable[[list[EmailMessage]], Awaitable[int | None]]
    send = getattr(backend, "asend_messages", None) or sync_to_async(
        backend.send_messages, thread_sensitive=False
    )
    return await send([mail]) or 0


class _Options:
    """Options as a part of a key: equal ones are the same, unless something in them cannot be hashed."""

    __slots__ = ("_hash", "_options")

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        try:
            self._hash = hash(options)
        except TypeError:
            self._hash = id(options)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Options) or self._hash != other._hash:
            return False
        return self._options is other._options or self._options == other._options


def _backend(using: str | None, arguments: dict[str, Any]) -> Any:
    mailers = getattr(django_mail, "mailers", None)
    if mailers is not None and not arguments:
        return mailers[using or "default"]
    if using is not None:
        raise TypeError(
            "using names a mailer of MAILERS, which Django has since 6.1, and takes no other arguments"
        )
    return get_connection(**arguments)


# --- messages ------------------------------------------------------------------------------------------------


def _mails(email_messages: Sequence[EmailMessage], *, silent: bool) -> list[Mail]:
    """Return the messages that have recipients, as they are now; none is waited for, as none is a stream."""
    mails = []
    for one in email_messages:
        # Addresses may be texts that are translated late.
        if recipients := [str(recipient) for recipient in one.recipients()]:
            try:
                made = to_mail(one.message(), sender=str(one.from_email), recipients=recipients)
            except SMTPError:
                if not silent:
                    raise
            else:
                mails.append(cast(Mail, made))
    return mails


async def _reach(client: SMTPClient) -> None:
    if not client.statistics().open:
        async with client.session() as session:
            await session.connect()


async def _send(client: SMTPClient, *, mails: Sequence[Mail], silent: bool) -> int:
    """Send in the event loop, and return how many were sent."""
    try:
        if len(mails) == 1:
            await client.send(mails[0])
            return 1
        return await _send_several(client, mails, silent=silent)
    except SMTPError:
        if not silent:
            raise
        return 0


async def _send_several(client: SMTPClient, mails: Sequence[Mail], *, silent: bool) -> int:
    sent = 0
    failed: Receipt | None = None

    def until_one_fails() -> Iterator[Mail]:
        for mail in mails:
            if failed is not None and not silent:
                return
            yield mail

    try:
        async for _, receipt in client.send_all(until_one_fails()):
            if receipt.error is None:
                sent += 1
            else:
                failed = failed or receipt
    except SMTPError:
        if not silent:
            raise
    if failed is not None and not silent:
        failed.raise_for_outcome()
    return sent
