"""http_connect.py: CONNECT, and what becomes of proxies that break HTTP."""

import asyncio
import re
import time
import traceback
from typing import Any

import pytest

from smtp_async import ProxyAuth, ProxyOptions, ProxyType
from smtp_async.errors import CommunicationError, ProxyError, Timeout
from smtp_async.transport.proxy.chain import dial_through
from smtp_async.transport.proxy.http_connect import authority
from tests.transport.lab import echo, serving
from tests.transport.proxy import lab
from tests.transport.proxy.lab import Asked

OK = b"HTTP/1.1 200 OK\r\n\r\n"
NO_LOGIN = b"HTTP/1.1 407 no\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"


def options(port: int, **more: Any) -> ProxyOptions:
    return ProxyOptions(type=ProxyType.HTTP_CONNECT, host="127.0.0.1", port=port, **more)


async def refusal(*replies: bytes, close: bool = True, limit: float = 5, **more: Any) -> CommunicationError:
    """Return the error that a proxy with these replies ends in."""
    async with serving(lab.answers(*replies, close=close)) as server:
        deadline = asyncio.get_running_loop().time() + limit
        with pytest.raises(CommunicationError) as caught:
            await dial_through([options(server.port, **more)], "mail.example", 25, deadline=deadline)
        await server.quiet()
    return caught.value


class TestRequest:
    def test_its_form(self, run: Any) -> None:
        async def scenario() -> None:
            asked = Asked()
            async with serving(echo) as server, serving(lab.http(asked)) as proxy:
                hop = options(proxy.port, headers={"X-Token": "a b"})
                (await dial_through([hop], "127.0.0.1", server.port)).abort()
            target = f"127.0.0.1:{server.port}"
            assert asked.heads == [
                f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: keep-alive\r\n"
                "X-Token: a b\r\n\r\n"
            ]

        run(scenario())

    def test_addresses_of_ipv6_stand_in_brackets(self) -> None:
        assert authority("2001:db8::1", 25) == "[2001:db8::1]:25"
        assert authority("mail.example", 25) == "mail.example:25"


class TestReplies:
    @pytest.mark.parametrize(
        "head",
        [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\n\n", b"HTTP/1.1 299\r\nContent-Length: 6\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
         b"HTTP/1.1 100 wait\r\n\r\nHTTP/1.1 103 hm\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"],
    )  # fmt: skip
    @pytest.mark.parametrize("whole", [True, False])
    def test_what_follows_a_2xx_is_the_servers(self, run: Any, head: bytes, whole: bool) -> None:
        async def proxy(reader: Any, writer: Any) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for part in [head + b"220 hi"] if whole else [bytes([octet]) for octet in head + b"220 hi"]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read()

        async def scenario() -> None:
            async with serving(proxy) as server:
                stream = await dial_through([options(server.port)], "mail.example", 25)
                data = b""
                while len(data) < 6:
                    data += await stream.read()
                assert data == b"220 hi"
                stream.abort()

        run(scenario())

    @pytest.mark.parametrize(
        "status, said",
        [(400, "does not take CONNECT"), (403, "have CONNECT to it allowed"), (405, "does not take CONNECT"),
         (502, "remote_dns=False"), (503, "cannot connect to the server"), (504, "no answer"), (302, "302 Moved")],
    )  # fmt: skip
    def test_a_refusal_says_what_to_do(self, run: Any, status: int, said: str) -> None:
        async def scenario() -> None:
            error = await refusal(b"HTTP/1.1 %d Moved\r\nContent-Length: 2\r\n\r\nhm" % status)
            assert isinstance(error, ProxyError)
            assert said in str(error)
            assert error.status == status and error.proxy_response is not None
            assert error.proxy_response.body == b"hm"

        run(scenario())

    @pytest.mark.parametrize(
        "body, kept",
        [(b"Transfer-Encoding: chunked\r\n\r\n2\r\nhm\r\n3;x=y\r\nmmm\r\n0\r\n\r\n", b"hmmmm"),
         (b"\r\nuntil the end", b"until the end"), (b"Content-Length: 99\r\n\r\nshort", b"short"),
         (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b""), (b"Transfer-Encoding: chunked\r\n\r\n2\r\nh", b"h")],
    )  # fmt: skip
    def test_the_body_of_a_refusal(self, run: Any, body: bytes, kept: bytes) -> None:
        async def scenario() -> None:
            error = await refusal(b"HTTP/1.1 403 no\r\n" + body)
            assert isinstance(error, ProxyError) and error.proxy_response is not None
            assert error.proxy_response.body == kept

        run(scenario())

    def test_control_characters_do_not_reach_the_terminal(self, run: Any) -> None:
        async def scenario() -> None:
            error = await refusal(b"HTTP/1.1 403 \x9b2J\xad\r\nContent-Length: 0\r\n\r\n")
            assert str(error).isprintable()

        run(scenario())


