"""`smtp-async`: send and queue mail, check a server, and watch a demonstration, from a shell.

The other modules need typer and rich, the extra `[cli]`. This module imports neither at the top, so that it can name
the extra where it is missing.
"""

from __future__ import annotations

import io
import sys
import warnings

__all__ = ["main", "main_as_sendmail"]


def main() -> None:
    """Run the command line and exit with one of `exits.Exit`."""
    _prepare(5)
    from .app import app

    app(prog_name="smtp-async")


def main_as_sendmail() -> None:
    """Run `sendmail` in place of the program of this name, and exit with one of `sysexits.SysExit`."""
    _prepare(78)
    from .sendmail import run_sendmail

    sys.exit(run_sendmail(sys.argv[1:], sys.argv[0]))


def _prepare(missing: int) -> None:
    """Look for the extra, exit with `missing` without it, and set the streams up."""
    try:
        import rich  # noqa: F401 - only to find out whether it is installed
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f"The command line needs {error.name}, which is not installed: pip install 'smtp-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(missing)
    if not sys.warnoptions:
        # Warnings are for programmers, not for users of the command.
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names and replies may be in any script; a terminal that cannot show them gets escapes.
            stream.reconfigure(errors="backslashreplace")
