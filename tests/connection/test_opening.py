"""How a connection comes to stand: who it says it is, what it proves, and that no secret shows on the way."""

import asyncio
import base64
import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

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
    Timeouts,
    send_blocking,
)
from smtp_async.connection.route import Route, address_literal
from smtp_async.errors import (
    AuthenticationFailed,
    GreetingRefused,
    InvalidArgument,
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
    Step,
    cancellations,
    close,
    default,
    delay,
    drip,
    raw,
    reply,
    wait_input,
)
from tests.lab import (
    PATIENCE,
    client_of,
    every_loop,
    gathered,
    impatient,
    mail,
    mute,
    speaking,
    tls_server,
    trusting,
    turns,
)
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


def first_line(server: ScriptedServer) -> str:
    return server.commands[0].line.decode()


class TestHello:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mail.example.com", "mail.example.com"),
            ("localhost", "localhost"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("127.0.0.1", "[127.0.0.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("fe80::1%eth0", "[IPv6:fe80::1]"),
            ("bücher.example", "xn--bcher-kva.example"),
        ],
    )
    async def test_the_name_that_is_given(self, name: str, said: str) -> None:
        async with speaking() as server, client_of(server, hello=name) as client:
            await client.send(mail())
            assert first_line(server) == f"EHLO {said}"

    @pytest.mark.parametrize(
        ("fqdn", "said"),
        [
            ("host.example.com", "host.example.com"),
            ("host.example.com.", "host.example.com"),
            ("localhost", "[127.0.0.1]"),
            ("", "[127.0.0.1]"),
            ("bücher.example", "[127.0.0.1]"),
            ("my_host.example.com", "[127.0.0.1]"),
            ("localhost.localdomain", "[127.0.0.1]"),
            ("pc.localdomain", "[127.0.0.1]"),
            ("pc.localhost.", "[127.0.0.1]"),
            ("host.example.com..", "[127.0.0.1]"),
            ("192.0.2.1", "[127.0.0.1]"),
            ("-host.example.com", "[127.0.0.1]"),
        ],
    )
    async def test_the_full_local_name_or_the_address(
        self, fqdn: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def getfqdn() -> str:
            asked.append(1)
            return fqdn

        monkeypatch.setattr(socket, "getfqdn", getfqdn)
        async with speaking() as server, client_of(server, hello=None) as client:
            await gathered(*(client.send(mail(n)) for n in range(5)))
            await client.verify("x")
            assert first_line(server) == f"EHLO {said}"
        # Looked up in a thread, and not for every connection.
        assert len(asked) <= server.connections.opened
        assert len(set(line.line for line in server.commands if line.verb == "EHLO")) == 1

    @pytest.mark.parametrize("fault", ["silent", "fails"])
    async def test_a_resolver_that_does_not_tell_costs_the_name_only(
        self, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The address stands for the name; a name that comes late is for later connections."""
        told = threading.Event()

        def getfqdn() -> str:
            if fault == "fails":
                raise OSError("no resolver")
            told.wait(PATIENCE)
            return "host.example.com"

        monkeypatch.setattr(socket, "getfqdn", getfqdn)
        limits = Timeouts(hello=0.2)
        try:
            async with speaking() as server, client_of(server, hello=None, timeouts=limits) as client:
                async with asyncio.timeout(PATIENCE / 2):
                    await client.verify("x")
                assert first_line(server) == "EHLO [127.0.0.1]"
                if fault == "silent":
                    lookup = client._surroundings._name
                    assert lookup is not None
                    told.set()
                    await lookup._done
                    await client.verify("x")
                    assert server.commands[-3].line == b"EHLO host.example.com"
        finally:
            told.set()

    @pytest.mark.parametrize(
        ("endpoint", "literal"),
        [
            (("192.0.2.1", 5), "[192.0.2.1]"),
            (("2001:db8::1", 5), "[IPv6:2001:db8::1]"),
            (("fe80::1%eth0", 5), "[IPv6:fe80::1]"),
            ("/run/sock", "[127.0.0.1]"),
            (None, "[127.0.0.1]"),
        ],
    )
    def test_literals(self, endpoint: Any, literal: str) -> None:
        assert address_literal(endpoint) == literal

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

    def test_routes_have_names(self) -> None:
        assert Route(host="mx.test", port=25).name == "mx.test:25"
        assert Route(host="::1", port=25).name == "[::1]:25"
        assert Route(host="x", path="/run/s").name == "/run/s"


class TestLogin:
    @every_loop
    async def test_a_prompt_of_login_need_not_be_base64(self) -> None:
        """As the draft says: the client ignores it."""
        key = Credentials(username="ann", password="secret", mechanisms=("LOGIN",), allow_cleartext=True)
        async with speaking(users={"ann": "secret"}) as server, client_of(server, credentials=key) as client:
            server.on("AUTH", reply(334, "Username:"))
            server.on("RESPONSE", reply(334, "Password?"), nth=1)
            server.on("RESPONSE", reply(235, "welcome"), nth=2)
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
        assert [line.line for line in server.commands[2:4]] == [b"YW5u", b"c2VjcmV0"]

    async def test_mechanisms_behind_an_equals_sign_or_a_blank_are_found(self) -> None:
        key = Credentials(username="ann", password="secret", allow_cleartext=True)
        async with speaking(users={"ann": "secret"}) as server, client_of(server, credentials=key) as client:
            server.on("EHLO", reply(250, "mx", " PIPELINING", "AUTH=PLAIN LOGIN"))
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
            assert server.messages[0].user == "ann"

    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
    @every_loop
    async def test_each_mechanism(self, mechanism: str) -> None:
        key = Credentials(username="ann", password="secret", mechanisms=(mechanism,), allow_cleartext=True)
        async with speaking(users={"ann": "secret"}, require_auth=True) as server:
            async with client_of(server, credentials=key) as client:
                await client.send(mail())
            assert server.messages[0].user == "ann"
            assert [line.line.split()[1] for line in server.commands if line.verb == "AUTH"] == [
                mechanism.encode()
            ]

    async def test_a_long_initial_response_waits_for_its_turn(self) -> None:
        password = "x" * 600
        key = Credentials(username="ann", password=password, mechanisms=("PLAIN",), allow_cleartext=True)
        async with speaking(users={"ann": password}, require_auth=True) as server:
            async with client_of(server, credentials=key) as client:
                await client.send(mail())
            lines = [line.line for line in server.commands]
            assert b"AUTH PLAIN" in lines
            assert len(server.messages) == 1

    async def test_the_best_one_is_taken_over_tls(self, pki: Pki) -> None:
        async with tls_server(pki, users={"ann": "secret"}) as server:
            client = client_of(
                server, host="localhost", security=Security.STARTTLS, tls=trusting(pki),
                username="ann", password="secret",
            )  # fmt: skip
            async with client:
                await client.send(mail())
            assert [line.line[:10] for line in server.commands if line.verb == "AUTH"] == [b"AUTH PLAIN"]


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
            {"credentials": Credentials(username="a", password="b", mechanisms=["X"])},
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
    async def test_nobody_waits_for_the_answer(self, own: bool) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", reply(554, "5.3.2 no"))
            rule = server.on("QUIT", mute)
            loop = asyncio.get_running_loop()
            async with client_of(server, timeouts=impatient(5, quit=0.3)) as client:
                started = loop.time()
                with pytest.raises(GreetingRefused, match="5.3.2 no"):
                    if own:
                        async with client.session() as session:
                            await session.connect()
                    else:
                        await client.send(mail())
                assert loop.time() - started < 0.25
                await server.wait_fired(rule)
                # Its place is taken until it has ended.
                assert client.statistics().opening == (0 if own else 1)
                await server.wait_for_disconnect()
                assert 0.25 < loop.time() - started < 2
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

    async def test_hooks_hear_of_the_failure_first_and_of_the_end_last(self) -> None:
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

    async def test_a_server_that_said_goodbye_itself_is_not_answered(self) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", reply(421, "4.3.2 going down"))
            async with client_of(server, timeouts=impatient(5, close=0.2)) as client:
                with pytest.raises(GreetingRefused):
                    await client.send(mail())
            assert server.verbs() == []

    async def test_what_was_read_last_is_the_refusal(self) -> None:
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


# --- secrets -------------------------------------------------------------------------------------------------

CANARY = "c4n4ry/p4ss+w0rd?Zx9"


def _forms() -> tuple[str, ...]:
    data = CANARY.encode()
    found = [CANARY, data.hex(), data.hex().upper(), quote(CANARY, safe="")]
    for ahead in (b"", b"\0ann\0", b"ann\0ann\0", b"x", b"xx"):
        # At any alignment: without the characters that depend on what stands beside.
        encoded = base64.b64encode(ahead + data).decode().rstrip("=")
        start = (len(ahead) * 4 + 2) // 3
        found.append(encoded[start : start + len(data) * 4 // 3 - 2])
    return tuple(found)


FORMS = _forms()


def demand_no_canary(*things: Any) -> None:
    for thing in things:
        text = thing if isinstance(thing, str) else f"{thing!r} {thing!s}"
        for form in FORMS:
            assert form not in text, f"{form} in {text[max(0, text.index(form) - 300) :][:600]}"


def told(error: BaseException) -> str:
    """Everything that a crash reporter would see, local variables included."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_the_detector_detects() -> None:
    for leak in (CANARY, base64.b64encode(b"\0ann\0" + CANARY.encode()).decode(), CANARY.encode().hex()):
        with pytest.raises(AssertionError):
            demand_no_canary(f"AUTH PLAIN {leak}")


def _login(mechanism: str) -> Credentials:
    return Credentials(username="ann", password=CANARY, mechanisms=(mechanism,), allow_cleartext=True)


def echo(code: int, *, cut: int | None = None, wrap: bool = False, decoded: bool = False) -> Action:
    """Repeat in a reply what the client sent: the line, its beginning, in two lines, or what it means."""

    async def action(step: Step) -> None:
        line = step.command.line
        if decoded and line != b"AUTH LOGIN":
            line = base64.b64decode(line.split()[-1] + b"==").replace(b"\0", b" ")
        text = line.decode("ascii", "replace")[:cut]
        half = len(text) // 2
        step.reply(code, *((text[:half], text[half:]) if wrap else (f'5.5.1 what is "{text}"?',)))

    return action


async def echo_garbage(step: Step) -> None:
    """Repeat what the client sent as something that is no reply."""
    step.write(b"what is " + step.command.line + b"?\r\n")


SCENARIOS: dict[str, tuple[str, tuple[Action, ...]]] = {
    "success": ("NOOP", ()),
    "535": ("AUTH", (reply(535, "5.7.8 no"),)),
    "535 to a response": ("RESPONSE", (reply(535, "5.7.8 no"),)),
    "silence": ("AUTH", (mute,)),
    "silence after a response": ("RESPONSE", (mute,)),
    "end": ("AUTH", (close(),)),
    "end after a response": ("RESPONSE", (close(),)),
    "garbage": ("AUTH", (raw(b"garbage\r\n"),)),
    "garbage after a response": ("RESPONSE", (raw(b"garbage\r\n"),)),
    "garbage challenge": ("AUTH", (raw(b"334 !!!\r\n"), wait_input(), reply(501, "cancelled"))),
    "334 for ever": ("RESPONSE", (reply(334, "VXNlcm5hbWU6"),)),
    "501": ("AUTH", (reply(501, "5.5.2 cannot decode"),)),
    "421": ("AUTH", (reply(421, "4.3.2 down"), close())),
    "early 235": ("AUTH", (reply(235, "2.7.0 welcome"),)),
    "drip": ("AUTH", (drip(reply(535, "5.7.8 no")),)),
    "echo": ("AUTH", (echo(500),)),
    "echo of a response": ("RESPONSE", (echo(535),)),
    "echo with a 421": ("RESPONSE", (echo(421), close())),
    "echo of the beginning": ("AUTH", (echo(500, cut=30),)),
    "echo in two lines": ("AUTH", (echo(500, wrap=True),)),
    "echo of a response in two lines": ("RESPONSE", (echo(500, wrap=True),)),
    "decoded echo": ("AUTH", (echo(535, decoded=True),)),
    "decoded echo of a response": ("RESPONSE", (echo(535, decoded=True),)),
    "echo as a challenge": ("AUTH", (echo(334), wait_input(), reply(501, "cancelled"))),
    "echo that is no reply": ("AUTH", (echo_garbage,)),
    "echo of a response that is no reply": ("RESPONSE", (echo_garbage,)),
}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_password_never_shows(
    scenario: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    point, actions = SCENARIOS[scenario]
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    events: list[Event] = []
    seen: list[Any] = []
    async with ScriptedServer(users={"ann": CANARY}) as server:
        if actions:
            # PLAIN has no response of its own.
            server.on(point, *actions, optional=True)
        client = client_of(
            server, credentials=_login(mechanism), timeouts=impatient(0.1), pool=PoolLimits(max_connections=2)
        )
        client.on(Event, events.append)
        with caplog.at_level(logging.DEBUG):
            seen += await gathered(client.send(mail(1)), client.send(mail(2)))
            seen.append(await client.check())
            try:
                async with client.session() as session:
                    seen.append(session)
                    await session.connect()
                    seen += [session.info, session.extensions, vars(session)]
                    await session.login(_login(mechanism))
            except SMTPError as error:
                seen.append(error)
            seen += [client, client.statistics(), client.options, vars(client)]
            await client.close()
    loop.set_debug(False)
    demand_no_canary(*seen, *events, caplog.text, *(repr(vars(record)) for record in caplog.records))
    errors = [one for one in seen if isinstance(one, BaseException)]
    for one in errors:
        demand_no_canary(told(one), pickle.dumps(one).decode("latin-1"))
    assert errors or scenario in ("success", "early 235")
    assert events


async def test_a_password_does_not_show_when_its_caller_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ScriptedServer(users={"ann": CANARY}) as server:
        rule = server.on("AUTH", delay(asyncio.Event()))
        async with client_of(server, credentials=_login("PLAIN"), timeouts=impatient(5)) as client:
            with caplog.at_level(logging.DEBUG):
                sending = asyncio.create_task(client.send(mail()))
                await server.wait_fired(rule)
                demand_no_canary(*(str(task.get_stack()) for task in asyncio.all_tasks()))
                sending.cancel()
                await asyncio.wait({sending})
    demand_no_canary(caplog.text)


BAD_CLIENTS: dict[str, Callable[[], Any]] = {
    "port": lambda: SMTPClient("mx.test", 0, username="ann", password=CANARY),
    "host": lambda: SMTPClient("", username="ann", password=CANARY),
    "no user": lambda: SMTPClient("mx.test", password=CANARY),
    "opportunistic": lambda: SMTPClient(
        "mx.test", username="ann", password=CANARY, security=Security.OPPORTUNISTIC
    ),
    "url scheme": lambda: SMTPClient.from_url(f"http://ann:{quote(CANARY, safe='')}@mx.test"),
    "url port": lambda: SMTPClient.from_url(f"smtp://ann:{quote(CANARY, safe='')}@mx.test:0"),
    "url number": lambda: SMTPClient.from_url(f"smtp://ann:{quote(CANARY, safe='')}@mx.test:99999"),
    "url path": lambda: SMTPClient.from_url(f"smtp://ann:{quote(CANARY, safe='')}@mx.test/x"),
    "url host": lambda: SMTPClient.from_url(f"smtp://ann:{quote(CANARY, safe='')}@"),
}


def test_a_script_that_fails_does_not_tell_the_password() -> None:
    with pytest.raises(SMTPError) as caught:
        send_blocking(mail(), url=f"smtp://ann:{quote(CANARY, safe='')}@127.0.0.1:1")
    demand_no_canary(told(caught.value))


@pytest.mark.parametrize("name", BAD_CLIENTS)
def test_a_client_that_cannot_be_made_does_not_tell_the_password(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        BAD_CLIENTS[name]()
    demand_no_canary(told(caught.value))


async def test_credentials_that_do_not_fit_do_not_show() -> None:
    async with ScriptedServer(users={"ann": CANARY}) as server:
        async with client_of(server, credentials=_with_nul()) as client:
            with pytest.raises(SMTPError) as caught:
                await client.send(mail())
    demand_no_canary(told(caught.value))


def _with_nul() -> Credentials:
    return Credentials(username="ann", password=CANARY + "\0", mechanisms=("PLAIN",), allow_cleartext=True)


async def test_a_wrong_password_is_told_without_itself() -> None:
    async with ScriptedServer(users={"ann": "right"}) as server:
        async with client_of(server, credentials=_login("PLAIN")) as client:
            with pytest.raises(AuthenticationFailed) as caught:
                await client.send(mail())
    assert "535" in str(caught.value)
    demand_no_canary(told(caught.value))


async def test_a_server_that_repeats_the_login_later_shows_it_nowhere() -> None:
    """Behind a login that went well: in the reply to any command."""
    events: list[Event] = []
    line = base64.b64encode(b"\0ann\0" + CANARY.encode()).decode()
    async with ScriptedServer(users={"ann": CANARY}) as server:
        server.on("RCPT", reply(550, f"5.1.1 not for ann with {CANARY} ({line})"))
        async with client_of(server, credentials=_login("PLAIN")) as client:
            client.on(Event, events.append)
            with pytest.raises(SMTPError) as caught:
                await client.send(mail())
            async with client.session() as session:
                await session.connect()
                await session.command("MAIL FROM:<ann@example.com>")
                answer = await session.command("RCPT TO:<x@example.org>")
                last = session.last_reply
    assert "550 5.1.1 not for ann with *** (***)" in str(caught.value)
    assert answer.text == "5.1.1 not for ann with *** (***)"
    demand_no_canary(*events, caught.value, repr(answer), repr(last))
    demand_no_canary(pickle.dumps(caught.value).decode("latin-1"))
