"""The task of a connection: it opens it, then pumps.

Strategy: a connection is one task from dial to close. It opens (`opening.py`), then goes round: read, give the bytes
to the machine, tell hooks, settle what is settled, take new jobs, write. It reads always, also when idle, so that a
421, the end of the stream or an early refusal is noticed at once. Nobody else touches the reader.

Others do three things from their own tasks, synchronous or while they hold the turn to write: they offer a job to an
idle connection (`offer`), they write a large body (`write_body`), they cancel (`cancel`). A conversation outside
transactions (VRFY, a late AUTH, QUIT) is run by this task, too: `ask` hands it over and wakes the pump.

A wake-up is `task.cancel()` taken back by `uncancel()`: cancelling a StreamReader's `read` loses nothing, and it needs
no second task, event or lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, Protocol, TypeVar

from .errors import (
    CommandRefused,
    CommunicationError,
    ConnectFirst,
    Interrupted,
    NotConnected,
    NotSent,
    SMTPError,
)
from .events import (
    Abandoned,
    ConnectionKind,
    ConnectionStatus,
    Error,
    StartTransfer,
    Transfer,
)
from .hooks import Hooks
from .job import Job, Step
from .link import Link
from .opening import Route, Surroundings, open_link
from .protocol.extensions import NO_EXTENSIONS, Extensions
from .protocol.machine import ClientProtocol, Exchange
from .protocol.states import Stage
from .protocol.transaction import Transaction
from .receipt import Outcome, Receipt
from .reply import Reply
from .timeouts import Timeouts
from .tls.info import ConnectionInfo

__all__ = ["Keeper", "Pump"]

_log = logging.getLogger("smtp_async")
_T = TypeVar("_T")

#: A connection idle for longer is asked before a body is trusted to it: it may be dead without our knowing.
_STALE: Final = 1.0
#: A streamed body is written in slices of this size.
_SLICE: Final = 65536


class Keeper(Protocol):
    """Who gives a connection its jobs and wants to know what becomes of it: the pool."""

    def opened(self, session: Any) -> None:
        """It can take jobs."""

    def next_job(self, session: Any) -> Job | None:
        """Return a job that may be begun now."""

    def resting(self, session: Any) -> None:
        """It has nothing to do."""

    def finished(self, job: Job, receipt: Receipt) -> None:
        """The job has come to its end."""

    def unsent(self, job: Job, receipt: Receipt) -> None:
        """The job's connection died before it was sent."""

    def ended(self, session: Any, error: SMTPError | None) -> None:
        """It is over; `error` is None after a polite end."""


