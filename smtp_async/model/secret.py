"""A text that is never shown, and a mask for replies in which a server repeats it.

Credentials are passed through the library as `Secret`, so that a log line, a traceback that prints local
variables or a pickled object in a cache cannot contain a password by accident. Only `reveal()` returns the text,
and only `auth/` calls it, when it encodes the bytes to send.

A server may repeat a command in its reply: `500 Command unrecognized: "AUTH PLAIN AHVz…"`. `Mask` removes the secret
from the reply before any other code reads the text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

__all__ = ["MASKED", "Mask", "Secret"]

#: Replaces a secret.
MASKED: Final = b"***"
#: A run of this many characters of base64 that was sent is no coincidence: the probability is one in 36^6.
_RUN: Final = 6
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/=]{%d,}" % _RUN)


class Secret:
    """A text that `repr`, `str`, `format` and tracebacks do not show, and that cannot be pickled.

    Two secrets compare equal when their texts are equal.
    """

    __slots__ = ("_reveal",)

    def __init__(self, text: str | Secret) -> None:
        value = text.reveal() if isinstance(text, Secret) else text
        # A closure, not an attribute: tools that print an object's slots show a function.
        self._reveal: Callable[[], str] = lambda: value

    def reveal(self) -> str:
        """Return the text itself."""
        return self._reveal()

    def __bool__(self) -> bool:
        return bool(self._reveal())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._reveal() == other._reveal()

    def __hash__(self) -> int:
        return hash((Secret, self._reveal()))

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


class Mask:
    """Replace secrets that were sent, in a text.

    * Base64: every run of at least six characters that was sent, in either case, because a server may cut the text
      that it repeats, or break it into lines.
    * The secrets themselves: as a whole. A part of a secret may be an ordinary word, and hiding it would reveal that.

    A secret of fewer than six octets is replaced only where it is a whole word. The secrets that a mask knows are
    hidden as in `Secret`.
    """

    __slots__ = ("_runs", "_whole")

    def __init__(self) -> None:
        runs: frozenset[bytes] = frozenset()
        self._runs: Callable[[], frozenset[bytes]] = lambda: runs
        self._whole: Callable[[], re.Pattern[bytes] | None] = lambda: None

    def add_sent(self, encoded: bytes) -> None:
        """Hide `encoded`, base64 that was sent, and every part of it."""
        if len(encoded) < _RUN:
            self._add_whole([encoded])
            return
        text = encoded.lower()
        runs = self._runs() | {text[at : at + _RUN] for at in range(len(text) - _RUN + 1)}
        self._runs = lambda: runs

    def add_secrets(self, secrets: Iterable[bytes]) -> None:
        """Hide `secrets`, which were sent as part of a text, both plain and in base64."""
        for secret in secrets:
            self.add_sent(base64.b64encode(secret))
            # Each line of a secret, because a reply cannot contain its line endings.
            self._add_whole(secret.splitlines())

    def _add_whole(self, texts: Iterable[bytes]) -> None:
        before = self._whole()
        known = [] if before is None else [before.pattern]
        known += [_pattern(text) for text in texts if text]
        if known:
            pattern = re.compile(b"|".join(known))
            self._whole = lambda: pattern

    def __call__(self, text: bytes) -> bytes:
        """Return `text` with `***` in place of every secret."""
        pattern = self._whole()
        if pattern is not None:
            text = pattern.sub(MASKED, text)
        runs = self._runs()
        return _BASE64.sub(lambda found: _without(found[0], runs), text) if runs else text


def _pattern(secret: bytes) -> bytes:
    pattern = re.escape(secret)
    return pattern if len(secret) >= _RUN else rb"(?<!\w)%b(?!\w)" % pattern


def _without(text: bytes, runs: frozenset[bytes]) -> bytes:
    """Mask the runs in `text` that were sent."""
    lower = text.lower()
    pieces: list[bytes] = []
    end = 0
    for at in range(len(text) - _RUN + 1):
        if lower[at : at + _RUN] in runs:
            if at > end or not pieces:
                pieces += (text[end:at], MASKED)
            end = at + _RUN
    return b"".join((*pieces, text[end:])) if pieces else text
