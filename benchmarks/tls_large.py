"""The large message of `tls.py`. Standard library only: the rivals' environment reads this file too."""

from __future__ import annotations

SIZE = 100 * 2**20


def large() -> bytes:
    """Return a message of 100 MiB."""
    line = b"The quick brown fox jumps over the lazy dog and comes back, again and again and again.\r\n"
    return b"Subject: large\r\n\r\n" + line * (SIZE // len(line))
