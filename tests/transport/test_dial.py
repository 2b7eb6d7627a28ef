"""From a name to a connection, on loopback."""

import asyncio
import errno
import pickle
import socket
import sys
from typing import Any

import pytest

from smtp_async.errors import (
    FeatureUnavailable,
    InvalidHost,
    InvalidPort,
    MissingHost,
    ResolveError,
    SocketError,
    Timeout,
)
from smtp_async.transport import AddressFamily, SocketOptions, dial, dial_unix
from tests.transport.lab import MANNERS, black_hole, cancelled_everywhere, echo, serving, sink


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
        if host[0].isdigit():
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
                    assert 0.2 < loop.time() - started < 2
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
