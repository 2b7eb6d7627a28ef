"""Reports to senders: which failures and delays are reported, and where the reports go. `bounce` writes them."""

from __future__ import annotations

import binascii
import logging
import platform
from dataclasses import replace
from functools import partial
from typing import Final

from ..errors import SMTPError, UsageError
from ..spool.contract import Spool
from ..spool.entry import Entry
from .bounce import Notice, ReportOptions, bounce, delay_notice
from .results import UNKNOWN, Fate, JobResult
from .schedule import RetryPolicy, expiry
from .spool_writer import SpoolWriter

__all__ = ["SenderReports"]

#: The fates of jobs that are tried again because of a refusal.
_DELAYS: Final = (Fate.DEFERRED, Fate.HANDED_ON)

_log = logging.getLogger("smtp_async")


class SenderReports:
    """Reports failures and delays to the senders of messages.

    Args:
        options: which reports, and how; None: no reports.
        retry: gives the time until which a delayed message is tried.
        spool: contains the messages, and receives the reports.
        writer: puts the reports into the spool.
        remote: the name of the server that refused the messages.
        own_name: the name of this system, if the options have none.
    """

    def __init__(
        self,
        options: ReportOptions | None,
        retry: RetryPolicy,
        spool: Spool,
        writer: SpoolWriter,
        *,
        remote: str,
        own_name: str | None,
    ) -> None:
        self._options: Final = options
        self._retry: Final = retry
        self._spool: Final = spool
        self._writer: Final = writer
        self._remote: Final = remote
        self._own_name: Final = own_name

    async def report(self, entry: Entry, result: JobResult, now: float) -> None:
        """Report a result to the sender, if the options and NOTIFY require it.

        An error that prevents a report is only logged.

        Args:
            entry: the job as it was claimed.
            result: the result of the job.
            now: the wall clock, in seconds of the epoch.
        """
        options = self._options
        if options is None:
            return
        try:
            notice = await self._notice(options, entry, result, now)
            if notice is None:
                return
            if options.deliver is None:
                await self._writer.persist(lambda: self._put(notice))
            else:
                await options.deliver(notice)
        except Exception:
            _log.exception("the report about the job %s could not be written or delivered", entry.id)

    async def _put(self, notice: Notice) -> None:
        await self._spool.put(notice, key=notice.key)

    async def _notice(
        self, options: ReportOptions, entry: Entry, result: JobResult, now: float
    ) -> Notice | None:
        """Write the report of a result; return None if there is nothing to report."""
        # A recipient that may have the message is not reported as failed.
        failed = tuple([one for one in result.failed if one.reason != UNKNOWN])
        if entry.envelope.sender is None or not (failed or self._is_first_delay(options, entry, result, now)):
            return None
        reported = failed or result.deferred
        key = _report_key(entry, [one.recipient.address.addr_spec for one in reported])
        original = await self._original(entry.id)
        until = expiry(entry, self._retry)
        write = bounce if failed else partial(delay_notice, until=until)
        return write(
            original,
            entry.envelope,
            reported,
            key=key,
            now=now,
            options=self._with_own_name(options),
            arrived=entry.created,
            remote=self._remote,
        )

    def _is_first_delay(self, options: ReportOptions, entry: Entry, result: JobResult, now: float) -> bool:
        """Return whether this is the first attempt that ended after `delay_after`."""
        limit = options.delay_after
        if limit is None or not result.deferred or result.fate not in _DELAYS or now - entry.created < limit:
            return False
        return _last_result(entry) - entry.created < limit

    async def _original(self, id: str) -> bytes:
        """Return the message that a report contains; empty if the message can no longer be read."""
        try:
            return await self._spool.read(id)
        except SMTPError:
            _log.exception("the message of the job %s cannot be read to report it", id)
            return b""

    def _with_own_name(self, options: ReportOptions) -> ReportOptions:
        if options.reporting is not None:
            return options
        return replace(options, reporting=_usable_name(self._own_name))


def _report_key(entry: Entry, addresses: list[str]) -> str:
    """Return the idempotency key of a report.

    The same failure after a crash has the same key. A later failure of the same job, after a requeue, has another key,
    because results were recorded in between.
    """
    fact = "\n".join([f"{_last_result(entry)!r}", *addresses])
    return f"{entry.id}.{binascii.crc32(fact.encode()):08x}"


def _last_result(entry: Entry) -> float:
    """Return when the last result was recorded, or when the job was put."""
    return max((result.at for result in entry.results if result is not None), default=entry.created)


def _usable_name(name: str | None) -> str:
    """Return a name of this system that is valid in a report."""
    for candidate in (name, platform.node()):
        if candidate:
            try:
                return ReportOptions(reporting=candidate).reporting or candidate
            except UsageError:
                continue
    return "localhost"
