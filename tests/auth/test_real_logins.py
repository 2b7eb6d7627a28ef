"""Every SASL mechanism logs in to a real server, and the server says so."""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async import Credentials, Security, SMTPClient, Strength, TLSOptions, Token, TrustOptions
from smtp_async.errors import AuthenticationFailed, AuthenticationUnavailable, InvalidArgument, SMTPError
from smtp_async.events import Notification, PITrail
from smtp_async.tls.stores import CertificateStore
from tests.lab import client_of, mail
from tests.servers import PASSWORD, USER
from tests.servers.cyrus import Cyrus
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.kdc import Kdc
from tests.servers.machine import wait_until
from tests.servers.pki import CLIENT_NAME, Pki
from tests.servers.postfix import SASL_MECHANISMS, Postfix

pytestmark = pytest.mark.server

Server = Postfix | Dovecot | Exim | Cyrus
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

WITH_PASSWORD = [name for name in SASL_MECHANISMS if name not in ("GSSAPI", "ANONYMOUS")]
WITH_TOKEN = ["OAUTHBEARER", "XOAUTH2"]
DOVECOT = [
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
    "DIGEST-MD5",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    *WITH_TOKEN,
    "EXTERNAL",
]
LOGINS = [
    *(("postfix", name) for name in SASL_MECHANISMS),
    *(("dovecot", name) for name in DOVECOT),
    ("exim", "EXTERNAL"),
]


def account(mechanism: str, server: Server) -> dict[str, Any]:
    """Return what proves the account, as arguments of `Credentials`."""
    if mechanism in WITH_TOKEN:
        assert isinstance(server, Dovecot)
        return {"username": USER, "token": server.token()}
    if mechanism == "ANONYMOUS":
        return {"username": "ann@sender.test"}
    if mechanism in ("EXTERNAL", "GSSAPI"):
        return {}
    return {"username": USER, "password": PASSWORD}


def login_line(server: Server, mechanism: str) -> str:
    """Return a pattern of what the server logs of a login, or of the mail that follows it."""
    if isinstance(server, Postfix):
        return rf"sasl_method={mechanism}, sasl_username=(user|anonymous)@"
    if isinstance(server, Dovecot):
        return rf"Login: user=<{USER}>, method={mechanism},"
    return rf" A={mechanism.lower()}:{CLIENT_NAME} "


def client_for(server: Server, pki: Pki, credentials: Credentials, **options: Any) -> SMTPClient:
    """Return a client that gets to the server's logins by STARTTLS."""
    port = {Postfix: "sasl_port", Dovecot: "submission_port", Exim: "asks_port", Cyrus: "lmtp_port"}
    tls = {"trust": TrustOptions(ca_file=pki.ca_file), **options.pop("tls", {})}
    return client_of(
        server,
        host=options.pop("host", "localhost"),
        port=getattr(server, port[type(server)]),
        security=options.pop("security", Security.STARTTLS),
        tls=TLSOptions(**tls),
        lmtp=isinstance(server, Cyrus),
        credentials=credentials,
        **options,
    )


def own_certificate(pki: Pki) -> dict[str, Any]:
    return {"identity": CertificateStore.load(pki.client.combined.read_bytes()).identity()}


def mechanisms_of(client: SMTPClient) -> list[str]:
    """Return a list that grows by each mechanism that is begun."""
    begun: list[str] = []

    @client.on(Notification)
    def note(event: Notification) -> None:
        if event.name == "mechanism":
            begun.append(event.parameter)

    return begun


def auth_lines_of(client: SMTPClient) -> list[str]:
    """Return a list that grows by each AUTH command that is written."""
    lines: list[str] = []

    @client.on(PITrail)
    def note(event: PITrail) -> None:
        if event.message.startswith("AUTH "):
            lines.append(event.message)

    return lines


async def logged(server: Postfix | Dovecot | Exim, start: int, pattern: str) -> None:
    """Return when what the server logged from `start` on matches."""
    await asyncio.to_thread(
        wait_until,
        lambda: re.search(pattern, server.log()[start:], re.MULTILINE) is not None,
        timeout=5,
        what=lambda: f"{pattern!r} is not in {server.log()[start:]}",
    )


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    return request.getfixturevalue


