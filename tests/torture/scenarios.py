"""Ways to send mail: the table of the scenarios in which connections are cut and callers are stopped.

Each scenario has a server, a client, and something that the client does. `wire` disturbs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from smtp_async import (
    DKIM,
    PoolLimits,
    ProxyOptions,
    ProxyType,
    Security,
    SendOptions,
    SMTPClient,
    Timeouts,
)
from smtp_async.events import JobStarted
from smtp_async.processor import ProcessorOptions, QueueProcessor
from smtp_async.spool.contract import Spool
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.testing import CutProxy
from tests.connection.test_login import CANARY
from tests.lab import PATIENCE, client_of, trusting
from tests.servers.pki import Pki
from tests.torture.books import Books
from tests.torture.children import BRISK
from tests.transport.lab import Handler, serving
from tests.transport.proxy.lab import Asked, http, socks5

#: What a client of the tests does, and where its books are.
Send = Callable[[SMTPClient, Books], Awaitable[None]]
KEY = DKIM("lab.test", "e", ed25519.Ed25519PrivateKey.generate())
_SIGNATURE = re.compile(rb"\ADKIM-Signature:(?:[^\r]|\r\n[ \t])*\r\n")


def unsigned(content: bytes) -> bytes:
    """Take the signature off; what has none is changed, so that the books do not agree."""
    rest, count = _SIGNATURE.subn(b"", content)
    return rest if count == 1 else b"it was not signed"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to send mail.

    Attributes:
        name: the name in the table.
        send: what the client does.
        server: options of the server.
        client: options of the client.
        pool: the limits of its pool.
        link: the connection that is cut.
        proxy: the kind of proxy on the way, and what plays it.
        spool: opens the spool of the scenario; None if it has none.
        unwrap: see `Books`.
        real: the scenario can be sent to a real server, which must not mind its domain.
    """

    name: str
    send: Send
    server: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)
    link: int = 0
    proxy: tuple[ProxyType, Callable[[Asked, Any], Handler]] | None = None
    spool: Callable[[], Spool] | None = None
    unwrap: Callable[[bytes], bytes] = lambda content: content
    real: bool = False

    def __str__(self) -> str:
        return self.name

    def make_client(self, way: CutProxy, server: Any, timeouts: Timeouts, wire_log: Any = None) -> SMTPClient:
        """Return a client whose connections take the way through `way`."""
        limits = {"max_connections": 1, "min_backoff": 1e-6, "max_backoff": 1e-6, **self.pool}
        options = {"pool": PoolLimits(**limits), "timeouts": timeouts, "wire_log": wire_log, **self.client}
        if self.proxy is None:
            return client_of(way, **options)
        kind = self.proxy[0]
        proxy = ProxyOptions(type=kind, host=way.host, port=way.port, username="ann", password=CANARY)
        return client_of(server, proxy=proxy, **options)

    @contextlib.asynccontextmanager
    async def target(self, server: Any) -> AsyncIterator[tuple[str, int]]:
        """Give the address to which the connections that may be cut go: the server's, or that of its proxy."""
        if self.proxy is None:
            yield server.host, server.port
            return
        account: Any = ("ann", CANARY) if self.proxy[0] is ProxyType.SOCKS5 else f"ann:{CANARY}"
        async with serving(self.proxy[1](Asked(), account)) as proxy:
            yield "127.0.0.1", proxy.port

    async def send_next(self, client: SMTPClient, books: Books) -> None:
        """Send one more message, which has to arrive; work off the spool, where there is one.

        A cut that was not reached before may meet this message, and a dial that stalled may still fail it, but not the
        ones that are sent then.
        """
        if self.spool is not None:
            await work_off(self.spool, client, books, count=1)
            return
        for _ in range(3):
            made = books.new()
            await books.send(client, made, deadline=PATIENCE, **self._options())
            told = books.told[made.name].outcomes
            if told is not None and all(one.value == "accepted" for one in told.values()):
                return
        raise AssertionError(f"the next message was not accepted: {books.errors[-1:]}")

    def _options(self) -> dict[str, Any]:
        return {"options": SendOptions(sign=(KEY,))} if self.unwrap is unsigned else {}


# --- what clients do ---------------------------------------------------------------------------------------------


async def one_by_one(client: SMTPClient, books: Books, *, recipients: int = 2, **options: Any) -> None:
    """Send two messages, the second one behind the reply to the first."""
    for _ in range(2):
        await books.send(client, books.new(recipients=recipients), **options)


async def together(client: SMTPClient, books: Books, *, count: int = 4) -> None:
    """Send messages from as many tasks."""
    made = [books.new(recipients=1 + number % 2) for number in range(count)]
    await asyncio.gather(*(books.send(client, one) for one in made))


