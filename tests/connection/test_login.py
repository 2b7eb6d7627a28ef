"""login.py: every mechanism's dialogue, and that no secret shows, whatever the server does."""

import asyncio
import base64
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from smtp_async import (
    Credentials,
    Outcome,
    PoolLimits,
    Security,
    SMTPClient,
    SMTPError,
    send_blocking,
)
from smtp_async.errors import AuthenticationFailed, InvalidArgument
from smtp_async.events import Event
from smtp_async.testing import Action, ScriptedServer, Step, close, delay, drip, raw, reply, wait_input
from tests.lab import client_of, every_loop, gathered, impatient, mail, mute, speaking, tls_server, trusting
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


class TestLogin:
    @every_loop
    async def test_a_login_prompt_need_not_be_base64(self) -> None:
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


async def test_credentials_that_cannot_be_written_do_not_show() -> None:
    async with ScriptedServer(users={"ann": CANARY}) as server:
        async with client_of(server, credentials=_with_nul()) as client:
            with pytest.raises(SMTPError) as caught:
                await client.send(mail())
    demand_no_canary(told(caught.value))


def _with_nul() -> Credentials:
    return Credentials(username="ann", password=CANARY + "\0", mechanisms=("PLAIN",), allow_cleartext=True)


async def test_the_error_for_a_wrong_password_does_not_hold_it() -> None:
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
