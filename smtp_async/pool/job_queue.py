"""The messages that wait for a connection: first come, first served, with two sorts.

Most are small and written at once; any session that has room takes them. One whose body its caller writes needs a
session to itself, one that its caller has to let go may wait as long: they wait in a line of their own. Whichever has
waited longer is next, but streamed ones never take the last connection, so that a few huge messages do not starve the
small ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..connection.job import Job
from ..protocol.transaction import Transaction

__all__ = ["Waiting"]


class Waiting:
    """Two lines of jobs."""

    __slots__ = ("_first", "_last", "_small", "_streamed")

    def __init__(self) -> None:
        # Each job with its place: places grow at the end and shrink at the head.
        self._small: OrderedDict[Job, int] = OrderedDict()
        self._streamed: OrderedDict[Job, int] = OrderedDict()
        self._first = self._last = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._streamed)

    def __bool__(self) -> bool:
        return bool(self._small or self._streamed)

    def __iter__(self) -> Iterator[Job]:
        yield from self._small
        yield from self._streamed

    def append(self, job: Job) -> None:
        """Join the end of the line."""
        self._last += 1
        self._line(job)[job] = self._last

    def push(self, job: Job) -> None:
        """Join the head of the line: it has been through it before."""
        self._first -= 1
        line = self._line(job)
        line[job] = self._first
        line.move_to_end(job, last=False)

    def discard(self, job: Job) -> bool:
        """Leave the line; return whether it was in it."""
        # Planned or not when it joined: it may be in either.
        return self._small.pop(job, None) is not None or self._streamed.pop(job, None) is not None

    def take(self, admits: Callable[[Transaction], bool], may_stream: Callable[[], bool]) -> Job | None:
        """Return the job that is next, if the session that asks admits it.

        Args:
            admits: may this transaction be begun now?
            may_stream: may one more be streamed?
        """
        line = self._small
        if self._streamed and may_stream() and (not line or _place(self._streamed) < _place(line)):
            line = self._streamed
        for job in line:
            transaction = job.transaction
            if transaction is not None and not admits(transaction):
                return None
            del line[job]
            return job
        return None

    def unprepared(self) -> list[Job]:
        """Take out those that wait to know what the server offers."""
        jobs = [job for job in self._small if job.transaction is None]
        for job in jobs:
            del self._small[job]
        return jobs

    def impatient(self) -> list[Job]:
        """Take out those that do not wait through an outage."""
        jobs = [job for job in self if not job.outlasts_outage]
        for job in jobs:
            self.discard(job)
        return jobs

    def clear(self) -> list[Job]:
        """Take out all."""
        jobs = list(self)
        self._small.clear()
        self._streamed.clear()
        return jobs

    def _line(self, job: Job) -> OrderedDict[Job, int]:
        transaction = job.transaction
        return self._streamed if transaction is not None and transaction.aside else self._small


def _place(line: OrderedDict[Job, int]) -> int:
    return next(iter(line.values()))
