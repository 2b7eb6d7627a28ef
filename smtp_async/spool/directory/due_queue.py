"""Which queued jobs are due, and in which order, without opening files and in bounded memory.

The time of a file tells when its job is due; it is a hint, the journal is the truth. What was read from the directories
is kept in a heap of bounded size; what does not fit is read again when its turn comes. A directory is read again when
its own time tells that a name in it has changed, which costs one system call for each directory and none for its
files; and once a minute whatever it tells.

A wall clock that was ahead and is set back leaves times that are too far away. So a job is looked at, whatever its time
tells, if its file was changed at a moment that has not come yet, and every job when this process sees the clock go
back; the journal tells then whether it is due.
"""

from __future__ import annotations

import heapq
import math
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Final

from ..entry import CLOCK_STEP, Unreadable
from .syscalls import Files

__all__ = ["HASHED", "HELD", "QUEUED", "Lineup", "directory_of"]

QUEUED: Final = ".queued"
#: The time of a file whose job is held: the year 2100.
HELD: Final = 4102444800.0
#: Names of the subdirectories that a large spool has.
HASHED: Final = re.compile(r"[0-9a-f]{2}")

#: Jobs that are kept in mind: about 15 MiB.
MOST: Final = 50_000
#: Seconds after which every directory is read again.
ALL_AGAIN: Final = 60.0
#: Seconds for which a change may hide behind another: the clock of a file system may be this coarse.
GRANULARITY: Final = 2.0
#: Reading the directories may take this part of the time while there is nothing to do, and while there is.
IDLE_SHARE: Final = 0.1
BUSY_SHARE: Final = 0.05
#: Shorter readings are not counted.
SHORT: Final = 0.02


def directory_of(path: str) -> str:
    """Return the subdirectory of a job's path, `""` for the root."""
    return path.rpartition("/")[0]


