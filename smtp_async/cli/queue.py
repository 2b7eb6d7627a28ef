"""`smtp-async queue`: put mail into a spool directory, and look after what is there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer

from ..errors import InvalidArgument, SMTPError
from ..model.reply import printable
from ..spool.directory.spool import DirectorySpool
from ..spool.entry import Entry, State
from .entries import show_all, show_one, show_statistics
from .exits import EXPLAINED, Exit, exit_for_error, gravest
from .letter import Letter
from .options import (
    SETTINGS,
    Attach,
    Expires,
    Html,
    HtmlFile,
    Ids,
    Json,
    NotBefore,
    People,
    Sender,
    SpoolPath,
    Subject,
    Text,
    TextFile,
)
from .process import log_on
from .screen import Screen, sentence
from .when import moment

__all__ = ["queue"]

queue = typer.Typer(
    help="Put mail into a directory, from which `smtp-async process` sends it, and look after what is there.",
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


_Change = Callable[[DirectorySpool, str], Awaitable[None]]


# --- commands ------------------------------------------------------------------------------------------------


@queue.command("add", epilog=EXPLAINED)
def _add(
    spool: SpoolPath,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Complete messages, each a job of its own; - is standard input. Without --from and --to the envelope "
            "is read from the header.",
        ),
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make the directory if it is not there.")] = False,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A name for the job: added twice, it is the same job, also for a week after it is gone.",
        ),
    ] = None,
    not_before: NotBefore = None,
    expires: Expires = None,
    sender: Sender = None,
    to: People = None,
    cc: People = None,
    bcc: People = None,
    subject: Subject = None,
    text: Text = None,
    text_file: TextFile = None,
    html: Html = None,
    html_file: HtmlFile = None,
    attach: Attach = None,
) -> None:
    """Put a message into the queue, and print the id of its job.

    The message is made of options as for send, or it is a complete one: in a file, or, without any option about the
    message, on standard input. When this has ended with 0 the message is safe on the disk.
    """
    letter = Letter(
        sender=sender,
        to=tuple(to or ()),
        cc=tuple(cc or ()),
        bcc=tuple(bcc or ()),
        subject=subject,
        text=text,
        text_file=text_file,
        html=html,
        html_file=html_file,
        attach=tuple(attach or ()),
    )
    screen = Screen()

    async def add() -> None:
        async with _opened(spool, create=create) as queue:
            await _put(screen, queue, letter, files or (), key, not_before, expires)

    with screen.sentences():
        asyncio.run(add())


@queue.command("ls", epilog=EXPLAINED)
def _list(
    spool: SpoolPath,
    state: Annotated[
        Shown | None, typer.Option(help="Only these; held jobs are queued ones that wait for release.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the N oldest; on a terminal, 1000 if it is not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List jobs, the oldest first.

    In a pipe: id, state, tries, created, due, octets, sender, recipients and reason, separated by tabs.
    """
    screen = Screen()

    async def look() -> None:
        async with _opened(spool) as queue:
            await show_all(screen, _chosen(queue, state), limit=limit, as_json=as_json)

    # A job of a later version is logged, and not shown.
    with screen.sentences(), log_on(screen):
        asyncio.run(look())


