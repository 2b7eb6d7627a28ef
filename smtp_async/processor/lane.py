"""`Lane`: what a processor has for one client. Its workers, the jobs that wait for them, and its pauses.

A fixed number of workers take the waiting jobs one after the other. While no mail flows to the server, one message is
tried as a probe after each pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from ..spool.contract import Lease
from .attempt import Attempts
from .breakers import Breakers
from .control import RunControl
from .results import RouteStatistics

__all__ = ["Lane"]

#: Share of the latest interval between two ends of attempts in the mean interval.
_NEWEST: Final = 0.1
#: The longest estimate of the seconds until a job has its turn, because a slow server may become fast.
_LONGEST_WAIT: Final = 60.0
#: The shortest one, so that a job that is turned away is not claimed again at once.
_SHORTEST_WAIT: Final = 0.01

_log = logging.getLogger("smtp_async")


class Lane:
    """The jobs of one client in a processor.

    Args:
        host: the name of the server.
        attempts: tries a job and ends its lease.
        breakers: tell whether mail flows to the server.
        concurrency: number of workers.
        control: decides whether the run continues.
        monotonic: returns seconds of a clock that is never set.

    Attributes:
        attempts, breakers, concurrency: the arguments.
        ready: claimed jobs that wait for a worker.
        in_work: jobs that workers are trying.
        probing: a single message is tried as a probe.
    """

    def __init__(
        self,
        host: str,
        attempts: Attempts,
        breakers: Breakers,
        *,
        concurrency: int,
        control: RunControl,
        monotonic: Callable[[], float],
    ) -> None:
        self._host: Final = host
        self.attempts: Final = attempts
        self.breakers: Final = breakers
        self.concurrency: Final = concurrency
        self._control: Final = control
        self._monotonic: Final = monotonic
        self.ready: Final[deque[Lease]] = deque()
        self.in_work: Final[dict[Lease, None]] = {}
        self.probing = False
        self._idle: Final[deque[asyncio.Future[None]]] = deque()
        self._on_end: Callable[[Lane], None] = lambda lane: None
        # The mean interval between two ends of attempts; the last of these ends, or when the first job came after all
        # had ended; and when the job that was turned away last is expected to have its turn.
        self._interval = 0.0
        self._since = 0.0
        self._turn_at = 0.0

    # --- a run -----------------------------------------------------------------------------------------------

    def start(self, on_end: Callable[[Lane], None]) -> list[asyncio.Task[None]]:
        """Begin a run in the current event loop, and return its workers."""
        self.probing = False
        # The last probe may have been withdrawn.
        self.breakers.allow_next_probe()
        self._on_end = on_end
        self._idle.clear()
        loop = asyncio.get_running_loop()
        return [loop.create_task(self._work(), name="smtp_async job") for _ in range(self.concurrency)]

    def statistics(self) -> RouteStatistics:
        """Return the current state."""
        breakers = self.breakers
        return RouteStatistics(
            self._host,
            len(self.in_work),
            len(self.ready),
            None if breakers.mail_flows else breakers.paused_until,
            "" if breakers.error is None else str(breakers.error),
        )

    # --- room ------------------------------------------------------------------------------------------------

    @property
    def flows(self) -> bool:
        """Any number of messages may be started."""
        return self.breakers.mail_flows

    @property
    def paused(self) -> bool:
        """No message may be started, and none is tried as a probe."""
        return not self.flows and not self.probing

    @property
    def room(self) -> int:
        """How many jobs to claim for it: a batch while mail flows, one as a probe, none in a pause."""
        if not self.flows:
            busy = self.in_work or self.ready
            return 0 if busy else int(min(1, self.breakers.messages_allowed()))
        ahead = len(self.ready)
        return 0 if 2 * ahead > self.concurrency else self.concurrency - ahead

    def takes_one(self) -> bool:
        """Tell whether one more job may be taken now."""
        return len(self.ready) < self.concurrency if self.flows else self.room > 0

    def seconds_to_turn(self, shortest: float) -> float:
        """Estimate how long a job that is not taken now should wait; `turned_away` is told if it does.

        The jobs turned away come back over the time after which the server is expected to take them, twice as fast as
        it took the last ones, so that it has work if it became faster.

        Args:
            shortest: the estimate while the server pauses, unless the pause is longer.
        """
        if not self.flows:
            return max(self.breakers.seconds_left, shortest, _SHORTEST_WAIT)
        now = self._monotonic()
        # Of a server that hangs, only the time since the last end tells.
        interval = max(self._interval, now - self._since) / 2
        turn = max(self._turn_at, now + len(self.ready) * interval) + interval
        return min(max(turn - now, _SHORTEST_WAIT), _LONGEST_WAIT)

    def turned_away(self, seconds: float) -> None:
        """Record that a job waits this long for its turn, so that the next one has its turn later."""
        if self.flows:
            self._turn_at = self._monotonic() + seconds

    # --- jobs ------------------------------------------------------------------------------------------------

    def take(self, leases: Iterable[Lease]) -> bool:
        """Hand out claimed jobs; return False if none is taken, because mail has stopped meanwhile."""
        if not self.flows:
            if self.in_work or not self.breakers.messages_allowed():
                return False
            self.probing = True
            self.breakers.started()
        if not (self.ready or self.in_work):
            self._since = self._monotonic()
        self.ready.extend(leases)
        self.wake_workers()
        return True

    def wake_workers(self) -> None:
        """Wake an idle worker for each waiting job."""
        wanted = len(self.ready)
        while wanted and self._idle:
            place = self._idle.popleft()
            if not place.done():
                place.set_result(None)
                wanted -= 1

    async def _work(self) -> None:
        while True:
            if not self.ready or not self._may_start():
                await self._wait_for_work()
                continue
            lease = self.ready.popleft()
            self.in_work[lease] = None
            if 2 * len(self.ready) <= self.concurrency:
                self._control.wake()
            try:
                await self.attempts.run(lease)
            except Exception as error:
                _log.exception("the job %s could not be brought to an end", lease.entry.id)
                self._control.stop_for_good(error)
            finally:
                del self.in_work[lease]
                self._after_attempt()

    def _may_start(self) -> bool:
        if self._control.stopping:
            return False
        return self.flows or (self.probing and not self.in_work)

    def _after_attempt(self) -> None:
        if self.probing:
            # The probe has ended, with or without a verdict.
            self.probing = False
            self.breakers.allow_next_probe()
        now = self._monotonic()
        self._interval += _NEWEST * (now - self._since - self._interval)
        self._since = now
        self._on_end(self)

    async def _wait_for_work(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(place)
        await place
