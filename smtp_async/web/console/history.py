"""Remembers what a processor has told of each job, so that a job can be shown with its attempts."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from ...events import JobDeferred, JobFailed, JobQueued, JobSent, JobStarted, QueuePaused, QueueResumed
from ...hooks import Observed
from ...model.receipt import Receipt
from ...model.reply import printable

__all__ = ["History"]

#: Jobs of which events are remembered; the one that changed longest ago is forgotten first.
MOST_JOBS: Final = 5000
#: Events of one job that are remembered.
MOST_EVENTS: Final = 50
#: Events of all jobs that are shown as they come.
MOST_RECENT: Final = 100


class History:
    """The events of a processor, by job.

    Args:
        processor: publishes the events.
        changed: called after each event.
        clock: returns the current time, in seconds of the epoch.
    """

    def __init__(
        self, processor: Observed, changed: Callable[[], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._numbers = itertools.count(1)
        self._jobs: OrderedDict[str, deque[dict[str, Any]]] = OrderedDict()
        self._recent: deque[dict[str, Any]] = deque(maxlen=MOST_RECENT)
        processor.on(JobQueued, self._queued)
        processor.on(
            JobStarted, lambda event: self._add("started", event.id, text=f"attempt {event.attempt}")
        )
        processor.on(JobSent, lambda event: self._add("sent", event.id, text=_reply_text(event.receipt)))
        processor.on(JobDeferred, self._deferred)
        processor.on(JobFailed, lambda event: self._add("failed", event.id, text=event.reason))
        processor.on(
            QueuePaused, lambda event: self._add("paused", "", text=str(event.error), until=event.until)
        )
        processor.on(QueueResumed, lambda event: self._add("resumed", ""))

    def _queued(self, event: JobQueued) -> None:
        text = "the worker of this job had died" if event.recovered else ""
        self._add("recovered" if event.recovered else "queued", event.id, text=text)

    def _deferred(self, event: JobDeferred) -> None:
        self._add("deferred", event.id, text=event.reason, until=event.not_before)

    def _add(self, what: str, id: str, *, text: str = "", until: float | None = None) -> None:
        note = {
            "number": next(self._numbers),
            "at": round(self._clock(), 3),
            "what": what,
            "id": id,
            "text": printable(text),
            "until": until,
        }
        if what != "started":
            self._recent.append(note)
        if id:
            self._jobs.setdefault(id, deque(maxlen=MOST_EVENTS)).append(note)
            self._jobs.move_to_end(id)
            if len(self._jobs) > MOST_JOBS:
                self._jobs.popitem(last=False)
        self._changed()

    def of(self, id: str) -> list[dict[str, Any]]:
        """Return the events of a job, the oldest first."""
        return [*self._jobs.get(id, ())]

    def recent(self) -> list[dict[str, Any]]:
        """Return the last events of all jobs, the newest first."""
        return [*reversed(self._recent)]


def _reply_text(receipt: Receipt) -> str:
    return next((str(one.reply) for one in receipt.verdicts if one.reply is not None), "")
