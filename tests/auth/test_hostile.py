"""Hostile servers, over a connection: what is shown, which error it is, that nothing hangs, and that memory is bounded.

What a mechanism makes of a single message is in its own test.
"""

import base64
import itertools
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import Credentials, Security, SMTPClient
from smtp_async.auth.select import RANKING
from smtp_async.errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    ConnectionLost,
    InvalidArgument,
    NotSent,
    ProtocolViolation,
    SMTPError,
    Timeout,
    UsageError,
)
from smtp_async.testing import Action, ScriptedServer, Step, close, drip, raw, reply, wait_input
from smtp_async.testing.mechanisms import STANDARD
from tests.auth import servers
from tests.lab import client_of, gathered, impatient, mail, mute, tls_server, trusting
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")

PASSWORD = "c4n4ry-p4ssw0rd"
USERS = {"ann": PASSWORD}
ANN = Credentials(username="ann", password=PASSWORD)
CLEAR = replace(ANN, allow_cleartext=True)
TOKEN = Credentials(username="ann", token=PASSWORD, allow_cleartext=True)

EVERYTHING: dict[str, Any] = {
    **{name: servers.scram(name) for name in ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")},
    **STANDARD,
    "DIGEST-MD5": servers.digest_md5,
    "XOAUTH2": servers.xoauth2(),
    "OAUTHBEARER": servers.oauthbearer(),
    "ANONYMOUS": servers.anonymous,
}


def disclosures(server: ScriptedServer) -> int:
    """Return how often the client has sent the password or token itself."""
    count = 0
    for line in server.commands:
        word = line.line.split()[-1:] or [b""]
        try:
            decoded = base64.b64decode(word[0], validate=True)
        except ValueError:
            decoded = b""
        count += decoded.count(PASSWORD.encode()) + line.line.count(PASSWORD.encode())
    return count


def auths(server: ScriptedServer) -> list[str]:
    return [line.line.split()[1].decode() for line in server.commands if line.verb == "AUTH"]


def responses(server: ScriptedServer) -> list[bytes]:
    """Return the lines behind AUTH."""
    lines = [line.line for line in server.commands]
    first = next(at for at, line in enumerate(lines) if line.startswith(b"AUTH"))
    return [line for line in lines[first + 1 :] if line != b"QUIT"]


def over_tls(server: ScriptedServer, pki: Pki, **options: Any) -> SMTPClient:
    options.setdefault("credentials", ANN)
    return client_of(server, host="localhost", security=Security.STARTTLS, tls=trusting(pki), **options)


async def outcome_of(client: SMTPClient) -> Any:
    """Return the receipt or the error of one message."""
    [result] = await gathered(client.send(mail()))
    return result


# --- C1: nothing without TLS ---------------------------------------------------------------------------------


class TestNothingInClear:
    @pytest.mark.parametrize("security", [Security.STARTTLS, Security.PLAINTEXT])
    @pytest.mark.parametrize("credentials", [ANN, replace(TOKEN, allow_cleartext=False)])
    async def test_a_server_whose_starttls_was_stripped(
        self, security: Security, credentials: Credentials
    ) -> None:
        async with ScriptedServer(users=USERS, mechanisms=EVERYTHING) as server:
            async with client_of(server, security=security, credentials=credentials) as client:
                assert isinstance(await outcome_of(client), SMTPError)
            assert auths(server) == []
            assert disclosures(server) == 0
            assert server.messages == []

    @pytest.mark.parametrize("name", [place.name for place in RANKING])
    async def test_whatever_is_named(self, name: str) -> None:
        """ANONYMOUS shows nothing, and is the only one of them that a scripted server speaks."""
        named = Credentials(username="ann", password=PASSWORD, token=PASSWORD, mechanisms=(name,))
        offered: dict[str, Any] = {name: servers.anonymous}
        async with ScriptedServer(users=USERS, mechanisms=offered) as server:
            async with client_of(server, credentials=named) as client:
                await outcome_of(client)
            assert disclosures(server) == 0
            assert name in ("ANONYMOUS",) or auths(server) == []

    def test_opportunistic_carries_no_credentials(self) -> None:
        with pytest.raises(InvalidArgument):
            SMTPClient("mx.test", credentials=ANN, security=Security.OPPORTUNISTIC)

    async def test_a_certificate_that_is_not_verified(self, pki: Pki) -> None:
        async with tls_server(pki, pki.self_signed, users=USERS, mechanisms=EVERYTHING) as server:
            async with over_tls(server, pki) as client:
                assert isinstance(await outcome_of(client), SMTPError)
            assert disclosures(server) == 0


# --- C2: downgrades ------------------------------------------------------------------------------------------


class TestDowngrade:
    NAMES = ("SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5")

    @pytest.mark.parametrize("code", [504, 534, 535, 538, 454, 501])
    async def test_any_list_and_any_refusal_show_the_password_once(self, pki: Pki, code: int) -> None:
        for size in (1, 2, 5):
            for offered in itertools.combinations(self.NAMES, size):
                some = {name: EVERYTHING[name] for name in offered}
                async with tls_server(pki, users=USERS, mechanisms=some) as server:
                    server.on("AUTH", reply(code, "no"), optional=True)
                    async with over_tls(server, pki) as client:
                        await outcome_of(client)
                        if code != 454:
                            # A refusal for now may be asked about again.
                            await outcome_of(client)
                    assert disclosures(server) <= 1
                    assert not {"CRAM-MD5", "DIGEST-MD5"} & {*auths(server)}

    async def test_refused_to_the_response_too(self, pki: Pki) -> None:
        async with tls_server(pki, users=USERS, mechanisms=EVERYTHING) as server:
            server.on("RESPONSE", reply(504, "not that one"))
            async with over_tls(server, pki) as client:
                await outcome_of(client)
            assert disclosures(server) == 1
            assert auths(server) == ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]

    async def test_two_hundred_mechanisms(self, pki: Pki) -> None:
        """Longer lists do not matter."""
        many: dict[str, Any] = {f"X-{n}": servers.anonymous for n in range(30)}
        async with tls_server(pki, users=USERS, mechanisms={**many, **STANDARD}) as server:
            async with over_tls(server, pki) as client:
                assert (await outcome_of(client)).accepted
            assert auths(server) == ["PLAIN"]


