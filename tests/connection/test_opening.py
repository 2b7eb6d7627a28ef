"""opening.py: the greeting, EHLO and its fallback, dialling, and how a failed opening ends."""

import asyncio
import selectors
from typing import Any
from unittest import mock

import pytest

from smtp_async import (
    ClientOptions,
    Credentials,
    Outcome,
    PoolLimits,
    Security,
    SMTPClient,
    SMTPError,
    SocketOptions,
    TLSOptions,
    TrustOptions,
)
from smtp_async.errors import (
    GreetingRefused,
    InvalidHost,
    SocketError,
    Timeout,
)
from smtp_async.events import ConnectionKind, ConnectionStatus, Error, Event
from smtp_async.model.reply import Reply
from smtp_async.testing import (
    Action,
    CancelManner,
    CancelMoment,
    ScriptedServer,
    ServerThread,
    cancellations,
    default,
    delay,
    reply,
)
from tests.lab import (
    client_of,
    every_loop,
    impatient,
    mail,
    mute,
    speaking,
    tls_server,
    turns,
)
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


def first_line(server: ScriptedServer) -> str:
    return server.commands[0].line.decode()


class TestHello:
    async def test_without_extensions_it_is_helo(self) -> None:
        async with speaking() as server, client_of(server, extensions=False) as client:
            receipt = await client.send(mail(1, text="Grüße"))
            assert receipt.outcome is Outcome.ACCEPTED
            assert server.verbs()[:2] == ["HELO", "MAIL"]
            assert server.messages[0].mail_parameters == {}
            assert server.messages[0].data.isascii()

    async def test_lmtp_says_lhlo(self) -> None:
        async with speaking(lmtp=True) as server, client_of(server, lmtp=True) as client:
            await client.send(mail())
            assert server.verbs()[0] == "LHLO"

    async def test_over_a_unix_socket(self, tmp_path: Any) -> None:
        path = str(tmp_path / "lmtp.sock")
        async with speaking(lmtp=True, path=path) as server:
            client = SMTPClient.from_url(server.url, options=ClientOptions(hello="me.test"))
            async with client:
                assert (client.host, client.port) == (path, 0)
                await client.send(mail())
                async with client.session() as session:
                    await session.connect()
                    assert session.info.port is None
            assert len(server.messages) == 1

    async def test_a_unix_socket_that_does_not_exist(self, tmp_path: Any) -> None:
        async with SMTPClient(str(tmp_path / "none")) as client:
            with pytest.raises(SocketError) as caught:
                await client.send(mail())
        assert caught.value.errno == 2


class TestDialling:
    async def test_the_all_zero_address_is_refused(self) -> None:
        async with SMTPClient("0.0.0.0", 25, security=Security.PLAINTEXT) as client:
            with pytest.raises(InvalidHost) as caught:
                await client.send(mail())
        assert caught.value.code == 102

    async def test_connect_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def forever(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "sock_connect", forever, raising=False)
        async with speaking() as server, client_of(server, timeouts=impatient(5, connect=0.05)) as client:
            with pytest.raises(Timeout) as caught:
                await client.send(mail())
        assert caught.value.stage == "connect"

    async def test_socket_options_are_used(self) -> None:
        options = SocketOptions(local_address="127.0.0.1", keepalive=True)
        async with speaking() as server, client_of(server, socket=options) as client:
            async with client.session() as session:
                await session.connect()
                assert isinstance(session.info.local, tuple) and session.info.local[0] == "127.0.0.1"


