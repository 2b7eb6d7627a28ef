"""Claiming jobs, marking end of data, and ending leases: steps C, D and S of the protocol in `job_files`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from threading import BoundedSemaphore, Lock
from typing import Final

from ...errors import Busy, LeaseLost, RecordNewer, SMTPError, SpoolError
from ..entry import State
from ..record import journal_record
from .due_queue import HELD_UNTIL
from .job_files import JobFiles, LockedJob, NeedsThread
from .lease_end import LeaseEnd
from .marks import Marks, mark_record
from .name_syncs import NameSyncs
from .syscalls import translated

__all__ = ["Claims"]

#: Seconds after which a job whose file could not be read is tried again.
UNREADABLE_RETRY: Final = 30.0
#: Seconds after which a job that another process has locked is tried again.
LOCKED_RETRY: Final = 1.0
#: Bounds of the pause, in seconds, before an end of a lease that failed is tried again.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: Maximum number of removed files that may wait to be closed, and of threads that close them.
MAX_REMOVED_OPEN: Final = 64
MAX_CLOSERS: Final = 4

_log = logging.getLogger("smtp_async")


class Claims:
    """The claimed jobs of a spool directory: claims, end-of-data marks, ends of leases. Used by several threads.

    Args:
        job_files: the files of the directory.
    """

    def __init__(self, job_files: JobFiles) -> None:
        self._job_files = job_files
        self._syscalls = job_files.syscalls
        self._due_queue = job_files.due_queue
        self._lock = Lock()
        # Held while ends that failed are tried again.
        self._retrying = Lock()
        # The claimed jobs, and the end of each lease once it is known.
        self._claimed: dict[LockedJob, LeaseEnd | None] = {}
        # Ends that failed. Their jobs stay locked, so that no worker sends them again.
        self._unfinished: list[LeaseEnd] = []
        self._pause = FIRST_PAUSE
        self._retry_at = 0.0
        # File descriptors of removed jobs that are still to be closed, and whether the file has to be emptied first
        # because it remembers a key.
        self._removed: list[tuple[int, bool]] = []
        self._closers = BoundedSemaphore(MAX_CLOSERS)

    @property
    def durable(self) -> bool:
        """Whether marks and ends of leases are synced."""
        return self._syscalls.durable

    # --- claiming --------------------------------------------------------------------------------------------

    def claim(self, n: int, now: float, *, marked: bool, inline: bool = False) -> list[LockedJob]:
        """Claim up to `n` due jobs.

        Args:
            n: the maximum number of jobs.
            now: the current time.
            marked: mark end of data for all of them.
            inline: the call is made in the event loop: stop before the first job that would take long.
        """
        if inline and self._unfinished:
            # Retrying an end may have to wait for another process's lock.
            return []
        self.retry_unfinished()
        claimed: list[LockedJob] = []
        due: list[tuple[float, str]] = []
        try:
            while len(claimed) < n:
                due = self._due_queue.take(now, n - len(claimed), read=not inline)
                if not due or not self._claim_each(due, now, claimed, marked=marked, inline=inline):
                    break
            if marked:
                for error in self.mark(claimed):
                    if error is not None:
                        raise error
        except BaseException as error:
            if not claimed or not isinstance(error, SpoolError) or marked:
                self.unclaim(claimed)
                raise
            # Return the jobs already claimed; a general fault shows at the next claim.
        finally:
            # Put the jobs back that were not tried.
            for when, path in due:
                self._due_queue.push(when, path)
        return claimed

    def _claim_each(
        self,
        due: list[tuple[float, str]],
        now: float,
        claimed: list[LockedJob],
        *,
        marked: bool,
        inline: bool,
    ) -> bool:
        """Claim the jobs of `due` and remove them from it; return False if a job needs a thread."""
        due.reverse()
        while due:
            when, path = due.pop()
            try:
                locked = self._claim_one(path, now, marked=marked, inline=inline)
            except NeedsThread:
                due.append((when, path))
                return False
            except SpoolError:
                # Try this job later, so that it does not keep the others from being claimed.
                self._due_queue.push(now + UNREADABLE_RETRY, path)
                raise
            if locked is not None:
                claimed.append(locked)
        return True

    def _claim_one(self, path: str, now: float, *, marked: bool, inline: bool) -> LockedJob | None:
        try:
            locked = self._job_files.open_locked("C", path, State.QUEUED, inline=inline)
            if locked is None:
                return None
            try:
                if inline and locked.has_key:
                    # Its name is changed under a lock that another process may have.
                    raise NeedsThread
                if not self._is_due(locked, now):
                    self._syscalls.close("C4", locked.fd)
                    return None
                self._job_files.rename("C5", locked, State.SENDING, marked=marked and locked.is_first_attempt)
                self._claimed[locked] = None
            except BaseException:
                os.close(locked.fd)
                raise
        except (FileNotFoundError, RecordNewer):
            return None
        except Busy:
            # Another process is about to send or to change the job.
            self._due_queue.push(now + LOCKED_RETRY, path)
            return None
        except OSError as error:
            raise translated(error, f"the job {path} cannot be claimed") from error
        return locked

    def _is_due(self, locked: LockedJob, now: float) -> bool:
        """Return whether the journal says that the job is due; correct its name or mtime otherwise."""
        entry, ended = locked.entry, locked.job.ended
        if ended is State.FAILED or ended is State.SENT:
            # The end of the job was recorded, and a power failure undid the rename.
            self._job_files.rename("C5", locked, ended)
            return False
        when = HELD_UNTIL if entry.held else entry.due(self._syscalls.time())
        if when > now:
            self._syscalls.due_at("C4", locked.name, when)
            self._due_queue.push(when, locked.path)
            return False
        return True

    def unclaim(self, claimed: list[LockedJob]) -> bool:
        """Release jobs whose claim was cancelled."""
        self.end([self.release_end(locked) for locked in claimed])
        return True

    # --- marks and ends --------------------------------------------------------------------------------------

    def update(self, updates: list[LockedJob | LeaseEnd]) -> list[SMTPError | None]:
        """Mark each job and do each end, sharing the syncs; return the error of each, or None."""
        # Wait here if the files of removed jobs are freed more slowly than new ones are added.
        self._close_removed(MAX_REMOVED_OPEN)
        syncs = NameSyncs(self._job_files)
        marks = Marks(self._job_files, syncs)
        for one in updates:
            if isinstance(one, LockedJob):
                marks.write(one)
        if len(updates) > 1:
            marks.begin_syncs()
        ends = [one for one in updates if isinstance(one, LeaseEnd)]
        ended = dict(zip(ends, self._end(ends, syncs), strict=True))
        marks.sync()
        return [ended[one] if isinstance(one, LeaseEnd) else marks.errors.get(one) for one in updates]

    def update_alone(self, update: LockedJob | LeaseEnd) -> None:
        """Mark a job or do an end without syncs, in the event loop: there is no sync to share with others.

        Raises:
            SMTPError: the mark cannot be written, or the end cannot be recorded.
        """
        if isinstance(update, LockedJob):
            marks = Marks(self._job_files, NameSyncs(self._job_files))
            marks.write(update)
            marks.sync()
            error = marks.errors.get(update)
        else:
            error = self._end_error(update, self._write_record) or self._end_error(update, self._change_name)
            if error is None:
                self._complete(update)
            if error is not None or self._unfinished:
                self._keep_for_retry([] if update.done else [update])
        if error is not None:
            raise error

    def mark(self, jobs: list[LockedJob]) -> list[SMTPError | None]:
        """Mark end of data for each job; return the error of each, or None."""
        return self.update([*jobs])

    def release_end(self, locked: LockedJob) -> LeaseEnd:
        """Return the end that releases a job unchanged."""
        record = None
        if locked.maybe_marked and not locked.is_first_attempt:
            record = journal_record(r="untouched", n=locked.job.token, at=self._syscalls.time())
        return LeaseEnd(locked, State.QUEUED, record)

    def end(self, ends: list[LeaseEnd]) -> list[SMTPError | None]:
        """Do the remaining steps of each end; return the error of each, or None.

        A job whose end failed stays locked, and its end is tried again.
        """
        return self._end(ends, NameSyncs(self._job_files))

    def _end(self, ends: list[LeaseEnd], syncs: NameSyncs) -> list[SMTPError | None]:
        if not ends:
            return []
        # The same end may be given twice, if the caller repeats it while it is being retried.
        distinct = dict.fromkeys(ends)
        if any([end.failed for end in distinct]):
            with self._retrying:
                errors = self._finish(distinct, syncs)
        else:
            errors = self._finish(distinct, syncs)
        if self._unfinished or errors:
            self._keep_for_retry([end for end in distinct if not end.done])
        return [errors.get(end) for end in ends]

    def _finish(self, ends: dict[LeaseEnd, None], syncs: NameSyncs) -> dict[LeaseEnd, SMTPError]:
        """Do the remaining steps of each end; return the errors."""
        errors = self._change_names(ends)
        if self._syscalls.durable:
            for end in ends:
                if end.renamed and not end.done:
                    syncs.add("S2", *end.directories)
            syncs.run()
        failed = syncs.failed
        for end in ends:
            if end in errors or end.done:
                continue
            if failed and (error := syncs.error_of(*end.directories)) is not None:
                errors[end] = error
            else:
                self._complete(end)
        return errors

    def _change_names(self, ends: dict[LeaseEnd, None]) -> dict[LeaseEnd, SMTPError]:
        """S1, S3 and S4: write the records and change the names; return the errors."""
        errors: dict[LeaseEnd, SMTPError] = {}
        remaining = [end for end in ends if not end.renamed]
        hint = (self._start_record_sync,) if len(remaining) > 1 else ()
        for step in (self._write_record, *hint, self._change_name):
            for end in remaining:
                if end not in errors and (error := self._end_error(end, step)) is not None:
                    errors[end] = error
        return errors

    def _end_error(self, end: LeaseEnd, step: Callable[[LeaseEnd], None]) -> SMTPError | None:
        try:
            step(end)
        except LeaseLost as error:
            end.completed()
            return error
        except OSError as error:
            return translated(error, f"the end of the job {end.locked.path} cannot be recorded")
        return None

    def _write_record(self, end: LeaseEnd) -> None:
        """S3 and S4: append the result."""
        if not self._is_first_end(end):
            raise LeaseLost(f"the lease of the job {end.locked.path} has ended")
        if end.record is not None:
            try:
                self._syscalls.write(end.step, end.locked.fd, end.record)
            except OSError:
                if not end.record_optional:
                    raise

    def _is_first_end(self, end: LeaseEnd) -> bool:
        """Return whether `end` is the first end of a lease that has not been forgotten."""
        with self._lock:
            first = self._claimed.get(end.locked)
            if first is None and end.locked in self._claimed:
                self._claimed[end.locked] = first = end
            return first is end

    def _start_record_sync(self, end: LeaseEnd) -> None:
        """H1: begin to write the record to the disk, before the thread waits for it."""
        if end.needs_sync:
            self._syscalls.begin_sync(end.locked.fd)

    def _change_name(self, end: LeaseEnd) -> None:
        """The remaining steps of S1, S3 and S4, up to the change of the name."""
        locked, step = end.locked, end.step
        if locked.maybe_marked and not locked.marked:
            self._job_files.correct_name(step, locked)
        if end.needs_sync:
            self._syscalls.sync(step, locked.fd)
        end.record_written()
        if end.when is not None and end.state is State.QUEUED:
            self._syscalls.due_at(step, locked.name, end.when)
        if end.state is None:
            self._job_files.delete("S1", locked)
        else:
            self._job_files.rename("S1" if end.state is State.SENT else step, locked, end.state)
        end.name_changed()

    def _complete(self, end: LeaseEnd) -> None:
        """S5: close the file, or leave that to `close_removed`."""
        with self._lock:
            if end.done:
                return
            end.completed()
            fd = end.locked.detach()
            self._claimed.pop(end.locked, None)
        if end.state is None and (self._syscalls.durable or end.locked.has_key):
            self._removed.append((fd, end.locked.has_key))
            return
        with suppress(OSError):
            # An error does not matter, because all data are synced.
            self._syscalls.close("S5", fd)
        if end.state is State.QUEUED:
            when = end.locked.entry.not_before if end.when is None else end.when
            self._due_queue.push(when, end.locked.path)

    # --- failed ends -----------------------------------------------------------------------------------------

    def _keep_for_retry(self, failed: list[LeaseEnd]) -> None:
        with self._lock:
            self._unfinished = [end for end in self._unfinished if not end.done]
            for end in failed:
                end.not_completed()
                if end not in self._unfinished:
                    self._unfinished.append(end)
                    _log.error("the end of the job %s cannot be recorded yet", end.locked.path)

    def retry_unfinished(self) -> None:
        """Try the ends that failed again; called before jobs are claimed.

        No job is claimed before all ends are recorded, because after a crash the messages would be sent again.

        Raises:
            SpoolError: an end failed again, or the pause before the next try is not over.
        """
        with self._lock:
            unfinished = [end for end in self._unfinished if not end.done]
        if not unfinished:
            return
        if self._syscalls.monotonic() < self._retry_at:
            raise SpoolError("the results of earlier messages cannot be recorded; the next try is soon")
        errors = [error for error in self.end(unfinished) if error is not None]
        self.close_removed()
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if errors else FIRST_PAUSE
        if errors:
            self._retry_at = self._syscalls.monotonic() + self._pause
            raise errors[0]

    # --- closing ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the claimed jobs and close all files."""
        with suppress(SpoolError):
            self.retry_unfinished()
        remaining = [locked for locked, end in list(self._claimed.items()) if end is None]
        self.end([self._end_unfinished(locked) for locked in remaining])
        self.close_files()

    def _end_unfinished(self, locked: LockedJob) -> LeaseEnd:
        """Return the end of a lease that its worker did not end: a marked job may have been sent and stays flagged."""
        record = None
        if locked.maybe_marked and locked.is_first_attempt:
            # The mark is the name, which is about to change.
            record = mark_record(locked, self._syscalls.time())
        return LeaseEnd(locked, State.QUEUED, record)

    def close_files(self) -> None:
        """Close all files, whatever their state. Does nothing else, so that a forked child can call it."""
        for locked in list(self._claimed):
            self.forget(locked)
        self._close_removed(0)

    def forget(self, locked: LockedJob) -> None:
        """Close the file of a job, as the kernel does for a process that dies."""
        self._claimed.pop(locked, None)
        with suppress(OSError):
            os.close(locked.detach())

    def close_removed(self) -> None:
        """S5 for removed jobs: close their files, which takes time because the file system frees their blocks.

        No more than `MAX_CLOSERS` threads do that at once; the others leave it to them.
        """
        while self._removed and self._closers.acquire(blocking=False):
            self._close_removed(0)
            self._closers.release()

    def _close_removed(self, remaining: int) -> None:
        while len(self._removed) > remaining:
            try:
                fd, keyed = self._removed.pop()
            except IndexError:
                return  # another thread has closed the last files
            if keyed:
                with suppress(OSError):
                    # Recovery empties the file if this fails.
                    self._syscalls.empty("S5", fd)
            with suppress(OSError):
                self._syscalls.close("S5", fd)
