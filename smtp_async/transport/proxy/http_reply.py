"""Parses what an HTTP proxy answers to CONNECT. Sans-I/O, linear and bounded.

Nothing of it reaches the SMTP parser: a 2xx ends with the empty line behind its header, whatever its header says about
a body (RFC 9110 section 9.3.6), and what follows is the server's.
"""

from __future__ import annotations

import re
from typing import Final

from ...errors import ProxyError
from ...model.proxy_response import ProxyResponse

__all__ = ["MAX_BODY", "MAX_HEAD", "Framing", "body_framing", "chunk_size", "keeps_open", "parse_head"]

#: Octets of status line and header; proxies send a few hundred.
MAX_HEAD: Final = 32 * 1024
#: Octets of a refusal's body that are kept.
MAX_BODY: Final = 16 * 1024
_MAX_FIELDS: Final = 200

_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")

#: The octets of a body: how many, None if it ends with the connection, or "chunked".
Framing = int | str | None


def parse_head(head: bytes) -> ProxyResponse:
    """Return status line and header.

    Args:
        head: from the status line to the empty line, both included. A bare LF ends a line, too (RFC 9112 section 2.2).

    Raises:
        ProxyError: this is no reply of HTTP/1.
    """
    first, *lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    status = _STATUS.fullmatch(first)
    if status is None:
        raise ProxyError(f"the proxy does not speak HTTP/1: its reply begins with {first[:40]!r}")
    fields = [line for line in lines if line]
    if len(fields) > _MAX_FIELDS:
        raise ProxyError(f"the proxy's reply has more than {_MAX_FIELDS} header fields")
    headers = []
    for line in fields:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ProxyError(f"the proxy's reply has a malformed header field: {line[:40]!r}")
        headers.append((field[1].decode("ascii"), field[2].rstrip(b" \t").decode("latin-1")))
    reason = (status[3] or b"").decode("latin-1").strip()
    return ProxyResponse(int(status[2]), reason, tuple(headers))


def body_framing(response: ProxyResponse) -> Framing:
    """Return how long the body is (RFC 9112 section 6.3); a length that cannot be read counts as unknown."""
    if response.status < 300:
        return 0
    if response.header("Transfer-Encoding") is not None:
        coding = (response.header("Transfer-Encoding") or "").lower()
        return "chunked" if coding == "chunked" else None
    lengths = set(response.values("Content-Length"))
    length = lengths.pop() if len(lengths) == 1 else ""
    return int(length) if length.isascii() and length.isdigit() and len(length) < 10 else None


def keeps_open(head: bytes, response: ProxyResponse) -> bool:
    """Return whether the proxy keeps the connection open for another request (RFC 9112 section 9.3)."""
    said = f"{response.header('Connection') or ''},{response.header('Proxy-Connection') or ''}".lower()
    options = {option.strip() for option in said.split(",")}
    if "close" in options:
        return False
    return head.startswith(b"HTTP/1.1") or "keep-alive" in options


def chunk_size(line: bytes) -> int:
    """Return the size in the first line of a chunk (RFC 9112 section 7.1).

    Raises:
        ProxyError: this is no such line.
    """
    found = _CHUNK.fullmatch(line)
    if found is None:
        raise ProxyError(f"the proxy's reply has a malformed chunk: {line[:40]!r}")
    return int(found[1], 16)
