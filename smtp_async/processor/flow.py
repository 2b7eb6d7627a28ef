"""May mail flow? Two things can stop all of it: a server that fails as a whole, and a spool that cannot be written.

A spool that cannot note what became of a message must not be sent from: the message would go out again and again. Both
have a breaker of the same kind, and its pauses.
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
        clock: what time it is.
        chance: draws a random number from 0 to 1.
        tell: tells the hooks.
        changed: called when mail begins or ceases to flow.

    Attributes:
        error: why it does not flow, None if it does.
    """

    __slots__ = ("_changed", "_clock", "_tell", "error", "host", "store")

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Callable[[], float],
        chance: Callable[[], float],
        tell: Tell,
        changed: Callable[[], None],
    ) -> None:
        self._clock: Final = clock
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
    def until(self) -> float:
        """When the pause ends; in the past if there is none."""
        return max(self.host.until, self.store.until) if not self.free else -math.inf

    def room(self) -> float:
        """Return how many messages may be begun now: any number, one as a probe, or none."""
        if self.free:
            return math.inf
        now = self._clock()
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
        if breaker.failed(self._clock()):
            self.error = error
            self._changed()
            await self._tell(QueuePaused(error=error, until=breaker.until))

    async def _fine(self) -> None:
        self._changed()
        if self.free:
            self.error = None
            await self._tell(QueueResumed())
