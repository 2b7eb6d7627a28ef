"""aiosmtpd: a server inside the test process that records what it was sent, without any installation."""

import asyncio
import ssl
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers import PASSWORD, REFUSED_CONTENT, REFUSED_SENDER, SIZE_LIMIT, USER, machine
from tests.servers.pki import Leaf, Pki

HOSTNAME = "aio.lab.test"


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was accepted.

    Attributes:
        sender: From MAIL.
        recipients: Those that were not refused.
        content: As it came, CRLF line ends and all.
        mail_options: The parameters of MAIL.
        user: Who was logged in.
        tls: Did it come over TLS?
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    mail_options: tuple[str, ...]
    user: str | None
    tls: bool


class Recorder:
    """The handler of aiosmtpd: refuses what all servers here refuse, records the rest."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.received: list[Received] = []

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """The reply to MAIL."""
        if address == REFUSED_SENDER:
            return "550 5.7.1 sender refused"
        envelope.mail_from, envelope.mail_options = address, options
        return "250 2.1.0 sender ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """The reply to RCPT."""
        if address.endswith("@reject.test"):
            return "550 5.1.1 no such user"
        if address.endswith("@defer.test"):
            return "450 4.2.0 try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """The reply to the end of data; under LMTP one for every accepted recipient."""
        content = envelope.original_content or b""
        accepted = REFUSED_CONTENT.encode() not in content
        if accepted:
            tls = server.transport is not None and server.transport.get_extra_info("ssl_object") is not None
            self._record(session, envelope, content, tls=tls)
        reply = "250 2.0.0 message accepted" if accepted else "554 5.7.1 content refused"
        return "\r\n".join([reply] * len(envelope.rcpt_tos)) if isinstance(server, LMTP) else reply

    def _record(self, session: Session, envelope: Envelope, content: bytes, *, tls: bool) -> None:
        with self.changed:
            self.received.append(
                Received(
                    sender=envelope.mail_from or "",
                    recipients=tuple(envelope.rcpt_tos),
                    content=content,
                    mail_options=tuple(envelope.mail_options),
                    user=session.auth_data if session.authenticated else None,
                    tls=tls,
                )
            )
            self.changed.notify_all()


def _authenticate(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
) -> AuthResult:
    right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=right, auth_data=USER if right else None)


class AiosmtpdServer:
    """Four services of aiosmtpd on an event loop and a thread of their own. No PIPELINING; SMTPUTF8, SIZE.

    Attributes:
        host: Where it listens.
        plain_port: No TLS, no AUTH.
        auth_port: STARTTLS, and PLAIN LOGIN once in TLS.
        tls_port: TLS from the first byte, the same mechanisms.
        lmtp_port: LMTP, one reply per recipient at the end of data.
        user: May log in, with `password`.
    """

    host = machine.HOST
    hostname = HOSTNAME
    user = USER
    password = PASSWORD

    def __init__(self, pki: Pki, leaf: Leaf | None = None) -> None:
        """Starts it with the good certificate, or with another leaf."""
        self._recorder = Recorder()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aiosmtpd", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._connections: weakref.WeakSet[SMTP] = weakref.WeakSet()
        self._thread.start()
        context = pki.server_context(leaf)
        login: dict[str, Any] = {"authenticator": _authenticate}
        self.plain_port = self._listen(lambda: self._smtp(SMTP))
        self.auth_port = self._listen(lambda: self._smtp(SMTP, tls_context=context, **login))
        # aiosmtpd knows of the TLS that it started itself only.
        self.tls_port = self._listen(lambda: self._smtp(SMTP, auth_require_tls=False, **login), context)
        self.lmtp_port = self._listen(lambda: self._smtp(LMTP))

    def messages(self) -> list[Received]:
        """What was accepted, oldest first."""
        return list(self._recorder.received)

    def wait_for_message(self, substring: str | bytes, count: int = 1, timeout: float = 10) -> list[Received]:
        """The messages whose content holds a string, as soon as there are `count` of them.

        Raises:
            TimeoutError: there were fewer after `timeout` seconds.
        """
        wanted = substring.encode() if isinstance(substring, str) else substring
        with self._recorder.changed:
            if not self._recorder.changed.wait_for(lambda: len(self._holding(wanted)) >= count, timeout):
                raise TimeoutError(f"{len(self._holding(wanted))} of {count} messages hold {wanted!r}")
            return self._holding(wanted)

    def clear(self) -> None:
        """Forgets the messages."""
        self._recorder.received.clear()

    def stop(self) -> None:
        """Closes all services and connections, and ends the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _smtp(self, kind: type[SMTP], **options: Any) -> SMTP:
        connection = kind(
            self._recorder,
            hostname=HOSTNAME,
            ident="aiosmtpd",
            enable_SMTPUTF8=True,
            data_size_limit=SIZE_LIMIT,
            loop=self._loop,
            **options,
        )
        self._connections.add(connection)
        return connection

    def _listen(self, factory: Callable[[], SMTP], context: ssl.SSLContext | None = None) -> int:
        starting = self._loop.create_server(factory, self.host, 0, ssl=context)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            if isinstance(connection.transport, asyncio.WriteTransport):
                connection.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # An aborted transport closes its socket in the next turn of the loop, one below TLS a turn later.
        for _ in range(3):
            await asyncio.sleep(0)

    def _holding(self, wanted: bytes) -> list[Received]:
        return [message for message in self._recorder.received if wanted in message.content]
