"""From a name to a connection, on loopback."""

import asyncio
import errno
import os
import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import (
    FeatureUnavailable,
    InvalidArgument,
    InvalidHost,
    InvalidPort,
    MissingHost,
    ResolveError,
    SocketError,
    Timeout,
)
from smtp_async.transport import AddressFamily, SocketOptions, dial, dial_by, dial_unix
from smtp_async.transport.resolve import DNSOptions, DNSResolver, SystemResolver
from tests.servers.machine import needs_proc
from tests.transport.lab import MANNERS, black_hole, cancelled_everywhere, echo, serving, sink, turns


def address(host, port):
    """Return what getaddrinfo returns for an address."""
    if ":" in host:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))


def resolve_to(answer):
    """Let the running loop's resolver give this answer; return the list of the names asked for."""
    asked = []
    resolver = asyncio.get_running_loop().getaddrinfo

    async def getaddrinfo(host, port, **kwargs):
        if host[0].isdigit() or ":" in host:
            # uvloop itself asks once more, for the address that it connects to.
            return await resolver(host, port, **kwargs)
        asked.append(host)
        if isinstance(answer, Exception):
            raise answer
        return answer

    loop: Any = asyncio.get_running_loop()
    loop.getaddrinfo = getaddrinfo
    return asked


def free_port(host="127.0.0.1"):
    """Return a port that refuses connections."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


def option(stream, level, name):
    return stream._transport.get_extra_info("socket").getsockopt(level, name)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "[127.0.0.1]", "localhost"])
def test_connects(run, host):
    async def scenario():
        async with serving(echo) as server:
            stream = await dial(host, server.port, deadline=asyncio.get_running_loop().time() + 10)
            stream.write(b"x")
            assert await stream.read() == b"x"
            await stream.close()

    run(scenario())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(run, host):
    async def scenario():
        async with serving(echo, "::1") as server:
            stream = await dial(host, server.port)
            assert stream.peer == ("::1", server.port)
            await stream.close()
            with pytest.raises(ResolveError):
                await dial(host, server.port, options=SocketOptions(family=AddressFamily.IPV4))

    run(scenario())


def test_an_address_starts_no_thread_for_the_resolver(monkeypatch):
    async def scenario():
        async with serving(echo) as server:
            loop: Any = asyncio.get_running_loop()
            monkeypatch.setattr(loop, "run_in_executor", None)
            stream = await dial("127.0.0.1", server.port)
            monkeypatch.undo()
            await stream.close()

    # uvloop asks once more, for the address that it connects to.
    asyncio.run(scenario())


class TestNames:
    @pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", "[::]", "::ffff:0.0.0.0"])
    def test_the_all_zero_address_is_no_server(self, run, host):
        with pytest.raises(InvalidHost) as caught:
            run(dial(host, 25))
        assert caught.value.code == 102

    def test_a_name_for_the_all_zero_address_neither(self, run):
        async def scenario():
            async with serving(sink) as server:
                resolve_to([address("0.0.0.0", server.port), address("127.0.0.1", server.port)])
                stream = await dial("mail.example", server.port)
                assert stream.peer == ("127.0.0.1", server.port)
                stream.abort()

        run(scenario())

    @pytest.mark.parametrize(
        "host", ["[]", "a b", "a\r\nb", "a\0b", "\x7f", "a" * 64 + ".example", "ü" * 70, "-ü"]
    )
    def test_no_host_names(self, run, host):
        with pytest.raises(InvalidHost) as caught:
            run(dial(host, 25))
        pickle.loads(pickle.dumps(caught.value))

    def test_no_host(self, run):
        with pytest.raises(MissingHost):
            run(dial("", 25))

    @pytest.mark.parametrize("port", [-1, 0, 65536])
    def test_no_ports(self, run, port):
        with pytest.raises(InvalidPort):
            run(dial("127.0.0.1", port))
        with pytest.raises(InvalidPort):
            SocketOptions(local_port=port or 65536)

    def test_international_names_become_a_labels(self, run):
        async def scenario():
            asked = resolve_to(socket.gaierror(socket.EAI_NONAME, "unknown"))
            with pytest.raises(ResolveError):
                await dial("Bücher.example", 25)
            assert asked == ["xn--bcher-kva.example"]

        run(scenario())

    @pytest.mark.parametrize(
        ("name", "code", "temporary"),
        [
            ("EAI_NONAME", 11001, False),
            ("EAI_AGAIN", 11002, True),
            ("EAI_FAIL", 11003, False),
            ("EAI_NODATA", 11004, False),
            ("EAI_ADDRFAMILY", 11004, False),
            ("EAI_MEMORY", 11003, False),
        ],
    )
    def test_resolver_errors(self, run, name, code, temporary):
        number = getattr(socket, name, None)
        if number is None:
            pytest.skip(f"this system has no {name}")

        async def scenario():
            resolve_to(socket.gaierror(number, "what the system says"))
            with pytest.raises(ResolveError, match="cannot resolve mail.example") as caught:
                await dial("mail.example", 25)
            assert (caught.value.code, caught.value.errno) == (code, number)
            assert caught.value.temporary is temporary

        run(scenario())


class TestRace:
    def test_refused(self, run):
        port = free_port()
        with pytest.raises(SocketError, match=f"127.0.0.1:{port}") as caught:
            run(dial("127.0.0.1", port))
        assert caught.value.code == 10061
        assert caught.value.errno == errno.ECONNREFUSED
        assert isinstance(caught.value.__cause__, OSError)

    def test_all_refused(self, run):
        async def scenario():
            port = free_port()
            resolve_to([address(f"127.0.0.{n}", port) for n in (1, 2, 3)])
            with pytest.raises(SocketError, match=f"127.0.0.3:{port}") as caught:
                await dial("mail.example", port)
            assert [note.split(":")[0] for note in caught.value.__notes__] == [
                "also tried 127.0.0.1",
                "also tried 127.0.0.2",
            ]

        run(scenario())

    def test_different_failures_keep_their_number(self, run):
        async def scenario():
            port = free_port()
            unreachable = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("255.255.255.255", port))
            resolve_to([unreachable, address("127.0.0.1", port)])
            with pytest.raises(SocketError) as caught:
                await dial("mail.example", port)
            assert caught.value.code == 10061
            assert len(caught.value.__notes__) == 1

        run(scenario())

    def test_the_next_address_when_one_refuses(self, run):
        async def scenario():
            async with serving(sink) as server:
                resolve_to([address("127.0.0.2", server.port), address("127.0.0.1", server.port)])
                stream = await dial("mail.example", server.port)
                assert stream.peer == ("127.0.0.1", server.port)
                stream.abort()

        run(scenario())

    def test_the_next_address_when_one_is_silent(self, run):
        async def scenario():
            loop = asyncio.get_running_loop()
            async with serving(sink) as server:
                with black_hole(server.port):
                    resolve_to([address("127.0.0.2", server.port), address("127.0.0.1", server.port)])
                    started = loop.time()
                    stream = await dial("mail.example", server.port)
                    assert stream.peer == ("127.0.0.1", server.port)
                    assert 0.2 < loop.time() - started < 10
                    stream.abort()

        run(scenario())

    def test_order_of_the_resolver(self, run):
        async def scenario():
            async with serving(sink) as server:
                resolve_to([address("127.0.0.1", server.port), address("127.0.0.2", server.port)])
                stream = await dial("mail.example", server.port)
                assert stream.peer == ("127.0.0.1", server.port)
                stream.abort()

        run(scenario())

    def test_deadline(self, run):
        async def scenario():
            port = free_port("127.0.0.2")
            with black_hole(port):
                loop = asyncio.get_running_loop()
                with pytest.raises(Timeout) as caught:
                    await dial("127.0.0.2", port, deadline=loop.time() + 0.05)
                assert caught.value.stage == "connect"
                assert caught.value.code == 201

        run(scenario())

    @pytest.mark.parametrize("silent", [False, True])
    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelled_anywhere_no_socket_is_left(self, run, manner, moment, silent):
        async def scenario():
            async with serving(sink) as server:
                hosts = ["127.0.0.2", "127.0.0.1"] if silent else ["127.0.0.1"]

                async def connect():
                    return await dial("mail.example", server.port)

                with black_hole(server.port):
                    resolve_to([address(host, server.port) for host in hosts])
                    async for step in cancelled_everywhere(connect, manner, moment):
                        if step.result is not None:
                            assert not step.injected, "the cancellation was lost"
                            step.result.abort()
                        # Every connection that the server saw has been closed.
                        await server.quiet()
                    assert step.at > 1

        run(scenario())


class TestOptions:
    @pytest.mark.parametrize(
        ("family", "peer"), [(AddressFamily.IPV4, "127.0.0.1"), (AddressFamily.IPV6, "::1")]
    )
    def test_family(self, run, family, peer):
        async def scenario():
            async with serving(sink, peer) as server:
                stream = await dial(peer, server.port, options=SocketOptions(family=family))
                assert stream.peer == (peer, server.port)
                stream.abort()
                other = "::1" if family is AddressFamily.IPV4 else "127.0.0.1"
                with pytest.raises(ResolveError):
                    await dial(other, server.port, options=SocketOptions(family=family))

        run(scenario())

    def test_local_address(self, run):
        async def scenario():
            async with serving(sink) as server:
                options = SocketOptions(local_address="127.0.0.3")
                stream: Any = await dial("127.0.0.1", server.port, options=options)
                assert stream.local[0] == "127.0.0.3"
                stream.abort()

        run(scenario())

    def test_local_port_twice(self, run):
        async def scenario():
            async with serving(sink) as server:
                port = free_port()
                options = SocketOptions(local_port=port)
                for host in ("127.0.0.1", "localhost"):
                    stream: Any = await dial(host, server.port, options=options)
                    assert stream.local[1] == port
                    # Ours closes first, so the port is in TIME_WAIT.
                    await stream.close()
                    await server.quiet()

        run(scenario())

    def test_local_port_with_several_addresses(self, run):
        async def scenario():
            async with serving(sink) as server:
                port = free_port()
                resolve_to([address("127.0.0.2", server.port), address("127.0.0.1", server.port)])
                stream = await dial("x", server.port, options=SocketOptions(local_port=port))
                assert stream.local == ("127.0.0.1", port)
                stream.abort()

        run(scenario())

    @pytest.mark.parametrize("local", ["192.0.2.1", "::1"])
    def test_not_our_address(self, run, local):
        async def scenario():
            async with serving(sink) as server:
                with pytest.raises(SocketError) as caught:
                    await dial("127.0.0.1", server.port, options=SocketOptions(local_address=local))
                assert caught.value.code == 10049

        run(scenario())

    def test_port_in_use(self, run):
        async def scenario():
            async with serving(sink) as server:
                options = SocketOptions(local_address="127.0.0.1", local_port=server.port)
                with pytest.raises(SocketError) as caught:
                    await dial("127.0.0.1", server.port, options=options)
                assert caught.value.code == 10048

        run(scenario())

    @pytest.mark.parametrize("nodelay", [True, False])
    def test_nodelay(self, run, nodelay):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port, options=SocketOptions(nodelay=nodelay))
                assert bool(option(stream, socket.IPPROTO_TCP, socket.TCP_NODELAY)) is nodelay
                stream.abort()

        run(scenario())

    @pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the system has no such options")
    @pytest.mark.parametrize(
        ("setting", "value", "name", "seconds"),
        [
            ("keepalive_time", 30.5, "TCP_KEEPIDLE", 31),
            ("keepalive_interval", 0.1, "TCP_KEEPINTVL", 1),
            ("keepalive_count", 4, "TCP_KEEPCNT", 4),
        ],
    )
    def test_each_time_of_keepalive(self, run, setting, value, name, seconds):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port, options=SocketOptions(**{setting: value}))
                assert option(stream, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert option(stream, socket.IPPROTO_TCP, getattr(socket, name)) == seconds
                stream.abort()

        run(scenario())

    def test_keepalive(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                assert not option(stream, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                stream.abort()
                stream = await dial("127.0.0.1", server.port, options=SocketOptions(keepalive=True))
                assert option(stream, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                stream.abort()
                probing = SocketOptions(keepalive_time=30.5, keepalive_interval=0.1, keepalive_count=4)
                stream = await dial("127.0.0.1", server.port, options=probing)
                assert option(stream, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if hasattr(socket, "TCP_KEEPIDLE"):
                    assert option(stream, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 31
                    assert option(stream, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 1
                    assert option(stream, socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
                stream.abort()

        run(scenario())


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
class TestUnix:
    def test_connects(self, run, tmp_path):
        async def scenario():
            path = tmp_path / "lmtp"
            async with serving(echo, path=str(path)):
                stream = await dial_unix(path, deadline=asyncio.get_running_loop().time() + 10)
                assert stream.peer == str(path)
                assert stream.local is None
                stream.write(b"x")
                assert await stream.read() == b"x"
                await stream.close()

        run(scenario())

    def test_no_such_socket(self, run, tmp_path):
        with pytest.raises(SocketError, match="No such file") as caught:
            run(dial_unix(tmp_path / "none"))
        assert caught.value.errno == errno.ENOENT

    def test_deadline(self, run, tmp_path):
        async def scenario():
            loop: Any = asyncio.get_running_loop()

            async def forever(*args, **kwargs):
                await loop.create_future()

            loop.create_unix_connection = forever
            with pytest.raises(Timeout) as caught:
                await dial_unix(tmp_path / "lmtp", deadline=loop.time() + 0.01)
            assert caught.value.stage == "connect"

        run(scenario())

    def test_a_loop_without_unix_sockets(self, run, tmp_path):
        async def scenario():
            async def missing(*args, **kwargs):
                raise NotImplementedError

            loop: Any = asyncio.get_running_loop()
            loop.create_unix_connection = missing
            with pytest.raises(FeatureUnavailable):
                await dial_unix(tmp_path / "lmtp")

        run(scenario())

    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelled_anywhere_no_socket_is_left(self, run, tmp_path, manner, moment):
        async def scenario():
            path = tmp_path / "lmtp"
            async with serving(sink, path=str(path)) as server:
                async for step in cancelled_everywhere(lambda: dial_unix(path), manner, moment):
                    if step.result is not None:
                        step.result.abort()
                    await server.quiet()
                assert step.at > 1

        run(scenario())


class TestNamesOfTheUsersResolver:
    """Names that a DNS server of the tests resolves, and what may be connected to."""

    def test_a_name_of_the_zone(self, run, dns):
        async def scenario():
            async with serving(sink) as server:
                resolver = DNSResolver(DNSOptions(servers=(dns.server,)))
                stages: list[str] = []
                stream = await dial("alias.lab.test", server.port, resolver=resolver, passed=stages.append)
                assert stream.peer == ("127.0.0.1", server.port) and stages == ["DNS", "TCP"]
                stream.abort()
                resolver.close()

        run(scenario())

    @pytest.mark.parametrize("family", list(AddressFamily))
    def test_a_dead_and_a_live_address_of_each_family(self, run, dns, family):
        """At 127.0.0.2 the queue is full, 2001:db8::1 is nowhere; the server listens on 127.0.0.1 or ::1."""
        host = "::1" if family is AddressFamily.IPV6 else "127.0.0.1"
        if ":" in host and not has_ipv6():
            pytest.skip("no IPv6 on this machine")

        async def scenario():
            loop = asyncio.get_running_loop()
            async with serving(sink, host) as server:
                resolver = DNSResolver(DNSOptions(servers=(dns.server,)))
                with black_hole(server.port):
                    began = loop.time()
                    options = SocketOptions(family=family)
                    stream = await dial("mixed.lab.test", server.port, options=options, resolver=resolver)
                    assert stream.peer == (host, server.port)
                    assert loop.time() - began < 10
                    stream.abort()
                resolver.close()

        run(scenario())

    def test_an_aliased_name_for_the_all_zero_address(self, run, dns):
        async def scenario():
            resolver = DNSResolver(DNSOptions(servers=(dns.server,)))
            with pytest.raises(InvalidHost, match="all-zero"):
                await dial("zero.lab.test", 25, resolver=resolver)
            resolver.close()

        run(scenario())

    @needs_proc
    def test_300_cancelled_connects_leave_no_file_open(self, run, dns):
        def files():
            return len(os.listdir("/proc/self/fd"))

        async def scenario():
            async with serving(sink) as server:
                resolver = DNSResolver(DNSOptions(servers=(dns.server,)))

                async def connect(turns):
                    task = asyncio.ensure_future(dial("mixed.lab.test", server.port, resolver=resolver))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    (done,) = await asyncio.gather(task, return_exceptions=True)
                    if not isinstance(done, BaseException):
                        done.abort()
                    return isinstance(done, asyncio.CancelledError)

                with black_hole(server.port):
                    await connect(1)
                    before = files()
                    cancelled = 0
                    for number in range(300):
                        cancelled += await connect(number % 20)
                    assert cancelled > 150
                    await server.quiet()
                    await turns()
                    # Those of the resolver: c-ares keeps a socket or two for its servers.
                    assert files() <= before + 2
                resolver.close()

        run(scenario())


class TestHappyEyeballs:
    def test_behind_a_black_hole_within_350_ms(self, run):
        async def scenario():
            loop = asyncio.get_running_loop()
            async with serving(sink) as server:
                with black_hole(server.port):
                    resolve_to([address("127.0.0.2", server.port), address("127.0.0.1", server.port)])
                    times = []
                    for _ in range(5):
                        began = loop.time()
                        stream = await dial("mail.example", server.port)
                        times.append(loop.time() - began)
                        stream.abort()
                    assert 0.24 < min(times) < 0.35

        run(scenario())

    @pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
    @pytest.mark.parametrize(
        ("family", "peer"), [(AddressFamily.PREFER_IPV6, "::1"), (AddressFamily.PREFER_IPV4, "127.0.0.1")]
    )
    def test_a_preferred_family_is_first(self, run, family, peer):
        async def scenario():
            async with serving(sink, "127.0.0.1") as four:
                options = SocketOptions(family=family)
                resolve_to([address("127.0.0.1", four.port), address("::1", four.port)])
                with socket.socket(socket.AF_INET6) as six:
                    six.bind(("::1", four.port))
                    six.listen()
                    stream = await dial("mail.example", four.port, options=options)
                    assert stream.peer == (peer, four.port)
                    stream.abort()
                    await turns()
                # Where the preferred family does not work, the other one does.
                stream = await dial("mail.example", four.port, options=options)
                assert stream.peer == ("127.0.0.1", four.port)
                stream.abort()

        run(scenario())


class TestFilter:
    """Addresses that users who name the server must not reach (SSRF)."""

    @pytest.mark.parametrize(
        "inner",
        ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1"],
    )
    def test_inner_addresses_are_not_connected_to(self, run, inner):
        async def scenario():
            async with serving(sink) as server:
                resolve_to([address(inner, server.port)])
                for host in ("mail.example", inner):
                    with pytest.raises(InvalidHost) as caught:
                        await dial(host, server.port, address_filter=lambda ip: ip.is_global)
                    # An error text must not tell what the inner network is like.
                    assert host == inner or inner not in str(caught.value)
                assert server.connections == 0

        run(scenario())

    def test_a_name_with_an_outer_and_an_inner_address(self, run):
        async def scenario():
            seen = []

            def judge(ip):
                seen.append(str(ip))
                return str(ip) != "127.0.0.2"

            async with serving(sink) as server, serving(sink, "127.0.0.2") as inner:
                resolve_to([address("127.0.0.2", inner.port), address("127.0.0.1", server.port)])
                stream = await dial("mail.example", server.port, address_filter=judge)
                assert stream.peer == ("127.0.0.1", server.port) and inner.connections == 0
                assert seen == ["127.0.0.2", "127.0.0.1"]
                stream.abort()

        run(scenario())

    def test_a_name_that_changes_is_judged_each_time(self, run):
        """DNS rebinding: the address that is judged is the one that is connected to."""

        async def scenario():
            async with serving(sink) as server:
                answers = [["127.0.0.1"], ["127.0.0.3"]]

                class Changing(SystemResolver):
                    async def addresses(self, name, family):
                        return answers.pop(0)

                def judge(ip):
                    return str(ip) == "127.0.0.1"

                resolver = Changing()
                stream = await dial("mail.example", server.port, resolver=resolver, address_filter=judge)
                assert stream.peer == ("127.0.0.1", server.port)
                stream.abort()
                with pytest.raises(InvalidHost):
                    await dial("mail.example", server.port, resolver=resolver, address_filter=judge)

        run(scenario())


class TestDialer:
    """Sockets that the application has connected."""

    @staticmethod
    async def connected(host, port, *, blocking=False):
        sock = socket.create_connection((host, port))
        sock.setblocking(blocking)
        return sock

    def test_connects(self, run):
        async def scenario():
            asked = []

            async def dialer(host, port):
                asked.append((host, port))
                return await self.connected("127.0.0.1", server.port)

            async with serving(echo) as server:
                stream = await dial_by(dialer, "mail.example", 25)
                stream.write(b"x")
                assert await stream.read() == b"x" and asked == [("mail.example", 25)]
                assert stream.peer == ("127.0.0.1", server.port)
                assert option(stream, socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await stream.close()

        run(scenario())

    def test_a_blocking_socket_is_taken_too(self, run):
        async def scenario():
            async def dialer(host, port):
                return await self.connected("127.0.0.1", server.port, blocking=True)

            async with serving(echo) as server:
                stream = await dial_by(dialer, "mail.example", 25)
                transport: Any = stream._transport
                assert not os.get_blocking(transport.get_extra_info("socket").fileno())
                stream.write(b"x")
                assert await stream.read() == b"x"
                await stream.close()

        run(scenario())

    def test_a_pair_of_sockets(self, run):
        async def scenario():
            ours, theirs = socket.socketpair()

            async def dialer(host, port):
                return ours

            stream = await dial_by(dialer, "mail.example", 25, address_filter=lambda ip: False)
            stream.write(b"x")
            assert await asyncio.get_running_loop().run_in_executor(None, theirs.recv, 1) == b"x"
            stream.abort()
            theirs.close()

        run(scenario())

    def test_what_is_no_connected_stream_socket(self, run):
        def kinds():
            yield None
            yield object()
            yield socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            yield socket.socket()

        async def scenario():
            for thing in kinds():

                async def dialer(host, port, thing=thing):
                    return thing

                with pytest.raises(InvalidArgument, match="the dialer"):
                    await dial_by(dialer, "mail.example", 25)
                assert not isinstance(thing, socket.socket) or thing.fileno() == -1

        run(scenario())

    def test_the_filter_judges_what_it_is_connected_to(self, run):
        async def scenario():
            async with serving(sink) as server:

                async def dialer(host, port):
                    return await self.connected("127.0.0.1", server.port)

                with pytest.raises(InvalidHost, match="address_filter"):
                    await dial_by(dialer, "mail.example", 25, address_filter=lambda ip: ip.is_global)
                await server.quiet()

        run(scenario())

    def test_its_failures(self, run):
        async def scenario():
            async def refused(host, port):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

            async def mute(host, port):
                await asyncio.get_running_loop().create_future()

            async def wrong(host, port):
                raise KeyError("a fault of the application")

            with pytest.raises(SocketError, match="cannot connect to mail.example:25") as caught:
                await dial_by(refused, "mail.example", 25)
            assert caught.value.code == 10061
            with pytest.raises(Timeout) as late:
                await dial_by(mute, "mail.example", 25, deadline=asyncio.get_running_loop().time() + 0.01)
            assert late.value.stage == "connect"
            with pytest.raises(KeyError):
                await dial_by(wrong, "mail.example", 25)

        run(scenario())

    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelled_anywhere_no_socket_is_left(self, run, manner, moment):
        async def scenario():
            async with serving(sink) as server:

                async def dialer(host, port):
                    await asyncio.sleep(0)
                    return await self.connected("127.0.0.1", server.port)

                async def connect():
                    return await dial_by(dialer, "mail.example", 25)

                async for step in cancelled_everywhere(connect, manner, moment):
                    if step.result is not None:
                        assert not step.injected, "the cancellation was lost"
                        step.result.abort()
                    await server.quiet()
                assert step.at > 1

        run(scenario())


class TestSocketSettings:
    @pytest.mark.parametrize(
        ("name", "number"), [("receive_buffer", socket.SO_RCVBUF), ("send_buffer", socket.SO_SNDBUF)]
    )
    def test_buffers(self, run, name, number):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                usual = option(stream, socket.SOL_SOCKET, number)
                stream.abort()
                sizes: Any = {name: 20480}
                stream = await dial("127.0.0.1", server.port, options=SocketOptions(**sizes))
                # Linux doubles what it is asked for.
                size = option(stream, socket.SOL_SOCKET, number)
                assert size in (20480, 40960) and size != usual
                stream.abort()
                # What the system cannot provide is no error.
                options = SocketOptions(receive_buffer=2**31 - 1, send_buffer=1)
                (await dial("127.0.0.1", server.port, options=options)).abort()

        run(scenario())

    def test_without_linger_the_connection_is_reset(self, run):
        async def scenario(linger):
            ends: list[object] = []

            async def watch(reader, writer):
                try:
                    ends.append(await reader.read())
                except OSError as error:
                    ends.append(type(error))

            async with serving(watch) as server:
                stream = await dial("127.0.0.1", server.port, options=SocketOptions(linger=linger))
                await stream.close()
                await server.quiet()
            return ends

        assert run(scenario(True)) == [b""]
        assert run(scenario(False)) == [ConnectionResetError]

    @pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has the limit")
    @pytest.mark.parametrize("polite", [True, False])
    def test_pending_data_have_so_long_and_closing_does_not_wait(self, run, polite):
        """The peer never reads; without a limit the system would try for minutes."""

        def state(ours, theirs):
            """Both ends are compared: another connection of this machine may have the same port of ours."""
            ends = [f"0100007F:{port:04X}" for port in (ours, theirs)]
            rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return [row[3] for row in rows if row[1:3] == ends and row[3] != "06"]

        async def scenario():
            loop = asyncio.get_running_loop()
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                port = listener.getsockname()[1]
                stream: Any = await dial("127.0.0.1", port, options=SocketOptions(linger_time=0.2))
                stream.write(b"x" * 4_000_000)
                ours = stream.local[1]
                began = loop.time()
                if polite:
                    await stream.close(limit=0.05)
                stream.abort()
                assert loop.time() - began < 5
                assert state(ours, port)
                async with asyncio.timeout(10):
                    while state(ours, port):  # noqa: ASYNC110 - nothing tells of it
                        await asyncio.sleep(0.02)

        run(scenario())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_line_length", 255),
            ("linger_time", -1),
            ("linger_time", float("nan")),
            ("linger_time", float("inf")),
            ("receive_buffer", 0),
            ("send_buffer", 2**31),
        ],
    )
    def test_what_makes_no_sense(self, name, value):
        with pytest.raises(InvalidArgument, match=name):
            SocketOptions(**{name: value})
