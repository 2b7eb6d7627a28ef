"""The tasks of a processor: a manager that claims jobs, workers that try them, a keeper that extends leases.

The manager claims jobs ahead in batches and gives each to the lane of its route; the workers of a lane take its jobs
one after the other. The processor makes no task, timer or lock per message.

While mail flows over no route, the manager claims nothing, releases the jobs that wait, and after the pause tries one
message as a probe. While mail flows over some routes only, jobs for the other routes are claimed as well, because the
spool does not know the routes; they are queued again, due after the pause of their route.

A run always ends in the same way: no job is claimed, waiting jobs are released, and jobs being sent may continue within
the grace; then they are withdrawn, and the outcome of a message that may have been sent is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from ..errors import LeaseLost, SMTPError, SpoolError, SpoolUnsafe
from ..events import JobFailed, JobQueued
from ..spool.contract import Lease, Spool
from .attempt import give_back
from .breakers import Breakers
from .control import RunControl
from .delivery_telemetry import DeliveryTelemetry
from .event_sink import EventSink
from .lane import Lane
from .options import ProcessorOptions
from .results import Fate
from .routing import NoRoute, Routing
from .unrouted import Unrouted

__all__ = ["Workers"]

#: Seconds after which a task that was cancelled, but still runs, is cancelled again.
_CANCEL_AGAIN: Final = 0.1
#: Number of jobs that are claimed at once for routes that are not known yet.
_UNKNOWN_ROOM: Final = 8

_log = logging.getLogger("smtp_async")


class Workers:
    """The tasks of a processor.

    Args:
        spool: holds the jobs.
        routing: the lanes, and which of them takes which job.
        options: of the processor.
        control: decides whether the run continues.
        breakers: tell whether the spool can be used; with a single route, those of its lane.
        unrouted: ends the leases of jobs without a route.
        events: receives the results of recovery.
        telemetry: is told what the spool holds, when a run begins and ends and once per heartbeat.
    """

    def __init__(
        self,
        spool: Spool,
        routing: Routing,
        *,
        options: ProcessorOptions,
        control: RunControl,
        breakers: Breakers,
        unrouted: Unrouted,
        events: EventSink,
        telemetry: DeliveryTelemetry | None = None,
    ) -> None:
        self._spool: Final = spool
        self._telemetry: Final = telemetry
        self._routing: Final = routing
        self._options: Final = options
        self._control: Final = control
        self._breakers: Final = breakers
        self._unrouted: Final = unrouted
        self._events: Final = events
        # Jobs whose release failed: releasing them may be retried, so no worker may start them.
        self._unreleased: Final[deque[tuple[Lane | None, Lease]]] = deque()
        # Jobs whose route is still to be asked for; the first may be on its way back to the spool.
        self._unassigned: Final[deque[Lease]] = deque()
        self._tasks: Final[list[asyncio.Task[None]]] = []
        # The lanes whose workers run.
        self._started: Final[set[Lane]] = set()
        # One wait for new jobs, which outlives the manager's sleep.
        self._new_jobs: asyncio.Task[bool] | None = None
        # Jobs are claimed one by one, because one of them may kill workers and must not affect others. A run begins so,
        # too, because the last process may have died of such a job.
        self._one_by_one = True
        self._suspect: Lease | None = None

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes so far."""
        return self._routing.lanes

    async def run(self, *, once: bool) -> None:
        """Deliver until the control stops the run, or, with `once`, until every due job was tried."""
        self._one_by_one = True
        self._breakers.allow_next_probe()
        self._control.begin(self._withdraw)
        self._start_lanes()
        keeper = asyncio.get_running_loop().create_task(self._keep_leases(), name="smtp_async leases")
        try:
            if await self._recover():
                await self._tell_state()
                await self._claim_jobs(once)
            await self._release_waiting()
            while any([lane.in_work for lane in self.lanes]):
                await self._control.sleep(None)
            await self._tell_state()
        finally:
            # Idle workers have to be cancelled, too.
            self._control.stop_now()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._release_waiting()
            await _cancel_and_wait(keeper)
            if self._new_jobs is not None:
                await _cancel_and_wait(self._new_jobs)
                self._new_jobs = None
            self._tasks.clear()
            self._started.clear()

    def _start_lanes(self) -> None:
        """Start the workers of lanes that are new in this run."""
        for lane in self.lanes:
            if lane not in self._started:
                self._started.add(lane)
                self._tasks.extend(lane.start(self._after_attempt))

    def _withdraw(self) -> None:
        for task in self._tasks:
            # When an event loop ends, the tasks were cancelled before, and are about to release their jobs.
            if not task.cancelling():
                task.cancel()

    # --- claiming --------------------------------------------------------------------------------------------

    async def _claim_jobs(self, once: bool) -> None:
        """Claim until the run is stopped, or, with `once`, until no job is due or no job can be sent."""
        # The same time for all claims of `once`, so that a job deferred meanwhile is not due again, whatever its wait.
        now = self._options.clock() if once else None
        exhausted, returned = False, 0
        # A pause of an earlier run is over.
        probe_due = not self._flows and self._claim_size(once=once) > 0
        while not self._control.stopping:
            if not self._flows and not any([lane.probing for lane in self.lanes]):
                await self._release_waiting()
                if once and not probe_due:
                    self._note_pause()
                    return
                probe_due = False
            else:
                await self._release_paused()
            for lane in self.lanes:
                # The workers may have become idle while mail did not flow.
                lane.wake_workers()
            # A job that one route did not end may be for another one.
            exhausted = exhausted and returned == self._returned
            count = 0 if exhausted else self._claim_size(once=once)
            returned = self._returned if count else returned
            leases = await self._claim(count, now) if count else []
            exhausted = exhausted or bool(once and count and not leases and self._flows)
            if leases:
                await self._assign(await self._without_suspects(leases))
            await self._events.publish_unreadable(self._spool.unreadable())
            if leases:
                continue
            if not exhausted:
                await self._wait_for_change(claimed=count > 0)
            elif any([lane.ready or lane.in_work for lane in self.lanes]):
                await self._control.sleep(None)
            elif returned == self._returned:
                self._note_pause()
                return
        if once and (not exhausted or self._unreleased or any([lane.ready for lane in self.lanes])):
            self._control.note_untried_jobs()

    @property
    def _flows(self) -> bool:
        """Whether mail flows over any route."""
        if self._routing.open_ended and self._breakers.mail_flows:
            return True
        return any([lane.flows for lane in self.lanes])

    @property
    def _returned(self) -> int:
        """Number of jobs that may be due for another route, after their lease has ended."""
        if self._routing.single:
            return 0
        return self._events.counts[Fate.HANDED_ON] + self._events.counts[Fate.RELEASED]

    def _note_pause(self) -> None:
        """Record that jobs were left, because their server cannot be used."""
        for lane in self.lanes:
            if lane.breakers.error is not None:
                self._control.note_error(lane.breakers.error)

    def _claim_size(self, *, once: bool) -> int:
        """Return how many jobs to claim: a batch while mail flows, one as a probe.

        As many as every lane with room can take. A lane without room does not keep jobs of the others from being
        claimed, except in a run of every due job once: what it turns away would not be due again in that run.
        """
        lanes = self.lanes
        open_lanes = [lane for lane in lanes if lane.flows]
        if self._one_by_one and self._flows:
            # Jobs that were started before may take long, and must not delay the others.
            busy = any([lane.ready or self._suspect in lane.in_work for lane in lanes])
            return 0 if busy else 1
        rooms = [lane.room for lane in open_lanes]
        if self._routing.open_ended and self._breakers.mail_flows:
            rooms.append(_UNKNOWN_ROOM)
        if not all(rooms) and once:
            return 0
        rooms = [room for room in rooms if room]
        return min(rooms) if rooms else max([lane.room for lane in lanes], default=0)

    async def _claim(self, count: int, now: float | None) -> list[Lease]:
        try:
            return await self._spool.claim(count, now=now, marked=self._options.marking == "claim")
        except SpoolUnsafe as error:
            self._control.stop_for_good(error)
        except SpoolError as error:
            await self._breakers.spool_failed(error)
        except SMTPError as error:
            self._control.stop_for_good(error)
        return []

    async def _without_suspects(self, leases: list[Lease]) -> list[Lease]:
        """Return the claimed jobs to try; release those from the first suspect on, to claim them one by one.

        A suspect is a job whose worker has died.
        """
        suspects = [place for place, lease in enumerate(leases) if lease.entry.recoveries]
        if self._one_by_one:
            # Claimed alone, a suspect may be tried. After the last suspect, jobs are claimed in batches again.
            self._one_by_one = bool(suspects)
            self._suspect = leases[0]
        elif suspects:
            self._one_by_one = True
            leases, back = leases[: suspects[0]], leases[suspects[0] :]
            self._unreleased.extend([(None, lease) for lease in back])
            await self._release_all(self._unreleased)
        return leases

    async def _assign(self, leases: list[Lease]) -> None:
        """Give each job to the lane of its route."""
        if self._routing.single:
            self._hand_out(self.lanes[0], leases)
        else:
            await self._distribute(leases)

    def _hand_out(self, lane: Lane, leases: list[Lease]) -> None:
        if not lane.take(leases):
            # Mail stopped while these jobs were being claimed: release them; a probe follows later.
            self._unreleased.extend([(lane, lease) for lease in leases])

    async def _distribute(self, leases: list[Lease]) -> None:
        """Give each job to its route, or turn it away."""
        waiting = self._unassigned
        waiting.extend(leases)
        while waiting:
            # A job stays in the queue until its end is written, so that its lease is extended, and released after an
            # error.
            lease = waiting[0]
            try:
                lane, part, taken, seconds = self._routing.assign(lease)
            except NoRoute as error:
                await self._unrouted.end(error)
                waiting.popleft()
                continue
            self._start_lanes()
            if taken:
                if self._suspect is lease:
                    self._suspect = part
                self._hand_out(lane, [part])
            else:
                lane.turned_away(seconds)
                if not await lane.attempts.turn_away(part, seconds):
                    self._unreleased.append((lane, part))
            waiting.popleft()

    async def _wait_for_change(self, *, claimed: bool) -> None:
        """Sleep until a job is due, or until a worker or `stop` wakes the manager."""
        if not claimed or not self._flows:
            # A millisecond more, because a timer may fire slightly early.
            left = [lane.breakers.seconds_left + 0.001 for lane in self.lanes if not lane.flows]
            pauses = [one for one in left if one > 0.001]
            unknown = None if self._flows else self._options.poll
            await self._control.sleep(min(pauses, default=unknown))
            return
        waiting = self._new_jobs
        if waiting is None:
            wait = self._spool.wait(self._options.poll)
            waiting = self._new_jobs = asyncio.get_running_loop().create_task(wait)
            waiting.add_done_callback(lambda _: self._control.wake())
        if not waiting.done():
            await self._control.sleep(None)
        if not waiting.done():
            return
        self._new_jobs = None
        error = None if waiting.cancelled() else waiting.exception()
        if isinstance(error, SpoolError):
            await self._breakers.spool_failed(error)
        elif isinstance(error, Exception):
            self._control.stop_for_good(error)

    async def _release_waiting(self) -> None:
        """End the leases of all jobs that wait for a worker."""
        self._unreleased.extend([(None, lease) for lease in self._unassigned])
        self._unassigned.clear()
        if await self._release_all(self._unreleased):
            for lane in self.lanes:
                await self._release_ready(lane)

    async def _release_paused(self) -> None:
        """End the leases of the jobs that wait for a route without mail."""
        await self._release_all(self._unreleased)
        for lane in self.lanes:
            if lane.paused and lane.ready:
                await self._release_ready(lane)

    async def _release_ready(self, lane: Lane) -> None:
        waiting: deque[tuple[Lane | None, Lease]] = deque([(lane, lease) for lease in lane.ready])
        lane.ready.clear()
        await self._release_all(waiting)
        self._unreleased.extend(waiting)

    async def _release_all(self, leases: deque[tuple[Lane | None, Lease]]) -> bool:
        """End these leases; return False if the spool cannot be written now."""
        while leases:
            lane, lease = leases.popleft()
            if lane is None:
                given_back = await give_back(lease, self._breakers, self._events)
            else:
                given_back = await lane.attempts.give_back(lease)
            if not given_back:
                self._unreleased.append((lane, lease))
                return False
        return True

    def _after_attempt(self, lane: Lane) -> None:
        drained = not (lane.in_work or lane.ready)
        if drained or self._control.stopping or self._one_by_one or not lane.flows:
            self._control.wake()

    # --- leases ----------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        """Extend the leases, and take back the jobs of dead workers, once per heartbeat."""
        try:
            while True:
                await asyncio.sleep(self._options.heartbeat)
                await self._extend_leases()
                await self._tell_state()
                if not self._control.stopping:
                    await self._recover()
        except Exception as error:
            _log.exception("the leases could not be extended")
            self._control.stop_for_good(error)

    async def _extend_leases(self) -> None:
        leases = [lease for lane in self.lanes for lease in (*lane.in_work, *lane.ready)]
        leases += [*self._unassigned, *[lease for _, lease in self._unreleased]]
        # All at once, so that a spool can extend them together.
        for error in await asyncio.gather(*[lease.extend() for lease in leases], return_exceptions=True):
            if isinstance(error, SpoolError):
                await self._breakers.spool_failed(error)
                return
            # A lease that is lost has ended meanwhile, or its mark and its end will be refused.
            if error is not None and not isinstance(error, LeaseLost):
                raise error

    async def _tell_state(self) -> None:
        if self._telemetry is None:
            return
        # What is wrong with the spool is found, and told, by those who need it.
        with contextlib.suppress(SMTPError):
            self._telemetry.note_spool(await self._spool.statistics(), self._options.clock())

    async def _recover(self) -> bool:
        """Take back the jobs of dead workers; return False if the spool cannot be used at all."""
        try:
            found = await self._spool.recover()
        except SpoolUnsafe as error:
            self._control.stop_for_good(error)
            return False
        except SpoolError as error:
            await self._breakers.spool_failed(error)
            return True
        except SMTPError as error:
            self._control.stop_for_good(error)
            return False
        if found.requeued:
            self._one_by_one = True
        for id in found.requeued:
            await self._events.publish(JobQueued(id=id, recovered=True))
        for id in found.poisoned:
            await self._events.publish(JobFailed(id=id, receipt=None, reason="poison"))
        await self._events.publish_unreadable(self._spool.unreadable())
        return True


async def _cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it ends, and ignore its result.

    On Python 3.11 a task may lose a cancellation that comes together with the result that the task waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN)
    if not task.cancelled():
        # Marks the exception as retrieved, so that asyncio does not log it.
        task.exception()
