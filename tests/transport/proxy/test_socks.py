"""socks.py: SOCKS by python-socks, and what becomes of proxies that break it."""

import asyncio
import traceback
from typing import Any

import pytest

from smtp_async import ProxyOptions, ProxyType
from smtp_async.errors import CommunicationError, ProxyError, Timeout
from smtp_async.transport.proxy.chain import dial_through
from tests.transport.lab import echo, serving, sink
from tests.transport.proxy import lab
from tests.transport.proxy.lab import Asked

SOCKS4, SOCKS5 = ProxyType.SOCKS4, ProxyType.SOCKS5
CHOSEN, GRANTED = b"\x05\x00", b"\x05\0\0\x01" + bytes(6)


def options(kind: ProxyType, port: int, **more: Any) -> ProxyOptions:
    return ProxyOptions(type=kind, host="127.0.0.1", port=port, **more)


async def refusal(kind: ProxyType, *replies: bytes, close: bool = True, **more: Any) -> CommunicationError:
    """Return the error that a proxy with these replies ends in."""
    async with serving(lab.answers(*replies, close=close)) as server:
        deadline = asyncio.get_running_loop().time() + (5 if close else 0.1)
        host = "mail.example" if kind is SOCKS5 else "192.0.2.1"
        with pytest.raises(CommunicationError) as caught:
            await dial_through([options(kind, server.port, **more)], host, 25, deadline=deadline)
        await server.quiet()
    return caught.value


class TestRefusals:
    @pytest.mark.parametrize(
        "code, said",
        [(1, "log says why"), (2, "rules do not allow"), (3, "network"), (4, "remote_dns=False"), (5, "server refuses"),
         (6, "no answer"), (7, "CONNECT"), (8, "remote_dns=True")],
    )  # fmt: skip
    def test_each_code_of_socks5(self, run: Any, code: int, said: str) -> None:
        async def scenario() -> None:
            error = await refusal(SOCKS5, CHOSEN, bytes([5, code, 0, 1]) + bytes(6))
            assert isinstance(error, ProxyError)
            assert f"it answered {code}: " in str(error) and said in str(error)
            assert error.status == code

        run(scenario())

    @pytest.mark.parametrize("code, said", [(91, "cannot reach"), (92, "identd"), (93, "user ID")])
    def test_each_code_of_socks4(self, run: Any, code: int, said: str) -> None:
        async def scenario() -> None:
            error = await refusal(SOCKS4, bytes([0, code]) + bytes(6))
            assert isinstance(error, ProxyError) and error.status == code
            assert said in str(error)

        run(scenario())

    def test_a_login_that_is_wanted(self, run: Any) -> None:
        async def scenario() -> None:
            assert "set username and password" in str(await refusal(SOCKS5, b"\x05\xff"))
            account: dict[str, Any] = {"username": "u", "password": "p"}
            assert "takes no user name" in str(await refusal(SOCKS5, b"\x05\xff", **account))
            error = await refusal(SOCKS5, b"\x05\x02", b"\x01\x01", **account)
            assert "check username and password" in str(error)
            assert isinstance(error, ProxyError) and error.login_refused and not error.temporary

        run(scenario())

    def test_a_proxy_of_another_kind(self, run: Any) -> None:
        async def scenario() -> None:
            said = str(await refusal(SOCKS5, b"HTTP/1.1 400 Bad Request\r\n\r\n"))
            assert "speaks HTTP: type=ProxyType.HTTP_CONNECT" in said
            assert "speaks TLS" in str(await refusal(SOCKS5, b"\x15\x03\x01\x00\x02\x02\x46"))

        run(scenario())


