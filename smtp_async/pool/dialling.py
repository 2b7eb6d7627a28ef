"""Decides when the next connection may be dialled: backoff after failures, and refused logins.

Values and timers only; the pool dials.

Rules:

1. After a failure the next dial waits, twice as long with each failure in a row, and it is one dial alone: a probe.
   Dials that were under way already when the failure came fail for the same reason: together they count once.
2. A connection ends the series of failures when it has proved that the server takes mail: it has carried a message, or
   has been open for a second. A server can answer every step of the opening and hang up right after the last one;
   dialled again at once, it would be shown the password hundreds of times a second.
3. A failure beside a connection that has proved itself lowers the bound for a while, and so does "too many
   connections".
4. A refused login is remembered for a while, because each try shows the password once more and servers lock accounts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Final

from ..connection.send_job import DialledConnection
from ..errors import AuthenticationFailed, GreetingRefused, SMTPError
from .connection_bound import ConnectionBound

__all__ = ["Dialling", "is_refused_login"]

#: Seconds for which a refused login is remembered.
_LOGIN_PAUSE: Final = 60.0
#: Seconds after which an open connection has proved that the server takes mail.
_PROOF: Final = 1.0
#: Replies that say "too many connections": RFC 5321 section 3.8, and two that large providers use.
_CROWDED: Final = frozenset({421, 432, 454})


class Dialling:
    """Decides for one pool whether it may dial now.

    Args:
        loop: its clock counts.
        retry: called after a wait, when there is room again.
        bound: lowered if a failure says that the server takes no more connections.
        backoff: seconds before the next dial after the first failure, and the most that they are doubled to.
    """

    __slots__ = (
        "_backoff",
        "_bound",
        "_earliest",
        "_failed_at",
        "_loop",
        "_pause",
        "_refusal",
        "_retry",
        "_timer",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        retry: Callable[[], None],
        bound: ConnectionBound,
        backoff: tuple[float, float],
    ) -> None:
        self._loop = loop
        self._retry = retry
        self._bound = bound
        self._backoff = backoff
        # Seconds of the last pause, 0 if nothing has failed since a connection proved that the server takes mail.
        self._pause = 0.0
        # Loop times: of the next dial, and of the last failure that counted.
        self._earliest = 0.0
        self._failed_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        # The refusal of a login, and the loop time until which it is remembered.
        self._refusal: tuple[float, SMTPError] | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the last connections failed, so that one at a time is tried."""
        return self._pause > 0

    def room(self, opening: int, open_now: Collection[DialledConnection]) -> float:
        """Return how many connections may be dialled now: any number, one as a probe, or none.

        If none, because the next dial must wait, `retry` is called after the wait.

        Args:
            opening: how many are being opened.
            open_now: the open connections.
        """
        now = self._loop.time()
        earliest = self._earliest
        if self._pause:
            if any(map(self.proven, open_now)):
                self._pause = 0.0
            elif opening:
                # The end of that one, or its first message, decides what follows.
                return 0
            elif open_now:
                earliest = max(earliest, min(one.opened_at for one in open_now) + _PROOF)
        if earliest > now:
            if self._timer is None:
                self._timer = self._loop.call_at(earliest, self._timer_fired)
            return 0
        return 1 if self._pause else math.inf

    def proven(self, one: DialledConnection) -> bool:
        """Tell whether a connection has proved that the server takes mail."""
        return one.carried or self._loop.time() - one.opened_at >= _PROOF

    def note_proof(self) -> None:
        """Note that a connection has proved that the server takes mail."""
        self._pause = 0.0

    def note_failure(
        self, one: DialledConnection, error: SMTPError, open_now: Collection[DialledConnection]
    ) -> None:
        """Note that a connection could not be opened, or ended before it had proved anything.

        Args:
            one: the connection; it counts if it was dialled after the last failure that counted.
            error: why.
            open_now: the open connections.
        """
        crowded = _crowded(error) or any(map(self.proven, open_now))
        if one.dialled_at <= self._failed_at:
            if crowded:
                self._bound.connection_refused(together=True)
            return
        now = self._failed_at = self._loop.time()
        first, most = self._backoff
        self._pause = min(most, self._pause * 2 or first)
        self._earliest = now + self._pause
        if crowded:
            self._bound.connection_refused()

    def stop(self) -> None:
        """Cancel the timer that calls `retry`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        self._retry()

    # --- refused logins --------------------------------------------------------------------------------------

    @property
    def login_refused(self) -> bool:
        """Whether a login was refused, perhaps too long ago to count."""
        return self._refusal is not None

    def note_refused_login(self, error: SMTPError) -> None:
        """Remember that the login was refused for good."""
        self._refusal = (self._loop.time() + _LOGIN_PAUSE, error)

    def note_login(self) -> None:
        """Note that a login succeeded, or was not needed."""
        self._refusal = None

    def demand_login(self) -> None:
        """Raise if the login was refused a moment ago.

        Raises:
            SMTPError: that refusal.
        """
        if self._refusal is None:
            return
        until, error = self._refusal
        if self._loop.time() < until:
            raise error.copy()
        self._refusal = None


def is_refused_login(error: SMTPError) -> bool:
    """Tell whether `error` is a login that was refused for good."""
    return isinstance(error, AuthenticationFailed) and not error.temporary


def _crowded(error: SMTPError) -> bool:
    if error.reply is None:
        return False
    return error.reply.code in _CROWDED if isinstance(error, GreetingRefused) else error.reply.code == 421
