"""The tasks of a processor: a manager that claims, workers that carry, a keeper that looks after both.

The manager claims jobs ahead in batches; a fixed number of workers take them one after the other. Nothing is made per
message but what the client makes. While mail does not flow, the manager claims nothing, gives back what waits, and
after the pause lets one message through as a probe.

Ending is always the same: nothing new is claimed, what waits goes back, what is under way may end within its grace;
then it is withdrawn, and whatever may have left by then counts as unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ..errors import LeaseLost, SMTPError, SpoolError, SpoolUnsafe
from ..events import JobFailed, JobQueued, JobUnreadable
from ..spool.contract import Lease, Spool
from ..spool.entry import Unreadable
from .attempt import Courier
from .breakers import Flow, Tell

__all__ = ["Crew"]

#: Seconds after which a task that was to end is told so again.
_LATE: Final = 0.1

_log = logging.getLogger("smtp_async")


class Crew:
    """The tasks of a processor.

    Args:
        spool: where the jobs are.
        flow: whether they may be begun.
        concurrency: how many workers.
        marked: mark jobs when they are claimed.
        poll: seconds after which an idle spool is looked at again.
        grace: seconds that jobs under way have when it stops.
        heartbeat: seconds between two looks of the keeper.
        clock: what time it is, in seconds of the epoch.
        tell: tells the hooks.

    Attributes:
        unreadable: what was found in the spool that is no job, by its id.
        courier: what the workers do with a job; to be set before `manage`.
        ready: claimed jobs that wait for a worker.
        in_work: those that a worker has.
        failure: what no pause can cure, if that ended it.
        error: what ended it early, if anything did.
    """

    courier: Courier

    def __init__(
        self,
        spool: Spool,
        flow: Flow,
        *,
        concurrency: int,
        marked: bool,
        poll: float,
        grace: float,
        heartbeat: float,
        clock: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._spool: Final = spool
        self._flow: Final = flow
        self._concurrency: Final = concurrency
        self._marked: Final = marked
        self._poll: Final = poll
        self._grace: Final = grace
        self._heartbeat: Final = heartbeat
        self._clock: Final = clock
        self._tell: Final = tell
        self.ready: Final[deque[Lease]] = deque()
        self.in_work: Final[dict[Lease, None]] = {}
        self.unreadable: Final[dict[str, Unreadable]] = {}
        # What could not be given back: its end may be noted at any time, so nobody may begin it.
        self._owed: Final[deque[Lease]] = deque()
        self.failure: Exception | None = None
        self.error: Exception | None = None
        self._workers: Final[list[asyncio.Task[None]]] = []
        self._idle: Final[deque[asyncio.Future[None]]] = deque()
        self._timers: Final[list[asyncio.TimerHandle]] = []
        # Whatever the bell rings for, one look out for new jobs goes on.
        self._waiting: asyncio.Task[bool] | None = None
        self._bell: asyncio.Future[None] | None = None
        self._rung = False
        self._stopping = False
        # One message alone is tried, to see whether mail flows again.
        self._probing = False
        # Jobs are claimed one by one: one of them may be what kills workers, and is to take no other with it. So it
        # begins, too: the end of the last process may be what there is to recover.
        self._careful = True
        self._alone: Lease | None = None

    @property
    def stopping(self) -> bool:
        """Nothing new is begun."""
        return self._stopping

    def prepare(self) -> None:
        """Forget how the last time ended. A `stop` that came before the first step counts."""
        self._probing = False
        self._careful = True
        self.failure = self.error = None
        self.unreadable.clear()
        # The last probe may have been withdrawn.
        self._flow.undecided()
        self._rung = False

    def over(self) -> None:
        """A run has ended: what told it to stop does not count for the next."""
        self._stopping = False

    def stop(self, grace: float | None = None) -> None:
        """Begin nothing new; what is under way ends within `grace` seconds (None: the crew's own)."""
        self._stopping = True
        if self._workers:
            loop = self._workers[0].get_loop()
            delay = self._grace if grace is None else grace
            self._timers.append(loop.call_later(delay, self._withdraw))
        self.ring()

    def fail(self, error: Exception) -> None:
        """Something that no pause can cure: what is under way may end."""
        self.failure = self.failure or error
        self.end_early(error)

    def end_early(self, error: Exception) -> None:
        """Begin nothing new, because of `error`."""
        self.error = self.error or error
        self.stop()

    def cut_short(self) -> None:
        """A job that was due goes back because of `stop`, or was not looked at."""
        self.error = self.error or SMTPError("it was stopped before every job that was due had its turn")

    async def manage(self, *, once: bool) -> None:
        """Work until it is to stop, or, `once`, until every job that is due had its turn."""
        loop = asyncio.get_running_loop()
        self.courier.begin()
        for _ in range(self._concurrency):
            self._workers.append(loop.create_task(self._work(), name="smtp_async job"))
        keeper = loop.create_task(self._keep_alive(), name="smtp_async leases")
        try:
            if await self._recover():
                await self._feed(once)
            await self._give_back()
            while self.in_work:
                await self._rest(None)
        finally:
            # Now at the latest: whoever waits for work has to go, too.
            self._stopping = True
            self._withdraw()
            await asyncio.wait(self._workers)
            await self._give_back()
            await _dismiss(keeper)
            if self._waiting is not None:
                await _dismiss(self._waiting)
                self._waiting = None
            self._workers.clear()
            while self._timers:
                self._timers.pop().cancel()

    def _withdraw(self) -> None:
        """The time of what is under way is over."""
        self.courier.finish()
        for task in self._workers:
            # When a loop ends, they are cancelled already, and are about to give back what they have.
            if not task.cancelling():
                task.cancel()
        self.ring()

    # --- claiming --------------------------------------------------------------------------------------------

    async def _feed(self, once: bool) -> None:
        """Claim until it is to stop, or, `once`, until nothing is due or nothing can be sent."""
        # What is deferred meanwhile is not due again, even if its wait is nothing.
        now = self._clock() if once else None
        exhausted = False
        # A pause that an earlier run began, and that is over.
        probe = not self._flow.free and self._flow.room() > 0
        while not self._stopping:
            if not self._flow.free and not self._probing:
                await self._give_back()
                probe, due = False, probe
                if once and not due:
                    self.error = self.error or self._flow.error
                    return
            elif self._owed:
                await self._return(self._owed)
            if self.ready:
                # They may have gone to rest when mail did not flow.
                self._employ()
            room = 0 if exhausted else self._room()
            leases = await self._claim(room, now) if room else []
            exhausted = exhausted or bool(once and room and not leases and self._flow.free)
            if leases:
                await self._sort_out(leases)
            await self._tell_unreadable()
            if leases:
                continue
            if not exhausted:
                await self._wait_for_change(claimed=room > 0)
            elif self.ready or self.in_work:
                await self._rest(None)
            else:
                return
        if once and (not exhausted or self.ready or self._owed):
            self.cut_short()

    def _room(self) -> int:
        """How many to claim: in large batches while mail flows, one alone as a probe."""
        if not self._flow.free:
            busy = self.in_work or self.ready
            return 0 if busy else int(min(1, self._flow.room()))
        if self._careful:
            # What was under way before may take its time: it is not to hold up all others.
            return 0 if self.ready or self._alone in self.in_work else 1
        ahead = len(self.ready)
        return 0 if 2 * ahead > self._concurrency else self._concurrency - ahead

    async def _claim(self, room: int, now: float | None) -> list[Lease]:
        try:
            return await self._spool.claim(room, now=now, marked=self._marked)
        except SpoolUnsafe as error:
            self.fail(error)
        except SpoolError as error:
            await self._flow.store_failed(error)
        except SMTPError as error:
            self.fail(error)
        return []

    async def _sort_out(self, leases: list[Lease]) -> None:
        """Hand out what was claimed; jobs whose worker has died go back, to be claimed one by one."""
        suspects = [place for place, lease in enumerate(leases) if lease.entry.recoveries]
        if self._careful:
            # Alone it may be tried. Behind the last of them all goes as ever.
            self._careful = bool(suspects)
            self._alone = leases[0]
        elif suspects:
            self._careful = True
            leases, back = leases[: suspects[0]], leases[suspects[0] :]
            self._owed.extend(back)
            await self._return(self._owed)
        self._hand_out(leases)

    def _hand_out(self, leases: list[Lease]) -> None:
        if not self._flow.free:
            if self.in_work or not self._flow.room():
                # Mail ceased to flow while they were being claimed: they go back, and a probe comes in its time.
                self._owed.extend(leases)
                return
            self._probing = True
            self._flow.begun()
        self.ready.extend(leases)
        self._employ()

    def _employ(self) -> None:
        """Wake as many workers as there are jobs for."""
        wanted = len(self.ready)
        while wanted and self._idle:
            place = self._idle.popleft()
            if not place.done():
                place.set_result(None)
                wanted -= 1

    async def _wait_for_change(self, *, claimed: bool) -> None:
        """Sleep until something is due, or a worker or `stop` rings the bell."""
        if not claimed or not self._flow.free:
            # To the millisecond: a timer may be early by a little.
            left = self._flow.left + 0.001
            await self._rest(None if self._flow.free else left if left > 0.001 else self._poll)
            return
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = asyncio.get_running_loop().create_task(self._spool.wait(self._poll))
            waiting.add_done_callback(lambda _: self.ring())
        if not waiting.done():
            await self._rest(None)
        if not waiting.done():
            return
        self._waiting = None
        error = None if waiting.cancelled() else waiting.exception()
        if isinstance(error, SpoolError):
            await self._flow.store_failed(error)
        elif isinstance(error, Exception):
            self.fail(error)

    async def _give_back(self) -> None:
        """End the leases of what waits for its turn."""
        if await self._return(self._owed):
            await self._return(self.ready)

    async def _return(self, leases: deque[Lease]) -> bool:
        """End these leases; return False if the spool cannot take it now."""
        while leases:
            lease = leases.popleft()
            if not await self.courier.give_back(lease):
                self._owed.append(lease)
                return False
        return True

    # --- working ---------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            if not self.ready or not self._may_begin():
                await self._wait_for_work()
                continue
            lease = self.ready.popleft()
            self.in_work[lease] = None
            if 2 * len(self.ready) <= self._concurrency:
                self.ring()
            try:
                await self.courier.carry(lease)
            except Exception as error:
                _log.exception("the job %s could not be brought to an end", lease.entry.id)
                self.fail(error)
            finally:
                del self.in_work[lease]
                if self._probing:
                    # Whatever it told, it is over.
                    self._probing = False
                    self._flow.undecided()
                if self._stopping or self._careful or not self._flow.free or not (self.in_work or self.ready):
                    self.ring()

    def _may_begin(self) -> bool:
        return not self._stopping and (self._flow.free or self._probing and not self.in_work)

    async def _wait_for_work(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(place)
        await place

    # --- every minute ----------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._heartbeat)
                await self._extend()
                if not self._stopping:
                    await self._recover()
        except Exception as error:
            _log.exception("the leases could not be kept")
            self.fail(error)

    async def _extend(self) -> None:
        for lease in [*self.in_work, *self.ready, *self._owed]:
            try:
                await lease.extend()
            except LeaseLost:
                # It has ended meanwhile; or it is lost, and then its mark and its end will be refused.
                continue
            except SpoolError as error:
                await self._flow.store_failed(error)
                return

    async def _recover(self) -> bool:
        """Take back what dead workers held; return False if the spool cannot be used at all."""
        try:
            found = await self._spool.recover()
        except SpoolUnsafe as error:
            self.fail(error)
            return False
        except SpoolError as error:
            await self._flow.store_failed(error)
            return True
        except SMTPError as error:
            self.fail(error)
            return False
        if found.requeued:
            self._careful = True
        for id in found.requeued:
            await self._tell(JobQueued(id=id, recovered=True))
        for id in found.poisoned:
            await self._tell(JobFailed(id=id, receipt=None, reason="poison"))
        await self._tell_unreadable()
        return True

    async def _tell_unreadable(self) -> None:
        for one in self._spool.unreadable():
            if one.id not in self.unreadable:
                self.unreadable[one.id] = one
                await self._tell(JobUnreadable(id=one.id, reason=one.reason, kept=one.kept))

    # --- the bell ---------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Have the manager look again."""
        self._rung = True
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def _rest(self, seconds: float | None) -> None:
        """Sleep until the bell rings, at once if it did since the last time."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._bell = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, self.ring)
            try:
                await self._bell
            finally:
                if timer is not None:
                    timer.cancel()
        self._rung = False


async def _dismiss(task: asyncio.Task[Any]) -> None:
    """End a task; on Python 3.11 what it waits for may swallow a cancellation that comes together with a result."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_LATE)
    if not task.cancelled():
        # What it ends with is of no interest any more, and nobody is to complain that it was not looked at.
        task.exception()
