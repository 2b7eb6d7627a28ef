"""The way of every message in its caller's task: prepare, open, write, done.

Strategy. What waits for a connection or for the server is a job's `waiter`: nothing holds it up, and a deadline ends
it by setting it. Everything else that a caller may wait for is an errand: reading a header, rendering what is large,
opening sources, writing a body, closing. Its deadline is that of the call, and when it passes the errand is left,
whatever a source does: it blocks in a thread, it never goes on, it takes no notice of its cancellation. A small message
in memory has no errands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from ..errors import NotSent, SMTPError, Timeout
from ..model.content import Mail
from ..model.receipt import Receipt
from ..sources.unread import Unread
from .deadlines import Deadlines
from .errand import Errand, Left, Stopped
from .job import Job, Step

__all__ = ["Desk", "Drive"]

T = TypeVar("T")


class Desk(Protocol):
    """Who takes prepared jobs: the pool of a client, or one session."""

    def submit(self, job: Job) -> None:
        """Take a job, or raise why not."""

    def cancel(self, job: Job) -> bool:
        """Its caller has gone; return True if it will certainly not be sent."""

    def give_up(self, job: Job) -> None:
        """Its caller's time is over: give it its receipt."""


class Drive:
    """Takes jobs through their steps.

    Args:
        desk: who takes prepared jobs.
        deadlines: watch errands; None where calls have no deadline.
    """

    __slots__ = ("_deadlines", "_desk", "_loop")

    def __init__(self, desk: Desk, deadlines: Deadlines[Any] | None = None) -> None:
        self._desk = desk
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()

    async def deliver(self, job: Job) -> Receipt:
        """Take a job to its end; when the caller's task goes away, so does the message, at once.

        Raises:
            SMTPError: nobody has got it; with its receipt.
        """
        desk = self._desk
        step = Step.PREPARE
        try:
            while job.receipt is None:
                job.waiter = self._loop.create_future()
                if step is Step.WRITE:
                    await self.write(job)
                elif job.prepare():
                    desk.submit(job)
                else:
                    await self.open(job)
                    if job.receipt is None:
                        desk.submit(job)
                step = await job.waiter
        except SMTPError as error:
            desk.cancel(job)
            error.receipt = receipt = Receipt.of(error) or job.unsent(error)
            await self._close_ended(job, receipt)
            raise
        except BaseException as error:
            unsent = desk.cancel(job)
            if isinstance(error, asyncio.CancelledError):
                vars(error)["receipt"] = job.receipt_for_leaver(unsent=unsent)
            # Without waiting, since the caller is being cancelled: async generators are the loop's to end.
            job.close()
            raise
        receipt = job.receipt
        if receipt.error is not None or job.body is not None:
            await self._close_ended(job, receipt)
            receipt.raise_for_outcome()
        return receipt

    async def open(self, job: Job) -> None:
        """Render what is large, open what is read while it is sent, and plan; raises as `Job.open`."""
        await self._run(job, job.open())

    async def write(self, job: Job) -> None:
        """Write the body; raises as `Deliveries.write_body`."""
        # Without a session: the one that asked for the body has died since, and the job is in the queue again.
        if job.session is not None:
            await self._run(job, job.session.write_body(job))

    async def read(self, work: Coroutine[Any, Any, Mail], due: float | None) -> Mail:
        """Return the mail that `work` reads.

        Args:
            work: reads a header, or makes mail of what is large.
            due: loop time at which the caller no longer waits.

        Raises:
            NotSent: that time has come.
            SMTPError: whatever `work` raises.
        """
        errand = Errand(work, due, unwanted=lambda mail: Unread(mail).close())
        try:
            return await self._watched(errand)
        except Stopped:
            error = NotSent("the deadline passed before the message was read")
            error.__cause__ = Timeout("the deadline passed", stage="reading")
            error.receipt = Receipt((), error=error.copy())
            raise error from error.__cause__

    async def close(self, what: Job | Unread, due: float | None) -> None:
        """Close what was opened; a source that is long in ending is left to itself when the caller's time is over."""
        try:
            await self._watched(Errand(what.aclose(), due))
        except Stopped:
            return

    async def _close_ended(self, job: Job, receipt: Receipt) -> None:
        """Close a message that has come to its end; a caller who is cancelled meanwhile learns of that all the same."""
        try:
            await self.close(job, job.send_by)
        except asyncio.CancelledError as error:
            vars(error)["receipt"] = receipt
            job.close()
            raise

    async def _run(self, job: Job, work: Coroutine[Any, Any, None]) -> None:
        errand = job.errand = Errand(work, job.send_by)
        try:
            await self._watched(errand)
        except Left:
            self._desk.give_up(job)
        except Stopped:
            return
        finally:
            job.errand = None

    async def _watched(self, errand: Errand[T]) -> T:
        deadlines = self._deadlines
        if deadlines is None or errand.due is None:
            return await errand
        deadlines.add(errand)
        try:
            return await errand
        finally:
            deadlines.discard(errand)
