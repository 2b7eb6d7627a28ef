"""May mail flow? Two things can stop all of it: a server that fails as a whole, and a spool that cannot be written.

A spool that cannot note what became of a message must not be sent from: the message would go out again and again. Both
have a breaker of the same kind, and its pauses. A pause is a span of time, so it is measured on a clock that nobody
sets; the wall clock only says, to those who are told, when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

from ..events import Event, QueuePaused, QueueResumed
from .schedule import Breaker, RetryPolicy

__all__ = ["Flow"]

#: How told the events of a pause.
Tell = Callable[[Event], Awaitable[None]]


class Flow:
    """The breakers of a processor.

    Args:
        policy: the length of the pauses.
        clock: what time it is, in seconds of the epoch.
        monotonic: seconds of a clock that is never set.
        chance: draws a random number from 0 to 1.
        tell: tells the hooks.
        changed: called when mail begins or ceases to flow.

    Attributes:
        error: why it does not flow, None if it does.
    """

    __slots__ = ("_changed", "_clock", "_monotonic", "_tell", "error", "host", "store")

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        chance: Callable[[], float],
        tell: Tell,
        changed: Callable[[], None],
    ) -> None:
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._tell: Final = tell
        self._changed: Final = changed
        self.host: Final = Breaker(policy, chance)
        self.store: Final = Breaker(policy, chance)
        self.error: Exception | None = None

    @property
    def free(self) -> bool:
        """Mail flows."""
        return self.host.closed and self.store.closed

    @property
    def left(self) -> float:
        """How many seconds of the pause are left; none if it is over, or if mail flows."""
        if self.free:
            return 0.0
        return max(0.0, max(self.host.until, self.store.until) - self._monotonic())

    @property
    def until(self) -> float:
        """When the pause ends, in seconds of the epoch, as the wall clock stands now."""
        return self._clock() + self.left

    def room(self) -> float:
        """Return how many messages may be begun now: any number, one as a probe, or none."""
        if self.free:
            return math.inf
        now = self._monotonic()
        return min(self.host.admits(now), self.store.admits(now))

    def begun(self) -> None:
        """A message is being tried."""
        self.host.begun()
        self.store.begun()

    def undecided(self) -> None:
        """It ended and told nothing about the server, nor about the spool."""
        self.host.undecided()
        self.store.undecided()
        self._changed()

    async def host_failed(self, error: Exception) -> None:
        """The server cannot be used."""
        await self._failed(self.host, error)

    async def store_failed(self, error: Exception) -> None:
        """The spool cannot be written."""
        await self._failed(self.store, error)

    async def host_fine(self) -> None:
        """The server took part in a transaction."""
        if not self.host.closed:
            self.host.succeeded()
            await self._fine()

    async def store_fine(self) -> None:
        """The spool was written."""
        if not self.store.closed:
            self.store.succeeded()
            await self._fine()

    async def _failed(self, breaker: Breaker, error: Exception) -> None:
        now = self._monotonic()
        if breaker.failed(now):
            self.error = error
            self._changed()
            await self._tell(QueuePaused(error=error, until=self._clock() + breaker.until - now))

    async def _fine(self) -> None:
        self._changed()
        if self.free:
            self.error = None
            await self._tell(QueueResumed())
