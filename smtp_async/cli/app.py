"""The commands and their options; what they do is in the modules beside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ..about import build_info
from ..endpoint import ClientOptions
from ..timeouts import Timeouts
from ..tls.context import Security
from .check import check
from .demo import demo
from .exits import EXPLAINED
from .screen import Screen
from .send import Letter, send
from .server import PASSWORD_VARIABLE, client_for

__all__ = ["app"]

app = typer.Typer(
    help="Send mail, check a mail server, or watch a demonstration.",
    epilog=EXPLAINED,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # Local variables of a traceback could show a password.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_User = Annotated[
    str | None,
    typer.Option("--user", metavar="NAME", help="Log in as this user."),
]
_PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"File with the password in its first line. Otherwise it is taken from {PASSWORD_VARIABLE}, or asked for.",
    ),
]
_CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PEM file with the certificates to trust in place of the system's."),
]
_Security = Annotated[
    Security,
    typer.Option(
        metavar="WHEN",
        help="When TLS starts: implicit (from the first byte), starttls (required), opportunistic (where offered, "
        "unverified), plaintext, or auto: by port, and required for a login.",
    ),
]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the dialogue, secrets masked.")]
_Texts = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="May be repeated, or a comma list.")
]


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
    server: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="HOST, HOST:PORT or a URL: smtp://, smtps://, smtp+plain://, lmtp://, lmtp+unix:///path.",
        ),
    ],
    sender: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="The author, and where bounces go. With --eml: the envelope sender.",
        ),
    ] = None,
    to: _Texts = None,
    cc: _Texts = None,
    bcc: _Texts = None,
    subject: Annotated[str | None, typer.Option(metavar="TEXT", help="One line.")] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The text. Without any it is read from standard input.")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text, from a file in UTF-8; - is standard input.")
    ] = None,
    html: Annotated[str | None, typer.Option(metavar="TEXT", help="The text in HTML.")] = None,
    html_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The same, from a file.")] = None,
    attach: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A file to attach. May be repeated.")
    ] = None,
    eml: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A complete message to send as it is; - is standard input. Without --from and --to the envelope is "
            "read from its header.",
        ),
    ] = None,
    security: _Security = Security.AUTO,
    user: _User = None,
    password_file: _PasswordFile = None,
    ca_file: _CaFile = None,
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
    verbose: _Verbose = False,
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
        eml=eml,
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
        code = asyncio.run(send(screen, client, letter, each=each, deadline=timeout, verbose=verbose))
    raise typer.Exit(code)


@app.command("check", epilog=EXPLAINED)
def _check(
    server: Annotated[str, typer.Argument(metavar="HOST", help="HOST, HOST:PORT or a URL, as for send.")],
    security: _Security = Security.AUTO,
    user: _User = None,
    password_file: _PasswordFile = None,
    ca_file: _CaFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Seconds for each step.")] = 30.0,
    verbose: _Verbose = False,
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