@pytest.mark.parametrize(("name", "mechanism"), LOGINS)
async def test_logs_in(
    name: str, mechanism: str, server: Callable[[str], Any], pki: Pki, request: pytest.FixtureRequest
) -> None:
    if mechanism == "GSSAPI":
        request.getfixturevalue("ticket")
    real = server(name)
    credentials = Credentials(**account(mechanism, real), mechanisms=[mechanism])
    tls = own_certificate(pki) if mechanism == "EXTERNAL" else {}
    start = len(real.log())
    async with client_for(real, pki, credentials, tls=tls) as client:
        begun = mechanisms_of(client)
        await client.send(mail(to="bob@lab.test"))
    assert begun == [mechanism]
    await logged(real, start, login_line(real, mechanism))


@pytest.mark.parametrize("mechanism", WITH_PASSWORD)
async def test_shows_a_wrong_password_once(mechanism: str, postfix: Postfix, pki: Pki) -> None:
    credentials = Credentials(username=USER, password="wrong", mechanisms=[mechanism, *WITH_PASSWORD])
    async with client_for(postfix, pki, credentials) as client:
        lines = auth_lines_of(client)
        for _ in range(2):
            with pytest.raises(AuthenticationFailed) as caught:
                await client.send(mail())
            assert caught.value.reply is not None and caught.value.reply.code == 535
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("name", "chosen"), [("postfix", "SCRAM-SHA-512"), ("dovecot", "SCRAM-SHA-256"), ("exim", "PLAIN")]
)
async def test_chooses_the_best_that_is_offered(
    name: str, chosen: str, server: Callable[[str], Any], pki: Pki
) -> None:
    real = server(name)
    async with client_for(real, pki, Credentials(username=USER, password=PASSWORD)) as client:
        begun = mechanisms_of(client)
        await client.send(mail(to="bob@lab.test"))
    assert begun == [chosen]


@pytest.mark.parametrize("mechanism", WITH_PASSWORD)
async def test_in_clear_no_password_is_proved(mechanism: str, postfix: Postfix, pki: Pki) -> None:
    credentials = Credentials(username=USER, password=PASSWORD, mechanisms=[mechanism])
    async with client_for(postfix, pki, credentials, security=Security.PLAINTEXT) as client:
        lines = auth_lines_of(client)
        with pytest.raises(AuthenticationUnavailable):
            await client.send(mail())
    assert lines == []


class TestToken:
    @pytest.fixture(params=[False, True], ids=["token", "provider"])
    def as_given(self, request: pytest.FixtureRequest) -> Callable[[str], Any]:
        """Return the token, or a provider of it."""
        if not request.param:
            return lambda value: value

        def provider(value: str) -> Callable[[], Awaitable[Token]]:
            async def provide() -> Token:
                return Token(value)

            return provide

        return provider

    async def test_prefers_the_standard(
        self, dovecot: Dovecot, pki: Pki, as_given: Callable[[str], Any]
    ) -> None:
        credentials = Credentials(username=USER, token=as_given(f"Bearer {dovecot.token()}"))
        async with client_for(dovecot, pki, credentials) as client:
            begun = mechanisms_of(client)
            await client.send(mail(to="bob@lab.test"))
        assert begun == ["OAUTHBEARER"]

    @pytest.mark.parametrize(("mechanism", "status"), [("OAUTHBEARER", "invalid_token"), ("XOAUTH2", "401")])
    async def test_tells_why_it_was_refused(
        self, mechanism: str, status: str, dovecot: Dovecot, pki: Pki, as_given: Callable[[str], Any]
    ) -> None:
        token = dovecot.token(exp=1)
        credentials = Credentials(username=USER, token=as_given(token), mechanisms=[mechanism])
        async with client_for(dovecot, pki, credentials) as client:
            with pytest.raises(AuthenticationFailed, match=f"{status}.*https://login.lab.test/") as caught:
                await client.send(mail())
        assert caught.value.reply is not None and caught.value.reply.code == 535
        assert token not in str(caught.value)

    @pytest.mark.parametrize("mechanism", WITH_TOKEN)
    async def test_replaces_a_token_that_has_expired(
        self, mechanism: str, dovecot: Dovecot, pki: Pki
    ) -> None:
        tokens = [dovecot.token(), dovecot.token(exp=1)]

        async def provide() -> Token:
            return Token(tokens.pop())

        credentials = Credentials(username=USER, token=provide, mechanisms=[mechanism])
        async with client_for(dovecot, pki, credentials) as client:
            await client.send(mail(to="bob@lab.test"))
        assert tokens == []


