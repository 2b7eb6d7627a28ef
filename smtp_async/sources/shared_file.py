"""File objects of the caller, which several messages may share."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any, Final
from weakref import WeakValueDictionary

__all__ = ["Claim"]


class Claim:
    """The shared use of one file object by its readers.

    Every reader keeps its own position and seeks to it before each read. The last reader closes the file or restores
    its first position, so that the same message can be sent again.

    Every operation on the file that may block is done under the lock of its claim, for which only threads wait. The
    lock of the register is held only to look up a claim, never during file operations, because the event loop calls
    `leave`.

    Attributes:
        first: the position at the start; None if the file cannot seek.
        length: octets from `first` to the end, if the file can seek.
        users: number of readers.
        lock: held while the file is measured or restored, and from each seek until the end of its read.
    """

    # Weak, because a reader that was garbage-collected has left, too. Keyed by id, unique while the claim lives.
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
        # A file without these methods, or on which they fail, can be read once.
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
        """Return the claim of `file`, measured; the caller must call `leave`. May block, so call it in a thread."""
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
        """End the use of the file by one reader; never waits.

        Args:
            close: close the file when its last reader leaves.
        """
        with self._lock:
            self.users -= 1
            self._close |= close
            if self.users:
                return
            # The lock is free, because only readers hold it; a new reader waits in a thread until the file is restored.
            self.lock.acquire()
        try:
            # The transfer is over, so a failure no longer matters.
            with suppress(Exception):
                self._restore()
        finally:
            self._measured, self.first = False, None
            self.lock.release()
        with self._lock:
            if not self.users:
                self._all.pop(id(self.file), None)

    def _restore(self) -> None:
        if self._close:
            self._close = False
            self.file.close()
        elif self.first is not None:
            self.file.seek(self.first)
