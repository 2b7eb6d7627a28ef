"""Providers behind a client: one call for all connections, and no message fails because a token expired."""

from collections.abc import Iterator
from typing import Any

import pytest

from smtp_async import ClientOptions, Credentials, Outcome, PoolLimits, Security, SMTPClient
from smtp_async.errors import NotSent, SMTPError, TokenRefused, TokenUnavailable
from smtp_async.oauth import RefreshToken
from smtp_async.testing import ScriptedServer
from tests.auth.servers import oauthbearer, xoauth2
from tests.lab import every_loop, gathered, mail, speaking, trusting
from tests.oauth.server import AuthorizationServer, Form, Reply, error, token
from tests.servers.pki import Pki

ANN = "ann@example.com"


def mail_server(pki: Pki, users: dict[str, str], mechanism: Any = oauthbearer) -> Any:
    name = {oauthbearer: "OAUTHBEARER", xoauth2: "XOAUTH2"}[mechanism]
    return speaking(
        ssl_context=pki.server_context(), users=users, mechanisms={name: mechanism()}, require_auth=True
    )


def client_for(server: ScriptedServer, authority: AuthorizationServer, pki: Pki, **limits: Any) -> SMTPClient:
    provider = RefreshToken(
        authority.endpoints(), client_id="app-1", refresh_token="r1", ssl_context=authority.context
    )
    return SMTPClient(
        "localhost",
        server.port,
        credentials=Credentials(username=ANN, token=provider),
        security=Security.STARTTLS,
        options=ClientOptions(tls=trusting(pki), pool=PoolLimits(**limits)),
    )


@pytest.fixture
def numbered(authority: AuthorizationServer) -> Iterator[AuthorizationServer]:
    """Issues access-1, access-2 and so on."""

    def answer(form: Form) -> Reply:
        return token(f"access-{len(authority.forms)}")

    authority.handler = answer
    yield authority


@every_loop
@pytest.mark.parametrize("mechanism", [oauthbearer, xoauth2])
async def test_one_token_for_ten_connections(numbered: AuthorizationServer, pki: Pki, mechanism: Any) -> None:
    async with mail_server(pki, {ANN: "access-1"}, mechanism) as server:
        async with client_for(server, numbered, pki, max_connections=10) as client:
            receipts = await gathered(*(client.send(mail(n)) for n in range(10)))
        assert server.connections.opened > 1
    assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
    assert len(numbered.forms) == 1


async def test_ten_sends_with_an_expired_token_renew_it_once(numbered: AuthorizationServer, pki: Pki) -> None:
    """Ten connections have their token refused; the first of them to hear of it has it renewed for all."""
    async with mail_server(pki, {ANN: "access-2"}) as server:
        async with client_for(server, numbered, pki, max_connections=10) as client:
            receipts = await gathered(*(client.send(mail(n)) for n in range(10)))
        assert server.connections.opened > 1
    assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
    assert len(numbered.forms) == 2


async def test_ten_sends_after_a_token_has_run_out(authority: AuthorizationServer, pki: Pki) -> None:
    """The life of the first token is over at once: the next ten connections have it renewed before they log in."""
    authority.script = [token("access-1", expires_in=0), token("access-2")]
    users = {ANN: "access-1"}
    async with mail_server(pki, users) as server:
        async with client_for(server, authority, pki, max_connections=10, max_messages=1) as client:
            assert (await client.send(mail(0))).outcome is Outcome.ACCEPTED
            users[ANN] = "access-2"
            receipts = await gathered(*(client.send(mail(n)) for n in range(1, 11)))
        assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
        assert server.verbs().count("AUTH") == server.connections.opened == 11
    assert len(authority.forms) == 2


async def test_a_token_that_expires_while_messages_wait(numbered: AuthorizationServer, pki: Pki) -> None:
    users = {ANN: "access-1"}
    async with mail_server(pki, users) as server:
        limits = {"max_connections": 1, "max_messages": 1}
        async with client_for(server, numbered, pki, **limits) as client:
            assert (await client.send(mail(0))).outcome is Outcome.ACCEPTED
            users[ANN] = "access-2"
            receipts = await gathered(*(client.send(mail(n)) for n in range(1, 6)))
        assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 5
        assert len(server.messages) == server.connections.opened == 6
    assert len(numbered.forms) == 2


async def test_a_refused_refresh_token_is_remembered(authority: AuthorizationServer, pki: Pki) -> None:
    authority.handler = lambda form: error("invalid_grant", error_description="expired or revoked")
    async with mail_server(pki, {ANN: "access-1"}) as server:
        async with client_for(server, authority, pki) as client:
            found = await gathered(*(client.send(mail(n)) for n in range(5)))
            found += await gathered(client.send(mail(6)))
        assert "AUTH" not in server.verbs()
    assert {type(one) for one in found} == {TokenRefused}
    assert all("expired or revoked" in str(one) and not one.temporary for one in found)
    assert len(authority.forms) == 1


async def test_a_token_that_is_refused_twice_ends_it(authority: AuthorizationServer, pki: Pki) -> None:
    async with mail_server(pki, {ANN: "another"}) as server:
        async with client_for(server, authority, pki) as client:
            (found,) = await gathered(client.send(mail()))
    assert isinstance(found, SMTPError) and found.reply is not None and found.reply.code == 535
    assert "access-1" not in f"{found} {found!r}"
    assert len(authority.forms) == 2


async def test_a_server_that_fails_is_temporary(authority: AuthorizationServer, pki: Pki) -> None:
    authority.handler = lambda form: Reply(500, b"")
    async with mail_server(pki, {ANN: "access-1"}) as server:
        async with client_for(server, authority, pki) as client:
            (found,) = await gathered(client.send(mail()))
    assert isinstance(found, TokenUnavailable) and found.temporary
    assert str(found) == "the token endpoint localhost answered with status 500"


async def test_a_slow_server_and_a_deadline(authority: AuthorizationServer, pki: Pki) -> None:
    authority.open.clear()
    async with mail_server(pki, {ANN: "access-1"}) as server:
        async with client_for(server, authority, pki) as client:
            with pytest.raises(NotSent):
                await client.send(mail(), deadline=0.5)
