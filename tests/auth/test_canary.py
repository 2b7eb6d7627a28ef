"""The canary: no password and no token shows, whatever a server does, with any mechanism and every way to fail.

Looked through are events, the wire log, spans and metrics, log records with asyncio's debug mode on, `repr` of all
public objects, pickles, and tracebacks with captured local variables. `tests/connection/test_login.py` has more ways
to fail for mechanisms that send the password itself.
"""

import asyncio
import base64
import io
import json
import logging
import pickle
import sys
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from smtp_async import Credentials, PoolLimits, Secret, Security, SMTPError, TLSOptions, Token
from smtp_async.auth.mechanism import Needs
from smtp_async.auth.select import RANKING
from smtp_async.errors import TokenRefused, TokenUnavailable
from smtp_async.events import Event
from smtp_async.testing import Action, ScriptedServer, Step, close, drip, raw, reply, wait_input
from smtp_async.testing.mechanisms import STANDARD
from smtp_async.tls.stores import CertificateStore
from tests.auth import servers
from tests.auth.test_gssapi import Library
from tests.connection.test_login import CANARY, demand_no_canary, echo, echo_garbage, told
from tests.lab import client_of, gathered, impatient, mail, mute, sampled, trusting
from tests.otel import Telling
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")

NEEDS = {place.name: place.mechanism.needs for place in RANKING}


def ntlm(users: Any, initial: bytes | None) -> Any:
    """A server that takes any NTLM login."""
    from tests.auth.test_ntlm import CHALLENGE

    assert initial is not None and initial.startswith(b"NTLMSSP\0\1")
    assert (yield CHALLENGE).startswith(b"NTLMSSP\0\3")
    return "ann"


def gssapi(users: Any, initial: bytes | None) -> Any:
    """A server for the library that `test_gssapi` plays."""
    assert initial == b"client token"
    assert (yield b"server token") == b""
    assert (yield b"<\1\0\0\0>") == b"<\1\0\0\0>"
    return "ann"


