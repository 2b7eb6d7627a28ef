"""Values that are valid for a time, in bounded room."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

__all__ = ["ExpiringCache"]

V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    """A value and when it is valid: not before it was stored either, because the clock may have been set back."""

    value: V
    since: datetime
    until: datetime


class ExpiringCache(Generic[V]):
    """Values with a time limit; the oldest make room.

    Args:
        room: how many there may be, or the sum of their sizes.
        size: the size of a value; every value counts as 1 without.
    """

    def __init__(self, room: int, size: Callable[[V], int] = lambda value: 1) -> None:
        self._entries: dict[Hashable, _Entry[V]] = {}
        self._room = room
        self._size = size
        self._used = 0

    def get(self, key: Hashable, now: datetime) -> V | None:
        """Return the value of `key` if it is valid at `now`."""
        entry = self._entries.get(key)
        return entry.value if entry is not None and entry.since <= now < entry.until else None

    def put(self, key: Hashable, value: V, now: datetime, until: datetime) -> None:
        """Keep a value from `now` until `until`."""
        self._drop(key)
        self._entries[key] = _Entry(value, now, until)
        self._used += self._size(value)
        while self._used > self._room:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Hashable) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._used -= self._size(entry.value)
