"""Moves the queued jobs of a spool to another one; a crash at any moment loses none and delivers none twice.

A job goes through these steps, each of them durable before the next:

    M1  lease it in the source, so that no worker sends it
    M2  end the lease as FAILED, with a reason that names the target: the job is parked, and no worker sends it
    M3  adopt it in the target, which stores a job once, and remembers it when it is gone
    M4  remove it from the source

After a crash before M2 the lease ends, and nothing has happened. After a later one the job is parked: the next move
finds it and goes on with M3, which is repeated without effect, however far the job is in the target by then. A parked
job goes to no other target than the one in its reason. A job that is held cannot be leased and is not sent anyway, so
it goes through M3 and M4 only.

Jobs that failed or were sent stay in the source, and so do those that workers are sending.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ..errors import NoSuchJob, RecordInvalid, SMTPError, UsageError
from .contract import Lease, Spool
from .entry import Entry, State

__all__ = ["PARKED", "move"]

#: The beginning of the reason of a parked job; the name of the target and a colon follow.
PARKED: Final = "being moved to "
#: Jobs that are due before are moved: before the time that stands for held jobs, in the year 2100.
_LATEST: Final = 4.0e9


async def move(source: Spool, target: Spool, name: str) -> AsyncIterator[str]:
    """Move the queued jobs of `source` to `target`, and iterate over their ids.

    Args:
        source: the spool that loses the jobs.
        target: the spool that gains them.
        name: a name of the target that is the same in each call, of visible characters.

    Raises:
        UsageError: jobs are parked for another target.
        SpoolError: a store failed; call it again.
    """
    mark = f"{PARKED}{name}: "
    await source.recover()
    async for id in _finish_parked(source, target, mark):
        yield id
    # One by one, because a job with which three workers have died is given up as poison.
    while leases := await source.claim(now=_LATEST):
        [lease] = leases
        if (message := await _park(source, lease, mark)) is not None:
            await _finish(source, target, lease.entry, message)
            yield lease.entry.id
    async for entry in source.list(State.QUEUED):
        if entry.held:
            try:
                message = await source.read(entry.id)
            except (NoSuchJob, RecordInvalid):
                continue
            await _finish(source, target, entry, message)
            yield entry.id


async def _finish_parked(source: Spool, target: Spool, mark: str) -> AsyncIterator[str]:
    """Go on with the jobs that an earlier move has parked."""
    async for entry in source.list(State.FAILED):
        if not entry.reason.startswith(PARKED):
            continue
        if not entry.reason.startswith(mark):
            there = entry.reason.removeprefix(PARKED).partition(": ")[0]
            raise UsageError(f"the job {entry.id} is {PARKED}{there}: complete that first")
        before = replace(entry, state=State.QUEUED, reason=entry.reason.removeprefix(mark))
        await _finish(source, target, before, await source.read(entry.id))
        yield entry.id


async def _park(source: Spool, lease: Lease, mark: str) -> bytes | None:
    """M2: park a job and return its message; None if the message is damaged, so that the job has failed."""
    entry = lease.entry
    try:
        message = await source.read(entry.id)
        await lease.fail(None, reason=f"{mark}{entry.reason}", counts=False)
    except RecordInvalid as error:
        await lease.fail(None, reason=str(error), counts=False)
        return None
    except BaseException:
        # Unless it was parked in spite of a cancellation.
        with suppress(SMTPError):
            await lease.release()
        raise
    return message


async def _finish(source: Spool, target: Spool, entry: Entry, message: bytes) -> None:
    """M3 and M4."""
    await target.adopt(entry, message)
    await source.remove(entry.id)
