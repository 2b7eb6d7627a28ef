"""The queued jobs of a spool directory by due time, found without opening files and kept in bounded memory.

The mtime of a file is the time when its job is due. It is a hint, and the journal decides. Names that were read from
the directories are kept in a heap of bounded size; those that do not fit are read again later. A directory is read
again when its own mtime shows that a name in it has changed, which costs one system call for each directory and none
for its files. Once a minute every directory is read again.

A wall clock that was ahead and has been set back leaves mtimes that are too late. Therefore a job whose file was
changed (ctime) in the future is opened at once, and so is every job when this process sees the clock go back. The
journal then has the due time of the job.
"""

from __future__ import annotations

import heapq
import math
import os
import re
from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Final

from ..entry import CLOCK_STEP, Unreadable
from .syscalls import SystemCalls

__all__ = ["HELD_UNTIL", "QUEUED", "DueQueue", "directory_of"]

QUEUED: Final = ".queued"
#: The mtime of a file whose job is held: the year 2100.
HELD_UNTIL: Final = 4102444800.0
#: Names of the subdirectories of a large spool.
SUBDIRECTORY: Final = re.compile(r"[0-9a-f]{2}")

#: Seconds after which every directory is read again.
REREAD_INTERVAL: Final = 60.0
#: Granularity of mtimes in seconds: two changes within this time may leave the same mtime.
MTIME_GRANULARITY: Final = 2.0
#: Share of the time that reading directories may take, while no job is due and while jobs are due.
IDLE_SHARE: Final = 0.1
BUSY_SHARE: Final = 0.05
#: Shorter readings, in seconds, are not limited.
SHORT_READ: Final = 0.02


def directory_of(path: str) -> str:
    """Return the subdirectory of a job's path, `""` for the root."""
    return path.rpartition("/")[0]


