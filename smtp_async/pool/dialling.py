"""When the next connection may be dialled, and how many at once: what failures teach.

Values and timers only; the pool dials.

Rules:

1. After a failure the next dial waits, twice as long with each failure in a row, and it is one dial alone: a probe.
   Dials that were under way already when the failure came fail for the same reason: together they count once.
2. A connection ends the series of failures when it has proved that the server takes mail: it has carried a message, or
   stood for a second. A server can answer every step of the opening and hang up right behind the last one; dialled
   again at once, it would be shown the password hundreds of times a second.
3. A failure beside a connection that has proved itself lowers the bound for a while, and so does "too many
   connections".
4. A refused login is remembered for a while: each try shows the password once more, and servers lock accounts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Final, Protocol

from ..errors import AuthenticationFailed, GreetingRefused, SMTPError
from .bound import Bound

__all__ = ["Dialling", "Standing"]

#: Seconds before the next dial after the first failure, doubled with each one up to the second figure.
_BACKOFF: Final = (0.1, 10.0)
#: Seconds for which a refused login is remembered, and the bound is lowered.
_LATCH: Final = 60.0
#: Seconds after which a connection that stands counts as opened.
_PROOF: Final = 1.0
#: Replies that say "too many connections": RFC 5321 section 3.8, and two that large providers use.
_CROWDED: Final = frozenset({421, 432, 454})


class Standing(Protocol):
    """A connection that could be opened.

    Attributes:
        dialled_at, opened_at: loop times at which it was dialled, and opened.
        carried: did the server accept or refuse a message on it?
    """

    dialled_at: float
    opened_at: float
    carried: bool


class Dialling:
    """What the dials of one pool have taught.

    Args:
        loop: whose time counts.
        again: called when there is room again, after a wait.
        bound: lowered where a failure says that the server takes no more connections.
    """

    __slots__ = ("_again", "_bound", "_failed_at", "_latched", "_loop", "_next", "_pause", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, again: Callable[[], None], bound: Bound) -> None:
        self._loop = loop
        self._again = again
        self._bound = bound
        # The last pause, 0 if nothing has failed since a connection proved that the server takes mail.
        self._pause = 0.0
        self._next = 0.0
        # When the last failure came that counted.
        self._failed_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._latched: tuple[float, SMTPError] | None = None

    @property
    def in_doubt(self) -> bool:
        """Did the last connections fail, so that one at a time is tried?"""
        return self._pause > 0

    def room(self, opening: int, standing: Collection[Standing]) -> float:
        """Return how many connections may be dialled now: any number, the probe, or none; then `again` is called.

        Args:
            opening: how many are being opened.
            standing: those that are open.
        """
        now = self._loop.time()
        earliest = self._next
        if self._pause:
            if any(map(self.proven, standing)):
                self._pause = 0.0
            elif opening:
                # Its end, or its first message, decides how it goes on.
                return 0
            elif standing:
                earliest = max(earliest, min(one.opened_at for one in standing) + _PROOF)
        if earliest > now:
            if self._timer is None:
                self._timer = self._loop.call_at(earliest, self._ring)
            return 0
        return 1 if self._pause else math.inf

    def proven(self, one: Standing) -> bool:
        """Has a connection proved that the server takes mail?"""
        return one.carried or self._loop.time() - one.opened_at >= _PROOF

    def proved(self) -> None:
        """A connection has proved that the server takes mail."""
        self._pause = 0.0

    def failed(self, one: Standing, error: SMTPError, standing: Collection[Standing]) -> None:
        """A connection could not be opened, or ended before it had proved anything.

        Args:
            one: the connection; it counts if it was dialled after the last failure that did.
            error: why.
            standing: those that are open.
        """
        if one.dialled_at <= self._failed_at:
            return
        now = self._failed_at = self._loop.time()
        first, most = _BACKOFF
        self._pause = min(most, self._pause * 2 or first)
        self._next = now + self._pause
        if _crowded(error) or any(map(self.proven, standing)):
            self._bound.lower(_LATCH)

    def stop(self) -> None:
        """Call `again` no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._again()

    # --- refused logins --------------------------------------------------------------------------------------

    @property
    def latched(self) -> bool:
        """Was a login refused, perhaps too long ago to count?"""
        return self._latched is not None

    def latch(self, error: AuthenticationFailed) -> None:
        """The login was refused for good."""
        self._latched = (self._loop.time() + _LATCH, error)

    def logged_in(self) -> None:
        """A login went well."""
        self._latched = None

    def demand_login(self) -> None:
        """Raise if the login was refused a moment ago.

        Raises:
            SMTPError: that refusal.
        """
        if self._latched is None:
            return
        until, error = self._latched
        if self._loop.time() < until:
            raise error.copy()
        self._latched = None


def _crowded(error: SMTPError) -> bool:
    if error.reply is None:
        return False
    return error.reply.code in _CROWDED if isinstance(error, GreetingRefused) else error.reply.code == 421
