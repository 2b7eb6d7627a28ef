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
#: Seconds after which the free room is looked at again, however little was written.
LOOK_EACH: Final = 1.0
#: What is left free by default.
LOW_WATER: Final = 64 * 2**20


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

    def put(self, job: Submission) -> Stored:
        """Store a job.

        Raises:
            SpoolFull, SpoolError: nothing was stored.
        """
        id = id_of(job)
        tmp = f"{TMP}/{id}"
        if job.key is not None:
            # The same key may come twice at the same time.
            tmp += f".{secrets.token_hex(4)}"
        head = encode(job, id)
        size = len(head) + len(job.body)
        try:
            if job.key is not None and self._is_known(id):
                return Stored(id, None)
            if size > self._allowance or job.created > self._allowed_until:
                self._check_room(size)
            self._allowance -= size
            inode = self._write(tmp, job, head)
        except SpoolError:
            raise
        except OSError as error:
            raise translated(error, "the message cannot be stored") from error
        try:
            path = self._place(id)
            stored = Stored(id, path, size, inode)
            if job.key is None:
                self._link(tmp, path)
            elif not self._named(tmp, path):
                self._discard(tmp)
                return Stored(id, None)
            self._publish(tmp, stored)
        except SpoolError:
            self._discard(tmp)
            raise
        except OSError as error:
            self._discard(tmp)
            raise translated(error, "the message cannot be stored") from error
        self._shelf.lineup.push(max(job.not_before, job.created), path)
        return stored

    def _write(self, tmp: str, job: Submission, head: bytes) -> int | None:
        """E1 to E5; return the inode, if its name may be another's one day."""
        files, size = self.files, len(head) + len(job.body)
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
                elif job.not_before > job.created:
                    files.due_at("E3", tmp, job.not_before)
                return None if job.key is None else files.status("E4", fd).st_ino
            finally:
                files.close("E5", fd)
        except BaseException:
            self._discard(tmp)
            raise

    def _named(self, tmp: str, path: str) -> bool:
        """E6 for a job with a key, which somebody else may have put meanwhile."""
        with self._shelf.naming():
            there = self._shared(path.rpartition("/")[2])
            if there is None:
                self._link(tmp, path)
                return True
        self.files.sync_directory("E8", directory_of(there))
        return False

    def _is_known(self, id: str) -> bool:
        """Look for a job with a key; if it is there, make sure of it: who put it may not have come as far as E8."""
        if self._shelf.find(id, tries=1) is None:
            return False
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

    def _publish(self, tmp: str, stored: Stored) -> None:
        """E7 and E8."""
        try:
            try:
                self.files.unlink("E7", tmp)
            except FileNotFoundError:
                pass  # recovery has done it
            self.files.sync_directory("E8", directory_of(stored.path or ""))
        except BaseException:
            self.withdraw(stored)
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
                files.unlink("E9", name)
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
