"""Enqueue: steps E1 to E8 (see `job_files`)."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Final, NamedTuple

from ...errors import SpoolFull
from ..entry import State
from ..record import encode
from ..submission import Submission
from .due_queue import QUEUED, directory_of
from .job_files import KEYS, RESERVE, SMALL, TMP, Shelf, hashed
from .syscalls import translated

__all__ = ["Intake", "Stored", "id_of"]

#: Octets of journal that are reserved for each recipient.
RESERVE_EACH: Final = 256
#: Files in the root above which new ones go into subdirectories, and after how many they are counted again.
CROWD: Final = 10_000
COUNT_EACH: Final = 1000
#: Seconds after which the free room is looked at again, however little was written.
LOOK_EACH: Final = 1.0
#: What is left free by default.
LOW_WATER: Final = 64 * 2**20

# Too many open files, in the words of the system.
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Stored(NamedTuple):
    """A job that was put.

    Attributes:
        id: its id.
        path: its name without suffix; None if a job of this key was there already.
        size: octets of its file.
        inode: of its file, if it has a key.
    """

    id: str
    path: str | None
    size: int = 0
    inode: int | None = None


class _Draft:
    """A job on its way into the spool.

    Attributes:
        tmp: the name of its file until it has one of its own.
        path: that, without suffix.
        size: octets of the file.
        fd: the file, while it is open.
        inode: of the file, if its name may be another's one day.
        created: the file was made.
        stored, error: how it ended.
    """

    __slots__ = ("created", "error", "fd", "id", "inode", "job", "path", "size", "stored", "tmp")

    def __init__(self, job: Submission) -> None:
        self.job = job
        self.id = id_of(job)
        self.tmp = f"{TMP}/{self.id}"
        if job.key is not None:
            # The same key may come twice at the same time.
            self.tmp += f".{secrets.token_hex(4)}"
        self.path = ""
        self.size = 0
        self.fd = -1
        self.inode: int | None = None
        self.created = False
        self.stored: Stored | None = None
        self.error: Exception | None = None

    @property
    def open(self) -> bool:
        """It goes on."""
        return self.stored is None and self.error is None

    @property
    def crowded_out(self) -> bool:
        """There were too many open files, and it has no name yet."""
        return isinstance(self.error, OSError) and self.error.errno in _TOO_MANY and not self.path

    @property
    def result(self) -> Stored | Exception:
        """How it ended."""
        result = self.stored or self.error
        assert result is not None
        return result

    def as_stored(self) -> Stored:
        """What is stored if nothing fails any more."""
        return Stored(self.id, self.path, self.size, self.inode)


class Intake:
    """Take messages into a spool directory. Used by several threads.

    Args:
        shelf: its files.
        low_water: octets that are left free; None takes 64 MiB or twice the largest message, whichever is more.
    """

    def __init__(self, shelf: Shelf, *, low_water: int | None = None) -> None:
        self._shelf = shelf
        self.files = shelf.files
        self._low_water = low_water
        self._largest = 0
        # Octets that may be written, and until when, before the room is looked at again.
        self._allowance = 0
        self._allowed_until = 0.0
        self._root_files = 0
        self._uncounted = COUNT_EACH
        self._subdirectories: set[str] = set()

    def put(self, jobs: list[Submission]) -> list[Stored | Exception]:
        """Store jobs: each takes its steps in their order, and what the disk is waited for, for all of them.

        Returns:
            For each what was stored, or why nothing was.
        """
        drafts = self._put(jobs)
        if len(jobs) > 1:
            # Those that found no file left, as the others had them all open.
            for place, draft in enumerate(drafts):
                if draft.crowded_out:
                    (drafts[place],) = self._put([draft.job])
        return [draft.result for draft in drafts]

    def _put(self, jobs: list[Submission]) -> list[_Draft]:
        drafts = [_Draft(job) for job in jobs]
        for draft in drafts:
            self._attempt(draft, self._write)
        written = [draft for draft in drafts if draft.fd >= 0]
        if len(written) > 1:
            for draft in written:
                self._attempt(draft, self._begin_sync)
        for draft in written:
            self._attempt(draft, self._sync)
        for draft in drafts:
            if draft.open:
                self._attempt(draft, self._name)
        named = [draft for draft in drafts if draft.open]
        for directory in {directory_of(draft.path) for draft in named}:
            self._sync_names(directory, [draft for draft in named if directory_of(draft.path) == directory])
        return drafts

    def _attempt(self, draft: _Draft, step: Callable[[_Draft], None]) -> None:
        """Take a step; where it fails, leave nothing of the job."""
        try:
            step(draft)
        except OSError as error:
            draft.error = translated(error, "the message cannot be stored")
        except Exception as error:
            # Of one job; the others are well.
            draft.error = error
        else:
            return
        if draft.created:
            self._discard(draft.tmp)

    def _write(self, draft: _Draft) -> None:
        """E1 to E3."""
        files, job = self.files, draft.job
        if job.key is not None:
            self._prepare_memory()
            if self._is_known(draft.id):
                draft.stored = Stored(draft.id, None)
                return
        head = encode(job, draft.id)
        draft.size = size = len(head) + len(job.body)
        if size > self._allowance or job.created > self._allowed_until:
            self._check_room(size)
        self._allowance -= size
        fd = files.create("E1", draft.tmp)
        draft.created = True
        try:
            if size <= SMALL:
                files.write("E2", fd, head + job.body)
            else:
                files.write("E2", fd, head)
                files.write("E2", fd, job.body)
            if files.durable:
                files.reserve("E3", fd, size, RESERVE + RESERVE_EACH * len(job.envelope.recipients))
            if job.not_before > job.created:
                files.due_at("E3", draft.tmp, job.not_before)
        except BaseException:
            with suppress(OSError):
                files.close("E5", fd)
            raise
        draft.fd = fd

    def _prepare_memory(self) -> None:
        """E0: make the directory that remembers keys, while the caller can still be told that there is no room."""
        if KEYS not in self._subdirectories:
            self.files.make_directory("E0", KEYS)
            self._subdirectories.add(KEYS)

    def _begin_sync(self, draft: _Draft) -> None:
        """H1."""
        self.files.begin_sync(draft.fd)

    def _sync(self, draft: _Draft) -> None:
        """E4 and E5."""
        fd, draft.fd = draft.fd, -1
        try:
            if draft.error is not None:
                return
            self.files.sync("E4", fd)
            if draft.job.key is not None:
                draft.inode = self.files.status("E4", fd).st_ino
        finally:
            self.files.close("E5", fd)

    def _name(self, draft: _Draft) -> None:
        """E6 and E7."""
        draft.path = path = self._place(draft.id)
        if draft.job.key is None:
            self._link(draft.tmp, path)
        elif not self._named(draft.tmp, path):
            self._discard(draft.tmp)
            draft.stored = Stored(draft.id, None)
            return
        try:
            self.files.unlink("E7", draft.tmp)
        except FileNotFoundError:
            pass  # recovery has done it
        except BaseException:
            self.withdraw(draft.as_stored())
            raise

    def _sync_names(self, directory: str, drafts: list[_Draft]) -> None:
        """E8, once for all of a directory."""
        failed: OSError | None = None
        try:
            self.files.sync_directory("E8", directory)
        except OSError as error:
            failed = error
        for draft in drafts:
            stored = draft.as_stored()
            if failed is not None:
                self.withdraw(stored)
                # Each caller raises an error of its own.
                draft.error = translated(failed, "the message cannot be stored")
            else:
                draft.stored = stored
                self._shelf.lineup.push(max(draft.job.not_before, draft.job.created), draft.path)

    def _named(self, tmp: str, path: str) -> bool:
        """E6 for a job with a key, which somebody else may have put meanwhile."""
        with self._shelf.naming():
            id = path.rpartition("/")[2]
            there = self._shared(id)
            if there is None:
                if self._shelf.remembers("L4", id):
                    return False
                self._link(tmp, path)
                return True
        self.files.sync_directory("E8", directory_of(there))
        return False

    def _is_known(self, id: str) -> bool:
        """Look for a job with a key; if it is there, make sure of it: who put it may not have come as far as E8."""
        if self._shelf.find(id, tries=1) is None:
            return self._shelf.remembers("L4", id)
        with self._shelf.naming():
            there = self._shared(id)
        if there is not None:
            self.files.sync_directory("E8", directory_of(there))
        return there is not None

    def _shared(self, id: str) -> str | None:
        """Return where a job with a key is, if it is there; who put it may take it back no more."""
        found = self._shelf.find(id, tries=1)
        if found is None:
            return None
        path, state = found
        if state is State.QUEUED:
            try:
                self.files.share("E9", path + QUEUED)
            except FileNotFoundError:
                # An operator has just removed it.
                return None
        return path

    def _link(self, tmp: str, path: str) -> None:
        """E6."""
        name = path + QUEUED
        try:
            self.files.link("E6", tmp, name)
        except OSError:
            # It may have been done all the same: over a network.
            if not self._shelf.are_one("E6", tmp, name):
                raise

    def _discard(self, tmp: str) -> None:
        with suppress(OSError):
            self.files.unlink("E7", tmp)

    def withdraw(self, stored: Stored) -> bool:
        """Take back a job that was stored a moment ago; False if that would harm somebody.

        A worker may have it already, or somebody who put the same key was told that it is safe.
        """
        if stored.path is None:
            return False
        files, name = self.files, stored.path + QUEUED
        try:
            fd = files.open("E9", name)
        except OSError:
            return False
        try:
            if not files.lock("E9", fd) or not self._shelf.is_at(fd, name):
                return False
            status = files.status("E9", fd)
            if status.st_size != stored.size or stored.inode not in (None, status.st_ino):
                return False
            with nullcontext() if stored.inode is None else self._shelf.naming():
                if files.is_shared("E9", fd):
                    return False
                try:
                    files.unlink("E9", name)
                except OSError:
                    # It may have been done all the same: over a network.
                    if self._shelf.is_at(fd, name):
                        raise
            with suppress(OSError):
                # It is gone, whatever the disk says; nobody may be told that it is safe.
                files.sync_directory("E9", directory_of(name))
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _check_room(self, size: int) -> None:
        """Look whether there is room for `size` octets and more, and how much may be written before the next look."""
        self._largest = max(self._largest, size)
        low_water = max(LOW_WATER, 2 * self._largest) if self._low_water is None else self._low_water
        free = self.files.free() if low_water else 2**62
        if free < low_water + size:
            raise SpoolFull(f"{free} octets are left in the spool: {low_water} are to stay free")
        self._allowance = size + (free - low_water - size) // 2
        self._allowed_until = time.time() + LOOK_EACH

    def _place(self, id: str) -> str:
        """Return the path of a new job: in the root, or in a subdirectory if that is crowded."""
        self._uncounted += 1
        self._root_files += 1
        if self._uncounted >= COUNT_EACH:
            self._uncounted = 0
            self._root_files = sum(1 for _ in self.files.entries("L2", ""))
        if self._root_files <= CROWD:
            return id
        directory = hashed(id)
        if directory not in self._subdirectories:
            self.files.make_directory("E6", directory)
            self._subdirectories.add(directory)
        return f"{directory}/{id}"


def id_of(job: Submission) -> str:
    if job.key is not None:
        return hashlib.sha256(job.key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{time.time_ns():019d}-{secrets.token_hex(16)}"
