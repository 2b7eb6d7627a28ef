"""Options that several commands share, so that each is declared, and explained, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from ..tls.context import Security

__all__ = [
    "PASSWORD_VARIABLE",
    "SETTINGS",
    "Access",
    "Expires",
    "Ids",
    "Json",
    "NotBefore",
    "Server",
    "SpoolPath",
    "Verbose",
]

#: The environment variable that may hold the password.
PASSWORD_VARIABLE: Final = "SMTP_ASYNC_PASSWORD"
#: Settings of every command.
SETTINGS: Final = {"help_option_names": ["-h", "--help"]}

# --- the server ----------------------------------------------------------------------------------------------

Server = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="HOST, HOST:PORT or a URL: smtp://, smtps://, smtp+plain://, lmtp://, lmtp+unix:///path.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the dialogue, with secrets masked.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to get access to the server: TLS and login."""

    security: Annotated[
        Security,
        typer.Option(
            metavar="WHEN",
            help="When TLS starts: implicit (from the first byte), starttls (required), opportunistic (where offered, "
            "unverified), plaintext, or auto: by port, and required for a login.",
        ),
    ] = Security.AUTO
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The user name for the login.")
    ] = None
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with the password in its first line. Without it, the password is read from "
            f"{PASSWORD_VARIABLE}, or asked for.",
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A PEM file with the certificates to trust instead of the system's."
        ),
    ] = None


# --- the queue -----------------------------------------------------------------------------------------------

SpoolPath = Annotated[
    Path,
    typer.Option(
        "--spool", metavar="PATH", envvar="SMTP_ASYNC_SPOOL", help="The directory where the mail is kept."
    ),
]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of jobs, as add and ls print them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
NotBefore = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="The earliest time to send it: 2h or 3d from now, or 2030-01-31T08:00+01:00."
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="The time after which it is not tried any more, in the same forms."),
]
