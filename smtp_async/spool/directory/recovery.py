"""Recovery of a spool directory after processes died: steps R and T, see `job_files` and `keys`."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from typing import Final

from ...errors import Busy, RecordNewer
from ..entry import POISON, Entry, Recovery, State
from ..record import journal_record
from .due_queue import directory_of
from .job_files import MARKED, TMP, JobFiles, LockedJob
from .syscalls import logged_errors, translated

__all__ = ["recover"]

#: Seconds after which an unfinished file in `tmp/` is removed; no `put` takes a day and a half.
ABANDONED_AFTER: Final = 36 * 3600.0

_SUFFIXES: Final = (f".{State.SENDING.value}", f".{MARKED}")

_log = logging.getLogger("smtp_async")


def recover(job_files: JobFiles) -> Recovery:
    """Queue the jobs of dead workers again, and remove unfinished files and old keys.

    Raises:
        SpoolError: a system call failed. The next call does the remaining work.
    """
    try:
        entries = [
            entry for name in _sending(job_files) if (entry := _recovered(job_files, name)) is not None
        ]
    except OSError as error:
        raise translated(error, "the recovery of the spool failed") from error
    # Errors from here on are logged, because the caller has to learn which jobs were recovered.
    with logged_errors("jobs of a later version"):
        job_files.forget_ended_newer()
    with logged_errors(TMP):
        _remove_unfinished(job_files)
    job_files.keys.forget_old()
    requeued = [entry for entry in entries if entry.state is not State.FAILED]
    return Recovery(
        tuple([entry.id for entry in requeued]),
        tuple([entry.id for entry in requeued if entry.flagged]),
        tuple([entry.id for entry in entries if entry.state is State.FAILED]),
    )


def _sending(job_files: JobFiles) -> Iterator[str]:
    """Iterate over the names of all jobs that are being sent."""
    for directory in job_files.due_queue.directories():
        prefix = f"{directory}/" if directory else ""
        entries = job_files.syscalls.entries("R0", directory)
        # A list, because the names are about to change.
        for name in [entry.name for entry in entries if entry.name.endswith(_SUFFIXES)]:
            yield prefix + name


def _recovered(job_files: JobFiles, name: str) -> Entry | None:
    """Recover a job whose worker died; return None if the worker lives, or had recorded the end of the job."""
    path, _, suffix = name.rpartition(".")
    try:
        locked = job_files.open_locked("R", path, State.SENDING, marked=suffix == MARKED)
    except (Busy, FileNotFoundError, RecordNewer):
        return None
    except OSError as error:
        _log.error("the job %s cannot be recovered: %s", path, error)
        return None
    if locked is None:
        return None
    try:
        return _take_back(job_files, locked)
    except OSError as error:
        # The file is still named `.sending`, so the next recovery finds the job.
        _log.error("the job %s cannot be recovered: %s", path, error)
        return None
    finally:
        os.close(locked.fd)


def _take_back(job_files: JobFiles, locked: LockedJob) -> Entry | None:
    job, syscalls = locked.job, job_files.syscalls
    if job.ended is State.FAILED or job.ended is State.SENT:
        # The worker died between recording the end of the job and renaming its file.
        _rename(job_files, locked, job.ended)
        return None
    at = syscalls.time()
    record = journal_record(r="recovered", n=job.token, at=at)
    if job.mark_unrecorded:
        # The name says so until R7, and nothing else.
        record = journal_record(r="eod", n=1, at=at) + record
    job_files.append("R5", locked, record)
    poisoned = job.entry.recoveries + 1 >= POISON
    state = State.FAILED if poisoned else State.QUEUED
    if poisoned:
        _log.error("the job %s has failed, because %d workers have died with it", job.entry.id, POISON)
    else:
        # The job was due when it was claimed, unless the worker died while deferring it.
        syscalls.due_at("R6", locked.name, job.entry.due(syscalls.time()))
    _rename(job_files, locked, state)
    if not poisoned:
        job_files.due_queue.push(job.entry.not_before, locked.path)
    return locked.recovered(state)


def _rename(job_files: JobFiles, locked: LockedJob, state: State) -> None:
    job_files.rename("R7", locked, state)
    job_files.syscalls.sync_directory("R8", directory_of(locked.path))


def _remove_unfinished(job_files: JobFiles) -> None:
    """Remove files in `tmp/` that dead puts left: second names of queued jobs, and unfinished files."""
    now = job_files.syscalls.time()
    for entry in job_files.syscalls.entries("T1", TMP):
        name = f"{TMP}/{entry.name}"
        with logged_errors(name):
            status = entry.stat(follow_symlinks=False)
            finished = status.st_nlink > 1
            if stat.S_ISREG(status.st_mode) and (finished or now - status.st_ctime > ABANDONED_AFTER):
                job_files.syscalls.unlink("T2", name)
