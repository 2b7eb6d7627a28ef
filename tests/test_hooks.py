"""What hooks are told: over a real session the whole sequence, and that hooks change nothing but time."""

import asyncio
import io
import itertools
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async import Credentials, NotSent, Outcome, Recipient, Security, SMTPError, Timeouts
from smtp_async.errors import SocketError
from smtp_async.events import (
    Abandoned,
    ConnectionKind,
    ConnectionStatus,
    Direction,
    EndTransfer,
    Error,
    Event,
    Notification,
    PITrail,
    SSLStatus,
    StartTransfer,
    Transfer,
)
from smtp_async.hooks import Hooks
from smtp_async.model.octets import base64_size
from smtp_async.testing import RecordingSink, ScriptedServer, close, default, delay, raw, reply, reset
from tests.lab import (
    client_of,
    count_events,
    every_loop,
    gathered,
    mail,
    pool_of,
    set_clock_forward,
    speaking,
    tls_server,
    trusting,
    turns,
    until,
)
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.usefixtures("no_leaks")

ARROWS = {Direction.CLIENT: "C", Direction.SERVER: "S", Direction.INFO: "I"}


class Ear:
    """An async hook that writes everything down."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def __call__(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.heard.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.heard if type(event) is kind]

    @property
    def trail(self) -> list[str]:
        return [f"{ARROWS[event.direction]}: {event.message}" for event in self.of(PITrail)]


def short(event: Any) -> str:
    """An event on one line, without what differs from run to run."""
    match event:
        case PITrail():
            return f"{ARROWS[event.direction]}: {event.message.partition(' queued as')[0]}"
        case ConnectionStatus():
            return f"{event.kind.name} {event.status_code}"
        case SSLStatus():
            return f"SSL {event.message.rpartition(' ')[0] if 'complete' in event.message else event.message}"
        case Notification():
            return f"NOTIFICATION {event.name} {event.parameter}"
        case Transfer():
            return f"TRANSFER {event.percent} %"
        case Error():
            return f"ERROR {event.code} {event.recipient.address if event.recipient else ''}"
    return type(event).__name__


OFFER = ["PIPELINING", "SIZE 10485760", "VRFY", "ETRN"]
REST = ["ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8"]


def ehlo(*between: str) -> list[str]:
    return [
        "C: EHLO client.test",
        *(f"S: 250-{line}" for line in ["mx.lab.test", *OFFER, *between, *REST]),
        "S: 250 CHUNKING",
    ]


@pytest.mark.server
async def test_a_session_with_starttls_and_auth_is_told_from_end_to_end(postfix: Postfix, pki: Pki) -> None:
    ear = Ear()
    client = client_of(
        postfix,
        host="localhost",
        port=postfix.auth_port,
        security=Security.AUTO,
        tls=trusting(pki),
        username=postfix.user,
        password=postfix.password,
    )
    client.on(Event, ear)
    async with client:
        receipt = await client.send(mail(1, to="bob@lab.test", bcc="hidden@reject.test"))
    refusal = "5.7.1 <hidden@reject.test>: Recipient address rejected: no such user"
    size = ear.of(Transfer)[0].total
    place = f"localhost:{postfix.auth_port}"
    assert [short(event) for event in ear.heard] == [
        f"I: connecting to {place}",
        f"I: connected to {place}",
        "CONNECTED 0",
        "S: 220 mx.lab.test ESMTP Postfix",
        *ehlo("STARTTLS"),
        "C: STARTTLS",
        "S: 220 2.0.0 Ready to start TLS",
        "I: TLS handshake with localhost begins",
        "SSL TLS handshake with localhost begins",
        "I: TLS handshake with localhost is complete: TLSv1.3, TLS_AES_256_GCM_SHA384, 256 bits",
        "SSL TLS handshake with localhost is complete: TLSv1.3, TLS_AES_256_GCM_SHA384, 256",
        "TLS_UP 0",
        *ehlo("AUTH PLAIN LOGIN CRAM-MD5"),
        "BeforeAuth",
        "I: logging in with PLAIN",
        "NOTIFICATION mechanism PLAIN",
        "C: AUTH PLAIN ***",
        "S: 235 2.7.0 Authentication successful",
        *ehlo("AUTH PLAIN LOGIN CRAM-MD5"),
        f"C: MAIL FROM:<ann@example.com> SIZE={size}",
        "C: RCPT TO:<bob@lab.test>",
        "C: RCPT TO:<hidden@reject.test>",
        "S: 250 2.1.0 Ok",
        "S: 250 2.1.5 Ok",
        f"S: 554 {refusal}",
        "C: DATA",
        "S: 354 End data with <CR><LF>.<CR><LF>",
        "StartTransfer",
        "TRANSFER 100 %",
        "EndTransfer",
        "C: .",
        "S: 250 2.0.0 Ok:",
        "ERROR 161 hidden@reject.test",
        "C: QUIT",
        "S: 221 2.0.0 Bye",
        f"I: the connection to {place} is closed",
        "DISCONNECTED 0",
    ]
    # The rest went out, and the refused Bcc is told in three places: the event, the verdict, the outcome.
    assert receipt.outcome is Outcome.PARTIAL
    assert [verdict.outcome for verdict in receipt.verdicts] == [Outcome.ACCEPTED, Outcome.REFUSED]
    assert {event.session for event in ear.heard} == {1}
    jobs = [event.job for event in ear.heard]
    first, last = jobs.index(1), len(jobs) - jobs[::-1].index(1)
    assert jobs[first:last] == [1] * (last - first)
    assert jobs[:first] + jobs[last:] == [None] * (len(jobs) - last + first)
    body = ear.of(Transfer)[0].data
    assert b"Subject: message 1\r\n" in body and len(body) == size
    replies = [event for event in ear.of(PITrail) if event.reply is not None]
    assert [event.command for event in replies] == [
        "greeting", "EHLO", "STARTTLS", "EHLO", "AUTH", "EHLO", "MAIL", "RCPT", "RCPT", "DATA", "end of data", "QUIT",
    ]  # fmt: skip


@every_loop
async def test_login_and_cram_challenges_and_answers_are_masked() -> None:
    async with speaking(users={"ann": "canary"}) as server:
        for name in ("LOGIN", "CRAM-MD5"):
            ear = Ear()
            async with client_of(server) as client:
                client.on(PITrail, ear)
                async with client.session() as session:
                    await session.connect()
                    await session.login(
                        Credentials(
                            username="ann", password="canary", mechanisms=(name,), allow_cleartext=True
                        )
                    )
            start = ear.trail.index(f"C: AUTH {name}")
            ours = [line for line in ear.trail[start + 1 :] if line.startswith("C:")]
            assert ours == [*["C: ***"] * (len(ours) - 2), "C: EHLO client.test", "C: QUIT"]
            assert len(ours) == (4 if name == "LOGIN" else 3)


@every_loop
async def test_a_hook_that_raises_changes_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()

    def plain(event: Event) -> None:
        raise RuntimeError("plain hook")

    async def asynchronous(event: Event) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("async hook")

    async with speaking() as server, client_of(server) as client:
        client.on(Event, plain)
        client.on(Event, asynchronous)
        client.on(Event, ear)
        with caplog.at_level(logging.ERROR, logger="smtp_async"):
            receipts = await gathered(*(client.send(mail(n)) for n in range(5)))
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 5
    assert len(server.messages) == 5
    assert sum(" raised" in one for one in caplog.messages) == 2 * len(ear.heard)
    assert "a hook for ConnectionStatus raised" in caplog.messages


@every_loop
async def test_a_hook_that_waits_costs_nothing_but_time() -> None:
    gate, ear = asyncio.Event(), Ear()

    async def slow(event: PITrail) -> None:
        if event.command == "end of data" and event.reply is not None:
            await gate.wait()

    async with speaking() as server, client_of(server) as client:
        client.on(PITrail, slow)
        client.on(Event, ear)
        sending = asyncio.create_task(client.send(mail()))
        await server.wait_for_messages(1)
        assert not sending.done()
        gate.set()
        assert (await sending).outcome is Outcome.ACCEPTED
    spoken = [line for line in ear.trail if not line.startswith("I: ")]
    assert spoken[-4:] == ["C: .", "S: 250 2.0.0 Ok: queued", "C: QUIT", "S: 221 2.0.0 Bye"]
    assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]


@every_loop
async def test_hooks_are_told_in_order_and_of_what_they_asked_for() -> None:
    order: list[str] = []
    async with speaking() as server, client_of(server) as client:
        client.on(EndTransfer, lambda event: order.append("end"))

        @client.on(StartTransfer)
        async def begin(event: StartTransfer) -> None:
            order.append("start")

        @client.on(Transfer)
        def some(event: Transfer) -> None:
            order.append("some")

        await client.send(mail(1))
        client.off(Transfer, some)
        await client.send(mail(2))
        with pytest.raises(ValueError, match="not in list"):
            client.off(Transfer, some)
    assert order == ["start", "some", "end", "start", "end"]


async def test_a_hook_registered_on_a_running_connection_is_told_from_then_on() -> None:
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        await client.send(mail(1))
        client.on(PITrail, ear)
        await client.send(mail(2))
        client.off(PITrail, ear)
        await client.send(mail(3))
    assert [line for line in ear.trail if "RCPT" in line] == ["C: RCPT TO:<user2@example.org>"]


async def test_a_large_body_is_told_in_slices() -> None:
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        client.on(StartTransfer, ear)
        client.on(Transfer, ear)
        client.on(EndTransfer, ear)
        await client.send(mail(1, text="0123456789\n" * 30_000))
    first, *slices, last = ear.heard
    assert (type(first), type(last)) == (StartTransfer, EndTransfer)
    assert len(slices) > 3
    total = slices[0].total
    assert [one.sent for one in slices] == sorted(one.sent for one in slices)
    assert (slices[-1].sent, slices[-1].percent) == (total, 100)
    assert b"".join(one.data for one in slices) == server.messages[0].data


@pytest.mark.parametrize("what", ["sent", "total", "percent", "data"])
async def test_a_slice_tells(what: str) -> None:
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        client.on(Transfer, ear)
        await client.send(mail(1, text="0123456789\n" * 30_000))
    size = len(server.messages[0].data)
    ends = list(itertools.accumulate(len(one.data) for one in ear.heard))
    expected: dict[str, list[Any]] = {
        "sent": ends,
        "total": [size] * len(ends),
        "percent": [100 * end // size for end in ends],
        "data": [server.messages[0].data[start:end] for start, end in itertools.pairwise([0, *ends])],
    }
    assert len(ends) > 3
    assert [getattr(one, what) for one in ear.heard] == expected[what]


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        (Direction.CLIENT, ["EHLO client.test", "MAIL FROM:<ann@example.com>", "QUIT"]),
        (Direction.SERVER, ["250 SIZE", "354 End data with <CR><LF>.<CR><LF>"]),
        (Direction.INFO, ["connected to {place}", "the connection to {place} is closed"]),
    ],
)
async def test_each_line_has_its_direction(direction: Direction, said: list[str]) -> None:
    ear = Ear()
    async with speaking(extensions=["SIZE"]) as server, client_of(server, hello="client.test") as client:
        client.on(PITrail, ear)
        await client.send(mail(1, sender="ann@example.com"))
    lines = [event.message.partition(" SIZE=")[0] for event in ear.heard if event.direction is direction]
    wanted = [line.format(place=f"{server.host}:{server.port}") for line in said]
    assert [line for line in lines if line in wanted] == wanted


@pytest.mark.parametrize(
    ("kind", "place"),
    [(ConnectionKind.CONNECTED, 0), (ConnectionKind.TLS_UP, 1), (ConnectionKind.DISCONNECTED, 2)],
)
async def test_a_change_of_the_connection_is_told_once(pki: Pki, kind: ConnectionKind, place: int) -> None:
    ear = Ear()
    async with (
        tls_server(pki) as server,
        client_of(server, host="localhost", security=Security.STARTTLS, tls=trusting(pki)) as client,
    ):
        client.on(ConnectionStatus, ear)
        await client.send(mail())
    assert [number for number, event in enumerate(ear.heard) if event.kind is kind] == [place]


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("code", 161),
        ("description", "5.1.1 <bob@example.org> nobody"),
        ("recipient", Recipient("bob@example.org")),
    ],
)
async def test_a_problem_tells(attribute: str, said: object) -> None:
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        client.on(Error, ear)
        server.on("RCPT", reply(550, "5.1.1 <bob@example.org> nobody"))
        with pytest.raises(SMTPError):
            await client.send(mail(to="bob@example.org"))
    (told,) = ear.heard
    found = getattr(told, attribute)
    assert str(said) in found if attribute == "description" else found == said


@pytest.mark.parametrize("text", ["Hello", "0123456789\n" * 30_000], ids=["small", "large"])
async def test_mail_goes_from_the_client_to_the_server(text: str) -> None:
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        for event in (StartTransfer, Transfer, EndTransfer):
            client.on(event, ear)
        await client.send(mail(1, text=text))
    assert {type(event) for event in ear.heard} == {StartTransfer, Transfer, EndTransfer}
    assert {event.direction for event in ear.heard} == {Direction.CLIENT}


async def test_a_handshake_that_succeeds_is_told(pki: Pki) -> None:
    ear = Ear()
    async with (
        tls_server(pki) as server,
        client_of(server, host="localhost", security=Security.STARTTLS, tls=trusting(pki)) as client,
    ):
        client.on(ConnectionStatus, ear)
        await client.send(mail())
    assert [(event.kind, event.status_code, event.description) for event in ear.heard] == [
        (ConnectionKind.CONNECTED, 0, f"localhost:{server.port}"),
        (ConnectionKind.TLS_UP, 0, "TLSv1.3"),
        (ConnectionKind.DISCONNECTED, 0, "closed"),
    ]


def told_of(ear: Ear) -> dict[str, list[tuple[str, int]]]:
    """What was heard of each part: kind of event and percent (0 for a start, 100 for an end)."""
    parts: dict[str, list[tuple[str, int]]] = {}
    for event in ear.heard:
        percent = {StartTransfer: 0, EndTransfer: 100}.get(type(event), getattr(event, "percent", 0))
        parts.setdefault(event.part, []).append((type(event).__name__, percent))
    return parts


@pytest.mark.parametrize("binary", [False, True], ids=["base64", "binary"])
@pytest.mark.parametrize("text", ["Hello", "0123456789\n" * 30_000], ids=["small", "large"])
async def test_every_attachment_is_told_of(binary: bool, text: str, tmp_path: Path) -> None:
    """Also those in memory, of which two share a slice, one begins in another's, and one is empty."""
    path = tmp_path / "file"
    path.write_bytes(bytes(200_000))
    ear = Ear()
    message = mail(1, text=text)
    message.html = '<img src="cid:logo">'
    message.attach(b"png", cid="logo")
    message.attach(bytes(150_000 if len(text) > 10 else 9000), filename="one")
    message.attach(b"", filename="empty")
    message.attach(b"twin", filename="twin")
    message.attach(b"twin", filename="twin of it")
    if len(text) > 10:
        message.attach(path, filename="file")
        message.attach(io.BytesIO(), filename="empty file")
        message.attach(bytes(90_000), filename="last")
    async with RecordingSink() if binary else speaking() as server, client_of(server) as client:
        for event in (StartTransfer, Transfer, EndTransfer):
            client.on(event, ear)
        await client.send(message)
    told = told_of(ear)
    names = ["message", "logo", "one", "empty", "twin", "twin of it"]
    assert list(told) == [*names, *(["file", "last", "empty file"] if len(text) > 10 else [])]
    assert told.pop("empty") == [("StartTransfer", 0), ("EndTransfer", 100)]
    if len(text) > 10:
        # Told as soon as it is known that nothing comes from it.
        assert told.pop("empty file") == [("StartTransfer", 0), ("EndTransfer", 100)]
    for name, (first, *slices, last) in told.items():
        assert (first, last) == (("StartTransfer", 0), ("EndTransfer", 100)), name
        percents = [percent for kind, percent in slices if kind == "Transfer"]
        assert len(percents) == len(slices) > 0
        assert percents == sorted(percents)
        assert percents[-1] == 100, name
    assert ear.heard[0].part == ear.heard[-1].part == "message"
    totals = {event.part: event.total for event in ear.of(Transfer)}
    size = 150_000 if len(text) > 10 else 9000
    assert totals["one"] == (size if binary else base64_size(size))
    assert totals["twin"] == base64_size(4)


