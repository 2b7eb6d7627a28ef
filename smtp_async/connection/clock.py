"""The reply clock of a connection: enforces the time limits of `Timeouts` for replies.

One rule: the clock restarts whenever the next step of the server has changed, and it does not run while the client has
to do the next step. The channel reports such changes: replies were read, something was written to a server that owed
no reply, a block of a body was handed to the transport, or the transport has drained. The machine says which reply is
owed next. These are the cases:

* A reply is owed: the limit of that reply's stage runs, from the last byte of its command or from the reply before it.
  Single bytes of a reply do not restart the clock.
* A body is being written and the transport still holds a block: the limit of a block runs.
* A body is being written and the transport has drained: no limit runs, because the client's source is what is slow.
* The client's own limits of bytes per second delay what comes next: no limit runs.
* The server has announced with a 421 that it closes the connection: it has five seconds to do so.

A restart only notes the time, because there are several for each message. The timer fires no later than the shortest
limit after a restart, and only then determines which limit runs.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable
from typing import Final

from ..errors import Timeout
from ..model.timeouts import Timeouts
from ..protocol.exchange import LIMITS
from ..protocol.machine import ClientProtocol

__all__ = ["ReplyClock"]

#: Seconds that a server has to close the connection after its 421.
_CLOSE_AFTER_421: Final = 5.0


@functools.lru_cache(maxsize=8)
def _shortest(timeouts: Timeouts) -> float | None:
    return min((limit for name in LIMITS if (limit := getattr(timeouts, name)) is not None), default=None)


def _ignore(_: Timeout) -> None:
    """Do nothing, in place of what was to be called."""


class ReplyClock:
    """One timer for one connection.

    Args:
        machine: says which reply is owed.
        timeouts: the limits of the stages.
        overdue: called with the error when the server is too late.
        loop: gives the time and the timer.

    Attributes:
        since: loop time at which the next step of the server last changed.
    """

    __slots__ = (
        "_block_pending",
        "_announced",
        "_paced",
        "_loop",
        "_machine",
        "_overdue",
        "_paused",
        "_shortest",
        "_stopped",
        "_timeouts",
        "_timer",
        "since",
    )

    def __init__(
        self,
        machine: ClientProtocol,
        timeouts: Timeouts,
        overdue: Callable[[Timeout], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._machine = machine
        self._timeouts = timeouts
        self._overdue = overdue
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        # Seconds after a restart before which nothing can be due; None: there is no limit at all.
        self._shortest = _shortest(timeouts)
        self.since = 0.0
        # Does the transport still hold a block of a body?
        self._block_pending = False
        self._announced = False
        self._stopped = False
        # Paused until the first read, because the greeting's time counts from there.
        self._paused = True
        # Are the client's own limits holding back what the server waits for?
        self._paced = False

    def restart(self, now: float) -> None:
        """Restart the clock, because the next step of the server has changed.

        Args:
            now: loop time.
        """
        self.since = now
        if self._timer is None and self._shortest is not None:
            self._timer = self._loop.call_at(now + self._shortest, self._tick)

    def resume(self) -> None:
        """End a `pause`, because the connection is read again; after a 421, start the time to close it."""
        if self._stopped:
            return
        paused, self._paused = self._paused, False
        if self._machine.reply_421 is None:
            if paused:
                self.restart(self._loop.time())
        elif paused or not self._announced:
            self._announced = True
            self._cancel()
            self.since = self._loop.time()
            self._timer = self._loop.call_at(self.since + _CLOSE_AFTER_421, self._tick)

    def block_begins(self) -> None:
        """Restart: a block of a body was handed to the transport; call `block_taken` when the transport has drained."""
        self._block_pending = True
        self.restart(self._loop.time())

    def block_taken(self) -> None:
        """Restart: the transport has drained."""
        self._block_pending = False
        self.restart(self._loop.time())

    def pause(self) -> None:
        """Stop counting until `resume`."""
        self._paused = True

    def pause_for_pacing(self) -> None:
        """Stop counting until `resume_after_pacing`, because the client holds back what it has to write."""
        self._paced = True

    def resume_after_pacing(self, now: float) -> None:
        """Count again, from loop time `now` on."""
        self._paced = False
        self.restart(now)

    def stop(self) -> None:
        """Stop for good, because the connection has ended: no later restart may keep it in memory with a timer."""
        self._paused = self._stopped = True
        self._shortest = None
        # Breaks the reference cycle between the clock and the channel, so that both are freed at once.
        self._overdue = _ignore
        self._cancel()

    @property
    def due(self) -> float | None:
        """Loop time at which the limit ends, None while none runs."""
        limit = self._limit()
        return None if limit is None else self.since + limit

    def _limit(self) -> float | None:
        machine = self._machine
        if self._paused:
            return None
        if machine.reply_421 is not None:
            return _CLOSE_AFTER_421
        if self._paced:
            return None
        stage = machine.expected
        if stage is None or (stage == "block" and not self._block_pending and machine.body_open):
            return None
        limit: float | None = getattr(self._timeouts, stage)
        return limit

    def _tick(self) -> None:
        self._timer = None
        due, now = self.due, self._loop.time()
        if due is None:
            # The next restart sets the timer.
            return
        if now < due:
            # Check again after the shortest limit, because the next reply may have a shorter one.
            shortest = math.inf if self._shortest is None else self._shortest
            self._timer = self._loop.call_at(min(due, now + shortest), self._tick)
            return
        self._overdue(self._error(f"within {due - self.since:g} s"))

    def _error(self, within: str) -> Timeout:
        machine = self._machine
        if machine.reply_421 is not None:
            return Timeout(f"the server announced the end of the connection and did not close it {within}")
        if self._block_pending:
            return Timeout(f"the server did not take the next block of the message {within}", stage="body")
        what = "greeting" if machine.answering == "greeting" else f"reply to {machine.answering}"
        return Timeout(f"no {what} {within}", stage=machine.answering)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
