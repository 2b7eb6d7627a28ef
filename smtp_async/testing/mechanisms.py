"""The server's side of SASL, without I/O.

A mechanism is a generator function: it gets the users and the initial response (or None), yields challenges, receives
responses, and returns the name of the user, or None to refuse.

    def anonymous(users, initial):
        response = initial if initial is not None else (yield b"")
        return response.decode() or "anonymous"

    ScriptedServer(mechanisms={"ANONYMOUS": anonymous})
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Mapping

Exchange = Generator[bytes, bytes, str | None]
Mechanism = Callable[[Mapping[str, str], bytes | None], Exchange]

CRAM_CHALLENGE = b"<1896.697170952@test.invalid>"


def _proven(users: Mapping[str, str], user: bytes, password: bytes) -> str | None:
    name = user.decode("utf-8", "replace")
    known = users.get(name)
    return name if known is not None and known.encode() == password else None


def plain(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    """PLAIN (RFC 4616)."""
    message = initial if initial is not None else (yield b"")
    parts = message.split(b"\0")
    return _proven(users, parts[1], parts[2]) if len(parts) == 3 else None


def login(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    """LOGIN, as in draft-murchison-sasl-login."""
    user = initial if initial is not None else (yield b"Username:")
    return _proven(users, user, (yield b"Password:"))


def cram_md5(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    """CRAM-MD5 (RFC 2195); it has no initial response."""
    if initial is not None:
        return None
    user, _, digest = (yield CRAM_CHALLENGE).rpartition(b" ")
    name = user.decode("utf-8", "replace")
    expected = hmac.new(users.get(name, "").encode(), CRAM_CHALLENGE, "md5").hexdigest()
    return name if name in users and expected.encode() == digest else None


STANDARD: Mapping[str, Mechanism] = {"PLAIN": plain, "LOGIN": login, "CRAM-MD5": cram_md5}
