"""Storing new jobs: steps E1 to E9 of the protocol in `job_files`."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Final, NamedTuple

from ...errors import SpoolFull
from ..entry import State
from ..history import history_record
from ..record import encode_header
from ..submission import Submission, job_id
from .due_queue import HELD_UNTIL, QUEUED, directory_of
from .job_files import RESERVE, SMALL, TMP, JobFiles, hashed_directory
from .syscalls import SystemCalls, translated

__all__ = ["Enqueuer", "Stored"]

#: Octets that are reserved in the journal for each recipient.
RESERVE_PER_RECIPIENT: Final = 256
#: The files in the root are counted again after `root_files` / `COUNTS_PER_ROOT` puts.
COUNTS_PER_ROOT: Final = 10
#: Seconds after which the free space is checked again, however little was written.
ROOM_CHECK_INTERVAL: Final = 1.0
#: Octets of the file system that are left free by default.
LOW_WATER: Final = 64 * 2**20

# errno values that mean that too many files are open.
_TOO_MANY_OPEN: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Stored(NamedTuple):
    """A job that was put.

    Attributes:
        id: the id of the job.
        path: the name of its file without suffix; None if a job with the same key existed already.
        size: size of the file in octets.
        inode: the inode of the file, if the job has a key.
    """

    id: str
    path: str | None
    size: int = 0
    inode: int | None = None


class _Draft:
    """A job that is being stored, and the steps that concern its file in `tmp/` only.

    Attributes:
        job: the job.
        id: the id of the job.
        tmp: the name of its file in `tmp/`.
        path: the name that it gets, without suffix; empty until it is known.
        created: the file in `tmp/` was created.
        error: why the job cannot be stored, None so far.
    """

    __slots__ = (
        "_inode",
        "_journal",
        "_size",
        "_stored",
        "created",
        "error",
        "fd",
        "id",
        "job",
        "path",
        "tmp",
    )

    def __init__(self, job: Submission) -> None:
        self.job = job
        self.id = job_id(job)
        self.tmp = f"{TMP}/{self.id}"
        if job.key is not None:
            # Two calls of `put` may have the same key at the same time.
            self.tmp += f".{secrets.token_hex(4)}"
        self.path = ""
        self.fd = -1
        self.created = False
        self.error: Exception | None = None
        self._size = 0
        self._journal = b""
        self._inode: int | None = None
        self._stored: Stored | None = None

    @property
    def unfinished(self) -> bool:
        """Whether the job is neither stored nor refused yet."""
        return self._stored is None and self.error is None

    @property
    def due(self) -> float:
        """When the job is due; a held one never is."""
        if self.job.history is not None and self.job.history.held:
            return HELD_UNTIL
        return max(self.job.not_before, self.job.created)

    @property
    def lacked_descriptor(self) -> bool:
        """Whether too many open files were the reason for the failure, before the job got its name."""
        return isinstance(self.error, OSError) and self.error.errno in _TOO_MANY_OPEN and not self.path

    @property
    def result(self) -> Stored | Exception:
        """The result of the call."""
        result = self._stored or self.error
        assert result is not None
        return result

    def as_stored(self) -> Stored:
        """Return the result if the remaining steps succeed."""
        return Stored(self.id, self.path, self._size, self._inode)

    def succeed(self, stored: Stored) -> None:
        """Record that the job is stored."""
        self._stored = stored

    def fail(self, error: Exception) -> None:
        """Record why the job cannot be stored."""
        self.error = error

    def name(self, path: str) -> None:
        """Record the name that the file gets."""
        self.path = path

    def encode(self) -> bytes:
        """Return the header of the file."""
        header, history = encode_header(self.job, self.id), self.job.history
        self._journal = b"" if history is None else history_record(history)
        self._size = len(header) + len(self.job.body) + len(self._journal)
        return header

    def write(self, syscalls: SystemCalls, header: bytes) -> None:
        """E1 to E3."""
        fd = syscalls.create("E1", self.tmp)
        self.created = True
        try:
            self._write_contents(syscalls, fd, header)
        except BaseException:
            with suppress(OSError):
                syscalls.close("E5", fd)
            raise
        self.fd = fd

    def _write_contents(self, syscalls: SystemCalls, fd: int, header: bytes) -> None:
        job, size = self.job, self._size
        if size <= SMALL:
            syscalls.write("E2", fd, header + job.body + self._journal)
        else:
            syscalls.write("E2", fd, header)
            syscalls.write("E2", fd, job.body)
            if self._journal:
                syscalls.write("E2", fd, self._journal)
        if syscalls.durable:
            recipients = len(job.envelope.recipients)
            syscalls.reserve("E3", fd, size, RESERVE + RESERVE_PER_RECIPIENT * recipients)
        if job.history is not None or job.not_before > job.created:
            syscalls.due_at("E3", self.tmp, self.due)

    def sync(self, syscalls: SystemCalls) -> None:
        """E4 and E5."""
        fd, self.fd = self.fd, -1
        try:
            if self.error is not None:
                return
            syscalls.sync("E4", fd)
            if self.job.key is not None:
                self._inode = syscalls.status("E4", fd).st_ino
        finally:
            syscalls.close("E5", fd)


class Enqueuer:
    """Stores new jobs in a spool directory. Used by several threads.

    Args:
        job_files: the files of the directory.
        low_water: octets that are left free; by default 64 MiB or twice the largest message, whichever is more.
        root_files: number of files in the root above which new jobs go to subdirectories.
    """

    def __init__(self, job_files: JobFiles, *, low_water: int | None, root_files: int) -> None:
        self._job_files = job_files
        self._syscalls = job_files.syscalls
        self._keys = job_files.keys
        self._low_water = low_water
        self._largest = 0
        # Octets that may be written, and until when, before the free space is checked again.
        self._allowance = 0
        self._allowed_until = 0.0
        # The allowed and the actual number of files in the root, counted at the first put, and the puts since then.
        self._max_root_files = root_files
        self._root_files = 0
        self._count_interval = self._uncounted = root_files // COUNTS_PER_ROOT
        # Subdirectories that this process has created or checked.
        self._subdirectories: set[str] = set()

    # --- storing ---------------------------------------------------------------------------------------------

    def put(self, jobs: list[Submission]) -> list[Stored | Exception]:
        """Store jobs, each step for all of them before the next step, so that they share the syncs.

        Returns:
            For each job the stored job, or the error.
        """
        drafts = self._put(jobs)
        if len(jobs) > 1:
            # All files of a batch are open at once. Retry those without a descriptor one by one.
            for place, draft in enumerate(drafts):
                if draft.lacked_descriptor:
                    (drafts[place],) = self._put([draft.job])
        return [draft.result for draft in drafts]

    def _put(self, jobs: list[Submission]) -> list[_Draft]:
        drafts = [_Draft(job) for job in jobs]
        for draft in drafts:
            self._attempt(draft, self._write)
        written = [draft for draft in drafts if draft.fd >= 0]
        if len(written) > 1:
            for draft in written:
                self._attempt(draft, self._start_sync)
        for draft in written:
            self._attempt(draft, self._sync)
        for draft in drafts:
            if draft.unfinished:
                self._attempt(draft, self._name)
        named = [draft for draft in drafts if draft.unfinished]
        for directory in {directory_of(draft.path) for draft in named}:
            self._sync_names(directory, [draft for draft in named if directory_of(draft.path) == directory])
        return drafts

    def _attempt(self, draft: _Draft, step: Callable[[_Draft], None]) -> None:
        """Take one step for a job; if it fails, remove the file in `tmp/`."""
        try:
            step(draft)
        except OSError as error:
            draft.fail(translated(error, "the message cannot be stored"))
        except Exception as error:
            # Affects this job only.
            draft.fail(error)
        else:
            return
        if draft.created:
            self._discard(draft.tmp)

    def _write(self, draft: _Draft) -> None:
        """E1 to E3, unless a job with the same key exists."""
        job = draft.job
        if job.key is not None:
            self._keys.prepare()
            if self._is_known(draft.id):
                draft.succeed(Stored(draft.id, None))
                return
        header = draft.encode()
        self._take_room(len(header) + len(job.body), job.created)
        draft.write(self._syscalls, header)

    def _start_sync(self, draft: _Draft) -> None:
        """H1."""
        self._syscalls.begin_sync(draft.fd)

    def _sync(self, draft: _Draft) -> None:
        """E4 and E5."""
        draft.sync(self._syscalls)

    def _name(self, draft: _Draft) -> None:
        """E6 and E7."""
        path = self._new_path(draft.id)
        draft.name(path)
        if draft.job.key is None:
            self._link(draft.tmp, path)
        elif not self._link_key(draft.tmp, path):
            self._discard(draft.tmp)
            draft.succeed(Stored(draft.id, None))
            return
        try:
            self._syscalls.unlink("E7", draft.tmp)
        except FileNotFoundError:
            pass  # recovery has removed it
        except BaseException:
            self.withdraw(draft.as_stored())
            raise

    def _sync_names(self, directory: str, drafts: list[_Draft]) -> None:
        """E8, once for all jobs in a directory."""
        failed: OSError | None = None
        try:
            self._syscalls.sync_directory("E8", directory)
        except OSError as error:
            failed = error
        for draft in drafts:
            stored = draft.as_stored()
            if failed is not None:
                self.withdraw(stored)
                # Each caller gets an exception of its own.
                draft.fail(translated(failed, "the message cannot be stored"))
            else:
                draft.succeed(stored)
                self._job_files.due_queue.push(draft.due, draft.path)

    def _link(self, tmp: str, path: str) -> None:
        """E6."""
        name = path + QUEUED
        try:
            self._syscalls.link("E6", tmp, name)
        except OSError:
            # On a network file system, the link may have been made in spite of the error.
            if not self._job_files.is_same_file("E6", tmp, name):
                raise

    def _discard(self, tmp: str) -> None:
        with suppress(OSError):
            self._syscalls.unlink("E7", tmp)

    # --- keys ------------------------------------------------------------------------------------------------

    def _link_key(self, tmp: str, path: str) -> bool:
        """E6 for a job with a key; return False if another `put` stored a job with this key meanwhile."""
        with self._keys.lock():
            id = path.rpartition("/")[2]
            existing = self._share(id)
            if existing is None:
                if self._keys.remembers("L4", id):
                    return False
                self._link(tmp, path)
                return True
        self._syscalls.sync_directory("E8", directory_of(existing))
        return False

    def _is_known(self, id: str) -> bool:
        """Return whether a job with this key exists or is remembered.

        The directory of an existing job is synced, because the `put` that stored the job may not have reached E8.
        """
        if self._job_files.find(id, tries=1) is None:
            return self._keys.remembers("L4", id)
        with self._keys.lock():
            existing = self._share(id)
        if existing is not None:
            self._syscalls.sync_directory("E8", directory_of(existing))
        return existing is not None

    def _share(self, id: str) -> str | None:
        """E9: return the path of a job with a key, None if there is none; its `put` can no longer be withdrawn."""
        found = self._job_files.find(id, tries=1)
        if found is None:
            return None
        if found.state is State.QUEUED:
            try:
                self._syscalls.share("E9", found.path + QUEUED)
            except FileNotFoundError:
                # An operator has just removed the job.
                return None
        return found.path

    # --- withdrawing -----------------------------------------------------------------------------------------

    def withdraw(self, stored: Stored) -> bool:
        """E9: remove a job that was just stored; return False if the job stays.

        The job stays if a worker has claimed it, or if another `put` with the same key has returned its id.
        """
        if stored.path is None:
            return False
        name = stored.path + QUEUED
        try:
            fd = self._syscalls.open("E9", name)
        except OSError:
            return False
        try:
            return self._withdraw(fd, name, stored)
        except OSError:
            return False
        finally:
            os.close(fd)

    def _withdraw(self, fd: int, name: str, stored: Stored) -> bool:
        syscalls, job_files = self._syscalls, self._job_files
        if not syscalls.lock("E9", fd) or not job_files.is_named(fd, name):
            return False
        status = syscalls.status("E9", fd)
        if status.st_size != stored.size or stored.inode not in (None, status.st_ino):
            return False
        with nullcontext() if stored.inode is None else self._keys.lock():
            if syscalls.is_shared("E9", fd):
                return False
            try:
                syscalls.unlink("E9", name)
            except OSError:
                # On a network file system, the name may have been removed in spite of the error.
                if job_files.is_named(fd, name):
                    raise
        with suppress(OSError):
            # The job is gone even if the sync fails, so no caller may be told that it is stored.
            syscalls.sync_directory("E9", directory_of(name))
        return True

    # --- room ------------------------------------------------------------------------------------------------

    def _take_room(self, size: int, now: float) -> None:
        """Reserve `size` octets of the allowance; check the free space if the allowance is too small or too old."""
        if size > self._allowance or now > self._allowed_until:
            self._check_room(size)
        self._allowance -= size

    def _check_room(self, size: int) -> None:
        """Check that there is room for `size` octets, and set the allowance until the next check.

        Raises:
            SpoolFull: there is no room.
        """
        self._largest = max(self._largest, size)
        low_water = max(LOW_WATER, 2 * self._largest) if self._low_water is None else self._low_water
        free = self._syscalls.free() if low_water else 2**62
        if free < low_water + size:
            raise SpoolFull(f"the spool has {free} octets left, and keeps {low_water} of them free")
        self._allowance = size + (free - low_water - size) // 2
        self._allowed_until = self._syscalls.time() + ROOM_CHECK_INTERVAL

    def _new_path(self, id: str) -> str:
        """Return the path of a new job: in the root, or in a subdirectory if the root has too many files."""
        self._uncounted += 1
        self._root_files += 1
        if self._uncounted >= self._count_interval:
            self._uncounted = 0
            self._root_files = sum(1 for _ in self._syscalls.entries("L2", ""))
        if self._root_files <= self._max_root_files:
            return id
        directory = hashed_directory(id)
        if directory not in self._subdirectories:
            self._syscalls.make_directory("E6", directory)
            self._subdirectories.add(directory)
        return f"{directory}/{id}"
