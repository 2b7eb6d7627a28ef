"""Providers log in to Dovecot, which verifies the tokens itself; an authorization server on loopback issues them."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from smtp_async import Credentials, Outcome, PoolLimits, Secret, Security, SMTPClient
from smtp_async.cli.app import app
from smtp_async.errors import AuthenticationFailed
from smtp_async.oauth import ClientCredentials, RefreshToken, ServiceAccount
from smtp_async.oauth.token_file import TokenFile, read_token_file, write_token_file
from tests.lab import client_of, gathered, mail, trusting
from tests.oauth.server import AuthorizationServer, Form, Reply, error, token
from tests.servers import USER
from tests.servers.dovecot import Dovecot
from tests.servers.pki import Pki

pytestmark = pytest.mark.server

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
CLIENT, SECRET, ROBOT = "app-1", "client-secret", "robot@project.test"


def stated(assertion: str) -> dict[str, Any]:
    """Return what a service account states, if its signature is right."""
    header, claims, signature = (base64.urlsafe_b64decode(f"{one}===") for one in assertion.split("."))
    signed = assertion.rpartition(".")[0].encode()
    KEY.public_key().verify(signature, signed, PKCS1v15(), SHA256())
    assert json.loads(header)["alg"] == "RS256"
    found: dict[str, Any] = json.loads(claims)
    return found


class Issuer:
    """Issues what Dovecot takes, to those it knows; the first `expired` tokens have expired already."""

    def __init__(self, dovecot: Dovecot, *, expired: int = 0) -> None:
        self._dovecot = dovecot
        self._expired = expired
        self.rotated = 0

    def __call__(self, form: Form) -> Reply:
        match form["grant_type"].rpartition(":")[2]:
            case "refresh_token":
                known = form["refresh_token"] == f"refresh-{self.rotated}"
            case "client_credentials":
                known = form["client_secret"] == SECRET
            case _:
                claims = stated(form["assertion"])
                known = (claims["iss"], claims["sub"]) == (ROBOT, USER)
        if not known:
            return error("invalid_grant")
        more: dict[str, Any] = {}
        if "refresh_token" in form:
            self.rotated += 1
            more["refresh_token"] = f"refresh-{self.rotated}"
        self._expired -= 1
        value = self._dovecot.token(exp=1) if self._expired >= 0 else self._dovecot.token()
        return token(value, **more)


Make = Callable[[AuthorizationServer], Any]

MAKERS: dict[str, Make] = {
    "refresh token": lambda server: RefreshToken(
        server.endpoints(), client_id=CLIENT, refresh_token="refresh-0", ssl_context=server.context
    ),
    "application": lambda server: ClientCredentials(
        server.endpoints(), client_id=CLIENT, client_secret=SECRET, ssl_context=server.context
    ),
    "service account": lambda server: ServiceAccount(
        client_id=ROBOT,
        private_key=PEM,
        subject=USER,
        endpoints=server.endpoints(),
        ssl_context=server.context,
    ),
}


def client_for(dovecot: Dovecot, pki: Pki, provider: Any, mechanism: str = "", **limits: Any) -> SMTPClient:
    mechanisms = [mechanism] if mechanism else []
    return client_of(
        dovecot,
        host="localhost",
        port=dovecot.submission_port,
        security=Security.STARTTLS,
        credentials=Credentials(username=USER, token=provider, mechanisms=mechanisms),
        tls=trusting(pki),
        pool=PoolLimits(**limits),
    )


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
@pytest.mark.parametrize("kind", MAKERS)
async def test_each_logs_in(
    kind: str, mechanism: str, dovecot: Dovecot, pki: Pki, authority: AuthorizationServer
) -> None:
    authority.handler = Issuer(dovecot)
    async with client_for(dovecot, pki, MAKERS[kind](authority), mechanism) as client:
        assert (await client.send(mail(to="bob@lab.test"))).outcome is Outcome.ACCEPTED
    assert len(authority.forms) == 1


@pytest.mark.parametrize("kind", MAKERS)
async def test_an_expired_token_is_replaced_once_for_all(
    kind: str, dovecot: Dovecot, pki: Pki, authority: AuthorizationServer
) -> None:
    authority.handler = Issuer(dovecot, expired=1)
    async with client_for(dovecot, pki, MAKERS[kind](authority), max_connections=5) as client:
        receipts = await gathered(*(client.send(mail(n, to="bob@lab.test")) for n in range(10)))
    assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 10
    assert len(authority.forms) == 2


async def test_a_token_that_stays_expired(dovecot: Dovecot, pki: Pki, authority: AuthorizationServer) -> None:
    authority.handler = Issuer(dovecot, expired=9)
    async with client_for(dovecot, pki, MAKERS["service account"](authority)) as client:
        with pytest.raises(AuthenticationFailed, match="invalid_token") as caught:
            await client.send(mail(to="bob@lab.test"))
    assert caught.value.reply is not None and caught.value.reply.code == 535
    assert len(authority.forms) == 2


def test_the_command_line(
    dovecot: Dovecot, pki: Pki, authority: AuthorizationServer, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
    authority.handler = Issuer(dovecot)
    path = tmp_path / "token"
    stored = TokenFile(
        provider="local",
        token_endpoint=authority.url,
        client_id=CLIENT,
        client_secret=Secret(SECRET),
        refresh_token=Secret("refresh-0"),
        username=USER,
    )
    write_token_file(path, stored)
    spool = tmp_path / "spool"
    people = ["--from", "ann@lab.test", "--to", "bob@lab.test", "--text", "Hi"]
    access = ["--ca-file", str(pki.ca_file), "--oauth", str(path)]
    server = f"localhost:{dovecot.submission_port}"
    for words in (
        ["send", "--server", server, *people, *access],
        ["check", server, *access],
        ["queue", "add", "--create", "--spool", str(spool), *people],
        ["process", "--once", "--server", server, "--spool", str(spool), *access],
    ):
        done = CliRunner().invoke(app, words)
        # The check finds that this Dovecot offers logins before TLS.
        assert done.exit_code == (1 if words[0] == "check" else 0), done.output
        assert words[0] != "check" or "ours succeeded" in done.output
    # Each of the three that logged in had the refresh token rotated.
    assert read_token_file(path).refresh_token == Secret("refresh-3")
