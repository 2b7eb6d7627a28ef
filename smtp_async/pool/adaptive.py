"""Decides how many connections a server accepts. Decisions only: the time is an argument.

Additive increase, multiplicative decrease, with a memory of where the server refused:

* A refused connection says how many are accepted: those that are open. The bound falls to that number.
* A message that is refused because of the load, or an open connection that ends with 421, says that this many are too
  many at this rate: the bound falls to seven tenths. So do reply times that have risen to four times the best.
* The bound rises by one at a time: quickly below the number that was refused last, and from there only as a probe, at
  first after a minute. A probe that is refused doubles the pause up to five minutes, one that is accepted divides it by
  four. So a server whose limit stands is asked rarely, and one that has recovered is used again.
"""

from __future__ import annotations

import math
from typing import Final

from ..errors import SenderRefused
from ..model.receipt import Outcome, Receipt

__all__ = ["AdaptiveBound", "is_congestion"]

_DECREASE: Final = 0.7
#: Seconds between two steps below the number that was refused.
_STEP: Final = 1.0
#: Seconds before a probe: at first, at least, at most.
_PROBE: Final = (60.0, 1.0, 300.0)
#: Seconds after a decrease in which further refusals are those of the same moment.
_SAME: Final = 1.0
#: Reply times count as risen if they are this many times the best, this many samples in a row, and above these seconds.
_RISEN: Final = 4.0
_SAMPLES: Final = 3
_NOTICEABLE: Final = 0.5
#: By what part the best reply time is raised with each sample, because messages change.
_FORGET: Final = 0.0005

#: Codes that refuse because of the load where the enhanced code does not say something else.
_LOADED: Final = frozenset({451, 452, 454})


def is_congestion(receipt: Receipt) -> bool:
    """Tell whether a server refused a message because there are too many connections or messages.

    Only codes are looked at: 421; 450, 451, 452 and 454 with an enhanced code for load (X.3.1 and X.3.2: the system is
    full or takes no mail, X.4.5: congestion, X.7.0 and above X.7.27: limits of providers) or without one. In reply to
    MAIL every X.7 counts: in reply to RCPT it is greylisting.
    """
    reply = receipt.reply
    if reply is None or receipt.outcome in (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN):
        return False
    code, enhanced = reply.code, reply.enhanced
    if code == 421:
        # X.4.2 is the end of a connection that was idle for too long.
        return enhanced is None or (enhanced.subject, enhanced.detail) != (4, 2)
    if enhanced is None:
        return code in _LOADED
    if code != 450 and code not in _LOADED:
        return False
    place = (enhanced.subject, enhanced.detail)
    if place in ((3, 1), (3, 2), (4, 5)):
        return True
    return enhanced.subject == 7 and (
        enhanced.detail == 0 or enhanced.detail > 27 or isinstance(receipt.error, SenderRefused)
    )


class AdaptiveBound:
    """The most connections that are tried now, between 1 and the user's limit.

    Args:
        most: the user's limit.

    Attributes:
        current: the bound.
        rises_at: the time at which it may rise by one, infinite if it has not been lowered.
    """

    __slots__ = (
        "_best",
        "_fell_at",
        "_most",
        "_pause",
        "_probing",
        "_refused",
        "_slow",
        "current",
        "rises_at",
    )

    def __init__(self, most: int) -> None:
        self._most = most
        self.current = most
        self.rises_at = math.inf
        # The lowest number of connections that was refused since the last probe.
        self._refused: float = math.inf
        self._pause = _PROBE[0]
        self._probing = False
        self._fell_at = -math.inf
        # The best reply time, and how many samples in a row were far above it.
        self._best = math.inf
        self._slow = 0

    def connection_refused(self, now: float, accepted: int, *, together: bool = False) -> None:
        """The server refused a connection, or ended it at once.

        Args:
            now: the time.
            accepted: how many others it accepts, 0 if that is not known.
            together: it was dialled together with one whose refusal is known.
        """
        if together and accepted >= self.current:
            return
        lower = self.current - 1
        self._fall(
            now,
            min(lower, accepted) if accepted else lower,
            refused=accepted + 1 if accepted else self.current,
        )

    def congested(self, now: float, used: int) -> None:
        """The server refused because of the load, or has become slow, while `used` connections were open."""
        if now - self._fell_at >= _SAME:
            used = min(self.current, max(1, used))
            self._fall(now, int(used * _DECREASE), refused=used)

    def replies_took(self, now: float, seconds: float, used: int) -> None:
        """Note the mean time that messages have taken lately, with `used` connections, from begin to reply."""
        self._best = min(self._best * (1 + _FORGET), seconds)
        if seconds <= max(_NOTICEABLE, _RISEN * self._best):
            self._slow = 0
            return
        self._slow += 1
        if self._slow >= _SAMPLES and self.current > 1:
            self._slow = 0
            self.congested(now, used)

    def rise(self, now: float) -> None:
        """Raise the bound by one; call at `rises_at`, or later."""
        if self._slow:
            self.rises_at = now + _STEP
            return
        if self._probing:
            self._pause = max(_PROBE[1], self._pause / 4)
        self.current += 1
        self._probing = self.current >= self._refused
        if self._probing:
            # If this one is accepted, the next one is unknown, too.
            self._refused = self.current + 1
        self._set_rise(now)

    def _fall(self, now: float, bound: int, *, refused: int) -> None:
        if self._probing:
            self._pause = min(_PROBE[2], self._pause * 2)
        self._probing = False
        self._fell_at = now
        self._refused = refused
        self.current = max(1, min(bound, self.current))
        self._set_rise(now)

    def _set_rise(self, now: float) -> None:
        if self.current >= self._most:
            self.rises_at = math.inf
        elif self.current + 1 < self._refused:
            self.rises_at = now + _STEP
        else:
            self.rises_at = now + self._pause
