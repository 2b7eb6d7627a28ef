"""Typical code of users, for type checkers only: `make typecheck-user` runs mypy --strict and pyright over it."""

# pyright: strict

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from pathlib import Path

from smtp_async import (
    DSN,
    NOBODY,
    Address,
    ClientOptions,
    Credentials,
    DirectorySpool,
    Kind,
    Login,
    Message,
    Notify,
    Outcome,
    PoolLimits,
    QueueProcessor,
    Raw,
    Receipt,
    Recipient,
    RetryPolicy,
    Secret,
    Security,
    SendOptions,
    SMTPClient,
    Strength,
    Telemetry,
    Timeouts,
    TLSOptions,
    Token,
    TrustOptions,
    send,
    send_blocking,
)
from smtp_async.auth import Exposure, Mechanism, Needs
from smtp_async.errors import (
    AuthenticationFailed,
    NotSent,
    OutcomeUnknown,
    RecipientsRefused,
    SMTPError,
    TokenRefused,
)
from smtp_async.events import BeforeAuth, ConnectionStatus, Error, PITrail
from smtp_async.oauth import (
    GOOGLE,
    ClientCredentials,
    MicrosoftCloud,
    RefreshToken,
    ServiceAccount,
    microsoft,
)
from smtp_async.testing import ScriptedServer

log = logging.getLogger(__name__)


class Mailer:
    """What a web application holds."""

    def __init__(self, host: str, password: str) -> None:
        options = ClientOptions(
            tls=TLSOptions(trust=TrustOptions(ca_file="/etc/ssl/corporate.pem")),
            pool=PoolLimits(max_connections=5, max_messages=100),
            timeouts=Timeouts(send=30.0, connect=5.0),
            send=SendOptions(must_accept=NOBODY),
        )
        self.client = SMTPClient(host, 587, username="app", password=password, options=options)
        self.client.on(Error, self._heard)

        @self.client.on(ConnectionStatus)
        async def connected(event: ConnectionStatus) -> None:
            log.info("session %s: %s", event.session, event.description)

    def _heard(self, event: Error) -> None:
        log.warning("%s: %s", event.recipient, event.description)

    async def welcome(self, name: str, address: str) -> str | None:
        """Send one message and tell its queue id."""
        message = Message(
            sender=Address("noreply@example.com", "The shop"),
            to=Address(address, name),
            bcc=["archive@example.com"],
            subject="Welcome",
            text=f"Hello {name}",
            html=f"<p>Hello <b>{name}</b></p>",
        )
        message.attach(Path("terms.pdf"))
        message.attach(b"BEGIN:VCARD", filename="shop.vcf", content_type="text/vcard")
        try:
            receipt = await self.client.send(message, deadline=10.0)
        except RecipientsRefused as error:
            reply = error.reply
            log.info("refused: %s", reply.code if reply is not None else "no reply")
            return None
        except (NotSent, AuthenticationFailed):
            return None
        except OutcomeUnknown as error:
            assert error.receipt is not None
            return error.receipt.message_id
        return receipt.verdicts[0].queue_id

    async def close(self) -> None:
        """Close with the application."""
        await self.client.close()


def invitations(names: list[str]) -> Iterator[Message]:
    """Make a mailing."""
    for name in names:
        yield Message(sender="ann@example.com", to=f"{name}@example.org", subject="Party", text="Come!")


async def complete_messages(paths: list[Path]) -> AsyncIterator[Raw]:
    """Read a mailing that is complete already."""
    for path in paths:
        yield Raw(path, sender="ann@example.com", recipients=["bob@example.org"])
        await asyncio.sleep(0)


async def bulk(client: SMTPClient, names: list[str], paths: list[Path]) -> int:
    """Send many."""
    accepted = 0
    async for message, receipt in client.send_all(invitations(names)):
        accepted += len(receipt.accepted)
        if receipt.outcome is not Outcome.ACCEPTED:
            log.warning("%s: %s", message.subject, receipt.error)
    async for raw, receipt in client.send_all(complete_messages(paths)):
        log.info("%s: %s", raw.source, receipt.outcome.name)
    return accepted


async def old_code(client: SMTPClient, message: EmailMessage, stream: AsyncIterator[bytes]) -> None:
    """Send what the standard library made, and a stream."""
    await client.send(message, sender="bounces@example.com", recipients=["bob@example.org"])
    await client.send(Message.from_email_message(message))
    bob = Recipient("bob@example.org", Kind.TO, dsn=DSN(notify=Notify.FAILURE))
    await client.send_raw(stream, sender="ann@example.com", recipients=[bob])
    await client.send_raw(b"Subject: x\r\n\r\nHi", sender="<>", recipients=["bob@example.org"])


