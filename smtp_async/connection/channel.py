"""Connects the protocol machine to the stream, runs the reply clock, and records events for hooks.

A channel decides nothing. `receive` reads once and gives the bytes to the machine; `flush` writes what the machine has;
`converse` does both until one command is answered. Every failure ends in `abort`, which is synchronous: it keeps the
reason and closes the stream, so that the pending read ends and raises the reason.

The reply clock (`clock.py`) says when the server is too late; the channel reports every read and write to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from ..errors import (
    CommandRefused,
    ConnectionLost,
    Interrupted,
    ProtocolViolation,
    SMTPError,
    Timeout,
    status_code,
)
from ..events import ConnectionKind
from ..hooks import Hooks
from ..model.reply import Reply
from ..model.timeouts import Timeouts
from ..protocol.extensions import Extensions
from ..protocol.machine import ClientProtocol, Exchange
from ..tls.handshake_witness import cut_short
from ..tls.info import ConnectionInfo
from ..transport.stream import Stream
from ..transport.throttle import ClientThrottle
from .clock import ReplyClock
from .send_pacer import SendPacer
from .stage_times import StageTimes
from .transcript import Transcript

__all__ = ["Channel"]

_T = TypeVar("_T")

#: The most seconds to wait for the end of TLS behind the reply to QUIT; less if the reply has less time.
_MOST_FAREWELL: Final = 2.0


class Channel:
    """Machine, stream and clock of one connection; only the connection's task reads.

    Args:
        number: the connection's, for events.
        machine: the protocol.
        timeouts: the limits.
        hooks: the registered observers.
        throttle: how many bytes per second.
        task: the task that reads, None if it is told later.

    Attributes:
        stream: None until it was dialled.
        task: the task that reads.
        clock: measures the server's time.
        pacer: holds back what is written; None where bytes per second are not limited.
        transcript: what hooks are to hear.
        last_reply: the reply that was read last.
        round_trips: how often something was written and then waited for.
        failure: the reason of `abort`.
        first_bytes: the first octets that arrived; they show whether the port speaks TLS.
        active_at: loop time at which a byte last arrived.
        offered_in_clear: what the server offered before any TLS, None if TLS came first. For reports only.
        handshake_failed: did the connection end in a TLS handshake?
        stage_times: measures the opening, for reports only; None without one.
    """

    __slots__ = (
        "_endpoint",
        "_info",
        "_loop",
        "_reading",
        "_waiting",
        "_woken",
        "_wrote",
        "active_at",
        "clock",
        "failure",
        "first_bytes",
        "pacer",
        "handshake_failed",
        "hooks",
        "last_reply",
        "machine",
        "number",
        "offered_in_clear",
        "round_trips",
        "stage_times",
        "stream",
        "task",
        "timeouts",
        "transcript",
    )

    def __init__(
        self,
        number: int,
        machine: ClientProtocol,
        timeouts: Timeouts,
        hooks: Hooks,
        throttle: ClientThrottle | None = None,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.number = number
        self.machine = machine
        self.timeouts = timeouts
        self.hooks = hooks
        self.stream: Stream | None = None
        self.task = task
        self.last_reply: Reply | None = None
        self.round_trips = 0
        self.failure: SMTPError | None = None
        self.first_bytes = b""
        self.active_at = 0.0
        self.offered_in_clear: Extensions | None = None
        self.handshake_failed = False
        self.stage_times: StageTimes | None = None
        self._loop = asyncio.get_running_loop()
        self.clock = ReplyClock(machine, timeouts, self._server_overdue, self._loop)
        self.pacer: SendPacer | None = None
        if throttle is not None:
            self.pacer = SendPacer(throttle.for_connection(), self.clock, self._write_held, self._loop)
        self.transcript = Transcript(number, hooks, self.wake)
        self._info: ConnectionInfo | None = None
        self._endpoint: tuple[str, int | None] | None = None
        self._wrote = False
        self._reading = False
        # Does the task wait for something other than the server, and did `abort` end that?
        self._waiting = False
        self._woken = False

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def unanswered_since(self) -> float | None:
        """Loop time since when the server owes a reply and is silent; None if it owes none, or takes a body."""
        machine = self.machine
        if machine.expected is None:
            return None
        writing = machine.pipeline.writing
        if (writing is not None and writing.turn) or (self.pacer is not None and self.pacer.holding):
            return None
        return max(self.clock.since, self.active_at)

    @property
    def info(self) -> ConnectionInfo | None:
        """What was negotiated; known before the login. Without TLS it is put together when it is first asked for."""
        if self._info is None and self._endpoint is not None and self.stream is not None:
            host, port = self._endpoint
            self._info = ConnectionInfo.of(self.stream, host=host, port=port)
        return self._info

    def opened_in_clear(self, host: str, port: int | None) -> None:
        """Note that the server, as the user named it, is spoken with, without TLS."""
        self._endpoint = host, port

    def secured(self, info: ConnectionInfo) -> None:
        """Note what was negotiated with TLS."""
        self._info = info

    def passed(self, stage: str) -> None:
        """Note that a stage of the opening has been passed, for `stage_times`."""
        if self.stage_times is not None:
            self.stage_times.passed(stage)

    def now(self) -> float:
        """Loop time."""
        return self._loop.time()

    @property
    def usable(self) -> bool:
        """Can mail be sent, as far as is known?"""
        ended = self.failure is not None or (self.stream is not None and self.stream.ended)
        return not (ended or self.machine.pipeline.exhausted)

    def demand_usable(self) -> None:
        """Raise if no mail can be sent: as `demand_open`, or because of a 421, or of what the machine found."""
        if self.machine.pipeline.exhausted:
            raise self.exhaustion()
        self.demand_open()

    def demand_open(self) -> None:
        """Raise if the connection has ended.

        Raises:
            ConnectionLost: the server closed it.
            SMTPError: the reason of `abort`.
        """
        if self.failure is not None:
            raise self.failure
        if self.stream is not None and self.stream.ended:
            raise self._closed_by_server()

    # --- bytes -----------------------------------------------------------------------------------------------

    async def receive(self, taker: Callable[[bytes], bool] | None = None) -> None:
        """Read once and give the machine what came; `wake` ends the wait early.

        Args:
            taker: while this waits, it may handle what comes at once (`Stream.hand_over`).

        Raises:
            ConnectionLost: the stream ended.
            ProtocolViolation: the server broke the protocol.
            SMTPError: the reason of `abort`.
        """
        stream = self.stream
        assert stream is not None
        if self._take_wake():
            return
        self.clock.resume()
        self._reading = True
        stream.hand_over(taker)
        try:
            data = await stream.read()
        except SMTPError as error:
            if self.failure is None and self.machine.reply_421 is not None:
                # After a 421, how the connection broke does not matter.
                raise self._closed_by_server() from error
            if self.failure is None:
                raise
            raise self.failure from self.failure.__cause__
        except asyncio.CancelledError:
            # The task may have been cancelled for other reasons, too; only the wake-up is taken back.
            if not self._take_wake() or (self.task is not None and self.task.uncancel() > 0):
                raise
            return
        finally:
            self._reading = False
            stream.hand_over(None)
        if self.failure is not None:
            raise self.failure
        if not data:
            raise self._closed_by_server()
        try:
            self.feed(data)
        finally:
            # Tracebacks may show locals, and the server may have repeated a secret.
            data = b""

    def feed(self, data: bytes) -> None:
        """Give the machine what the server sent.

        Raises:
            ProtocolViolation: the server broke the protocol; the stream is closed.
        """
        self.active_at = now = self._loop.time()
        if self._wrote:
            self._wrote = False
            self.round_trips += 1
        if not self.first_bytes:
            self.first_bytes = data[:16]
        machine = self.machine
        recorder, before = machine.recorder, machine.answered
        if self.hooks.active or recorder.recording:
            self.record_lines()
        try:
            machine.receive_data(data)
        except ProtocolViolation as error:
            # Raised without the frames that hold what the server said: it may have repeated a secret.
            data = b""
            self.abort(error)
            raise error.with_traceback(None) from error.__cause__
        finally:
            if recorder.recording:
                self._note_lines()
        if machine.answered != before:
            self.clock.restart(now)

    def flush(self, now: float | None = None) -> None:
        """Write what the machine has; if the stream is closed, abort, so that the next read raises the reason.

        Args:
            now: loop time; None reads the clock if that is needed.
        """
        machine, stream = self.machine, self.stream
        if not machine.has_output:
            return
        assert stream is not None
        if stream.is_closing():
            # Nothing is taken from the machine, because what was not written must not count as handed over.
            self.abort(self._closed_by_server())
            return
        if self.pacer is not None and not self.pacer.may_write(machine.output_size):
            return
        asks = not machine.owed.answerable
        try:
            stream.write(machine.data_to_send())
        except SMTPError as error:
            self.abort(error)
            return
        self._wrote = True
        if asks:
            self.clock.restart(self._loop.time() if now is None else now)
        if machine.recorder.recording:
            self._note_lines()

    def _write_held(self) -> None:
        self.flush()
        if self.transcript.events:
            self.wake()

    async def drain(self) -> None:
        """Wait until the transport has taken what was written of a body, at most for the time of a block.

        Raises:
            ConnectionLost, EncryptionFailed: as `Stream.drain`.
        """
        assert self.stream is not None
        if self.pacer is not None:
            await self.pacer.wait_written()
        self.clock.block_begins()
        try:
            await self.stream.drain()
        finally:
            self.clock.block_taken()

    async def converse(self, exchange: Exchange, answer: Callable[[], bool] | None = None) -> Reply:
        """Write one command, read until it is answered, and return the reply; raises as `receive`.

        Args:
            exchange: the command.
            answer: called as soon as the reply has arrived, in the event loop's callback, unless hooks are to hear of
                it first. If it returns True, it has written the next command, and its reply, too, is waited for.
        """
        self.flush()
        taker = None if answer is None else partial(self._answered, exchange, answer)
        while exchange.reply is None:
            await self.receive(taker)
        if self.transcript.events:
            await self.transcript.tell()
        return exchange.reply

    def _answered(self, exchange: Exchange, answer: Callable[[], bool], data: bytes) -> bool:
        """Handle what arrives before `exchange` is answered, and its reply; return False if the task has to."""
        begun, unheard = exchange.reply is not None, self.hooks.active or self.stage_times is not None
        if begun or unheard or self.task is None:
            return False
        if self.failure is None:
            try:
                self.feed(data)
            except SMTPError:
                # Its traceback shows this frame, and the server may have repeated a secret.
                data = b""
                return True
            if exchange.reply is not None and not answer():
                self.wake()
        return True

    # --- waking the task -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have `receive` return, now or at its next call."""
        if not self._woken and self.task is not None:
            self._woken = True
            if self._reading:
                self.task.cancel()

    async def wait_outside(self, outcome: Awaitable[_T]) -> _T:
        """Wait for what a login needs besides the server: a token, a ticket, a policy; `abort` ends the wait.

        Raises:
            SMTPError: the reason of `abort`.
        """
        self._waiting = True
        try:
            return await outcome
        except asyncio.CancelledError:
            # The task may have been cancelled for other reasons, too; only what `abort` did is taken back.
            if self._waiting or self.failure is None or self.task is None or self.task.uncancel() > 0:
                raise
        finally:
            self._waiting = False
        raise self.failure

    def _take_wake(self) -> bool:
        woken, self._woken = self._woken, False
        return woken

    # --- the end ---------------------------------------------------------------------------------------------

    def abort(self, reason: SMTPError) -> None:
        """Close the stream at once; the pending read raises `reason`, or that of an earlier call."""
        if self.failure is None:
            self.failure = reason
        self.clock.stop()
        if self.pacer is not None:
            self.pacer.stop()
        if self.stream is not None:
            self.stream.abort()
        self.transcript.end_waiting()
        if self._waiting and self.task is not None:
            self._waiting = False
            self.task.cancel()

    def _server_overdue(self, error: Timeout) -> None:
        """Abort, unless it is this side that is late: while a hook runs, a reply that came in time is not read."""
        if self._reading:
            self.abort(error)
        else:
            # The next read resumes.
            self.clock.pause()

    def _closed_by_server(self) -> SMTPError:
        """Return the error for an end of the stream; if a 421 announced it, the 421 is its reply."""
        machine = self.machine
        if machine.reply_421 is not None:
            return ConnectionLost(
                "the server closed the connection", reply=machine.reply_421, stage=machine.answering
            )
        return ConnectionLost("the server closed the connection without a word", stage=machine.answering)

    def exhaustion(self) -> SMTPError:
        """Return the error for a connection that must carry no more mail: a 421, or what the machine found."""
        machine = self.machine
        stage = machine.stage.value
        if machine.reply_421 is not None:
            return CommandRefused("the server closes the connection", reply=machine.reply_421, stage=stage)
        return Interrupted("the connection cannot carry another message", stage=stage)

    async def wait_farewell(self, *, expected: bool) -> None:
        """Wait until the server ends TLS behind its reply to QUIT; note it if that is missing.

        The limit is that of the reply, but 2 seconds at most.

        The server closes first (RFC 5321 section 4.1.1.10), and its close_notify says that nothing was cut off.

        Args:
            expected: False waits for nothing (`TLSOptions.expect_close_notify`).
        """
        if not expected or self.stream is None or not self.stream.encrypted:
            return
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            self.wake()

        limit = self.timeouts.quit
        seconds = _MOST_FAREWELL if limit is None else min(limit, _MOST_FAREWELL)
        timer = self._loop.call_later(seconds, give_up)
        try:
            await self.receive()
        except SMTPError as error:
            self.note_cut(error, expected=True)
        else:
            if late:
                text = f"the server has not ended TLS within {seconds:g} s of its reply to QUIT"
                self._note_broken(text, Timeout.code)
        finally:
            timer.cancel()

    def note_cut(self, error: SMTPError | None, *, expected: bool) -> None:
        """Note that the server ended TLS without close_notify, if it did; `error` is how the connection ended.

        The end of the bytes proves nothing then: an attacker on the way could have cut them, RFC 8446 section 6.1.
        Where no farewell is `expected`, nothing is noted.
        """
        tls = self.stream.ssl_object if self.stream is not None else None
        if not expected or tls is None or not isinstance(error, ConnectionLost) or not cut_short(tls):
            return
        self._note_broken("TLS ended without a farewell (close_notify)", status_code(error))

    def _note_broken(self, text: str, code: int) -> None:
        self.transcript.tls_step(text)
        self.transcript.status(ConnectionKind.TLS_BROKEN, code=code, description=text, info=self.info)

    # --- lines for hooks -------------------------------------------------------------------------------------

    def record_lines(self) -> None:
        """Have the machine record lines while there are hooks; call this before it reads or writes."""
        self.machine.recorder.recording = self.hooks.active

    def _note_lines(self) -> None:
        lines = self.machine.recorder.take()
        self.transcript.note_lines(lines)