@queue.command("show", epilog=EXPLAINED)
def _show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The job, as add and ls call it.")],
    spool: SpoolPath,
    message: Annotated[bool, typer.Option("--message", help="The message, too.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Only the message, every octet as it is (not on a terminal).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a job and what became of each recipient."""
    screen = Screen()

    async def look() -> None:
        if message + raw + as_json > 1:
            raise InvalidArgument("only one of --message, --raw and --json")
        async with _opened(spool) as queue:
            if not raw:
                show_one(screen, await queue.get(id), as_json=as_json)
            if raw or message:
                _show_message(screen, await queue.read(id), raw=raw)

    with screen.sentences():
        asyncio.run(look())


@queue.command("hold", epilog=EXPLAINED)
def _hold(ids: Ids, spool: SpoolPath) -> None:
    """Keep queued jobs from being sent."""
    _change(spool, ids, "held", DirectorySpool.hold)


@queue.command("release", epilog=EXPLAINED)
def _release(ids: Ids, spool: SpoolPath) -> None:
    """Undo hold."""
    _change(spool, ids, "released", DirectorySpool.release)


@queue.command("requeue", epilog=EXPLAINED)
def _requeue(ids: Ids, spool: SpoolPath, not_before: NotBefore = None, expires: Expires = None) -> None:
    """Try jobs again, failed ones too, for those who have not got the message."""

    async def requeue(queue: DirectorySpool, id: str) -> None:
        await queue.requeue(id, not_before=_time(not_before), expires=_future(expires))

    _change(spool, ids, "requeued", requeue)


@queue.command("rm", epilog=EXPLAINED)
def _remove(ids: Ids, spool: SpoolPath) -> None:
    """Delete jobs, in whatever state; not those that are being sent."""
    _change(spool, ids, "removed", DirectorySpool.remove)


@queue.command("stats", epilog=EXPLAINED)
def _statistics(spool: SpoolPath, as_json: Json = False) -> None:
    """Count the jobs by state."""
    screen = Screen()

    async def look() -> None:
        async with _opened(spool) as queue:
            show_statistics(screen, await queue.statistics(), as_json=as_json)

    with screen.sentences():
        asyncio.run(look())


# --- what they do --------------------------------------------------------------------------------------------


def _opened(path: Path, *, create: bool = False) -> DirectorySpool:
    return DirectorySpool(path, create=create)


def _time(text: str | None) -> float | None:
    return None if text is None else moment(text)


def _future(text: str | None) -> float | None:
    when = _time(text)
    if when is not None and when <= moment("0s"):
        raise InvalidArgument(f"--expires {printable(text or '')} is over already")
    return when


async def _put(
    screen: Screen,
    queue: DirectorySpool,
    letter: Letter,
    files: list[Path] | tuple[()],
    key: str | None,
    not_before: str | None,
    expires: str | None,
) -> None:
    if key is not None and len(files) > 1:
        raise InvalidArgument("a key names one job, and there are several messages")
    due, end = _time(not_before), _future(expires)
    if not files and letter:
        _queued(screen, await queue.put(letter.message(), key=key, not_before=due, expires=end))
        return
    for path in files or [_piped()]:
        id = await queue.put(
            letter.raw(path),
            sender=letter.sender,
            recipients=letter.recipients or None,
            key=key,
            not_before=due,
            expires=end,
        )
        _queued(screen, id)


def _piped() -> Path:
    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidArgument("there is no message: name a file, pipe one in, or use options as for send")
    return Path("-")


def _queued(screen: Screen, id: str) -> None:
    if screen.rich:
        screen.good(f"Queued as {id}")
    else:
        screen.line(id)


async def _chosen(queue: DirectorySpool, wanted: Shown | None) -> AsyncIterator[Entry]:
    if wanted is Shown.HELD:
        async for entry in queue.list(State.QUEUED):
            if entry.held:
                yield entry
        return
    async for entry in queue.list(None if wanted is None else State(wanted.value)):
        yield entry


def _change(spool: Path, ids: list[str], word: str, change: _Change) -> None:
    """Do something to each job; one that cannot be changed keeps nobody from the others."""
    screen = Screen()
    codes: Final[list[Exit]] = []

    async def go() -> None:
        async with _opened(spool) as queue:
            for id in ids:
                try:
                    await change(queue, id)
                except SMTPError as error:
                    codes.append(exit_for_error(error))
                    screen.fail(sentence(str(error)))
                    continue
                if screen.rich:
                    screen.good(f"{word.capitalize()}: {id}")
                else:
                    screen.line(f"{word}\t{id}")

    with screen.sentences():
        asyncio.run(go())
    raise typer.Exit(gravest(codes))


def _show_message(screen: Screen, data: bytes, *, raw: bool) -> None:
    if raw and not screen.rich:
        out = sys.stdout.buffer
        out.write(data)
        out.flush()
        return
    if not raw:
        screen.line()
    # A message could hold what a terminal would obey.
    for line in data.decode("utf-8", "backslashreplace").split("\r\n"):
        screen.line("\t".join([printable(part, 10 * len(part) + 1) for part in line.split("\t")]))
