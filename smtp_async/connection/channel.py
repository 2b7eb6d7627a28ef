"""Machine and stream joined: bytes move, clocks run, what happened is noted for hooks.

A link decides nothing. `receive` reads once and gives the bytes to the machine; `flush` writes what the machine has;
`converse` does both until one command is answered. Everything that can go wrong on the way ends in one place, `abort`,
which is synchronous: it remembers the reason and closes the stream, so that the pending read ends and raises it.

When the server is too late is the reply clock's to say (`clock.py`): the link tells it of everything that was
read and written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import ConnectionLost, ProtocolViolation, SMTPError, Timeout
from ..events import Direction, Event, PITrail
from ..hooks import Hooks, trail_events
from ..model.reply import Reply, printable
from ..model.timeouts import Timeouts
from ..protocol.extensions import Extensions
from ..protocol.machine import ClientProtocol, Exchange
from ..tls.info import ConnectionInfo
from ..transport.stream import Stream
from .clock import ReplyClock

__all__ = ["Link"]


class Link:
    """The joint of one connection; its session's task is the only one that reads.

    Args:
        number: the session's, for events.
        machine: the protocol.
        timeouts: the limits.
        hooks: who is told.
    """

    __slots__ = (
        "_events",
        "_loop",
        "_reading",
        "_told",
        "_woken",
        "_wrote",
        "active_at",
        "clock",
        "failure",
        "first",
        "hooks",
        "info",
        "machine",
        "number",
        "handshake_failed",
        "offered_in_clear",
        "round_trips",
        "stream",
        "task",
        "timeouts",
    )

    def __init__(self, number: int, machine: ClientProtocol, timeouts: Timeouts, hooks: Hooks) -> None:
        self.number = number
        self.machine = machine
        self.timeouts = timeouts
        self.hooks = hooks
        self.stream: Stream | None = None
        #: The one that reads.
        self.task: asyncio.Task[None] | None = None
        #: How often something was written and then waited for.
        self.round_trips = 0
        #: Why the connection was aborted from this side.
        self.failure: SMTPError | None = None
        #: The first bytes that arrived: a port that speaks TLS shows itself there.
        self.first = b""
        #: Loop time of the last byte that arrived.
        self.active_at = 0.0
        #: What the server offered before any TLS, None if TLS came first: for reports, nothing acts on it.
        self.offered_in_clear: Extensions | None = None
        #: Did the connection end in a TLS handshake?
        self.handshake_failed = False
        #: What was negotiated, known before the login.
        self.info: ConnectionInfo | None = None
        self._loop = asyncio.get_running_loop()
        #: Counts the time of the server.
        self.clock = ReplyClock(machine, timeouts, self._overdue, self._loop)
        self._events: list[Event] = []
        self._told: asyncio.Future[None] | None = None
        self._wrote = False
        self._reading = False
        self._woken = False

    # --- bytes -----------------------------------------------------------------------------------------------

    async def receive(self, taker: Callable[[bytes], bool] | None = None) -> None:
        """Read once; the machine gets what came, and the clock is set for what is owed next. `wake` ends it early.

        Args:
            taker: while this waits, what comes may be handled by it at once (`Stream.hand_over`).

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
            if self.failure is None and self.machine.goodbye is not None:
                # It announced its end; in which manner it came is of no interest.
                raise self._ended() from error
            if self.failure is None:
                raise
            raise self.failure from self.failure.__cause__
        except asyncio.CancelledError:
            # Several may want this task to end; only the wake-up is taken back.
            if not self._take_wake() or (self.task is not None and self.task.uncancel() > 0):
                raise
            return
        finally:
            self._reading = False
            stream.hand_over(None)
        if self.failure is not None:
            raise self.failure
        if not data:
            raise self._ended()
        try:
            self.received(data)
        finally:
            # Tracebacks may show locals, and a server what it was sent.
            data = b""

    def received(self, data: bytes) -> None:
        """Give the machine what came.

        Raises:
            ProtocolViolation: the server broke the protocol; the stream is closed.
        """
        self.active_at = now = self._loop.time()
        if self._wrote:
            self._wrote = False
            self.round_trips += 1
        if not self.first:
            self.first = data[:16]
        machine = self.machine
        before = machine.answered
        if self.hooks.active or machine.trail.recording:
            self.watch()
        try:
            machine.receive_data(data)
        except ProtocolViolation as error:
            # Without the frames that hold what the server said: it may have repeated a secret.
            data = b""
            self.abort(error)
            raise error.with_traceback(None) from error.__cause__
        finally:
            if machine.trail.recording:
                self._note_lines()
        if machine.answered != before:
            self.clock.restart(now)

    def flush(self) -> None:
        """Hand what the machine has to the stream.

        Raises:
            ConnectionLost: the stream is closed; nothing counts as handed.
        """
        machine, stream = self.machine, self.stream
        if not machine.has_output:
            return
        assert stream is not None
        if stream.is_closing():
            raise self.failure or self._ended()
        asks = not machine.awaiting_reply
        stream.write(machine.data_to_send())
        self._wrote = True
        if asks:
            self.clock.restart(self._loop.time())
        if machine.trail.recording:
            self._note_lines()

    async def drain(self) -> None:
        """Wait until the transport has taken what was written of a body, at most for the time of a block.

        Raises:
            ConnectionLost, EncryptionFailed: as `Stream.drain`.
        """
        assert self.stream is not None
        self.clock.block_begins()
        try:
            await self.stream.drain()
        finally:
            self.clock.block_taken()

    async def converse(self, exchange: Exchange) -> Reply:
        """Write one command, read until it is answered, and return the reply.

        Raises:
            as `receive` and `flush`.
        """
        self.flush()
        while exchange.reply is None:
            await self.receive()
        if self._events:
            await self.tell()
        return exchange.reply

    def wake(self) -> None:
        """Have the reading task look round; it may be waiting for the server."""
        if not self._woken and self.task is not None:
            self._woken = True
            if self._reading:
                self.task.cancel()

    def _take_wake(self) -> bool:
        woken, self._woken = self._woken, False
        return woken

    def now(self) -> float:
        """Loop time."""
        return self._loop.time()

    def watch(self) -> None:
        """Record lines from here on if there are hooks; called before the machine reads or writes."""
        self.machine.trail.recording = self.hooks.active

    def demand_stream(self) -> None:
        """Raise if the server has ended the connection.

        Raises:
            ConnectionLost: it has, and said nothing more.
            SMTPError: the reason of `abort`.
        """
        if self.failure is not None:
            raise self.failure
        if self.stream is not None and self.stream.ended:
            raise self._ended()

    # --- the end ---------------------------------------------------------------------------------------------

    def abort(self, reason: SMTPError) -> None:
        """Close the stream at once; the pending read raises `reason`."""
        if self.failure is None:
            self.failure = reason
        self.clock.stop()
        if self.stream is not None:
            self.stream.abort()
        self._end_telling()

    def _overdue(self, error: Timeout) -> None:
        """The server was too late, unless this side was: a reply that came while a hook runs was not read yet."""
        if self._reading:
            self.abort(error)
        else:
            # The next read resumes.
            self.clock.pause()

    def _ended(self) -> SMTPError:
        machine = self.machine
        if machine.goodbye is not None:
            return ConnectionLost(
                "the server closed the connection", reply=machine.goodbye, stage=machine.answering
            )
        return ConnectionLost("the server closed the connection without a word", stage=machine.answering)

    # --- hooks -----------------------------------------------------------------------------------------------

    def wants(self, event: type[Event]) -> bool:
        """Would a hook be told of `event`?"""
        return self.hooks.active and self.hooks.wants(event)

    def note(self, event: Event) -> None:
        """Keep `event` for the next `tell`; made only if `wants`."""
        self._events.append(event)

    def remark(self, message: str, *words: object) -> None:
        """Note a line that the library itself adds to the dialogue, for whoever follows it (`Direction.INFO`).

        Args:
            message: the line, never a secret; `%s` stands for one of `words`, put in only if a hook wants the line.
        """
        if self.wants(PITrail):
            text = printable(message % words)
            self.note(PITrail(session=self.number, direction=Direction.INFO, message=text))

    @property
    def noted(self) -> bool:
        """Is there anything to tell?"""
        return bool(self._events)

    async def tell(self) -> None:
        """Tell the hooks what was noted, in order."""
        try:
            while self._events:
                events, self._events = self._events, []
                await self.hooks.tell(events)
        finally:
            self._end_telling()

    async def wait_told(self) -> None:
        """Have the session's task tell what was noted, and wait until it has: a slow hook slows its session."""
        while self._events and self.failure is None:
            self._told = self._loop.create_future()
            self.wake()
            await self._told

    def _end_telling(self) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(None)

    def _note_lines(self) -> None:
        for line in self.machine.trail.take():
            self._events += [
                event for event in trail_events(line, self.number) if self.hooks.wants(type(event))
            ]