async def test_starts_alone_may_be_asked_for() -> None:
    ear = Ear()
    message = mail(1, text="0123456789\n" * 30_000)
    message.attach(bytes(150_000), filename="one")
    async with speaking() as server, client_of(server) as client:
        client.on(StartTransfer, ear)
        await client.send(message)
    assert [event.part for event in ear.heard] == ["message", "one"]


async def test_an_abandoned_message_tells_its_end() -> None:
    gate, ear = asyncio.Event(), Ear()
    async with speaking() as server, client_of(server) as client:
        client.on(Abandoned, ear)
        server.on(".", delay(gate), reply(250, "2.0.0 Ok: queued as 17"))
        task = asyncio.create_task(client.send(mail()))
        await server.wait_until(lambda: "." in server.verbs())
        task.cancel()
        assert isinstance((await gathered(task))[0], asyncio.CancelledError)
        assert ear.heard == []
        gate.set()
        await server.wait_for_messages(1)
        await client.send(mail(2))
    (event,) = ear.heard
    assert (event.session, event.job) == (1, 1)
    assert event.receipt.outcome is Outcome.ACCEPTED
    assert event.receipt.accepted[0].queue_id == "17"


async def test_a_deadline_that_passed_too_late_tells_the_end_as_well() -> None:
    gate, ear = asyncio.Event(), Ear()
    async with speaking() as server, client_of(server) as client:
        client.on(Abandoned, ear)
        held = server.on(".", delay(gate), reply(250, "2.0.0 Ok: queued"), nth=1)
        sending = asyncio.create_task(client.send(mail(), deadline=60))
        await server.wait_fired(held)
        set_clock_forward(60)
        with pytest.raises(SMTPError):
            await sending
        gate.set()
        await server.wait_for_messages(1)
        await client.send(mail(2))
    assert [event.receipt.outcome for event in ear.heard] == [Outcome.ACCEPTED]