class TestHostile:
    @pytest.mark.parametrize(
        "replies",
        [(b"garbage",), (b"\x05\x01",), (b"\x04\x00",), (CHOSEN, b"garbage, a lot of it"), (CHOSEN, b"\x05\x63\0\x01"),
         (CHOSEN, b"\x05\0\x01\x01" + bytes(6)), (CHOSEN, b"\x05\0\0\x09" + bytes(6)),
         (CHOSEN, b"\x05\0\0\x03\x02\xff\xff\0\0"), (b"\x05\x02",)],
    )  # fmt: skip
    def test_what_is_not_socks5_is_a_proxy_error(self, run: Any, replies: tuple[bytes, ...]) -> None:
        async def scenario() -> None:
            assert isinstance(await refusal(SOCKS5, *replies), ProxyError)

        run(scenario())

    @pytest.mark.parametrize("replies", [(b"\0\x63" + bytes(6),), (b"\x05\x5a" + bytes(6),), (b"8 bytes!",)])
    def test_what_is_not_socks4_is_a_proxy_error(self, run: Any, replies: tuple[bytes, ...]) -> None:
        async def scenario() -> None:
            assert isinstance(await refusal(SOCKS4, *replies), ProxyError)

        run(scenario())

    @pytest.mark.parametrize(
        "whole",
        [GRANTED, b"\x05\0\0\x04" + bytes(18), b"\x05\0\0\x03\x04mail\0\x19"],
        ids=["IPv4", "IPv6", "name"],
    )
    def test_every_kind_of_address_cut_anywhere(self, run: Any, whole: bytes) -> None:
        async def scenario() -> None:
            for end in range(len(whole)):
                error = await refusal(SOCKS5, CHOSEN, whole[:end])
                assert isinstance(error, ProxyError)
                assert "closed the connection in the middle" in str(error)
            async with serving(lab.answers(CHOSEN, whole + b"220 hi", close=False)) as server:
                stream = await dial_through([options(SOCKS5, server.port)], "mail.example", 25)
                assert await stream.read() == b"220 hi"
                stream.abort()

        run(scenario())

    @pytest.mark.parametrize("replies", [(), (b"\x05",), (CHOSEN,), (CHOSEN, GRANTED[:5])])
    def test_silence_ends_at_the_deadline(self, run: Any, replies: tuple[bytes, ...]) -> None:
        async def scenario() -> None:
            assert isinstance(await refusal(SOCKS5, *replies, close=False), Timeout)

        run(scenario())


class TestSecrets:
    def test_no_traceback_holds_the_password(self, run: Any) -> None:
        async def scenario() -> None:
            account: dict[str, Any] = {"username": "u", "password": "canary-7781"}
            for replies in ([b"\x05\x02", b"\x01\x01"], [b"\x05\x02", b"?"], [b"\x05\x02"]):
                error = await refusal(SOCKS5, *replies, **account)
                seen: BaseException | None = error
                while seen is not None:
                    told = traceback.TracebackException.from_exception(seen, capture_locals=True)
                    # The test's own frames hold it.
                    told.stack[:] = [frame for frame in told.stack if "/tests/" not in frame.filename]
                    assert "canary" not in "".join(told.format(chain=False))
                    seen = seen.__cause__ or seen.__context__

        run(scenario())

    def test_no_traceback_of_a_time_limit_holds_the_password(self, run: Any) -> None:
        async def scenario() -> None:
            caught = await refusal(
                SOCKS5, b"\x05\x02", close=False, username="ann", password="canary of a proxy"
            )
            seen: BaseException | None = caught
            kinds = set()
            while seen is not None:
                kinds.add(type(seen))
                told = traceback.TracebackException.from_exception(seen, capture_locals=True)
                # The test's own frames hold it.
                told.stack[:] = [frame for frame in told.stack if "/tests/" not in frame.filename]
                assert "canary" not in "".join(told.format(chain=False))
                seen = seen.__cause__ or seen.__context__
            assert asyncio.CancelledError in kinds

        run(scenario())

    def test_without_an_account_none_is_offered(self, run: Any) -> None:
        async def scenario() -> None:
            asked = Asked()
            async with serving(echo) as server, serving(lab.socks5(asked)) as proxy:
                stream = await dial_through([options(SOCKS5, proxy.port)], "127.0.0.1", server.port)
                stream.abort()
            async with serving(sink) as server, serving(lab.socks5(asked, ("u", "p"))) as proxy:
                with pytest.raises(ProxyError):
                    await dial_through([options(SOCKS5, proxy.port)], "127.0.0.1", server.port)

        run(scenario())
