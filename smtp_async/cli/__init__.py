"""`smtp-async`: send a message, check a server, see a demonstration, from a shell.

What is drawn on the screen needs typer and rich, the extra `[cli]`; this file does not, so that it can say so.
"""

from __future__ import annotations

import io
import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with one of `exits.Exit`."""
    try:
        import rich  # noqa: F401 - only to know whether it is there
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f"The command line needs {error.name}, which is not installed: pip install 'smtp-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(5)
    if not sys.warnoptions:
        # They are for programmers.
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of people and the words of servers are in any script; a narrow terminal gets escapes.
            stream.reconfigure(errors="backslashreplace")
    from .app import app

    app(prog_name="smtp-async")
