"""How the lease of a job in a spool directory is to end: a value, and which of its steps are completed."""

from __future__ import annotations

from ..entry import State
from .due_queue import directory_of
from .job_files import LockedJob, directories_changed_by_delete

__all__ = ["LeaseEnd"]


class LeaseEnd:
    """How a lease is to end, and which of these steps are completed.

    Attributes:
        locked: the job.
        state: the new state of the job; None removes the job.
        record: the record to append first, None if there is none or it is on disk.
        record_optional: the record may be lost, because the name of the file has the same information.
        when: when the job is due again, if it is queued again.
        renamed: the name of the file was changed or removed.
        done: all steps are completed, or the lease was lost.
        failed: a step failed in the latest try.
    """

    __slots__ = ("done", "failed", "locked", "record", "record_optional", "renamed", "state", "when")

    def __init__(
        self,
        locked: LockedJob,
        state: State | None,
        record: bytes | None = None,
        *,
        when: float | None = None,
        record_optional: bool = False,
    ) -> None:
        self.locked = locked
        self.state = state
        self.record = record
        self.when = when
        self.record_optional = record_optional
        self.renamed = False
        self.done = False
        self.failed = False

    @property
    def directories(self) -> list[str]:
        """The directories in which names change, in the order in which they are to be synced."""
        if self.state is None:
            return directories_changed_by_delete(self.locked)
        return [directory_of(self.locked.path)]

    @property
    def step(self) -> str:
        """The name of the steps that do not remove a name."""
        return "S4" if self.state is State.FAILED else "S3"

    @property
    def needs_sync(self) -> bool:
        """Whether a record has to be on disk before the name changes."""
        return self.record is not None and not self.record_optional

    def record_written(self) -> None:
        """Record that the journal is complete."""
        self.record = None

    def name_changed(self) -> None:
        """Record that the name of the file was changed or removed."""
        self.renamed = True

    def completed(self) -> None:
        """Record that all steps are completed."""
        self.done = True

    def not_completed(self) -> None:
        """Record that a step failed."""
        self.failed = True
