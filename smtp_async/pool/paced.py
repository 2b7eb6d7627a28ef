"""A pool for a client whose messages are limited per second, minute, hour or day.

It is a class of its own, so that a client without such limits does not check them with every message.

Messages wait in the queue of the pool; none is given to a connection while the limits have no place. A message takes a
place when it is begun, and the place is free again when the window has passed since the end of its transaction
(`MessageRate`). While messages wait, a timer fires when the next place may be free.

A call of `send` has one deadline, and waiting for a place is part of it. The time of a message of `send_all` begins
when a connection takes the message, so that a limit per hour does not make messages fail. During an outage such a
message waits for as long as it would without limits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from ..connection.connection import Connection
from ..connection.send_job import SendJob
from ..errors import NotSent, SMTPError, Timeout
from ..model.receipt import Receipt
from ..model.timeouts import Timeouts
from ..transport.throttle import MessageRate, RateLimits
from .connections import Observer
from .limits import PoolLimits, PoolStatistics
from .pool import Pool

__all__ = ["PacedPool", "make_pool"]


class PacedPool(Pool):
    """A pool that begins no more messages than its limits allow.

    Args:
        limits, timeouts, make, observer: as for `Pool`.
        rates: has at least one limit of messages.
    """

    def __init__(
        self,
        limits: PoolLimits,
        timeouts: Timeouts,
        make: Callable[[Pool], Connection],
        rates: RateLimits,
        *,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(limits, timeouts, make, observer=observer)
        self._rate = MessageRate(rates.windows)
        # Jobs that count as begun and have not been concluded.
        self._begun: set[SendJob] = set()
        # Jobs of `send_all` in the queue, with the seconds that each has from the moment in which it is begun.
        self._undated: dict[SendJob, float | None] = {}
        # Sessions that wait for a place, in the order in which they came.
        self._turns: dict[asyncio.Future[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        # Loop time since when something waits for a place, None if nothing does; and the seconds before.
        self._waiting_since: float | None = None
        self._waited = 0.0

    def statistics(self) -> PoolStatistics:
        """Return the pool's present state and what it has done."""
        since = self._waiting_since
        waiting = 0.0 if since is None else self.now() - since
        return super().statistics()._replace(message_pauses=self._waited + waiting)

    def take_over_from(self, former: PacedPool) -> None:
        """Count on from `former`, whose event loop is closed: the limits are those of the client, not of a loop."""
        self._rate = former._rate
        for _ in range(len(former._begun)):
            self._rate.conclude(self.now())
        former._begun.clear()

    # --- places ----------------------------------------------------------------------------------------------

    def _begin_or_end_pause(self) -> bool:
        """Begin a pause if the limits have no place now, else end it; return whether a message may begin."""
        if self._rate.free(self.now()):
            self._end_pause()
            return True
        self._begin_pause()
        return False

    def _begin_pause(self) -> None:
        """Count the pause from now on, and check again when a place may be free."""
        now = self.now()
        if self._waiting_since is None:
            self._waiting_since = now
        if self._timer is None and not self._closed:
            self._timer = self.loop.call_at(self._rate.next_change(now), self._place_may_be_free)

    def _place_may_be_free(self) -> None:
        self._timer = None
        self._wake_turns()
        if not self._queue:
            self._end_pause()
        elif self._begin_or_end_pause():
            self._make_room()

    def _end_pause(self) -> None:
        if self._waiting_since is not None:
            self._waited += self.now() - self._waiting_since
            self._waiting_since = None

    def _ready(self) -> int:
        return min(super()._ready(), self._rate.free(self.now()))

    def _take_place(self, job: SendJob) -> None:
        if job not in self._begun:
            self._begun.add(job)
            self._rate.begin()

    def _conclude(self, job: SendJob) -> None:
        if job in self._begun:
            self._begun.discard(job)
            self._rate.conclude(self.now())

    def _return_place(self, job: SendJob) -> None:
        """Take the place from a job that has to be prepared again: nothing of it was written."""
        if job in self._begun and job.connection is None:
            self._begun.discard(job)
            self._rate.withdraw()

    # --- jobs ------------------------------------------------------------------------------------------------

    def submit(self, job: SendJob) -> None:
        """As `Pool.submit`; a job for which the limits have no place waits in the queue."""
        # It may come for the second time, prepared for what the server offers.
        self._return_place(job)
        self._undated.pop(job, None)
        if self._begin_or_end_pause():
            super().submit(job)
            if job.connection is not None:
                self._take_place(job)
            return
        self._demand_open()
        self.deadlines.add(job)
        self._enqueue(job)

    def _enqueue(self, job: SendJob) -> None:
        super()._enqueue(job)
        if job in self._queue:
            self._suspend_deadline(job)

    def _requeue(self, job: SendJob) -> None:
        super()._requeue(job)
        self._suspend_deadline(job)

    def next_job(self, connection: Connection) -> SendJob | None:
        """As `Pool.next_job`, if the limits have a place."""
        if self._queue and not self._begin_or_end_pause():
            if connection.deliveries.spent:
                connection.finish()
            return None
        job = super().next_job(connection)
        if job is not None:
            self._start_deadline(job)
            if job.transaction is not None:
                self._take_place(job)
        return job

    def transaction_ended(self, job: SendJob, receipt: Receipt) -> None:
        """As `Pool.transaction_ended`; the place of the job will be free."""
        self._conclude(job)
        super().transaction_ended(job, receipt)
        if job.pinned and job.receipt is None:
            # Other recipients of the same message follow over the same connection, without a wait.
            self._take_place(job)

    def retry_unsent(self, job: SendJob, receipt: Receipt) -> None:
        """As `Pool.retry_unsent`; the job takes another place."""
        self._conclude(job)
        super().retry_unsent(job, receipt)

    def cancel(self, job: SendJob) -> bool:
        """As `Pool.cancel`."""
        self._undated.pop(job, None)
        self._return_place(job)
        unsent = super().cancel(job)
        if not (self._queue or self._turns):
            self._end_pause()
        return unsent

    def _reason_for_waiting(self, job: SendJob) -> SMTPError | None:
        reason = super()._reason_for_waiting(job)
        if reason is None and self._waiting_since is not None and not job.outlasts_outage:
            reason = NotSent("the deadline passed while the message waited for the client's own RateLimits")
            reason.__cause__ = Timeout("the deadline passed", stage="queue")
        return reason

    # --- deadlines of messages of `send_all` -----------------------------------------------------------------

    def _suspend_deadline(self, job: SendJob) -> None:
        """Take its deadline from a job of `send_all` that waits."""
        if not job.outlasts_outage or self._outage is not None:
            return
        self._undated[job] = None if job.send_by is None else job.send_by - self.now()
        job.due = job.send_by = None
        self.deadlines.discard(job)

    def _start_deadline(self, job: SendJob) -> None:
        """Give a job of `send_all` the time that was left to it when it came into the queue."""
        if (left := self._undated.pop(job, None)) is not None:
            job.due = job.send_by = self.now() + left
            self.deadlines.add(job)

    def connection_opened(self, connection: Connection) -> None:
        """As `Pool.connection_opened`."""
        outage = self._outage
        super().connection_opened(connection)
        if outage is not None:
            for job in self._queue:
                if job not in self._undated:
                    self._suspend_deadline(job)

    def _fail_waiting(self, error: SMTPError, *, outage: bool = False) -> None:
        super()._fail_waiting(error, outage=outage)
        for job in [*self._undated]:
            if job in self._queue:
                self._start_deadline(job)
                self._limit_waiting(job)
        self._undated.clear()

    # --- sessions --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def turn(self, job: SendJob) -> AsyncIterator[None]:
        """Wait for a place for `job`, which it keeps until the context is left and the window has passed.

        Raises:
            NotConnected: the client was closed meanwhile.
        """
        while not self._begin_or_end_pause():
            turn = self.loop.create_future()
            self._turns[turn] = None
            try:
                await turn
            finally:
                self._turns.pop(turn, None)
            self._demand_open()
        self._take_place(job)
        try:
            yield
        finally:
            self._conclude(job)

    def _wake_turns(self) -> None:
        for turn in self._turns:
            if not turn.done():
                turn.set_result(None)

    async def close(self) -> None:
        """As `Pool.close`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closed = True
        self._wake_turns()
        await super().close()


def make_pool(
    limits: PoolLimits,
    timeouts: Timeouts,
    make: Callable[[Pool], Connection],
    rates: RateLimits,
    *,
    observer: Observer | None = None,
    former: Pool | None = None,
) -> Pool:
    """Return the pool that the limits of a client ask for; `former` is its pool in an event loop that is closed."""
    if rates.windows:
        pool = PacedPool(limits, timeouts, make, rates, observer=observer)
        if isinstance(former, PacedPool):
            pool.take_over_from(former)
        return pool
    return Pool(limits, timeouts, make, observer=observer)
