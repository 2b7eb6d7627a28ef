"""The send matrix: every way to send against every real server, in one table.

What a server does not offer stands in `MISSING`, and the test of that cell shows that the server says so itself.
"""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from smtp_async import (
    DSN,
    Credentials,
    Notify,
    Outcome,
    PoolLimits,
    Raw,
    Receipt,
    Recipient,
    Security,
    SendOptions,
    SMTPClient,
)
from smtp_async.events import PITrail
from tests.lab import client_of, gathered, trusting
from tests.servers import PASSWORD, SIZE_LIMIT, USER
from tests.servers.pki import Pki

pytestmark = pytest.mark.server

SERVERS = ("postfix", "exim", "dovecot", "aiosmtpd")
#: Dovecot has a mailbox for this one, the others for everyone in the domain.
BOB = "user@lab.test"
#: Each service of each server: the name of its port, and how TLS starts there.
PLAIN, STARTTLS, IMPLICIT = Security.PLAINTEXT, Security.STARTTLS, Security.IMPLICIT
PORTS: dict[str, dict[str, tuple[str, Security]]] = {
    **{
        name: {
            "plain": ("plain_port", PLAIN),
            "tls": ("auth_port", STARTTLS),
            "implicit": ("tls_port", IMPLICIT),
        }
        for name in ("postfix", "exim", "aiosmtpd")
    },
    "dovecot": {"tls": ("submission_port", STARTTLS), "implicit": ("submissions_port", IMPLICIT)},
}
LMTP = {"dovecot", "aiosmtpd"}
WAYS = ("plain", "tls", "implicit", "pipelining", "bdat", "8-bit", "utf-8", "dsn", "10 MiB", "lmtp")
#: What a server does not offer, and the attribute of its extensions that says so; None where it has no such port.
MISSING: dict[tuple[str, str], str | None] = {
    ("dovecot", "plain"): None,
    ("postfix", "lmtp"): None,
    ("exim", "lmtp"): None,
    ("dovecot", "utf-8"): "smtputf8",
    ("aiosmtpd", "pipelining"): "pipelining",
    ("aiosmtpd", "bdat"): "chunking",
    ("aiosmtpd", "dsn"): "dsn",
}


class Cell:
    """One cell of the matrix: a server, a way to send, and a mark of what was sent."""

    def __init__(self, server: str, way: str, request: pytest.FixtureRequest, pki: Pki) -> None:
        self.server, self.way = server, way
        self.mta = request.getfixturevalue(server)
        # Dovecot's submission service hands everything on to Postfix.
        relayed = server == "dovecot" and way != "lmtp"
        self.mailbox = request.getfixturevalue("postfix") if relayed else self.mta
        self.tag = f"tag-{uuid.uuid4().hex}"
        self.trail: list[str] = []
        self._pki = pki

    def client(self, **options: Any) -> SMTPClient:
        """Return a client for this cell; where there is a login, it logs in."""
        if self.way == "lmtp":
            return client_of(self.mta, port=self.mta.lmtp_port, lmtp=True, **options)
        ports = PORTS[self.server]
        port, security = ports.get(self.way) or next(iter(ports.values()))
        if security is not PLAIN:
            key = Credentials(username=USER, password=PASSWORD, mechanisms=("PLAIN",))
            options |= {"tls": trusting(self._pki), "credentials": key, "host": "localhost"}
        client = client_of(self.mta, port=getattr(self.mta, port), security=security, **options)
        client.on(PITrail, lambda event: self.trail.append(event.message))
        return client

    def letter(self, body: str | bytes = "Hello\r\n.\r\n..\r\n", to: Any = BOB) -> Raw:
        """Return a message with the mark."""
        octets = body.encode() if isinstance(body, str) else body
        head = f"From: ann@lab.test\r\nTo: {BOB}\r\nSubject: {self.tag}\r\n\r\n".encode()
        return Raw(head + octets, "ann@lab.test", [to])

    async def send(self, client: SMTPClient, letter: Raw, **options: Any) -> Receipt:
        """Send a message."""
        return await client.send_raw(
            letter.source, sender=letter.sender, recipients=letter.recipients, options=SendOptions(**options)
        )

    async def demand_arrived(self, body: bytes, count: int = 1) -> None:
        """Wait for the messages with the mark; their bodies are as they were sent."""
        found = await asyncio.to_thread(self.mailbox.wait_for_message, self.tag, count)
        assert len(found) == count
        for one in found:
            content = getattr(one, "content", one).replace(b"\r\n", b"\n")
            assert content.partition(b"\n\n")[2] == body.replace(b"\r\n", b"\n")


