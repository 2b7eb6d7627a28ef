"""`smtp-async process`: send what is in a spool directory, once or until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Final

import typer

from ..client.options import ClientOptions
from ..errors import SMTPError
from ..events import PITrail
from ..model.timeouts import Timeouts
from ..pool.limits import PoolLimits
from ..processor import ProcessorOptions, QueueProcessor, QueueReport, RetryPolicy
from ..processor.policy import OnUnknown
from ..spool.contract import Spool
from ..spool.directory.spool import DirectorySpool
from ..tls.context import Security
from .exits import Exit, exit_for_report
from .options import CaFile, PasswordFile, SecurityWhen, Server, SpoolPath, User, Verbose
from .progress import Face, LiveFace, Notes, Picture, PlainFace, Rate, clock_of
from .screen import Screen, sentence
from .server import client_for

__all__ = ["log_on", "process"]

#: Seconds between two pictures.
TICK: Final = 0.2
#: Seconds between two counts of the spool; longer, if counting takes long.
COUNTS: Final = 2.0
#: Connections, unless more messages are to be in work at once.
CONNECTIONS: Final = 10
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Unknown(Enum):
    """What is done with a message that may have been delivered."""

    RETRY = "retry"
    HOLD = "hold"


_WORDS: Final[dict[Unknown, OnUnknown]] = {Unknown.RETRY: "retry", Unknown.HOLD: "hold"}


def process(
    spool: SpoolPath,
    server: Server,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Messages in work at once; by default enough to keep every connection busy.",
        ),
    ] = None,
    connections: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"Connections at most; by default {CONNECTIONS}, or as --concurrency says.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Try what is due now, once, and end; the exit code tells.")
    ] = False,
    attempts: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tries of a message; without it, until it expires (5 days)."),
    ] = None,
    keep_sent: Annotated[
        bool, typer.Option("--keep-sent", help="Keep what was sent in the spool, as sent.")
    ] = False,
    on_unknown: Annotated[
        Unknown,
        typer.Option(
            help="A message whose end left and was never answered: retry sends it again, hold keeps it as failed."
        ),
    ] = Unknown.RETRY,
    stop_on_error: Annotated[
        bool, typer.Option("--stop-on-error", help="Begin nothing new after the first job that failed.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="When it is to end, seconds for what is under way."),
    ] = 60.0,
    security: SecurityWhen = Security.AUTO,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    verbose: Verbose = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No lines about what was sent, and nothing that moves.")
    ] = False,
) -> None:
    """Send the mail of a queue, until it is stopped or, with --once, until everything due had its turn.

    Ctrl-C or SIGTERM: nothing new is begun, and what is under way may end. The second time it ends at once.

    In a pipe: a line for each job that was sent, deferred or failed, separated by tabs: what, id, next try, why.
    """
    screen = Screen()
    pool = PoolLimits(max_connections=connections or concurrency or CONNECTIONS)
    with screen.sentences():
        client = client_for(
            server,
            security=security,
            user=user,
            password_file=password_file,
            ca_file=ca_file,
            # A port of the wrong kind is silent; its error says so. When the client is closed, messages under way have
            # had the processor's grace.
            options=ClientOptions(pool=pool, timeouts=Timeouts(greeting=30.0, close=1.0)),
        )
        if verbose:
            client.on(PITrail, screen.trail)

        async def go() -> int:
            queue = DirectorySpool(spool)
            processor = QueueProcessor(
                queue,
                client,
                concurrency=concurrency,
                retry=RetryPolicy(attempts=attempts),
                keep_sent=keep_sent,
                options=ProcessorOptions(
                    on_unknown=_WORDS[on_unknown], stop_on_error=stop_on_error, grace=grace
                ),
            )
            async with queue, client:
                return await _work(
                    screen, queue, processor, once=once, quiet=quiet, moving=not (quiet or verbose)
                )

        code = asyncio.run(go())
    raise typer.Exit(code)


async def _work(
    screen: Screen, spool: Spool, processor: QueueProcessor, *, once: bool, quiet: bool, moving: bool
) -> int:
    """Run the processor and show what it does."""
    face: Face = LiveFace(screen) if screen.rich and moving else PlainFace(screen)
    notes = Notes(processor, sent=not quiet)
    began = time.monotonic()
    stops = _Stops(screen, processor)
    over = asyncio.Event()
    showing = asyncio.create_task(_show(face, notes, spool, processor, over))
    # Whoever cannot be told anything any more is not served any more.
    showing.add_done_callback(lambda task: None if over.is_set() else processor.stop())
    report: QueueReport | None = None
    try:
        with stops.heard(), log_on(screen):
            if once:
                report = await processor.run_once()
            else:
                await processor.run()
    finally:
        over.set()
        try:
            await showing
        finally:
            face.close()
    _sum_up(screen, processor, time.monotonic() - began)
    return _judged(screen, processor, report, stops.count)


def _judged(screen: Screen, processor: QueueProcessor, report: QueueReport | None, stops: int) -> int:
    if report is not None:
        if report.error is not None:
            known = isinstance(report.error, SMTPError)
            screen.fail(sentence(str(report.error) if known else f"it ended early: {report.error!r}"))
        # Not everything had its turn, whatever became of the rest.
        return 130 if stops else exit_for_report(report)
    # Without --once it ends for two reasons: a signal, or a failed job with --stop-on-error.
    if stops:
        return 130 if stops > 1 else Exit.OK
    return Exit.REFUSED if processor.statistics().failed else Exit.OK


class _Stops:
    """Ctrl-C and SIGTERM: the first lets what is under way end, the second does not, the third is not caught."""

    def __init__(self, screen: Screen, processor: QueueProcessor) -> None:
        self._screen = screen
        self._processor = processor
        self.count = 0

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _signalled(self) -> None:
        self.count += 1
        if self.count == 1:
            self._processor.stop()
            sending = self._processor.statistics().sending
            self._screen.note(f"Stopping: {sending} under way may end. Once more ends them at once.")
        else:
            self._processor.stop(grace=0.0)
            self._leave()


# --- showing -------------------------------------------------------------------------------------------------


async def _show(
    face: Face, notes: Notes, spool: Spool, processor: QueueProcessor, over: asyncio.Event
) -> None:
    """Show what is new and how it stands, until it is over."""
    rate, left = Rate(), _Left(spool, notes)
    while not over.is_set():
        face.tell(notes.take())
        if isinstance(face, LiveFace):
            counts = processor.statistics()
            done = counts.sent + counts.deferred + counts.failed
            face.draw(Picture(counts, await left.count(done), rate.add(time.monotonic(), done)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), TICK)
    face.tell(notes.take())


class _Left:
    """How many jobs are still to be tried: counted now and then, and reckoned in between."""

    def __init__(self, spool: Spool, notes: Notes) -> None:
        self._spool = spool
        self._notes = notes
        self._next = 0.0
        self._counted = 0
        self._done = 0

    async def count(self, done: int) -> int:
        """Return how many are left when so many had their turn."""
        began = time.monotonic()
        if began >= self._next:
            self._next = began + COUNTS
            # A spool that fails is the processor's to tell.
            with contextlib.suppress(SMTPError):
                found = await self._spool.statistics()
                later = self._notes.waiting(time.time())
                self._counted = found.queued - found.held + found.sending - later
                self._done = done
            # A million files take seconds: then it is done less often.
            took = time.monotonic() - began
            self._next = max(self._next, began + 20 * took)
        return max(0, self._counted - (done - self._done))


class _LogHandler(logging.Handler):
    """Shows what the library logs as one sentence each, without a traceback."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        self._screen.note(sentence(text))


@contextlib.contextmanager
def log_on(screen: Screen) -> Iterator[None]:
    """Show what the library logs while this lasts."""
    handler, log = _LogHandler(screen), logging.getLogger("smtp_async")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _sum_up(screen: Screen, processor: QueueProcessor, seconds: float) -> None:
    counts = processor.statistics()
    done = counts.sent + counts.deferred + counts.failed
    text = f"{counts.sent} sent, {counts.deferred} deferred, {counts.failed} failed"
    if counts.unknown:
        text += f", {counts.unknown} of them unknown"
    speed = f"{done / seconds:,.1f}/s" if seconds > 0 else ""
    if not screen.rich:
        screen.line(f"total\t-\t-\t{text} in {seconds:.1f} s")
    elif counts.deferred or counts.failed:
        screen.bad(f"{text} in {clock_of(seconds)}, {speed}")
    else:
        screen.good(f"{text} in {clock_of(seconds)}, {speed}")