async def test_refusals_and_ends_are_told_as_errors() -> None:
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        client.on(Error, ear)
        client.on(ConnectionStatus, ear)
        server.on("RCPT", reply(550, "5.1.1 nobody"), match="nobody")
        with pytest.raises(SMTPError):
            await client.send(mail(1, to="nobody@example.org"))
        (refused,) = ear.of(Error)
        assert (refused.code, str(refused.recipient.address)) == (161, "nobody@example.org")
        assert "5.1.1 nobody" in refused.description
        server.on("MAIL", close())
        with pytest.raises(NotSent):
            await client.send(mail(2))
    lost = ear.of(Error)[1:]
    assert {event.code for event in lost} == {1120}
    ends = [event for event in ear.of(ConnectionStatus) if event.kind is ConnectionKind.DISCONNECTED]
    assert {event.status_code for event in ends} == {1120}
    assert len(ends) == len(lost) == 3


async def test_a_failed_handshake_is_told(pki: Pki) -> None:
    ear = Ear()
    async with (
        tls_server(pki, pki.expired) as server,
        client_of(server, host="localhost", security=Security.STARTTLS, tls=trusting(pki)) as client,
    ):
        client.on(Event, ear)
        with pytest.raises(SMTPError) as caught:
            await client.send(mail())
    kinds = [event.kind for event in ear.of(ConnectionStatus)]
    assert kinds == [ConnectionKind.CONNECTED, ConnectionKind.TLS_BROKEN, ConnectionKind.DISCONNECTED]
    assert [event.status_code for event in ear.of(ConnectionStatus)] == [0, 280, 280]
    assert "expired" in ear.of(SSLStatus)[-1].message
    assert caught.value.code == 280


