"""chain.py: a server behind one proxy or several."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from smtp_async import AddressFamily, ProxyOptions, ProxyType, SocketOptions
from smtp_async.errors import (
    InvalidHost,
    InvalidPort,
    ProxyError,
    ResolveError,
    Timeout,
)
from smtp_async.transport.proxy.chain import dial_through
from tests.servers.machine import needs_proc
from tests.transport.lab import (
    MANNERS,
    cancelled_everywhere,
    client_context,
    echo,
    server_context,
    serving,
    sink,
    turns,
    until,
)
from tests.transport.proxy import lab
from tests.transport.proxy.lab import Asked

HTTP, HTTPS = ProxyType.HTTP_CONNECT, ProxyType.HTTPS_CONNECT
SOCKS4, SOCKS4A, SOCKS5 = ProxyType.SOCKS4, ProxyType.SOCKS4A, ProxyType.SOCKS5


def handler(kind: ProxyType, asked: Asked) -> Any:
    if kind is SOCKS5:
        return lab.socks5(asked, ("ann", "secret"))
    if kind in (SOCKS4, SOCKS4A):
        return lab.socks4(asked)
    plain = lab.http(asked, "ann:secret")
    return plain if kind is HTTP else lab.over_tls(server_context(), plain)


def options(kind: ProxyType, port: int, **more: Any) -> ProxyOptions:
    if kind not in (SOCKS4, SOCKS4A):
        more = {"username": "ann", "password": "secret", **more}
    if kind is HTTPS:
        more = {"context": client_context(), **more}
    return ProxyOptions(type=kind, host=more.pop("host", "127.0.0.1"), port=port, **more)


@contextlib.asynccontextmanager
async def proxies(*kinds: ProxyType, **more: Any) -> AsyncIterator[tuple[list[ProxyOptions], list[Asked]]]:
    """Run proxies of these kinds; yield options for them, and what each is asked."""
    asked = [Asked() for _ in kinds]
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(serving(handler(kind, one)))
            for kind, one in zip(kinds, asked, strict=True)
        ]
        yield [options(kind, server.port, **more) for kind, server in zip(kinds, servers, strict=True)], asked


async def talk(stream: Any) -> bytes:
    stream.write(b"hello")
    answer = await stream.read()
    await stream.close()
    return bytes(answer)


class TestEveryKind:
    @pytest.mark.parametrize("kind", [HTTP, HTTPS, SOCKS4, SOCKS4A, SOCKS5], ids=lambda kind: kind.name)
    def test_bytes_go_both_ways(self, run: Any, kind: ProxyType) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(kind) as ([hop], [asked]):
                stream = await dial_through([hop], "127.0.0.1", server.port)
                assert not stream.encrypted
                assert stream.via == str(hop)
                assert await talk(stream) == b"hello"
                assert asked.targets == [("127.0.0.1", server.port)]

        run(scenario())

    @pytest.mark.parametrize("kind", [HTTP, HTTPS, SOCKS4, SOCKS5], ids=lambda kind: kind.name)
    def test_tls_with_the_server_goes_through(self, run: Any, kind: ProxyType) -> None:
        async def secured(reader: Any, writer: Any) -> None:
            await lab.over_tls(server_context(), echo)(reader, writer)

        async def scenario() -> None:
            async with serving(secured) as server, proxies(kind) as ([hop], _):
                stream = await dial_through([hop], "127.0.0.1", server.port)
                await stream.start_tls(client_context(), "localhost")
                assert stream.encrypted
                assert await talk(stream) == b"hello"

        run(scenario())

    @pytest.mark.parametrize("kind", [HTTP, SOCKS5], ids=lambda kind: kind.name)
    def test_ipv6(self, run: Any, kind: ProxyType) -> None:
        async def scenario() -> None:
            async with serving(echo, "::1") as server, proxies(kind) as ([hop], [asked]):
                assert await talk(await dial_through([hop], "[::1]", server.port)) == b"hello"
                assert asked.targets == [("::1", server.port)]

        run(scenario())

    def test_what_the_server_sent_first_is_kept(self, run: Any) -> None:
        async def greets(reader: Any, writer: Any) -> None:
            writer.write(b"220 at once\r\n")
            await sink(reader, writer)

        async def scenario() -> None:
            for kind in (HTTP, SOCKS5, SOCKS4):
                async with serving(greets) as server, proxies(kind) as ([hop], _):
                    stream = await dial_through([hop], "127.0.0.1", server.port)
                    assert await stream.read() == b"220 at once\r\n"
                    stream.abort()

        run(scenario())

    def test_http_tells_what_it_answered(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(HTTP) as ([hop], _):
                stream = await dial_through([hop], "127.0.0.1", server.port)
                assert stream.proxy_response == (200, "Connection established", (("Via", "lab"),), b"")
                stream.abort()

        run(scenario())


class TestChains:
    @pytest.mark.parametrize(
        "kinds",
        [
            (SOCKS5, HTTP),
            (HTTP, SOCKS5),
            (HTTPS, HTTPS),
            (SOCKS4, SOCKS5, HTTP),
            (HTTPS, SOCKS4A, HTTPS, SOCKS5),
        ],
        ids=lambda kinds: "-".join(kind.name for kind in kinds),
    )
    def test_each_asks_for_the_next(self, run: Any, kinds: tuple[ProxyType, ...]) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(*kinds) as (hops, asked):
                stream = await dial_through(hops, "127.0.0.1", server.port)
                assert stream.via == ", ".join(map(str, hops))
                assert await talk(stream) == b"hello"
                ports = [*(hop.port for hop in hops[1:]), server.port]
                assert [one.targets for one in asked] == [[("127.0.0.1", port)] for port in ports]

        run(scenario())

    def test_credentials_go_to_their_own_proxy_only(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(HTTP, HTTP) as (hops, asked):
                await talk(await dial_through(hops, "127.0.0.1", server.port))
            for one in asked:
                # The first request of each carries none, because nothing was asked.
                assert ["Proxy-Authorization" in head for head in one.heads] == [False, True]

        run(scenario())

    def test_a_refusal_says_which_proxy(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(SOCKS5) as (hops, _):
                refusal = lab.answers(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nwhy")
                async with serving(refusal) as second:
                    hops.append(ProxyOptions(type=HTTP, host="127.0.0.1", port=second.port))
                    with pytest.raises(ProxyError) as caught:
                        await dial_through(hops, "127.0.0.1", server.port)
            error = caught.value
            assert f"HTTP proxy 127.0.0.1:{second.port} (2 of 2)" in str(error)
            assert "403 Forbidden" in str(error) and "rules do not allow" in str(error)
            assert error.proxy == str(hops[1])
            assert error.status == 403 and error.proxy_response is not None
            assert error.proxy_response.body == b"why"
            assert (error.code, error.stage, server.connections) == (118, "connect", 0)

        run(scenario())


class TestNames:
    @pytest.mark.parametrize("kind", [HTTP, SOCKS4A, SOCKS5], ids=lambda kind: kind.name)
    def test_the_proxy_resolves_by_default(self, run: Any, kind: ProxyType) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(kind) as ([hop], [asked]):
                await talk(await dial_through([hop], "LOCALHOST", server.port))
                assert asked.targets == [("LOCALHOST", server.port)]

        run(scenario())

    @pytest.mark.parametrize(
        "kind, remote", [(SOCKS4, None), (HTTP, False), (SOCKS5, False), (SOCKS4A, False)],
    )  # fmt: skip
    def test_this_side_resolves_where_it_has_to(self, run: Any, kind: ProxyType, remote: bool | None) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(kind, remote_dns=remote) as ([hop], [asked]):
                family = SocketOptions(family=AddressFamily.IPV4)
                await talk(await dial_through([hop], "localhost", server.port, options=family))
                assert asked.targets == [("127.0.0.1", server.port)]

        run(scenario())

    def test_a_name_is_given_in_ascii(self, run: Any) -> None:
        async def scenario() -> None:
            refusal = lab.answers(b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n")
            async with serving(refusal) as server:
                hop = ProxyOptions(type=HTTP, host="127.0.0.1", port=server.port)
                with pytest.raises(
                    ProxyError, match=r"connect to xn--mller-kva\.example:25: it answered 404"
                ):
                    await dial_through([hop], "müller.example", 25)

        run(scenario())

    def test_the_next_address_is_tried_where_one_is_unreachable(self, run: Any) -> None:
        def refusal(head: str) -> bytes:
            return b"HTTP/1.1 502 no\r\nContent-Length: 0\r\n\r\n" if "127.0.0.9" in head else b""

        async def scenario() -> None:
            asked = Asked()
            async with serving(echo) as server, serving(lab.http(asked, refusal=refusal)) as proxy:
                loop: Any = asyncio.get_running_loop()
                resolver = loop.getaddrinfo

                async def getaddrinfo(host: str, port: int, **how: Any) -> Any:
                    if host[0].isdigit():
                        # uvloop itself asks once more, for the address that it connects to.
                        return await resolver(host, port, **how)
                    return [(2, 1, 6, "", (one, server.port)) for one in ("127.0.0.9", "127.0.0.1")]

                loop.getaddrinfo = getaddrinfo
                hop = ProxyOptions(type=HTTP, host="127.0.0.1", port=proxy.port, remote_dns=False)
                await talk(await dial_through([hop], "mail.example", server.port))
                assert len(asked.heads) == 2

        run(scenario())

    def test_a_name_without_an_address(self, run: Any) -> None:
        async def scenario() -> None:
            hop = ProxyOptions(type=SOCKS4, host="127.0.0.1", port=1)
            with pytest.raises(ResolveError, match="cannot resolve mail.invalid"):
                await dial_through([hop], "mail.invalid", 25)
            hop = ProxyOptions(type=SOCKS5, host="proxy.invalid", port=1)
            with pytest.raises(ResolveError, match="name of the SOCKS5 proxy proxy.invalid:1") as caught:
                await dial_through([hop], "127.0.0.1", 25)
            assert 11001 <= caught.value.code <= 11004

        run(scenario())

    @pytest.mark.parametrize(
        "host",
        ["mail example", "a\r\nHost: b", "a/b", "u@b", "a:b", "a#b", "fe80::1%eth0", "0.0.0.0", "::", "a..b",
         "x" * 64 + ".example", ".".join(["x" * 60] * 5), "a?b", "a\0b", "a,b"],
    )  # fmt: skip
    def test_what_would_change_the_request_is_refused(self, run: Any, host: str) -> None:
        async def scenario() -> None:
            async with serving(sink) as server:
                for kind in (HTTP, SOCKS5):
                    hop = ProxyOptions(type=kind, host="127.0.0.1", port=server.port)
                    with pytest.raises(InvalidHost):
                        deadline = asyncio.get_running_loop().time() + 1
                        await dial_through([hop], host, 25, deadline=deadline)
                assert server.connections == 0

        run(scenario())

    def test_a_port_out_of_range(self, run: Any) -> None:
        async def scenario() -> None:
            with pytest.raises(InvalidPort):
                await dial_through([options(HTTP, 1)], "mail.example", 65536)

        run(scenario())

    def test_socks4_and_ipv6(self, run: Any) -> None:
        async def scenario() -> None:
            with pytest.raises(ProxyError, match="SOCKS4 knows IPv4 addresses only"):
                await dial_through([options(SOCKS4, 1)], "::1", 25)

        run(scenario())


class TestAddressesOnly:
    @pytest.mark.parametrize("kind", [HTTP, SOCKS4A, SOCKS5], ids=lambda kind: kind.name)
    def test_a_proxy_that_resolves_is_given_no_name(self, run: Any, kind: ProxyType) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(kind) as ([hop], [asked]):
                with pytest.raises(InvalidHost, match="would resolve localhost.*remote_dns=False"):
                    await dial_through([hop], "localhost", server.port, addresses_only=True)
                assert asked.targets == []
                await talk(await dial_through([hop], "127.0.0.1", server.port, addresses_only=True))

        run(scenario())

    def test_neither_is_one_before_another_proxy(self, run: Any) -> None:
        async def scenario() -> None:
            hops = [options(SOCKS5, 1), options(HTTP, 2, host="proxy.example", remote_dns=False)]
            with pytest.raises(InvalidHost, match="would resolve proxy.example"):
                await dial_through(hops, "127.0.0.1", 25, addresses_only=True)

        run(scenario())

    def test_a_name_that_is_resolved_here_is_looked_up_as_the_caller_says(self, run: Any) -> None:
        async def look_up(name: str, port: int, family: AddressFamily) -> list[str]:
            assert name == "mail.example"
            return ["127.0.0.1"]

        async def scenario() -> None:
            async with serving(echo) as server, proxies(SOCKS5, remote_dns=False) as ([hop], _):
                stream = await dial_through(
                    [hop], "mail.example", server.port, addresses_only=True, look_up=look_up
                )
                assert await talk(stream) == b"hello"
                # Without a proxy there is nothing to refuse.
                (await dial_through([], "localhost", server.port, addresses_only=True)).abort()

        run(scenario())


class TestExceptions:
    @pytest.mark.parametrize("exceptions", ["127.0.0.1", "127.0.0.0/8", "*"])
    def test_they_are_connected_to_directly(self, run: Any, exceptions: str) -> None:
        async def scenario() -> None:
            async with serving(echo) as server:
                hop = options(HTTP, 1, exceptions=exceptions)
                stream = await dial_through([hop], "127.0.0.1", server.port)
                assert stream.via == ""
                assert await talk(stream) == b"hello"

        run(scenario())

    def test_networks_count_for_names_that_are_resolved_here(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(echo) as server:
                hop = options(SOCKS5, 1, remote_dns=False, exceptions="127.0.0.0/8, ::1")
                assert await talk(await dial_through([hop], "localhost", server.port)) == b"hello"

        run(scenario())

    def test_of_a_chain_only_that_proxy_is_left_out(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(SOCKS5) as ([hop], [asked]):
                other = options(HTTP, 1, exceptions="127.0.0.1")
                assert await talk(await dial_through([hop, other], "127.0.0.1", server.port)) == b"hello"
                assert asked.targets == [("127.0.0.1", server.port)]

        run(scenario())


class TestTheProxyItself:
    def test_one_that_cannot_be_reached(self, run: Any) -> None:
        async def scenario() -> None:
            with pytest.raises(ProxyError, match="the SOCKS5 proxy 127.0.0.1:1 cannot be reached") as caught:
                await dial_through([options(SOCKS5, 1)], "mail.example", 25)
            assert caught.value.proxy == "SOCKS5 proxy 127.0.0.1:1"

        run(scenario())

    def test_ipv6_can_be_ruled_out(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(lab.http(Asked()), "::1") as proxy, serving(echo) as server:
                hop = options(HTTP, proxy.port, host="::1")
                assert await talk(await dial_through([hop], "127.0.0.1", server.port)) == b"hello"
                hop = options(HTTP, proxy.port, host="::1", use_ipv6=False)
                with pytest.raises(ResolveError):
                    await dial_through([hop], "127.0.0.1", server.port)

        run(scenario())

    def test_its_certificate_is_verified(self, run: Any) -> None:
        async def scenario() -> None:
            async with proxies(HTTPS, context=None) as ([hop], _):
                with pytest.raises(ProxyError, match=r"CERTIFICATE_VERIFY_FAILED \(.+\).*context=") as caught:
                    await dial_through([hop], "127.0.0.1", 25)
                assert caught.value.proxy == str(hop)

        run(scenario())

    def test_one_without_tls(self, run: Any) -> None:
        async def scenario() -> None:
            async with serving(lab.answers(b"HTTP/1.1 400 what?\r\n\r\n")) as server:
                with pytest.raises(ProxyError, match="does not speak TLS: type=ProxyType.HTTP_CONNECT"):
                    await dial_through([options(HTTPS, server.port)], "127.0.0.1", 25)

        run(scenario())

    def test_one_that_speaks_before_tls(self, run: Any) -> None:
        async def greets(reader: Any, writer: Any) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await sink(reader, writer)

        async def scenario() -> None:
            async with serving(greets) as server:
                hop = options(HTTPS, server.port)
                # Which one it is depends on whether the greeting has arrived when the handshake begins.
                with pytest.raises(ProxyError, match="no HTTPS proxy|does not speak TLS") as caught:
                    await dial_through([hop], "127.0.0.1", 25)
                assert caught.value.temporary

        run(scenario())

    @pytest.mark.parametrize("kind", [HTTP, SOCKS4, SOCKS5, HTTPS], ids=lambda kind: kind.name)
    def test_the_deadline_holds_and_names_it(self, run: Any, kind: ProxyType) -> None:
        async def scenario() -> None:
            async with serving(lab.silent) as server:
                hop = options(kind, server.port)
                deadline = asyncio.get_running_loop().time() + 0.05
                with pytest.raises(Timeout, match=f"took too long, at {hop}") as caught:
                    await dial_through([hop], "127.0.0.1", 25, deadline=deadline)
                assert caught.value.stage == "connect"
                await server.quiet()

        run(scenario())

    def test_a_login_that_never_ends(self, run: Any) -> None:
        async def scenario() -> None:
            asked = Asked()
            stale = b"HTTP/1.0 407 x\r\nProxy-Authenticate: Digest nonce=a, stale=true\r\n\r\n"

            async def proxy(reader: Any, writer: Any) -> None:
                asked.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(stale)
                await writer.drain()

            async with serving(proxy) as server:
                with pytest.raises(ProxyError, match="refused the user name|does not come to an end"):
                    await dial_through([options(HTTP, server.port)], "127.0.0.1", 25)
                assert len(asked.heads) == 3

        run(scenario())

    def test_a_connection_that_is_closed_after_the_407(self, run: Any) -> None:
        async def scenario() -> None:
            asked = Asked()
            async with (
                serving(echo) as server,
                serving(lab.http(asked, "ann:secret", version="1.0")) as proxy,
            ):
                stream = await dial_through([options(HTTP, proxy.port)], "127.0.0.1", server.port)
                assert await talk(stream) == b"hello"
                assert proxy.connections == len(asked.heads) == 2

        run(scenario())


class TestCancelling:
    @needs_proc
    @pytest.mark.parametrize("kind", [HTTP, SOCKS5], ids=lambda kind: kind.name)
    def test_300_cancelled_connections_leave_no_file_open(self, run: Any, kind: ProxyType) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(kind) as ([hop], _):
                await talk(await dial_through([hop], "127.0.0.1", server.port))
                await turns(20)
                before = len(os.listdir("/proc/self/fd"))
                for number in range(300):
                    task = asyncio.ensure_future(dial_through([hop], "127.0.0.1", server.port))
                    await turns(number % 20)
                    task.cancel()
                    await asyncio.wait({task})
                    if not task.cancelled():
                        task.result().abort()
                await server.quiet()
                await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

        run(scenario())

    @pytest.mark.parametrize("kinds", [(HTTP,), (HTTPS,), (SOCKS4,), (SOCKS5,), (HTTP, SOCKS5)])
    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelled_anywhere_no_socket_is_left(
        self, run: Any, kinds: tuple[ProxyType, ...], manner: Any, moment: Any
    ) -> None:
        async def scenario() -> None:
            async with serving(echo) as server, proxies(*kinds, remote_dns=False) as (hops, _):

                async def connect() -> Any:
                    return await dial_through(hops, "localhost", server.port)

                async for step in cancelled_everywhere(connect, manner, moment):
                    if step.result is not None:
                        assert not step.injected, "the cancellation was lost"
                        step.result.abort()
                    await server.quiet()
                assert step.at > 3

        run(scenario())
