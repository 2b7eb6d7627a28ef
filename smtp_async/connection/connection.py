"""The task of a connection: it opens it, then pumps.

Strategy: a connection is one task from dial to close. It opens (`opening.py`), then goes round: read, give the bytes
to the machine, tell hooks, settle what is settled, take new jobs, write. It reads always, also when idle, so that a
421, the end of the stream or an early refusal is noticed at once. Nobody else touches the reader.

What comes is handled where it arrives, in the loop's own turn, as long as no hook is registered: the task, which would
have to be woken for it, sleeps on and is there for what must be awaited.

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
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from ..errors import (
    CommandRefused,
    CommunicationError,
    ConnectFirst,
    ConnectionLost,
    Interrupted,
    NotConnected,
    SMTPError,
    status_code,
)
from ..events import ConnectionKind, ConnectionStatus, Error
from ..hooks import Hooks
from ..model.receipt import Receipt
from ..model.reply import Reply
from ..model.timeouts import Timeouts
from ..protocol.machine import ClientProtocol, Exchange
from ..protocol.pipelining import Breakdown, Conduct
from ..protocol.states import Stage
from ..tls.context import Security
from ..tls.handshake_witness import cut_short
from ..tls.info import ConnectionInfo
from .channel import Link
from .deliveries import Carrier, Keeper
from .job import Job
from .opening import Route, Surroundings, greet_again, notify, open_link, say_tls

__all__ = ["Pump"]

_log = logging.getLogger("smtp_async")
_T = TypeVar("_T")

#: What the end of a connection means for the next ones, where it is certain.
_NOTICES: Final[Mapping[Breakdown | None, tuple[str, str]]] = {
    Breakdown.LOST_COUNT: (
        "pipelining-off",
        "the server lost count of pipelined commands: for ten minutes one by one",
    ),
    Breakdown.NOT_FOLLOWED: (
        "pipelining-reduced",
        "the server does not answer what is written behind an end of data: for ten minutes nothing is",
    ),
}


class Pump(Carrier):
    """One connection and the task that drives it.

    Args:
        route: where to and how.
        number: the session's number, for events.
        timeouts: the limits.
        hooks: who is told.
        surroundings: what the client's connections share.
        conduct: what they have learnt of the server's way with pipelining.
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
        conduct: Conduct,
        keeper: Keeper,
    ) -> None:
        super().__init__(route, number=number, keeper=keeper)
        self._conduct = conduct
        self._timeouts = timeouts
        self._hooks = hooks
        self._surroundings = surroundings
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        # It could not be opened, and those concerned know; it only says goodbye.
        self._given_notice = False
        # Conversations that wait for the task: hardly ever more than one, and an empty deque weighs 700 octets.
        self._asked: list[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = []

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task, once started."""
        return self._task

    # --- the life of a connection ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; called once."""
        loop = asyncio.get_running_loop()
        self.dialled_at = loop.time()
        self._join()
        self._ready = loop.create_future()
        # Whatever the caller that needs a connection has in its context is none of this task's business.
        self._task = self._joint.task = loop.create_task(
            self._live(), name=f"smtp_async session {self.number}", context=contextvars.Context()
        )

    async def _live(self) -> None:
        # An eager task runs before `start` has its result.
        self._task = self._joint.task = asyncio.current_task()
        error: SMTPError | None = None
        try:
            try:
                await self._open()
                await self._pump()
            except SMTPError as caught:
                error = caught
                await self._take_leave(caught)
        except asyncio.CancelledError:
            error = error or self._joint.failure or Interrupted("the connection was cancelled")
        except Exception as caught:
            _log.exception("session %d failed", self.number)
            error = CommunicationError(f"unexpected: {caught!r}")
            error.__cause__ = caught
        finally:
            await self._end(error)

    async def _open(self) -> None:
        ready = self._ready
        assert ready is not None
        info = await self._open_link()
        link = self._joint
        # A server that hangs up in the same breath as its last reply takes no mail here: its end has arrived by now.
        await asyncio.sleep(0)
        if link.machine.exhausted:
            raise self._exhaustion()
        link.demand_stream()
        self._info = info
        self.opened_at = self.idle_since = link.active_at
        if link.noted:
            await link.tell()
        self._settle(link.machine.take_settled())
        if not ready.done():
            ready.set_result(None)
        self._keeper.opened(self)

    async def _open_link(self) -> ConnectionInfo:
        try:
            return await open_link(self._joint, self.route, self._surroundings)
        except SMTPError as error:
            link = self._joint
            if self.route.security is not Security.OPPORTUNISTIC or not link.handshake_failed:
                raise
            # RFC 7435: encryption where it works. The connection is spoilt, so another one, in clear.
            link.abort(error)
            self._note_closed(link, error)
            say_tls(link, "going on without TLS: %s", error)
            if link.noted:
                await link.tell()
        route = replace(self.route, security=Security.PLAINTEXT)
        return await open_link(self._join(), route, self._surroundings)

    def _join(self) -> Link:
        """Return a new link, the one that counts from now on."""
        route = self.route
        machine = ClientProtocol(
            lmtp=route.lmtp,
            pipelining=route.pipelining,
            send_rset=route.send_rset,
            window=route.window,
            conduct=self._conduct,
        )
        self._link = self._joint = Link(self.number, machine, self._timeouts, self._hooks)
        self._joint.task = self._task
        return self._joint

    async def _pump(self) -> None:
        link = self._joint
        machine, hooks = link.machine, link.hooks
        while True:
            if self._reserved and machine.idle:
                await self._answer_asked()
                if machine.stage is Stage.QUIT:
                    return
            self._refill()
            if machine.exhausted and machine.expected is None:
                exhaustion = self._exhaustion()
                if machine.may_quit:
                    await self._quit()
                raise exhaustion
            if not self._jobs and not self.leaving:
                self._keeper.resting(self)
            await link.receive(self._arrived)
            if hooks.active:
                await self._tell_and_settle()
            else:
                self._settle(machine.take_settled())

    def _arrived(self, data: bytes) -> bool:
        """Handle what came in the loop's own turn; False if this task has to, because hooks are to be awaited.

        The task goes on sleeping: it is woken for what only it can do.
        """
        link = self._joint
        if link.hooks.active:
            return False
        if link.failure is not None:
            # Behind a violation replies cannot be paired: what still comes counts for nothing.
            return True
        try:
            link.received(data)
        except SMTPError:
            # Its traceback shows this frame, and the server may have repeated a secret.
            data = b""
            return True
        machine = link.machine
        self._settle(machine.take_settled())
        self._refill()
        if self._reserved or machine.exhausted:
            link.wake()
        elif not self._jobs and not self.leaving:
            self._keeper.resting(self)
        return True

    async def _tell_and_settle(self, *, dead: bool = False) -> None:
        """Tell hooks first, so that they know when the callers go on."""
        link = self._joint
        settled = link.machine.take_settled()
        self._note_receipts(settled)
        try:
            if link.noted:
                await link.tell()
        finally:
            self._settle(settled, dead=dead)

    def _exhaustion(self) -> SMTPError:
        goodbye = self._joint.machine.goodbye
        if goodbye is not None:
            return CommandRefused("the server closes the connection", reply=goodbye, stage=self.stage.value)
        return Interrupted("the connection cannot carry another message", stage=self.stage.value)

    async def _take_leave(self, error: SMTPError) -> None:
        """Say QUIT where a failure left both sides in step (RFC 5321 section 4.1.1.10), within its own time limit.

        The callers of a connection that could not be opened hear of it first: none waits for the answer.
        """
        link = self._joint
        machine = link.machine
        if link.failure is not None or isinstance(error, ConnectionLost) or not machine.may_quit:
            return
        # What was read last is what failed, not the answer to this.
        self._settle(machine.take_settled())
        with contextlib.suppress(SMTPError):
            link.watch()
            goodbye = machine.quit()
            link.flush()
            await self._give_notice(error)
            await link.converse(goodbye)
            machine.take_settled()

    async def _give_notice(self, error: SMTPError) -> None:
        """Tell hooks, the caller and the keeper that the connection could not be opened; its end is told later."""
        ready, link = self._ready, self._joint
        if ready is None or ready.done():
            return
        self._given_notice = True
        self._note_error(error)
        if link.noted:
            await link.tell()
        self._refuse_ready(error)
        self._keeper.failed(self, error)

    def _refuse_ready(self, reason: SMTPError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(reason)
            # Nobody need be waiting: the keeper tells the jobs.
            self._ready.exception()

    async def _end(self, error: SMTPError | None) -> None:
        """Close for good: every job gets its receipt, whoever waits is told, and so is the keeper."""
        link = self._joint
        quiet = self.leaving and not self._jobs and not self._given_notice
        reason = error or Interrupted("the session has ended")
        link.abort(reason)
        link.machine.fail(reason)
        self._over = True
        try:
            self._note_end(None if quiet else error)
            await self._tell_and_settle(dead=True)
        finally:
            self._refuse_asked(reason)
            self._refuse_ready(reason)
            self._keeper.ended(self, None if quiet or self._given_notice else error)

    def _note_end(self, error: SMTPError | None) -> None:
        link = self._joint
        if self.breakdown in _NOTICES:
            name, text = _NOTICES[self.breakdown]
            notify(link, name, text, "%s")
        if error is not None and not self._given_notice:
            self._note_error(error)
        if link.stream is not None or error is not None:
            self._note_closed(link, error)

    def _note_closed(self, link: Link, error: SMTPError | None) -> None:
        """A connection ended, or did not come up."""
        if error is None:
            link.remark("the connection to %s is closed", self.route.name)
        else:
            link.remark("the connection to %s has ended: %s", self.route.name, error)
            self._note_cut(link, error)
        if link.wants(ConnectionStatus):
            kind = ConnectionKind.DISCONNECTED
            code, text = (0, "closed") if error is None else (status_code(error), str(error))
            link.note(ConnectionStatus(session=self.number, kind=kind, status_code=code, description=text))

    def _note_cut(self, link: Link, error: SMTPError) -> None:
        """Say so if the server ended TLS without its farewell: anybody could have cut it, RFC 8446 section 6.1."""
        tls = link.stream.ssl_object if link.stream is not None else None
        if tls is None or not isinstance(error, ConnectionLost) or not cut_short(tls):
            return
        if not self.route.tls.expect_close_notify:
            return
        text = "TLS ended without a farewell (close_notify)"
        say_tls(link, text)
        if link.wants(ConnectionStatus):
            kind, code = ConnectionKind.TLS_BROKEN, status_code(error)
            event = ConnectionStatus(
                session=self.number, kind=kind, status_code=code, description=text, info=link.info
            )
            link.note(event)

    def _note_error(self, error: SMTPError) -> None:
        if self._joint.wants(Error):
            self._joint.note(Error(session=self.number, code=error.code, description=str(error)))

    # --- conversations ---------------------------------------------------------------------------------------

    async def ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Have the task run `work`, alone on the connection, and return what it returns.

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
        if self._over or self._given_notice:
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
        if self.leaving or self._over:
            return
        self.leaving = True
        if not self.connected:
            self.let_go(Interrupted("the client was closed"))
            return
        self._reserve(self._quit, asyncio.get_running_loop().create_future())

    def _reserve(self, work: Callable[[], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
        self._asked.append((work, future))
        self._reserved = True
        self._joint.wake()

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

    def let_go(self, reason: SMTPError | None = None) -> None:
        """Close at once, unless it says goodbye already: that has a time limit of its own. Synchronous."""
        if not self._given_notice:
            self.abort(reason)

    async def _answer_asked(self) -> None:
        while self._asked:
            work, future = self._asked.pop(0)
            if future.cancelled():
                continue
            try:
                result = await work()
            except SMTPError as error:
                _reject(future, error)
                if not error.connection_usable:
                    raise
            except BaseException as error:
                _reject(
                    future, self._joint.failure or Interrupted(f"the conversation was stopped: {error!r}")
                )
                raise
            else:
                if not future.done():
                    future.set_result(result)
        self._reserved = False

    def _ask_anew(self, job: Job, receipt: Receipt) -> None:
        job.asked_anew = True
        # If its caller goes away meanwhile, it was certainly not sent.
        job.session = None
        transaction = job.transaction
        assert transaction is not None

        def answered(_: asyncio.Future[None]) -> None:
            # Also when the connection has died meanwhile: then it is what was offered before.
            self._keeper.greeted_again(self)
            if job.receipt is not None or job.abandoned:
                return
            if transaction.suits(self.extensions):
                self._keeper.finished(job, receipt)
            else:
                job.prepare_for(self.extensions)

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(answered)
        self._reserve(lambda: greet_again(self._joint), future)

    def _refuse_asked(self, reason: SMTPError) -> None:
        while self._asked:
            _, future = self._asked.pop(0)
            _reject(future, NotConnected(f"the connection has ended: {reason}"))


def _reject(future: asyncio.Future[Any], error: SMTPError) -> None:
    if not future.done():
        future.set_exception(error)
        # Its caller may have gone; then nobody has to hear it.
        future.exception()