async def test_a_421_to_an_idle_connection_is_told_at_once() -> None:
    told = asyncio.Event()
    ear = Ear()
    async with speaking() as server, client_of(server) as client:
        await client.send(mail())
        client.on(PITrail, ear)
        client.on(ConnectionStatus, lambda event: told.set())
        await server.act(reply(421, "4.4.2 idle for too long"), close())
        async with asyncio.timeout(5):
            await told.wait()
    assert "S: 421 4.4.2 idle for too long" in ear.trail


async def test_a_timeout_is_told() -> None:
    ear = Ear()
    async with speaking() as server, client_of(server, timeouts=Timeouts(mail=0.05)) as client:
        client.on(Error, ear)
        server.on("MAIL", delay(asyncio.Event()))
        with pytest.raises(NotSent):
            await client.send(mail())
    assert {event.code for event in ear.heard} == {201}


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port of this machine that refuses connections as long as the test runs."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class TestRemarks:
    """Lines of the dialogue that the library itself adds: PITrail with Direction.INFO."""

    async def test_a_connection_from_its_beginning_to_its_end(self) -> None:
        ear = Ear()
        key = Credentials(username="ann", password="canary", allow_cleartext=True)
        async with speaking(users={"ann": "canary"}) as server, client_of(server, credentials=key) as client:
            client.on(PITrail, ear)
            await client.send(mail())
        place = f"{server.host}:{server.port}"
        remarks = [event for event in ear.heard if event.direction is Direction.INFO]
        assert [event.message for event in remarks] == [
            f"connecting to {place}",
            f"connected to {place}",
            "logging in with CRAM-MD5",
            f"the connection to {place} is closed",
        ]
        assert {(event.session, event.job, event.command, event.reply) for event in remarks} == {
            (1, None, None, None)
        }
        assert "canary" not in repr(ear.heard)
        # The first and the last line are the library's own; the server's greeting comes behind the second.
        assert (ear.trail[0], ear.trail[-1]) == (
            f"I: connecting to {place}",
            f"I: the connection to {place} is closed",
        )
        assert ear.trail[2].startswith("S: 220 ")

    async def test_the_end_of_a_connection_says_why(self) -> None:
        ear = Ear()
        async with speaking() as server, client_of(server) as client:
            client.on(PITrail, ear)
            server.on("MAIL", close())
            with pytest.raises(NotSent):
                await client.send(mail())
        assert (
            f"I: the connection to {server.host}:{server.port} has ended: the server closed the connection"
            in (line.removesuffix(" without a word") for line in ear.trail)
        )

    async def test_a_server_that_cannot_be_reached(self, deaf_port: int) -> None:
        ear = Ear()
        async with client_of(None, host="127.0.0.1", port=deaf_port) as client:
            client.on(PITrail, ear)
            with pytest.raises(SMTPError):
                await client.send(mail())
        first, last = ear.trail
        assert first == f"I: connecting to 127.0.0.1:{deaf_port}"
        assert last.startswith(f"I: the connection to 127.0.0.1:{deaf_port} has ended: cannot connect to ")

    async def test_a_handshake_that_fails_and_the_way_on_in_clear(self, pki: Pki) -> None:
        ear = Ear()
        async with (
            tls_server(pki) as server,
            client_of(server, host="localhost", security=Security.OPPORTUNISTIC) as client,
        ):
            server.on("STARTTLS", reply(220, "go ahead"), close(), connection=0)
            client.on(Event, ear)
            await client.send(mail())
        place = f"localhost:{server.port}"
        remarks = [line.partition(": ")[2] for line in ear.trail if line.startswith("I: ")]
        assert [line.partition(":")[0] for line in remarks] == [
            "connecting to localhost",
            "connected to localhost",
            "TLS handshake with localhost begins",
            "TLS handshake failed",
            "the connection to localhost",
            "going on without TLS",
            "connecting to localhost",
            "connected to localhost",
            "the connection to localhost",
        ]
        assert remarks[-1] == f"the connection to {place} is closed"
        # Each of the two connections has come up and gone down.
        kinds = [event.kind for event in ear.of(ConnectionStatus)]
        up, broken, down = ConnectionKind.CONNECTED, ConnectionKind.TLS_BROKEN, ConnectionKind.DISCONNECTED
        assert kinds == [up, broken, down, up, down]

    async def test_what_has_no_event_of_its_own_is_a_line_as_well(self) -> None:
        ear = Ear()
        async with speaking() as server, client_of(server) as client:
            server.on("EHLO", reply(502, "5.5.1 what"))
            server.on("RCPT", default(), raw(b"250 once more\r\n"), connection=0)
            client.on(PITrail, ear)
            await client.send(mail())
        assert "I: EHLO was refused: going on without extensions" in ear.trail

    async def test_a_line_is_made_only_if_a_hook_wants_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = count_events(monkeypatch, PITrail, by=lambda fields: fields["direction"])
        statuses: list[Any] = []
        async with speaking() as server, client_of(server) as client:
            await client.send(mail())
            client.on(Notification, statuses.append)
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            # The lines of the dialogue are sorted out after they were made; the library's own are not made.
            assert statuses == [] and made[Direction.CLIENT] > 0 and made[Direction.INFO] == 0
            client.on(PITrail, lambda event: None)
            await client.send(mail(3))
        assert made[Direction.INFO] > 0


