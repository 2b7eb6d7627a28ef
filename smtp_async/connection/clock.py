"""The reply clock of a connection: when the server is too late.

One rule: the clock is restarted whenever what the server has to do next has changed, and it stands still when the
server has nothing to do. The machine says which reply is owed next; the link reports what was read and written, and
how far the transport is with the block of a body. From these follows whose turn it is:

* A reply is owed: the server's turn, for the time of that reply's stage, counted from the last byte of its command or
  from the reply before it. Single bytes of a reply change nothing, so they do not restart the clock.
* A body is on its way and the transport still holds a block: the server's turn to take it, for the time of a block.
* A body is on its way and the transport has taken all of it: the source's turn. A slow source is not a silent server.
* The server has announced its end with a 421: it has a few seconds for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ..errors import Timeout
from ..model.timeouts import Timeouts
from ..protocol.machine import ClientProtocol

__all__ = ["ReplyClock"]

#: Seconds for the end of the stream after a 421 announced it.
_GOODBYE: Final = 5.0


class ReplyClock:
    """One timer for one connection.

    Args:
        machine: says which reply is owed.
        timeouts: the limits of the stages.
        overdue: called with the error when the server was too late.
        loop: whose clock counts.
    """

    __slots__ = (
        "_block_pending",
        "_blocks",
        "_due",
        "_loop",
        "_machine",
        "_overdue",
        "_progress",
        "_timeouts",
        "_timer",
        "_waiting_for",
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
        # When the server is too late, None while it has nothing to do.
        self._due: float | None = None
        # The field of `Timeouts` for what the server has to do, and how much it had done when that began.
        self._waiting_for: str | None = None
        self._progress = 0
        # Blocks of bodies that the transport has taken; does it still hold one?
        self._blocks = 0
        self._block_pending = False

    def update(self, now: float | None = None) -> None:
        """Something was read or written: restart the clock if what the server has to do next has changed.

        Args:
            now: loop time, where the caller knows it.
        """
        machine = self._machine
        waiting_for = "goodbye" if machine.goodbye is not None else machine.expected
        if waiting_for == "block" and not self._block_pending and machine.body_open:
            waiting_for = None
        progress = machine.answered + self._blocks
        if waiting_for == self._waiting_for and progress == self._progress:
            return
        self._waiting_for, self._progress = waiting_for, progress
        limit = self._limit()
        if limit is None:
            self._due = None
            return
        self._due = due = (self._loop.time() if now is None else now) + limit
        timer = self._timer
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._tick)

    def written(self) -> None:
        """Something was written. It changes what the server has to do next only where that was nothing, or a body."""
        if self._waiting_for is None or self._waiting_for == "block":
            self.update()

    def block_begins(self) -> None:
        """A block of a body was handed to the transport; `block_taken` follows when the transport has drained."""
        self._block_pending = True
        self.update()

    def block_taken(self) -> None:
        """The transport has drained."""
        self._block_pending = False
        self._blocks += 1
        self.update()

    def pause(self) -> None:
        """Count no more until the next `update`, which restarts the clock."""
        self._due = self._waiting_for = None

    def stop(self) -> None:
        """The connection is over."""
        self.pause()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def due(self) -> float | None:
        """Loop time at which the server is too late, None while it has nothing to do."""
        return self._due

    def _limit(self) -> float | None:
        waiting_for = self._waiting_for
        if waiting_for is None:
            return None
        if waiting_for == "goodbye":
            return _GOODBYE
        limit: float | None = getattr(self._timeouts, waiting_for)
        return limit

    def _tick(self) -> None:
        # A timer that is no longer wanted runs out instead of being cancelled: cheaper than one per message.
        self._timer = None
        if self._due is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._tick)
            return
        self._due = None
        self._overdue(self._error())

    def _error(self) -> Timeout:
        within = f"within {self._limit():g} s"
        if self._waiting_for == "goodbye":
            return Timeout(f"the server announced the end of the connection and did not close it {within}")
        if self._block_pending:
            return Timeout(f"the server did not take the next block of the message {within}", stage="body")
        waited = self._machine.answering or self._waiting_for
        return Timeout(f"no reply to {waited} {within}", stage=waited)
