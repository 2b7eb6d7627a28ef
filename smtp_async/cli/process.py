"""`smtp-async process`: send the mail of a spool, once or until the processor is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from ..client.client import SMTPClient
from ..client.options import ClientOptions
from ..errors import SMTPError
from ..events import PITrail
from ..model.signing import MessageSigner
from ..model.timeouts import Timeouts
from ..pool.limits import PoolLimits
from ..processor import OnUnknown, ProcessorOptions, QueueProcessor, QueueReport, RetryPolicy
from ..spool.contract import Spool
from .accounts import AccountOptions
from .console import AllowChanges, console_of
from .dkim import SigningOptions
from .exits import Exit, exit_for_report
from .log import log_on
from .option_groups import grouped
from .options import Access, Server, SpoolPlace, Verbose
from .output import Output, sentence
from .progress import Display, LineDisplay, LiveDisplay, NoteCollector, Rate, Snapshot, clock_of
from .server import client_for
from .spools import name_of, open_spool
from .web_options import WebOptions

if TYPE_CHECKING:
    from ..web.serving import Address

__all__ = ["process"]

#: Seconds between two updates of the display.
UPDATE_INTERVAL: Final = 0.2
#: Seconds between two counts of the spool; longer if counting takes long.
COUNT_INTERVAL: Final = 2.0
#: Connections by default, unless more messages are to be in work at once.
CONNECTIONS: Final = 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Unknown(Enum):
    """What is done with a message that may have been delivered."""

    RETRY = "retry"
    HOLD = "hold"


_ON_UNKNOWN: Final[dict[Unknown, OnUnknown]] = {Unknown.RETRY: "retry", Unknown.HOLD: "hold"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingOptions:
    """The options of the processor."""

    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Messages in work at once; by default enough to keep every connection busy.",
        ),
    ] = None
    connections: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"Connections at most; by default {CONNECTIONS}, or as many as --concurrency.",
        ),
    ] = None
    attempts: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Attempts per message; without it, until the message expires (5 days)."
        ),
    ] = None
    keep_sent: Annotated[
        bool, typer.Option("--keep-sent", help="Keep delivered jobs in the spool, as sent.")
    ] = False
    on_unknown: Annotated[
        Unknown,
        typer.Option(
            help="A message whose end was sent and never answered: retry sends it again, hold keeps it as failed."
        ),
    ] = Unknown.RETRY
    stop_on_error: Annotated[
        bool, typer.Option("--stop-on-error", help="Start no further job after the first one that failed.")
    ] = False
    grace: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Seconds that messages being sent have when it is stopped."
        ),
    ] = 60.0

    def client_options(self, sign: Sequence[MessageSigner]) -> ClientOptions:
        """Return the options of a client that signs so."""
        pool = PoolLimits(max_connections=self.connections or self.concurrency or CONNECTIONS)
        # A TLS port that is spoken to in clear stays silent until the greeting times out, and then an error says so.
        # When the client is closed, messages being sent have had the processor's grace.
        return ClientOptions(pool=pool, timeouts=Timeouts(greeting=30.0, close=1.0), sign=sign)

    def processor(self, spool: Spool, client: SMTPClient) -> QueueProcessor:
        """Return the processor."""
        return QueueProcessor(
            spool,
            client,
            concurrency=self.concurrency,
            retry=RetryPolicy(attempts=self.attempts),
            keep_sent=self.keep_sent,
            options=ProcessorOptions(
                on_unknown=_ON_UNKNOWN[self.on_unknown], stop_on_error=self.stop_on_error, grace=self.grace
            ),
        )


@grouped
def process(
    spool: SpoolPlace,
    server: Server,
    chosen: AccountOptions,
    processing: ProcessingOptions,
    access: Access,
    signing: SigningOptions,
    page: WebOptions,
    once: Annotated[
        bool, typer.Option("--once", help="Try every job that is due once, and end; the exit code tells.")
    ] = False,
    verbose: Verbose = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No lines about sent messages, and no live display.")
    ] = False,
    web: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Show the queue on a page for a browser on this port, such as 8026.",
        ),
    ] = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Send the mail of a queue until stopped or, with --once, until every job that is due had its turn.

    Ctrl-C or SIGTERM: no further job is started, and messages being sent may end. The second signal ends them at once.

    In a pipe: a line for each job that was sent, deferred or failed, separated by tabs: what, id, next attempt, why.
    """
    output = Output()
    with output.errors_as_sentences():
        account = chosen.chosen()
        sign = signing.signatures(None if account is None else account.sender, unless_signed=True)
        client = client_for(server, access, processing.client_options(sign), account)
        if verbose:
            client.on(PITrail, output.trail)
        shown = None if web is None else _Page(page.address(web), allow_changes)
        code = asyncio.run(
            _process(
                output,
                spool,
                client,
                processing,
                once=once,
                quiet=quiet,
                live=not (quiet or verbose),
                page=shown,
            )
        )
    raise typer.Exit(code)


class _Page(NamedTuple):
    """The page of `--web`."""

    address: Address
    allow_changes: bool


