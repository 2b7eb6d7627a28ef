"""Mail through real proxies: each carries STARTTLS, a login and a message to Postfix, and implicit TLS."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import (
    AddressFamily,
    ClientOptions,
    DNSMode,
    DNSOptions,
    Outcome,
    ProxyAuth,
    ProxyOptions,
    ProxyType,
    Security,
    SMTPClient,
)
from smtp_async.transport.records import MX, SRV
from tests.lab import every_loop, mail, trusting
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("no_leaks")]

Get = Callable[[str], Any]


def socks(server: Any, kind: ProxyType, port: str, **options: Any) -> ProxyOptions:
    return ProxyOptions(type=kind, host=server.host, port=getattr(server, port), **options)


def login(server: Any) -> dict[str, Any]:
    return {"username": server.user, "password": server.password}


def dante_socks4(get: Get) -> ProxyOptions:
    return socks(get("dante"), ProxyType.SOCKS4, "open_port")


def dante_socks5(get: Get) -> ProxyOptions:
    return socks(get("dante"), ProxyType.SOCKS5, "open_port")


def dante_socks5_login(get: Get) -> ProxyOptions:
    return socks(get("dante"), ProxyType.SOCKS5, "login_port", **login(get("dante")))


def ssh_socks4(get: Get) -> ProxyOptions:
    return socks(get("ssh_forwarding"), ProxyType.SOCKS4, "port")


def ssh_socks4a(get: Get) -> ProxyOptions:
    return socks(get("ssh_forwarding"), ProxyType.SOCKS4A, "port")


def ssh_socks5(get: Get) -> ProxyOptions:
    return socks(get("ssh_forwarding"), ProxyType.SOCKS5, "port")


def tinyproxy(get: Get) -> ProxyOptions:
    return socks(get("tinyproxy"), ProxyType.HTTP_CONNECT, "open_port")


def tinyproxy_basic(get: Get) -> ProxyOptions:
    return socks(get("tinyproxy"), ProxyType.HTTP_CONNECT, "login_port", **login(get("tinyproxy")))


def squid(get: Get) -> ProxyOptions:
    return socks(get("squid"), ProxyType.HTTP_CONNECT, "open_port")


def squid_digest(get: Get) -> ProxyOptions:
    return socks(get("squid"), ProxyType.HTTP_CONNECT, "login_port", **login(get("squid")))


def squid_basic(get: Get) -> ProxyOptions:
    return replace(squid_digest(get), auth=ProxyAuth.BASIC)


def squid_ntlm(get: Get) -> ProxyOptions:
    return replace(squid_digest(get), auth=ProxyAuth.NTLM)


def squid_tls(get: Get) -> ProxyOptions:
    context = get("pki").client_context()
    options = socks(get("squid"), ProxyType.HTTPS_CONNECT, "tls_port", context=context, **login(get("squid")))
    return replace(options, host="localhost")


ROUTES = [
    *(dante_socks4, dante_socks5, dante_socks5_login, ssh_socks4, ssh_socks4a, ssh_socks5),
    *(tinyproxy, tinyproxy_basic, squid, squid_digest, squid_basic, squid_ntlm, squid_tls),
]
RESPONDING = [route for route in ROUTES if "socks" not in route.__name__]


@pytest.fixture(params=ROUTES, ids=lambda route: route.__name__)
def proxy(request: pytest.FixtureRequest) -> ProxyOptions:
    """Each kind of proxy, with and without a login."""
    options: ProxyOptions = request.param(request.getfixturevalue)
    return options


class Nothing:
    """A resolver for clients whose proxy has to resolve the server's name."""

    async def addresses(self, name: str, family: AddressFamily) -> Sequence[str]:
        raise AssertionError(f"{name} was looked up here")

    async def mx(self, domain: str) -> Sequence[MX]:
        raise AssertionError(f"{domain} was looked up here")

    async def srv(self, service: str) -> Sequence[SRV]:
        raise AssertionError(f"{service} was looked up here")


#: The proxies of these kinds are given by their addresses here, so nothing at all has to be looked up.
RESOLVING = {ProxyType.SOCKS4A, ProxyType.SOCKS5}


def client_through(
    proxy: Any, postfix: Postfix, pki: Pki, port: int, *, host: str = "localhost", **arguments: Any
) -> SMTPClient:
    dns = DNSOptions(resolver=Nothing() if proxy.type in RESOLVING else DNSMode.AUTO)
    options = ClientOptions(proxy=proxy, tls=trusting(pki), hello="client.test", dns=dns)
    return SMTPClient(
        host, port, username=postfix.user, password=postfix.password, options=options, **arguments
    )


class TestEveryProxy:
    @every_loop
    async def test_carries_starttls_a_login_and_a_message(
        self, proxy: ProxyOptions, postfix: Postfix, pki: Pki
    ) -> None:
        message = mail(to="bob@lab.test", text=f"through {proxy}")
        async with client_through(proxy, postfix, pki, postfix.auth_port) as client:
            receipt = await client.send(message)
            async with client.session() as session:
                await session.connect()
                info = session.info
        assert receipt.outcome is Outcome.ACCEPTED
        assert info is not None and info.encrypted and info.verified
        assert info.via == str(proxy)
        assert info.peer == ("127.0.0.1", proxy.port)
        assert receipt.message_id is not None
        [arrived] = postfix.wait_for_message(receipt.message_id)
        assert b"Authenticated sender: user" in arrived

    @every_loop
    async def test_carries_tls_from_the_first_byte(
        self, proxy: ProxyOptions, postfix: Postfix, pki: Pki
    ) -> None:
        client = client_through(proxy, postfix, pki, postfix.tls_port, security=Security.IMPLICIT)
        async with client:
            report = await client.check()
        assert report.error is None and report.logged_in
        assert report.offered_in_clear is None
