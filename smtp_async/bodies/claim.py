"""File objects of the caller, which several messages may hold at once."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any, Final
from weakref import WeakValueDictionary

__all__ = ["Claim"]


class Claim:
    """One file object, for all who read it.

    Every reader has a place of its own in it, and goes there for each read. The last one closes it or puts it back
    where it stood, so that the same message can be sent again.

    Attributes:
        first: where it stood; None if it cannot go back.
        length: octets from there to its end, if it can.
        users: how many read it.
        lock: held from going to a place until it was read.
    """

    # Weak, since a reader that was forgotten has left, too. By number, which is the file's own while its claim lives.
    _all: Final[WeakValueDictionary[int, Claim]] = WeakValueDictionary()
    _lock: Final = threading.Lock()

    def __init__(self, file: Any) -> None:
        self.file = file
        self.users = 0
        self.lock = threading.Lock()
        self.first: int | None = None
        self.length = 0
        self._close = False
        # What has no such methods, or cannot use them, is read once.
        with suppress(AttributeError, OSError, ValueError):
            self._measure()

    def _measure(self) -> None:
        if self.file.seekable():
            place = self.file.tell()
            self.length = self.file.seek(0, os.SEEK_END) - place
            self.file.seek(place)
            self.first = place

    @classmethod
    def of(cls, file: Any) -> Claim:
        """Return the claim of `file`; who takes it has to leave it."""
        with cls._lock:
            claim = cls._all.get(id(file))
            if claim is None:
                claim = cls._all[id(file)] = cls(file)
            claim.users += 1
            return claim

    def leave(self, *, close: bool) -> None:
        """Somebody has done with it.

        Args:
            close: it is to be closed when nobody reads it any more.
        """
        with self._lock:
            self.users -= 1
            self._close |= close
            if self.users:
                return
            self._all.pop(id(self.file), None)
        # Failing is no news any more.
        with suppress(Exception):
            if self._close:
                self.file.close()
            elif self.first is not None:
                self.file.seek(self.first)
