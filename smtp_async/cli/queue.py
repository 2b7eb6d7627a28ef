"""`smtp-async queue`: put mail into a spool, and list, change and move its jobs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from ..errors import InvalidArgument, SMTPError
from ..model.reply import printable
from ..spool.contract import Spool
from ..spool.entry import Entry, State
from .accounts import SpoolOptions
from .console import AllowChanges, console
from .copying import copy_jobs
from .dkim import signing_of
from .entries import Statistics, show_all, show_one, show_statistics
from .exits import EXPLAINED, Exit, exit_for_error, most_severe
from .log import log_on
from .message_options import MessageOptions
from .option_groups import grouped
from .options import SETTINGS, Expires, Ids, Json, NotBefore
from .output import Output, sentence
from .spools import is_url, name_of, open_database, open_spool
from .times import parse_time
from .web_options import WebOptions

__all__ = ["queue"]

queue = typer.Typer(
    help="Put mail into a directory or a database, from which `smtp-async process` sends it, and list and change the "
    "jobs there.",
    epilog=EXPLAINED,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings=SETTINGS,
)


class Shown(Enum):
    """Which jobs `ls` shows."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    HELD = "held"


_Change = Callable[[Spool, str], Awaitable[None]]


# --- commands ------------------------------------------------------------------------------------------------


@queue.command("add", epilog=EXPLAINED)
@grouped
def _add(
    where: SpoolOptions,
    message: MessageOptions,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Complete messages, each a job of its own; - is standard input. Without --from and --to, the envelope "
            "is read from the header.",
        ),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the directory if it does not exist.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="An idempotency key: added twice, it is the same job, also for a week after the job is gone.",
        ),
    ] = None,
    not_before: NotBefore = None,
    expires: Expires = None,
    tag: Annotated[
        str | None, typer.Option(metavar="WORD", help="A word by which a processor may choose the server.")
    ] = None,
) -> None:
    """Put a message into the queue, and print the id of its job.

    The message is made of options as for send, or it is a complete one: in a file or, without any option that describes
    a message, on standard input. When the command has ended with 0, the message is safe on the disk.
    """
    output = Output()

    async def add() -> None:
        sign = () if account is None else signing_of(account).signatures(account.sender)
        async with open_spool(where.spool, create=create, sign=sign) as queue:
            await _put(
                output, queue, written, files or (), _Job(key, _time(not_before), _future(expires), tag)
            )

    with output.errors_as_sentences():
        account = where.chosen()
        # A complete message names its own sender.
        written = message.by(account.sender) if account is not None and message and not files else message
        asyncio.run(add())


