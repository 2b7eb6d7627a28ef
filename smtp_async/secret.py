"""A text that never shows itself.

Credentials travel through the library as `Secret`, so that a log line, a traceback that prints local
variables or a pickled object in a cache cannot hold a password by accident. Only `reveal()` gives the text
away, and only `auth/` calls it, at the moment the bytes are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

__all__ = ["Secret"]


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