class TestStatusCode:
    """The system's number behind the end of a connection, as Winsock counts; else that of the exception."""

    @staticmethod
    def ends(ear: Ear) -> list[tuple[ConnectionKind, int]]:
        return [(event.kind, event.status_code) for event in ear.of(ConnectionStatus)]

    async def test_a_port_that_refuses_connections(self, deaf_port: int) -> None:
        ear = Ear()
        async with client_of(None, host="127.0.0.1", port=deaf_port) as client:
            client.on(ConnectionStatus, ear)
            with pytest.raises(SMTPError):
                await client.send(mail())
        assert self.ends(ear) == [(ConnectionKind.DISCONNECTED, 10061)]
        assert ear.heard[0].description.startswith("cannot connect to ")

    async def test_a_name_that_is_not_known(self) -> None:
        ear = Ear()
        async with client_of(None, host="no-such-host.invalid", port=25) as client:
            client.on(ConnectionStatus, ear)
            with pytest.raises(SMTPError):
                await client.send(mail())
        (end,) = ear.heard
        assert end.kind is ConnectionKind.DISCONNECTED and 11001 <= end.status_code <= 11004

    @every_loop
    async def test_a_connection_that_is_reset(self) -> None:
        ear = Ear()
        async with speaking() as server, client_of(server) as client:
            await client.send(mail())
            client.on(ConnectionStatus, ear)
            server.on("MAIL", reset())
            with pytest.raises(NotSent):
                await client.send(mail(2))
        assert (ConnectionKind.DISCONNECTED, 10054) in self.ends(ear)
        assert {code for kind, code in self.ends(ear) if kind is ConnectionKind.CONNECTED} == {0}

    async def test_an_end_without_an_error_of_the_system(self) -> None:
        ear = Ear()
        async with speaking() as server, client_of(server, timeouts=Timeouts(mail=0.05)) as client:
            await client.send(mail())
            client.on(ConnectionStatus, ear)
            server.on("MAIL", delay(asyncio.Event()))
            with pytest.raises(NotSent):
                await client.send(mail(2))
        assert self.ends(ear)[0] == (ConnectionKind.DISCONNECTED, 201)


