"""One attempt, from the lease of a job to its end: send, judge, write the end to the spool, report.

The order at the end matters. If a recipient was accepted, the result is written before the report, because otherwise a
crash would cause a second copy. If no recipient was accepted, the report comes first, because otherwise a crash would
suppress it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..errors import LeaseLost, MissingRecipient, OutcomeUnknown, SMTPError, SpoolError, UsageError
from ..events import JobDeferred, JobFailed, JobSent, JobStarted
from ..model.envelope import NOBODY
from ..model.receipt import Outcome, Receipt
from ..model.signing import MessageSigner
from ..spool.contract import Lease
from ..spool.entry import Entry
from .breakers import Breakers
from .control import RunControl
from .delivery_telemetry import DeliveryTelemetry
from .event_sink import EventSink
from .options import ProcessorOptions
from .partial_lease import PartialLease, pending_places, tried_since_due
from .policy import judge_job, receipt_of, recipients_to_retry
from .results import UNKNOWN, Fate, JobResult, OtherRoutes
from .schedule import RetryPolicy, expiry, retry_delay
from .sender_reports import SenderReports
from .spool_writer import SpoolWriter

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["Attempts", "give_back"]

_log = logging.getLogger("smtp_async")

_DELIVERED: Final = JobResult(Fate.DELIVERED)
_RELEASED: Final = JobResult(Fate.RELEASED)
_HELD_UNKNOWN: Final = JobResult(Fate.FAILED, reason=UNKNOWN)


class _Sending:
    """The message that a task is sending.

    Attributes:
        lease: the lease of its job.
        failure: why the mark could not be written; then the message was not sent.
    """

    __slots__ = ("failure", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.failure: Exception | None = None


# Set by the task that sends. Options with a function for each message would be checked for each message, which took a
# tenth of the processor's time.
_SENDING: Final[ContextVar[_Sending]] = ContextVar("smtp_async_sending")


async def _write_mark() -> None:
    """Write the mark in the spool; `client.send` awaits this, in its caller's task, before it sends the end of data."""
    sending = _SENDING.get()
    try:
        await sending.lease.mark_end_of_data()
    except Exception as error:
        sending.failure = error
        raise