class Lineup:
    """The queued jobs of a spool directory, by the time when they are due. Used by several threads.

    Args:
        files: the system calls.
        poll: seconds between two looks for the jobs of other processes, while there is enough to do.
    """

    def __init__(self, files: Files, *, poll: float) -> None:
        self._files = files
        self._poll = poll
        self._lock = Lock()
        # What was pushed and is not in the heap yet; appended to without the lock.
        self._pushed: deque[tuple[float, str]] = deque()
        self._heap: list[tuple[float, str]] = []
        # The truth about the heap: entries in it that differ are out of date.
        self._when: dict[str, float] = {}
        # Directory → its time when it was read; None if it has to be read again.
        self._read: dict[str, int | None] = {"": None}
        # Something did not fit, and from when on nothing does.
        self._partial = False
        self._bound = math.inf
        self._last_read = self._all_read = self._took = 0.0
        # By how much the wall clock is ahead of the one that nobody sets, and whether that was more before.
        self._ahead = -math.inf
        self._set_back = False
        #: Jobs that this library cannot read, which are passed over until everything is read again.
        self.left: dict[str, Unreadable] = {}
        #: What is in the root beside directories, when it was read last.
        self.root_files = 0

    def push(self, when: float, path: str) -> None:
        """Note that a job is queued and when it is due. Waits for nobody: a thread may be reading the directories."""
        self._pushed.append((when, path))
        if self._lock.acquire(blocking=False):
            try:
                self._take_pushed()
            finally:
                self._lock.release()

    def leave(self, path: str, found: Unreadable) -> None:
        """Pass a job over, because it is of a later version. Waits for nobody, as `push`."""
        if len(self.left) < MOST:
            self.left[path] = found

    def drop(self, path: str) -> None:
        """Forget a job; its directory is read again in time."""
        with self._lock:
            self._take_pushed()
            self._when.pop(path, None)
            self._read[directory_of(path)] = None

    def take(self, now: float, most: int, *, look: bool = True) -> list[tuple[float, str]]:
        """Take the jobs that are due longest, up to `most` of them: since when, and their paths.

        Args:
            now: what time it is.
            most: how many.
            look: read the directories if it is time for that; without, nothing is taken then.
        """
        taken: list[tuple[float, str]] = []
        # A thread may be reading.
        if not self._lock.acquire(blocking=look):
            return taken
        try:
            if self._should_read(now):
                if not look:
                    return taken
                self._read_directories()
            while len(taken) < most and (due := self._top()) is not None and due[0] <= now:
                heapq.heappop(self._heap)
                del self._when[due[1]]
                taken.append(due)
        finally:
            self._lock.release()
        return taken

    def next_due(self, now: float) -> float | None:
        """Return when the next job is due, None if there is none."""
        with self._lock:
            if self._should_read(now):
                self._read_directories()
            due = self._top()
            return None if due is None else due[0]

    def known_due(self) -> float | None:
        """Return the same without a look at the directories."""
        with self._lock:
            due = self._top()
            return None if due is None else due[0]

    def directories(self) -> list[str]:
        """Return the names of all directories that hold jobs, `""` for the root."""
        with self._lock:
            self._read |= {name: None for name in self._subdirectories() if name not in self._read}
            return list(self._read)

    # --- with the lock ---------------------------------------------------------------------------------------

    def _push(self, when: float, path: str) -> None:
        if self._when.get(path) == when:
            return
        if when > self._bound:
            self._partial = True
            self._when.pop(path, None)
            self._read[directory_of(path)] = None
            return
        self._when[path] = when
        heapq.heappush(self._heap, (when, path))
        if len(self._heap) > 2 * MOST:
            self._trim()

    def _trim(self) -> None:
        """Keep those that are due first."""
        kept = heapq.nsmallest(MOST, ((when, path) for path, when in self._when.items()))
        if len(kept) < len(self._when):
            self._partial = True
            self._bound = kept[-1][0]
            kept_paths = {path for _, path in kept}
            for path in self._when:
                if path not in kept_paths:
                    self._read[directory_of(path)] = None
        self._heap = kept
        self._when = {path: when for when, path in kept}

    def _take_pushed(self) -> None:
        """Take over what was pushed: newer than anything that was read."""
        while self._pushed:
            self._push(*self._pushed.popleft())

    def _top(self) -> tuple[float, str] | None:
        self._take_pushed()
        heap = self._heap
        while heap and self._when.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _should_read(self, now: float) -> bool:
        self._watch_clock()
        since = time.monotonic() - self._last_read
        if not self._last_read or self._set_back:
            return True
        top = self._top()
        if top is not None and top[0] <= now:
            return since > max(self._poll, self._took / BUSY_SHARE)
        return self._partial or self._took < SHORT or since > self._took / IDLE_SHARE

    def _watch_clock(self) -> None:
        ahead = time.time() - time.monotonic()
        if ahead < self._ahead - CLOCK_STEP:
            self._set_back = True
        self._ahead = ahead

    def _read_directories(self) -> None:
        started = time.monotonic()
        everything = self._set_back or started - self._all_read > ALL_AGAIN
        if everything:
            self.left.clear()
        self._partial = False
        if len(self._when) < MOST:
            self._bound = math.inf
        for name in self._changed(everything=everything):
            self._read_directory(name)
        self._last_read = time.monotonic()
        self._took = self._last_read - started
        if everything:
            self._all_read = started
            self._set_back = False

    def _changed(self, *, everything: bool) -> Iterator[str]:
        """Go through the directories in which something may have changed; the root is the first, it has the others."""
        if everything:
            self._read = dict.fromkeys(self._read)
        done: set[str] = set()
        # Reading the root may find more of them.
        while missing := [name for name in self._read if name not in done]:
            for name in missing:
                done.add(name)
                status = self._files.look("L1", name or ".")
                if status is None:
                    del self._read[name]
                elif status.st_mtime_ns != self._read[name]:
                    quiet = time.time() - status.st_mtime > GRANULARITY
                    self._read[name] = status.st_mtime_ns if quiet else None
                    yield name

    def _read_directory(self, name: str) -> None:
        prefix = f"{name}/" if name else ""
        count = 0
        try:
            for entry in self._files.entries("L2", name):
                if entry.name.endswith(QUEUED):
                    path = prefix + entry.name[: -len(QUEUED)]
                    when = None if path in self.left else self._time_of(entry)
                    if when is not None:
                        self._push(when, path)
                elif not name and HASHED.fullmatch(entry.name):
                    self._read.setdefault(entry.name, None)
                count += 1
        except OSError:
            # A directory that cannot be read now is read again.
            self._read[name] = None
            if not name:
                raise
        if not name:
            self.root_files = count

    def _time_of(self, entry: os.DirEntry[str]) -> float | None:
        try:
            status = self._files.call("L3", entry.stat, follow_symlinks=False)
        except FileNotFoundError:
            return None
        now = time.time()
        if now < status.st_mtime < HELD and (self._set_back or status.st_ctime > now + CLOCK_STEP):
            # Also in the eyes of one who asks for what was due a moment ago.
            return now - CLOCK_STEP
        return status.st_mtime

    def _subdirectories(self) -> list[str]:
        return [entry.name for entry in self._files.entries("L2", "") if HASHED.fullmatch(entry.name)]
