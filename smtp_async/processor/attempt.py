"""One job from its lease to the end of it: send, judge, note, report.

What matters most stands in `_insist`: after a message may have left, its lease is ended by this process or by nobody.
However often the spool fails meanwhile, the message is not sent again; all others wait.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import math
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ..errors import LeaseLost, MissingRecipient, OutcomeUnknown, SMTPError, SpoolError, UsageError
from ..events import Event, JobDeferred, JobFailed, JobSent, JobStarted
from ..hooks import Hooks
from ..model.envelope import NOBODY
from ..model.receipt import Outcome, Receipt
from ..spool.contract import Lease, Spool
from ..spool.entry import Entry
from .bounce import Notice, ReportOptions, bounce, delay_notice
from .breakers import Flow
from .fate import Conclusion, End, conclude, expiry, retry_of
from .policy import UNKNOWN, Disposition, OnUnknown, judge, receipt_of
from .schedule import RetryPolicy, pause

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["Courier", "Manner", "Marking"]

_log = logging.getLogger("smtp_async")

#: When a job is marked as "may have left": each at its end of data, or all when they are claimed.
Marking = Literal["each", "claim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a processor works; the fields are arguments of `QueueProcessor`."""

    retry: RetryPolicy
    keep_sent: bool
    on_unknown: OnUnknown
    bounce: ReportOptions | None
    marking: Marking
    clock: Callable[[], float]
    chance: Callable[[], float]


_SENT: Final = Conclusion(End.SENT)


class Told(NamedTuple):
    """How a job's turn ended, for whoever counts."""

    entry: Entry
    conclusion: Conclusion
    disposition: Disposition | None


class _Gate:
    """What `client.send` awaits before the end of data may leave."""

    __slots__ = ("_lease", "failure")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        #: Why the mark could not be written; then nothing was sent.
        self.failure: Exception | None = None

    async def __call__(self) -> None:
        try:
            await self._lease.mark_end_of_data()
        except Exception as error:
            self.failure = error
            raise