class TestInternalSteps:
    """What has no event of its own is a Notification."""

    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
    async def test_the_way_to_log_in(self, mechanism: str) -> None:
        ear = Ear()
        key = Credentials(username="ann", password="secret", mechanisms=(mechanism,), allow_cleartext=True)
        async with speaking(users={"ann": "secret"}) as server, client_of(server, credentials=key) as client:
            client.on(Notification, ear)
            await client.send(mail())
        assert [(event.session, event.name, event.parameter) for event in ear.heard] == [
            (1, "mechanism", mechanism)
        ]

    async def test_helo_behind_a_refused_ehlo(self) -> None:
        ear = Ear()
        async with speaking() as server, client_of(server) as client:
            server.on("EHLO", reply(502, "5.5.1 what"))
            client.on(Notification, ear)
            await client.send(mail())
        assert [event.name for event in ear.heard] == ["helo"]

    async def test_a_server_that_cannot_take_commands_in_groups(self) -> None:
        ear = Ear()
        async with speaking() as server, client_of(server) as client:
            server.on("RCPT", default(), raw(b"250 once more\r\n"), connection=0)
            client.on(Notification, ear)
            await client.send(mail())
        assert [(event.session, event.name) for event in ear.heard] == [(1, "pipelining-off")]


class TestRegistering:
    def test_only_events_can_be_asked_for(self) -> None:
        with pytest.raises(TypeError):
            Hooks().add(str, print)  # type: ignore[arg-type]

    def test_without_hooks_nothing_is_active(self) -> None:
        hooks = Hooks()
        assert not hooks.active and not hooks.wants(Transfer)
        hooks.add(Transfer, print)
        assert hooks.wants(Transfer) and not hooks.wants(PITrail)
        hooks.add(Event, print)
        assert hooks.wants(PITrail)
        hooks.remove(Transfer, print)
        hooks.remove(Event, print)
        assert not hooks.active


