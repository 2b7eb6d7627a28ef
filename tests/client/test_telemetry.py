"""telemetry.py: spans and metrics of messages and connections, with the outcome, and without a secret or an address."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async import (
    NOBODY,
    ClientOptions,
    Credentials,
    Outcome,
    PoolLimits,
    Security,
    SendOptions,
    SMTPClient,
    SMTPError,
    Telemetry,
    Timeouts,
)
from smtp_async.errors import FeatureUnavailable, SocketError
from smtp_async.testing import ScriptedServer, close, default, delay, reply
from tests.lab import client_of, every_loop, gathered, mail, speaking, trusting, until
from tests.otel import Telling
from tests.servers import PASSWORD, USER
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def telling() -> Telling:
    return Telling()


# --- messages ---


@every_loop
async def test_a_message_has_a_span_below_that_of_its_caller() -> None:
    telling = Telling()
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        with telling.tracer.start_as_current_span("handler") as handler:
            receipt = await client.send(mail())
    (span,) = telling.spans("smtp send")
    assert span.parent is not None and span.parent.span_id == handler.get_span_context().span_id
    assert span.kind.name == "CLIENT" and span.status.status_code.name == "UNSET"
    assert dict(span.attributes or {}) == {
        "server.address": server.host,
        "server.port": server.port,
        "network.protocol.name": "smtp",
        "smtp.job": 1,
        "smtp.recipients": 1,
        "smtp.outcome": "accepted",
        "smtp.bytes_sent": receipt.bytes_sent,
        "smtp.recipients.accepted": 1,
        "smtp.reply.code": 250,
        "smtp.reply.enhanced_code": "2.0.0",
    }
    outcome = {"smtp.outcome": "accepted"}
    assert telling.sum("smtp.client.messages", **outcome) == 1
    assert telling.histogram("smtp.client.send.duration", **outcome).count == 1
    assert telling.histogram("smtp.client.send.size", **outcome).sum == receipt.bytes_sent


async def test_what_a_caller_does_for_its_message_is_below_the_span(telling: Telling) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n\r\n"
        for _ in range(20):
            yield b"Hi Bob\r\n" * 10_000
        with telling.tracer.start_as_current_span("render"):
            yield b"Bye\r\n"

    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        await client.send_raw(source(), sender="a@x.test", recipients=["b@x.test"])
    (send,), (render,) = telling.spans("smtp send"), telling.spans("render")
    assert render.parent is not None and render.parent.span_id == send.context.span_id


OUTCOMES: dict[str, tuple[str, tuple[Any, ...], str, str | None]] = {
    "refused": (".", (reply(554, "5.6.0 no"),), "refused", "MessageRefused"),
    "unknown": (".", (close(),), "unknown", "OutcomeUnknown"),
}


@pytest.mark.parametrize("name", OUTCOMES)
async def test_every_outcome_is_told(name: str, telling: Telling) -> None:
    point, actions, outcome, error = OUTCOMES[name]
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        server.on(point, *actions)
        (raised,) = await gathered(client.send(mail()))
        assert type(raised).__name__ == error
    (span,) = telling.spans("smtp send")
    attributes = span.attributes or {}
    assert (attributes["smtp.outcome"], attributes["error.type"]) == (outcome, error)
    assert attributes["smtp.error.code"] == raised.code
    assert (span.status.status_code.name, span.events) == ("ERROR", ())
    # The counter tells the errors apart, too.
    assert telling.sum("smtp.client.messages", **{"smtp.outcome": outcome, "error.type": error}) == 1


async def test_a_message_for_some(telling: Telling) -> None:
    options = SendOptions(must_accept=NOBODY)
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        server.on("RCPT", reply(550, "5.1.1 no"), nth=1)
        server.on("RCPT", default(), nth=2)
        receipt = await client.send(mail(cc="carl@example.org"), options=options)
    assert receipt.outcome is Outcome.PARTIAL
    (span,) = telling.spans("smtp send")
    assert (span.attributes or {})["smtp.recipients.accepted"] == 1
    assert telling.sum("smtp.client.messages", **{"smtp.outcome": "partial"}) == 1


async def test_sessions_and_send_all(telling: Telling) -> None:
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        async with client.session() as session:
            await session.connect()
            await session.send(mail())
        server.on("MAIL", reply(550, "5.7.1 no"), nth=3)
        with telling.tracer.start_as_current_span("newsletter") as newsletter:
            receipts = [receipt async for _, receipt in client.send_all(mail(n) for n in range(5))]
    assert sorted(receipt.outcome.value for receipt in receipts) == ["accepted"] * 4 + ["refused"]
    spans = telling.spans("smtp send")
    assert len(spans) == 6
    assert sum(span.parent is not None for span in spans) == 5
    assert {span.parent.span_id for span in spans if span.parent} == {newsletter.get_span_context().span_id}
    assert telling.sum("smtp.client.messages", **{"smtp.outcome": "accepted"}) == 5
    assert telling.sum("smtp.client.messages", **{"smtp.outcome": "refused"}) == 1


async def test_a_loop_that_is_left_ends_all_spans(telling: Telling) -> None:
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        async for _ in client.send_all(mail(n) for n in range(50)):
            break
    assert telling.begun == len(telling.spans("smtp send")) + len(telling.spans("smtp connect"))


@pytest.mark.parametrize("point", ["GREETING", "MAIL", "."])
async def test_a_caller_that_is_cancelled_ends_its_span(point: str, telling: Telling) -> None:
    options: dict[str, Any] = {"telemetry": telling.telemetry, "timeouts": Timeouts(close=0.1)}
    async with speaking() as server, client_of(server, **options) as client:
        server.on(point, delay(asyncio.Event()), optional=True)
        with telling.tracer.start_as_current_span("handler"):
            sending = asyncio.create_task(client.send(mail()))
        await until(lambda: client.statistics().opening if point == "GREETING" else point in server.verbs())
        sending.cancel()
        (ended,) = await gathered(sending)
        assert isinstance(ended, asyncio.CancelledError)
        (span,) = telling.spans("smtp send")
        attributes = span.attributes or {}
        assert attributes["error.type"] == "CancelledError"
        assert attributes["smtp.outcome"] == ("unknown" if point == "." else "not_sent")


# --- connections ---


async def test_a_connection_has_a_span_of_its_own(telling: Telling) -> None:
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        with telling.tracer.start_as_current_span("handler"):
            await client.send(mail())
            await client.send(mail(2))
    (span,) = telling.spans("smtp connect")
    # It serves several callers.
    assert span.parent is None and span.start_time is not None and span.end_time is not None
    assert 0 < span.end_time - span.start_time < 10**10
    assert (span.attributes or {})["smtp.session"] == 1
    assert telling.histogram("smtp.client.connect.duration").count == 1


FAILURES: dict[str, tuple[Callable[[ScriptedServer], object], str]] = {
    "greeting": (lambda server: server.on("GREETING", reply(554, "no")), "GreetingRefused"),
    "end": (lambda server: server.on("EHLO", close()), "ConnectionLost"),
    "login": (lambda server: server.on("AUTH", reply(535, "5.7.8 no")), "AuthenticationFailed"),
}


@pytest.mark.parametrize("lent", [False, True])
@pytest.mark.parametrize("name", FAILURES)
async def test_a_connection_that_fails_is_told_once(name: str, lent: bool, telling: Telling) -> None:
    script, error = FAILURES[name]
    key = Credentials(username="ann", password="secret", mechanisms=("PLAIN",), allow_cleartext=True)
    options: dict[str, Any] = {"telemetry": telling.telemetry, "credentials": key}
    async with speaking(users={"ann": "secret"}) as server, client_of(server, **options) as client:
        script(server)
        if lent:
            async with client.session() as session:
                await gathered(session.connect())
        else:
            await gathered(client.send(mail()))
    (span,) = telling.spans("smtp connect")
    assert (span.attributes or {})["error.type"] == error
    assert span.status.status_code.name == "ERROR"
    assert telling.histogram("smtp.client.connect.duration", **{"error.type": error}).count == 1


async def test_a_server_that_is_not_there(telling: Telling) -> None:
    options = ClientOptions(telemetry=telling.telemetry)
    client = SMTPClient("127.0.0.1", 1, security=Security.PLAINTEXT, options=options)
    with pytest.raises(SocketError):
        await client.send(mail())
    await client.close()
    assert [(span.attributes or {})["error.type"] for span in telling.spans("smtp connect")] == [
        "SocketError"
    ]
    assert telling.sum("smtp.client.messages", **{"smtp.outcome": "not_sent"}) == 1


async def test_a_client_that_is_closed_while_it_dials_has_no_failed_connection(telling: Telling) -> None:
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        server.on("GREETING", delay(asyncio.Event()), optional=True)
        sending = asyncio.create_task(client.send(mail()))
        await until(lambda: client.statistics().opening)
        await client.close()
        await gathered(sending)
    assert telling.spans("smtp connect") == []


async def test_clients_of_one_server_are_added_up(telling: Telling) -> None:
    async with speaking() as server:
        async with client_of(server, telemetry=telling.telemetry) as one:
            async with client_of(server, telemetry=telling.telemetry) as other:
                await gathered(one.send(mail()), other.send(mail(2)))
                (point,) = telling.points("smtp.client.connections", **{"smtp.connection.state": "idle"})
                assert point.value == 2
                (waiting,) = telling.points("smtp.client.waiting")
                assert waiting.value == 0


async def test_the_pool_is_observed(telling: Telling) -> None:
    released = asyncio.Event()
    limits = PoolLimits(max_connections=2)
    async with speaking() as server, client_of(server, telemetry=telling.telemetry, pool=limits) as client:
        assert telling.sum("smtp.client.waiting") == 0
        server.on(".", delay(released), default(), nth=range(1, 3))
        tasks = [asyncio.create_task(client.send(mail(n))) for n in range(6)]
        await until(lambda: server.verbs().count(".") == 2)
        assert telling.sum("smtp.client.connections", **{"smtp.connection.state": "busy"}) == 2
        assert telling.sum("smtp.client.waiting") == client.statistics().waiting > 0
        released.set()
        await asyncio.gather(*tasks)
        assert telling.sum("smtp.client.connections", **{"smtp.connection.state": "idle"}) == 2
    del client, tasks
    assert telling.sum("smtp.client.connections", **{"smtp.connection.state": "idle"}) == 0


# --- what it costs, and what does not show ---


async def test_no_address_and_no_subject_shows(telling: Telling) -> None:
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        server.on("RCPT", reply(550, "5.1.1 <user1@example.org>: no such user"), nth=1)
        await gathered(client.send(mail(subject="s3cret subject")), client.send(mail(2)))
    everything = telling.everything()
    assert "smtp send" in everything
    for hidden in ("user1", "ann@", "example.org", "s3cret", "no such user"):
        assert hidden not in everything


def test_every_name_is_documented() -> None:
    """Names of spans, metrics and attributes are what dashboards are made of."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "how-to" / "telemetry.md").read_text(encoding="utf-8")
    sources = [
        root / "smtp_async" / name for name in ("client/telemetry.py", "processor/delivery_telemetry.py")
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    names = set(re.findall(r'"(smtp(?: [a-z]+|\.[a-z_.]+))"', text))
    assert {"smtp send", "smtp.client.messages", "smtp.queue.jobs"} <= names
    assert sorted(name for name in names if f"`{name}`" not in page) == []


async def test_without_an_sdk_mail_is_sent_all_the_same() -> None:
    async with speaking() as server, client_of(server, telemetry=Telemetry()) as client:
        assert (await client.send(mail())).outcome is Outcome.ACCEPTED
        assert [one.outcome async for _, one in client.send_all([mail(2)])] == [Outcome.ACCEPTED]


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(FeatureUnavailable) as caught:
        Telemetry()
    assert caught.value.needs == "smtp-async[otel]"


async def test_off_it_is_not_even_imported() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, smtp_async; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))",
    )
    assert await process.wait() == 0


@pytest.mark.server
@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_real_servers(name: str, request: pytest.FixtureRequest, pki: Pki, telling: Telling) -> None:
    server: Postfix | Exim = request.getfixturevalue(name)
    options = ClientOptions(tls=trusting(pki), telemetry=telling.telemetry)
    key: dict[str, Any] = {"username": USER, "password": PASSWORD, "security": Security.IMPLICIT}
    async with SMTPClient("localhost", server.ports.tls, options=options, **key) as client:
        await client.send(mail(), recipients=["bob@lab.test"])
        with pytest.raises(SMTPError):
            await client.send(mail(2), recipients=["bob@reject.test"])
    (connect,) = telling.spans("smtp connect")
    assert (connect.attributes or {})["tls.protocol.version"] == "TLSv1.3"
    assert [(span.attributes or {})["smtp.outcome"] for span in telling.spans("smtp send")] == [
        "accepted",
        "refused",
    ]
    assert PASSWORD not in telling.everything()