class Courier:
    """Carries jobs, any number at once.

    Args:
        spool: where they come from.
        client: sends them.
        manner: how.
        flow: is told what the server and the spool are like.
        hooks: of the processor.
        ended: called when a job's turn has ended.
        fatal: called with what no pause can cure.
    """

    def __init__(
        self,
        spool: Spool,
        client: SMTPClient,
        manner: Manner,
        flow: Flow,
        hooks: Hooks,
        ended: Callable[[Told], None],
        fatal: Callable[[Exception], None],
    ) -> None:
        self._spool: Final = spool
        self._client: Final = client
        self._manner: Final = manner
        self._flow: Final = flow
        self._hooks: Final = hooks
        self._ended: Final = ended
        self._fatal: Final = fatal
        self._over: asyncio.Future[None]
        # One recipient that is refused never stops the message for the others: they are judged one by one.
        self._options: Final = replace(
            client.options.send, must_accept=NOBODY, split=True, before_end_of_data=None, require_to=False
        )

    def begin(self) -> None:
        """Work in this loop from now on."""
        self._over = asyncio.get_running_loop().create_future()

    def finish(self) -> None:
        """Insist on nothing any more: what the spool does not take now is left to whoever recovers it."""
        if not self._over.done():
            self._over.set_result(None)

    async def carry(self, lease: Lease) -> None:
        """Take a job to the end of its lease."""
        entry = lease.entry
        if entry.flagged and not entry.confirmed and self._manner.on_unknown == "hold":
            await self._keep_unknown(lease)
            return
        if self._hooks.wants(JobStarted):
            await self._tell_start(lease)
        receipt = await self._send(lease)
        if receipt is not None:
            await self._finish(lease, receipt)

    async def give_back(self, lease: Lease) -> bool:
        """End the lease of a job whose turn does not come; return False if the spool cannot take it now.

        One that expired while the server is down has failed.
        """
        entry, error = lease.entry, self._flow.error
        expires = expiry(entry, self._manner.retry)
        if error is not None and not self._flow.host.closed and expires is not None and entry.pending:
            if self._manner.clock() >= expires:
                problem = error if isinstance(error, SMTPError) else SMTPError(str(error))
                await self._finish(lease, receipt_of(problem, entry.pending))
                return True
        try:
            await lease.release()
        except LeaseLost:
            return True
        except SpoolError as failure:
            await self._flow.store_failed(failure)
            return False
        self._ended(Told(entry, Conclusion(End.RELEASED), None))
        return True

    # --- sending ---------------------------------------------------------------------------------------------

    async def _send(self, lease: Lease) -> Receipt | None:
        """Return what became of the message; None if the lease has ended already."""
        gate = _Gate(lease)
        options = self._options.behind(gate) if self._manner.marking == "each" else self._options
        try:
            # The stages have limits of their own; one for all of them would make certain outcomes unknown.
            return await self._client.send(lease.mail(), options=options, deadline=math.inf)
        except MissingRecipient:
            # Everybody has got it or was given up: only its end was never noted.
            return Receipt(())
        except SMTPError as error:
            failure = error if isinstance(error, LeaseLost) else gate.failure
            if failure is None:
                return receipt_of(error, lease.entry.pending)
            await self._not_marked(lease, failure)
            return None
        except asyncio.CancelledError as cancelled:
            await self._withdraw(lease, getattr(cancelled, "receipt", None))
            raise
        except Exception as error:
            # A fault of the message or of this library, never of the mail behind it.
            _log.exception("sending the job %s raised", lease.entry.id)
            return receipt_of(SMTPError(f"sending it raised {error!r}"), lease.entry.pending)

    async def _not_marked(self, lease: Lease, error: Exception) -> None:
        """The spool could not note that the message is about to leave: so it did not."""
        if isinstance(error, LeaseLost):
            _log.warning("the job %s was taken away before it was sent", lease.entry.id)
            self._flow.undecided()
            return
        await self._flow.store_failed(error)
        await self._release(lease)

    async def _withdraw(self, lease: Lease, receipt: Receipt | None) -> None:
        """The processor stops and waits no longer.

        Args:
            lease: of the message under way.
            receipt: what the client knows of it; None for a client that does not tell.
        """
        if receipt is None:
            error = OutcomeUnknown("the processor stopped before the end of the message was answered")
            receipt = receipt_of(error, lease.entry.pending)
        if receipt.outcome is Outcome.NOT_SENT:
            await self._release(lease)
        else:
            await self._finish(lease, receipt)

    # --- what follows ----------------------------------------------------------------------------------------

    async def _finish(self, lease: Lease, receipt: Receipt) -> None:
        manner, entry = self._manner, lease.entry
        if (
            receipt.error is None
            and receipt.outcome is Outcome.ACCEPTED
            and self._flow.free
            and not entry.attempts
        ):
            await self._settle(lease, receipt)
            return
        disposition = judge(receipt, on_unknown=manner.on_unknown)
        now = manner.clock()
        conclusion = conclude(entry, disposition, manner.retry, now=now, chance=manner.chance())
        try:
            await self._learn(receipt, disposition)
            # Who was accepted is noted first of all; else the sender is told first, lest a crash keep it from him.
            if not disposition.delivered:
                await self._report(entry, conclusion, now)
        except asyncio.CancelledError:
            # What is known is noted in any case.
            await self._insist(lambda: self._end(lease, receipt, disposition, conclusion))
            raise
        if not await self._insist(lambda: self._end(lease, receipt, disposition, conclusion)):
            return
        self._ended(Told(entry, conclusion, disposition))
        if disposition.delivered:
            await self._report(entry, conclusion, now)
        await self._tell_end(entry, receipt, conclusion)

    async def _settle(self, lease: Lease, receipt: Receipt) -> None:
        """What becomes of nearly every message: sent at its first try."""
        if await self._insist(lambda: lease.settle(receipt, keep=self._manner.keep_sent)):
            self._ended(Told(lease.entry, _SENT, None))
            if self._hooks.active:
                await self._tell_end(lease.entry, receipt, _SENT)

    async def _learn(self, receipt: Receipt, disposition: Disposition) -> None:
        """Note what a try says about the server."""
        if disposition.host is not None:
            if isinstance(disposition.host, UsageError):
                self._fatal(disposition.host)
            await self._flow.host_failed(disposition.host)
        elif self._flow.host.closed:
            return
        elif receipt.reply is not None or any(verdict.reply is not None for verdict in receipt.verdicts):
            await self._flow.host_fine()
        else:
            self._flow.host.undecided()

    async def _end(
        self, lease: Lease, receipt: Receipt, disposition: Disposition, conclusion: Conclusion
    ) -> None:
        end = conclusion.end
        if end is End.SENT:
            await lease.settle(receipt, keep=self._manner.keep_sent)
        elif end is End.RELEASED:
            await lease.release()
        else:
            retry = retry_of(receipt, disposition, conclusion)
            if end is End.DEFERRED:
                await lease.defer(receipt, conclusion.not_before, reason=conclusion.reason, retry=retry)
            else:
                await lease.fail(receipt, reason=conclusion.reason, retry=retry)

    async def _keep_unknown(self, lease: Lease) -> None:
        """It may have been delivered by an earlier try: a person is to decide, and does by requeuing it."""
        self._flow.undecided()
        if await self._insist(lambda: lease.fail(None, reason=UNKNOWN)):
            self._ended(Told(lease.entry, Conclusion(End.FAILED, reason=UNKNOWN), None))
            await self._tell(JobFailed(id=lease.entry.id, receipt=None, reason=UNKNOWN))

    async def _release(self, lease: Lease) -> None:
        # It may succeed where nothing can be written.
        if await self._insist(lease.release, proves=False):
            self._ended(Told(lease.entry, Conclusion(End.RELEASED), None))

    async def _insist(self, change: Callable[[], Awaitable[None]], *, proves: bool = True) -> bool:
        """Make a change to the spool, however often it fails.

        Args:
            change: makes it.
            proves: it shows that the spool can be written.

        Returns:
            Whether it was made: not if the job is another's by now, nor after `finish`.
        """
        failures = 0
        while True:
            try:
                await change()
            except LeaseLost as error:
                _log.warning("%s", error)
                self._flow.store.undecided()
                return False
            except SpoolError as error:
                failures += 1
                await self._flow.store_failed(error)
                delay = pause(self._manner.retry, failures, self._manner.chance())
                await asyncio.wait((self._over,), timeout=delay)
                if self._over.done():
                    _log.error("the spool could not be told of a job: %s", error)
                    return False
            else:
                if proves and not self._flow.store.closed:
                    await self._flow.store_fine()
                return True

    # --- telling ---------------------------------------------------------------------------------------------

    async def _tell(self, event: Event) -> None:
        if self._hooks.wants(type(event)):
            await self._hooks.tell((event,))

    async def _tell_start(self, lease: Lease) -> None:
        entry = lease.entry
        attempt, recipients = entry.attempts + 1, entry.pending
        event = JobStarted(id=entry.id, attempt=attempt, recipients=recipients, flagged=entry.flagged)
        try:
            await self._tell(event)
        except asyncio.CancelledError:
            await self._release(lease)
            raise

    async def _tell_end(self, entry: Entry, receipt: Receipt, conclusion: Conclusion) -> None:
        if not self._hooks.active:
            return
        end, reason = conclusion.end, conclusion.reason
        if end is End.SENT:
            await self._tell(JobSent(id=entry.id, receipt=receipt))
        elif end is End.FAILED:
            await self._tell(JobFailed(id=entry.id, receipt=receipt, reason=reason))
        elif end is End.DEFERRED:
            due = conclusion.not_before
            await self._tell(JobDeferred(id=entry.id, receipt=receipt, not_before=due, reason=reason))

    async def _notice(self, entry: Entry, conclusion: Conclusion, now: float) -> Notice | None:
        """Write what the sender is to be told, if anything."""
        given_up = tuple([one for one in conclusion.given_up if one.reason != UNKNOWN])
        delayed = not given_up and self._is_late(entry, conclusion, now)
        if entry.envelope.sender is None or not (given_up or delayed):
            return None
        options = self._report_options()
        told = given_up or conclusion.waiting
        names = "\n".join(one.recipient.address.addr_spec for one in told)
        # The same failure found again after a crash makes the same report; a later one, of a job that was requeued,
        # another: results were noted in between.
        fact = f"{_last_result(entry)!r}\n{names}"
        key = f"{entry.id}.{binascii.crc32(fact.encode()):08x}"
        original = await self._original(entry.id)
        host = self._client.host
        if given_up:
            return bounce(
                original,
                entry.envelope,
                told,
                key=key,
                now=now,
                options=options,
                arrived=entry.created,
                remote=host,
            )
        until = expiry(entry, self._manner.retry)
        return delay_notice(
            original,
            entry.envelope,
            told,
            key=key,
            now=now,
            until=until,
            options=options,
            arrived=entry.created,
            remote=host,
        )

    def _is_late(self, entry: Entry, conclusion: Conclusion, now: float) -> bool:
        """Is this the first try that ended later than the sender is to know of?"""
        limit = None if self._manner.bounce is None else self._manner.bounce.delay_after
        if limit is None or conclusion.end is not End.DEFERRED or now - entry.created < limit:
            return False
        return _last_result(entry) - entry.created < limit

    async def _original(self, id: str) -> bytes:
        """Return what a report gives back: nothing of a message that cannot be read any more."""
        try:
            return await self._spool.read(id)
        except SMTPError:
            _log.exception("the message of the job %s cannot be read to report it", id)
            return b""

    def _report_options(self) -> ReportOptions:
        options = self._manner.bounce or ReportOptions()
        if options.reporting is not None:
            return options
        return replace(options, reporting=_own_name(self._client.options.hello))

    async def _report(self, entry: Entry, conclusion: Conclusion, now: float) -> None:
        """Tell the sender what there is to tell. A report that cannot be written or delivered changes nothing else."""
        options = self._manner.bounce
        if options is None:
            return
        try:
            notice = await self._notice(entry, conclusion, now)
            if notice is None:
                return
            if options.deliver is None:
                await self._insist(lambda: self._put(notice))
            else:
                await options.deliver(notice)
        except Exception:
            _log.exception("the report about the job %s could not be written or delivered", entry.id)

    async def _put(self, notice: Notice) -> None:
        await self._spool.put(notice, key=notice.key)


def _last_result(entry: Entry) -> float:
    """When a result was noted last; when the job was put, if none was."""
    return max((result.at for result in entry.results if result is not None), default=entry.created)


def _own_name(hello: str | None) -> str:
    """The name of this system, if it has one that may stand in a report."""
    for name in (hello, platform.node()):
        if name:
            try:
                return ReportOptions(reporting=name).reporting or name
            except UsageError:
                continue
    return "localhost"
