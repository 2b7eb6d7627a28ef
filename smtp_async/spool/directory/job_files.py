"""The files of a spool directory, and the protocol that loses no job when a process dies. Synchronous, for threads.

One file is one job, and the same inode for its whole life: header, message, journal. Its name ends in `.queued`,
`.sending`, `.marked`, `.sent` or `.failed`. A process that works on a job holds the lock of its file (flock, which the
kernel releases when the process dies), and takes the lock before it changes the name. Therefore a `.sending` or
`.marked` file that can be locked belongs to no living process.

Enqueue. E1 create `tmp/<name>`; E2 write it; E3 reserve room for its journal; H1 if several jobs are put together,
start writing the file to disk; E4 fsync; E5 close; E6 link it to `<id>.queued`; E7 unlink `tmp/<name>`; E8 fsync the
directory, once for all jobs that are put together. Any error before the end of E8 undoes everything.

Claim. C1 open; C2 lock, or skip the job if it is locked; C3 check that the name still belongs to the inode; C4 read the
job and check that it is due; C5 rename to `.sending`.

End of data. D1 in the first attempt: rename to `.marked`, and fsync the directory, once for all marks and ends that
are made together. In later attempts: append `eod` and fsync. If this fails, end of data must not be sent.

End of a lease. S1 delivered: unlink, or rename to `.sent` within its directory; neither needs disk space. S2 fsync the
directory, once for all leases that end together. S3 to be retried: append the result, fsync, set the mtime, rename to
`.queued`, fsync the directory. S4 failed: append, fsync, rename to `.failed`, fsync the directory. S5 close the file
last, which releases the lock; the file of a removed job is closed after the caller was told. If a step fails, the job
stays locked, and the steps are repeated from the one that failed.

Jobs with a key. Another `put` may want the same name at the same time, so the name is looked up and changed under the
lock of the root directory (see `keys`). In S1 the file of such a job is not unlinked: its mtime is set to now and it is
renamed to `keys/<id>`; S2 syncs that directory first; S5 empties the file. The new name is in another directory, which
may need disk space. Therefore the first `put` with a key creates `keys/`, where a failure does no harm. If there is no
room in S1, the file is unlinked and the key forgotten, because a delivered job that cannot end would be sent again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import stat
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

from ...errors import Busy, RecordInvalid, RecordNewer
from ..entry import Entry, State, Unreadable
from ..record import MAX_FIRST_LINE, Header, Job, header_end, read_header, replay
from .due_queue import DueQueue, directory_of
from .keys import KEYS, KeyMemory
from .syscalls import SystemCalls

__all__ = [
    "MARKED",
    "QUARANTINE",
    "REFUSED_TO_OPEN",
    "RESERVE",
    "SMALL",
    "TMP",
    "JobFiles",
    "LockedJob",
    "NeedsThread",
    "directories_changed_by_delete",
    "file_name",
    "hashed_directory",
]

#: Octets that are reserved for the journal of each job.
RESERVE: Final = 4096
#: Maximum size of a message that is read together with its header and kept in memory.
SMALL: Final = 65536
#: The suffix of a job that is being sent, from D1 of its first attempt.
MARKED: Final = "marked"
TMP: Final = "tmp"
QUARANTINE: Final = "quarantine"

_CHUNK: Final = 2**20

_log = logging.getLogger("smtp_async")

#: errno values of open() for a symbolic link, a directory, a socket, or a file of another user.
REFUSED_TO_OPEN: Final = frozenset(
    {errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM}
)


# The value of an enum is a property in Python, which costs four times as much as this.
_SUFFIX_OF: Final = {state: state.value for state in State}

# State, and whether it is the name of a mark.
_PENDING: Final = ((State.QUEUED, False), (State.SENDING, False), (State.SENDING, True))
_SUFFIXES: Final = (*_PENDING, (State.SENT, False), (State.FAILED, False))


class NeedsThread(Exception):
    """Raised where the work would block the event loop for too long."""


class FoundJob(NamedTuple):
    """Where a job is.

    Attributes:
        path: the name of its file without suffix.
        state: its state.
        marked: its name is that of a mark.
    """

    path: str
    state: State
    marked: bool


class FileContents(NamedTuple):
    """The contents of a job's file.

    Attributes:
        job: header and journal.
        body: the message, None if it was left in the file.
        damage: why the message cannot be sent; empty if its digest is right or was not checked.
    """

    job: Job
    body: bytes | None
    damage: str


class LockedJob:
    """A job whose file is open and locked.

    Attributes:
        fd: the file descriptor, -1 once the file is closed.
        path: the name of the file without suffix, relative to the spool directory.
        state: the state that the suffix of the name shows.
        job: header and journal as they were read.
        has_key: the job has an idempotency key.
        body: the message, None if it was left in the file.
        damage: why the message cannot be sent, empty if it can.
        status: inode and device.
        suffix: the suffix of the name.
        marked: the mark of this attempt is on disk.
        maybe_marked: the mark of this attempt may have been written.
    """

    __slots__ = (
        "body",
        "damage",
        "fd",
        "has_key",
        "job",
        "marked",
        "maybe_marked",
        "path",
        "state",
        "status",
        "suffix",
    )

    def __init__(
        self,
        fd: int,
        path: str,
        state: State,
        contents: FileContents,
        status: os.stat_result,
        *,
        marked: bool = False,
    ) -> None:
        self.fd = fd
        self.path = path
        self.state = state
        self.suffix = MARKED if marked else _SUFFIX_OF[state]
        self.job = contents.job
        self.has_key = contents.job.entry.key is not None
        self.body = contents.body
        self.damage = contents.damage
        self.status = status
        self.marked = False
        self.maybe_marked = False
        # A crash between E6 and E7 leaves two names.
        if not self.damage and status.st_nlink > 2:
            self.damage = f"its file has {status.st_nlink} names, through which other users may change it"

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.path}.{self.suffix}"

    @property
    def is_first_attempt(self) -> bool:
        """Whether no record of the journal belongs to an attempt, so that the mark may be a name."""
        return self.job.token == 1

    @property
    def entry(self) -> Entry:
        """The entry of the job."""
        return self.job.entry

    def claimed(self) -> Entry:
        """Return the entry of a job that was just claimed."""
        self.job.entry.state = State.SENDING
        return self.job.entry

    def recovered(self, state: State) -> Entry:
        """Return the entry of a job that was just recovered to `state`."""
        self.job.entry.state = state
        return self.job.entry

    def renamed(self, state: State, *, marked: bool = False) -> None:
        """Record that the file has the suffix of `state`, or that of a mark."""
        self.state = state
        self.suffix = MARKED if marked else _SUFFIX_OF[state]

    def mark_started(self) -> None:
        """Record that writing the mark was started."""
        self.maybe_marked = True

    def mark_synced(self) -> None:
        """Record that the mark is on disk."""
        self.marked = True

    def detach(self) -> int:
        """Return the file descriptor and forget it."""
        fd, self.fd = self.fd, -1
        return fd


class JobFiles:
    """The files of one spool directory: lookup, opening, reading, renaming, deletion. Used by several threads.

    Args:
        syscalls: the system calls.
        due_queue: the queued jobs by due time.
        keys: the memory of idempotency keys.
    """

    def __init__(self, syscalls: SystemCalls, due_queue: DueQueue, keys: KeyMemory) -> None:
        self.syscalls = syscalls
        self.due_queue = due_queue
        self.keys = keys
        self._uid = os.geteuid()
        # Files moved to quarantine and not reported yet; ids of jobs of a later version that were logged.
        self._quarantined: deque[Unreadable] = deque(maxlen=1000)
        self._logged: deque[str] = deque(maxlen=1000)
        syscalls.make_directory("E0", TMP)
        keys.check()

    # --- lookup ----------------------------------------------------------------------------------------------

    def find(self, id: str, *, tries: int = 3) -> FoundJob | None:
        """Return where a job is, None if no file has its id."""
        # The name may change between two lookups. The suffixes are tried in the order in which a job goes through
        # them, so a name is missed only if the job returns to an earlier one.
        for _ in range(tries):
            for state, marked in _SUFFIXES:
                for path in (id, f"{hashed_directory(id)}/{id}"):
                    if self.syscalls.look("L4", file_name(path, state, marked=marked)) is not None:
                        return FoundJob(path, state, marked)
        return None

    def is_named(self, fd: int, name: str) -> bool:
        """C3: return whether an open file still has this name."""
        return self.syscalls.is_at("C3", name, self.syscalls.status("C3", fd))

    def is_same_file(self, step: str, name: str, other: str) -> bool:
        """Return whether two names belong to the same file."""
        status = self.syscalls.look(step, name)
        return status is not None and self.syscalls.is_at(step, other, status)

    # --- reading ---------------------------------------------------------------------------------------------

    def open_locked(
        self, step: str, path: str, state: State, *, marked: bool = False, inline: bool = False
    ) -> LockedJob | None:
        """Open, lock and read a job; return None if the file is not a valid job and was moved to quarantine.

        Args:
            step: the letter of the protocol's steps.
            path: the name without suffix.
            state: the expected state.
            marked: the name is expected to be that of a mark.
            inline: refuse a large message, because the call is made in the event loop.

        Raises:
            NeedsThread: the message is large, and `inline` was given.
            RecordNewer: a later version of this library wrote the file, which was not touched.
            Busy: another process has locked the file.
            FileNotFoundError: the file does not exist (any more).
            OSError: a system call failed.
        """
        name = file_name(path, state, marked=marked)
        try:
            fd = self.syscalls.open(step + "1", name, write=True)
        except OSError as error:
            if error.errno not in REFUSED_TO_OPEN or self._looks_valid(step, name):
                raise
            self.quarantine(name, f"it cannot be opened: {os.strerror(error.errno or 0)}")
            return None
        try:
            return self._lock_and_read(step, fd, name, path, state, marked=marked, inline=inline)
        except RecordNewer as error:
            os.close(fd)
            self.skip_newer(path, state, error)
            raise
        except RecordInvalid as error:
            self.quarantine(name, str(error))
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise

    def _lock_and_read(
        self, step: str, fd: int, name: str, path: str, state: State, *, marked: bool, inline: bool
    ) -> LockedJob:
        if not self.syscalls.lock(step + "2", fd):
            raise Busy(f"the job {path} is locked by another process")
        status = self.syscalls.status(step + "3", fd)
        if not self.syscalls.is_at("C3", name, status):
            raise FileNotFoundError(name)
        self.check_file(status)
        if inline and status.st_size > SMALL:
            raise NeedsThread
        contents = self.read(step + "4", fd, path, state, status.st_size, marked=marked)
        return LockedJob(fd, path, state, contents, status, marked=marked)

    def _looks_valid(self, step: str, name: str) -> bool:
        """Return whether a name that could not be opened is a regular file of this user, or is gone."""
        status = self.syscalls.look(step + "1", name)
        return status is None or (stat.S_ISREG(status.st_mode) and status.st_uid == self._uid)

    def check_file(self, status: os.stat_result) -> None:
        """Check that a file is a regular file of this user.

        Raises:
            RecordInvalid: the check failed.
        """
        if not stat.S_ISREG(status.st_mode):
            raise RecordInvalid("not a job: it is not a regular file")
        if status.st_uid != self._uid:
            raise RecordInvalid("not a job: it belongs to another user")

    def read(
        self,
        step: str,
        fd: int,
        path: str,
        state: State,
        size: int,
        *,
        marked: bool = False,
        check: bool = True,
    ) -> FileContents:
        """Read a job; a small message is returned with it.

        Args:
            step: the step of the protocol.
            fd: the file.
            path: its name without suffix.
            state: the state that its name shows.
            size: the size of the file in octets.
            marked: the name is that of a mark.
            check: read the whole message and compare its digest.

        Raises:
            RecordInvalid: the file is not a valid job, or has the name of another job.
        """
        data = self.syscalls.read(step, fd, min(size, SMALL + RESERVE), 0)
        if len(data) < size and (end := header_end(data[:MAX_FIRST_LINE])) > len(data):
            data = self.syscalls.read(step, fd, min(size, end), 0)
        header = read_header(data)
        if header.entry.id != path.rpartition("/")[2]:
            raise RecordInvalid("not a job: it has the name of another job")
        body_end = header.journal_at
        if body_end > size:
            raise RecordInvalid("not a job: the message is shorter than its header states")
        body = None
        if body_end <= len(data) and header.entry.size <= SMALL:
            body = data[header.body_at : body_end]
        damaged = check and self._digest(step, fd, header, body) != header.digest
        if body is not None and len(data) >= size:
            journal = data[body_end:]
        else:
            journal = self.syscalls.read(step, fd, size - body_end, body_end)
        damage = "the message does not match its SHA-256 digest, so its file was damaged" if damaged else ""
        return FileContents(replay(header, journal, state, marked=marked), body, damage)

    def _digest(self, step: str, fd: int, header: Header, body: bytes | None) -> str:
        if body is not None:
            return hashlib.sha256(body).hexdigest()
        digest = hashlib.sha256()
        for offset in range(header.body_at, header.journal_at, _CHUNK):
            digest.update(self.syscalls.read(step, fd, min(_CHUNK, header.journal_at - offset), offset))
        return digest.hexdigest()

    # --- changes ---------------------------------------------------------------------------------------------

    def append(self, step: str, locked: LockedJob, record: bytes) -> None:
        """Append a record to the journal and sync the file."""
        self.syscalls.write(step, locked.fd, record)
        self.syscalls.sync(step, locked.fd)

    def rename(self, step: str, locked: LockedJob, state: State, *, marked: bool = False) -> None:
        """Rename the file of a job to the suffix of another state, or to that of a mark. May be repeated."""
        new = file_name(locked.path, state, marked=marked)
        if locked.has_key:
            with self.keys.lock():
                self._rename(step, locked, new)
        else:
            self._rename(step, locked, new)
        locked.renamed(state, marked=marked)

    def _rename(self, step: str, locked: LockedJob, new: str) -> None:
        try:
            self.syscalls.rename(step, locked.name, new)
        except OSError:
            # The rename may have succeeded in spite of the error: on a network file system, or in an earlier try.
            if not self.syscalls.is_at(step, new, locked.status):
                raise

    def correct_name(self, step: str, locked: LockedJob) -> None:
        """Look up whether a rename to the name of a mark, which reported an error, was made all the same."""
        marked = file_name(locked.path, State.SENDING, marked=True)
        if self.syscalls.is_at(step, marked, locked.status):
            locked.renamed(State.SENDING, marked=True)

    def delete(self, step: str, locked: LockedJob) -> None:
        """Remove the name of a job; if the job has a key, rename its file so that the key is remembered.

        May be repeated.
        """
        if locked.has_key:
            self.keys.remember(step, locked.name, locked.entry.id, locked.status)
            return
        try:
            self.syscalls.unlink(step, locked.name)
        except FileNotFoundError:
            pass  # an earlier try succeeded and reported an error

    def sync_names(self, step: str, directory: str) -> None:
        """Wait until the names in a directory are on disk. The directory of keys may be missing."""
        try:
            self.syscalls.sync_directory(step, directory)
        except FileNotFoundError:
            if directory != KEYS:
                raise

    # --- unreadable files ------------------------------------------------------------------------------------

    def quarantine(self, name: str, reason: str) -> None:
        """Move a file that is not a valid job to quarantine, and log a message."""
        self.syscalls.make_directory("Q1", QUARANTINE)
        file_name = name.rpartition("/")[2]
        new = f"{QUARANTINE}/{file_name}.{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            self.syscalls.rename("Q2", name, new)
            self._quarantined.append(Unreadable(file_name.rpartition(".")[0], reason, kept=False))
            _log.error("the file %r of the spool was moved to %r: %s", name, new, reason)

    def skip_newer(self, path: str, state: State, error: RecordNewer) -> None:
        """Skip a job of a later version from now on, and log a message."""
        found = Unreadable(path.rpartition("/")[2], str(error), kept=True)
        if state is State.QUEUED or state is State.SENDING:
            # Jobs in the other states are not pending, so there is nothing to report.
            self.due_queue.skip(path, found)
        if found.id not in self._logged:
            self._logged.append(found.id)
            _log.warning("the job %s (%s) is left alone: %s", found.id, state.value, error)

    def forget_ended_newer(self) -> None:
        """Stop reporting jobs of a later version that are no longer pending."""
        for path in self.due_queue.skipped():
            names = [file_name(path, state, marked=marked) for state, marked in _PENDING]
            if all(self.syscalls.look("R9", name) is None for name in names):
                self.due_queue.unskip(path)

    def unreadable(self) -> list[Unreadable]:
        """Return the files that were moved to quarantine since the last call, and the skipped jobs."""
        found = [self._quarantined.popleft() for _ in range(len(self._quarantined))]
        return found + [*self.due_queue.skipped().values()]


def file_name(path: str, state: State, *, marked: bool = False) -> str:
    """Return the name of a file: its path with the suffix of a state, or with that of a mark."""
    return f"{path}.{MARKED if marked else _SUFFIX_OF[state]}"


def directories_changed_by_delete(locked: LockedJob) -> list[str]:
    """Return the directories whose names `JobFiles.delete` changes; the one that gains a name is first."""
    directory = directory_of(locked.path)
    return [KEYS, directory] if locked.has_key else [directory]


def hashed_directory(id: str) -> str:
    """Return the subdirectory of a job that was put while the root had too many files."""
    return hashlib.sha256(id.encode()).hexdigest()[:2]
