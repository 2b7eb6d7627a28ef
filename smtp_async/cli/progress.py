"""The display of a working queue: live on a terminal, lines elsewhere.

Hooks only collect notes, because a slow terminal or a broken pipe must not disturb a delivery. A task of its own shows
the notes a few times a second.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..events import JobDeferred, JobFailed, JobQueued, JobSent, JobUnreadable, QueuePaused, QueueResumed
from ..hooks import Observed
from ..model.receipt import Receipt
from ..model.reply import printable
from ..processor import ProcessorStatistics
from .output import Output
from .times import format_time

__all__ = ["Display", "LineDisplay", "LiveDisplay", "Note", "NoteCollector", "Rate", "Snapshot", "clock_of"]

#: Seconds over which the rate is measured.
_WINDOW: Final = 10.0


class Note(NamedTuple):
    """One thing that happened.

    Attributes:
        word: sent, deferred, failed, recovered, unreadable, paused or resumed.
        id: the job, empty if the note is about none.
        until: when the job is tried again, or mail may flow again, in seconds of the epoch.
        text: the reason, or the reply of the server.
    """

    word: str
    id: str = ""
    until: float | None = None
    text: str = ""

    def __str__(self) -> str:
        """Return the line for programs: word, id, time and text, separated by tabs; a dash stands for nothing."""
        until = None if self.until is None else format_time(self.until)
        return "\t".join([self.word, self.id or "-", until or "-", printable(self.text) or "-"])


class NoteCollector:
    """Collects notes of the events of a processor until they are taken.

    Args:
        processor: publishes the events.
        sent: collect notes of sent jobs, too.
    """

    def __init__(self, processor: Observed, *, sent: bool) -> None:
        self._notes: deque[Note] = deque()
        self._later: list[float] = []
        if sent:
            processor.on(
                JobSent, lambda event: self._add(Note("sent", event.id, text=_reply_text(event.receipt)))
            )
        processor.on(JobDeferred, self._deferred)
        processor.on(JobFailed, lambda event: self._add(Note("failed", event.id, text=event.reason)))
        processor.on(JobQueued, lambda event: self._add(Note("recovered", event.id)))
        processor.on(JobUnreadable, lambda event: self._add(Note("unreadable", event.id, text=event.reason)))
        processor.on(
            QueuePaused, lambda event: self._add(Note("paused", until=event.until, text=str(event.error)))
        )
        processor.on(QueueResumed, lambda event: self._add(Note("resumed")))

    def _deferred(self, event: JobDeferred) -> None:
        heapq.heappush(self._later, event.not_before)
        self._add(Note("deferred", event.id, event.not_before, event.reason))

    def _add(self, note: Note) -> None:
        self._notes.append(note)

    def take(self) -> list[Note]:
        """Return the notes since the last call."""
        notes = [*self._notes]
        self._notes.clear()
        return notes

    def waiting(self, now: float) -> int:
        """Return how many deferred jobs are not due yet."""
        while self._later and self._later[0] <= now:
            heapq.heappop(self._later)
        return len(self._later)


def _reply_text(receipt: Receipt) -> str:
    return next((str(one.reply) for one in receipt.verdicts if one.reply is not None), "")


class Rate:
    """Jobs per second, over the last seconds. The clock is an argument."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> float:
        """Note how many jobs are done at `now`, and return the rate."""
        points = self._points
        points.append((now, done))
        while len(points) > 2 and points[1][0] <= now - _WINDOW:
            points.popleft()
        began, before = points[0]
        return (done - before) / (now - began) if now > began else 0.0


class Snapshot(NamedTuple):
    """The progress at one moment.

    Attributes:
        counts: the statistics of the processor.
        left: jobs that are still to be tried.
        rate: jobs per second.
    """

    counts: ProcessorStatistics
    left: int
    rate: float

    @property
    def done(self) -> int:
        """Jobs that had their turn."""
        return self.counts.sent + self.counts.deferred + self.counts.failed

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest takes at this rate, in seconds; None if it cannot be known."""
        if self.counts.paused_until is not None or not (self.left and self.rate):
            return None
        return self.left / self.rate


class Display(Protocol):
    """Shows what happens."""

    def show_notes(self, notes: list[Note]) -> None:
        """Show new notes."""

    def show_progress(self, snapshot: Snapshot) -> None:
        """Show the progress."""

    def close(self) -> None:
        """Remove what is drawn again and again from the output."""


class LineDisplay:
    """Prints one line per note, without control characters."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show_notes(self, notes: list[Note]) -> None:
        if notes:
            self._output.line("\n".join(map(str, notes)))
            # A reader that follows the lines must not wait until a buffer is full.
            self._output.out.file.flush()

    def show_progress(self, snapshot: Snapshot) -> None:
        pass

    def close(self) -> None:
        pass


class LiveDisplay:
    """Draws a bar and the numbers again and again; above them, the notes that need attention."""

    def __init__(self, output: Output, *, now: Callable[[], float] = time.time) -> None:
        self._output = output
        self._now = now
        self._live = Live(console=output.out, transient=True, auto_refresh=False)
        self._live.start()

    def show_notes(self, notes: list[Note]) -> None:
        for note in notes:
            if note.word == "failed":
                self._output.problem(f"{note.id} failed: {printable(note.text)}")
            elif note.word == "unreadable":
                self._output.problem(f"{note.id} cannot be read as a job: {printable(note.text)}")
            elif note.word == "recovered":
                self._output.line(f"{note.id} was left by a worker that died, and is queued again.", "dim")

    def show_progress(self, snapshot: Snapshot) -> None:
        self._live.update(self._drawn(snapshot), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self, snapshot: Snapshot) -> Group:
        counts, done = snapshot.counts, snapshot.done
        total = done + snapshot.left
        bar = Table.grid(padding=(0, 1))
        word = "Sending" if snapshot.left or counts.sending else "Waiting"
        bar.add_row(
            Text("Paused" if counts.paused_until is not None else word, "bold"),
            ProgressBar(total=max(total, 1), completed=done, width=40),
            Text(f"{done:,} of {total:,}"),
        )
        left = snapshot.seconds_left
        numbers = Text(
            f"{snapshot.rate:,.1f}/s · {counts.sending:,} in flight · {counts.sent:,} sent · "
            f"{counts.deferred:,} deferred · {counts.failed:,} failed · "
            f"ETA {'-:--:--' if left is None else clock_of(left)}"
        )
        if counts.paused_until is None:
            return Group(bar, numbers)
        wait = max(0.0, counts.paused_until - self._now())
        return Group(bar, numbers, Text(f"Again in {wait:.0f} s: {printable(counts.problem)}", "yellow"))


def clock_of(seconds: float) -> str:
    """Return a duration as `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
