"""`QueueProcessor`: delivers the mail of a spool through a client; its face. What it does is done by `Crew`.

A `run` that is cancelled waits once for what is under way; cancelled again, as some frameworks do at every await, it
leaves the rest to the manager, whose task goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..errors import Busy, InvalidArgument, SMTPError
from ..events import Event, JobQueued
from ..hooks import Observed
from ..model.address import Address
from ..model.envelope import Recipient
from ..spool.contract import Spool
from .attempt import Courier, Manner, Marking, Told
from .bounce import ReportOptions
from .breakers import Flow
from .fate import End
from .policy import OnUnknown
from .results import ProcessorStatistics, QueueReport, Unfinished
from .schedule import RetryPolicy
from .workers import Crew

if TYPE_CHECKING:
    from ..client.client import SMTPClient

__all__ = ["QueueProcessor"]

_DEFAULT_RETRY: Final = RetryPolicy()
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: The loop keeps tasks weakly, and a manager may outlive the call of `run`.
_managers: Final[set[asyncio.Task[None]]] = set()


class QueueProcessor(Observed):
    """Deliver the mail of a spool through a client.

    Args:
        spool: where the mail is.
        client: sends it; it stays the caller's, to be closed by him.
        concurrency: jobs in work at once; None takes twice what the client's connections can carry, so that noting
            results never keeps one waiting.
        retry: how often and how long a message is tried, and how long a dead server is left alone.
        keep_sent: keep what was sent, as SENT.
        on_unknown: `"retry"` sends again what may have arrived (at least once, as mail servers do), `"hold"` fails it
            for a person to decide (at most once).
        bounce: tell senders of failures; None tells nobody.
        stop_on_error: begin nothing new after the first job that failed.
        marking: `"each"` notes of every message, when its end of data is about to leave, that it may have been
            delivered. `"claim"` notes it of whole batches when they are claimed: faster where the spool is, and after
            a crash every job that was claimed counts as unknown.
        poll: seconds after which an idle spool is looked at again.
        grace: seconds that messages under way have when it stops. What is not answered by then is unknown.
        heartbeat: seconds between two signs of life for leases, and between two looks for dead workers.
        clock: what time it is, in seconds of the epoch.
        monotonic: seconds of a clock that is never set, by which pauses are measured.
        chance: draws a random number from 0 to 1.

    Raises:
        InvalidArgument: a number that cannot be meant.
    """

    def __init__(
        self,
        spool: Spool,
        client: SMTPClient,
        *,
        concurrency: int | None = None,
        retry: RetryPolicy = _DEFAULT_RETRY,
        keep_sent: bool = False,
        on_unknown: OnUnknown = "retry",
        bounce: ReportOptions | None = None,
        stop_on_error: bool = False,
        marking: Marking = "each",
        poll: float = 1.0,
        grace: float = 60.0,
        heartbeat: float = 60.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if concurrency is None:
            limits = client.options.pool
            concurrency = 2 * max(2, limits.window) * limits.max_connections
            concurrency = min(concurrency, limits.max_waiting or concurrency)
        _check(concurrency, on_unknown, marking, poll=poll, grace=grace, heartbeat=heartbeat)
        self._spool = spool
        self._stop_on_error = stop_on_error
        super().__init__()
        self._flow = Flow(retry, clock, monotonic, chance, self._tell, lambda: self._crew.ring())
        self._crew = Crew(
            spool,
            self._flow,
            concurrency=concurrency,
            marked=marking == "claim",
            poll=poll,
            grace=grace,
            heartbeat=heartbeat,
            clock=clock,
            tell=self._tell,
        )
        manner = Manner(
            retry=retry,
            keep_sent=keep_sent,
            on_unknown=on_unknown,
            bounce=bounce,
            marking=marking,
            clock=clock,
            chance=chance,
        )
        self._crew.courier = Courier(
            spool, client, manner, self._flow, self._hooks, ended=self._note, fatal=self._crew.fail
        )
        self._manager: asyncio.Task[None] | None = None
        self._counts = dict.fromkeys((*End, "unknown"), 0)
        self._report: tuple[list[str], list[Unfinished], list[Unfinished]] | None = None

    def __repr__(self) -> str:
        s = self.statistics()
        return (
            f"<QueueProcessor {s.sending} sending, {s.sent} sent, {s.deferred} deferred, {s.failed} failed>"
        )

    # --- the face --------------------------------------------------------------------------------------------

    async def run(self, *, signals: bool = False) -> None:
        """Deliver until `stop` is called, or the task is cancelled, or a job failed with `stop_on_error`.

        Args:
            signals: SIGTERM and SIGINT call `stop`; the second one ends its grace. Main thread only, and where the
                event loop can do it.

        Raises:
            Busy: it runs already.
            UsageError: the client or the spool cannot be used, for example because it is closed.
        """
        with self._handling_signals() if signals else contextlib.nullcontext():
            await self._live(once=False)

    async def run_once(self) -> QueueReport:
        """Try every job that is due once, and return what became of them.

        It ends early when the server as a whole cannot be used, or the spool cannot be written, after `stop`, and after
        the first failed job with `stop_on_error`: `QueueReport.error` says so, and the others stay queued.

        Raises:
            Busy, UsageError: as `run`.
        """
        self._report = ([], [], [])
        try:
            await self._live(once=True)
            sent, deferred, failed = self._report
            unreadable = [Unfinished(one.id, one.reason) for one in self._crew.unreadable.values()]
            return QueueReport(
                tuple(sent), tuple(deferred), tuple(failed), self._crew.error, tuple(unreadable)
            )
        finally:
            self._report = None

    def stop(self, *, grace: float | None = None) -> None:
        """Begin nothing new; what is under way ends within `grace` seconds (None: those it was made with).

        Synchronous, to be called in the loop's thread. A second call may shorten the grace. While nothing runs, it
        counts for the next run, which then begins nothing: a program may be told to end while it starts.
        """
        self._crew.stop(grace)

    async def wait_stopped(self) -> None:
        """Return when nothing is under way any more: after a `run` that was cancelled more than once."""
        if self._manager is not None:
            await asyncio.wait({self._manager})

    async def put(
        self,
        message: Any,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        key: str | None = None,
        not_before: float | datetime | None = None,
        expires: float | datetime | None = None,
    ) -> str:
        """Put a message into the spool and tell the hooks (`JobQueued`); arguments and errors as for `Spool.put`."""
        id = await self._spool.put(
            message, sender=sender, recipients=recipients, key=key, not_before=not_before, expires=expires
        )
        await self._tell(JobQueued(id=id))
        return id

    def statistics(self) -> ProcessorStatistics:
        """Return what it holds and has done."""
        flow, counts = self._flow, self._counts
        return ProcessorStatistics(
            sending=len(self._crew.in_work),
            ahead=len(self._crew.ready),
            sent=counts[End.SENT],
            deferred=counts[End.DEFERRED],
            failed=counts[End.FAILED],
            released=counts[End.RELEASED],
            unknown=counts["unknown"],
            paused_until=None if flow.free else flow.until,
            problem="" if flow.error is None else str(flow.error),
        )

    # --- beginning and ending --------------------------------------------------------------------------------

    async def _live(self, *, once: bool) -> None:
        if self._manager is not None and not self._manager.done():
            raise Busy("this processor runs already")
        self._crew.prepare()
        manager = self._manager = asyncio.get_running_loop().create_task(
            self._crew.manage(once=once), name="smtp_async queue"
        )
        _managers.add(manager)
        manager.add_done_callback(_managers.discard)
        manager.add_done_callback(lambda _: self._crew.over())
        try:
            await asyncio.wait({manager})
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait({manager})
            raise
        if manager.cancelled():
            raise asyncio.CancelledError
        if self._crew.failure is not None:
            raise self._crew.failure
        manager.result()

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = []
        for number in _SIGNALS:
            # Not on Windows, and not outside the main thread.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._signalled)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _signalled(self) -> None:
        self.stop(grace=0.0 if self._crew.stopping else None)

    def _note(self, told: Told) -> None:
        """A job's turn has ended."""
        entry, conclusion, disposition = told
        self._counts[conclusion.end] += 1
        if disposition is not None and disposition.unknown:
            self._counts["unknown"] += 1
        if self._report is not None:
            sent, deferred, failed = self._report
            if conclusion.end is End.SENT:
                sent.append(entry.id)
            elif conclusion.end is End.DEFERRED:
                deferred.append(Unfinished(entry.id, conclusion.reason, conclusion.not_before))
            elif conclusion.end is End.FAILED:
                failed.append(Unfinished(entry.id, conclusion.reason))
            elif self._crew.stopping:
                self._crew.cut_short()
        if conclusion.end is End.FAILED and self._stop_on_error:
            self._crew.end_early(SMTPError(f"the job {entry.id} failed: {conclusion.reason}"))

    # --- small things ----------------------------------------------------------------------------------------

    async def _tell(self, event: Event) -> None:
        if self._hooks.wants(type(event)):
            await self._hooks.tell((event,))


def _check(concurrency: int, on_unknown: str, marking: str, **durations: float) -> None:
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise InvalidArgument(f"concurrency must be an integer above 0, not {concurrency!r}")
    if on_unknown not in ("retry", "hold"):
        raise InvalidArgument(f"on_unknown is 'retry' or 'hold', not {on_unknown!r}")
    if marking not in ("each", "claim"):
        raise InvalidArgument(f"marking is 'each' or 'claim', not {marking!r}")
    for name, value in durations.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise InvalidArgument(f"{name} must be a number of seconds, not {value!r}")