class TestLeaving:
    """A connection that fails in step with the server ends with QUIT (RFC 5321 section 4.1.1.10)."""

    KEY = Credentials(username="ann", password="secret", allow_cleartext=True)

    REFUSALS: dict[str, tuple[str, tuple[Action, ...], dict[str, Any], list[str]]] = {
        "554 greeting": ("GREETING", (reply(554, "no"),), {}, []),
        "450 greeting": ("GREETING", (reply(450, "later"),), {}, []),
        "EHLO": ("EHLO", (reply(550, "no"),), {"security": Security.STARTTLS}, ["EHLO"]),
        "HELO": ("*", (reply(502, "no"),), {}, ["EHLO", "HELO"]),
        "STARTTLS": ("STARTTLS", (reply(454, "no"),), {"security": Security.STARTTLS}, ["EHLO", "STARTTLS"]),
        "no STARTTLS": ("NOOP", (), {"security": Security.STARTTLS, "port": None}, ["EHLO"]),
        "AUTH": ("AUTH", (reply(535, "no"),), {"credentials": KEY}, ["EHLO", "AUTH"]),
        "no AUTH": (
            "NOOP",
            (),
            {"credentials": Credentials(username="a", password="b", mechanisms=["SCRAM-SHA-512"])},
            ["EHLO"],
        ),
        "challenge": (
            "AUTH",
            (reply(334, "!"),),
            {"credentials": KEY},
            ["EHLO", "AUTH"],
        ),
    }

    @pytest.mark.parametrize("why", REFUSALS)
    @every_loop
    async def test_quit_is_said(self, why: str, pki: Pki) -> None:
        point, actions, options, verbs = self.REFUSALS[why]
        server = tls_server(pki, users={"ann": "secret"}, auth_in_clear=True)
        if options.get("port", 0) is None:
            options = {name: value for name, value in options.items() if name != "port"}
            server = ScriptedServer()
        async with server:
            if actions:
                server.on(point, *actions, match="^(?!QUIT)")
            async with client_of(server, **options) as client:
                with pytest.raises(SMTPError):
                    await client.send(mail())
                await server.wait_for_disconnect()
            spoken = [verb for verb in server.verbs() if verb]
            assert spoken[: len(verbs)] == verbs and spoken[-1] == "QUIT", spoken
            assert server.connections[0].quit
            assert server.connections.opened == 1

    @pytest.mark.parametrize("own", [False, True], ids=["pooled", "session"])
    async def test_no_caller_waits_for_the_answer_to_quit(self, own: bool) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", reply(554, "5.3.2 no"))
            rule = server.on("QUIT", mute)
            loop = asyncio.get_running_loop()
            async with client_of(server, timeouts=impatient(5, quit=1.0)) as client:
                started = loop.time()
                with pytest.raises(GreetingRefused, match="5.3.2 no"):
                    if own:
                        async with client.session() as session:
                            await session.connect()
                    else:
                        await client.send(mail())
                assert loop.time() - started < 0.9
                await server.wait_fired(rule)
                # Its place is taken until it has ended.
                assert client.statistics().opening == (0 if own else 1)
                await server.wait_for_disconnect()
                assert 0.9 < loop.time() - started < 10
                assert client.statistics().opening == 0

    async def test_a_client_that_is_closed_meanwhile_lets_it_end(self) -> None:
        gate = asyncio.Event()
        async with ScriptedServer() as server:
            server.on("GREETING", reply(554, "5.3.2 no"))
            rule = server.on("QUIT", delay(gate), default())
            client = client_of(server)
            with pytest.raises(GreetingRefused):
                await client.send(mail())
            await server.wait_fired(rule)
            closing = asyncio.create_task(client.close())
            await turns()
            assert not closing.done()
            gate.set()
            await closing

    async def test_hooks_hear_of_the_failure_before_the_end(self) -> None:
        events: list[Event] = []
        async with ScriptedServer() as server:
            server.on("GREETING", reply(554, "5.3.2 no"))
            async with client_of(server) as client:
                client.on(Error, events.append)
                client.on(ConnectionStatus, events.append)
                with pytest.raises(GreetingRefused):
                    await client.send(mail())
                assert [type(event) for event in events] == [ConnectionStatus, Error]
        assert [type(event) for event in events] == [ConnectionStatus, Error, ConnectionStatus]
        last = events[-1]
        assert isinstance(last, ConnectionStatus)
        assert last.kind is ConnectionKind.DISCONNECTED and last.status_code == GreetingRefused.code

    async def test_a_server_that_announced_its_end_is_not_answered(self) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", reply(421, "4.3.2 going down"))
            async with client_of(server, timeouts=impatient(5, close=0.2)) as client:
                with pytest.raises(GreetingRefused):
                    await client.send(mail())
            assert server.verbs() == []

    async def test_last_reply_is_the_refusal_and_not_the_answer_to_quit(self) -> None:
        async with ScriptedServer() as server, client_of(server) as client, client.session() as session:
            server.on("GREETING", reply(554, "5.3.2 no"))
            with pytest.raises(GreetingRefused):
                await session.connect()
            await server.wait_for_disconnect()
            await session.quit()
            assert session.last_reply == Reply(554, (b"5.3.2 no",))

    @pytest.mark.parametrize("moment", list(CancelMoment))
    @pytest.mark.parametrize("manner", list(CancelManner))
    async def test_a_connect_that_is_cancelled_leaves_nothing(
        self, manner: CancelManner, moment: CancelMoment
    ) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", reply(554, "5.3.2 no"))

            async def connect() -> None:
                async with client_of(server) as client, client.session() as session:
                    await session.connect()

            async for run in cancellations(connect, manner=manner, moment=moment):
                assert run.cancelled or isinstance(run.error, GreetingRefused)
                await server.wait_for_disconnect()

    async def test_221_is_no_greeting(self) -> None:
        async with ScriptedServer() as server, client_of(server) as client:
            server.on("GREETING", reply(221, "2.3.0 closing"))
            with pytest.raises(GreetingRefused, match="221") as caught:
                await client.send(mail())
            assert caught.value.temporary
            assert "EHLO" not in server.verbs()


