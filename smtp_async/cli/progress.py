"""What is seen of a queue at work: a live picture on a terminal, plain lines elsewhere.

Hooks only take notes: a terminal that is slow, or a pipe that nobody reads any more, must not reach into a delivery.
Somebody else shows the notes a few times a second.
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
from ..model.receipt import Receipt
from ..model.reply import printable
from ..processor import ProcessorStatistics, QueueProcessor
from .screen import Screen
from .when import shown

__all__ = ["Face", "LiveFace", "Notes", "Picture", "PlainFace", "Rate", "clock_of"]

#: Seconds over which the rate is measured.
_WINDOW: Final = 10.0


class Note(NamedTuple):
    """One thing that happened.

    Attributes:
        word: what: sent, deferred, failed, recovered, unreadable, paused, resumed.
        id: the job's, empty if it is about none.
        until: when it goes on, in seconds of the epoch.
        text: why, or what the server said.
    """

    word: str
    id: str = ""
    until: float | None = None
    text: str = ""

    def __str__(self) -> str:
        """The line for programs: word, id, time, text; separated by tabs, a dash for nothing."""
        until = None if self.until is None else shown(self.until)
        return "\t".join([self.word, self.id or "-", until or "-", printable(self.text) or "-"])


class Notes:
    """What the hooks of a processor were told since it was last asked for.

    Args:
        processor: whose.
        sent: note also what was sent.
    """

    def __init__(self, processor: QueueProcessor, *, sent: bool) -> None:
        self._notes: deque[Note] = deque()
        self._later: list[float] = []
        if sent:
            processor.on(JobSent, lambda event: self._add(Note("sent", event.id, text=_said(event.receipt))))
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
        """Return what is new."""
        notes = [*self._notes]
        self._notes.clear()
        return notes

    def waiting(self, now: float) -> int:
        """Return how many deferred jobs are not due again."""
        while self._later and self._later[0] <= now:
            heapq.heappop(self._later)
        return len(self._later)


def _said(receipt: Receipt) -> str:
    return next((str(one.reply) for one in receipt.verdicts if one.reply is not None), "")


class Rate:
    """How many in a second, over the last seconds. The clock is an argument."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> float:
        """Note how much is done, and return the rate."""
        points = self._points
        points.append((now, done))
        while len(points) > 2 and points[1][0] <= now - _WINDOW:
            points.popleft()
        began, before = points[0]
        return (done - before) / (now - began) if now > began else 0.0


class Picture(NamedTuple):
    """How it stands.

    Attributes:
        counts: of the processor.
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
        """How long it takes at this rate; None if nobody can say."""
        if self.counts.paused_until is not None or not (self.left and self.rate):
            return None
        return self.left / self.rate


class Face(Protocol):
    """Where it is shown."""

    def tell(self, notes: list[Note]) -> None:
        """Show what is new."""

    def draw(self, picture: Picture) -> None:
        """Show how it stands."""

    def close(self) -> None:
        """Leave the screen as it was."""


class PlainFace:
    """One line for each note, without any control character."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def tell(self, notes: list[Note]) -> None:
        if notes:
            self._screen.line("\n".join(map(str, notes)))
            # Whoever follows a log does not wait until a buffer is full.
            self._screen.out.file.flush()

    def draw(self, picture: Picture) -> None:
        pass

    def close(self) -> None:
        pass


class LiveFace:
    """A bar and the numbers, drawn again and again; above it what needs somebody's attention."""

    def __init__(self, screen: Screen, *, now: Callable[[], float] = time.time) -> None:
        self._screen = screen
        self._now = now
        self._live = Live(console=screen.out, transient=True, refresh_per_second=8)
        self._live.start()

    def tell(self, notes: list[Note]) -> None:
        for note in notes:
            if note.word == "failed":
                self._screen.bad(f"{note.id} failed: {printable(note.text)}")
            elif note.word == "unreadable":
                self._screen.bad(f"{note.id} cannot be read as a job: {printable(note.text)}")
            elif note.word == "recovered":
                self._screen.line(f"{note.id} was left by a worker that died, and is queued again.", "dim")

    def draw(self, picture: Picture) -> None:
        self._live.update(self._picture(picture))

    def close(self) -> None:
        self._live.stop()

    def _picture(self, picture: Picture) -> Group:
        counts, done = picture.counts, picture.done
        total = done + picture.left
        bar = Table.grid(padding=(0, 1))
        word = "Sending" if picture.left or counts.sending else "Waiting"
        bar.add_row(
            Text("Paused" if counts.paused_until is not None else word, "bold"),
            ProgressBar(total=max(total, 1), completed=done, width=40),
            Text(f"{done:,} of {total:,}"),
        )
        left = picture.seconds_left
        numbers = Text(
            f"{picture.rate:,.1f}/s · {counts.sending:,} in flight · {counts.sent:,} sent · "
            f"{counts.deferred:,} deferred · {counts.failed:,} failed · "
            f"ETA {'-:--:--' if left is None else clock_of(left)}"
        )
        if counts.paused_until is None:
            return Group(bar, numbers)
        wait = max(0.0, counts.paused_until - self._now())
        return Group(bar, numbers, Text(f"Again in {wait:.0f} s: {printable(counts.problem)}", "yellow"))


def clock_of(seconds: float) -> str:
    """Return a time span as `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
