"""A spool in memory: for tests of code that uses a spool, and as the simplest implementation of the contract."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from ..errors import Busy, LeaseLost, NoSuchJob, UsageError
from ..model.content import Content
from ..model.envelope import Envelope
from ..model.signing import MessageSigner
from ..spool.contract import KEY_RETENTION, MAX_KEYS, Lease, LeaseResult, Leases, Spool, SpoolTelemetry
from ..spool.entry import (
    CLOCK_STEP,
    POISON,
    Entry,
    Recovery,
    SpoolStatistics,
    State,
    flagged_after,
    requeued,
)
from ..spool.submission import Adapt, JobOptions, StoredMail, Submission, job_id

__all__ = ["MemoryLease", "MemorySpool"]


class _Job:
    __slots__ = ("content", "entry", "lease", "token")

    def __init__(self, entry: Entry, content: Content) -> None:
        self.entry = entry
        self.content = content
        self.token = 0
        self.lease: MemoryLease | None = None


class MemorySpool(Spool):
    """Keep jobs in a dictionary. Nothing survives the process.

    Args:
        adapt: converts what `put` is given into a `Mail`.
        clock: returns the current time, in seconds since the epoch.
        key_retention, telemetry, sign: as for `Spool`.
    """

    def __init__(
        self,
        *,
        adapt: Adapt | None = None,
        clock: Callable[[], float] = time.time,
        key_retention: float = KEY_RETENTION,
        telemetry: SpoolTelemetry | None = None,
        sign: MessageSigner | Sequence[MessageSigner] = (),
    ) -> None:
        super().__init__(adapt=adapt, key_retention=key_retention, telemetry=telemetry, sign=sign)
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        # Keys of jobs that are gone, the oldest first, and the time when the job ended.
        self._keys: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._wakeup = asyncio.Event()
        self._closed = False

    async def _store(self, job: Submission) -> str:
        self._check_open()
        id = f"{next(self._numbers):08d}" if job.key is None else job_id(job)
        if id not in self._jobs and not self._remembers(id):
            content = job.needs.content(job.body, size=len(job.body), message_id=job.message_id)
            self._jobs[id] = _Job(job.entry(id), content)
            self._wakeup.set()
        return id

    async def claim(self, n: int = 1, *, now: float | None = None, marked: bool = False) -> Leases:
        self._check_open()
        now = self._clock() if now is None else now
        due = [job for job in self._jobs.values() if self._is_due(job.entry, now)]
        due.sort(key=lambda job: (job.entry.not_before, job.entry.id))
        return [self.lend(job, marked=marked) for job in due[:n]]

    async def get(self, id: str) -> Entry:
        return self._job(id).entry

    async def list(self, state: State | None = None) -> AsyncIterator[Entry]:
        for job in [*self._jobs.values()]:
            if state is None or job.entry.state is state:
                yield job.entry

    async def read(self, id: str) -> bytes:
        return self._job(id).content.join()

    async def hold(self, id: str) -> None:
        self._hold(id, held=True)

    async def release(self, id: str) -> None:
        self._hold(id, held=False)
        self._wakeup.set()

    async def requeue(
        self, id: str, *, not_before: float | datetime | None = None, expires: float | datetime | None = None
    ) -> None:
        job, now = self._idle(id), self._clock()
        options = JobOptions.checked(None, not_before, expires)
        due = now if options.not_before is None else options.not_before
        job.entry = requeued(job.entry, due, options.expires, now)
        self._wakeup.set()

    async def remove(self, id: str) -> None:
        self._delete(self._idle(id))

    async def statistics(self) -> SpoolStatistics:
        entries = [job.entry for job in self._jobs.values()]
        states = [entry.state for entry in entries]
        waiting = [entry for entry in entries if entry.state in (State.QUEUED, State.SENDING)]
        due = [entry.not_before for entry in entries if entry.state is State.QUEUED and not entry.held]
        return SpoolStatistics(
            queued=states.count(State.QUEUED),
            sending=states.count(State.SENDING),
            sent=states.count(State.SENT),
            failed=states.count(State.FAILED),
            held=sum(entry.held for entry in entries),
            oldest=min((entry.created for entry in waiting), default=None),
            next_due=min(due, default=None),
        )

    async def recover(self) -> Recovery:
        self._check_open()
        now = self._clock()
        # A time in the future was taken from a clock that was ahead.
        self._keys = {id: now if since > now + CLOCK_STEP else since for id, since in self._keys.items()}
        dead = [job for job in self._jobs.values() if job.entry.state is State.SENDING and job.lease is None]
        for job in dead:
            recoveries = job.entry.recoveries + 1
            job.entry = replace(
                job.entry, state=State.QUEUED, attempts=job.entry.attempts + 1, recoveries=recoveries
            )
            if recoveries >= POISON:
                job.entry = replace(job.entry, state=State.FAILED, reason="poison")
        if dead:
            self._wakeup.set()
        back = [job.entry for job in dead if job.entry.state is State.QUEUED]
        return Recovery(
            requeued=tuple(entry.id for entry in back),
            flagged=tuple(entry.id for entry in back if entry.flagged),
            poisoned=tuple(job.entry.id for job in dead if job.entry.state is State.FAILED),
        )

    def abandon(self, lease: Lease) -> None:
        """Simulate the death of the worker that holds `lease`; `recover` then queues the job again."""
        self._jobs[lease.entry.id].lease = None

    async def wait(self, seconds: float) -> bool:
        self._check_open()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            self._wakeup.clear()
            next_due = (await self.statistics()).next_due
            if next_due is not None and next_due <= self._clock():
                return True
            left = end - loop.time()
            if left <= 0:
                return False
            until = left if next_due is None else min(left, next_due - self._clock())
            # Not `wait_for`, which on Python 3.11 loses a cancellation that arrives together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(until):
                    await self._wakeup.wait()

    async def close(self) -> None:
        self._closed = True
        for job in self._jobs.values():
            if job.lease is not None:
                await job.lease.release()

    def _delete(self, job: _Job) -> None:
        """Delete a job and remember its key."""
        del self._jobs[job.entry.id]
        if job.entry.key is not None:
            self._keys.pop(job.entry.id, None)
            self._keys[job.entry.id] = self._clock()
            while len(self._keys) > MAX_KEYS:
                del self._keys[next(iter(self._keys))]

    def _remembers(self, id: str) -> bool:
        since = self._keys.get(id)
        return since is not None and self._clock() - since < self.key_retention

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the spool is closed")

    def _job(self, id: str) -> _Job:
        self._check_open()
        try:
            return self._jobs[id]
        except KeyError:
            raise NoSuchJob(f"there is no job {id!r}") from None

    def _idle(self, id: str) -> _Job:
        job = self._job(id)
        if job.entry.state is State.SENDING:
            raise Busy(f"the job {id} is being sent")
        return job

    def _hold(self, id: str, *, held: bool) -> None:
        job = self._idle(id)
        if job.entry.state is not State.QUEUED:
            raise UsageError(f"the job {id} is not queued but {job.entry.state.value}")
        job.entry = replace(job.entry, held=held)

    def _is_due(self, entry: Entry, now: float) -> bool:
        return entry.state is State.QUEUED and not entry.held and entry.due(self._clock()) <= now

    def lend(self, job: _Job, *, marked: bool) -> Lease:
        """Return the lease of a job that is claimed; a derived spool may set another one."""
        job.token += 1
        job.entry = replace(job.entry, state=State.SENDING)
        job.lease = MemoryLease(self, job)
        if marked:
            job.entry = replace(job.entry, flagged=True, confirmed=False)
        return job.lease

    def end_lease(self, job: _Job, claimed: Entry, result: LeaseResult) -> None:
        """End the lease of a job whose entry was `claimed`. Called by its lease."""
        if result.state is None:
            job.lease = None
            self._delete(job)
            return
        entry, now = job.entry, self._clock()
        results = result.results(entry, now)
        job.entry = replace(
            entry,
            state=result.state,
            results=results,
            attempts=entry.attempts + result.counts,
            flagged=flagged_after(claimed, results),
            confirmed=claimed.confirmed and not result.counts,
            reason=result.reason,
            not_before=entry.not_before if result.not_before is None else result.not_before,
            scheduled_at=entry.scheduled_at if result.not_before is None else now,
        )
        job.lease = None
        self._wakeup.set()

    def release_lease(self, job: _Job, claimed: Entry) -> None:
        """Queue a job again as it was `claimed`. Called by its lease."""
        job.lease = None
        job.entry = replace(claimed, state=State.QUEUED)
        self._wakeup.set()


class MemoryLease(Lease):
    """The lease of a job in a `MemorySpool`."""

    def __init__(self, spool: MemorySpool, job: _Job) -> None:
        self._spool = spool
        self._job = job
        self.entry = job.entry
        self.token = job.token

    def mail(self) -> StoredMail:
        envelope = Envelope(self.entry.envelope.sender, self.entry.pending)
        return StoredMail(envelope, lambda: self._job.content)

    async def extend(self) -> None:
        self._leased()

    async def mark_end_of_data(self) -> None:
        job = self._leased()
        job.entry = replace(job.entry, flagged=True, confirmed=False)

    async def release(self) -> None:
        self._spool.release_lease(self._leased(), self.entry)

    async def _end(self, result: LeaseResult) -> None:
        self._spool.end_lease(self._leased(), self.entry, result)

    def _leased(self) -> _Job:
        job = self._job
        if job.lease is not self or job.token != self.token:
            raise LeaseLost(f"the lease of the job {self.entry.id} has ended")
        return job