# --- ways to send ------------------------------------------------------------------------------------------------


async def one(cell: Cell) -> None:
    """Plain, with STARTTLS and AUTH, with implicit TLS and AUTH, LMTP."""
    letter = cell.letter()
    async with cell.client() as client:
        receipt = await cell.send(client, letter)
        async with client.session() as session:
            await session.connect()
            assert session.info.encrypted is (cell.way in ("tls", "implicit"))
    assert receipt.outcome is Outcome.ACCEPTED
    assert any(line.startswith("AUTH") for line in cell.trail) is (cell.way in ("tls", "implicit"))
    await cell.demand_arrived(b"Hello\r\n.\r\n..\r\n")


async def pipelining(cell: Cell) -> None:
    letter = cell.letter()
    async with cell.client(pool=PoolLimits(max_connections=1)) as client:
        receipts = await gathered(*(cell.send(client, letter) for _ in range(10)))
        # In lock-step each message takes four round trips.
        assert client.statistics().round_trips < 30
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 10
    await cell.demand_arrived(b"Hello\r\n.\r\n..\r\n", 10)


async def bdat(cell: Cell) -> None:
    async with cell.client() as client:
        receipt = await cell.send(client, cell.letter(), chunking="always")
    assert receipt.outcome is Outcome.ACCEPTED
    assert any(line.startswith("BDAT ") for line in cell.trail) and "DATA" not in cell.trail
    await cell.demand_arrived(b"Hello\r\n.\r\n..\r\n")


async def eight_bit(cell: Cell) -> None:
    body = "Grüße\r\n".encode()
    async with cell.client() as client:
        assert (await cell.send(client, cell.letter(body))).outcome is Outcome.ACCEPTED
    assert any(line.startswith("MAIL ") and "BODY=8BITMIME" in line for line in cell.trail)
    await cell.demand_arrived(body)


async def utf_8(cell: Cell) -> None:
    letter = cell.letter(to="jörg@lab.test")
    async with cell.client() as client:
        assert (await cell.send(client, letter)).outcome is Outcome.ACCEPTED
    assert any(line.startswith("MAIL ") and "SMTPUTF8" in line for line in cell.trail)
    await cell.demand_arrived(b"Hello\r\n.\r\n..\r\n")


async def dsn(cell: Cell) -> None:
    letter = cell.letter(to=Recipient(BOB, dsn=DSN(notify=Notify.FAILURE, orcpt=BOB)))
    async with cell.client() as client:
        assert (await cell.send(client, letter)).outcome is Outcome.ACCEPTED
    assert any(line.startswith("RCPT ") and "NOTIFY=FAILURE" in line for line in cell.trail)
    await cell.demand_arrived(b"Hello\r\n.\r\n..\r\n")


async def ten_mebibytes(cell: Cell) -> None:
    # Less what the servers put in front, because that is their limit. aiosmtpd counts doubled dots, too.
    line = b"0123456789abcdef" * 4 + b"\r\n"
    body = b".\r\n" + line * ((SIZE_LIMIT - 8192) // len(line))
    async with cell.client() as client:
        assert (await cell.send(client, cell.letter(body))).outcome is Outcome.ACCEPTED
    await cell.demand_arrived(body)


SENDS: dict[str, Callable[[Cell], Any]] = {
    **dict.fromkeys(("plain", "tls", "implicit", "lmtp"), one),
    "pipelining": pipelining,
    "bdat": bdat,
    "8-bit": eight_bit,
    "utf-8": utf_8,
    "dsn": dsn,
    "10 MiB": ten_mebibytes,
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(60)
async def test_every_way_to_send_against_every_server(
    way: str, server: str, request: pytest.FixtureRequest, pki: Pki
) -> None:
    cell = Cell(server, way, request, pki)
    if (server, way) not in MISSING:
        await SENDS[way](cell)
        return
    attribute = MISSING[server, way]
    if attribute is None:
        assert way not in PORTS[server] and (way != "lmtp" or server not in LMTP)
        return
    async with cell.client() as client:
        report = await client.check()
    assert report.extensions is not None
    assert not getattr(report.extensions, attribute)
