"""The messages that wait for a connection: first come, first served, in two queues.

Most messages are small and written at once; any connection that has room takes them. A streamed message, whose caller
writes or releases the body, needs a connection to itself, and may wait long for one: streamed messages have a queue of
their own. The message that has waited longest is next, but streamed ones never take the last connection, so that a few
huge messages do not starve the small ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..connection.send_job import SendJob
from ..protocol.transaction import Transaction

__all__ = ["JobQueue"]


class JobQueue:
    """The jobs that wait, in order."""

    __slots__ = ("_first", "_last", "_small", "_streamed")

    def __init__(self) -> None:
        # Each job with its place: places grow at the end and shrink at the head.
        self._small: OrderedDict[SendJob, int] = OrderedDict()
        self._streamed: OrderedDict[SendJob, int] = OrderedDict()
        self._first = self._last = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._streamed)

    def __bool__(self) -> bool:
        return bool(self._small or self._streamed)

    def __iter__(self) -> Iterator[SendJob]:
        yield from self._small
        yield from self._streamed

    def __contains__(self, job: object) -> bool:
        return job in self._small or job in self._streamed

    def append(self, job: SendJob) -> None:
        """Put `job` at the end."""
        self._last += 1
        self._queue_for(job)[job] = self._last

    def push_front(self, job: SendJob) -> None:
        """Put `job` at the head, because it has been through the queue before."""
        self._first -= 1
        queue = self._queue_for(job)
        queue[job] = self._first
        queue.move_to_end(job, last=False)

    def discard(self, job: SendJob) -> bool:
        """Take `job` out; return whether it was in the queue."""
        # It may be in either: whether it is streamed is known only since it was planned.
        return self._small.pop(job, None) is not None or self._streamed.pop(job, None) is not None

    def take(self, admits: Callable[[Transaction], bool], may_stream: Callable[[], bool]) -> SendJob | None:
        """Take out the job that is next, if a connection can begin it; return None if it cannot.

        Args:
            admits: whether the connection can begin a transaction now.
            may_stream: whether one more connection may carry a streamed message.
        """
        queue = self._small
        if self._streamed and may_stream() and (not queue or _head(self._streamed) < _head(queue)):
            queue = self._streamed
        for job in queue:
            transaction = job.transaction
            if transaction is not None and not admits(transaction):
                return None
            del queue[job]
            return job
        return None

    def take_unprepared(self) -> list[SendJob]:
        """Take out the jobs that wait to know what the server offers."""
        jobs = [job for job in self._small if job.transaction is None]
        for job in jobs:
            del self._small[job]
        return jobs

    def take_fragile(self) -> list[SendJob]:
        """Take out the jobs that do not outlast an outage."""
        jobs = [job for job in self if not job.outlasts_outage]
        for job in jobs:
            self.discard(job)
        return jobs

    def take_all(self) -> list[SendJob]:
        """Take out all jobs."""
        jobs = list(self)
        self._small.clear()
        self._streamed.clear()
        return jobs

    def _queue_for(self, job: SendJob) -> OrderedDict[SendJob, int]:
        transaction = job.transaction
        return self._streamed if transaction is not None and transaction.caller_paced else self._small


def _head(queue: OrderedDict[SendJob, int]) -> int:
    return next(iter(queue.values()))
