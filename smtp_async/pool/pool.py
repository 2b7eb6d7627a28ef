"""Which message is sent over which connection.

Bookkeeping only: every method is synchronous except `close` and `lend`, and what a connection has to do is done by its
own task. Dialling belongs to the pool, never to a caller: a caller that is cancelled cannot leave half a connection
behind.

Rules:

1. Open and opening connections together never exceed the bound; sessions that were lent to callers count too.
2. First come, first served. A job that was not sent because its connection died goes back to the head of the queue,
   twice at most.
3. Spread before depth: a connection gets a second job only when none is idle and none may be opened, and each of those
   that are being opened has a job of its own.
4. A dial that fails while no connection is open and no other is being opened fails every waiting job with its error,
   except those that outlast an outage. So does a connection that ends right after its opening, before it was given a
   job. When the next one may be dialled is decided in `dialling`.
5. A refused login fails every waiting job.
6. A connection that has gone silent while others wait does not fill a place: the bound allows one more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from ..connection.caller_work import CallerWork
from ..connection.connection import Connection
from ..connection.job import Job, Step
from ..errors import AuthenticationFailed, Interrupted, NotConnected, QueueFull, SMTPError
from ..model.receipt import Outcome, Receipt
from ..model.timeouts import Timeouts
from ..protocol.extensions import Extensions
from ..protocol.pipelining_history import PipeliningHistory
from .bound import make_bound
from .checkout import SessionWaiters
from .closing import IdleReaper, close_all
from .connections import Connections, Observer
from .deadlines import Deadlines
from .dialling import Dialling
from .job_queue import JobQueue
from .limits import PoolLimits, PoolStatistics
from .silence import SilenceWatch

__all__ = ["Pool", "PoolLimits", "PoolStatistics"]

# A member is found in its class several times as slowly as a global name.
_ACCEPTED: Final = Outcome.ACCEPTED
#: How often a job goes back to the queue.
_MAX_RETRIES: Final = 2


class Pool:
    """The connections of one client and the messages that wait for them.

    Args:
        limits: the bounds.
        timeouts: the pool itself uses `queue` and `close`.
        make: makes a connection that is not started.
        observer: is told of each connection that was opened, or could not be.

    Attributes:
        extensions: what the server offered last, None before the first connection.
        pipelining_history: what connections have shown about the server's pipelining.
        connections: the connections by state.
        deadlines: watches the deadlines of jobs and of callers' work.
    """

    def __init__(
        self,
        limits: PoolLimits,
        timeouts: Timeouts,
        make: Callable[[Pool], Connection],
        *,
        observer: Observer | None = None,
    ) -> None:
        self.limits = limits
        self._observer = observer
        self.extensions: Extensions | None = None
        self.pipelining_history = PipeliningHistory()
        self._timeouts = timeouts
        self._make = make
        self.loop = loop = asyncio.get_running_loop()
        self.connections = connections = Connections()
        self._queue = JobQueue()
        self._session_waiters: SessionWaiters[Connection] = SessionWaiters(loop)
        self.deadlines: Deadlines[Job | CallerWork[Any]] = Deadlines(loop, self._deadline_passed)
        queues = (self._queue, self._session_waiters)
        self._counts = dict.fromkeys(Outcome, 0)
        self._bound = make_bound(limits, loop, connections, self._queue, self._counts, self._make_room)
        self._silence = SilenceWatch(loop, connections.open, queues, self._make_room, self._bound.watch)
        self._reaper = IdleReaper(loop, connections.idle, limits.idle_time)
        self._dialling = Dialling(loop, self._grow, self._bound, (limits.min_backoff, limits.max_backoff))
        # Why no connection could be had, while there is none.
        self._outage: SMTPError | None = None
        self._closed = False
        self._reconnects = 0

    def __repr__(self) -> str:
        s = self.statistics()
        held = f"{s.open} open ({s.busy} busy), {s.opening} opening of {s.bound}"
        return f"<Pool {held}, {s.waiting} waiting, {s.sent} sent>"

    def statistics(self) -> PoolStatistics:
        """Return the pool's present state and what it has done."""
        return self.connections.statistics(
            self._counts, bound=self._most, waiting=len(self._queue), reconnects=self._reconnects
        )

    # --- callers with a message ------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Give `job` to an idle connection, or put it into the queue.

        Raises:
            QueueFull: too many wait already.
            NotConnected: the pool is closed.
            SMTPError: the server refused the login a moment ago.
        """
        if self._closed or self._dialling.login_refused:
            self._demand_open()
        self.deadlines.add(job)
        idle, queue = self.connections.idle, self._queue
        while idle and not queue and self._may_take(job):
            connection, _ = idle.popitem()
            if connection.may_begin and not connection.deliveries.spent:
                job.due = job.send_by
                if not connection.deliveries.offer(job):
                    idle[connection] = None
                return
            connection.finish()
        if not queue and self._begin_beside_others(job):
            return
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """Put `job` into the queue, and see to a connection for it; raises as `submit`."""
        queue, limit = self._queue, self.limits.max_waiting
        if limit is not None and len(queue) >= limit:
            self.deadlines.discard(job)
            raise QueueFull(f"{limit} messages are waiting for a connection")
        queue.append(job)
        if self._timeouts.queue is not None:
            self._limit_waiting(job)
        if self.connections.idle:
            self._employ_idle()
        self._silence.start()
        if not self._full():
            self._grow()

    def _begin_beside_others(self, job: Job) -> bool:
        """Begin `job` on a busy connection, where none is idle and none may be opened; return whether it was begun."""
        transaction = job.transaction
        if transaction is None or transaction.aside or not self._full():
            return False
        for connection in self.connections.open:
            if (
                connection.may_begin
                and not connection.deliveries.spent
                and connection.deliveries.admits(transaction)
            ):
                job.due = job.send_by
                # A job that must be prepared for the offer of this server is submitted again by its caller.
                connection.deliveries.offer(job)
                return True
        return False

    def cancel(self, job: Job) -> bool:
        """Withdraw `job`, because its caller has gone; return True if it will certainly not be sent. Synchronous."""
        job.abandoned = True
        self.deadlines.discard(job)
        if self._queue.discard(job) or (job.connection is None and job.receipt is None):
            self._counts[Outcome.PARTIAL if job.partly_concluded else Outcome.NOT_SENT] += 1
            return True
        return job.connection is not None and job.connection.cancel(job)

    def give_up(self, job: Job) -> None:
        """Withdraw `job`, because its caller's time or its time in the queue is over, and give it its receipt."""
        if job.receipt is not None:
            return
        reason = self._reason_for_waiting(job) if job.connection is None else None
        job.time_out(unsent=self.cancel(job), reason=reason)

    def _reason_for_waiting(self, job: Job) -> SMTPError | None:
        return self._outage if job.outlasts_outage else None

    def _deadline_passed(self, item: Job | CallerWork[Any]) -> None:
        if isinstance(item, Job):
            self.give_up(item)
        else:
            item.abandon()

    @property
    def capacity(self) -> int:
        """How many messages can be on the wire at once: a connection carries one and writes the next, or a window."""
        return max(2, self.limits.window) * self.limits.max_connections

    def now(self) -> float:
        """Return the loop time."""
        return self.loop.time()

    # --- callers with a session of their own -----------------------------------------------------------------

    async def lend(self) -> Connection:
        """Return a connection that is not started yet, as soon as the bound allows one more."""
        self._demand_open()
        if not self._session_waiters and not self._full():
            return self._make_private()
        idle = self.connections.idle
        if idle:
            connection, _ = idle.popitem()
            connection.finish()
        return await self._session_waiters.wait(self.give_back, self._session_wanted)

    def _session_wanted(self) -> None:
        """Make room for one more caller that waits for a session, if a silent connection leaves a place to spare."""
        self._silence.start()
        if not self._full():
            self._make_room()

    def _make_private(self) -> Connection:
        connection = self._make(self)
        self.connections.private[connection] = None
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take back a connection that was lent; its place is free when its task has ended."""
        if connection.task is None or connection.task.done():
            self.connections.private.pop(connection, None)
            self._make_room()

    async def close(self) -> None:
        """Take no more jobs, fail the waiting ones, let running ones end within `timeouts.close`, then say QUIT."""
        self._closed = True
        self._fail_waiting(Interrupted("the client was closed"))
        self._session_waiters.fail(NotConnected("the client is closed"))
        for one in (self._bound, self._dialling, self._silence, self._reaper):
            one.stop()
        await close_all(self.connections.all(), self._timeouts.close)
        # Not before: what was under way kept its deadlines.
        self.deadlines.stop()

    # --- connections that want work --------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """Take note that a connection can carry messages."""
        self._dialling.note_login()
        self._outage = None
        if self._observer is not None:
            self._observer.connected(connection, None)
        connections = self.connections
        private = connection in connections.private
        if not self.pipelining_history.allows_groups(connection.extensions, self.now()):
            connection.channel.machine.forgo_pipelining()
        if self.extensions is None or self.extensions != connection.extensions:
            self.extensions = connection.extensions
        elif not private:
            # Jobs are compared with this object by identity first.
            connection.channel.machine.extensions = self.extensions
        if private:
            return
        connections.opening.pop(connection, None)
        connections.open[connection] = None
        connection.deliveries.retire(messages=self.limits.max_messages, age=self.limits.max_age)
        if self._dialling.in_doubt:
            # After it has taken its job: no other is dialled until this connection has proved something.
            self.loop.call_soon(self._grow)
        # These jobs waited to know what the server offers; each comes back prepared, in the same order.
        for job in self._queue.take_unprepared():
            job.offer = self.extensions
            job.advance(Step.PREPARE)

    def next_job(self, connection: Connection) -> Job | None:
        """Return the next job that `connection` may begin, None if there is none for it."""
        queue, connections = self._queue, self.connections
        if not queue or not connection.may_begin or connection in connections.private:
            return None
        # A connection is idle, or may be opened, or is being opened for each job: then this one is not the next.
        if connection.deliveries.jobs and (
            connections.idle
            or not self._full()
            or (connections.opening and len(queue) <= len(connections.opening))
        ):
            # A streamed message that was not given the last connection may have it when another one is written.
            self._employ_idle()
            return None
        if connection.deliveries.spent or (self._session_waiters and self._yields()):
            connection.finish()
            return None
        job = queue.take(connection.deliveries.admits, self._may_stream)
        if job is not None:
            job.due = job.send_by
            connections.idle.pop(connection, None)
        return job

    def idle(self, connection: Connection) -> None:
        """Take note that a connection has nothing to do."""
        connections = self.connections
        if connection in connections.private or self._closed or connection in connections.idle:
            return
        if connection.deliveries.spent or (self._session_waiters and self._yields()):
            connection.finish()
            return
        connections.idle[connection] = None
        self._reaper.watch(connection)

    def _yields(self) -> bool:
        """Tell whether one more pooled connection should close, to free a place for a caller of `session()`."""
        return self.connections.leaving < len(self._session_waiters)

    # --- the ends of jobs ------------------------------------------------------------------------------------

    def finished(self, job: Job, receipt: Receipt) -> None:
        """End a job whose transaction has ended, or queue it again if recipients are left for another transaction."""
        if self._dialling.in_doubt and job.connection is not None and self._dialling.proven(job.connection):
            self._dialling.note_proof()
            self.loop.call_soon(self._grow)
        # Most messages have a single recipient, which leaves none for another transaction: not asking saves a call, 16
        # of 3,300 bytecodes per message.
        several = len(receipt.verdicts) > 1 or job.groups is not None
        if several and not self._closed and job.follow(receipt):
            if job.pinned:
                job.advance(Step.PREPARE)
            else:
                self._return(job)
            return
        self.deadlines.discard(job)
        receipt = job.settle(receipt)
        if receipt.error is None:  # it was accepted, at least for some
            self._counts[_ACCEPTED] += 1
        else:
            self._counts[receipt.outcome] += 1
            self._bound.message_failed(receipt)

    def retry_unsent(self, job: Job, receipt: Receipt) -> None:
        """Put a job whose connection died before it was sent back to the head of the queue, or end it."""
        transaction = job.transaction
        if self._closed or job.pinned or transaction is None or job.retries >= _MAX_RETRIES:
            self.finished(job, receipt)
            return
        self._bound.message_failed(receipt)
        job.connection = None
        job.retries += 1
        self._reconnects += 1
        transaction.renew()
        self._return(job)

    def greeted_again(self, connection: Connection) -> None:
        """Take note of what a connection's server offers now."""
        self.extensions = connection.extensions

    def _return(self, job: Job) -> None:
        self._queue.push_front(job)
        self._limit_waiting(job)
        self._silence.start()

    def _limit_waiting(self, job: Job) -> None:
        """Until a connection takes `job`, its deadline is the end of its time in the queue, if that comes first."""
        limit = self._timeouts.queue
        if limit is not None and job.due == job.send_by:
            job.due = min(self.now() + limit, job.due or math.inf)
            self.deadlines.add(job)

    # --- the ends of connections -----------------------------------------------------------------------------

    def failed(self, connection: Connection, error: SMTPError) -> None:
        """Take note that a connection could not be opened. It says QUIT, and fills its place until it has `ended`."""
        if self._observer is not None:
            self._observer.connected(connection, error)
        connections = self.connections
        if connection in connections.opening:
            del connections.opening[connection]
            connections.failed[connection] = None
            self._dial_failed(connection, error)
        else:
            self._login_failed(error)
        self._grow()

    def ended(self, connection: Connection, error: SMTPError | None) -> None:
        """Forget a connection that has ended, and fill its place."""
        was_opening, was_open = self.connections.remove(connection)
        self._silence.connection_ended()
        breakdown = connection.channel.machine.pipeline.breakdown
        if breakdown is not None:
            self.pipelining_history.broke_down(breakdown, connection.extensions, self.now())
        if isinstance(error, Interrupted):
            # What this side stopped says nothing about the server. And when a loop ends and cancels every task, the
            # callers' turn comes before that of a new connection, which would not be cancelled any more.
            self.loop.call_soon(self._make_room)
            return
        if error is not None and not connection.opened_at and self._observer is not None:
            self._observer.connected(connection, error)
        if error is not None and not self._closed:
            if was_opening:
                self._dial_failed(connection, error)
            elif was_open:
                self._ended_early(connection, error)
            elif not connection.opened_at:
                self._login_failed(error)
        self._make_room()

    def _ended_early(self, connection: Connection, error: SMTPError) -> None:
        """Count the end of an open connection as a failed dial if it had proved nothing."""
        if self._dialling.proven(connection):
            self._dialling.note_proof()
        elif connection.deliveries.messages:
            # The messages that it carried come back and are tried again, each of them a few times.
            self._dialling.note_failure(connection, error, self.connections.open)
        else:
            self._dial_failed(connection, error)

    def _dial_failed(self, connection: Connection, error: SMTPError) -> None:
        connections = self.connections
        self._dialling.note_failure(connection, error, connections.open)
        if not self._login_failed(error) and not (connections.open or connections.opening):
            # While others are being opened, one of them may still be established.
            self._outage = error
            self._fail_waiting(error, outage=error.temporary)

    def _login_failed(self, error: SMTPError) -> bool:
        """Remember a login that was refused for good; return whether it was that."""
        if not isinstance(error, AuthenticationFailed) or error.temporary:
            return False
        self._dialling.note_refused_login(error)
        self._fail_waiting(error)
        # Connections that have not come to AUTH yet do not show the password once more.
        for connection in [*self.connections.opening]:
            connection.abort(Interrupted("the login was refused on another connection"))
        return True

    def _fail_waiting(self, error: SMTPError, *, outage: bool = False) -> None:
        keep = outage and self._timeouts.queue is not None
        for job in self._queue.take_fragile() if keep else self._queue.take_all():
            job.connect_error = error
            receipt = job.not_sent_receipt(error)
            self.deadlines.discard(job)
            job.end(receipt)
            self._counts[receipt.outcome] += 1

    # --- room ------------------------------------------------------------------------------------------------

    def _demand_open(self) -> None:
        if self._closed:
            raise NotConnected("the client is closed")
        self._dialling.demand_login()

    @property
    def _most(self) -> int:
        """How many connections there may be now."""
        return self._bound.current + self._silence.spare

    def _full(self) -> bool:
        connections = self.connections
        if len(connections.open) >= self.limits.max_connections and not self._silence.spare:
            return True  # the usual case of a busy pool
        return len(connections) >= self._most

    def _make_room(self) -> None:
        """Fill a place that may be free: with a caller who waits for a connection first, then with messages."""
        if self._closed:
            return
        self._employ_idle()
        while self._session_waiters and not self._full():
            self._session_waiters.serve(self._make_private)
        self._grow()

    def _employ_idle(self) -> None:
        """Have idle connections take what waits: a small message behind a streamed one, or one that came back."""
        idle = self.connections.idle
        for connection in [*idle] if idle and self._queue else ():
            job = self.next_job(connection)
            if job is not None and not connection.deliveries.offer(job):
                idle[connection] = None

    def _grow(self) -> None:
        """Open connections for the jobs that wait, one each, as far as the bound allows."""
        opening = self.connections.opening
        if self._ready() <= len(opening) or self._full():
            return
        room = self._dialling.room(len(opening), self.connections.open)
        while room > 0 and self._ready() > len(opening) and not self._full():
            room -= 1
            connection = self._make(self)
            # Noted first: an eager task may run, and end, before `start` returns.
            opening[connection] = None
            connection.start()

    def _ready(self) -> int:
        """How many waiting jobs need only a connection."""
        return len(self._queue)

    def _may_stream(self) -> bool:
        return self.connections.may_stream(self._most)

    def _may_take(self, job: Job) -> bool:
        """Tell whether `job` may be given to an idle connection at once."""
        transaction = job.transaction
        return transaction is None or not transaction.aside or self._may_stream()
