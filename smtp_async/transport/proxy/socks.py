"""SOCKS4, SOCKS4a and SOCKS5, spoken by python-socks over a `Stream`.

python-socks reads each part of a reply by its exact length, so nothing of the server's is lost behind it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ...errors import ConnectionLost, ProxyError, SMTPError
from ..stream import Stream
from .options import ProxyOptions, ProxyType

__all__ = ["connect_socks"]

#: python-socks has a time limit of its own, which it cannot do without; the deadline of the connection is the real one.
_NO_LIMIT: Final = 1e6

_ADVICE: Final = {
    ProxyType.SOCKS5: {
        1: "the proxy's log says why",
        2: "the proxy's rules do not allow this host or port",
        3: "the proxy cannot reach the server's network",
        4: "the proxy cannot reach the server; if it cannot resolve the name, remote_dns=False resolves it here",
        5: "the server refuses the proxy's connection",
        6: "the proxy got no answer from the server",
        7: "the proxy does not take CONNECT",
        8: "the proxy does not take this kind of address; remote_dns=True gives it the name",
    },
    ProxyType.SOCKS4: {
        91: "the proxy cannot reach the server, or its rules do not allow it",
        92: "the proxy asks this machine's identd, which does not answer",
        93: "the proxy's identd check wants another user ID: username in ProxyOptions",
    },
}


async def connect_socks(stream: Stream, options: ProxyOptions, host: str, port: int) -> None:
    """Have the proxy behind `stream` connect to `host` and `port`.

    Args:
        stream: connected to the proxy.
        options: the proxy.
        host: a name in ASCII, which the proxy resolves, or an address.
        port: the port.

    Raises:
        ProxyError: the proxy refused, or does not speak SOCKS.
        ConnectionLost: the connection broke.
    """
    failed = await _converse(_Adapter(stream), options, host, port)
    if failed is not None:
        raise failed


class _Adapter:
    """A `Stream` as python-socks wants one.

    Attributes:
        received: what the proxy sent; it tells where the exchange ended.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.received = b""

    async def connect(self, **where: Any) -> _Adapter:
        """Return itself: it is connected to the proxy already."""
        return self

    async def write(self, data: bytes) -> None:
        self._stream.write(data)
        await self._stream.drain()

    async def read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = await self._stream.read(count - len(data))
            if not part:
                raise ConnectionLost("it closed the connection in the middle of its reply")
            data += part
            self.received += part
        return data

    # Their names in python-socks 2.
    write_all = write
    read_exact = read_exactly

    async def close(self) -> None:
        """Do nothing: the stream is closed by its owner."""


async def _converse(adapter: _Adapter, options: ProxyOptions, host: str, port: int) -> SMTPError | None:
    """Return the error instead of raising it, because the frames of python-socks hold the password.

    Raises:
        CancelledError: the caller was cancelled; without those frames, too.
    """
    import python_socks
    from python_socks.async_.asyncio.v2 import Proxy

    kind = (
        python_socks.ProxyType.SOCKS5 if options.type is ProxyType.SOCKS5 else python_socks.ProxyType.SOCKS4
    )
    through: Any = adapter
    proxy = Proxy(
        kind,
        options.host,
        options.port,
        username=options.username or None,
        password=options.password.reveal() or None,
        # A name comes here only if the proxy is to resolve it.
        rdns=True,
        forward=through,
    )
    try:
        await proxy.connect(host, port, timeout=_NO_LIMIT)
    except SMTPError as error:
        return error.with_traceback(None)
    except python_socks.ProxyError as error:
        return _refused(options, str(error), error.error_code, adapter.received)
    except Exception as error:
        # What a proxy sends can raise errors of many kinds there.
        return _refused(options, f"its reply cannot be read ({type(error).__name__})", None, adapter.received)
    except asyncio.CancelledError as error:
        # A time limit that passes cancels, and its error has this one as its cause.
        raise error.with_traceback(None) from None
    return None


def _refused(options: ProxyOptions, said: str, code: int | None, received: bytes) -> ProxyError:
    socks5 = options.type is ProxyType.SOCKS5
    login = socks5 and (received == b"\x05\xff" or (len(received) == 4 and received[:3] == b"\x05\x02\x01"))
    advice = _ADVICE[ProxyType.SOCKS5 if socks5 else ProxyType.SOCKS4].get(code or 0, "")
    if received.startswith(b"HT"):
        said, advice = "it does not speak SOCKS", "it speaks HTTP: type=ProxyType.HTTP_CONNECT"
    elif received[:1] in (b"\x15", b"\x16"):
        said, advice = "it does not speak SOCKS", "it speaks TLS from the first byte"
    elif login and len(received) == 4:
        advice = "check username and password in ProxyOptions"
    elif login and options.username:
        advice = "the proxy takes no user name and password"
    elif login:
        advice = "the proxy wants a login: set username and password in ProxyOptions"
    answered = f"it answered {code}: {said}" if code is not None else said
    return ProxyError(answered + (f": {advice}" if advice else ""), status=code, login_refused=login)