async def all_of_them(client: SMTPClient, books: Books, *, count: int = 6) -> None:
    """Send messages with `send_all`."""
    await books.send_all(client, [books.new() for _ in range(count)])


async def streamed(client: SMTPClient, books: Books) -> None:
    """Send a message that is read while it is sent, in chunks, and a small one behind it."""
    options = SendOptions(chunking="always", chunk_size=16_384)
    await books.send(client, books.new(large=True), streamed=True, options=options)
    await books.send(client, books.new())


async def work_off(make: Callable[[], Spool], client: SMTPClient, books: Books, *, count: int) -> None:
    """Put messages into a spool, and deliver until no job is left."""
    async with make() as spool:
        await spool.recover()
        for _ in range(count):
            made = books.new()
            raw = made.raw()
            await spool.put(raw.source, sender=raw.sender, recipients=raw.recipients)
            books.queued.add(made.name)

        def started(event: JobStarted) -> None:
            for recipient in event.recipients:
                books.flagged[str(recipient.address).partition(".")[0]] += event.flagged

        while True:
            processor = QueueProcessor(
                spool, client, retry=BRISK, options=ProcessorOptions(poll=0.02, heartbeat=0.5, grace=0.2)
            )
            processor.on(JobStarted, started)
            await processor.run_once()
            left = await spool.statistics()
            if not left.queued + left.sending:
                return
            await spool.wait(0.02)


def queued(make: Callable[[], Spool]) -> Send:
    """Return a scenario's `send` that puts three messages into a spool and delivers them."""

    async def send(client: SMTPClient, books: Books) -> None:
        await work_off(make, client, books, count=3)

    return send


class Folder:
    """A spool in a directory, which is made anew for every run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Spool:
        return DirectorySpool(self._path, create=True, durable=False, low_water=0, poll=0.02)

    def clear(self) -> None:
        """Delete all jobs, those of a process that was stopped included."""
        shutil.rmtree(self._path, ignore_errors=True)


# --- the table ---------------------------------------------------------------------------------------------------


#: The names of the scenarios, in the order of the table.
NAMES = (
    *(
        "plain",
        "starttls-auth",
        "implicit",
        "resumed",
        "pipelined",
        "window",
        "bdat-stream",
        "lmtp",
        "socks5",
    ),
    *("connect", "pool-of-3", "send-all", "signed", "queue-directory", "queue-postgres"),
)


def table(pki: Pki, folder: Path, database: Callable[[], Spool] | None = None) -> dict[str, Scenario]:
    """Return the scenarios by name.

    Args:
        pki: the authority of the servers' certificates.
        folder: where the directory of a spool may be made.
        database: opens a spool in a database; None leaves its scenario out.
    """
    context = pki.server_context()
    secure = {"tls": trusting(pki)}
    login = {"username": "ann", "password": CANARY}
    users = {"ann": CANARY}
    lean = ("PIPELINING", "CHUNKING")
    found = [
        Scenario(name="plain", send=one_by_one, server={"extensions": ()}),
        Scenario(
            name="starttls-auth",
            send=one_by_one,
            server={"ssl_context": context, "users": users, "require_auth": True},
            client={"security": Security.STARTTLS, **secure, **login},
        ),
        Scenario(
            name="implicit",
            send=one_by_one,
            server={"ssl_context": context, "implicit_tls": True, "users": users},
            client={"security": Security.IMPLICIT, **secure, **login},
        ),
        Scenario(
            name="resumed",
            send=one_by_one,
            server={"ssl_context": context, "implicit_tls": True},
            client={"security": Security.IMPLICIT, **secure},
            pool={"max_messages": 1},
            link=1,
        ),
        Scenario(name="pipelined", send=together, real=True),
        Scenario(
            name="window",
            send=partial(all_of_them, count=8),
            server={"extensions": lean},
            pool={"window": 8},
            real=True,
        ),
        Scenario(name="bdat-stream", send=streamed, real=True),
        Scenario(name="lmtp", send=one_by_one, server={"lmtp": True}, client={"lmtp": True}),
        Scenario(name="socks5", send=one_by_one, proxy=(ProxyType.SOCKS5, socks5)),
        Scenario(name="connect", send=one_by_one, proxy=(ProxyType.HTTP_CONNECT, http)),
        Scenario(name="pool-of-3", send=partial(together, count=6), pool={"max_connections": 3}, real=True),
        Scenario(name="send-all", send=all_of_them, real=True),
        Scenario(name="signed", send=partial(one_by_one, options=SendOptions(sign=(KEY,))), unwrap=unsigned),
        Scenario(name="queue-directory", send=queued(Folder(folder)), spool=Folder(folder)),
    ]
    if database is not None:
        found.append(Scenario(name="queue-postgres", send=queued(database), spool=database))
    return {scenario.name: scenario for scenario in found}