class Attempts:
    """Runs delivery attempts, any number at once.

    Args:
        client: sends the messages.
        retry: how often and for how long a message is tried.
        keep_sent: keep delivered jobs as SENT.
        options: of the processor.
        control: receives errors that end the run, because no pause can cure them.
        breakers: receive whether the server and the spool can be used.
        writer: makes changes to the spool, and repeats them until they succeed.
        reports: reports failures and delays to senders.
        events: receives the results.
        telemetry: is told of each attempt.
        sign: how messages are signed that were put unsigned.
    """

    def __init__(
        self,
        client: SMTPClient,
        retry: RetryPolicy,
        *,
        keep_sent: bool,
        options: ProcessorOptions,
        control: RunControl,
        breakers: Breakers,
        writer: SpoolWriter,
        reports: SenderReports,
        events: EventSink,
        telemetry: DeliveryTelemetry | None = None,
        sign: Sequence[MessageSigner] = (),
    ) -> None:
        self._client: Final = client
        self._telemetry: Final = telemetry
        self._retry: Final = retry
        self._keep_sent: Final = keep_sent
        self._options: Final = options
        self._control: Final = control
        self._breakers: Final = breakers
        self._writer: Final = writer
        self._reports: Final = reports
        self._events: Final = events
        # A refused recipient never stops the message for the others, because each recipient is judged alone.
        self._send_options: Final = replace(
            client.options.send,
            must_accept=NOBODY,
            split=True,
            before_end_of_data=_write_mark if options.marking == "each" else None,
            require_to=False,
            sign=sign,
        )

    async def run(self, lease: Lease) -> None:
        """Try to deliver a job, and end its lease."""
        entry = lease.entry
        if entry.flagged and not entry.confirmed and self._options.on_unknown == "hold":
            await self._hold_unknown(lease)
            return
        if self._events.wants(JobStarted):
            await self._publish_start(lease)
        outcome = self._send(lease)
        telemetry = self._telemetry
        receipt = await (outcome if telemetry is None else telemetry.deliver(entry, outcome))
        if receipt is not None:
            await self._conclude(lease, receipt)

    async def give_back(self, lease: Lease) -> bool:
        """End the lease of a job that was not tried; return False if the spool cannot be written now.

        A job that expires while the server is down has failed.
        """
        if await self._has_expired(lease):
            return True
        return await give_back(lease, self._breakers, self._events)

    async def turn_away(self, lease: Lease, seconds: float) -> bool:
        """Queue a job that its route cannot take now, due in `seconds`; return False as `give_back`.

        If another route has tried its recipients meanwhile, the attempt counts and these wait as after any attempt,
        because they are tried again together.
        """
        if await self._has_expired(lease):
            return True
        entry, now = lease.entry, self._options.clock()
        whole = lease.whole if isinstance(lease, PartialLease) else entry
        due, tried = now + seconds, any([tried_since_due(whole, place) for place in pending_places(whole)])
        if tried:
            wait = retry_delay(self._retry, whole.attempts + 1, self._options.chance())
            due = max(due, now + wait)
        expires = expiry(entry, self._retry)
        if expires is not None and now < expires < due:
            due = expires
        error = self._breakers.error
        reason = entry.reason if error is None else str(error)
        end = lease.defer(None, due, reason=reason, counts=tried)
        return await give_back(lease, self._breakers, self._events, end)

    async def _has_expired(self, lease: Lease) -> bool:
        """Fail a job that has expired while the server is down; return whether it did."""
        entry, error = lease.entry, self._breakers.error
        expires = expiry(entry, self._retry)
        if error is None or self._breakers.server.closed or expires is None or not entry.pending:
            return False
        if self._options.clock() < expires:
            return False
        problem = error if isinstance(error, SMTPError) else SMTPError(str(error))
        await self._conclude(lease, receipt_of(problem, entry.pending))
        return True

    # --- sending ---------------------------------------------------------------------------------------------

    async def _send(self, lease: Lease) -> Receipt | None:
        """Send the message; return its receipt, None if the lease has ended already."""
        sending = _Sending(lease)
        token = _SENDING.set(sending)
        try:
            # No deadline: the stages have limits of their own, and a limit for all would make known outcomes unknown.
            return await self._client.send(lease.mail(), options=self._send_options, deadline=math.inf)
        except MissingRecipient:
            # No recipient is pending: a crash kept the end of the job from being written.
            return Receipt(())
        except SMTPError as error:
            # A store that cannot be read for now says nothing about the message.
            unread = isinstance(error, LeaseLost) or (isinstance(error, SpoolError) and error.temporary)
            failure = error if unread else sending.failure
            if failure is None:
                return receipt_of(error, lease.entry.pending)
            await self._mark_failed(lease, failure)
            return None
        except asyncio.CancelledError as cancelled:
            await self._withdrawn(lease, getattr(cancelled, "receipt", None))
            raise
        except Exception as error:
            # A fault of this message or of the library must not stop the other messages.
            _log.exception("sending the job %s raised", lease.entry.id)
            return receipt_of(SMTPError(f"sending it raised {error!r}"), lease.entry.pending)
        finally:
            _SENDING.reset(token)

    async def _mark_failed(self, lease: Lease, error: Exception) -> None:
        """End an attempt whose mark could not be written to the spool, so that the message was not sent."""
        if isinstance(error, LeaseLost):
            _log.warning("the job %s was taken away before it was sent", lease.entry.id)
            self._breakers.allow_next_probe()
            return
        await self._breakers.spool_failed(error)
        await self._release(lease)

    async def _withdrawn(self, lease: Lease, receipt: Receipt | None) -> None:
        """End an attempt that the processor has cancelled, because its grace is over.

        Args:
            lease: of the message that was being sent.
            receipt: the receipt of the client; None if the client has none.
        """
        if receipt is None:
            error = OutcomeUnknown("the processor stopped before the server replied to the end of data")
            receipt = receipt_of(error, lease.entry.pending)
        if receipt.outcome is Outcome.NOT_SENT:
            await self._release(lease)
        else:
            await self._conclude(lease, receipt)

    # --- the end of an attempt -------------------------------------------------------------------------------

    async def _conclude(self, lease: Lease, receipt: Receipt) -> None:
        entry = lease.entry
        if self._is_plain_success(lease, receipt):
            await self._settle(lease, receipt)
            return
        options, now = self._options, self._options.clock()
        chance = options.chance()
        whole, others = entry, OtherRoutes.NONE
        if isinstance(lease, PartialLease):
            whole, others = lease.whole, lease.others
        result = judge_job(
            whole,
            receipt,
            self._retry,
            now=now,
            on_unknown=options.on_unknown,
            chance=chance,
            others=others,
        )
        try:
            if isinstance(result.host_error, UsageError):
                self._control.stop_for_good(result.host_error)
            await self._breakers.attempt_ended(receipt, result)
            if not result.delivered:
                await self._reports.report(entry, result, now)
        except asyncio.CancelledError:
            # The result is known, so it is written even after cancellation.
            await self._write_end(lease, receipt, result)
            raise
        if not await self._write_end(lease, receipt, result):
            return
        self._events.job_ended(entry, result)
        if result.fate is Fate.HANDED_ON:
            self._control.wake()
        if result.delivered:
            await self._reports.report(entry, result, now)
        await self._publish_end(entry, receipt, result)

    def _is_plain_success(self, lease: Lease, receipt: Receipt) -> bool:
        """Return whether the first attempt delivered the job to all recipients, as most attempts do."""
        if isinstance(lease, PartialLease):
            return False
        accepted = receipt.error is None and receipt.outcome is Outcome.ACCEPTED
        # Another route may have tried some recipients without an attempt that counts.
        first = not lease.entry.attempts and not any(lease.entry.results)
        return accepted and first and self._breakers.mail_flows

    async def _settle(self, lease: Lease, receipt: Receipt) -> None:
        if await self._writer.persist(lambda: lease.settle(receipt, keep=self._keep_sent)):
            self._events.job_ended(lease.entry, _DELIVERED)
            if self._events.active:
                await self._publish_end(lease.entry, receipt, _DELIVERED)

    async def _write_end(self, lease: Lease, receipt: Receipt, result: JobResult) -> bool:
        return await self._writer.persist(lambda: self._end_lease(lease, receipt, result))

    async def _end_lease(self, lease: Lease, receipt: Receipt, result: JobResult) -> None:
        if result.fate is Fate.DELIVERED:
            await lease.settle(receipt, keep=self._keep_sent)
        elif result.fate is Fate.RELEASED:
            await lease.release()
        else:
            retry = recipients_to_retry(receipt, result)
            if result.fate is Fate.DEFERRED or result.fate is Fate.HANDED_ON:
                counts = result.fate is Fate.DEFERRED
                await lease.defer(
                    receipt, result.not_before, reason=result.reason, retry=retry, counts=counts
                )
            else:
                await lease.fail(receipt, reason=result.reason, retry=retry)

    async def _hold_unknown(self, lease: Lease) -> None:
        """Fail a job that an earlier attempt may have delivered; an operator decides, by requeuing the job."""
        self._breakers.allow_next_probe()
        if await self._writer.persist(lambda: lease.fail(None, reason=UNKNOWN)):
            self._events.job_ended(lease.entry, _HELD_UNKNOWN)
            await self._events.publish(JobFailed(id=lease.entry.id, receipt=None, reason=UNKNOWN))

    async def _release(self, lease: Lease) -> None:
        # Success does not prove that the spool can be written, because a release may need no room.
        if await self._writer.persist(lease.release, proves=False):
            self._events.job_ended(lease.entry, _RELEASED)

    # --- events ----------------------------------------------------------------------------------------------

    async def _publish_start(self, lease: Lease) -> None:
        entry = lease.entry
        attempt, recipients = entry.attempts + 1, entry.pending
        event = JobStarted(id=entry.id, attempt=attempt, recipients=recipients, flagged=entry.flagged)
        try:
            await self._events.publish(event)
        except asyncio.CancelledError:
            await self._release(lease)
            raise

    async def _publish_end(self, entry: Entry, receipt: Receipt, result: JobResult) -> None:
        if not self._events.active:
            return
        id, reason = entry.id, result.reason
        if result.fate is Fate.DELIVERED:
            await self._events.publish(JobSent(id=id, receipt=receipt))
        elif result.fate is Fate.FAILED:
            await self._events.publish(JobFailed(id=id, receipt=receipt, reason=reason))
        elif result.fate is Fate.DEFERRED or result.fate is Fate.HANDED_ON:
            due = result.not_before
            await self._events.publish(JobDeferred(id=id, receipt=receipt, not_before=due, reason=reason))


async def give_back(
    lease: Lease, breakers: Breakers, events: EventSink, end: Awaitable[None] | None = None
) -> bool:
    """End the lease of a job that was not tried; return False if the spool cannot be written now.

    Args:
        lease: the lease.
        breakers: receive that the spool cannot be written.
        events: receives the end.
        end: ends the lease; by default it is released.
    """
    try:
        await (lease.release() if end is None else end)
    except LeaseLost:
        return True
    except SpoolError as failure:
        await breakers.spool_failed(failure)
        return False
    events.job_ended(lease.entry, _RELEASED)
    return True