class DueQueue:
    """The queued jobs of a spool directory, ordered by due time. Used by several threads.

    Args:
        syscalls: the system calls.
        poll: seconds between two searches for jobs of other processes, while jobs are due.
        most: number of jobs that are kept in memory.
    """

    def __init__(self, syscalls: SystemCalls, *, poll: float, most: int) -> None:
        self._syscalls = syscalls
        self._poll = poll
        self._most = most
        self._lock = Lock()
        # Jobs that were pushed and are not in the heap yet. Appended to without the lock.
        self._pushed: deque[tuple[float, str]] = deque()
        self._heap: list[tuple[float, str]] = []
        # Path → due time. An item of the heap that differs from this is out of date.
        self._when: dict[str, float] = {}
        # Directory → its mtime when it was read; None if it has to be read again.
        self._read: dict[str, int | None] = {"": None}
        # Whether jobs did not fit into memory, and the due time from which on no job fits.
        self._partial = False
        self._horizon = math.inf
        # When a directory, and when every directory, was last read, and how long the last reading took.
        self._last_read = self._all_read = self._read_duration = 0.0
        # Wall clock minus monotonic clock, and whether that difference has decreased.
        self._ahead = -math.inf
        self._set_back = False
        # Jobs of a later version of this library, which are skipped until every directory is read again.
        self._skipped: dict[str, Unreadable] = {}

    def push(self, when: float, path: str) -> None:
        """Add a job. Never blocks, even while another thread reads the directories."""
        self._pushed.append((when, path))
        if self._lock.acquire(blocking=False):
            try:
                self._move_pushed()
            finally:
                self._lock.release()

    def skip(self, path: str, found: Unreadable) -> None:
        """Skip a job of a later version of this library. Never blocks."""
        if len(self._skipped) < self._most:
            self._skipped[path] = found

    def unskip(self, path: str) -> None:
        """Stop skipping a job. Never blocks."""
        self._skipped.pop(path, None)

    def skipped(self) -> dict[str, Unreadable]:
        """Return the skipped jobs by path. Never blocks."""
        return self._skipped.copy()

    def take(self, now: float, most: int, *, read: bool = True) -> list[tuple[float, str]]:
        """Remove up to `most` due jobs, the longest overdue first, and return their due times and paths.

        Args:
            now: the current time.
            most: the maximum number of jobs.
            read: read the directories if they are due to be read. If False, no job is returned in that case, nor
                while another thread has the lock.
        """
        taken: list[tuple[float, str]] = []
        if not self._lock.acquire(blocking=read):
            return taken
        try:
            if self._should_read(now):
                if not read:
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
        """Return when the next job is due, None if no job is queued."""
        with self._lock:
            if self._should_read(now):
                self._read_directories()
            due = self._top()
            return None if due is None else due[0]

    def directories(self) -> list[str]:
        """Return the names of all directories with jobs, `""` for the root."""
        with self._lock:
            self._read |= {name: None for name in self._subdirectories() if name not in self._read}
            return list(self._read)

    # --- with the lock held ----------------------------------------------------------------------------------

    def _push(self, when: float, path: str) -> None:
        if self._when.get(path) == when:
            return
        if when > self._horizon:
            self._partial = True
            self._when.pop(path, None)
            self._read[directory_of(path)] = None
            return
        self._when[path] = when
        heapq.heappush(self._heap, (when, path))
        if len(self._heap) > 2 * self._most:
            self._trim()

    def _trim(self) -> None:
        """Keep the jobs that are due first, and mark the directories of the others to be read again."""
        kept = heapq.nsmallest(self._most, ((when, path) for path, when in self._when.items()))
        if len(kept) < len(self._when):
            self._partial = True
            self._horizon = kept[-1][0]
            kept_paths = {path for _, path in kept}
            for path in self._when:
                if path not in kept_paths:
                    self._read[directory_of(path)] = None
        self._heap = kept
        self._when = {path: when for when, path in kept}

    def _move_pushed(self) -> None:
        """Move pushed jobs to the heap. Their due times are newer than any that was read from a directory."""
        while self._pushed:
            self._push(*self._pushed.popleft())

    def _top(self) -> tuple[float, str] | None:
        self._move_pushed()
        heap = self._heap
        while heap and self._when.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _should_read(self, now: float) -> bool:
        self._watch_clock()
        since = self._syscalls.monotonic() - self._last_read
        if not self._last_read or self._set_back:
            return True
        top = self._top()
        if top is not None and top[0] <= now:
            return since > max(self._poll, self._read_duration / BUSY_SHARE)
        return self._partial or self._read_duration < SHORT_READ or since > self._read_duration / IDLE_SHARE

    def _watch_clock(self) -> None:
        ahead = self._syscalls.time() - self._syscalls.monotonic()
        if ahead < self._ahead - CLOCK_STEP:
            self._set_back = True
        self._ahead = ahead

    def _read_directories(self) -> None:
        started = self._syscalls.monotonic()
        everything = self._set_back or started - self._all_read > REREAD_INTERVAL
        if everything:
            self._skipped.clear()
        self._partial = False
        if len(self._when) < self._most:
            self._horizon = math.inf
        for name in self._changed(everything=everything):
            self._read_directory(name)
        self._last_read = self._syscalls.monotonic()
        self._read_duration = self._last_read - started
        if everything:
            self._all_read = started
            self._set_back = False

    def _changed(self, *, everything: bool) -> Iterator[str]:
        """Iterate over the directories that may have changed, the root first because it contains the others."""
        if everything:
            self._read = dict.fromkeys(self._read)
        done: set[str] = set()
        # Reading the root may find more directories.
        while missing := [name for name in self._read if name not in done]:
            for name in missing:
                done.add(name)
                status = self._syscalls.look("L1", name or ".")
                if status is None:
                    del self._read[name]
                elif status.st_mtime_ns != self._read[name]:
                    quiet = self._syscalls.time() - status.st_mtime > MTIME_GRANULARITY
                    self._read[name] = status.st_mtime_ns if quiet else None
                    yield name

    def _read_directory(self, name: str) -> None:
        prefix = f"{name}/" if name else ""
        try:
            for entry in self._syscalls.entries("L2", name):
                if entry.name.endswith(QUEUED):
                    path = prefix + entry.name[: -len(QUEUED)]
                    when = None if path in self._skipped else self._time_of(entry)
                    if when is not None:
                        self._push(when, path)
                elif not name and SUBDIRECTORY.fullmatch(entry.name):
                    self._read.setdefault(entry.name, None)
        except OSError:
            # Read the directory again next time.
            self._read[name] = None
            if not name:
                raise

    def _time_of(self, entry: os.DirEntry[str]) -> float | None:
        try:
            status = self._syscalls.call("L3", entry.stat, follow_symlinks=False)
        except FileNotFoundError:
            return None
        now = self._syscalls.time()
        if now < status.st_mtime < HELD_UNTIL and (self._set_back or status.st_ctime > now + CLOCK_STEP):
            # In the past by a margin, so that a caller whose `now` is slightly old gets the job, too.
            return now - CLOCK_STEP
        return status.st_mtime

    def _subdirectories(self) -> list[str]:
        return [
            entry.name for entry in self._syscalls.entries("L2", "") if SUBDIRECTORY.fullmatch(entry.name)
        ]
