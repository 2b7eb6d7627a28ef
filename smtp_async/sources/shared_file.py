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

    Everything that may take its time with the file happens under the lock of its own claim, which only threads wait
    for. The lock of all claims is held for looking one up, never while a file is touched, because `leave` is called
    by the event loop.

    Attributes:
        first: where it stood; None if it cannot go back.
        length: octets from there to its end, if it can.
        users: how many read it.
        lock: held while the file is measured or put back, and from going to a place until it was read.
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
        self._measured = False

    def _measure(self) -> None:
        self._measured = True
        # What has no such methods, or cannot use them, is read once.
        with suppress(AttributeError, OSError, ValueError):
            self._find_ends()

    def _find_ends(self) -> None:
        if self.file.seekable():
            place = self.file.tell()
            self.length = self.file.seek(0, os.SEEK_END) - place
            self.file.seek(place)
            self.first = place

    @classmethod
    def of(cls, file: Any) -> Claim:
        """Return the claim of `file`, measured; who takes it has to leave it. Not for the event loop: it may wait."""
        with cls._lock:
            claim = cls._all.get(id(file))
            if claim is None:
                claim = cls._all[id(file)] = cls(file)
            claim.users += 1
        try:
            with claim.lock:
                if not claim._measured:
                    claim._measure()
        except BaseException:
            claim.leave(close=False)
            raise
        return claim

    def leave(self, *, close: bool) -> None:
        """Somebody has done with it. Waits for nobody.

        Args:
            close: it is to be closed when nobody reads it any more.
        """
        with self._lock:
            self.users -= 1
            self._close |= close
            if self.users:
                return
            # Free, since only users hold it; one who comes now waits in a thread until the file was put back.
            self.lock.acquire()
        try:
            # Failing is no news any more.
            with suppress(Exception):
                self._put_back()
        finally:
            self._measured, self.first = False, None
            self.lock.release()
        with self._lock:
            if not self.users:
                self._all.pop(id(self.file), None)

    def _put_back(self) -> None:
        if self._close:
            self._close = False
            self.file.close()
        elif self.first is not None:
            self.file.seek(self.first)
