"""`smtp-async`: send and queue mail, check a server, and watch a demonstration, from a shell.

The other modules need typer and rich, the extra `[cli]`. This module imports neither at the top, so that it can name
the extra where it is missing.
"""

from __future__ import annotations

import io
import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with one of `exits.Exit`."""
    try:
        import rich  # noqa: F401 - only to find out whether it is installed
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f"The command line needs {error.name}, which is not installed: pip install 'smtp-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(5)
    if not sys.warnoptions:
        # Warnings are for programmers, not for users of the command.
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names and replies may be in any script; a terminal that cannot show them gets escapes.
            stream.reconfigure(errors="backslashreplace")
    from .app import app

    app(prog_name="smtp-async")
