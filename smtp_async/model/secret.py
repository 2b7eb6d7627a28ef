"""A text that never shows itself, and a mask for what a server repeats of it.

Credentials travel through the library as `Secret`, so that a log line, a traceback that prints local
variables or a pickled object in a cache cannot hold a password by accident. Only `reveal()` gives the text
away, and only `auth/` calls it, at the moment the bytes are made.

A server may repeat in a reply what it was sent: `500 Command unrecognized: "AUTH PLAIN AHVz…"`. `Mask` takes it out
of the reply again, before anything else sees the text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

__all__ = ["MASKED", "Mask", "Secret"]

#: Stands where a secret was.
MASKED: Final = b"***"
#: So many characters of base64 in a row that were sent are no accident: one in 36^6.
_RUN: Final = 6
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/=]{%d,}" % _RUN)


class Secret:
    """Hold a text that hides in `repr`, `str`, `format`, `pickle` and tracebacks.

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
    """Take out of a text what was sent as a secret.

    * Base64: every run of at least six characters that was sent, in either case. A server may cut off what it
      repeats, or break it into lines.
    * The secrets themselves: whole. A part of one may be an ordinary word, and to hide it would tell that.

    What has fewer than six octets counts only where it stands alone. What a mask knows is hidden as in `Secret`.
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
        """Hide `secrets`, which were part of something sent, as they are and in base64."""
        for secret in secrets:
            self.add_sent(base64.b64encode(secret))
            # Each line of a secret: no reply can hold its line ends.
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
