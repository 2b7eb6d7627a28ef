"""The files of a spool directory: the protocol that loses nothing, synchronous, to be called in threads.

One file is one job, and one inode for its whole life: header, message, journal. Its name ends in `.queued`, `.sending`,
`.sent` or `.failed`. Whoever works on a job holds the lock of its file (flock, which the kernel drops with the last of
the process), and takes it before the name changes: so a `.sending` that can be locked has no living owner.

Enqueue. E1 make `tmp/<name>`; E2 write it; E3 reserve room for its journal; H1 where others come with it, begin to
write it to the disk; E4 fsync; E5 close; E6 link it to `<id>.queued`; E7 unlink `tmp/<name>`; E8 fsync the directory,
once for all that come together. Any error before the end of E8 undoes it all.

Claim. C1 open; C2 lock, or leave it to whoever has; C3 the name must still be that of the inode; C4 read, and see
whether it is due; C5 rename to `.sending`.

End of data. D1 append `eod` and fsync. If that fails, nothing may be sent.

The end of a lease. S1 delivered: unlink, or rename to `.sent`, within its directory: neither needs room. S2 fsync the
directory, once for all that end together. S3 to be tried again: append the result, fsync, set the time, rename to
`.queued`, fsync the directory. S4 failed: append, fsync, rename to `.failed`, fsync the directory. S5 the file is
closed, and with it unlocked, last of all; one that is removed, after the caller knows. If a step fails, it stays locked
and the same steps are tried again, those that are done passed over.

A job with a key has a name that another put may want at the same time. What looks for such a name, or changes it, does
so under the lock of the root directory. Such a job is not unlinked in S1: its time is set to now, it is renamed to
`keys/<id>`, in S2 that directory is synced first, and in S5 the file is emptied. What is left is the memory of the key,
until recovery finds it too old. That is another directory, which may need room for one more name: `keys/` is made when
the first job with a key is put, where failing costs nothing; and where there is no room in S1 the file is unlinked, and
the key forgotten, because a job that was delivered and cannot end would be delivered again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import secrets
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Final, NamedTuple

from ...errors import Busy, RecordInvalid, RecordNewer
from ..entry import State, Unreadable
from ..record import MAX_FIRST_LINE, Header, Job, fold, header_end, read_header
from .due_queue import HELD, Lineup, directory_of
from .syscalls import FULL, Files

__all__ = [
    "HELD",
    "KEYS",
    "PLANTED",
    "QUARANTINE",
    "RESERVE",
    "SMALL",
    "TMP",
    "Held",
    "Shelf",
    "Slow",
    "changed_by_burying",
    "hashed",
]

#: Octets of journal that are reserved with each file.
RESERVE: Final = 4096
#: A message up to this size is read with its header, and handed out from memory.
SMALL: Final = 65536
TMP: Final = "tmp"
KEYS: Final = "keys"
QUARANTINE: Final = "quarantine"

_CHUNK: Final = 2**20
# No room for one more name in a directory.
_CROWDED: Final = FULL | {errno.EMLINK}

_log = logging.getLogger("smtp_async")

# What opening says of a symbolic link, a directory, a socket, a file of somebody else.
PLANTED: Final = frozenset(
    {errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM}
)


def changed_by_burying(held: Held) -> list[str]:
    """Return the directories in which names change when a job is gone: first the one in which there is a new one."""
    directory = directory_of(held.path)
    return [directory] if held.job.entry.key is None else [KEYS, directory]


def hashed(id: str) -> str:
    """Return the name of the subdirectory in which a job is if the root was crowded when it came."""
    return hashlib.sha256(id.encode()).hexdigest()[:2]


class Slow(Exception):
    """This would hold up an event loop."""


class Found(NamedTuple):
    """What was read from a file.

    Attributes:
        job: header and journal.
        body: the message, None if it is left in the file.
        damage: why the message is not the one that was put, empty if it is, or if nobody looked.
    """

    job: Job
    body: bytes | None
    damage: str


class Held:
    """A job whose file is open and locked.

    Attributes:
        fd: the file.
        path: its name without suffix, below the spool directory.
        job: what was read from it.
        body: the message, None if it is left in the file.
        state: which suffix its name has now.
        marked: `eod` was written for this attempt.
        tainted: it may have been.
        damage: why its message cannot be sent, empty if it can.
        status: inode and device.
    """

    __slots__ = ("body", "damage", "fd", "job", "marked", "path", "state", "status", "tainted")

    def __init__(self, fd: int, path: str, state: State, found: Found, status: os.stat_result, damage: str):
        self.fd = fd
        self.path = path
        self.state = state
        self.job = found.job
        self.body = found.body
        self.damage = damage
        self.status = status
        self.marked = False
        self.tainted = False

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.path}.{self.state.value}"


class Shelf:
    """The files of one spool directory: how they are found, opened, read, renamed. Used by several threads.

    Args:
        files: the system calls.
        lineup: which jobs are due.
        key_retention: returns for how many seconds keys are remembered now.
    """

    def __init__(self, files: Files, lineup: Lineup, *, key_retention: Callable[[], float]) -> None:
        self.files = files
        self.lineup = lineup
        self.key_retention = key_retention
        #: Jobs with a key that have gone since the keys were counted, and when that was.
        self.buried = 0
        self.counted_at = -math.inf
        self._uid = os.geteuid()
        # What was put aside, until somebody asks; and what was logged of files that are left where they are.
        self._put_aside: deque[Unreadable] = deque(maxlen=1000)
        self._logged: deque[str] = deque(maxlen=1000)
        files.make_directory("E0", TMP)
        with suppress(FileNotFoundError):
            files.check_directory("E0", KEYS)

    def grasp(self, step: str, path: str, state: State, *, at_once: bool = False) -> Held | None:
        """Open, lock and read a job; None if it is no job, and was put aside.

        Raises:
            Slow: `at_once`, and it is large.
            RecordNewer: it is of a later version, and was left alone.
            Busy: somebody else has it.
            FileNotFoundError: it is not there (any more).
            OSError: the system refused it.
        """
        name = f"{path}.{state.value}"
        try:
            fd = self.files.open(step + "1", name, write=True)
        except OSError as error:
            if error.errno not in PLANTED or self._is_ours(step, name):
                raise
            self.quarantine(name, f"it cannot be opened: {os.strerror(error.errno or 0)}")
            return None
        try:
            if not self.files.lock(step + "2", fd):
                raise Busy(f"somebody else has the job {path}")
            status = self.files.status(step + "3", fd)
            if not self.is_at(fd, name, status):
                raise FileNotFoundError(name)
            self.check_file(status)
            if at_once and status.st_size > SMALL:
                raise Slow
            found = self.read(step + "4", fd, path, state, status.st_size)
        except RecordNewer as error:
            os.close(fd)
            self.leave(path, state, error)
            raise
        except RecordInvalid as error:
            self.quarantine(name, str(error))
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        # Two names are right after a crash between E6 and E7.
        linked = (
            f"its file has {status.st_nlink} names, by which others may change it"
            if status.st_nlink > 2
            else ""
        )
        return Held(fd, path, state, found, status, found.damage or linked)

    def _is_ours(self, step: str, name: str) -> bool:
        """Tell whether a name that could not be opened looks well all the same."""
        status = self.files.look(step + "1", name)
        return status is None or (stat.S_ISREG(status.st_mode) and status.st_uid == self._uid)

    def check_file(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise RecordInvalid("not a job: it is not a regular file")
        if status.st_uid != self._uid:
            raise RecordInvalid("not a job: it belongs to another user")

    def read(self, step: str, fd: int, path: str, state: State, size: int, *, check: bool = True) -> Found:
        """Read a job; a small message is returned with it.

        Args:
            step: where in the protocol.
            fd: its file.
            path: its name, without suffix.
            state: where it is.
            size: octets of the file.
            check: read all of the message, to see whether it is the one that was put.

        Raises:
            RecordInvalid: it is not a job, or that of another name.
        """
        files = self.files
        data = files.read(step, fd, min(size, SMALL + RESERVE), 0)
        end = header_end(data[:MAX_FIRST_LINE])
        if end > len(data):
            data = files.read(step, fd, min(size, end), 0)
        header = read_header(data)
        if header.entry.id != path.rpartition("/")[2]:
            raise RecordInvalid("not a job: it has the name of another")
        if header.journal_at > size:
            raise RecordInvalid("not a job: the message is shorter than its header says")
        body = None
        if header.journal_at <= len(data) and header.entry.size <= SMALL:
            body = data[header.body_at : header.journal_at]
        damaged = check and self._digest(step, fd, header, body) != header.digest
        if body is not None and len(data) >= size:
            journal = data[header.journal_at :]
        else:
            journal = files.read(step, fd, size - header.journal_at, header.journal_at)
        job = fold(header, journal, state)
        return Found(
            job, body, "the message is not the one that was put, its file was damaged" if damaged else ""
        )

    def _digest(self, step: str, fd: int, header: Header, body: bytes | None) -> str:
        if body is not None:
            return hashlib.sha256(body).hexdigest()
        digest = hashlib.sha256()
        for offset in range(header.body_at, header.journal_at, _CHUNK):
            digest.update(self.files.read(step, fd, min(_CHUNK, header.journal_at - offset), offset))
        return digest.hexdigest()

    def append(self, step: str, held: Held, record: bytes) -> None:
        """Append a record to the journal."""
        self.files.write(step, held.fd, record)
        self.files.sync(step, held.fd)

    def rename(self, step: str, held: Held, state: State) -> None:
        """Give a job the name of another state. To be repeated without harm."""
        new = f"{held.path}.{state.value}"
        if held.job.entry.key is None:
            self._rename(step, held, new)
        else:
            with self.naming():
                self._rename(step, held, new)
        held.state = state

    def _rename(self, step: str, held: Held, new: str) -> None:
        try:
            self.files.rename(step, held.name, new)
        except OSError:
            # It may have been done all the same: over a network, or the last time.
            if not _same(held.status, self.files.look(step, new)):
                raise

    def bury(self, step: str, held: Held) -> None:
        """Take the name of a job away; if it has a key, leave what remembers that. To be repeated without harm."""
        if held.job.entry.key is None:
            with suppress(FileNotFoundError):  # the last time it was done, and told otherwise
                self.files.unlink(step, held.name)
            return
        with self.naming():
            try:
                self._move_to_keys(step, held)
            except OSError as error:
                if error.errno not in _CROWDED:
                    raise
                with suppress(FileNotFoundError):
                    self.files.unlink(step, held.name)
                _log.warning(
                    "the key of the job %s is forgotten, there is no room for it: %s", held.path, error
                )
        self.buried += 1

    def _move_to_keys(self, step: str, held: Held) -> None:
        memory = f"{KEYS}/{held.job.entry.id}"
        with suppress(FileNotFoundError):
            self.files.due_at(step, held.name, time.time())
        try:
            self.files.rename(step, held.name, memory)
        except OSError as error:
            # It may have been done all the same: over a network, or the last time.
            if not _same(held.status, self.files.look(step, memory)):
                if not isinstance(error, FileNotFoundError):
                    raise
                # An operator has taken the directory away, or the name.
                self.files.make_directory(step, KEYS)
                with suppress(FileNotFoundError):
                    self.files.rename(step, held.name, memory)

    def sync_names(self, step: str, directory: str) -> None:
        """Wait until the names in a directory are on the disk; there may be no memory of keys to wait for."""
        with suppress(FileNotFoundError) if directory == KEYS else nullcontext():
            self.files.sync_directory(step, directory)

    def remembers(self, step: str, id: str) -> bool:
        """Tell whether the key of a job that is gone is remembered."""
        status = self.files.look(step, f"{KEYS}/{id}")
        return status is not None and time.time() - status.st_mtime < self.key_retention()

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Keep others from looking for, or changing, the name of a job with a key."""
        fd = self.files.open_directory("K1", "")
        try:
            self.files.wait_lock("K2", fd)
            yield
        finally:
            os.close(fd)

    def find(self, id: str, *, tries: int = 3) -> tuple[str, State] | None:
        """Return path and state of a job, None if there is none."""
        # A name may change between two looks; in this order it is met, unless it goes round.
        for _ in range(tries):
            for state in State:
                for path in (id, f"{hashed(id)}/{id}"):
                    if self.files.look("L4", f"{path}.{state.value}") is not None:
                        return path, state
        return None

    def quarantine(self, name: str, reason: str) -> None:
        """Put aside what is no job, and say so."""
        self.files.make_directory("Q1", QUARANTINE)
        aside = f"{QUARANTINE}/{name.rpartition('/')[2]}.{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            self.files.rename("Q2", name, aside)
            self._put_aside.append(Unreadable(_stem(name), reason, kept=False))
            _log.error("the file %r of the spool was put aside as %r: %s", name, aside, reason)

    def leave(self, path: str, state: State, error: RecordNewer) -> None:
        """Pass over a job of a later version from now on, and say so."""
        found = Unreadable(path.rpartition("/")[2], str(error), kept=True)
        if state is State.QUEUED or state is State.SENDING:
            # What has ended waits for nobody.
            self.lineup.leave(path, found)
        if found.id not in self._logged:
            self._logged.append(found.id)
            _log.warning("the job %s (%s) is left alone: %s", found.id, state.value, error)

    def forget_gone(self) -> None:
        """Tell no more of jobs of a later version that wait no longer."""
        for path in self.lineup.left.copy():
            names = [f"{path}.{state.value}" for state in (State.QUEUED, State.SENDING)]
            if all(self.files.look("R9", name) is None for name in names):
                self.lineup.left.pop(path, None)

    def unreadable(self) -> list[Unreadable]:
        """Return what was put aside since the last call, and what is left alone."""
        found = [self._put_aside.popleft() for _ in range(len(self._put_aside))]
        return found + [*self.lineup.left.copy().values()] if self.lineup.left else found

    def is_at(self, fd: int, name: str, status: os.stat_result | None = None) -> bool:
        """C3: is this still the file of that name?"""
        if status is None:
            status = self.files.status("C3", fd)
        return _same(status, self.files.look("C3", name))

    def are_one(self, step: str, name: str, other: str) -> bool:
        """Tell whether two names are those of one file."""
        status = self.files.look(step, name)
        return status is not None and _same(status, self.files.look(step, other))


def _stem(name: str) -> str:
    """Return the id in the name of a file."""
    return name.rpartition("/")[2].rpartition(".")[0]


def _same(one: os.stat_result, other: os.stat_result | None) -> bool:
    return other is not None and (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)