SERVERS: dict[str, Any] = {
    **STANDARD,
    **{name: servers.scram(name) for name in ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")},
    "DIGEST-MD5": servers.digest_md5,
    "XOAUTH2": servers.xoauth2(),
    "OAUTHBEARER": servers.oauthbearer(),
    "ANONYMOUS": servers.anonymous,
    "EXTERNAL": servers.external,
    "NTLM": ntlm,
    "GSSAPI": gssapi,
}


class Provider:
    """Holds a refresh token, as a provider does, and returns the same token again and again."""

    def __init__(self, fault: str = "") -> None:
        self._refresh_token = Secret(CANARY)
        self.fault = fault

    async def __call__(self) -> Token:
        match self.fault:
            case "refused":
                raise TokenRefused("invalid_grant", stage="AUTH")
            case "down":
                raise TokenUnavailable("the authorization server is down")
            case "bug":
                text = self._refresh_token.reveal()
                raise KeyError(len(text))
        return Token(self._refresh_token, expires_at=1.0)


def account(name: str, *, fault: str = "") -> Credentials:
    needs = NEEDS.get(name, Needs.PASSWORD)
    if needs is Needs.TOKEN:
        return Credentials(username="ann", token=Provider(fault), mechanisms=(name,), allow_cleartext=True)
    return Credentials(username="ann", password=CANARY, mechanisms=(name,), allow_cleartext=True)


async def explain(step: Step) -> None:
    """Repeat the token in the explanation of its refusal, in several forms."""
    forms = [CANARY, base64.b64encode(CANARY.encode()).decode(), CANARY[2:], CANARY[:-2]]
    step.reply(
        334, base64.b64encode(json.dumps({"status": forms[0], "scope": " ".join(forms)}).encode()).decode()
    )


async def repeat(step: Step) -> None:
    """Send the password back as a challenge."""
    step.reply(334, base64.b64encode(b"n=ann,p=" + CANARY.encode()).decode())


FAILURES: dict[str, tuple[tuple[str, tuple[Action, ...]], ...]] = {
    "success": (),
    "535": (("AUTH", (reply(535, "5.7.8 no"),)),),
    "535 to a response": (("RESPONSE", (reply(535, "5.7.8 no"),)),),
    "504": (("AUTH", (reply(504, "5.5.4 not that one"),)),),
    "421": (("AUTH", (reply(421, "4.3.2 down"), close())),),
    "silence": (("AUTH", (mute,)),),
    "end after a response": (("RESPONSE", (close(),)),),
    "garbage challenge": (("AUTH", (raw(b"334 !!!\r\n"), wait_input(), reply(501, "cancelled"))),),
    "334 for ever": (("AUTH", (repeat,)), ("RESPONSE", (repeat,))),
    "early 235": (("AUTH", (reply(235, "2.7.0 welcome"),)),),
    "drip": (("AUTH", (drip(reply(535, "5.7.8 no")),)),),
    "echo": (("AUTH", (echo(535),)), ("RESPONSE", (echo(535),))),
    "echo that is no reply": (("AUTH", (echo_garbage,)), ("RESPONSE", (echo_garbage,))),
    "echo as a challenge": (("AUTH", (echo(334), wait_input(), reply(501, "cancelled"))),),
    "explanation": (("AUTH", (explain,)), ("RESPONSE", (reply(535, "5.7.8 no"),))),
}


async def everything(
    server: ScriptedServer, caplog: Any, *, seconds: float = 0.15, **options: Any
) -> list[Any]:
    """Use a client in every way, with that limit for each stage; look through all that shows, and return the errors."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    events: list[Event] = []
    seen: list[Any] = []
    wire_log, telling = io.StringIO(), Telling()
    client = client_of(
        server,
        **options,
        wire_log=wire_log,
        telemetry=telling.telemetry,
        timeouts=impatient(seconds),
        pool=PoolLimits(max_connections=2),
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
        except SMTPError as error:
            seen.append(error)
        seen += [client, client.statistics(), client.options, *vars(client).values(), options]
        await client.close()
    loop.set_debug(False)
    assert "< " in wire_log.getvalue() and "smtp connect" in telling.everything()
    demand_no_canary(telling.everything())
    demand_no_canary(
        wire_log.getvalue(), *seen, *events, caplog.text, *(repr(vars(record)) for record in caplog.records)
    )
    for event in events:
        demand_no_canary(pickle.dumps(event).decode("latin-1"))
    errors = [one for one in seen if isinstance(one, BaseException)]
    for one in errors:
        demand_no_canary(told(one), pickle.dumps(one).decode("latin-1"))
    assert events
    return errors


@pytest.fixture(autouse=True)
def _no_kerberos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play the Kerberos library, which a machine need not have."""
    monkeypatch.setitem(sys.modules, "gssapi", Library())
    monkeypatch.setattr("smtp_async.auth.gssapi.find_spec", lambda name: name)


@pytest.mark.parametrize(
    ("failure", "name"), sampled(product(FAILURES, [name for name in SERVERS if name != "EXTERNAL"]), 5)
)
async def test_nothing_shows(failure: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer(users={"ann": CANARY}, mechanisms={name: SERVERS[name]}) as server:
        for point, actions in FAILURES[failure]:
            server.on(point, *actions, optional=True)
        # A login that has to succeed has time for it on a busy machine.
        seconds = 10.0 if failure == "success" else 0.15
        errors = await everything(server, caplog, seconds=seconds, credentials=account(name))
    if failure in ("535", "421", "silence", "504"):
        assert len(errors) >= 3
    if failure == "success":
        assert errors == []


@pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("fault", ["refused", "down", "bug"])
async def test_providers_that_fail(name: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer(users={"ann": CANARY}, mechanisms={name: SERVERS[name]}) as server:
        errors = await everything(server, caplog, credentials=account(name, fault=fault))
    assert len(errors) >= 3


@pytest.mark.parametrize(
    ("failure", "name"),
    sampled(
        product(FAILURES, ["EXTERNAL", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS"]), 3
    ),
)
async def test_what_needs_tls(failure: str, name: str, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    identity = CertificateStore.load(pki.client.combined).identity()
    tls = TLSOptions(trust=trusting(pki).trust, identity=identity)
    context = pki.server_context(ask_client=True)
    side = servers.external if name == "EXTERNAL" else servers.scram(name, binding=("tls-unique", b"x"))
    given = replace(account(name), allow_cleartext=False)
    async with ScriptedServer(ssl_context=context, users={"ann": CANARY}, mechanisms={name: side}) as server:
        for point, actions in FAILURES[failure]:
            server.on(point, *actions, optional=True)
        options: dict[str, Any] = {"host": "localhost", "security": Security.STARTTLS, "tls": tls}
        await everything(server, caplog, credentials=given, **options)


async def test_policies_and_hooks(caplog: pytest.LogCaptureFixture) -> None:
    def policy(event: Any, credentials: Credentials) -> Credentials:
        return replace(credentials, mechanisms=("LOGIN",))

    async with ScriptedServer(users={"ann": CANARY}) as server:
        errors = await everything(server, caplog, credentials=account("PLAIN"), before_auth=policy)
        assert errors == []

    def raising(event: Any, credentials: Credentials) -> Credentials:
        raise RuntimeError(repr(credentials))

    async with ScriptedServer(users={"ann": CANARY}) as server:
        errors = await everything(server, caplog, credentials=account("PLAIN"), before_auth=raising)
        assert len(errors) >= 3
