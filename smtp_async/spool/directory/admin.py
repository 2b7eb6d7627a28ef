"""What operators do with the jobs of a spool directory: look, hold, release, requeue, remove. Steps O and L."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from ...errors import Busy, NoSuchJob, RecordInvalid, RecordNewer, UsageError
from ..entry import Entry, SpoolStatistics, State, requeued
from ..record import Job, line
from .due_queue import directory_of
from .job_files import HELD, PLANTED, QUARANTINE, Held, Shelf, changed_by_burying

__all__ = ["Upkeep"]

_ID: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}")
_STATES: Final = {f".{state.value}": state for state in State}
#: The time in the id of a job without a key.
_TIME: Final = re.compile(r"([0-9]{19})-")
#: A job may change its name between two looks.
_TRIES: Final = 5

_T = TypeVar("_T")


class Upkeep:
    """Look after the jobs of a spool directory. Used by several threads.

    Args:
        shelf: its files.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._files = shelf.files

    # --- looking ---------------------------------------------------------------------------------------------

    def entry(self, id: str) -> Entry:
        """Return what is known about a job."""
        return self._seek(id, lambda path, state: self._look(path, state)[0].entry)

    def message(self, id: str) -> bytes:
        """Return the message of a job."""
        return self._seek(id, lambda path, state: self._look(path, state, message=True)[1])

    def names(self, directory: str, state: State | None) -> list[str]:
        """Return the names of the files of jobs in a directory."""
        suffixes = tuple(_STATES) if state is None else (f".{state.value}",)
        prefix = f"{directory}/" if directory else ""
        entries = self._files.entries("L5", directory)
        return [prefix + entry.name for entry in entries if entry.name.endswith(suffixes)]

    def entries(self, names: Iterable[str]) -> list[Entry]:
        """Read jobs; those that have gone, or are none, are left out, and so is what this user may not open."""
        found = []
        for name in names:
            path, _, suffix = name.rpartition(".")
            try:
                found.append(self._look(path, State(suffix))[0].entry)
            except RecordNewer as error:
                self._shelf.leave(path, State(suffix), error)
            except (FileNotFoundError, RecordInvalid):
                continue
            except OSError as error:
                if error.errno not in PLANTED:
                    raise
        return found

    def statistics(self) -> SpoolStatistics:
        """Count what is there, without opening a file."""
        counts = dict.fromkeys(State, 0)
        held = 0
        oldest = due = math.inf
        for directory in self._shelf.lineup.directories():
            for entry in self._files.entries("L5", directory):
                stem, _, suffix = entry.name.rpartition(".")
                state = _STATES.get(f".{suffix}")
                if state is None or not stem:
                    continue
                counts[state] += 1
                if state is State.SENT or state is State.FAILED:
                    continue
                try:
                    status = self._files.call("L6", entry.stat, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if state is State.QUEUED and status.st_mtime >= HELD:
                    held += 1
                elif state is State.QUEUED:
                    due = min(due, status.st_mtime)
                match = _TIME.match(stem)
                # The id of a job with a key does not tell; then it is as old as its last change.
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

    def _quarantined(self) -> int:
        try:
            return sum(1 for _ in self._files.entries("L5", QUARANTINE))
        except FileNotFoundError:
            return 0

    def _look(self, path: str, state: State, *, message: bool = False) -> tuple[Job, bytes]:
        fd = self._files.open("L7", f"{path}.{state.value}")
        try:
            status = self._files.status("L7", fd)
            self._shelf.check_file(status)
            job, body, damage = self._shelf.read("L7", fd, path, state, status.st_size, check=message)
            if damage:
                raise RecordInvalid(f"the job {job.entry.id} cannot be read: {damage}")
            if message and body is None:
                body = self._files.read("L7", fd, job.entry.size, job.header.body_at)
            return job, body or b""
        finally:
            os.close(fd)

    # --- changing --------------------------------------------------------------------------------------------

    def hold(self, id: str) -> None:
        """Keep a queued job from being claimed."""
        with _Open(self, id) as held:
            _must_be_queued(held)
            self._shelf.append("O1", held, line(r="hold", held=True, at=time.time()))
            self._due_at(held, HELD)

    def release(self, id: str) -> None:
        """Undo `hold`."""
        with _Open(self, id) as held:
            _must_be_queued(held)
            self._shelf.append("O1", held, line(r="hold", held=False, at=time.time()))
            self._due_at(held, held.job.entry.due(time.time()))

    def requeue(self, id: str, not_before: float | None, expires: float | None) -> None:
        """Try again those who have not got the message, now or at `not_before`."""
        with _Open(self, id) as held:
            if held.damage:
                raise RecordInvalid(f"the job {id} cannot be sent any more: {held.damage}")
            now = time.time()
            not_before = now if not_before is None else not_before
            requeued(held.job.entry, not_before, expires, now)
            record = line(r="requeue", not_before=not_before, expires=expires, at=now)
            self._shelf.append("O1", held, record)
            if held.state is not State.QUEUED:
                self._shelf.rename("O2", held, State.QUEUED)
                self._files.sync_directory("O3", directory_of(held.path))
            self._due_at(held, not_before)

    def remove(self, id: str) -> None:
        """Delete a job."""
        with _Open(self, id) as held:
            self._shelf.bury("O4", held)
            for directory in changed_by_burying(held):
                self._shelf.sync_names("O5", directory)
            if held.job.entry.key is not None:
                self._files.empty("O5", held.fd)

    def open(self, id: str) -> Held:
        """Open and lock a job that nobody is sending."""

        def grasp(path: str, state: State) -> Held:
            if state is State.SENDING:
                raise Busy(f"the job {id} is being sent")
            held = self._shelf.grasp("O", path, state)
            if held is None:
                raise FileNotFoundError(path)
            return held

        return self._seek(id, grasp)

    def _due_at(self, held: Held, when: float) -> None:
        self._files.due_at("O6", held.name, when)
        # A time that changes in a file is not seen in its directory.
        self._files.touch_directory("O7", directory_of(held.path))
        self._shelf.lineup.push(when, held.path)

    def _seek(self, id: str, use: Callable[[str, State], _T]) -> _T:
        if not isinstance(id, str) or _ID.fullmatch(id) is None:
            raise NoSuchJob("that is not the id of a job")
        for _ in range(_TRIES):
            found = self._shelf.find(id)
            if found is None:
                break
            try:
                return use(*found)
            except FileNotFoundError:
                continue
        raise NoSuchJob(f"there is no job {id}")


class _Open:
    """A job that is open and locked while it is changed."""

    def __init__(self, upkeep: Upkeep, id: str) -> None:
        self._held = upkeep.open(id)

    def __enter__(self) -> Held:
        return self._held

    def __exit__(self, *details: object) -> None:
        os.close(self._held.fd)


def _must_be_queued(held: Held) -> None:
    if held.state is not State.QUEUED:
        raise UsageError(f"the job {held.job.entry.id} is not queued but {held.state.value}")
