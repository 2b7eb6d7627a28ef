"""What an application may decide, other mechanisms and other tokens after a refusal, and downgrades."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import (
    ClientOptions,
    Credentials,
    Login,
    Outcome,
    Security,
    SMTPClient,
    Strength,
    Token,
)
from smtp_async.errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    FeatureUnavailable,
    Interrupted,
    InvalidArgument,
    NotSent,
    ProtocolViolation,
    SMTPError,
    Timeout,
    TokenRefused,
    TokenUnavailable,
)
from smtp_async.events import BeforeAuth, Notification
from smtp_async.testing import ScriptedServer, close, mechanisms, reply
from smtp_async.testing.mechanisms import STANDARD
from tests.auth import servers
from tests.lab import (
    client_of,
    every_loop,
    gathered,
    impatient,
    mail,
    speaking,
    tls_server,
    trusting,
    turns,
    until,
)
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")

USERS = {"ann": "secret"}
ANN = Credentials(username="ann", password="secret", allow_cleartext=True)
BOUND = Credentials(username="ann", password="secret", minimum_strength=Strength.BOUND)
SCRAM = {name: servers.scram(name) for name in ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")}
TOKENS = {"XOAUTH2": servers.xoauth2(), "OAUTHBEARER": servers.oauthbearer()}


def auths(server: ScriptedServer) -> list[str]:
    """Return the mechanisms that were tried, in order."""
    return [line.line.split()[1].decode() for line in server.commands if line.verb == "AUTH"]


def over_tls(server: ScriptedServer, pki: Pki, **options: Any) -> SMTPClient:
    options.setdefault("credentials", replace(ANN, allow_cleartext=False))
    return client_of(server, host="localhost", security=Security.STARTTLS, tls=trusting(pki), **options)


def told(client: SMTPClient, name: str) -> list[str]:
    found: list[str] = []
    client.on(Notification, lambda one: found.append(one.parameter) if one.name == name else None)
    return found


# --- when a connection logs in -------------------------------------------------------------------------------


class TestLoginOption:
    async def test_manual(self) -> None:
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN, login=Login.MANUAL) as client:
                async with client.session() as session:
                    await session.connect()
                    assert auths(server) == []
                    await session.login()
                    assert (await session.send(mail())).outcome is Outcome.ACCEPTED
            assert auths(server) == ["PLAIN"] or auths(server) == ["CRAM-MD5"]
            assert server.messages[0].user == "ann"

    async def test_manual_for_messages_too(self) -> None:
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN, login=Login.MANUAL) as client:
                await client.send(mail())
                assert (await client.check()).logged_in is None
            assert server.messages[0].user is None

    async def test_required_fails_where_no_login_is_offered(self) -> None:
        async with speaking() as server:
            async with client_of(server, credentials=ANN, login=Login.REQUIRED) as client:
                with pytest.raises(AuthenticationUnavailable, match="offers no authentication"):
                    await client.send(mail())
            assert server.messages == []

    def test_required_needs_something_to_log_in_with(self) -> None:
        required = ClientOptions(login=Login.REQUIRED)
        with pytest.raises(InvalidArgument, match="login=REQUIRED"):
            SMTPClient("mx.test", options=required)
        SMTPClient("mx.test", options=required, username="ann", password="x")
        SMTPClient("mx.test", options=replace(required, before_auth=lambda event, credentials: None))

    def test_required_needs_tls_as_credentials_do(self) -> None:
        options = ClientOptions(login=Login.REQUIRED, before_auth=lambda event, credentials: None)
        assert SMTPClient("mx.test", 25, options=options).security is Security.STARTTLS

    def test_a_name_that_is_no_mechanism_is_refused_before_connecting(self) -> None:
        for name, words in (("APOP", "POP3"), ("SCRAM-SHA-266", "neither the name of a mechanism")):
            with pytest.raises(InvalidArgument, match=words):
                SMTPClient("mx.test", credentials=replace(ANN, mechanisms=(name,)))


# --- before_auth ---------------------------------------------------------------------------------------------


class TestBeforeAuth:
    @pytest.mark.parametrize("manner", ["plain", "async"])
    @every_loop
    async def test_it_may_change_the_credentials(self, manner: str) -> None:
        seen: list[Any] = []

        def change(event: BeforeAuth, credentials: Credentials) -> Credentials:
            seen.append((event, credentials))
            return replace(ANN, mechanisms=("LOGIN",))

        async def change_later(event: BeforeAuth, credentials: Credentials) -> Credentials:
            await asyncio.sleep(0)
            return change(event, credentials)

        given = Credentials(username="bob", password="x", allow_cleartext=True)
        policy = change if manner == "plain" else change_later
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=given, before_auth=policy) as client:
                await client.send(mail())
            assert auths(server) == ["LOGIN"]
            assert server.messages[0].user == "ann"
        [(event, credentials)] = seen
        assert credentials is given
        assert (event.host, event.username, event.mechanism) == (server.host, "bob", "CRAM-MD5")
        assert event.offered == ("PLAIN", "LOGIN", "CRAM-MD5")

    async def test_it_may_give_all_of_them(self) -> None:
        async with speaking(users=USERS) as server:
            options: Any = {"login": Login.REQUIRED, "before_auth": lambda event, credentials: ANN}
            async with client_of(server, **options) as client:
                await client.send(mail())
            assert server.messages[0].user == "ann"

    @pytest.mark.parametrize("answer", [None, True])
    async def test_it_may_let_it_be(self, answer: Any) -> None:
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN, before_auth=lambda *_: answer) as client:
                await client.send(mail())
            assert server.messages[0].user == "ann"

    @pytest.mark.parametrize(
        ("policy", "error", "words"),
        [
            (lambda *_: False, AuthenticationUnavailable, "before_auth refused"),
            (lambda *_: 1 / 0, AuthenticationUnavailable, "before_auth raised ZeroDivisionError"),
            (lambda *_: "ann", InvalidArgument, "not str"),
        ],
    )
    async def test_it_may_refuse(self, policy: Any, error: type[SMTPError], words: str) -> None:
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN, before_auth=policy) as client:
                with pytest.raises(error, match=words):
                    await client.send(mail())
            assert auths(server) == []

    async def test_an_error_of_the_library_stays_what_it_is(self) -> None:
        def policy(event: BeforeAuth, credentials: Credentials) -> None:
            raise TokenRefused("consent was withdrawn")

        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN, before_auth=policy) as client:
                with pytest.raises(TokenRefused):
                    await client.send(mail())

    async def test_it_has_the_time_of_the_login(self) -> None:
        async def policy(event: BeforeAuth, credentials: Credentials) -> None:
            await asyncio.Event().wait()

        async with speaking(users=USERS) as server:
            options: Any = {"credentials": ANN, "before_auth": policy, "timeouts": impatient(5, auth=0.05)}
            async with client_of(server, **options) as client:
                with pytest.raises(Timeout, match=r"before_auth took more than 0\.05 s"):
                    await client.send(mail())
            assert auths(server) == []

    @pytest.mark.parametrize("manner", ["plain", "async"])
    @every_loop
    async def test_a_cancelled_error_of_its_own_is_a_failure(self, manner: str) -> None:
        """Nobody cancelled the connection, so that another one, dialled at once, would end in the same way."""

        def policy(event: BeforeAuth, credentials: Credentials) -> None:
            raise asyncio.CancelledError

        async def policy_later(event: BeforeAuth, credentials: Credentials) -> None:
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

        asked = policy if manner == "plain" else policy_later
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN, before_auth=asked) as client:
                with pytest.raises(AuthenticationUnavailable, match="before_auth raised CancelledError"):
                    await client.send(mail(), deadline=5)
            assert auths(server) == [] and server.connections.opened == 1

    @every_loop
    async def test_cancelled_while_it_is_asked(self) -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def policy(event: BeforeAuth, credentials: Credentials) -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with speaking(users=USERS) as server:
            client = client_of(server, credentials=ANN, before_auth=policy)
            sending = asyncio.create_task(client.send(mail()))
            await asked.wait()
            sending.cancel()
            await gathered(sending)
            await client.close()
            await asyncio.wait_for(ended.wait(), 5)
            assert auths(server) == []

    async def test_hooks_hear_of_each_login_before_it_begins(self) -> None:
        events: list[BeforeAuth] = []
        async with speaking(users=USERS) as server:
            async with client_of(server, credentials=ANN) as client:

                async def hook(event: BeforeAuth) -> None:
                    assert auths(server) == []
                    events.append(event)

                client.on(BeforeAuth, hook)
                await client.send(mail())
        [event] = events
        assert (event.session, event.username, event.mechanism) == (1, "ann", "CRAM-MD5")


# --- the mechanism was refused -------------------------------------------------------------------------------


class TestOtherMechanisms:
    @pytest.mark.parametrize("code", [504, 534, 538])
    async def test_the_next_one_follows(self, pki: Pki, code: int) -> None:
        offered: Any = {**SCRAM, **STANDARD}
        async with tls_server(pki, users=USERS, mechanisms=offered) as server:
            server.on("AUTH", reply(code, "5.5.4 not that one"), match="SCRAM")
            async with over_tls(server, pki) as client:
                downgrades = told(client, "downgrade")
                await client.send(mail())
            assert auths(server) == ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]
            assert server.messages[0].user == "ann"
        assert downgrades == [
            f"{name} in place of SCRAM-SHA-512" for name in ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")
        ]

    @pytest.mark.parametrize("code", [535, 454, 500, 501, 503, 530, 554])
    async def test_none_follows_a_refused_account(self, pki: Pki, code: int) -> None:
        offered: Any = {**SCRAM, **STANDARD}
        async with tls_server(pki, users=USERS, mechanisms=offered) as server:
            server.on("AUTH", reply(code, "no"))
            async with over_tls(server, pki) as client:
                with pytest.raises(AuthenticationFailed) as caught:
                    await client.send(mail())
            assert auths(server) == ["SCRAM-SHA-512"]
            assert caught.value.reply is not None and caught.value.reply.code == code

    async def test_a_password_is_not_shown_twice(self, pki: Pki) -> None:
        async with tls_server(pki, users=USERS) as server:
            server.on("AUTH", reply(504, "not that one"))
            async with over_tls(server, pki) as client:
                with pytest.raises(AuthenticationFailed):
                    await client.send(mail())
            assert auths(server) == ["PLAIN"]

    async def test_in_clear_a_refusal_does_not_bring_it_out(self) -> None:
        async with speaking(users=USERS) as server:
            server.on("AUTH", reply(504, "not that one"))
            async with client_of(server, credentials=ANN) as client:
                with pytest.raises(AuthenticationFailed):
                    await client.send(mail())
            assert auths(server) == ["CRAM-MD5"]

    async def test_with_refuse_downgrade_none_follows_that_is_weaker(self, pki: Pki) -> None:
        offered: Any = {**SCRAM, **STANDARD}
        async with tls_server(pki, users=USERS, mechanisms=offered) as server:
            server.on("AUTH", reply(504, "not that one"))
            async with over_tls(server, pki, refuse_downgrade=True) as client:
                with pytest.raises(AuthenticationUnavailable, match="refuse_downgrade"):
                    await client.send(mail())
            assert auths(server) == ["SCRAM-SHA-512"]

    async def test_without_a_ticket_the_next_one_is_used(self) -> None:
        """Nothing of GSSAPI was sent."""
        from smtp_async.auth.gssapi import GSSAPI
        from smtp_async.auth.mechanism import Pending

        class WithoutTicket(GSSAPI):
            @classmethod
            def missing(cls) -> str:
                return ""

            def pending(self, challenge: bytes | None) -> Pending | None:
                def fetch() -> None:
                    raise AuthenticationUnavailable("no Kerberos ticket", stage="AUTH")

                return Pending(fetch, blocking=True)

        offered: Any = {"GSSAPI": servers.anonymous, **STANDARD}
        async with speaking(users=USERS, mechanisms=offered) as server:
            both = replace(ANN, mechanisms=(WithoutTicket, "PLAIN"))
            async with client_of(server, credentials=both) as client:
                await client.send(mail())
            assert auths(server) == ["PLAIN"]
            async with client_of(server, credentials=replace(ANN, mechanisms=(WithoutTicket,))) as client:
                with pytest.raises(AuthenticationUnavailable, match="no Kerberos ticket"):
                    await client.send(mail())

    async def test_a_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("smtp_async.auth.scram.find_spec", lambda name: None)
        async with speaking(users=USERS, mechanisms={**SCRAM, **STANDARD}) as server:
            wanted = replace(ANN, mechanisms=("SCRAM-SHA-256",))
            async with client_of(server, credentials=wanted) as client:
                with pytest.raises(FeatureUnavailable) as caught:
                    await client.send(mail())
            assert caught.value.needs == "smtp-async[sasl]"
            async with client_of(server, credentials=ANN) as client:
                await client.send(mail())
            assert auths(server) == ["CRAM-MD5"]


class TestDowngrade:
    STRONG: Any = {**SCRAM, **STANDARD}

    async def twice(self, pki: Pki, **options: Any) -> tuple[list[Any], list[str], list[str]]:
        """Log in twice; the second time SCRAM is not offered any more."""
        async with tls_server(pki, users=USERS, mechanisms=self.STRONG) as server:
            # The second and fourth EHLO of a connection are behind TLS, and behind the login.
            server.on("EHLO", reply(250, "mx", "AUTH PLAIN LOGIN"), connection=1, nth=2, after=0)
            async with over_tls(server, pki, **options) as client:
                heard = told(client, "downgrade")
                results: list[Any] = []
                for _ in range(2):
                    async with client.session() as session:
                        results += await gathered(session.connect())
                return results, auths(server), heard

    async def test_it_is_told(self, pki: Pki) -> None:
        results, used, heard = await self.twice(pki)
        assert used == ["SCRAM-SHA-512", "PLAIN"]
        assert heard == ["PLAIN in place of SCRAM-SHA-512"]
        assert [one.code for one in results] == [220, 220]

    async def test_it_is_refused(self, pki: Pki) -> None:
        results, used, _ = await self.twice(pki, refuse_downgrade=True)
        assert used == ["SCRAM-SHA-512"]
        assert isinstance(results[1], AuthenticationUnavailable)
        assert "PLAIN in place of SCRAM-SHA-512" in str(results[1])

    async def test_who_asks_for_less_is_not_warned(self, pki: Pki) -> None:
        plain = Credentials(username="ann", password="secret", mechanisms=("PLAIN",))
        results, used, heard = await self.twice(pki, refuse_downgrade=True, credentials=plain)
        assert (used, heard) == (["PLAIN", "PLAIN"], [])
        assert [one.code for one in results] == [220, 220]


# --- tokens --------------------------------------------------------------------------------------------------


class Provider:
    """Returns the tokens one after the other, and the last one for ever; an exception is raised."""

    def __init__(self, *tokens: Any, wait: bool = False) -> None:
        self.tokens = [*tokens]
        self.calls = 0
        self.gate = asyncio.Event()
        if not wait:
            self.gate.set()

    async def __call__(self) -> Token:
        self.calls += 1
        await self.gate.wait()
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, BaseException):
            raise token
        return token if isinstance(token, Token) else Token(token)


def with_token(provider: Any, **more: Any) -> Credentials:
    return Credentials(username="ann", token=provider, allow_cleartext=True, **more)


@pytest.mark.parametrize("name", TOKENS)
class TestTokens:
    def served(self, name: str, token: str = "good") -> Any:
        return speaking(users={"ann": token}, mechanisms={name: TOKENS[name]})

    @every_loop
    async def test_a_text(self, name: str) -> None:
        async with self.served(name) as server:
            async with client_of(server, credentials=with_token("Bearer good")) as client:
                await client.send(mail())
            assert server.messages[0].user == "ann"

    async def test_a_wrong_text_is_explained(self, name: str) -> None:
        async with self.served(name) as server, client_of(server, credentials=with_token("bad")) as client:
            with pytest.raises(
                AuthenticationFailed, match="status 400, schemes Bearer, scope https://mail"
            ) as caught:
                await client.send(mail())
            assert caught.value.reply is not None and caught.value.reply.code == 535
            assert auths(server) == [name]
            # As any 535, it is remembered.
            with pytest.raises(AuthenticationFailed):
                await client.send(mail())
            assert auths(server) == [name]

    @every_loop
    async def test_ten_sends_call_the_provider_once(self, name: str) -> None:
        provider = Provider("good")
        async with self.served(name) as server:
            async with client_of(server, credentials=with_token(provider)) as client:
                receipts = await gathered(*(client.send(mail(n)) for n in range(10)))
        assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
        assert provider.calls == 1

    async def test_a_long_token_both_ways(self, name: str) -> None:
        """4 KiB: with AUTH it does not fit into a line, as an answer it does."""
        token = "x" * 4096
        async with self.served(name, token) as server:
            async with client_of(server, credentials=with_token(Provider(token))) as client:
                await client.send(mail())
            assert f"AUTH {name}".encode() in [line.line for line in server.commands]
            assert server.messages[0].user == "ann"

    @every_loop
    async def test_a_refused_one_is_renewed_once_on_the_same_connection(self, name: str) -> None:
        provider = Provider("expired", "good")
        async with self.served(name) as server:
            async with client_of(server, credentials=with_token(provider)) as client:
                await client.send(mail())
            assert len(server.connections) == 1
            assert auths(server) == [name, name]
        assert provider.calls == 2

    async def test_a_renewed_one_is_shown_by_the_mechanism_that_was_refused(self, name: str) -> None:
        other = {"OAUTHBEARER": "XOAUTH2", "XOAUTH2": "OAUTHBEARER"}[name]
        provider = Provider("expired", "good")
        mechanisms = {one: TOKENS[one] for one in (name, other)}
        async with speaking(users={"ann": "good"}, mechanisms=mechanisms) as server:
            chosen = replace(with_token(provider), mechanisms=(name, other))
            async with client_of(server, credentials=chosen) as client:
                await client.send(mail())
            assert auths(server) == [name, name]

    async def test_ten_connections_with_a_refused_one_call_the_provider_once_more(self, name: str) -> None:
        provider = Provider("expired", "good")
        async with self.served(name) as server:
            async with client_of(server, credentials=with_token(provider)) as client:
                receipts = await gathered(*(client.send(mail(n)) for n in range(10)))
        assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
        assert provider.calls == 2

    async def test_a_535_without_explanation_renews_it_too(self, name: str) -> None:
        provider = Provider("expired", "good")
        async with self.served(name) as server:
            server.on("AUTH", reply(535, "5.7.8 no"), nth=1)
            async with client_of(server, credentials=with_token(provider)) as client:
                await client.send(mail())
        assert provider.calls == 2

    @pytest.mark.parametrize("code", [454, 421, 432])
    async def test_a_busy_server_does_not(self, name: str, code: int) -> None:
        provider = Provider("good", "other")
        async with self.served(name) as server:
            server.on("AUTH", reply(code, "4.7.0 later"), *([close()] if code == 421 else []), nth=1)
            async with client_of(server, credentials=with_token(provider)) as client:
                await gathered(client.send(mail()))
        assert provider.calls == 1

    async def test_then_the_error_and_no_third_try(self, name: str) -> None:
        provider = Provider("bad", "worse", "worst")
        async with self.served(name) as server, client_of(server, credentials=with_token(provider)) as client:
            with pytest.raises(AuthenticationFailed):
                await client.send(mail())
            with pytest.raises(AuthenticationFailed):
                await client.send(mail())
            assert auths(server) == [name, name]
        assert provider.calls == 2

    async def test_a_provider_that_returns_the_same_again(self, name: str) -> None:
        provider = Provider("bad")
        async with self.served(name) as server, client_of(server, credentials=with_token(provider)) as client:
            with pytest.raises(AuthenticationFailed):
                await client.send(mail())
            assert auths(server) == [name]
        assert provider.calls == 2

    async def test_a_refused_refresh_is_remembered(self, name: str) -> None:
        provider = Provider(TokenRefused("invalid_grant: consent was withdrawn"))
        async with self.served(name) as server, client_of(server, credentials=with_token(provider)) as client:
            for _ in range(3):
                with pytest.raises(TokenRefused, match="consent"):
                    await client.send(mail())
            assert auths(server) == []
        assert provider.calls == 1

    async def test_a_failed_refresh_may_succeed_later(self, name: str) -> None:
        provider = Provider(TokenUnavailable("the authorization server is down"), "good")
        async with self.served(name) as server, client_of(server, credentials=with_token(provider)) as client:
            with pytest.raises(TokenUnavailable):
                await client.send(mail())
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED

    async def test_one_that_expires_while_messages_wait_is_renewed(self, name: str) -> None:
        """Each connection carries one message, so that each message logs in; no message fails."""
        from smtp_async import PoolLimits

        class Expiring(Provider):
            async def __call__(self) -> Token:
                self.calls += 1
                # Used once, as it has expired already.
                return Token("good", expires_at=1.0)

        provider = Expiring("good")
        async with self.served(name) as server:
            limits = PoolLimits(max_connections=1, max_messages=1)
            async with client_of(server, credentials=with_token(provider), pool=limits) as client:
                receipts = await gathered(*(client.send(mail(n)) for n in range(5)))
        assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 5
        assert provider.calls == 5

    async def test_a_provider_that_takes_too_long(self, name: str) -> None:
        provider = Provider("good", wait=True)
        async with self.served(name) as server:
            limits = impatient(5, auth=0.05)
            async with client_of(server, credentials=with_token(provider), timeouts=limits) as client:
                with pytest.raises(TokenUnavailable, match=r"more than 0\.05 s"):
                    await client.send(mail())
            assert auths(server) == []

    async def test_a_caller_that_is_cancelled_takes_the_call_along(self, name: str) -> None:
        provider = Provider("good", wait=True)
        async with self.served(name) as server:
            client = client_of(server, credentials=with_token(provider))
            sending = asyncio.create_task(client.send(mail()))
            await until(lambda: provider.calls)
            sending.cancel()
            await gathered(sending)
            await client.close()
            await turns()
            assert sending.cancelled() and auths(server) == []


async def _cancelled_after(turn: int, client: SMTPClient) -> bool:
    """Cancel a message after so many turns of the loop; return whether it had ended before."""
    sending = asyncio.create_task(client.send(mail("A")))
    for _ in range(turn):
        if sending.done():
            break
        await asyncio.sleep(0)
    ended = sending.done()
    sending.cancel()
    await gathered(sending)
    return ended


@every_loop
async def test_abort_ends_a_login_that_waits_for_a_token() -> None:
    provider = Provider("good", wait=True)
    async with speaking(users={"ann": "good"}, mechanisms=TOKENS) as server:
        account = with_token(provider)
        async with client_of(server, credentials=account, login=Login.MANUAL) as client:
            async with client.session() as session:
                await session.connect()
                logging_in = asyncio.create_task(session.login())
                await until(lambda: provider.calls)
                session.abort()
                [result] = await gathered(logging_in)
                assert isinstance(result, Interrupted)
        await turns()
        assert auths(server) == []


@pytest.mark.parametrize("name", [*TOKENS, "SCRAM-SHA-1"])
async def test_cancelled_at_any_moment_of_a_login(name: str) -> None:
    """The provider, the thread and the exchange are left as they are: the next message arrives."""
    ended = False
    for turn in range(2000):
        provider = Provider("expired", "good")
        account = with_token(provider) if name in TOKENS else replace(ANN, mechanisms=(name,))
        users = {"ann": "good"} if name in TOKENS else USERS
        async with ScriptedServer(users=users, mechanisms={**TOKENS, **SCRAM}) as server:
            async with client_of(server, credentials=account) as client:
                ended = await _cancelled_after(turn, client)
                async with asyncio.timeout(10):
                    assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
            assert [one.rcpt_tos for one in server.messages].count(["userB@example.org"]) == 1
            assert provider.calls <= 2
        if ended:
            break
    assert ended


# --- with TLS ------------------------------------------------------------------------------------------------


class TestOverTLS:
    def bound(self, pki: Pki, name: str) -> Callable[..., Any]:
        """Return the server's side of a -PLUS mechanism, bound to the server's own certificate."""
        import ssl

        from smtp_async.tls.bindings import server_end_point

        pem = pki.server.certificate.read_text().split("-----END CERTIFICATE-----")[0]
        der = ssl.PEM_cert_to_DER_cert(pem + "-----END CERTIFICATE-----\n")
        data = server_end_point(der)
        assert data is not None
        return servers.scram(name, binding=("tls-server-end-point", data))

    @pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    async def test_a_bound_login(self, pki: Pki, name: str) -> None:
        offered: Any = {f"{name}-PLUS": self.bound(pki, f"{name}-PLUS"), **SCRAM, **STANDARD}
        offered = {one: offered[one] for one in (f"{name}-PLUS", name, "PLAIN")}
        async with tls_server(pki, users=USERS, mechanisms=offered) as server:
            async with over_tls(server, pki, credentials=BOUND) as client:
                await client.send(mail())
            assert auths(server) == [f"{name}-PLUS"]
            assert server.messages[0].user == "ann"

    async def test_a_login_passed_on_by_somebody_in_between_is_refused(self, pki: Pki) -> None:
        wrong = servers.scram("SCRAM-SHA-256-PLUS", binding=("tls-server-end-point", b"another certificate"))
        async with tls_server(pki, users=USERS, mechanisms={"SCRAM-SHA-256-PLUS": wrong}) as server:
            async with over_tls(server, pki, credentials=BOUND) as client:
                with pytest.raises(AuthenticationFailed, match="channel-bindings-dont-match"):
                    await client.send(mail())

    async def test_a_stripped_offer_is_refused_by_the_server(self, pki: Pki) -> None:
        """It offers -PLUS, which did not arrive: the client's flag is y."""
        offered = {"SCRAM-SHA-256": self.bound(pki, "SCRAM-SHA-256")}
        async with tls_server(pki, users=USERS, mechanisms=offered) as server:
            async with over_tls(server, pki) as client:
                with pytest.raises(AuthenticationFailed, match="server-does-support-channel-binding"):
                    await client.send(mail())

    async def test_a_server_that_does_not_know_the_password_is_noticed(self, pki: Pki) -> None:
        """It has the address and a valid certificate, but not the user's data."""

        def liar(users: Any, initial: bytes | None) -> Any:
            nonce = (initial or b"").rpartition(b"r=")[2]
            yield b"r=%bxyz,s=QSXCR+Q6sek8bf92,i=4096" % nonce
            yield b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="
            return "ann"

        def shorter(users: Any, initial: bytes | None) -> Any:
            nonce = (initial or b"").rpartition(b"r=")[2]
            yield b"r=%bxyz,s=QSXCR+Q6sek8bf92,i=4096" % nonce
            return "ann"

        for server_side in (liar, shorter):
            async with tls_server(pki, users=USERS, mechanisms={"SCRAM-SHA-1": server_side}) as server:
                async with over_tls(server, pki) as client:
                    with pytest.raises((ProtocolViolation, NotSent)):
                        await client.send(mail())
                assert server.messages == []

    async def test_minimum_strength(self, pki: Pki) -> None:
        strict = Credentials(username="ann", password="secret", minimum_strength=Strength.MUTUAL)
        async with tls_server(pki, users=USERS) as server:
            async with over_tls(server, pki, credentials=strict) as client:
                with pytest.raises(AuthenticationUnavailable, match="protects less"):
                    await client.send(mail())
            assert auths(server) == []

    async def test_a_client_certificate_is_enough(self, pki: Pki) -> None:
        import ssl

        from smtp_async import TLSOptions
        from smtp_async.tls.stores import CertificateStore

        identity = CertificateStore.load(pki.client.combined).identity()
        context = pki.server_context(ask_client=True)
        assert context.verify_mode is ssl.CERT_REQUIRED
        tls = TLSOptions(trust=trusting(pki).trust, identity=identity)
        offered: Any = {"EXTERNAL": servers.external, **STANDARD}
        async with ScriptedServer(ssl_context=context, users=USERS, mechanisms=offered) as server:
            options: Any = {"host": "localhost", "security": Security.STARTTLS, "tls": tls}
            for how in ({"login": Login.REQUIRED}, {"credentials": Credentials(username="ann")}):
                async with client_of(server, **options, **how) as client:
                    await client.send(mail())
            # No account is named: the certificate alone says it.
            assert [one.user for one in server.messages] == ["certificate", "ann"]
            assert auths(server) == ["EXTERNAL", "EXTERNAL"]
            async with client_of(server, **options) as client:
                await client.send(mail())
            assert auths(server) == ["EXTERNAL", "EXTERNAL"]


async def test_an_own_mechanism_over_a_connection() -> None:
    from tests.testing.test_mechanism_contract import Reversed, reversed_server

    offered: Any = {"X-REVERSED": reversed_server, **STANDARD}
    async with speaking(users=USERS, mechanisms=offered) as server:
        own = replace(ANN, mechanisms=(Reversed, "PLAIN"))
        async with client_of(server, credentials=own) as client:
            await client.send(mail())
        assert auths(server) == ["X-REVERSED"]
        assert server.messages[0].user == "ann"


async def test_anonymous_and_digest_over_a_connection() -> None:
    offered: Any = {
        "ANONYMOUS": servers.anonymous,
        "DIGEST-MD5": servers.digest_md5,
        "LOGIN": mechanisms.login,
    }
    async with speaking(users=USERS, mechanisms=offered) as server:
        for name in ("ANONYMOUS", "DIGEST-MD5"):
            async with client_of(server, credentials=replace(ANN, mechanisms=(name,))) as client:
                await client.send(mail())
        assert [one.user for one in server.messages] == ["ann", "ann"]
        assert auths(server) == ["ANONYMOUS", "DIGEST-MD5"]