class TestExternal:
    @pytest.mark.parametrize("username", ["", CLIENT_NAME])
    async def test_needs_no_user_name(self, username: str, exim: Exim, pki: Pki) -> None:
        credentials = Credentials(username=username, mechanisms=["EXTERNAL"])
        start = len(exim.log())
        async with client_for(exim, pki, credentials, tls=own_certificate(pki)) as client:
            await client.send(mail(to="bob@lab.test"))
        await logged(exim, start, login_line(exim, "EXTERNAL"))

    async def test_is_used_where_there_is_a_certificate_and_no_password(self, exim: Exim, pki: Pki) -> None:
        async with client_for(exim, pki, Credentials(), tls=own_certificate(pki)) as client:
            begun = mechanisms_of(client)
            await client.send(mail(to="bob@lab.test"))
        assert begun == ["EXTERNAL"]

    async def test_as_another(self, exim: Exim, pki: Pki) -> None:
        credentials = Credentials(username="eve@lab.test", mechanisms=["EXTERNAL"])
        async with client_for(exim, pki, credentials, tls=own_certificate(pki)) as client:
            with pytest.raises(AuthenticationFailed):
                await client.send(mail())

    @pytest.mark.parametrize("name", ["dovecot", "exim"])
    async def test_without_a_certificate(self, name: str, server: Callable[[str], Any], pki: Pki) -> None:
        real = server(name)
        async with client_for(real, pki, Credentials(mechanisms=["EXTERNAL"])) as client:
            lines = auth_lines_of(client)
            with pytest.raises(InvalidArgument, match="client certificate"):
                await client.send(mail())
        assert lines == []


