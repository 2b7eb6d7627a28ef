"""CONNECT: has an HTTP proxy connect to a host and port (RFC 9110 section 9.3.6).

The reply is read up to the empty line behind its header and not an octet further, because what follows a 2xx is the
server's. Of a refusal, as much of the body is read as explains it.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from ...errors import ConnectionLost, ProxyError, SMTPError
from ...model.proxy_response import ProxyResponse
from ...model.reply import printable
from ...model.secret import Mask, Secret
from ..stream import Stream
from .http_reply import MAX_BODY, MAX_HEAD, body_framing, chunk_size, keeps_open, parse_head
from .options import ProxyOptions
from .proxy_login import ProxyLogin

__all__ = ["authority", "connect_http"]

_LOGIN_NEEDED: Final = 407
#: Seconds for the body of a refusal: its status says enough.
_BODY_TIME: Final = 2.0
#: Interim replies (1xx) that are skipped.
_MAX_INTERIM: Final = 8
_MAX_LINE: Final = 1024

_ADVICE: Final = {
    400: "the proxy does not take CONNECT, or not to this target",
    403: "the proxy's rules do not allow this host or port: have CONNECT to it allowed",
    405: "the proxy does not take CONNECT",
    500: "the proxy's log says why",
    501: "the proxy does not take CONNECT",
    502: "the proxy cannot connect to the server; if it cannot resolve the name, remote_dns=False resolves it here",
    503: "the proxy cannot connect to the server; if it cannot resolve the name, remote_dns=False resolves it here",
    504: "the proxy got no answer from the server",
}


class _Answer(NamedTuple):
    response: ProxyResponse
    reusable: bool


def authority(host: str, port: int) -> str:
    """Return host and port as CONNECT names them (RFC 9112 section 3.2.3)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect_http(
    stream: Stream, options: ProxyOptions, host: str, port: int, login: ProxyLogin
) -> ProxyResponse | None:
    """Have the proxy behind `stream` connect to `host` and `port`.

    Args:
        stream: connected to the proxy.
        options: the proxy.
        host: a name in ASCII, or an address.
        port: the port.
        login: what the requests carry; it is kept where another connection has to be made.

    Returns:
        The proxy's reply; None if the login goes on over another connection.

    Raises:
        ProxyError: the proxy refused, or does not speak HTTP.
        ConnectionLost: the connection broke.
    """
    target = authority(host, port)
    while True:
        await _request(stream, options, target, login.authorization())
        answer = await _reply_or_error(stream, login.mask)
        if isinstance(answer, ProxyError):
            raise answer
        raw, reusable = answer
        response = _masked(raw, login.mask)
        failed = _judged(raw, response, login, reusable=reusable)
        # Tracebacks may show local variables, and the proxy may have repeated the credentials.
        del raw, answer
        if failed is not None:
            raise failed
        if response.status < 300:
            return response
        if not reusable:
            return None


def _judged(
    raw: ProxyResponse, response: ProxyResponse, login: ProxyLogin, *, reusable: bool
) -> ProxyError | None:
    """Return the error that a reply is, None if the proxy accepted, or another request may help."""
    if raw.status < 300:
        return None
    if raw.status != _LOGIN_NEEDED:
        return _refused(response)
    try:
        login.challenged(raw)
    except ProxyError as error:
        message = error.message
    else:
        if reusable or not login.same_connection:
            return None
        message = "it closes the connection in the middle of NTLM"
    return ProxyError(message, proxy_response=response, login_refused=True)


async def _request(stream: Stream, options: ProxyOptions, target: str, authorization: Secret | None) -> None:
    failed = _write(stream, options, target, authorization)
    if failed is not None:
        raise failed
    await stream.drain()


def _write(
    stream: Stream, options: ProxyOptions, target: str, authorization: Secret | None
) -> SMTPError | None:
    """Write the request; return the error instead of raising it, because the frames hold the credentials."""
    own = {name.lower() for name, _ in options.headers}
    # Proxies of HTTP/1.0 keep the connection for NTLM only if they are asked to.
    fields = [("Host", target), ("Proxy-Connection", "keep-alive")]
    fields = [field for field in fields if field[0].lower() not in own] + list(options.headers)
    if authorization is not None:
        fields.append(("Proxy-Authorization", authorization.reveal()))
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    try:
        stream.write("\r\n".join(lines).encode("latin-1"))
    except SMTPError as error:
        return error.with_traceback(None)
    return None