# --- C3: tokens ----------------------------------------------------------------------------------------------


async def _explain_for_ever(step: Step) -> None:
    step.reply(334, base64.b64encode(b'{"status":"400"}').decode())


EXPLANATIONS: dict[str, tuple[tuple[Action, ...], type[SMTPError]]] = {
    "json": ((reply(334, base64.b64encode(b'{"status":"400"}').decode()),), AuthenticationFailed),
    "garbage": ((reply(334, base64.b64encode(b"\xff garbage").decode()),), AuthenticationFailed),
    "no base64": ((raw(b"334 {status}\r\n"),), ProtocolViolation),
    "empty": ((reply(334, ""),), AuthenticationFailed),
    "deep": ((reply(334, base64.b64encode(b"[" * 6000).decode()),), AuthenticationFailed),
    "long": ((reply(334, base64.b64encode(json.dumps({"scope": "x" * 9000}).encode()[:9000]).decode()),),
             AuthenticationFailed),
    "too long": ((raw(b"334 " + b"A" * 100_000 + b"\r\n"),), ProtocolViolation),
}  # fmt: skip


class TestTokens:
    @pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
    @pytest.mark.parametrize("how", EXPLANATIONS)
    async def test_explanations(self, how: str, name: str) -> None:
        actions, error = EXPLANATIONS[how]
        async with ScriptedServer(users=USERS, mechanisms={name: EVERYTHING[name]}) as server:
            server.on("AUTH", *actions)
            server.on("RESPONSE", reply(535, "5.7.8 no"), optional=True)
            async with client_of(server, credentials=TOKEN, timeouts=impatient(2)) as client:
                result = await outcome_of(client)
        assert isinstance(result, error), result
        assert disclosures(server) == 1
        if error is AuthenticationFailed:
            answer = responses(server)
            assert answer == [b"" if name == "XOAUTH2" else b"AQ=="]

    @pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
    async def test_for_ever(self, name: str) -> None:
        async with ScriptedServer(users=USERS, mechanisms={name: EVERYTHING[name]}) as server:
            server.on("AUTH", _explain_for_ever)
            server.on("RESPONSE", _explain_for_ever)
            async with client_of(server, credentials=TOKEN, timeouts=impatient(2)) as client:
                assert isinstance(await outcome_of(client), ProtocolViolation)
            answers = responses(server)
            # The second one is cancelled.
            assert len(answers) == 2 and answers[1] == b"*"

    async def test_a_235_behind_the_explanation_is_no_login(self) -> None:
        async with ScriptedServer(users=USERS, mechanisms={"XOAUTH2": EVERYTHING["XOAUTH2"]}) as server:
            server.on("AUTH", _explain_for_ever)
            server.on("RESPONSE", reply(235, "welcome"))
            async with client_of(server, credentials=TOKEN) as client:
                assert isinstance(await outcome_of(client), ProtocolViolation)
            assert server.messages == []


# --- C4: SCRAM -----------------------------------------------------------------------------------------------


def scripted(*messages: bytes, end: str | None = "ann") -> Callable[..., Any]:
    """Return a SCRAM server that says what it says; `%n` is the client's nonce."""

    def serve(users: Any, initial: bytes | None) -> Any:
        nonce = (initial or b"").rpartition(b"r=")[2]
        for message in messages:
            yield message.replace(b"%n", nonce)
        return end

    return serve


SCRAMS: dict[str, tuple[bytes, ...]] = {
    "one iteration": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=1",),
    "4095 iterations": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=4095",),
    "two billions": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=2147483648",),
    "a sign": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=+4096",),
    "our own nonce": (b"r=%n,s=QSXCR+Q6sek8bf92,i=4096",),
    "another nonce": (b"r=other,s=QSXCR+Q6sek8bf92,i=4096",),
    "an extension": (b"m=x,r=%n1,s=QSXCR+Q6sek8bf92,i=4096",),
    "no salt": (b"r=%n1,i=4096",),
    "9 KB": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=4096,x=" + b"y" * 8900, b"v=AAAA"),
    "a wrong signature": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=4096", b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="),
    "no signature": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=4096",),
    "an error and a welcome": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=4096", b"e=other-error"),
    "an error at once": (b"e=other-error",),
    "nothing": (),
    "for ever": (b"r=%n1,s=QSXCR+Q6sek8bf92,i=4096",) * 30,
}


