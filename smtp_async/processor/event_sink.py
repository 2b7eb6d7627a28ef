"""The receiver of all events of a processor: counts, the report of a run, and the hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import SMTPError
from ..events import Event, JobUnreadable
from ..hooks import Hooks
from ..spool.entry import Entry, Unreadable
from .control import RunControl
from .results import Fate, JobResult, QueueReport, Unfinished

__all__ = ["EventSink"]


class EventSink:
    """Counts how jobs end, keeps the report of a run, and publishes events.

    Args:
        hooks: of the processor.
        control: stops the run when a result ends it.
        stop_on_error: start no further job after the first one that failed.

    Attributes:
        counts: number of attempts that ended with each fate, since construction.
        unknown: number of attempts after which the outcome of a recipient was unknown.
    """

    def __init__(self, hooks: Hooks, control: RunControl, *, stop_on_error: bool) -> None:
        self._hooks: Final = hooks
        self._control: Final = control
        self._stop_on_error: Final = stop_on_error
        self.counts: Final = dict.fromkeys(Fate, 0)
        self.unknown = 0
        self._reporting = False
        self._sent: Final[list[str]] = []
        self._deferred: Final[list[Unfinished]] = []
        self._failed: Final[list[Unfinished]] = []
        self._unreadable: Final[dict[str, Unreadable]] = {}

    # --- events ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether any hook is registered."""
        return self._hooks.active

    def wants(self, event: type[Event]) -> bool:
        """Tell whether a hook is registered for `event`."""
        return self._hooks.wants(event)

    async def publish(self, event: Event) -> None:
        """Call the hooks registered for `event`."""
        if self._hooks.wants(type(event)):
            await self._hooks.tell((event,))

    async def publish_unreadable(self, found: Iterable[Unreadable]) -> None:
        """Report items that cannot be read as jobs, each once per run."""
        for one in found:
            if one.id not in self._unreadable:
                self._unreadable[one.id] = one
                await self.publish(JobUnreadable(id=one.id, reason=one.reason, kept=one.kept))

    # --- results ---------------------------------------------------------------------------------------------

    def begin_run(self, *, reporting: bool) -> None:
        """Forget the report of the last run; `reporting` keeps one of the run that begins."""
        self._reporting = reporting
        for kept in (self._sent, self._deferred, self._failed, self._unreadable):
            kept.clear()

    def job_ended(self, entry: Entry, result: JobResult) -> None:
        """Count a job whose lease has ended, and stop the processor if the result requires that."""
        self.counts[result.fate] += 1
        self.unknown += result.unknown
        if self._reporting:
            self._add(entry, result)
        if result.fate is Fate.FAILED and self._stop_on_error:
            self._control.stop_early(SMTPError(f"the job {entry.id} failed: {result.reason}"))

    def report(self) -> QueueReport:
        """Return the report of the run."""
        unreadable = [Unfinished(one.id, one.reason) for one in self._unreadable.values()]
        return QueueReport(
            tuple(self._sent),
            tuple(self._deferred),
            tuple(self._failed),
            self._control.error,
            tuple(unreadable),
        )

    def _add(self, entry: Entry, result: JobResult) -> None:
        if result.fate is Fate.DELIVERED:
            self._sent.append(entry.id)
        elif result.fate is Fate.DEFERRED:
            self._deferred.append(Unfinished(entry.id, result.reason, result.not_before))
        elif result.fate is Fate.FAILED:
            self._failed.append(Unfinished(entry.id, result.reason))
        elif self._control.stopping:
            self._control.note_untried_jobs()
