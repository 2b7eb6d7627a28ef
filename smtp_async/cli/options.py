"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from ..tls.context import Security
from .server import PASSWORD_VARIABLE

__all__ = [
    "SETTINGS",
    "Attach",
    "CaFile",
    "Expires",
    "Html",
    "HtmlFile",
    "Ids",
    "Json",
    "NotBefore",
    "PasswordFile",
    "People",
    "SecurityWhen",
    "Sender",
    "Server",
    "SpoolPath",
    "Subject",
    "Text",
    "TextFile",
    "User",
    "Verbose",
]

#: For every command.
SETTINGS: Final = {"help_option_names": ["-h", "--help"]}

# --- the server ----------------------------------------------------------------------------------------------

Server = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="HOST, HOST:PORT or a URL: smtp://, smtps://, smtp+plain://, lmtp://, lmtp+unix:///path.",
    ),
]
User = Annotated[
    str | None,
    typer.Option("--user", metavar="NAME", help="Log in as this user."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"File with the password in its first line. Otherwise it is taken from {PASSWORD_VARIABLE}, or asked for.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PEM file with the certificates to trust in place of the system's."),
]
SecurityWhen = Annotated[
    Security,
    typer.Option(
        metavar="WHEN",
        help="When TLS starts: implicit (from the first byte), starttls (required), opportunistic (where offered, "
        "unverified), plaintext, or auto: by port, and required for a login.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the dialogue, secrets masked.")]

# --- the message ---------------------------------------------------------------------------------------------

Sender = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="ADDRESS",
        help="The author, and where bounces go. With a complete message: the envelope sender.",
    ),
]
People = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="May be repeated, or a comma list.")
]
Subject = Annotated[str | None, typer.Option(metavar="TEXT", help="One line.")]
Text = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The text. Without any it is read from standard input.")
]
TextFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The text, from a file in UTF-8; - is standard input.")
]
Html = Annotated[str | None, typer.Option(metavar="TEXT", help="The text in HTML.")]
HtmlFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The same, from a file.")]
Attach = Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A file to attach. May be repeated.")]

# --- the queue -----------------------------------------------------------------------------------------------

SpoolPath = Annotated[
    Path,
    typer.Option(
        "--spool", metavar="PATH", envvar="SMTP_ASYNC_SPOOL", help="The directory where the mail is kept."
    ),
]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs, as add and ls call them.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, one object in each line.")]
NotBefore = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="The earliest time to send it: 2h or 3d from now, or 2030-01-31T08:00+01:00."
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="After this time it is not tried any more. Written likewise."),
]