@queue.command("ls", epilog=EXPLAINED)
@grouped
def _list(
    where: SpoolOptions,
    state: Annotated[
        Shown | None,
        typer.Option(help="Only jobs in this state; held jobs are queued ones that wait for release."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the N oldest jobs; on a terminal, 1000 by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List jobs, the oldest first.

    In a pipe: id, state, attempts, created, due, octets, sender, recipients and reason, separated by tabs.
    """
    output = Output()

    async def look() -> None:
        async with open_spool(where.spool) as queue:
            await show_all(output, _in_state(queue, state), limit=limit, as_json=as_json)

    # A job of a later version is not shown, but logged.
    with output.errors_as_sentences(), log_on(output):
        asyncio.run(look())


@queue.command("show", epilog=EXPLAINED)
@grouped
def _show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of a job, as add and ls print it.")],
    where: SpoolOptions,
    message: Annotated[bool, typer.Option("--message", help="Show the message, too.")] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Print only the message, every octet unchanged (except on a terminal)."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a job and what became of each recipient."""
    output = Output()

    async def look() -> None:
        if message + raw + as_json > 1:
            raise InvalidArgument("only one of --message, --raw and --json")
        async with open_spool(where.spool) as queue:
            if not raw:
                show_one(output, await queue.get(id), as_json=as_json)
            if raw or message:
                _show_message(output, await queue.read(id), raw=raw)

    with output.errors_as_sentences():
        asyncio.run(look())


@queue.command("hold", epilog=EXPLAINED)
@grouped
def _hold(ids: Ids, where: SpoolOptions) -> None:
    """Keep queued jobs from being sent."""
    _change(where.spool, ids, "held", lambda queue, id: queue.hold(id))


@queue.command("release", epilog=EXPLAINED)
@grouped
def _release(ids: Ids, where: SpoolOptions) -> None:
    """Undo hold."""
    _change(where.spool, ids, "released", lambda queue, id: queue.release(id))


@queue.command("requeue", epilog=EXPLAINED)
@grouped
def _requeue(ids: Ids, where: SpoolOptions, not_before: NotBefore = None, expires: Expires = None) -> None:
    """Try jobs again, failed ones too, for the recipients that do not have the message."""

    async def requeue(queue: Spool, id: str) -> None:
        await queue.requeue(id, not_before=_time(not_before), expires=_future(expires))

    _change(where.spool, ids, "requeued", requeue)


@queue.command("rm", epilog=EXPLAINED)
@grouped
def _remove(ids: Ids, where: SpoolOptions) -> None:
    """Delete jobs in any state except sending."""
    _change(where.spool, ids, "removed", lambda queue, id: queue.remove(id))


@queue.command("stats", epilog=EXPLAINED)
@grouped
def _statistics(
    where: SpoolOptions,
    rates: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Count twice, this long apart, and show the changes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the jobs by state, and show which processes hold leases.

    With --rates: by how many jobs per second each number changes, and when the queue will be empty at this pace.
    """
    output = Output()

    async def look() -> None:
        async with open_spool(where.spool) as queue:
            before, started = None if rates is None else await queue.statistics(), time.monotonic()
            await asyncio.sleep(rates or 0.0)
            counts, seconds = await queue.statistics(), time.monotonic() - started
            found = Statistics(counts, tuple(await queue.holders()), before, seconds)
            show_statistics(output, found, as_json=as_json)

    with output.errors_as_sentences():
        asyncio.run(look())


@queue.command("init", epilog=EXPLAINED)
def _init(
    spool: Annotated[
        str,
        typer.Argument(
            metavar="PATH|URL", envvar="SMTP_ASYNC_SPOOL", help="As for --spool of the other commands."
        ),
    ],
) -> None:
    """Create a spool: the directory, or the tables in the database.

    Tables of an earlier version are brought to this one. Nothing is changed if the spool is there.
    """
    output = Output()

    async def create() -> None:
        if not is_url(spool):
            async with open_spool(spool, create=True):
                output.success("The spool is ready")
            return
        async with open_database(spool) as database:
            before, now = await database.create_schema()
        if before == now:
            output.success(f"The spool is ready: its tables have version {now} already")
        else:
            output.success(f"The spool is ready: its tables went from version {before} to {now}")

    with output.errors_as_sentences():
        asyncio.run(create())


@queue.command("copy", epilog=EXPLAINED)
def _copy(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The spool that loses the jobs: PATH or URL.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="The spool that gains the jobs: PATH or URL.")],
) -> None:
    """Move the queued jobs of one spool to another, with their ids, results and attempts.

    It may be stopped at any time, even by a kill, and started again: no job is lost, and none is in both spools so that
    it would be sent twice. Jobs that failed or were sent stay, and so do those that a processor is sending. In a pipe:
    a line for each job, moved and its id, separated by a tab.
    """
    output = Output()
    with output.errors_as_sentences():
        asyncio.run(copy_jobs(output, source, target))


@queue.command("web", epilog=EXPLAINED)
@grouped
def _web(
    spool: Annotated[
        str,
        typer.Argument(
            metavar="PATH|URL", envvar="SMTP_ASYNC_SPOOL", help="As for --spool of the other commands."
        ),
    ],
    page: WebOptions,
    port: Annotated[
        int, typer.Option("--web", min=0, max=65535, metavar="PORT", help="The port of the page.")
    ] = 8026,
    allow_changes: AllowChanges = False,
) -> None:
    """Show the queue on a page for a browser, until stopped; `process --web` shows what its processor does, too."""
    output = Output()
    with output.errors_as_sentences(), log_on(output):
        address = page.address(port)
        asyncio.run(console(output, open_spool(spool), name_of(spool), address, allow_changes=allow_changes))


# --- carrying out --------------------------------------------------------------------------------------------


def _time(text: str | None) -> float | None:
    return None if text is None else parse_time(text)


def _future(text: str | None) -> float | None:
    when = _time(text)
    if when is not None and when <= parse_time("0s"):
        raise InvalidArgument(f"--expires {printable(text or '')} is over already")
    return when


class _Job(NamedTuple):
    """The options of a job."""

    key: str | None
    not_before: float | None
    expires: float | None
    tag: str | None


async def _put(
    output: Output, queue: Spool, message: MessageOptions, files: list[Path] | tuple[()], job: _Job
) -> None:
    if job.key is not None and len(files) > 1:
        raise InvalidArgument("a key is for one job, and there are several messages")
    options = job._asdict()
    if not files and message:
        _show_id(output, await queue.put(message.message(), **options))
        return
    for path in files or [_stdin()]:
        id = await queue.put(
            message.raw(path),
            sender=message.sender,
            recipients=message.recipients or None,
            **options,
        )
        _show_id(output, id)


def _stdin() -> Path:
    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidArgument("there is no message: name a file, pipe one in, or use options as for send")
    return Path("-")


def _show_id(output: Output, id: str) -> None:
    if output.is_terminal:
        output.success(f"Queued as {id}")
    else:
        output.line(id)


async def _in_state(queue: Spool, wanted: Shown | None) -> AsyncIterator[Entry]:
    if wanted is Shown.HELD:
        async for entry in queue.list(State.QUEUED):
            if entry.held:
                yield entry
        return
    async for entry in queue.list(None if wanted is None else State(wanted.value)):
        yield entry


def _change(spool: str, ids: list[str], word: str, change: _Change) -> None:
    """Change each job; an error of one job does not keep the others from being changed."""
    output = Output()
    codes: Final[list[Exit]] = []

    async def go() -> None:
        async with open_spool(spool) as queue:
            for id in ids:
                try:
                    await change(queue, id)
                except SMTPError as error:
                    codes.append(exit_for_error(error))
                    output.failure(sentence(str(error)))
                    continue
                if output.is_terminal:
                    output.success(f"{word.capitalize()}: {id}")
                else:
                    output.line(f"{word}\t{id}")

    with output.errors_as_sentences():
        asyncio.run(go())
    raise typer.Exit(most_severe(codes))


def _show_message(output: Output, data: bytes, *, raw: bool) -> None:
    if raw and not output.is_terminal:
        out = sys.stdout.buffer
        out.write(data)
        out.flush()
        return
    if not raw:
        output.line()
    # A message may contain control sequences that a terminal would obey.
    for line in data.decode("utf-8", "backslashreplace").split("\r\n"):
        output.line("\t".join([printable(part, 10 * len(part) + 1) for part in line.split("\t")]))