# --- the reply -----------------------------------------------------------------------------------------------


async def _reply_or_error(stream: Stream, mask: Mask) -> _Answer | ProxyError:
    """Return the reply; what is none is an error, returned because the frames hold what the proxy may have repeated."""
    try:
        return await _reply(stream)
    except ProxyError as error:
        return ProxyError(mask(error.message.encode()).decode())


async def _reply(stream: Stream) -> _Answer:
    for _ in range(_MAX_INTERIM):
        head = await _head(stream)
        response = parse_head(head)
        if response.status >= 200:
            break
    else:
        raise ProxyError(f"it sent more than {_MAX_INTERIM} interim replies")
    if response.status < 300:
        return _Answer(response, reusable=True)
    body, complete = await _body(stream, response)
    return _Answer(response._replace(body=body), reusable=complete and keeps_open(head, response))


async def _head(stream: Stream) -> bytes:
    head = b""
    while not head.endswith((b"\n\r\n", b"\n\n")):
        line = await stream.read_until(b"\n", limit=MAX_HEAD + 1)
        if not head:
            _demand_http(line)
        head += line
        if len(head) > MAX_HEAD:
            raise ProxyError(f"the header of its reply is longer than {MAX_HEAD} octets")
        if not line.endswith(b"\n"):
            raise ConnectionLost("it closed the connection in the middle of its reply")
    return head


def _demand_http(line: bytes) -> None:
    """Name the setting for a proxy that speaks something else."""
    if line[:1] in (b"\x04", b"\x05", b"\x00"):
        raise ProxyError("it does not speak HTTP: type=ProxyType.SOCKS5, perhaps")
    if line[:2] in (b"\x15\x03", b"\x16\x03"):
        raise ProxyError("it speaks TLS from the first byte: type=ProxyType.HTTPS_CONNECT")
    if line.endswith(b"\n") and not line.startswith(b"HTTP/1."):
        raise ProxyError(f"it does not speak HTTP/1: its reply begins with {line[:40]!r}")


async def _body(stream: Stream, response: ProxyResponse) -> tuple[bytes, bool]:
    """Return what came of the body in time, and whether that was all of it."""
    body = bytearray()
    framing = body_framing(response)
    try:
        async with asyncio.timeout(_BODY_TIME):
            if framing == "chunked":
                complete = await _chunks(stream, body)
            else:
                wanted = framing if isinstance(framing, int) else MAX_BODY
                await _some(stream, body, wanted)
                complete = isinstance(framing, int) and len(body) == framing
    except (TimeoutError, ConnectionLost, ProxyError):
        complete = False
    return bytes(body[:MAX_BODY]), complete


async def _some(stream: Stream, body: bytearray, count: int) -> None:
    """Append `count` octets of the body, or those that come before its end or the limit."""
    end = min(len(body) + count, MAX_BODY)
    while len(body) < end:
        data = await stream.read(end - len(body))
        if not data:
            return
        body += data


async def _chunks(stream: Stream, body: bytearray) -> bool:
    while size := chunk_size(await stream.read_until(b"\n", limit=_MAX_LINE)):
        before = len(body)
        await _some(stream, body, size)
        if len(body) < before + size:
            return False
        await stream.read_until(b"\n", limit=_MAX_LINE)
    # Trailer fields are read for none of them: with any, the connection is not used again.
    return await stream.read_until(b"\n", limit=_MAX_LINE) in (b"\r\n", b"\n")


def _masked(response: ProxyResponse, mask: Mask) -> ProxyResponse:
    """Return the reply without the credentials, which a proxy may repeat."""

    def masked(text: str) -> str:
        return mask(text.encode("latin-1")).decode("latin-1")

    headers = tuple((name, masked(value)) for name, value in response.headers)
    return response._replace(reason=masked(response.reason), headers=headers, body=mask(response.body))


def _refused(response: ProxyResponse) -> ProxyError:
    said = printable(f"{response.status} {response.reason}".strip(), 200)
    advice = _ADVICE.get(response.status, "")
    return ProxyError(f"it answered {said}" + (f": {advice}" if advice else ""), proxy_response=response)