class TestIterations:
    """How often the event loop turns for one connection: each turn asks the system once and runs what is due."""

    #: The task's start, the transport, the task, the greeting, the reply to EHLO, the task, the caller.
    PLAIN = 7
    #: The task's start, the first flight, the second, the task, the greeting, the reply to EHLO, the task, the caller.
    ENCRYPTED = 8

    @pytest.mark.parametrize("tls", [False, True])
    def test_an_opening_takes_few(self, tls: bool, tmp_path: Any) -> None:
        pki = Pki(tmp_path)
        served = tls_server(pki, implicit_tls=True) if tls else ScriptedServer()
        with ServerThread(served) as server:
            selector = selectors.DefaultSelector()
            with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
                counts = runner.run(self._counted(selector, server.port, pki.ca_file if tls else None))
        # Another thread may delay any of them, but not split one into two: the fewest is what the client needs.
        assert min(counts[1:]) <= (self.ENCRYPTED if tls else self.PLAIN), counts

    async def _counted(self, selector: Any, port: int, ca_file: Any) -> list[int]:
        security = Security.PLAINTEXT if ca_file is None else Security.IMPLICIT
        # An address needs no thread that resolves it.
        tls = TLSOptions(server_hostname="localhost", trust=TrustOptions(ca_file=ca_file))
        options = ClientOptions(hello="me.test", tls=tls)
        counts = []
        async with SMTPClient("127.0.0.1", port, security=security, options=options) as client:
            for _ in range(6):
                with mock.patch.object(selector, "select", wraps=selector.select) as select:
                    async with client.session() as session:
                        await session.connect()
                        counts.append(select.call_count)
        return counts


async def test_the_place_of_an_aborted_session_is_free_at_once() -> None:
    """Its socket is closed in the next iteration of the loop, before that of another session is made."""
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        for _ in range(3):
            async with client.session() as session:
                await session.connect()
                session.abort()
            assert client.statistics().open == 0
        await client.send(mail())
    assert server.connections.opened == 4 and server.connections.open == 0
