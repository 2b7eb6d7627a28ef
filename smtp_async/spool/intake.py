"""Enqueue: steps E1 to E8 (see `shelf`)."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import nullcontext, suppress
from typing import Final, NamedTuple

from ..errors import SpoolError, SpoolFull
from .entry import State
from .files import translated
from .lineup import QUEUED, directory_of
from .record import encode
from .shelf import RESERVE, SMALL, TMP, Shelf, hashed
from .submission import Submission

__all__ = ["Intake", "Stored", "id_of"]

#: Octets of journal that are reserved for each recipient.
RESERVE_EACH: Final = 256
#: Files in the root above which new ones go into subdirectories, and after how many they are counted again.
CROWD: Final = 10_000
COUNT_EACH: Final = 1000
#: What is left free by default.
LOW_WATER: Final = 64 * 2**20


class Stored(NamedTuple):
    """A job that was put.

    Attributes:
        id: its id.
        path: its name without suffix; None if a job of this key was there already.
        inode: of its file.
        keyed: another put may be told of it.
    """

    id: str
    path: str | None = None
    inode: int | None = None
    keyed: bool = False


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
        self._root_files = 0
        self._uncounted = COUNT_EACH
        self._subdirectories: set[str] = set()

    def put(self, job: Submission) -> Stored:
        """Store a job.

        Raises:
            SpoolFull, SpoolError: nothing was stored.
        """
        id = id_of(job)
        tmp = f"{TMP}/{id}"
        try:
            if job.key is not None:
                if self._shelf.find(id, tries=1) is not None:
                    with self._shelf.naming():
                        known = self._known(id)
                    if known is not None:
                        return self._synced(known)
                # The same key may come twice at the same time.
                tmp += f".{secrets.token_hex(4)}"
            self._check_room(len(job.body))
            inode = self._write(tmp, job, id)
            try:
                return self._publish(tmp, id, job, inode)
            except BaseException:
                self._discard(tmp)
                raise
        except SpoolError:
            raise
        except OSError as error:
            raise translated(error, "the message cannot be stored") from error

    def _known(self, id: str) -> Stored | None:
        """Look for a job with a key, under the lock of its name; who put it may take it back no more."""
        found = self._shelf.find(id, tries=1)
        if found is None:
            return None
        path, state = found
        if state is State.QUEUED:
            try:
                self.files.share("E9", f"{path}{QUEUED}")
            except FileNotFoundError:
                # An operator has just removed it.
                return None
        return Stored(id, path)

    def _synced(self, known: Stored) -> Stored:
        """Make sure of a job that was there: who put it may not have come so far."""
        self.files.sync_directory("E8", directory_of(known.path or ""))
        return Stored(id=known.id)

    def _write(self, tmp: str, job: Submission, id: str) -> int:
        files = self.files
        head = encode(job, id)
        size = len(head) + len(job.body)
        fd = files.create("E1", tmp)
        try:
            try:
                if size <= SMALL:
                    files.write("E2", fd, head + job.body)
                else:
                    files.write("E2", fd, head)
                    files.write("E2", fd, job.body)
                if files.durable:
                    files.reserve("E3", fd, size, RESERVE + RESERVE_EACH * len(job.envelope.recipients))
                if job.not_before > job.created:
                    files.due_at("E3", tmp, job.not_before)
                files.sync("E4", fd)
                inode = files.status("E4", fd).st_ino
            finally:
                files.close("E5", fd)
        except BaseException:
            self._discard(tmp)
            raise
        return inode

    def _publish(self, tmp: str, id: str, job: Submission, inode: int) -> Stored:
        path = self._place(id)
        stored = Stored(id, path, inode, keyed=job.key is not None)
        if not stored.keyed:
            self._link(tmp, stored)
        else:
            with self._shelf.naming():
                known = self._known(id)
                if known is None:
                    self._link(tmp, stored)
            if known is not None:
                self._discard(tmp)
                return self._synced(known)
        try:
            # Recovery may have done it already.
            with suppress(FileNotFoundError):
                self.files.unlink("E7", tmp)
            self.files.sync_directory("E8", directory_of(path))
        except BaseException:
            self.withdraw(stored)
            raise
        self._shelf.lineup.push(max(job.not_before, job.created), path)
        return stored

    def _link(self, tmp: str, stored: Stored) -> None:
        name = f"{stored.path}{QUEUED}"
        try:
            self.files.link("E6", tmp, name)
        except OSError:
            # It may have been done all the same: over a network.
            status = self.files.look("E6", name)
            if status is None or status.st_ino != stored.inode:
                raise

    def _discard(self, tmp: str) -> None:
        with suppress(OSError):
            self.files.unlink("E7", tmp)

    def withdraw(self, stored: Stored) -> bool:
        """Take back a job that was stored a moment ago; False if that would harm somebody.

        A worker may have it already, or somebody who put the same key was told that it is safe.
        """
        if stored.inode is None:
            return False
        files, name = self.files, f"{stored.path}{QUEUED}"
        try:
            fd = files.open("E9", name)
        except OSError:
            return False
        try:
            if not files.lock("E9", fd) or files.status("E9", fd).st_ino != stored.inode:
                return False
            with self._shelf.naming() if stored.keyed else nullcontext():
                if not self._shelf.is_at(fd, name) or files.is_shared("E9", fd):
                    return False
                files.unlink("E9", name)
            files.sync_directory("E9", directory_of(name))
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _check_room(self, size: int) -> None:
        self._largest = max(self._largest, size)
        low_water = max(LOW_WATER, 2 * self._largest) if self._low_water is None else self._low_water
        if not low_water:
            return
        try:
            free = self.files.free()
        except OSError as error:
            raise translated(error, "the room in the spool cannot be told") from error
        if free < low_water + size:
            raise SpoolFull(f"{free} octets are left in the spool: {low_water} are to stay free")

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
