"""The memory of idempotency keys: which names are in use, also after their job is gone.

A job with a key has a name that another `put` may want at the same time. Therefore code that looks for such a name, or
changes it, holds the lock of the root directory (`KeyMemory.lock`).

When such a job is gone, its file is renamed to `keys/<id>` instead of being unlinked, and emptied once the rename is
durable. The mtime of that file is the time when the job ended. Recovery removes the file when the key is too old.
"""

from __future__ import annotations

import errno
import heapq
import logging
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

from ..entry import CLOCK_STEP
from .syscalls import FULL, SystemCalls, logged_errors

__all__ = ["KEYS", "KeyMemory"]

#: The subdirectory with the keys of jobs that are gone.
KEYS: Final = "keys"
#: Seconds after which the keys are counted again, even if few were added.
COUNT_INTERVAL: Final = 600.0
#: Seconds that the worker that ended a job has to empty its file, before recovery does so.
EMPTY_DELAY: Final = 60.0
#: Maximum number of keys that are changed while the lock is held.
KEYS_PER_LOCK: Final = 200

# errno values that mean that a directory has no room for one more name.
_NO_ROOM: Final = FULL | {errno.EMLINK}

_log = logging.getLogger("smtp_async")

#: When a job with a key ended, and the name of the file that remembers the key.
_Key: TypeAlias = tuple[float, str]


class KeyMemory:
    """The keys of jobs that are gone, in one spool directory. Used by several threads.

    Args:
        syscalls: the system calls.
        retention: returns the number of seconds for which a key is remembered.
        most: number of keys that are remembered.
    """

    def __init__(self, syscalls: SystemCalls, retention: Callable[[], float], most: int) -> None:
        self._syscalls = syscalls
        self._retention = retention
        self._most = most
        self._prepared = False
        # Keys added since the keys were counted, and when that was.
        self._added = 0
        self._counted_at = -math.inf

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other threads and processes from looking for, or changing, the name of a job with a key."""
        fd = self._syscalls.open_directory("K1", "")
        try:
            self._syscalls.wait_lock("K2", fd)
            yield
        finally:
            os.close(fd)

    def check(self) -> None:
        """E0: check the owner of the directory of keys, if it exists.

        Raises:
            SpoolUnsafe: another user owns it or may write to it.
        """
        with suppress(FileNotFoundError):
            self._syscalls.check_directory("E0", KEYS)

    def prepare(self) -> None:
        """E0: create the directory of keys, while `put` can still report that there is no room for it."""
        if not self._prepared:
            self._syscalls.make_directory("E0", KEYS)
            self._prepared = True

    def remembers(self, step: str, id: str) -> bool:
        """Return whether the key of a job that is gone is remembered."""
        status = self._syscalls.look(step, f"{KEYS}/{id}")
        return status is not None and self._syscalls.time() - status.st_mtime < self._retention()

    def remember(self, step: str, name: str, id: str, status: os.stat_result) -> None:
        """Rename the file of a job that is gone, so that its key is remembered. May be repeated.

        Without room for one more name, the file is unlinked and the key forgotten, because a delivered job that cannot
        end would be delivered again.

        Args:
            step: the step of the protocol.
            name: the name of the file.
            id: the id of the job.
            status: inode and device of the file.
        """
        with self.lock():
            try:
                self._rename(step, name, f"{KEYS}/{id}", status)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                with suppress(FileNotFoundError):
                    self._syscalls.unlink(step, name)
                _log.warning(
                    "the key of the job %s is forgotten, because there is no room for it: %s", id, error
                )
        self._added += 1

    def _rename(self, step: str, name: str, memory: str, status: os.stat_result) -> None:
        with suppress(FileNotFoundError):
            self._syscalls.due_at(step, name, self._syscalls.time())
        try:
            self._syscalls.rename(step, name, memory)
        except OSError as error:
            # The rename may have succeeded in spite of the error: on a network file system, or in an earlier try.
            if not self._syscalls.is_at(step, memory, status):
                if not isinstance(error, FileNotFoundError):
                    raise
                # An operator has removed the directory, or the file.
                self._syscalls.make_directory(step, KEYS)
                with suppress(FileNotFoundError):
                    self._syscalls.rename(step, name, memory)

    def forget_old(self) -> None:
        """Forget the keys that are too old or too many, if it is time to count them."""
        since = self._syscalls.monotonic() - self._counted_at
        if self._added > self._most // 10 or since > COUNT_INTERVAL:
            with logged_errors(KEYS):
                self._forget()

    def _forget(self) -> None:
        """Forget old keys, empty files that a dead worker left full, and correct times in the future.

        A time in the future was written by a clock that was ahead. The time is set to now, because the key would
        otherwise be remembered until then.
        """
        self._added, self._counted_at = 0, self._syscalls.monotonic()
        now = self._syscalls.time()
        found: list[_Key] = []
        full: set[_Key] = set()
        for name, status in self._entries():
            key = (status.st_mtime, name)
            found.append(key)
            if status.st_size and now - status.st_mtime > EMPTY_DELAY:
                full.add(key)
        forgotten = self._too_old_or_too_many(found, now)
        self._for_each(forgotten, lambda key: self._syscalls.unlink("F3", key[1]))
        ahead = [key for key in found if key[0] > now + CLOCK_STEP]
        self._for_each(ahead, lambda key: self._syscalls.due_at("F5", key[1], now))
        self._for_each(sorted(full.difference(forgotten)), self._empty)

    def _too_old_or_too_many(self, found: list[_Key], now: float) -> list[_Key]:
        oldest = now - self._retention()
        forgotten = [key for key in found if key[0] <= oldest]
        too_many = len(found) - len(forgotten) - self._most
        if too_many <= 0:
            return forgotten
        _log.warning("%d keys are forgotten early: the spool remembers %d", too_many, self._most)
        return heapq.nsmallest(len(forgotten) + too_many, found)

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Iterate over the files that remember keys: their names and status."""
        for entry in self._syscalls.entries("F1", KEYS):
            name = f"{KEYS}/{entry.name}"
            with logged_errors(name):
                status = self._syscalls.call("F1", entry.stat, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield name, status

    def _for_each(self, keys: list[_Key], change: Callable[[_Key], None]) -> None:
        """Call `change` for each key whose file has not changed meanwhile, under the lock."""
        for start in range(0, len(keys), KEYS_PER_LOCK):
            with self.lock():
                for key in keys[start : start + KEYS_PER_LOCK]:
                    with logged_errors(key[1]):
                        status = self._syscalls.look("F2", key[1])
                        if status is not None and status.st_mtime == key[0]:
                            change(key)

    def _empty(self, key: _Key) -> None:
        when, name = key
        fd = self._syscalls.open("F4", name, write=True)
        try:
            self._syscalls.empty("F4", fd)
        finally:
            os.close(fd)
        # Truncating has changed the mtime, which is the time when the job ended.
        self._syscalls.due_at("F4", name, when)