@pytest.mark.parametrize("how", SCRAMS)
async def test_scram_servers_that_cheat(pki: Pki, how: str) -> None:
    """None of them ends as a login, and none gets anything that is worth a password."""
    async with tls_server(pki, users=USERS, mechanisms={"SCRAM-SHA-1": scripted(*SCRAMS[how])}) as server:
        async with over_tls(server, pki, timeouts=impatient(5)) as client:
            result = await outcome_of(client)
        assert isinstance(result, ProtocolViolation), result
        assert server.messages == []
        assert disclosures(server) == 0


# --- C6 and C9: framing, for every mechanism -----------------------------------------------------------------

FRAMES: dict[str, tuple[tuple[Action, ...], tuple[type[SMTPError], ...]]] = {
    "not base64": ((raw(b"334 <1896.697170952@x>\r\n"), wait_input(), reply(501, "cancelled")), (ProtocolViolation,)),
    "8 bits": ((raw(b"334 \xff\xfe\r\n"), wait_input(), reply(501, "cancelled")), (ProtocolViolation,)),
    "wrong padding": ((raw(b"334 YWJj=\r\n"), wait_input(), reply(501, "cancelled")), (ProtocolViolation,)),
    "100 KB": ((raw(b"334 " + b"QUFB" * 25_000 + b"\r\n"),), (ProtocolViolation,)),
    "endless": ((raw(b"334 " + b"QUFB" * 1_000_000),), (ProtocolViolation, ConnectionLost)),
    "early 235": ((reply(235, "welcome"),), (ProtocolViolation, NotSent)),
    "silence": ((mute,), (Timeout,)),
    "drip": ((drip(reply(535, "5.7.8 no")),), (AuthenticationFailed,)),
    "end": ((close(),), (ConnectionLost,)),
    "334 for ever": ((reply(334, base64.b64encode(b"again").decode()),), (ProtocolViolation, AuthenticationFailed)),
    "garbage": ((raw(b"garbage\r\n"),), (ProtocolViolation,)),
    "a 354": ((reply(354, "go ahead"),), (ProtocolViolation, AuthenticationFailed)),
}  # fmt: skip
#: These say all they have to say with AUTH: a 235 right behind it is a login.
ONE_MESSAGE = frozenset({"PLAIN", "XOAUTH2", "OAUTHBEARER", "ANONYMOUS"})


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("how", FRAMES)
async def test_framing(how: str, name: str) -> None:
    actions, errors = FRAMES[how]
    token = name in ("XOAUTH2", "OAUTHBEARER")
    account = replace(TOKEN if token else CLEAR, mechanisms=(name,))
    tracemalloc.start()
    try:
        async with ScriptedServer(users=USERS, mechanisms={name: EVERYTHING[name]}) as server:
            server.on("AUTH", *actions)
            server.on("RESPONSE", reply(334, base64.b64encode(b"again").decode()), optional=True)
            server.on("RESPONSE", reply(501, "cancelled"), match=r"^\*$", optional=True)
            async with client_of(server, credentials=account, timeouts=impatient(1, auth=0.3)) as client:
                result = await outcome_of(client)
            shown = disclosures(server)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if how == "early 235" and name in ONE_MESSAGE:
        assert result.accepted
        return
    # LOGIN takes any text for a prompt.
    allowed = (*errors, AuthenticationFailed, ProtocolViolation) if name == "LOGIN" else errors
    assert isinstance(result, allowed), result
    assert not isinstance(result, UsageError)
    assert shown <= 1
    # The endless line itself is 4 MB, which the server holds.
    assert peak < (20 if how == "endless" else 5) * 2**20
    assert server.messages == []


@pytest.mark.parametrize("name", ["CRAM-MD5", "DIGEST-MD5"])
async def test_an_empty_challenge(name: str) -> None:
    async with ScriptedServer(users=USERS, mechanisms={name: EVERYTHING[name]}) as server:
        server.on("AUTH", reply(334, ""))
        server.on("RESPONSE", reply(501, "cancelled"))
        account = replace(CLEAR, mechanisms=(name,))
        async with client_of(server, credentials=account) as client:
            assert isinstance(await outcome_of(client), ProtocolViolation)
        assert responses(server) == [b"*"]


async def test_none_of_the_weak_ones_by_itself(pki: Pki) -> None:
    """C6, C7."""
    weak = {name: servers.anonymous for name in ("NTLM", "CRAM-MD5", "DIGEST-MD5", "ANONYMOUS", "GSSAPI")}
    async with tls_server(pki, users=USERS, mechanisms=weak) as server:
        async with over_tls(server, pki) as client:
            assert isinstance(await outcome_of(client), AuthenticationUnavailable)
        assert auths(server) == []
