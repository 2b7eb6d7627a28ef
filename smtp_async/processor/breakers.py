"""Decides whether mail may flow. Two faults stop it: a server that fails as a whole, and an unwritable spool.

Without a spool that can record results, no mail must be sent, because each message would be sent again and again. So
server and spool each have a circuit breaker, with pauses of the same lengths. After each attempt, `attempt_ended`
judges the server: it stops mail, or lets it flow again. `spool_failed` and `spool_recovered` do so for the spool.

A pause is a span of time, so it is measured on a monotonic clock; the wall clock only gives the end of the pause for
hooks and statistics.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

from ..events import Event, QueuePaused, QueueResumed
from ..model.receipt import Receipt
from .options import ProcessorOptions
from .results import JobResult
from .schedule import RetryPolicy, pause_length

__all__ = ["Breaker", "Breakers"]


class Breaker:
    """A circuit breaker: closed (mail flows), open (a pause), half open (one message is tried as a probe).

    Args:
        policy: the lengths of the pauses.
        chance: draws a random number from 0 to 1.

    Attributes:
        failures: failures in a row; 0 means closed.
        until: when the pause ends, on the clock of the `now` arguments.
        error: why the breaker is open, None if it is closed.
    """

    __slots__ = ("_chance", "_policy", "_probing", "error", "failures", "until")

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float]) -> None:
        self._policy = policy
        self._chance = chance
        self._probing = False
        self.failures = 0
        self.until = -math.inf
        self.error: Exception | None = None

    @property
    def closed(self) -> bool:
        """Mail flows."""
        return not self.failures

    def messages_allowed(self, now: float) -> float:
        """Return how many messages may be started now: any number, one as a probe, or none."""
        if not self.failures:
            return math.inf
        return 0 if self._probing or now < self.until else 1

    def started(self) -> None:
        """Record that a message is being tried; while the breaker is open, that message is the probe."""
        self._probing = bool(self.failures)

    def failed(self, now: float, error: Exception | None = None) -> bool:
        """Record a failure; return whether a new pause begins with it."""
        if self.failures and not self._probing:
            # This message was being sent when the first one failed, so its failure is not another one.
            return False
        self._probing = False
        self.failures += 1
        self.error = error
        self.until = now + pause_length(self._policy, self.failures, self._chance())
        return True

    def allow_next_probe(self) -> None:
        """Record that no probe is under way any more: while the breaker is open, the next message is a probe."""
        self._probing = False

    def recovered(self) -> None:
        """Close the breaker: mail flows again."""
        self._probing = False
        self.failures = 0
        self.error = None


class Breakers:
    """The breakers of a route: one for its server, and one for the spool, which all routes share.

    Args:
        retry: the lengths of the pauses.
        options: the clocks and the source of randomness.
        publish: publishes an event.
        on_change: called when mail stops or flows again.
        spool: the breaker of the spool, if there is one.
        host: the name of the server, for hooks.

    Attributes:
        server: the breaker of the server.
        spool: the breaker of the spool.
    """

    __slots__ = ("_host", "_on_change", "_options", "_publish", "server", "spool")

    def __init__(
        self,
        retry: RetryPolicy,
        options: ProcessorOptions,
        publish: Callable[[Event], Awaitable[None]],
        on_change: Callable[[], None],
        *,
        spool: Breaker | None = None,
        host: str = "",
    ) -> None:
        self._host: Final = host
        self._options: Final = options
        self._publish: Final = publish
        self._on_change: Final = on_change
        self.server: Final = Breaker(retry, options.chance)
        self.spool: Final = Breaker(retry, options.chance) if spool is None else spool

    # --- state -----------------------------------------------------------------------------------------------

    @property
    def error(self) -> Exception | None:
        """Why mail does not flow; None if it does."""
        return self.server.error or self.spool.error

    @property
    def mail_flows(self) -> bool:
        """Any number of messages may be started."""
        return self.server.closed and self.spool.closed

    @property
    def seconds_left(self) -> float:
        """The rest of the pause in seconds; 0 if it is over, or if mail flows."""
        if self.mail_flows:
            return 0.0
        return max(0.0, max(self.server.until, self.spool.until) - self._options.monotonic())

    @property
    def paused_until(self) -> float:
        """When the pause ends, in seconds of the epoch, by the present wall clock."""
        return self._options.clock() + self.seconds_left

    def messages_allowed(self) -> float:
        """Return how many messages may be started now: any number, one as a probe, or none."""
        if self.mail_flows:
            return math.inf
        now = self._options.monotonic()
        return min(self.server.messages_allowed(now), self.spool.messages_allowed(now))

    # --- results of attempts ---------------------------------------------------------------------------------

    def started(self) -> None:
        """Record that a message is being tried."""
        self.server.started()
        self.spool.started()

    def allow_next_probe(self) -> None:
        """Record for server and spool that no probe is under way any more."""
        self.server.allow_next_probe()
        self.spool.allow_next_probe()
        self._on_change()

    async def attempt_ended(self, receipt: Receipt, result: JobResult) -> None:
        """Stop mail if the attempt found that the server cannot be used; let mail flow again if the server replied.

        Without a reply the next message is another probe.
        """
        if result.host_error is not None:
            await self.server_failed(result.host_error)
        elif self.server.closed:
            return
        elif receipt.reply is not None or any(verdict.reply is not None for verdict in receipt.verdicts):
            await self.server_recovered()
        else:
            self.server.allow_next_probe()

    async def server_failed(self, error: Exception) -> None:
        """Stop mail, because the server cannot be used as a whole."""
        await self._failed(self.server, error)

    async def spool_failed(self, error: Exception) -> None:
        """Stop mail, because the spool cannot be written."""
        await self._failed(self.spool, error)

    async def server_recovered(self) -> None:
        """Close the breaker of the server, because the server took part in a transaction."""
        await self._recovered(self.server)

    async def spool_recovered(self) -> None:
        """Close the breaker of the spool, because the spool was written."""
        await self._recovered(self.spool)

    async def _failed(self, breaker: Breaker, error: Exception) -> None:
        now = self._options.monotonic()
        if breaker.failed(now, error):
            self._on_change()
            until = self._options.clock() + breaker.until - now
            await self._publish(QueuePaused(error=error, until=until, host=self._host_of(breaker)))

    async def _recovered(self, breaker: Breaker) -> None:
        if breaker.closed:
            return
        breaker.recovered()
        self._on_change()
        if self.mail_flows:
            await self._publish(QueueResumed(host=self._host_of(breaker)))

    def _host_of(self, breaker: Breaker) -> str:
        return self._host if breaker is self.server else ""
