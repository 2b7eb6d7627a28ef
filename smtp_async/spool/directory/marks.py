"""The marks of end of data that one call makes: step D1 of the protocol in `job_files`.

In the first attempt the new name of the file is the mark, so that all marks of a call share the sync of the directory,
also with the ends of leases. A name cannot tell the number of its attempt. Therefore it counts for the first attempt
only, and only while the journal has no result of that attempt; in later attempts the mark is a record of the journal.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SMTPError
from ..entry import State
from ..record import journal_record
from .due_queue import directory_of
from .job_files import MARKED, JobFiles, LockedJob
from .name_syncs import NameSyncs
from .syscalls import translated

__all__ = ["Marks", "mark_record"]


class Marks:
    """The marks of one call.

    Args:
        job_files: the files of the spool directory.
        syncs: syncs the directories.

    Attributes:
        errors: why jobs could not be marked.
    """

    def __init__(self, job_files: JobFiles, syncs: NameSyncs) -> None:
        self._job_files = job_files
        self._syscalls = job_files.syscalls
        self._syncs = syncs
        # Jobs whose mark is a name, and those whose mark is a record.
        self._named: list[LockedJob] = []
        self._recorded: list[LockedJob] = []
        self.errors: dict[LockedJob, SMTPError] = {}

    def write(self, locked: LockedJob) -> None:
        """D1 before the sync, unless the job is marked."""
        if locked.marked:
            return
        locked.mark_started()
        if locked.is_first_attempt:
            if self._attempt(locked, self._rename):
                self._named.append(locked)
                if self._syscalls.durable:
                    self._syncs.add("D1", directory_of(locked.path))
        elif self._attempt(locked, self._append):
            self._recorded.append(locked)

    def begin_syncs(self) -> None:
        """H1: start writing the records to disk."""
        self._recorded = [locked for locked in self._recorded if self._attempt(locked, self._begin_sync)]

    def sync(self) -> None:
        """D1: wait until the marks are on disk."""
        self._syncs.run()
        for locked in self._named:
            error = self._syncs.error_of(directory_of(locked.path)) if self._syncs.failed else None
            if error is None:
                locked.mark_synced()
            else:
                self.errors[locked] = error
        for locked in self._recorded:
            if self._attempt(locked, self._sync):
                locked.mark_synced()

    def _attempt(self, locked: LockedJob, step: Callable[[LockedJob], None]) -> bool:
        """Take a step; keep its error, and return whether there was none."""
        try:
            step(locked)
        except OSError as error:
            message = f"the end-of-data mark of the job {locked.path} cannot be written"
            self.errors[locked] = translated(error, message)
            return False
        return True

    def _rename(self, locked: LockedJob) -> None:
        if locked.suffix != MARKED:
            self._job_files.rename("D1", locked, State.SENDING, marked=True)

    def _append(self, locked: LockedJob) -> None:
        self._syscalls.write("D1", locked.fd, mark_record(locked, self._syscalls.time()))

    def _begin_sync(self, locked: LockedJob) -> None:
        self._syscalls.begin_sync(locked.fd)

    def _sync(self, locked: LockedJob) -> None:
        self._syscalls.sync("D1", locked.fd)


def mark_record(locked: LockedJob, at: float) -> bytes:
    """Return the record that says what a mark says: the end of data of this attempt was about to be sent at `at`."""
    results = locked.entry.results
    pending = [place for place, result in enumerate(results) if result is None or not result.final]
    return journal_record(r="eod", n=locked.job.token, at=at, rcpts=pending)
