"""The directories whose names one call has changed: each is synced once, for all jobs of the call."""

from __future__ import annotations

from ...errors import SpoolError
from .job_files import JobFiles
from .keys import KEYS
from .syscalls import translated

__all__ = ["NameSyncs"]


class NameSyncs:
    """Syncs the directories in which names were changed.

    Args:
        job_files: the files of the spool directory.
    """

    def __init__(self, job_files: JobFiles) -> None:
        self._job_files = job_files
        # The step by which each directory was changed last.
        self._unsynced: dict[str, str] = {}
        self._errors: dict[str, SpoolError] = {}

    def add(self, step: str, *directories: str) -> None:
        """Note that names in these directories were changed, and with which step the change is complete."""
        for directory in directories:
            self._unsynced[directory] = step

    def run(self) -> None:
        """D1 and S2: sync each directory in which names were changed since the last run."""
        if not self._unsynced:
            return
        # The directory of keys first, because a job must not lose its name before its key has one.
        for directory in sorted(self._unsynced, key=lambda name: name != KEYS):
            try:
                self._job_files.sync_names(self._unsynced[directory], directory)
            except OSError as error:
                self._errors[directory] = translated(error, "the names of jobs cannot be synced")
        self._unsynced.clear()

    @property
    def failed(self) -> bool:
        """Whether a directory could not be synced."""
        return bool(self._errors)

    def error_of(self, *directories: str) -> SpoolError | None:
        """Return why one of these directories could not be synced, None if all were."""
        errors = [self._errors[name] for name in directories if name in self._errors]
        return errors[0] if errors else None