class TestGSSAPI:
    """Postfix has the key of the service smtp at localhost, and no other."""

    @pytest.mark.usefixtures("ticket")
    @pytest.mark.parametrize("username", ["", USER, f"{USER}@LAB.TEST"])
    async def test_ticket(self, username: str, postfix: Postfix, pki: Pki) -> None:
        await self.send(postfix, pki, Credentials(username=username, mechanisms=["GSSAPI"]))

    @pytest.mark.usefixtures("ticket")
    async def test_in_clear(self, postfix: Postfix, pki: Pki) -> None:
        credentials = Credentials(mechanisms=["GSSAPI"])
        await self.send(postfix, pki, credentials, security=Security.PLAINTEXT)

    @pytest.mark.usefixtures("gssapi")
    async def test_password(
        self, postfix: Postfix, pki: Pki, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.without_ticket(kdc, tmp_path, monkeypatch)
        await self.send(postfix, pki, Credentials(username=USER, password=PASSWORD, mechanisms=["GSSAPI"]))

    @pytest.mark.usefixtures("gssapi")
    @pytest.mark.parametrize(
        ("account", "error"),
        [
            ({}, AuthenticationUnavailable),
            ({"username": USER}, AuthenticationUnavailable),
            ({"username": USER, "password": "wrong"}, AuthenticationFailed),
        ],
    )
    async def test_no_ticket(
        self,
        account: dict[str, Any],
        error: type[SMTPError],
        postfix: Postfix,
        pki: Pki,
        kdc: Kdc,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.without_ticket(kdc, tmp_path, monkeypatch)
        with pytest.raises(error, match="no Kerberos ticket for localhost"):
            await self.send(postfix, pki, Credentials(**account, mechanisms=["GSSAPI"]))

    @pytest.mark.usefixtures("ticket")
    async def test_the_ticket_is_for_the_host_as_it_was_named(self, postfix: Postfix, pki: Pki) -> None:
        with pytest.raises(AuthenticationUnavailable, match=r"no Kerberos ticket for 127\.0\.0\.1"):
            await self.send(postfix, pki, Credentials(mechanisms=["GSSAPI"]), host="127.0.0.1")

    @staticmethod
    def without_ticket(kdc: Kdc, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KRB5_CONFIG", str(kdc.configuration))
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{directory / 'none'}")

    @staticmethod
    async def send(postfix: Postfix, pki: Pki, credentials: Credentials, **options: Any) -> None:
        start = len(postfix.log())
        async with client_for(postfix, pki, credentials, **options) as client:
            await client.send(mail(to="bob@lab.test"))
        await logged(postfix, start, login_line(postfix, "GSSAPI"))


class TestChannelBinding:
    """Cyrus takes tls-unique alone, in every version of TLS, and refuses any other with 501."""

    SCRAM = ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512")

    @pytest.mark.parametrize("mechanism", [*SCRAM, *(f"{name}-PLUS" for name in SCRAM)])
    async def test_scram(self, mechanism: str, cyrus: Cyrus, pki: Pki) -> None:
        # Without -PLUS the flag must be "n", because "y" would tell that the offer was removed.
        credentials = Credentials(username=USER, password=PASSWORD, mechanisms=[mechanism])
        assert await self.logged_in(cyrus, pki, credentials, TLS_1_2) == [mechanism]

    async def test_wrong_password(self, cyrus: Cyrus, pki: Pki) -> None:
        credentials = Credentials(username=USER, password="wrong", mechanisms=["SCRAM-SHA-256-PLUS"])
        with pytest.raises(AuthenticationFailed):
            await self.logged_in(cyrus, pki, credentials, TLS_1_2)

    async def test_chooses_it(self, cyrus: Cyrus, pki: Pki) -> None:
        credentials = Credentials(username=USER, password=PASSWORD)
        assert await self.logged_in(cyrus, pki, credentials, TLS_1_2) == ["SCRAM-SHA-512-PLUS"]

    @pytest.mark.skipif("tls-exporter" in ssl.CHANNEL_BINDING_TYPES, reason="there is a binding to try")
    async def test_does_without_it_where_there_is_no_common_binding(self, cyrus: Cyrus, pki: Pki) -> None:
        credentials = Credentials(username=USER, password=PASSWORD)
        assert await self.logged_in(cyrus, pki, credentials, TLS_1_3) == ["SCRAM-SHA-512"]

    async def test_a_binding_that_the_server_does_not_know(self, cyrus: Cyrus, pki: Pki) -> None:
        credentials = Credentials(username=USER, password=PASSWORD, minimum_strength=Strength.BOUND)
        with pytest.raises(AuthenticationFailed, match="501"):
            await self.logged_in(cyrus, pki, credentials, TLS_1_3)

    async def test_later_connections(self, cyrus: Cyrus, pki: Pki) -> None:
        # A connection that went on with the TLS session of the first would have no tls-unique.
        async with self.client(cyrus, pki, Credentials(username=USER, password=PASSWORD), TLS_1_2) as client:
            begun = mechanisms_of(client)
            for _ in range(3):
                async with client.session() as session:
                    await session.connect()
                    binds = not session.info.session_resumed
                    assert begun[-1] == ("SCRAM-SHA-512-PLUS" if binds else "SCRAM-SHA-512")
        assert len(begun) == 3

    @staticmethod
    def client(cyrus: Cyrus, pki: Pki, credentials: Credentials, version: ssl.TLSVersion) -> SMTPClient:
        tls = {"minimum_version": version, "maximum_version": version}
        return client_for(cyrus, pki, credentials, tls=tls)

    async def logged_in(
        self, cyrus: Cyrus, pki: Pki, credentials: Credentials, version: ssl.TLSVersion
    ) -> list[str]:
        """Log in; return the mechanisms that were begun."""
        async with self.client(cyrus, pki, credentials, version) as client:
            begun = mechanisms_of(client)
            async with client.session() as session:
                await session.connect()
        return begun