async def test_a_hook_that_waits_for_what_was_cancelled_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()

    async def hook(event: PITrail) -> None:
        await gone

    async with speaking() as server, client_of(server) as client:
        client.on(PITrail, hook)
        async with asyncio.timeout(10):
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
        assert server.connections.opened == 1
    assert "a hook for PITrail raised" in caplog.text


async def test_a_slow_hook_slows_the_upload_instead_of_filling_memory() -> None:
    gate = asyncio.Event()
    heard: list[Transfer] = []
    async with speaking() as server, client_of(server) as client:

        @client.on(Transfer)
        async def slow(event: Transfer) -> None:
            heard.append(event)
            await gate.wait()

        task = asyncio.create_task(client.send(mail(1, text=("x" * 70 + "\r\n") * 100_000)))
        await until(lambda: bool(heard))
        await turns(200)
        (connection,) = pool_of(client).connections.open
        assert len(connection.channel.transcript.events) <= 2
        gate.set()
        assert (await task).outcome is Outcome.ACCEPTED
    assert heard[-1].percent == 100


async def test_a_failed_dial_is_told_with_the_systems_number() -> None:
    events: list[ConnectionStatus] = []
    async with ScriptedServer() as server:
        pass
    async with client_of(server) as client:
        client.on(ConnectionStatus, events.append)
        with pytest.raises(SocketError) as caught:
            await client.send(mail())
    (event,) = events
    assert event.kind is ConnectionKind.DISCONNECTED
    assert event.status_code == caught.value.code == 10061
    assert event.description == str(caught.value)


@pytest.mark.parametrize(("text", "starts"), [("", 0), ("Hello", 1)])
async def test_an_empty_text_begins_no_transfer(text: str, starts: int) -> None:
    events: list[object] = []
    async with speaking() as server, client_of(server) as client:
        for event in (StartTransfer, EndTransfer):
            client.on(event, events.append)
        await client.send(mail(1, text=text))
    assert [type(event) for event in events] == [StartTransfer, EndTransfer] * starts
