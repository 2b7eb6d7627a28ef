"""Who sends on which session.

Bookkeeping only: every method is synchronous except `close`, and what a session has to do is done by its own task.
Dialling belongs to the pool, never to a caller: a caller that goes away cannot leave half a connection behind.

Rules:

1. Open and opening connections together never exceed the bound; sessions that users hold count too.
2. First come, first served. A job that was not sent because its connection died goes back to the head, twice at most.
3. Spread before depth: a session gets a second job only when none is idle and none may be opened, and those that are
   being opened have one each.
4. A dial that fails while no session is open and no other is being opened fails every waiting job with its error, but
   for those that wait through an outage. So does a session that ends right behind its opening, before it was given a
   job. When the next one may be dialled is `dialling.py`'s to say.
5. A refused login fails every waiting job.
6. A connection that has gone silent while others wait does not hold its place: the bound allows one more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from ..connection.deadlines import Deadlines
from ..connection.errand import Errand
from ..connection.job import Job, Step
from ..connection.session import Session
from ..errors import (
    AuthenticationFailed,
    Interrupted,
    NotConnected,
    NotSent,
    OutcomeUnknown,
    QueueFull,
    SMTPError,
    Timeout,
)
from ..model.receipt import Outcome, Receipt
from ..model.timeouts import Timeouts
from ..protocol.conduct import Conduct
from ..protocol.extensions import Extensions
from .bound import Bound
from .checkout import Places
from .closing import close_all
from .dialling import Dialling
from .job_queue import Waiting
from .limits import PoolLimits, PoolStatistics
from .resting import Reaper
from .silence import Silence

__all__ = ["Pool", "PoolLimits", "PoolStatistics"]

#: A job goes back to the queue this often.
_MAX_RETRIES: Final = 2


class Pool:
    """The sessions of one client and the messages that wait for them.

    Args:
        limits: the bounds.
        timeouts: `queue` and `close` are the pool's.
        make: makes a session that is not connected.
    """

    def __init__(self, limits: PoolLimits, timeouts: Timeouts, make: Callable[[Pool], Session]) -> None:
        self.limits = limits
        #: What the server offered last.
        self.extensions: Extensions | None = None
        #: What was learnt of the server's way with pipelining.
        self.conduct = Conduct()
        self._timeouts = timeouts
        self._make = make
        self.loop = asyncio.get_running_loop()
        self._opening: dict[Session, None] = {}
        # Could not be opened, and say goodbye.
        self._parting: dict[Session, None] = {}
        self._open: dict[Session, None] = {}
        # The last one used is taken first: the others may then grow old and be closed.
        self._idle: dict[Session, None] = {}
        # Handed out to users.
        self._private: dict[Session, None] = {}
        self._places: Places[Session] = Places(self.loop)
        self._waiting = Waiting()
        self.deadlines: Deadlines[Job | Errand[Any]] = Deadlines(self.loop, self._time_over)
        self._silence = Silence(self.loop, self._open, (self._waiting, self._places), self._make_room)
        self._reaper = Reaper(self.loop, self._idle, limits.idle_time)
        self._bound = Bound(limits.max_connections, self.loop, self._make_room)
        self._dialling = Dialling(self.loop, self._grow, self._bound)
        # Why no connection could be had, while there is none.
        self._outage: SMTPError | None = None
        self._closed = False
        self._counts = dict.fromkeys(Outcome, 0)
        self._reconnects = 0
        self._round_trips = 0

    def __repr__(self) -> str:
        s = self.statistics()
        held = f"{s.open} open ({s.busy} busy), {s.opening} opening of {s.bound}"
        return f"<Pool {held}, {s.waiting} waiting, {s.sent} sent>"

    def statistics(self) -> PoolStatistics:
        """Return what is so now."""
        held = len(self._open) + sum(session.connected for session in self._private)
        counts = self._counts
        return PoolStatistics(
            bound=self._most,
            open=held,
            opening=len(self._opening) + len(self._parting),
            idle=len(self._idle),
            busy=held - len(self._idle),
            waiting=len(self._waiting),
            sent=counts[Outcome.ACCEPTED] + counts[Outcome.PARTIAL],
            refused=counts[Outcome.REFUSED],
            not_sent=counts[Outcome.NOT_SENT],
            unknown=counts[Outcome.UNKNOWN],
            reconnects=self._reconnects,
            round_trips=self._round_trips + sum(one.round_trips for one in (*self._open, *self._private)),
        )

    # --- for callers -----------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Give `job` to an idle session, or have it wait for one.

        Raises:
            QueueFull: too many wait already.
            NotConnected: the pool is closed.
            SMTPError: the server refused the login a moment ago.
        """
        if self._closed or self._dialling.latched:
            self._demand_open()
        self.deadlines.add(job)
        while self._idle and not self._waiting and self._may_take(job):
            session, _ = self._idle.popitem()
            if session.may_begin and not session.spent:
                job.due = job.send_by
                if not session.offer(job):
                    self._idle[session] = None
                return
            session.finish()
        if not self._waiting and self._join(job):
            return
        limit = self.limits.max_waiting
        if limit is not None and len(self._waiting) >= limit:
            self.deadlines.discard(job)
            raise QueueFull(f"{limit} messages are waiting for a connection")
        self._waiting.append(job)
        if self._timeouts.queue is not None:
            self._limit_waiting(job)
        if self._idle:
            self._employ()
        self._silence.watch()
        if not self._full():
            self._grow()

    def _join(self, job: Job) -> bool:
        """Begin `job` beside others where none is idle and none may be opened, without waiting for their replies."""
        transaction = job.transaction
        if transaction is None or transaction.aside or not self._full():
            return False
        for session in self._open:
            if session.may_begin and not session.spent and session.admits(transaction):
                job.due = job.send_by
                # If it must be prepared for what this one offers it comes back by itself: it is taken care of.
                session.offer(job)
                return True
        return False

    def cancel(self, job: Job) -> bool:
        """Its caller has gone: return whether the message will certainly not be sent. Synchronous."""
        job.abandoned = True
        self.deadlines.discard(job)
        if self._waiting.discard(job) or (job.session is None and job.receipt is None):
            self.dropped(job)
            return True
        return job.session is not None and job.session.cancel(job)

    @property
    def capacity(self) -> int:
        """How many messages can be on the wire at once: a connection carries one and writes the next, or a window."""
        return max(2, self.limits.window) * self.limits.max_connections

    def now(self) -> float:
        """Loop time."""
        return self.loop.time()

    def new_future(self) -> asyncio.Future[None]:
        """Return a future of the pool's loop, without asking asyncio for it: that costs a system call."""
        return self.loop.create_future()

    async def lend(self) -> Session:
        """Return a session for a user, not connected yet, as soon as the bound allows one more."""
        self._demand_open()
        if not self._places and not self._full():
            return self._make_private()
        if self._idle:
            session, _ = self._idle.popitem()
            session.finish()
        # If it goes away with the session in its hands already, the next one gets its place.
        return await self._places.wait(self.give_back, self._user_waits)

    def _user_waits(self) -> None:
        """One more user is in line: beside a connection that has been silent for long there is a place already."""
        self._silence.watch()
        if not self._full():
            self._make_room()

    def _make_private(self) -> Session:
        session = self._make(self)
        self._private[session] = None
        return session

    def give_back(self, session: Session) -> None:
        """A user is done with `session`; its place is free when its task has ended."""
        if session.task is None or session.task.done():
            self._private.pop(session, None)
            self._make_room()

    def _make_room(self) -> None:
        """A place may be free: for a user who waits for a session first, then for messages."""
        if self._closed:
            return
        self._employ()
        while self._places and not self._full():
            self._places.serve(self._make_private)
        self._grow()

    async def close(self) -> None:
        """Take no more jobs, fail the waiting ones, let running ones end within `timeouts.close`, then QUIT."""
        self._closed = True
        self._fail_waiting(Interrupted("the client was closed"))
        self._places.fail(NotConnected("the client is closed"))
        for one in (self._bound, self._dialling, self._silence, self._reaper):
            one.stop()
        sessions = [*self._opening, *self._parting, *self._open, *self._private]
        await close_all(sessions, self._timeouts.close)
        # Not before: what was under way kept its deadlines.
        self.deadlines.stop()

    # --- for sessions ----------------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """A session can take jobs."""
        self._dialling.logged_in()
        self._outage = None
        private = session in self._private
        if not self.conduct.trusts(session.extensions, self.now()):
            session.forgo_pipelining()
        if self.extensions is None or self.extensions != session.extensions:
            self.extensions = session.extensions
        elif not private:
            session.share(self.extensions)
        if private:
            return
        self._opening.pop(session, None)
        self._open[session] = None
        session.retire(messages=self.limits.max_messages, age=self.limits.max_age)
        if self._dialling.in_doubt:
            # When it has taken its message: the others wait until this one has proved something, and no longer.
            self.loop.call_soon(self._grow)
        # They waited to know what the server offers; each comes back prepared, in the same order.
        for job in self._waiting.unprepared():
            job.extensions = self.extensions
            job.advance(Step.PREPARE)

    def next_job(self, session: Session) -> Job | None:
        """Return the next job that `session` may begin."""
        waiting = self._waiting
        if not waiting or not session.may_begin or session in self._private:
            return None
        # The last: each of them will get a connection that is being opened for it.
        if session.jobs and (
            self._idle or not self._full() or (self._opening and len(waiting) <= len(self._opening))
        ):
            # A streamed message that was not given the last connection may have it when another one is written.
            self._employ()
            return None
        if session.spent or (self._places and self._yields()):
            session.finish()
            return None
        job = waiting.take(session.admits, self._may_stream)
        if job is not None:
            job.due = job.send_by
            self._idle.pop(session, None)
        return job

    def resting(self, session: Session) -> None:
        """A session has nothing to do."""
        if session in self._private or self._closed or session in self._idle:
            return
        if session.spent or (self._places and self._yields()):
            session.finish()
            return
        self._idle[session] = None
        self._reaper.rests(session)

    def finished(self, job: Job, receipt: Receipt) -> None:
        """A transaction has come to its end, and with it the job, unless recipients are left for another one."""
        if self._dialling.in_doubt and job.session is not None and self._dialling.proven(job.session):
            self._dialling.proved()
            self.loop.call_soon(self._grow)
        # A single recipient of an undivided message leaves nobody for another transaction.
        if (len(receipt.verdicts) > 1 or job.parted) and not self._closed and job.follow(receipt):
            if job.alone:
                job.advance(Step.PREPARE)
            else:
                self._return(job)
            return
        self.deadlines.discard(job)
        receipt = job.settle(receipt)
        # Without an error it was accepted, at least for some.
        self._counts[Outcome.ACCEPTED if receipt.error is None else receipt.outcome] += 1

    def dropped(self, job: Job) -> None:
        """A job that is on no connection has lost its caller."""
        self._counts[Outcome.PARTIAL if job.divided else Outcome.NOT_SENT] += 1

    def unsent(self, job: Job, receipt: Receipt) -> None:
        """A job's connection died before it was sent: it goes back to the head of the queue."""
        transaction = job.transaction
        if self._closed or job.alone or transaction is None or job.retries >= _MAX_RETRIES:
            self.finished(job, receipt)
            return
        job.session = None
        job.retries += 1
        self._reconnects += 1
        transaction.renew()
        self._return(job)

    def greeted_again(self, session: Session) -> None:
        """What a session's server offers may have changed."""
        self.extensions = session.extensions

    def _return(self, job: Job) -> None:
        self._waiting.push(job)
        self._limit_waiting(job)
        self._silence.watch()

    def _limit_waiting(self, job: Job) -> None:
        """Until a connection takes `job`, its deadline is the end of its time in the queue, if that comes first."""
        limit = self._timeouts.queue
        if limit is not None and job.due == job.send_by:
            job.due = min(self.now() + limit, job.due or math.inf)
            self.deadlines.add(job)

    def failed(self, session: Session, error: SMTPError) -> None:
        """A session could not be opened; it says goodbye, and its place is taken until it has `ended`."""
        if session in self._opening:
            del self._opening[session]
            self._parting[session] = None
            self._dial_failed(session, error)
        else:
            self._login_failed(error)
        self._grow()

    def ended(self, session: Session, error: SMTPError | None) -> None:
        """A session is over."""
        self._round_trips += session.round_trips
        was_opening = self._opening.pop(session, self) is None
        was_open = self._open.pop(session, self) is None
        self._parting.pop(session, None)
        self._idle.pop(session, None)
        self._private.pop(session, None)
        self._silence.session_ended()
        if session.breakdown is not None:
            self.conduct.broke_down(session.breakdown, session.extensions, self.now())
        if isinstance(error, Interrupted):
            # What this side stopped says nothing about the server. And when a loop ends and cancels every task, the
            # callers' turn comes before that of a new connection, which nobody would cancel any more.
            self.loop.call_soon(self._make_room)
            return
        if error is not None and not self._closed:
            if was_opening:
                self._dial_failed(session, error)
            elif was_open:
                self._closed_early(session, error)
            elif not session.opened_at:
                self._login_failed(error)
        self._make_room()

    def _closed_early(self, session: Session, error: SMTPError) -> None:
        """A session that was open has ended: before it had proved anything, that is a failure, too."""
        if self._dialling.proven(session):
            self._dialling.proved()
        elif session.messages:
            # Those that it carried come back and are tried again, each of them a few times.
            self._dialling.failed(session, error, self._open)
        else:
            self._dial_failed(session, error)

    # --- growing ---------------------------------------------------------------------------------------------

    def _employ(self) -> None:
        """Have idle sessions take what waits: a small message behind a streamed one, or one that came back."""
        for session in [*self._idle] if self._idle and self._waiting else ():
            job = self.next_job(session)
            if job is not None and not session.offer(job):
                self._idle[session] = None

    @property
    def _most(self) -> int:
        """How many connections there may be now."""
        return self._bound.now + self._silence.spare

    def _full(self) -> bool:
        opened = len(self._open)
        if opened >= self.limits.max_connections and not self._silence.spare:
            return True  # the usual case of a busy pool
        return opened + len(self._opening) + len(self._parting) + len(self._private) >= self._most

    def _grow(self) -> None:
        """Open sessions for the jobs that wait, one each, as far as the bound allows."""
        if self._full() or len(self._waiting) <= len(self._opening):
            return
        room = self._dialling.room(len(self._opening), self._open)
        while room > 0 and len(self._waiting) > len(self._opening) and not self._full():
            room -= 1
            session = self._make(self)
            # Noted first: an eager task may run, and end, before `start` returns.
            self._opening[session] = None
            session.start()

    def _dial_failed(self, session: Session, error: SMTPError) -> None:
        self._dialling.failed(session, error, self._open)
        if not self._login_failed(error) and not (self._open or self._opening):
            # While others are being opened, one of them may come up.
            self._outage = error
            self._fail_waiting(error, outage=error.temporary)

    def _login_failed(self, error: SMTPError) -> bool:
        """Remember a login that was refused for good; return whether it was that."""
        if not isinstance(error, AuthenticationFailed) or error.temporary:
            return False
        self._dialling.latch(error)
        self._fail_waiting(error)
        # Those that have not come to AUTH yet do not show the password once more.
        for session in [*self._opening]:
            session.abort(Interrupted("the login was refused on another connection"))
        return True

    def _fail_waiting(self, error: SMTPError, *, outage: bool = False) -> None:
        keep = outage and self._timeouts.queue is not None
        for job in self._waiting.impatient() if keep else self._waiting.clear():
            job.undialled = error
            receipt = job.unsent(error)
            self.deadlines.discard(job)
            job.end(receipt)
            self._counts[receipt.outcome] += 1

    def _demand_open(self) -> None:
        if self._closed:
            raise NotConnected("the client is closed")
        self._dialling.demand_login()

    def _may_stream(self) -> bool:
        """May one more connection be given to a streamed body? The last one is for the small messages."""
        left = max(1, self._most - 1)
        for session in self._open:
            if session.streaming:
                left -= 1
                if not left:
                    return False
        return True

    def _may_take(self, job: Job) -> bool:
        """May `job` go straight to an idle session?"""
        transaction = job.transaction
        return transaction is None or not transaction.aside or self._may_stream()

    def _yields(self) -> bool:
        """Is one more session to end, so that a user who waits for one of his own gets its place?"""
        return sum(one.leaving for one in self._open) < len(self._places)

    # --- time ------------------------------------------------------------------------------------------------

    def _time_over(self, item: Job | Errand[Any]) -> None:
        if isinstance(item, Job):
            self.give_up(item)
        else:
            item.leave()

    def give_up(self, job: Job) -> None:
        """The time of `job` is over: its caller's, or its time in the queue."""
        if job.receipt is not None:
            return
        waited = job.session is None
        certain = self.cancel(job)
        error: SMTPError = NotSent("the deadline passed before the message was sent")
        if not certain:
            error = OutcomeUnknown("the deadline passed before the end of the message was answered")
        error.__cause__ = Timeout("the deadline passed", stage="queue" if waited else "send")
        if waited and job.patient and self._outage is not None:
            error = job.undialled = self._outage
        # Its own end, if it comes, goes to the Abandoned event.
        job.receipt = job.unsent(error) if certain else job.unknown(error)
        job.advance(Step.DONE)