async def queue(path: Path, client: SMTPClient) -> bool:
    """Queue and deliver."""
    spool = DirectorySpool(path, create=True)
    job: str = await spool.put(Message(sender="a@example.com", to="b@example.org", text="x"), key="order-17")
    log.info("queued as %s", job)
    processor = QueueProcessor(spool, client, concurrency=4, retry=RetryPolicy())
    report = await processor.run_once()
    return bool(report)


async def conversation(client: SMTPClient) -> list[str]:
    """Talk to a server."""
    async with client.session() as session:
        greeting = await session.connect()
        await session.login(Credentials(username="ann", password="secret"))
        reply = await session.command("NOOP")
        print(greeting.code, reply.lines, session.extensions.size, session.info.tls_version)
    report = await client.check()
    return [str(address) for address in await client.expand("staff")] + [str(report)]


async def tried() -> None:
    """Test an application."""
    trail: list[str] = []
    async with ScriptedServer() as server:
        async with SMTPClient(server.host, server.port, security=Security.PLAINTEXT) as client:
            client.on(PITrail, lambda event: trail.append(event.message))
            await client.send(Message(sender="a@example.com", to="b@example.org", text="x"))
            print(client.statistics().sent, server.messages[0].rcpt_tos)


async def observed() -> Receipt:
    """Log the dialogue, trace what is sent, and send one message without a client to keep."""
    message = Message(sender="ann@example.com", to="bob@example.org", text="Hi")
    await send(message, url="smtp://smtp.example.com", options=ClientOptions(wire_log="wire.log"))
    telemetry = Telemetry()
    options = ClientOptions(
        telemetry=telemetry, wire_log=logging.getLogger("smtp_async.wire"), send=SendOptions(verb="SAML")
    )
    async with DirectorySpool("spool", telemetry=telemetry) as spool:
        await spool.put(message)
    return await send(message, url="smtp://smtp.example.com", options=options, deadline=10)


def script() -> None:
    """Send from a script."""
    message = Message(sender="ann@example.com", to="bob@example.org", subject="Hello", text="Hi")
    try:
        send_blocking(message, url="smtps://ann:secret@smtp.example.com")
    except SMTPError as error:
        raise SystemExit(f"{error.code}: {error}") from error


class Ticket(Mechanism):
    """A mechanism of the application's own."""

    name = "X-TICKET"
    needs = Needs.NOTHING
    exposes = Exposure.NOTHING
    strength = Strength.MUTUAL

    def initial_response(self) -> bytes:
        self.complete = True
        return b"ticket"

    def respond(self, challenge: bytes) -> bytes:
        return challenge

    def secrets(self) -> tuple[bytes, ...]:
        return ()


class Tokens:
    """A provider that keeps something between its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> Token:
        self.calls += 1
        if self.calls > 3:
            raise TokenRefused("enough")
        return Token("ya29.x", expires_at=1.0)


async def fetch() -> Token:
    return Token("ya29.x")


def choose(event: BeforeAuth, credentials: Credentials) -> Credentials | None:
    return Credentials(username=event.username, token=fetch) if "XOAUTH2" in event.offered else None


async def choose_later(event: BeforeAuth, credentials: Credentials) -> bool:
    return event.mechanism != "PLAIN"


async def store(refresh_token: Secret) -> None:
    logging.info("%s characters", len(refresh_token.reveal()))


def with_logins() -> list[SMTPClient]:
    tenant = microsoft("contoso.test", MicrosoftCloud.CHINA)
    accounts = [
        Credentials(username="ann", token=RefreshToken.from_file("ann.token")),
        Credentials(token=RefreshToken(GOOGLE, client_id="a", refresh_token=Secret("r"), on_rotation=store)),
        Credentials(token=ClientCredentials(tenant, client_id="a", client_secret="s")),
        Credentials(token=ServiceAccount.from_file(Path("key.json"), subject="ann@example.com")),
        Credentials(username="ann", token="ya29.x"),
        Credentials(username="ann", token=fetch),
        Credentials(username="ann", token=Tokens(), minimum_strength=Strength.REVEALED),
        Credentials(username="ann", password="x", mechanisms=[Ticket, "PLAIN"]),
    ]
    options = [
        ClientOptions(login=Login.REQUIRED, before_auth=choose),
        ClientOptions(before_auth=choose_later, refuse_downgrade=True),
        ClientOptions(before_auth=lambda event, credentials: None),
    ]
    return [SMTPClient("mx.test", credentials=one, options=each) for one in accounts for each in options]
