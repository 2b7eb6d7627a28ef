"""The commands and their options; what they do is in the modules beside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ..about import build_info
from ..client.options import ClientOptions
from ..model.timeouts import Timeouts
from ..tls.context import Security
from .check import check
from .demo import demo
from .exits import EXPLAINED
from .letter import Letter
from .options import (
    SETTINGS,
    Attach,
    CaFile,
    Html,
    HtmlFile,
    PasswordFile,
    People,
    SecurityWhen,
    Sender,
    Server,
    Subject,
    Text,
    TextFile,
    User,
    Verbose,
)
from .process import process
from .queue import queue
from .screen import Screen
from .send import send
from .server import client_for

__all__ = ["app"]

app = typer.Typer(
    help="Send mail, queue it, check a mail server, or watch a demonstration.",
    epilog=EXPLAINED,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # Local variables of a traceback could show a password.
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)
app.add_typer(queue, name="queue")
app.command("process", epilog=EXPLAINED)(process)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Show the versions of the library and what it runs on.")
    ] = False,
) -> None:
    if version:
        screen = Screen()
        for name, text in build_info().items():
            screen.line(f"{name} {text}")
        raise typer.Exit


@app.command("send", epilog=EXPLAINED)
def _send(
    server: Server,
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
    eml: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A complete message to send as it is; - is standard input. Without --from and --to the envelope is "
            "read from its header.",
        ),
    ] = None,
    security: SecurityWhen = Security.AUTO,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="Send to those whom the server accepts, even if it refuses others. Without it a refused To or Cc "
            "refuses the message for all.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Seconds for everything together.")
    ] = 120.0,
    verbose: Verbose = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing unless something is wrong.")
    ] = False,
) -> None:
    """Send one message, and show what became of each recipient.

    Example: echo Hi | smtp-async send --server mail.example.com --user ann --from ann@example.com --to bob@example.org
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
    # A port of the wrong kind is silent: its error, which says so, comes before the end of the whole.
    silence = min(30.0, timeout * 0.5)
    with screen.sentences():
        client = client_for(
            server,
            security=security,
            user=user,
            password_file=password_file,
            ca_file=ca_file,
            options=ClientOptions(timeouts=Timeouts(greeting=silence)),
        )
        code = asyncio.run(
            send(screen, client, letter, eml, each=each, deadline=timeout, verbose=verbose, quiet=quiet)
        )
    raise typer.Exit(code)


@app.command("check", epilog=EXPLAINED)
def _check(
    server: Annotated[str, typer.Argument(metavar="HOST", help="HOST, HOST:PORT or a URL, as for send.")],
    security: SecurityWhen = Security.AUTO,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Seconds for each step.")] = 30.0,
    verbose: Verbose = False,
) -> None:
    """Connect to a server and say what it is, what it offers, and what is wrong with it. No mail is sent."""
    limits = Timeouts(
        connect=timeout, tls=timeout, greeting=timeout, hello=timeout, auth=timeout, command=timeout
    )
    screen = Screen()
    with screen.sentences():
        client = client_for(
            server,
            security=security,
            user=user,
            password_file=password_file,
            ca_file=ca_file,
            options=ClientOptions(timeouts=limits),
        )
        code = asyncio.run(check(screen, client, verbose=verbose))
    raise typer.Exit(code)


@app.command("demo", epilog=EXPLAINED)
def _demo(
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many messages.")] = 500,
    connections: Annotated[int, typer.Option(min=1, max=100, help="How many connections at most.")] = 10,
) -> None:
    """Send a few hundred real messages to a server inside this process, and show what it saw."""
    screen = Screen()
    with screen.sentences():
        code = asyncio.run(demo(screen, count=count, connections=connections))
    raise typer.Exit(code)