async def _process(
    output: Output,
    place: str,
    client: SMTPClient,
    processing: ProcessingOptions,
    *,
    once: bool,
    quiet: bool,
    live: bool,
    page: _Page | None,
) -> int:
    spool = open_spool(place)
    processor = processing.processor(spool, client)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(spool)
        await stack.enter_async_context(client)
        if page is not None:
            shown = console_of(
                output,
                spool,
                name_of(place),
                page.address,
                processor=processor,
                allow_changes=page.allow_changes,
            )
            await stack.enter_async_context(shown)
        return await _run(output, spool, processor, once=once, quiet=quiet, live=live)


async def _run(
    output: Output, spool: Spool, processor: QueueProcessor, *, once: bool, quiet: bool, live: bool
) -> int:
    """Run the processor, show what it does, and return the exit code."""
    display: Display = LiveDisplay(output) if output.is_terminal and live else LineDisplay(output)
    notes = NoteCollector(processor, sent=not quiet)
    started = time.monotonic()
    signals = _StopSignals(output, processor)
    over = asyncio.Event()
    showing = asyncio.create_task(_show(display, notes, spool, processor, over))
    # A display that fails, for example on a broken pipe, stops the processor.
    showing.add_done_callback(lambda task: None if over.is_set() else processor.stop())
    report: QueueReport | None = None
    try:
        with signals.handled(), log_on(output):
            if once:
                report = await processor.run_once()
            else:
                await processor.run()
    finally:
        over.set()
        try:
            await showing
        finally:
            display.close()
    _sum_up(output, processor, time.monotonic() - started)
    return _exit_code(output, processor, report, signals.count)


def _exit_code(output: Output, processor: QueueProcessor, report: QueueReport | None, signals: int) -> int:
    if report is not None:
        if report.error is not None:
            known = isinstance(report.error, SMTPError)
            output.failure(sentence(str(report.error) if known else f"it ended early: {report.error!r}"))
        # After a signal some jobs had no turn, whatever became of the others.
        return 130 if signals else exit_for_report(report)
    # Without --once a run ends for two reasons: a signal, or a failed job with --stop-on-error.
    if signals:
        return 130 if signals > 1 else Exit.OK
    return Exit.REFUSED if processor.statistics().failed else Exit.OK


class _StopSignals:
    """Handles Ctrl-C and SIGTERM: the first stops the processor, the second ends its grace, a third is not handled."""

    def __init__(self, output: Output, processor: QueueProcessor) -> None:
        self._output = output
        self._processor = processor
        self.count = 0

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside the context."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            self._remove_handlers()

    def _remove_handlers(self) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _on_signal(self) -> None:
        self.count += 1
        if self.count == 1:
            self._processor.stop()
            sending = self._processor.statistics().sending
            self._output.remark(f"Stopping: {sending} being sent may end. Once more ends them at once.")
        else:
            self._processor.stop(grace=0.0)
            self._remove_handlers()


# --- display -------------------------------------------------------------------------------------------------


async def _show(
    display: Display, notes: NoteCollector, spool: Spool, processor: QueueProcessor, over: asyncio.Event
) -> None:
    """Show new notes and the progress, until `over` is set."""
    rate, remaining = Rate(), _RemainingJobs(spool, notes)
    while not over.is_set():
        display.show_notes(notes.take())
        if isinstance(display, LiveDisplay):
            counts = processor.statistics()
            done = counts.sent + counts.deferred + counts.failed
            left = await remaining.count(done)
            display.show_progress(Snapshot(counts, left, rate.add(time.monotonic(), done)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), UPDATE_INTERVAL)
    display.show_notes(notes.take())


class _RemainingJobs:
    """The number of jobs that are still to be tried: counted now and then, and computed in between."""

    def __init__(self, spool: Spool, notes: NoteCollector) -> None:
        self._spool = spool
        self._notes = notes
        self._next_count = 0.0
        self._counted = 0
        self._done = 0

    async def count(self, done: int) -> int:
        """Return how many jobs are left after `done` jobs had their turn."""
        started = time.monotonic()
        if started >= self._next_count:
            self._next_count = started + COUNT_INTERVAL
            # The processor itself reports a spool that fails.
            with contextlib.suppress(SMTPError):
                found = await self._spool.statistics()
                later = self._notes.waiting(time.time())
                self._counted = found.queued - found.held + found.sending - later
                self._done = done
            # Counting a million files takes seconds, so a large spool is counted less often.
            took = time.monotonic() - started
            self._next_count = max(self._next_count, started + 20 * took)
        return max(0, self._counted - (done - self._done))


def _sum_up(output: Output, processor: QueueProcessor, seconds: float) -> None:
    """Show the totals of a run."""
    counts = processor.statistics()
    done = counts.sent + counts.deferred + counts.failed
    text = f"{counts.sent} sent, {counts.deferred} deferred, {counts.failed} failed"
    if counts.unknown:
        text += f", {counts.unknown} of them unknown"
    speed = f"{done / seconds:,.1f}/s" if seconds > 0 else ""
    if not output.is_terminal:
        output.line(f"total\t-\t-\t{text} in {seconds:.1f} s")
    elif counts.deferred or counts.failed or counts.problem:
        output.problem(f"{text} in {clock_of(seconds)}, {speed}")
    else:
        output.success(f"{text} in {clock_of(seconds)}, {speed}")
