"""The hash of a body as DKIM canonicalizes it (RFC 6376 sections 3.4.3 and 3.4.4), while the octets pass by.

Strategy. White space at the end of what has come so far is held back, as two numbers and not as octets: what it becomes
depends on what follows. Everything before it is hashed at once. So a body of any size takes no memory, also where it
has nothing but line ends.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["BodyHash"]

#: Line ends that are hashed in one call.
_ENDS: Final = b"\r\n" * 4096


class Hash(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Take octets."""

    def digest(self) -> bytes:
        """Return the hash of all of them."""


class BodyHash:
    """Hashes a body; every line of it ends with CRLF.

    Args:
        hash: takes the canonical octets.
        relaxed: runs of blanks become one, and those at the end of a line vanish; else nothing changes but the end.
    """

    __slots__ = ("_blank", "_ends", "_hash", "_relaxed", "_text")

    def __init__(self, hash: Hash, *, relaxed: bool) -> None:
        self._hash = hash
        self._relaxed = relaxed
        # Octets of the line ends that are held back, CR and LF in turn; and whether a blank follows them.
        self._ends = 0
        self._blank = False
        self._text = False

    def feed(self, data: bytes) -> None:
        """Take the next octets; CR and LF of a line end may come one by one."""
        if self._relaxed:
            self._feed_relaxed(data)
        else:
            text = data.rstrip(b"\r\n")
            if text:
                self._update(text)
            self._ends += len(data) - len(text)

    def _feed_relaxed(self, data: bytes) -> None:
        if self._blank:
            data = b" " + data
        text = data.rstrip(b" \t\r\n")
        rest = data[len(text) :]
        if text:
            self._update(_relaxed(text))
        ends = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
        self._ends += rest.count(b"\r") + rest.count(b"\n")
        self._blank = len(rest) > ends

    def _update(self, text: bytes) -> None:
        hash, ends = self._hash, self._ends
        while ends > 0:
            hash.update(_ENDS[:ends])
            ends -= len(_ENDS)
        hash.update(text)
        self._ends = 0
        self._text = True

    def digest(self) -> bytes:
        """Take the end of the body, and return the hash: of the body without empty lines at its end."""
        # A body of nothing is one line end by "simple", and nothing by "relaxed".
        if self._text or not self._relaxed:
            self._hash.update(b"\r\n")
        return self._hash.digest()


def _relaxed(text: bytes) -> bytes:
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.replace(b" \r\n", b"\r\n")
