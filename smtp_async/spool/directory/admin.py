"""Operator commands for a spool directory: list, read, hold, release, requeue, remove. Steps L and O."""

from __future__ import annotations

import math
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from ...errors import Busy, NoSuchJob, RecordInvalid, RecordNewer, UsageError
from ..entry import Entry, LeaseHolder, SpoolStatistics, State, requeued
from ..record import JOB_ID, Job, journal_record
from .due_queue import HELD_UNTIL, directory_of
from .job_files import (
    MARKED,
    QUARANTINE,
    REFUSED_TO_OPEN,
    FoundJob,
    JobFiles,
    LockedJob,
    directories_changed_by_delete,
    file_name,
)

__all__ = ["Admin"]

#: The states by the suffixes of names.
_STATES: Final = {**{f".{state.value}": state for state in State}, f".{MARKED}": State.SENDING}
#: The time of the put, in the id of a job without a key.
_TIME: Final = re.compile(r"([0-9]{19})-")
#: Number of lookups, because the name of a job may change between lookup and opening.
_TRIES: Final = 5

_T = TypeVar("_T")


class Admin:
    """Operator commands for the jobs of a spool directory. Used by several threads.

    Args:
        job_files: the files of the directory.
    """

    def __init__(self, job_files: JobFiles) -> None:
        self._job_files = job_files
        self._syscalls = job_files.syscalls

    # --- reading ---------------------------------------------------------------------------------------------

    def entry(self, id: str) -> Entry:
        """Return the entry of a job."""
        return self._with_found(id, lambda found: self._read(found)[0].entry)

    def message(self, id: str) -> bytes:
        """Return the message of a job."""
        return self._with_found(id, lambda found: self._read(found, message=True)[1])

    def names(self, directory: str, state: State | None) -> list[str]:
        """Return the names of the files of jobs in a directory, of one state or of all."""
        suffixes = tuple([suffix for suffix, one in _STATES.items() if state is None or one is state])
        prefix = f"{directory}/" if directory else ""
        entries = self._syscalls.entries("L5", directory)
        return [prefix + entry.name for entry in entries if entry.name.endswith(suffixes)]

    def entries(self, names: Iterable[str]) -> list[Entry]:
        """Read the entries of jobs; omit files that are gone, invalid, or not readable for this user."""
        found = []
        for name in names:
            path, _, suffix = name.rpartition(".")
            job = FoundJob(path, _STATES[f".{suffix}"], suffix == MARKED)
            try:
                found.append(self._read(job)[0].entry)
            except RecordNewer as error:
                self._job_files.skip_newer(path, job.state, error)
            except (FileNotFoundError, RecordInvalid):
                continue
            except OSError as error:
                if error.errno not in REFUSED_TO_OPEN:
                    raise
        return found

    def statistics(self) -> SpoolStatistics:
        """Count the jobs without opening a file."""
        counts = dict.fromkeys(State, 0)
        held = 0
        oldest = due = math.inf
        for directory in self._job_files.due_queue.directories():
            for entry in self._syscalls.entries("L5", directory):
                stem, _, suffix = entry.name.rpartition(".")
                state = _STATES.get(f".{suffix}")
                if state is None or not stem:
                    continue
                counts[state] += 1
                if state is State.SENT or state is State.FAILED:
                    continue
                try:
                    status = self._syscalls.call("L6", entry.stat, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if state is State.QUEUED and status.st_mtime >= HELD_UNTIL:
                    held += 1
                elif state is State.QUEUED:
                    due = min(due, status.st_mtime)
                match = _TIME.match(stem)
                # The id of a job with a key contains no time; take the last change of its file.
                oldest = min(oldest, int(match[1]) / 1e9 if match else min(status.st_mtime, status.st_ctime))
        return SpoolStatistics(
            queued=counts[State.QUEUED],
            sending=counts[State.SENDING],
            sent=counts[State.SENT],
            failed=counts[State.FAILED],
            held=held,
            quarantined=self._quarantined(),
            oldest=None if oldest == math.inf else oldest,
            next_due=None if due == math.inf else due,
        )

    def holders(self) -> list[LeaseHolder]:
        """Return which processes hold locks on files of jobs that are being sent, as far as the system tells."""
        processes = _lock_owners()
        found: Counter[str] = Counter()
        for directory in self._job_files.due_queue.directories():
            for name in self.names(directory, State.SENDING):
                status = self._syscalls.look("L6", name)
                if status is not None:
                    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
                    found[processes.get((device, status.st_ino), "unknown")] += 1
        return [LeaseHolder(f"{socket.gethostname()}:{pid}", leases) for pid, leases in sorted(found.items())]

    def _quarantined(self) -> int:
        try:
            return sum(1 for _ in self._syscalls.entries("L5", QUARANTINE))
        except FileNotFoundError:
            return 0

    def _read(self, found: FoundJob, *, message: bool = False) -> tuple[Job, bytes]:
        path, state, marked = found
        fd = self._syscalls.open("L7", file_name(path, state, marked=marked))
        try:
            status = self._syscalls.status("L7", fd)
            self._job_files.check_file(status)
            job, body, damage = self._job_files.read(
                "L7", fd, path, state, status.st_size, marked=marked, check=message
            )
            if damage:
                raise RecordInvalid(f"the job {job.entry.id} cannot be read: {damage}")
            if message and body is None:
                body = self._syscalls.read("L7", fd, job.entry.size, job.header.body_at)
            return job, body or b""
        finally:
            os.close(fd)

    # --- changing --------------------------------------------------------------------------------------------

    def hold(self, id: str) -> None:
        """Keep a queued job from being claimed."""
        with self._opened(id) as locked:
            _must_be_queued(locked)
            self._append_hold(locked, held=True)
            self._due_at(locked, HELD_UNTIL)

    def release(self, id: str) -> None:
        """Undo `hold`."""
        with self._opened(id) as locked:
            _must_be_queued(locked)
            self._append_hold(locked, held=False)
            self._due_at(locked, locked.entry.due(self._syscalls.time()))

    def _append_hold(self, locked: LockedJob, *, held: bool) -> None:
        record = journal_record(r="hold", held=held, at=self._syscalls.time())
        self._job_files.append("O1", locked, record)

    def requeue(self, id: str, not_before: float | None, expires: float | None) -> None:
        """Queue a job for the recipients that were not accepted, now or at `not_before`."""
        with self._opened(id) as locked:
            if locked.damage:
                raise RecordInvalid(f"the job {id} cannot be sent any more: {locked.damage}")
            now = self._syscalls.time()
            not_before = now if not_before is None else not_before
            requeued(locked.entry, not_before, expires, now)  # raises if every recipient was accepted
            record = journal_record(r="requeue", not_before=not_before, expires=expires, at=now)
            self._job_files.append("O1", locked, record)
            if locked.state is not State.QUEUED:
                self._job_files.rename("O2", locked, State.QUEUED)
                self._syscalls.sync_directory("O3", directory_of(locked.path))
            self._due_at(locked, not_before)

    def remove(self, id: str) -> None:
        """Delete a job."""
        with self._opened(id) as locked:
            self._job_files.delete("O4", locked)
            for directory in directories_changed_by_delete(locked):
                self._job_files.sync_names("O5", directory)
            if locked.has_key:
                self._syscalls.empty("O5", locked.fd)

    @contextmanager
    def _opened(self, id: str) -> Iterator[LockedJob]:
        """Open and lock a job that is not being sent, and close its file afterwards."""

        def open_job(found: FoundJob) -> LockedJob:
            if found.state is State.SENDING:
                raise Busy(f"the job {id} is being sent")
            locked = self._job_files.open_locked("O", found.path, found.state)
            if locked is None:
                raise FileNotFoundError(found.path)
            return locked

        locked = self._with_found(id, open_job)
        try:
            yield locked
        finally:
            os.close(locked.fd)

    def _due_at(self, locked: LockedJob, when: float) -> None:
        self._syscalls.due_at("O6", locked.name, when)
        # A new mtime of a file does not change the mtime of its directory, by which other processes notice changes.
        self._syscalls.touch_directory("O7", directory_of(locked.path))
        self._job_files.due_queue.push(when, locked.path)

    def _with_found(self, id: str, use: Callable[[FoundJob], _T]) -> _T:
        if not isinstance(id, str) or JOB_ID.fullmatch(id) is None:
            raise NoSuchJob("the id is not a valid job id")
        for _ in range(_TRIES):
            found = self._job_files.find(id)
            if found is None:
                break
            try:
                return use(found)
            except FileNotFoundError:
                continue
        raise NoSuchJob(f"there is no job {id}")


def _lock_owners() -> dict[tuple[str, int], str]:
    """Return the process of each flock of this machine, by device and inode; empty where the system does not tell."""
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file if " FLOCK " in line]
    except OSError:
        return {}
    # A line that begins with an arrow is a lock that is waited for.
    held = [words for words in lines if len(words) > 5 and words[1] == "FLOCK"]
    places = [(words[5].rpartition(":"), words[4]) for words in held]
    return {(device, int(inode)): pid for (device, _, inode), pid in places if inode.isdigit()}


def _must_be_queued(locked: LockedJob) -> None:
    if locked.state is not State.QUEUED:
        raise UsageError(f"the job {locked.entry.id} is not queued but {locked.state.value}")
