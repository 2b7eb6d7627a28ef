"""Ends the leases of jobs for recipients without a route.

A recipient for which the routes name no client is given up, because waiting cures nothing. Once every other recipient
has a final result, the job fails, and an operator may requeue it. No report goes to the sender, because the routes are
wrong and not the message. If the routes raised, the recipient waits as after a temporary failure, until its message
expires; no attempt is counted for it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from ..errors import InvalidArgument, SMTPError
from ..events import JobDeferred, JobFailed
from ..model.receipt import Receipt
from ..spool.contract import Lease
from .event_sink import EventSink
from .options import ProcessorOptions
from .partial_lease import PartialLease
from .policy import judge_job, receipt_of, recipients_to_retry
from .results import Fate, JobResult, OtherRoutes
from .routing import NoRoute
from .schedule import RetryPolicy
from .spool_writer import SpoolWriter

__all__ = ["Unrouted"]

_log = logging.getLogger("smtp_async")


class Unrouted:
    """Ends the leases of jobs for recipients without a route.

    Args:
        retry: how long such a job waits, and when it expires.
        options: of the processor.
        writer: makes changes to the spool, and repeats them until they succeed.
        events: receives the results.
    """

    def __init__(
        self, retry: RetryPolicy, *, options: ProcessorOptions, writer: SpoolWriter, events: EventSink
    ) -> None:
        # Faults of the routes are no attempts.
        self._retry: Final = replace(retry, attempts=None)
        self._options: Final = options
        self._writer: Final = writer
        self._events: Final = events

    async def end(self, missing: NoRoute) -> None:
        """End the lease of `missing`: fail the job, defer it, or leave it to the other recipients."""
        lease, entry = missing.lease, missing.lease.entry
        whole, others = entry, OtherRoutes.NONE
        if isinstance(lease, PartialLease):
            whole, others = lease.whole, lease.others
        error = SMTPError(str(missing)) if missing.temporary else InvalidArgument(str(missing))
        receipt = receipt_of(error, entry.pending)
        options = self._options
        result = judge_job(
            whole, receipt, self._retry, now=options.clock(), chance=options.chance(), others=others
        )
        if result.fate is Fate.DELIVERED:
            # No recipient is pending: a crash kept the end of the job from being written, and no client writes it.
            result = result._replace(fate=Fate.FAILED, reason=str(missing))
        if missing.temporary:
            _log.warning("the job %s waits: %s", entry.id, missing)
        if not await self._writer.persist(lambda: _end_lease(lease, receipt, result, others)):
            return
        self._events.job_ended(entry, result)
        if result.fate is Fate.FAILED:
            await self._events.publish(JobFailed(id=entry.id, receipt=None, reason=result.reason))
        else:
            await self._events.publish(
                JobDeferred(id=entry.id, receipt=receipt, not_before=result.not_before, reason=result.reason)
            )


async def _end_lease(lease: Lease, receipt: Receipt, result: JobResult, others: OtherRoutes) -> None:
    if result.fate is Fate.FAILED:
        # Without a result, the recipients stay pending for the operator.
        await lease.fail(None, reason=result.reason)
        return
    await lease.defer(
        # Without a result, the next claim finds that these recipients had no turn.
        None if result.deferred else receipt,
        result.not_before,
        reason=result.reason,
        retry=recipients_to_retry(receipt, result),
        # If the other recipients had their turn, this ends their attempt.
        counts=others is OtherRoutes.DEFERRED,
    )
