"""The task of a connection, from dial to close.

Strategy: the task opens the connection (`opening.py`), then loops: read, give the bytes to the machine, tell hooks,
settle transactions, take new jobs, write. It reads always, also when idle, so that a 421, the end of the stream or an
early refusal is noticed at once. No other task reads.

While no hook is registered, bytes are handled in the callback in which the event loop delivers them. The task is not
woken for them; it sleeps on, and is woken for what must be awaited.

Other tasks do three things: they offer a job to an idle connection (`Deliveries.begin_now`), write a large body
(`Deliveries.write_body`), and cancel (`Deliveries.cancel`). A command outside transactions (VRFY, a late AUTH, QUIT) is
run by the connection's task, too: `ask` hands it over and wakes the task.

A wake-up is `task.cancel()` taken back by `uncancel()`. A stream's `read` loses nothing then, and no lock is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..errors import (
    AlreadyConnected,
    AlreadyConnecting,
    CommunicationError,
    ConnectFirst,
    ConnectionLost,
    Interrupted,
    NotConnected,
    SMTPError,
)
from ..hooks import Hooks
from ..model.receipt import Receipt
from ..model.reply import Reply
from ..model.timeouts import Timeouts
from ..protocol.extensions import Extensions
from ..protocol.machine import ClientProtocol, Exchange
from ..protocol.pipelining_history import PipeliningHistory
from ..protocol.states import Stage
from .channel import Channel
from .deliveries import Deliveries, Owner
from .ending import Ending
from .exclusive import ExclusiveWork
from .fallback import open_with_fallback
from .opening import greet_again
from .readiness import Readiness
from .route import Route, SharedResources
from .send_job import SendJob

__all__ = ["Connection"]

_log = logging.getLogger("smtp_async")
_T = TypeVar("_T")


class Connection:
    """One connection and the task that drives it.

    Args:
        route: the server, and how it is spoken to.
        number: the connection's number, for events.
        timeouts: the limits.
        hooks: the registered observers.
        shared: what the client's connections share.
        pipelining_history: what they have shown about the server's pipelining.
        owner: gives the jobs, and is told what becomes of the connection.

    Attributes:
        channel: the way to the server.
        deliveries: the jobs under way.
        connected: can mail be sent?
        leaving: does it take no more jobs?
        carried: did the server accept or refuse a message here?
        dialled_at, opened_at: loop times at which it was dialled, and could first take a job.
        task: None until it is started.
    """

    def __init__(
        self,
        route: Route,
        *,
        number: int,
        timeouts: Timeouts,
        hooks: Hooks,
        shared: SharedResources,
        pipelining_history: PipeliningHistory,
        owner: Owner[Connection],
    ) -> None:
        self.route = route
        self.number = number
        self.owner = owner
        self._pipelining_history = pipelining_history
        self._timeouts = timeouts
        self._hooks = hooks
        self.shared = shared
        self.task: asyncio.Task[None] | None = None
        self.channel = self._new_channel()
        self.deliveries = Deliveries(self, self.channel, owner, self._greet_again_for)
        self.connected = False
        self.leaving = False
        self.carried = False
        self.dialled_at = 0.0
        self.opened_at = 0.0
        self._ready = Readiness()
        # The opening failed and the owner knows; only the answer to QUIT is waited for.
        self._failure_told = False
        self._over = False
        self._ending = Ending()
        self._exclusive = ExclusiveWork()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} to {self.route.name}: {self.stage.value}>"

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """Where the conversation stands."""
        return self.channel.machine.stage

    @property
    def extensions(self) -> Extensions:
        """What the server offers."""
        return self.channel.machine.extensions

    @property
    def may_begin(self) -> bool:
        """Can a job be begun now?"""
        return (
            self.connected
            and not self.leaving
            and not self._exclusive.pending
            and self.channel.machine.pipeline.can_begin
        )

    @property
    def dropped(self) -> bool:
        """Was it aborted when it was open, so that the loop closes its socket in its next iteration?"""
        return self.connected and self.channel.failure is not None

    # --- the caller's side of a job --------------------------------------------------------------------------

    def write_body(self, job: SendJob) -> Coroutine[Any, Any, None]:
        """Write the body of a job, in the caller's own task; as `Deliveries.write_body`."""
        return self.deliveries.write_body(job)

    def cancel(self, job: SendJob) -> bool:
        """Return True if `job`, which is under way here, will certainly not be sent; as `Deliveries.cancel`."""
        return self.deliveries.cancel(job)

    # --- opening ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; call once."""
        loop = asyncio.get_running_loop()
        self.dialled_at = loop.time()
        self._ready.begin(loop)
        # An empty context, because the task outlives the caller that happens to need a connection.
        self.task = self.channel.task = loop.create_task(
            self._live(), name=f"smtp_async session {self.number}", context=contextvars.Context()
        )

    async def connect(self) -> Reply:
        """Start, wait until mail can be sent, and return the greeting; cancelling this closes the connection.

        Raises:
            SMTPError: of the class that names the step that failed.
        """
        self.start()
        try:
            await self._ready.wait(self._admit, lambda: self.channel.failure if self._over else None)
        except asyncio.CancelledError:
            self.abort()
            raise
        greeting = self.channel.machine.greeting.reply
        assert greeting is not None
        return greeting

    def demand_unused(self) -> None:
        """Raise if `connect` cannot be called.

        Raises:
            NotConnected: the connection has ended.
            AlreadyConnected, AlreadyConnecting: it was called before.
        """
        if self._over or self.leaving or self._failure_told:
            raise NotConnected("this session has ended: make another one")
        if self.connected:
            raise AlreadyConnected("this session is connected")
        if self.task is not None:
            raise AlreadyConnecting("this session is being connected")

    async def _live(self) -> None:
        # An eager task runs before `start` has its result.
        self.task = self.channel.task = self._ending.task = asyncio.current_task()
        error: SMTPError | None = None
        try:
            try:
                await self._open()
                await self._serve()
            except SMTPError as caught:
                error = caught
                await self._quit_after(caught)
        except asyncio.CancelledError:
            error = error or self.channel.failure or self._why_cancelled()
        except Exception as caught:
            _log.exception("session %d failed", self.number)
            error = CommunicationError(f"unexpected: {caught!r}")
            error.__cause__ = caught
        finally:
            try:
                await self._end(error)
            finally:
                error = None
                self._ending.release()

    def _why_cancelled(self) -> SMTPError:
        """Return the error of a cancellation: what nobody asked for is a failure, after which dials wait."""
        if self.task is not None and self.task.cancelling():
            return Interrupted("the connection was cancelled")
        return CommunicationError("unexpected: a function of the application raised CancelledError")

    async def _open(self) -> None:
        await open_with_fallback(self)
        channel = self.channel
        if self._ready.awaited and not channel.hooks.active:
            # The caller of `connect` goes on in the next iteration of the loop, as this task does.
            self._ready.wake()
        # By that iteration the end of a server that hangs up right after its last reply has arrived.
        await asyncio.sleep(0)
        if channel.transcript.events:
            await channel.transcript.tell()
        if not self._admit():
            channel.demand_usable()
        self._ready.wake()

    def _admit(self) -> bool:
        """Let the connection take jobs from now on, if the server has not ended it; return whether it takes them."""
        channel = self.channel
        if not self.connected and channel.usable:
            self.opened_at = self.deliveries.idle_since = channel.active_at
            self.deliveries.settle(channel.machine.take_settled())
            self.owner.connection_opened(self)
            self.connected = True
        return self.connected

    def renew_channel(self) -> Channel:
        """Begin anew: put a new channel in place of the present one, and return it."""
        channel = self._new_channel()
        channel.stage_times = self.channel.stage_times
        self.channel = self.deliveries.channel = channel
        return channel

    def _new_channel(self) -> Channel:
        route = self.route
        machine = ClientProtocol(
            lmtp=route.lmtp,
            pipelining=route.pipelining,
            send_rset=route.send_rset,
            window=route.window,
            pipelining_history=self._pipelining_history,
            max_line=route.socket.max_line_length,
            known_replies=self.shared.known_replies,
        )
        return Channel(self.number, machine, self._timeouts, self._hooks, self.shared.throttle, self.task)

    # --- carrying mail ---------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Carry mail until the connection ends: return after QUIT, raise why in every other case."""
        channel, deliveries = self.channel, self.deliveries
        machine, hooks = channel.machine, channel.hooks
        while True:
            if self._exclusive.pending and machine.idle:
                await self._exclusive.run(channel)
                if machine.stage is Stage.QUIT:
                    return
            deliveries.refill()
            if machine.pipeline.exhausted and machine.expected is None:
                exhaustion = channel.exhaustion()
                if machine.may_quit:
                    await self._quit()
                raise exhaustion
            if not deliveries.jobs and not self.leaving:
                self.owner.connection_idle(self)
            await channel.receive(self._arrived)
            if hooks.active:
                await self._tell_and_settle()
            else:
                deliveries.settle(machine.take_settled())

    def _arrived(self, data: bytes) -> bool:
        """Handle what came, in the event loop's callback; return False if the task has to, because of hooks.

        The task goes on sleeping; it is woken for what only it can do.
        """
        channel = self.channel
        if channel.hooks.active:
            return False
        if channel.failure is not None:
            # After a violation replies cannot be paired, so what still comes is ignored.
            return True
        try:
            channel.feed(data)
        except SMTPError:
            # Its traceback shows this frame, and the server may have repeated a secret.
            data = b""
            return True
        machine, deliveries = channel.machine, self.deliveries
        deliveries.settle(machine.take_settled())
        deliveries.refill(channel.active_at)
        if self._exclusive.pending or machine.pipeline.exhausted:
            channel.wake()
        elif not deliveries.jobs and not self.leaving:
            self.owner.connection_idle(self)
        return True

    async def _tell_and_settle(self, *, dead: bool = False) -> None:
        """Tell hooks first, so that they hear of a message before its caller goes on."""
        channel, deliveries = self.channel, self.deliveries
        settled = channel.machine.take_settled()
        deliveries.note_receipts(settled)
        try:
            if channel.transcript.events:
                await channel.transcript.tell()
        finally:
            deliveries.settle(settled, dead=dead)

    # --- commands outside transactions -----------------------------------------------------------------------

    async def ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Have the task run `work` while no job is under way, and return what it returns.

        Raises:
            NotConnected: the connection has ended, or was never opened.
        """
        self.demand_connected()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._reserve(work, future)
        return await future

    def demand_connected(self) -> None:
        """Raise if no command can be sent.

        Raises:
            NotConnected: the connection has ended.
            ConnectFirst: it was never opened.
        """
        if self._over or self._failure_told:
            raise NotConnected("the connection has ended: a session is not connected twice")
        if not self.connected:
            raise ConnectFirst("connect() comes first")

    async def converse(self, write: Callable[[ClientProtocol], Exchange]) -> Reply:
        """Write one command, which `write` makes, and return its reply; call only within `ask`."""
        channel = self.channel
        channel.record_lines()
        channel.last_reply = reply = await channel.converse(write(channel.machine))
        return reply

    def _reserve(self, work: Callable[[], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
        self._exclusive.add(work, future)
        self.channel.wake()

    def _greet_again_for(self, job: SendJob, receipt: Receipt) -> None:
        """The server refused parameters that it offered: ask what it offers now, and prepare the job for that.

        Once for each message; `receipt` stands where the offer has not changed.
        """
        job.asked_anew = True
        # If its caller goes away meanwhile, it was certainly not sent.
        job.connection = None
        transaction = job.transaction
        assert transaction is not None

        def answered(_: asyncio.Future[None]) -> None:
            # Also called when the connection has ended meanwhile: then what was offered before is compared.
            self.owner.offer_changed(self)
            if job.receipt is not None or job.abandoned:
                return
            if transaction.suits(self.extensions):
                self.owner.transaction_ended(job, receipt)
            else:
                job.demand_new_plan(self.extensions)

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(answered)
        self._reserve(lambda: greet_again(self.channel), future)

    # --- the end ---------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """End politely: take no more jobs, say QUIT when those under way have ended. Synchronous."""
        if self.leaving or self._over:
            return
        self.leaving = True
        if not self.connected:
            self.let_go(Interrupted("the client was closed"))
        elif self.channel.failure is None:
            self._reserve(self._quit, asyncio.get_running_loop().create_future())

    async def _quit(self) -> None:
        with contextlib.suppress(CommunicationError):
            await self.converse(lambda machine: machine.quit())
            await self.channel.wait_farewell(expected=self.route.tls.expect_close_notify)

    async def wait_ended(self) -> None:
        """Wait until the task has ended; cancelling this does not cancel it."""
        if self.task is not None:
            await self._ending.wait(self.task)

    def abort(self, reason: SMTPError | None = None, *, force: bool = False) -> None:
        """Close at once; messages under way end as not sent or unknown. Synchronous.

        Args:
            reason: what their callers are told.
            force: end the task also where it waits for a hook.
        """
        if self.task is None or self._over:
            return
        self.channel.abort(reason or Interrupted("the session was aborted"))
        if force or not self.connected:
            # While dialling or in a handshake there may be no stream whose end would be noticed.
            self.task.cancel()

    def let_go(self, reason: SMTPError | None = None) -> None:
        """Close at once, unless only the answer to QUIT is waited for, which has its own time limit. Synchronous."""
        if not self._failure_told:
            self.abort(reason)

    async def _quit_after(self, error: SMTPError) -> None:
        """Say QUIT where a failure left both sides in step (RFC 5321 section 4.1.1.10), within its own time limit.

        Callers are told of a failed opening before the answer is waited for.
        """
        channel = self.channel
        machine = channel.machine
        if channel.failure is not None or isinstance(error, ConnectionLost) or not machine.may_quit:
            return
        # Before QUIT is answered, so that the reply read last is the failure.
        self.deliveries.settle(machine.take_settled())
        with contextlib.suppress(SMTPError):
            channel.record_lines()
            farewell = machine.quit()
            channel.flush()
            if self.channel.failure is not None:
                return
            await self._tell_failure(error)
            await channel.converse(farewell)
            machine.take_settled()

    async def _tell_failure(self, error: SMTPError) -> None:
        """Tell hooks, the caller and the owner that the connection could not be opened; its end is told later."""
        transcript = self.channel.transcript
        if not self._ready.pending:
            return
        self._failure_told = True
        transcript.error(error)
        if transcript.events:
            await transcript.tell()
        # A copy, because unittest clears the frames of what it catches, and this task, which is one of them, goes on.
        self._ready.refuse(error.copy())
        self.owner.connection_failed(self, error)

    async def _end(self, error: SMTPError | None) -> None:
        """Close for good: settle every job, refuse every command that waits, and tell hooks and the owner."""
        channel = self.channel
        quiet = self.leaving and not self.deliveries.jobs and not self._failure_told
        reason = error or Interrupted("the session has ended")
        if channel.failure is None:
            channel.abort(reason)
        channel.machine.fail(reason)
        self._over = True
        self.connected = False
        try:
            if channel.hooks.active:
                self._note_end(None if quiet else error)
            await self._tell_and_settle(dead=True)
        finally:
            self._exclusive.refuse(reason)
            self._ready.refuse(reason)
            self.owner.connection_closed(self, None if quiet or self._failure_told else error)
            self.deliveries.end()
            if self.opened_at:
                # Its frames, which say nothing to a caller, would keep the connection in memory.
                reason.__traceback__ = None

    def _note_end(self, error: SMTPError | None) -> None:
        channel, transcript = self.channel, self.channel.transcript
        transcript.breakdown(channel.machine.pipeline.breakdown)
        if error is not None and not self._failure_told:
            transcript.error(error)
        channel.note_cut(error, expected=self.route.tls.expect_close_notify)
        if channel.stream is not None or error is not None:
            transcript.closed(self.route.name, error)
