"""Chooses the connection for each message, and retries messages whose connection died.

Bookkeeping only: every method is synchronous except `close` and `lend`, and each connection does its I/O in a task of
its own. The pool dials, never a caller: a caller that is cancelled cannot leave a half-open connection behind.

Rules:

1. The number of open and opening connections never exceeds the bound; sessions that were lent to callers count too.
2. First come, first served. A job that was not sent because its connection died is retried from the head of the queue,
   at most twice (`retry_unsent`).
3. Spread before depth: a connection gets a second job only if no connection is idle, no more may be opened, and every
   connection that is being opened has a job of its own.
4. If a dial fails while no connection is open and no other one is being opened, every waiting job fails with its error,
   except the jobs that outlast an outage. So it does if a connection ends right after its opening, before it was given
   a job. `dialling` decides when the next connection may be dialled.
5. A refused login fails every waiting job.
6. A stalled connection does not count against the bound while jobs wait: one more connection is allowed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from ..connection.caller_work import CallerWork
from ..connection.connection import Connection
from ..connection.send_job import CallerStep, SendJob
from ..errors import Interrupted, NotConnected, QueueFull, SMTPError
from ..model.receipt import Outcome, Receipt
from ..model.timeouts import Timeouts
from ..protocol.extensions import Extensions
from ..protocol.pipelining_history import PipeliningHistory
from .closing import IdleReaper, close_all
from .connection_bound import make_bound
from .connections import Connections, Observer
from .deadlines import Deadlines
from .dialling import Dialling, is_refused_login
from .job_queue import JobQueue
from .limits import PoolLimits, PoolStatistics
from .session_waiters import SessionWaiters
from .stall_watch import StallWatch

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
        observer: notified of each connection that was opened, or could not be.

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
        self.deadlines: Deadlines[SendJob | CallerWork[Any]] = Deadlines(loop, self._deadline_passed)
        queues = (self._queue, self._session_waiters)
        self._counts = dict.fromkeys(Outcome, 0)
        self._bound = make_bound(limits, loop, connections, self._queue, self._counts, self._make_room)
        self._stalls = StallWatch(loop, connections.open, queues, self._make_room, self._bound.watch)
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

    def submit(self, job: SendJob) -> None:
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
                if not connection.deliveries.begin_now(job):
                    idle[connection] = None
                return
            connection.finish()
        if not queue and self._begin_beside_others(job):
            return
        self._enqueue(job)

    def _enqueue(self, job: SendJob) -> None:
        """Put `job` into the queue, and see to a connection for it; raises as `submit`."""
        queue, limit = self._queue, self.limits.max_waiting
        if limit is not None and len(queue) >= limit:
            self.deadlines.discard(job)
            raise QueueFull(f"{limit} messages are waiting for a connection")
        queue.append(job)
        if self._timeouts.queue is not None:
            self._limit_waiting(job)
        if self.connections.idle:
            self._use_idle()
        self._stalls.start()
        if not self._full():
            self._grow()

    def _begin_beside_others(self, job: SendJob) -> bool:
        """Begin `job` on a busy connection, where none is idle and none may be opened; return whether it was begun."""
        transaction = job.transaction
        if transaction is None or transaction.caller_paced or not self._full():
            return False
        for connection in self.connections.open:
            if connection.channel.machine.pipeline.writing is not None:
                continue  # nearly all: asked here, this costs a tenth of the questions below
            deliveries = connection.deliveries
            if connection.may_begin and not deliveries.spent and deliveries.admits(transaction):
                job.due = job.send_by
                # A job that must be prepared for the offer of this server is submitted again by its caller.
                deliveries.begin_now(job)
                return True
        return False

    def cancel(self, job: SendJob) -> bool:
        """Withdraw `job`, because its caller has gone; return True if it will certainly not be sent. Synchronous."""
        job.abandoned = True
        self.deadlines.discard(job)
        if self._queue.discard(job) or (job.connection is None and job.receipt is None):
            self._counts[Outcome.PARTIAL if job.partly_concluded else Outcome.NOT_SENT] += 1
            return True
        return job.connection is not None and job.connection.cancel(job)

    def expire(self, job: SendJob) -> None:
        """Withdraw `job`, because its caller's time or its time in the queue is over, and give it its receipt."""
        if job.receipt is not None:
            return
        reason = self._reason_for_waiting(job) if job.connection is None else None
        job.time_out(unsent=self.cancel(job), reason=reason)

    def _reason_for_waiting(self, job: SendJob) -> SMTPError | None:
        return self._outage if job.outlasts_outage else None

    def _deadline_passed(self, item: SendJob | CallerWork[Any]) -> None:
        if isinstance(item, SendJob):
            self.expire(item)
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
        self._stalls.start()
        if not self._full():
            self._make_room()

    def _make_private(self) -> Connection:
        connection = self._make(self)
        self.connections.private[connection] = None
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take back a connection that was lent; its place is free when its task has ended, or it was aborted."""
        if self.connections.release(connection):
            self._make_room()

    async def close(self) -> None:
        """Take no more jobs, fail the waiting ones, let running ones end within `timeouts.close`, then say QUIT."""
        self._closed = True
        self._fail_waiting(Interrupted("the client was closed"))
        self._session_waiters.fail(NotConnected("the client is closed"))
        for one in (self._bound, self._dialling, self._stalls, self._reaper):
            one.stop()
        await close_all(self.connections.all(), self._timeouts.close)
        # Not before: what was under way kept its deadlines.
        self.deadlines.stop()

    # --- connections that want work --------------------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> None:
        """Add a connection that can carry messages now, and have the jobs prepared that waited for its extensions."""
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
            # After this connection has taken its job, which proves that the server takes mail, or does not.
            self.loop.call_soon(self._grow)
        # These jobs waited for the server's extensions; their callers submit them again, prepared, in the same order.
        for job in self._queue.take_unprepared():
            job.server_offer = self.extensions
            job.advance(CallerStep.PREPARE)

    def next_job(self, connection: Connection) -> SendJob | None:
        """Return the next job for `connection`, or None; close the connection if it must not carry any more jobs."""
        queue, connections = self._queue, self.connections
        if not queue or not connection.may_begin or connection in connections.private:
            return None
        deliveries = connection.deliveries
        if deliveries.jobs and self._another_comes_first():
            # The end of a streamed body may have freed an idle connection for the next one.
            self._use_idle()
            return None
        if self._close_if_done(connection):
            return None
        job = queue.take(deliveries.admits, self._may_stream)
        if job is not None:
            job.due = job.send_by
            if connections.idle:
                connections.idle.pop(connection, None)
        return job

    def _another_comes_first(self) -> bool:
        """Tell whether a busy connection takes no job: one is idle, may be opened, or is being opened for each job."""
        idle, opening = self.connections.idle, self.connections.opening
        return bool(idle) or not self._full() or 0 < len(opening) >= len(self._queue)

    def connection_idle(self, connection: Connection) -> None:
        """Keep a connection that has no job for the next one, and close it after `idle_time`."""
        connections = self.connections
        if connection in connections.private or self._closed or connection in connections.idle:
            return
        if not self._close_if_done(connection):
            connections.idle[connection] = None
            self._reaper.watch(connection)

    def _close_if_done(self, connection: Connection) -> bool:
        """Close a connection that must carry no more jobs, or whose place a caller of `session()` needs."""
        waiting = self._session_waiters.callers
        if not connection.deliveries.spent and not (waiting and self.connections.leaving < len(waiting)):
            return False
        connection.finish()
        return True

    # --- the ends of jobs ------------------------------------------------------------------------------------

    def transaction_ended(self, job: SendJob, receipt: Receipt) -> None:
        """End a job with its last transaction, or queue it again if recipients are left for another transaction."""
        if self._dialling.in_doubt and job.connection is not None and self._dialling.proven(job.connection):
            self._dialling.note_proof()
            self.loop.call_soon(self._grow)
        # Most messages have a single recipient, which leaves none for another transaction: not asking saves a call.
        several = len(receipt.verdicts) > 1 or job.groups is not None
        if several and not self._closed and job.plan_next_transaction(receipt):
            if job.pinned:
                job.advance(CallerStep.PREPARE)
            else:
                self._requeue(job)
            return
        self.deadlines.discard(job)
        receipt = job.settle(receipt)
        if receipt.error is None:  # it was accepted, at least for some
            self._counts[_ACCEPTED] += 1
        else:
            self._counts[receipt.outcome] += 1
            self._bound.message_failed(receipt)

    def retry_unsent(self, job: SendJob, receipt: Receipt) -> None:
        """Put a job whose connection died before it was sent back to the head of the queue, or end it."""
        transaction = job.transaction
        if self._closed or job.pinned or transaction is None or job.retries >= _MAX_RETRIES:
            self.transaction_ended(job, receipt)
            return
        self._bound.message_failed(receipt)
        job.connection = None
        job.retries += 1
        self._reconnects += 1
        transaction.renew()
        self._requeue(job)

    def offer_changed(self, connection: Connection) -> None:
        """Plan later jobs for what the server offers now, because it was asked again."""
        self.extensions = connection.extensions

    def _requeue(self, job: SendJob) -> None:
        self._queue.push_front(job)
        self._limit_waiting(job)
        self._stalls.start()

    def _limit_waiting(self, job: SendJob) -> None:
        """Let `job` wait for `timeouts.queue` at most; once it has begun, its own deadline counts again."""
        limit = self._timeouts.queue
        if limit is not None and job.due == job.send_by:
            job.due = min(self.now() + limit, job.due or math.inf)
            self.deadlines.add(job)

    # --- the ends of connections -----------------------------------------------------------------------------

    def connection_failed(self, connection: Connection, error: SMTPError) -> None:
        """Handle a failed opening. The connection says QUIT, and counts against the bound until it is closed."""
        if self._observer is not None:
            self._observer.connected(connection, error)
        connections = self.connections
        if connection in connections.opening:
            del connections.opening[connection]
            connections.failed[connection] = None
            self._dial_failed(connection, error)
        else:
            self._handle_refused_login(error)
        self._grow()

    def connection_closed(self, connection: Connection, error: SMTPError | None) -> None:
        """Remove a connection that has ended, and use the free place."""
        was_opening, was_open = self.connections.remove(connection)
        self._stalls.connection_ended()
        breakdown = connection.channel.machine.pipeline.breakdown
        if breakdown is not None:
            self.pipelining_history.broke_down(breakdown, connection.extensions, self.now())
        if isinstance(error, Interrupted):
            # A connection that the client stopped says nothing about the server. A new one is made in the loop's next
            # iteration only: when `asyncio.run` ends, it cancels all tasks, and one made now would not be among them.
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
                self._handle_refused_login(error)
        self._make_room()

    def _ended_early(self, connection: Connection, error: SMTPError) -> None:
        """Count the end of an open connection as a failed dial if it had proved nothing."""
        if self._dialling.proven(connection):
            self._dialling.note_proof()
        elif connection.deliveries.messages:
            # Its messages were queued again by `retry_unsent`, which limits the number of retries.
            self._dialling.note_failure(connection, error, self.connections.open)
        else:
            self._dial_failed(connection, error)

    def _dial_failed(self, connection: Connection, error: SMTPError) -> None:
        connections = self.connections
        self._dialling.note_failure(connection, error, connections.open)
        if is_refused_login(error):
            self._handle_refused_login(error)
        elif not (connections.open or connections.opening):
            # While others are being opened, one of them may still be established.
            self._outage = error
            self._fail_waiting(error, outage=error.temporary)

    def _handle_refused_login(self, error: SMTPError) -> None:
        """If `error` is a login that was refused for good, fail what waits, and do not try the password again."""
        if not is_refused_login(error):
            return
        self._dialling.note_refused_login(error)
        self._fail_waiting(error)
        # Connections that have not sent AUTH yet do not send the password again.
        for connection in [*self.connections.opening]:
            connection.abort(Interrupted("the login was refused on another connection"))

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
        return self._bound.current + self._stalls.spare

    def _full(self) -> bool:
        connections = self.connections
        if len(connections.open) >= self.limits.max_connections and not self._stalls.spare:
            return True  # the usual case of a busy pool
        return len(connections) >= self._most

    def _make_room(self) -> None:
        """Use a place that may be free: for a caller that waits for a session first, then for messages."""
        if self._closed:
            return
        self._use_idle()
        while self._session_waiters and not self._full():
            self._session_waiters.serve(self._make_private)
        self._grow()

    def _use_idle(self) -> None:
        """Give waiting jobs to idle connections, such as a small message behind a streamed one, or a retried one."""
        idle = self.connections.idle
        for connection in [*idle] if idle and self._queue else ():
            job = self.next_job(connection)
            if job is not None and not connection.deliveries.begin_now(job):
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

    def _may_take(self, job: SendJob) -> bool:
        """Tell whether `job` may be given to an idle connection now."""
        transaction = job.transaction
        return transaction is None or not transaction.caller_paced or self._may_stream()
