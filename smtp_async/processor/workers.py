"""The tasks of a processor: a manager that claims jobs, workers that try them, a keeper that extends leases.

The manager claims jobs ahead in batches; a fixed number of workers take them one after the other. The processor makes
no task, timer or lock per message. While mail does not flow, the manager claims nothing, releases the jobs that wait,
and after the pause tries one message as a probe.

A run always ends in the same way: no job is claimed, waiting jobs are released, and jobs being sent may continue within
the grace; then they are withdrawn, and the outcome of a message that may have been sent is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any, Final

from ..errors import LeaseLost, SMTPError, SpoolError, SpoolUnsafe
from ..events import JobFailed, JobQueued
from ..spool.contract import Lease, Spool
from .attempt import Attempts
from .breakers import Breakers
from .control import RunControl
from .event_sink import EventSink
from .options import ProcessorOptions
from .telemetry import DeliveryTelemetry

__all__ = ["Workers"]

#: Seconds after which a task that was cancelled, but still runs, is cancelled again.
_CANCEL_AGAIN: Final = 0.1

_log = logging.getLogger("smtp_async")


class Workers:
    """The tasks of a processor.

    Args:
        spool: holds the jobs.
        attempts: tries a job and ends its lease.
        concurrency: number of workers.
        options: of the processor.
        control: decides whether the run continues.
        breakers: limit how many jobs may be started.
        events: receives the results of recovery.
        telemetry: is told what the spool holds, when a run begins and ends and once per heartbeat.

    Attributes:
        ready: claimed jobs that wait for a worker.
        in_work: jobs that workers are trying.
    """

    def __init__(
        self,
        spool: Spool,
        attempts: Attempts,
        *,
        concurrency: int,
        options: ProcessorOptions,
        control: RunControl,
        breakers: Breakers,
        events: EventSink,
        telemetry: DeliveryTelemetry | None = None,
    ) -> None:
        self._spool: Final = spool
        self._telemetry: Final = telemetry
        self._attempts: Final = attempts
        self._concurrency: Final = concurrency
        self._options: Final = options
        self._control: Final = control
        self._breakers: Final = breakers
        self._events: Final = events
        self.ready: Final[deque[Lease]] = deque()
        self.in_work: Final[dict[Lease, None]] = {}
        # Jobs whose release failed: releasing them may be retried, so no worker may start them.
        self._unreleased: Final[deque[Lease]] = deque()
        self._tasks: Final[list[asyncio.Task[None]]] = []
        self._idle: Final[deque[asyncio.Future[None]]] = deque()
        # One wait for new jobs, which outlives the manager's sleep.
        self._new_jobs: asyncio.Task[bool] | None = None
        # A single message is tried as a probe.
        self._probing = False
        # Jobs are claimed one by one, because one of them may kill workers and must not affect others. A run begins so,
        # too, because the last process may have died of such a job.
        self._one_by_one = True
        self._suspect: Lease | None = None

    async def run(self, *, once: bool) -> None:
        """Deliver until the control stops the run, or, with `once`, until every due job was tried."""
        loop = asyncio.get_running_loop()
        self._probing = False
        self._one_by_one = True
        # The last probe may have been withdrawn.
        self._breakers.inconclusive()
        self._control.begin(self._withdraw)
        for _ in range(self._concurrency):
            self._tasks.append(loop.create_task(self._work(), name="smtp_async job"))
        keeper = loop.create_task(self._keep_leases(), name="smtp_async leases")
        try:
            if await self._recover():
                await self._tell_state()
                await self._claim_jobs(once)
            await self._release_waiting()
            while self.in_work:
                await self._control.sleep(None)
            await self._tell_state()
        finally:
            # Idle workers have to be cancelled, too.
            self._control.finish()
            await asyncio.wait(self._tasks)
            await self._release_waiting()
            await _cancel_and_wait(keeper)
            if self._new_jobs is not None:
                await _cancel_and_wait(self._new_jobs)
                self._new_jobs = None
            self._tasks.clear()

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
        exhausted = False
        # A pause of an earlier run is over.
        probe_due = not self._breakers.mail_flows and self._breakers.admits() > 0
        while not self._control.stopping:
            if not self._breakers.mail_flows and not self._probing:
                await self._release_waiting()
                if once and not probe_due:
                    if self._breakers.error is not None:
                        self._control.note_error(self._breakers.error)
                    return
                probe_due = False
            elif self._unreleased:
                await self._release_all(self._unreleased)
            if self.ready:
                # The workers may have become idle while mail did not flow.
                self._wake_workers()
            count = 0 if exhausted else self._claim_size()
            leases = await self._claim(count, now) if count else []
            exhausted = exhausted or bool(once and count and not leases and self._breakers.mail_flows)
            if leases:
                await self._isolate_suspects(leases)
            await self._events.publish_unreadable(self._spool.unreadable())
            if leases:
                continue
            if not exhausted:
                await self._wait_for_change(claimed=count > 0)
            elif self.ready or self.in_work:
                await self._control.sleep(None)
            else:
                return
        if once and (not exhausted or self.ready or self._unreleased):
            self._control.cut_short()

    def _claim_size(self) -> int:
        """Return how many jobs to claim: a batch while mail flows, one as a probe."""
        if not self._breakers.mail_flows:
            busy = self.in_work or self.ready
            return 0 if busy else int(min(1, self._breakers.admits()))
        if self._one_by_one:
            # Jobs that were started before may take long, and must not delay the others.
            return 0 if self.ready or self._suspect in self.in_work else 1
        ahead = len(self.ready)
        return 0 if 2 * ahead > self._concurrency else self._concurrency - ahead

    async def _claim(self, count: int, now: float | None) -> list[Lease]:
        try:
            return await self._spool.claim(count, now=now, marked=self._options.marking == "claim")
        except SpoolUnsafe as error:
            self._control.fail(error)
        except SpoolError as error:
            await self._breakers.spool_failed(error)
        except SMTPError as error:
            self._control.fail(error)
        return []

    async def _isolate_suspects(self, leases: list[Lease]) -> None:
        """Hand out claimed jobs; release jobs whose worker has died, to claim them one by one."""
        suspects = [place for place, lease in enumerate(leases) if lease.entry.recoveries]
        if self._one_by_one:
            # Claimed alone, a suspect may be tried. After the last suspect, jobs are claimed in batches again.
            self._one_by_one = bool(suspects)
            self._suspect = leases[0]
        elif suspects:
            self._one_by_one = True
            leases, back = leases[: suspects[0]], leases[suspects[0] :]
            self._unreleased.extend(back)
            await self._release_all(self._unreleased)
        self._hand_out(leases)

    def _hand_out(self, leases: list[Lease]) -> None:
        if not self._breakers.mail_flows:
            if self.in_work or not self._breakers.admits():
                # Mail stopped while these jobs were being claimed: release them; a probe follows later.
                self._unreleased.extend(leases)
                return
            self._probing = True
            self._breakers.started()
        self.ready.extend(leases)
        self._wake_workers()

    def _wake_workers(self) -> None:
        """Wake an idle worker for each waiting job."""
        wanted = len(self.ready)
        while wanted and self._idle:
            place = self._idle.popleft()
            if not place.done():
                place.set_result(None)
                wanted -= 1

    async def _wait_for_change(self, *, claimed: bool) -> None:
        """Sleep until a job is due, or until a worker or `stop` wakes the manager."""
        if not claimed or not self._breakers.mail_flows:
            # A millisecond more, because a timer may fire slightly early.
            left = self._breakers.seconds_left + 0.001
            pause = left if left > 0.001 else self._options.poll
            await self._control.sleep(None if self._breakers.mail_flows else pause)
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
            self._control.fail(error)

    async def _release_waiting(self) -> None:
        """End the leases of all jobs that wait for a worker."""
        if await self._release_all(self._unreleased):
            await self._release_all(self.ready)

    async def _release_all(self, leases: deque[Lease]) -> bool:
        """End these leases; return False if the spool cannot be written now."""
        while leases:
            lease = leases.popleft()
            if not await self._attempts.give_back(lease):
                self._unreleased.append(lease)
                return False
        return True

    # --- working ---------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            if not self.ready or not self._may_start():
                await self._wait_for_work()
                continue
            lease = self.ready.popleft()
            self.in_work[lease] = None
            if 2 * len(self.ready) <= self._concurrency:
                self._control.wake()
            try:
                await self._attempts.run(lease)
            except Exception as error:
                _log.exception("the job %s could not be brought to an end", lease.entry.id)
                self._control.fail(error)
            finally:
                del self.in_work[lease]
                self._after_attempt()

    def _may_start(self) -> bool:
        if self._control.stopping:
            return False
        return self._breakers.mail_flows or (self._probing and not self.in_work)

    def _after_attempt(self) -> None:
        if self._probing:
            # The probe has ended, with or without a verdict.
            self._probing = False
            self._breakers.inconclusive()
        drained = not (self.in_work or self.ready)
        if drained or self._control.stopping or self._one_by_one or not self._breakers.mail_flows:
            self._control.wake()

    async def _wait_for_work(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(place)
        await place

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
            self._control.fail(error)

    async def _extend_leases(self) -> None:
        for lease in [*self.in_work, *self.ready, *self._unreleased]:
            try:
                await lease.extend()
            except LeaseLost:
                # The lease has ended meanwhile, or it is lost, so that its mark and its end will be refused.
                continue
            except SpoolError as error:
                await self._breakers.spool_failed(error)
                return

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
            self._control.fail(error)
            return False
        except SpoolError as error:
            await self._breakers.spool_failed(error)
            return True
        except SMTPError as error:
            self._control.fail(error)
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
