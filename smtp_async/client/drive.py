"""Drives every message through its steps, in its caller's task: prepare, open, write, done.

Strategy. A caller waits for a connection or for the server through its job's `waiter`: a future, so that a deadline
ends the wait by setting it. Everything else that a caller may wait for is `CallerWork`: reading a header, rendering
what is large, opening sources, writing a body, closing. This work has the call's deadline, and when that passes the
caller abandons it, whatever a source does: the source may block in a thread, run without end, or ignore its
cancellation. A small message in memory needs no such work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeVar

from ..connection.caller_work import CallerWork, WorkAbandoned, WorkStopped
from ..connection.connection import Connection
from ..connection.send_job import CallerStep, SendJob
from ..errors import NotConnected, NotSent, SMTPError, Timeout
from ..model.content import Mail
from ..model.receipt import Receipt
from ..pool.deadlines import Deadlines
from ..sources.unsent import UnsentSources

__all__ = ["Drive", "JobTaker", "OneConnection"]

# A member is found in its class several times as slowly as a global name.
_PREPARE: Final = CallerStep.PREPARE
_WRITE: Final = CallerStep.WRITE

T = TypeVar("T")


class JobTaker(Protocol):
    """What takes prepared jobs: the pool of a client, or one connection."""

    def submit(self, job: SendJob) -> None:
        """Take a job, or raise the reason why not."""

    def cancel(self, job: SendJob) -> bool:
        """Withdraw a job, because its caller has gone; return True if it will certainly not be sent."""

    def expire(self, job: SendJob) -> None:
        """Withdraw a job, because its caller's time is over, and give it its receipt."""


class OneConnection:
    """Takes the jobs of a session: they go over its own connection or not at all."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(self, job: SendJob) -> None:
        """Begin `job`.

        Raises:
            NotConnected: the connection cannot carry another message; it may have ended while files were opened.
        """
        if not self._connection.may_begin:
            raise NotConnected("this connection cannot carry another message")
        self._connection.deliveries.begin_now(job)

    def cancel(self, job: SendJob) -> bool:
        """Withdraw `job`; return True if it will certainly not be sent."""
        return self._connection.owner.cancel(job)

    def expire(self, job: SendJob) -> None:
        """Do nothing, because the calls of a session have no deadline."""


class Drive:
    """Takes jobs through their steps, in the tasks of their callers.

    Args:
        taker: takes prepared jobs.
        deadlines: watches the deadlines of callers' work; None where calls have no deadline.
    """

    __slots__ = ("_deadlines", "_loop", "_taker")

    def __init__(self, taker: JobTaker, deadlines: Deadlines[Any] | None = None) -> None:
        self._taker = taker
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()

    async def deliver(self, job: SendJob) -> Receipt:
        """Take a job to its end and return its receipt; if the caller's task is cancelled, withdraw the job at once.

        Raises:
            SMTPError: no recipient has got the message; with its receipt.
        """
        taker = self._taker
        step = _PREPARE
        try:
            while job.receipt is None:
                job.waiter = self._loop.create_future()
                if step is _WRITE:
                    await self.write(job)
                elif job.prepare():
                    taker.submit(job)
                else:
                    await self.open(job)
                    if job.receipt is None:
                        taker.submit(job)
                step = await job.waiter
        except SMTPError as error:
            taker.cancel(job)
            error.receipt = receipt = Receipt.of(error) or job.not_sent_receipt(error)
            await self._close_ended(job, receipt)
            raise
        except BaseException as error:
            unsent = taker.cancel(job)
            if isinstance(error, asyncio.CancelledError):
                vars(error)["receipt"] = job.cancelled_receipt(unsent=unsent)
            # Without waiting, because the caller is being cancelled: async generators are the loop's to end.
            job.close()
            raise
        receipt = job.receipt
        if receipt.error is not None or job.body is not None:
            await self._close_ended(job, receipt)
            receipt.raise_for_outcome()
        return receipt

    async def open(self, job: SendJob) -> None:
        """Render what is large, open what is read while it is sent, and plan; raises as `SendJob.open`."""
        await self._run(job, job.open())

    async def write(self, job: SendJob) -> None:
        """Write the job's body to its connection; raises as `BodyWriter.write_body`."""
        # Without a session: the connection that asked for the body has died since, and the job is in the queue again.
        if job.connection is not None:
            await self._run(job, job.connection.write_body(job))

    async def read(self, work: Coroutine[Any, Any, Mail], due: float | None) -> Mail:
        """Return the mail that `work` reads.

        Args:
            work: reads a header, converts a large message, or signs one.
            due: loop time after which the caller no longer waits.

        Raises:
            NotSent: that time has come.
            SMTPError: whatever `work` raises.
        """
        caller_work = CallerWork(work, due, unwanted=lambda mail: UnsentSources(mail).close())
        try:
            return await self._watched(caller_work)
        except WorkStopped:
            error = NotSent("the deadline passed before the message was read and signed")
            error.__cause__ = Timeout("the deadline passed", stage="reading")
            error.receipt = Receipt((), error=error.copy())
            raise error from error.__cause__

    async def close(self, opened: SendJob | UnsentSources, due: float | None) -> None:
        """Close what was opened; abandon a source that is not closed when the caller's time is over."""
        try:
            await self._watched(CallerWork(opened.aclose(), due))
        except WorkStopped:
            return

    async def _close_ended(self, job: SendJob, receipt: Receipt) -> None:
        """Close a job that has ended; if the caller is cancelled meanwhile, the cancellation carries the receipt."""
        try:
            await self.close(job, job.send_by)
        except asyncio.CancelledError as error:
            vars(error)["receipt"] = receipt
            job.close()
            raise

    async def _run(self, job: SendJob, work: Coroutine[Any, Any, None]) -> None:
        caller_work = job.caller_work = CallerWork(work, job.send_by)
        try:
            await self._watched(caller_work)
        except WorkAbandoned:
            self._taker.expire(job)
        except WorkStopped:
            return
        finally:
            job.caller_work = None

    async def _watched(self, caller_work: CallerWork[T]) -> T:
        deadlines = self._deadlines
        if deadlines is None or caller_work.due is None:
            return await caller_work
        deadlines.add(caller_work)
        try:
            return await caller_work
        finally:
            deadlines.discard(caller_work)