class Pump:
    """One connection and the task that drives it.

    Args:
        route: where to and how.
        number: the session's number, for events.
        timeouts: the limits.
        hooks: who is told.
        surroundings: what the client's connections share.
        keeper: who gives the jobs.
    """

    def __init__(
        self,
        route: Route,
        *,
        number: int,
        timeouts: Timeouts,
        hooks: Hooks,
        surroundings: Surroundings,
        keeper: Keeper,
    ) -> None:
        self.route = route
        self.number = number
        self.last_reply: Reply | None = None
        #: Messages that ended here.
        self.messages = 0
        #: Loop times: when it could first take a job, when the last one ended.
        self.opened_at = 0.0
        self.idle_since = 0.0
        self._timeouts = timeouts
        self._hooks = hooks
        self._surroundings = surroundings
        self._keeper = keeper
        self._link: Link | None = None
        self._info: ConnectionInfo | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        # Conversations that wait for the task.
        self._asked: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = deque()
        self._jobs: set[Job] = set()
        self._reading = False
        self._woken = False
        self._polite = False
        self._over = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} to {self.route.name}: {self.stage.value}>"

    # --- what is so ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Can mail be sent?"""
        return self._info is not None and not self._over

    @property
    def stage(self) -> Stage:
        """Where the conversation stands."""
        if self._over:
            return Stage.CLOSED
        return self._link.machine.stage if self._link is not None else Stage.GREETING

    @property
    def extensions(self) -> Extensions:
        """What the server offers."""
        return self._link.machine.extensions if self._link is not None else NO_EXTENSIONS

    @property
    def offered_in_clear(self) -> Extensions | None:
        """What the server offered before any TLS, None if TLS came first or it did not come that far."""
        return self._link.offered_in_clear if self._link is not None else None

    @property
    def greeting(self) -> Reply | None:
        """The server's first reply, None if none came."""
        return self._link.machine.greeting.reply if self._link is not None else None

    @property
    def info(self) -> ConnectionInfo:
        """What was negotiated; known also when the login failed.

        Raises:
            ConnectFirst: it was never connected.
        """
        info = self._info or (self._link.info if self._link is not None else None)
        if info is None:
            raise ConnectFirst("this session was never connected")
        return info

    @property
    def may_begin(self) -> bool:
        """Can a job be begun now?"""
        return self.connected and not self._polite and self._joint.machine.can_begin

    def admits(self, transaction: Transaction) -> bool:
        """Can `transaction` be begun now?"""
        return self.may_begin and self._joint.machine.admits(transaction)

    @property
    def streaming(self) -> bool:
        """Is a caller writing, or about to write, a large body here?"""
        writing = self._link.machine.writing if self._link is not None else None
        return writing is not None and writing.payload is None

    @property
    def desynchronised(self) -> bool:
        """Did the server lose count of a group of commands?"""
        return self._link is not None and self._link.machine.desynchronised

    @property
    def leaving(self) -> bool:
        """Does it take no more jobs?"""
        return self._polite

    @property
    def jobs(self) -> int:
        """How many messages are on their way here."""
        return len(self._jobs)

    @property
    def round_trips(self) -> int:
        """How often something was written and then waited for."""
        return self._link.round_trips if self._link is not None else 0

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task, once started."""
        return self._task

    @property
    def _joint(self) -> Link:
        if self._link is None:
            raise ConnectFirst("connect() comes first")
        return self._link

    # --- the life of a connection ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; called once."""
        loop = asyncio.get_running_loop()
        route = self.route
        machine = ClientProtocol(
            lmtp=route.lmtp, pipelining=route.pipelining, send_rset=route.send_rset, window=route.window
        )
        self._link = Link(self.number, machine, self._timeouts, self._hooks)
        self._ready = loop.create_future()
        # Whatever the caller that needs a connection has in its context is none of this task's business.
        self._task = loop.create_task(
            self._live(), name=f"smtp_async session {self.number}", context=contextvars.Context()
        )

    async def _live(self) -> None:
        # An eager task runs before `start` has its result.
        self._task = asyncio.current_task()
        error: SMTPError | None = None
        try:
            await self._open()
            await self._pump()
        except SMTPError as caught:
            error = caught
        except asyncio.CancelledError:
            error = self._joint.failure or Interrupted("the connection was cancelled")
        except Exception as caught:
            _log.exception("session %d failed", self.number)
            error = CommunicationError(f"unexpected: {caught!r}")
            error.__cause__ = caught
        finally:
            await self._end(error)

    async def _open(self) -> None:
        link, ready = self._joint, self._ready
        assert ready is not None
        self._info = await open_link(link, self.route, self._surroundings)
        self.opened_at = self.idle_since = link.active_at
        if link.noted:
            await link.tell()
        link.machine.take_settled()
        if not ready.done():
            ready.set_result(None)
        self._keeper.opened(self)

    async def _pump(self) -> None:
        link = self._joint
        machine = link.machine
        while True:
            if self._asked and machine.idle:
                await self._answer_asked()
                if machine.stage is Stage.QUIT:
                    return
            self._refill()
            if machine.exhausted and machine.expected is None:
                raise self._exhaustion()
            if not self._jobs and not self._polite:
                self._keeper.resting(self)
            await self._receive()
            await self._settle()

    async def _receive(self) -> None:
        """Read, unless somebody wakes this task."""
        link, task = self._joint, self._task
        assert task is not None
        if self._take_wake():
            return
        self._reading = True
        try:
            await link.receive()
        except asyncio.CancelledError:
            # Several may want this task to end; only the wake-up is taken back.
            if not self._take_wake() or task.uncancel() > 0:
                raise
        finally:
            self._reading = False

    def _take_wake(self) -> bool:
        woken, self._woken = self._woken, False
        return woken

    def _wake(self) -> None:
        """Have the pump look round; it may be waiting for the server."""
        if not self._woken and self._task is not None:
            self._woken = True
            if self._reading:
                self._task.cancel()

    def _exhaustion(self) -> SMTPError:
        goodbye = self._joint.machine.goodbye
        if goodbye is not None:
            return CommandRefused("the server closes the connection", reply=goodbye, stage=self.stage.value)
        return Interrupted("the connection cannot carry another message", stage=self.stage.value)

    async def _end(self, error: SMTPError | None) -> None:
        """Close for good: every job gets its receipt, whoever waits is told, and so is the keeper."""
        link = self._joint
        quiet = self._polite and not self._jobs
        reason = error or Interrupted("the session has ended")
        link.abort(reason)
        link.machine.fail(reason)
        self._over = True
        try:
            self._note_end(None if quiet else error)
            await self._settle(dead=True)
        finally:
            self._refuse_asked(reason)
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(reason)
                # Nobody need be waiting: the keeper tells the jobs.
                self._ready.exception()
            self._keeper.ended(self, None if quiet else error)

    def _note_end(self, error: SMTPError | None) -> None:
        link = self._joint
        if error is not None and link.wants(Error):
            link.note(Error(session=self.number, code=error.code, description=str(error)))
        if link.stream is not None and link.wants(ConnectionStatus):
            code, text = (0, "closed") if error is None else (error.code, str(error))
            kind = ConnectionKind.DISCONNECTED
            link.note(ConnectionStatus(session=self.number, kind=kind, status_code=code, description=text))

    # --- jobs ------------------------------------------------------------------------------------------------

    def offer(self, job: Job) -> bool:
        """Begin `job` now; False if it must be prepared for what this server offers, and its caller was told.

        Call only if `may_begin`.
        """
        if not self._begin(job):
            return False
        self._flush()
        if self._joint.noted:
            self._wake()
        return True

    def _begin(self, job: Job) -> bool:
        link = self._joint
        machine, transaction = link.machine, job.transaction
        if transaction is None or (
            transaction.extensions is not machine.extensions and transaction.extensions != machine.extensions
        ):
            job.extensions = machine.extensions
            job.transaction = None
            job.advance(Step.PREPARE)
            return False
        stale = not self._jobs and asyncio.get_running_loop().time() - link.active_at > _STALE
        job.session = self
        self._jobs.add(job)
        link.watch()
        machine.begin(transaction, hold=stale)
        return True

    def _refill(self) -> None:
        """Take jobs while the machine may begin one, then write everything at once."""
        while not self._asked:
            job = self._keeper.next_job(self)
            if job is None:
                break
            self._begin(job)
        self._flush()

    def _flush(self) -> None:
        """Write; on a closed stream the pending read ends, and the pump finds out there."""
        try:
            self._joint.flush()
        except SMTPError as error:
            self._joint.abort(error)

    async def _settle(self, *, dead: bool = False) -> None:
        """Tell hooks, then the callers of jobs that came to an end or may write their body."""
        link = self._joint
        settled = link.machine.take_settled()
        if link.hooks.active:
            for item in settled:
                if isinstance(item, Transaction) and item.receipt is not None:
                    self._note_receipt(item, item.receipt)
        try:
            if link.noted:
                await link.tell()
        finally:
            # Those that go back to the head of the queue: the oldest goes last.
            for item in reversed(settled) if dead else settled:
                self._settle_one(item, dead)

    def _settle_one(self, item: Exchange | Transaction, dead: bool) -> None:
        if isinstance(item, Exchange):
            self.last_reply = item.reply
            return
        job, receipt = item.owner, item.receipt
        assert isinstance(job, Job)
        if receipt is None:
            job.advance(Step.WRITE)
            return
        self._jobs.discard(job)
        self.messages += 1
        self.idle_since = self._joint.active_at
        if receipt.reply is not None:
            self.last_reply = receipt.reply
        if dead and receipt.outcome is Outcome.NOT_SENT and not job.abandoned:
            self._keeper.unsent(job, receipt)
        else:
            self._keeper.finished(job, receipt)

    def _note_receipt(self, transaction: Transaction, receipt: Receipt) -> None:
        link, job = self._joint, transaction.owner
        assert isinstance(job, Job)
        if link.wants(Error):
            for verdict in receipt.refused:
                text = str(verdict.reply)
                link.note(
                    Error(
                        session=self.number,
                        job=job.number,
                        code=CommandRefused.code,
                        description=text,
                        recipient=verdict.recipient,
                    )
                )
        if job.abandoned and link.wants(Abandoned):
            link.note(Abandoned(session=self.number, job=job.number, receipt=receipt))

    async def write_body(self, job: Job) -> None:
        """Write the body of a job that was told so, in the caller's own task.

        Raises:
            NotSent: the source of the body or `before_end_of_data` raised; the cause is chained.
        """
        transaction = job.transaction
        assert transaction is not None
        if self._joint.wants(StartTransfer):
            self._joint.note(StartTransfer(session=self.number, job=job.number))
        try:
            for chunk in _slices(transaction):
                if not await self._write_slice(job, transaction, chunk):
                    return
            if job.options.before_end_of_data is not None:
                await job.options.before_end_of_data()
        except Exception as error:
            self.cancel(job)
            raise NotSent(f"the message was stopped before its end: {error!r}") from error
        if self._may_write(transaction):
            self._joint.machine.end_body(transaction)
            self._refill()

    async def _write_slice(self, job: Job, transaction: Transaction, chunk: bytes) -> bool:
        link = self._joint
        assert link.stream is not None
        if not self._may_write(transaction):
            return False
        link.machine.write_body(transaction, chunk)
        self._flush()
        try:
            await link.stream.drain()
        except SMTPError as error:
            # The pump finds the stream closed and writes the receipt.
            link.abort(error)
            return False
        if self._may_write(transaction):
            link.start_clock()
        if link.wants(Transfer):
            link.note(self._transfer(job, transaction, chunk))
            self._wake()
        return True

    def _transfer(self, job: Job, transaction: Transaction, chunk: bytes) -> Transfer:
        sent, total = transaction.streamed, transaction.content.size
        percent = -1 if not total else min(100, sent * 100 // total)
        return Transfer(
            session=self.number, job=job.number, sent=sent, total=total, percent=percent, data=chunk
        )

    def _may_write(self, transaction: Transaction) -> bool:
        machine = self._joint.machine
        return machine.writing is transaction and transaction.receipt is None and not transaction.withdrawn

    def cancel(self, job: Job) -> bool:
        """Its caller has gone: return whether the message will certainly not be sent. Synchronous."""
        transaction = job.transaction
        job.abandoned = True
        if transaction is None or self._over:
            return False
        machine = self._joint.machine
        withdrawn = machine.withdraw(transaction)
        if withdrawn and machine.exhausted and machine.expected in (None, "block"):
            # Half a body was written: only the end of the connection keeps it from being a message.
            self.abort(Interrupted("a message was stopped in the middle of its body"))
        return withdrawn

    # --- conversations ---------------------------------------------------------------------------------------

    async def ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Have the task run `work`, alone on the connection, and return what it returns.

        Raises:
            NotConnected: the connection has ended, or was never opened.
        """
        self.demand_connected()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._asked.append((work, future))
        self._wake()
        return await future

    def demand_connected(self) -> None:
        """Raise if no command can be sent.

        Raises:
            NotConnected: the connection has ended.
            ConnectFirst: it was never opened.
        """
        if self._over:
            raise NotConnected("the connection has ended: a session is not connected twice")
        if not self.connected:
            raise ConnectFirst("connect() comes first")

    async def converse(self, write: Callable[[ClientProtocol], Exchange]) -> Reply:
        """Write one command, which `write` makes, and return its reply; only within `ask`."""
        link = self._joint
        link.watch()
        self.last_reply = reply = await link.converse(write(link.machine))
        return reply

    def finish(self) -> None:
        """End politely: take no more jobs, say QUIT when those on their way have ended. Synchronous."""
        if self._polite or self._over:
            return
        self._polite = True
        if not self.connected:
            self.abort(Interrupted("the client was closed"))
            return
        self._asked.append((self._quit, asyncio.get_running_loop().create_future()))
        self._wake()

    async def _quit(self) -> None:
        with contextlib.suppress(CommunicationError):
            await self.converse(lambda machine: machine.quit())

    async def wait_ended(self) -> None:
        """Wait until the task has ended; cancelling this does not cancel it."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def abort(self, reason: SMTPError | None = None, *, force: bool = False) -> None:
        """Close at once; messages on their way end as not sent or unknown. Synchronous.

        Args:
            reason: what they are told.
            force: end the task also where it waits for a hook.
        """
        if self._link is None or self._over:
            return
        self._link.abort(reason or Interrupted("the session was aborted"))
        if self._task is not None and (force or not self.connected):
            # Dialling or in a handshake there may be no stream whose end would be noticed.
            self._task.cancel()

    async def _answer_asked(self) -> None:
        while self._asked:
            work, future = self._asked.popleft()
            try:
                result = await work()
            except SMTPError as error:
                _reject(future, error)
                if not error.connection_usable:
                    raise
            else:
                if not future.done():
                    future.set_result(result)

    def _refuse_asked(self, reason: SMTPError) -> None:
        while self._asked:
            _, future = self._asked.popleft()
            _reject(future, NotConnected(f"the connection has ended: {reason}"))


def _reject(future: asyncio.Future[Any], error: SMTPError) -> None:
    if not future.done():
        future.set_exception(error)
        # Its caller may have gone; then nobody has to hear it.
        future.exception()


def _slices(transaction: Transaction) -> Iterator[bytes]:
    data = transaction.content.join()
    for start in range(0, len(data), _SLICE):
        yield data[start : start + _SLICE]