class TestLogin:
    def test_over_the_same_connection_where_it_stays(self, run: Any) -> None:
        async def scenario() -> None:
            asked = Asked()
            async with serving(echo) as server, serving(lab.http(asked, "ann:secret")) as proxy:
                hop = options(proxy.port, username="ann", password="secret")
                (await dial_through([hop], "127.0.0.1", server.port)).abort()
                assert (proxy.connections, len(asked.heads)) == (1, 2)

        run(scenario())

    def test_a_chunked_407_leaves_nothing_behind(self, run: Any) -> None:
        async def scenario() -> None:
            chunked = (
                b"HTTP/1.1 407 no\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"4\r\nbody\r\n0\r\n\r\n"
            )
            async with serving(lab.answers(chunked, OK + b"220 hi", close=False)) as server:
                hop = options(server.port, username="ann", password="secret")
                stream = await dial_through([hop], "mail.example", 25)
                assert await stream.read() == b"220 hi"
                stream.abort()

        run(scenario())

    def test_407_twice(self, run: Any) -> None:
        async def scenario() -> None:
            error = await refusal(NO_LOGIN, NO_LOGIN, username="ann", password="secret")
            assert "refused the user name and password" in str(error)
            assert isinstance(error, ProxyError) and error.status == 407
            assert error.login_refused and not error.temporary
            assert "set username and password" in str(await refusal(NO_LOGIN))

        run(scenario())

    def test_no_error_holds_the_password(self, run: Any) -> None:
        echoed = b"HTTP/1.1 403 secret-7781\r\nX: YW5uOnNlY3JldC03Nzgx\r\n\r\nyou sent secret-7781"

        async def scenario() -> None:
            account: dict[str, Any] = {"username": "ann", "password": "secret-7781", "auth": ProxyAuth.BASIC}
            for replies in ([echoed], [NO_LOGIN], [b"secret-7781\r\n"], [b"?"], []):
                error = await refusal(*replies, **account)
                seen: BaseException | None = error
                while seen is not None:
                    told = traceback.TracebackException.from_exception(seen, capture_locals=True)
                    told.stack[:] = [frame for frame in told.stack if "/tests/" not in frame.filename]
                    text = "".join(told.format(chain=False)) + repr(vars(seen))
                    assert "secret-7781" not in text and "YW5uOnNlY3JldC03Nzgx" not in text
                    seen = seen.__cause__ or seen.__context__

        run(scenario())

    def test_ntlm_needs_one_connection(self, run: Any) -> None:
        class Exchange:
            def initial_response(self) -> bytes:
                return b"one"

            def respond(self, challenge: bytes) -> bytes:
                return b"two " + challenge

        challenge = b"HTTP/1.1 407 no\r\nProxy-Authenticate: NTLM YWJj\r\nContent-Length: 0\r\n"

        async def scenario() -> None:
            for more, ends in ((b"\r\n", False), (b"Connection: close\r\n\r\n", True)):
                async with serving(lab.answers(challenge + more, OK, close=False)) as server:
                    hop = options(server.port, username="a", password="p", auth=ProxyAuth.NTLM)
                    through = dial_through([hop], "mail.example", 25, ntlm=lambda *_: Exchange())
                    if ends:
                        with pytest.raises(ProxyError, match="in the middle of NTLM"):
                            await through
                    else:
                        (await through).abort()

        run(scenario())


class TestHostile:
    @pytest.mark.parametrize(
        "reply, said",
        [(b"garbage\r\n\r\n", "does not speak HTTP/1"), (b"220 mail ESMTP\r\n", "does not speak HTTP/1"),
         (b"\x05\x00", "SOCKS5"), (b"\x15\x03\x01\x00\x02\x02\x46", "HTTPS_CONNECT"),
         (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed"), (b"HTTP/1.1 2", "closed the connection"),
         (b"HTTP/1.1 200 OK\r\nA: b\r\n", "closed the connection"), (b"", "closed the connection|connection broke"),
         (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 65_536 + b"\r\n\r\n", "longer than"),
         (b"HTTP/1.1 200 OK\r\n" + b"A: " + b"b" * 1000 + b"\r\n", "closed the connection"),
         (b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 66 + b"\r\n", "longer than"),
         (b"HTTP/1.1 100 wait\r\n\r\n" * 9, "interim")],
        ids=range(12),
    )  # fmt: skip
    def test_a_clear_error_at_once(self, run: Any, reply: bytes, said: str) -> None:
        async def scenario() -> None:
            begun = time.monotonic()
            error = await refusal(*([reply] if reply else []))
            assert isinstance(error, ProxyError)
            assert re.search(said, str(error)) and "the HTTP proxy 127.0.0.1" in str(error)
            assert time.monotonic() - begun < 4

        run(scenario())

    def test_a_large_body_is_cut(self, run: Any) -> None:
        async def scenario() -> None:
            error = await refusal(b"HTTP/1.1 403 no\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65_536)
            assert isinstance(error, ProxyError) and error.proxy_response is not None
            assert len(error.proxy_response.body) == 16_384

        run(scenario())

    def test_a_large_body_of_a_407_is_not_read_for_the_sake_of_the_connection(self, run: Any) -> None:
        large = (
            b"HTTP/1.1 407 no\r\nProxy-Authenticate: Basic\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65_536
        )

        async def proxy(reader: Any, writer: Any) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(OK if b"Basic" in head else large)
            await reader.read()

        async def scenario() -> None:
            async with serving(proxy) as server:
                hop = options(server.port, username="ann", password="secret")
                (await dial_through([hop], "mail.example", 25)).abort()
                assert server.connections == 2

        run(scenario())

    @pytest.mark.parametrize("reply", [b"", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"garbage"])
    def test_silence_ends_at_the_deadline(self, run: Any, reply: bytes) -> None:
        async def scenario() -> None:
            error = await refusal(*([reply] if reply else []), close=False, limit=0.1)
            assert isinstance(error, Timeout) and error.stage == "connect"

        run(scenario())

    def test_drops_do_not_move_the_deadline(self, run: Any) -> None:
        async def proxy(reader: Any, writer: Any) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not writer.is_closing():
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.01)

        async def scenario() -> None:
            async with serving(proxy) as server:
                loop = asyncio.get_running_loop()
                with pytest.raises(Timeout):
                    await dial_through([options(server.port)], "mail.example", 25, deadline=loop.time() + 0.1)

        run(scenario())
