"""Prints the results of commands: colours and tables on a terminal, plain lines in a pipe, never a traceback.

Replies of servers are shown as text, not as markup, and without control characters.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import SMTPError
from ..events import Direction, PITrail
from ..model.reply import printable
from .exits import Exit, exit_for_error

__all__ = ["Output", "in_shell_words", "sentence"]

_SCHEMES = {"HTTP_CONNECT": "http", "HTTPS_CONNECT": "https", "SOCKS5": "socks5"}
#: Python names in messages of the library, and the options that stand for them in a shell.
_SHELL_WORDS = (
    (
        re.compile(r"\bsecurity=(?:Security\.)?([A-Z]+)"),
        lambda found: f"--security {found[1].lower()}",
    ),
    (re.compile(r"\bTrustOptions\(ca_file=…\)"), lambda found: "--ca-file FILE"),
    (re.compile(r"\bTrustOptions\(pins=…\)"), lambda found: "--pin SHA256"),
    (
        re.compile(r"\btype=ProxyType\.(\w+)"),
        lambda found: f"--proxy {_SCHEMES.get(found[1], found[1].lower())}://…",
    ),
    (
        re.compile(r"\bset username and password in ProxyOptions"),
        lambda found: "--proxy takes a URL with a user",
    ),
    (re.compile(r"(: check (?:both|username and password)) in ProxyOptions"), lambda found: found[1]),
    (re.compile(r", or with ProxyOptions\(context=…\)"), lambda found: ""),
    (re.compile(r"; [^;:]*\bremote_dns=[^;:]*"), lambda found: ""),
    (re.compile(r", or set TLSOptions\.server_hostname"), lambda found: ""),
    (re.compile(r"\bminimum_version\b"), lambda found: "--tls-min"),
    (re.compile(r"\bmaximum_version\b"), lambda found: "--tls-max"),
    (re.compile(r"\b(give (?:\S+ )+?)as --(ca-file|pin)"), lambda found: f"{found[1]}with --{found[2]}"),
)


def in_shell_words(text: str) -> str:
    """Return a message of the library with command line options in place of Python names."""
    for pattern, words in _SHELL_WORDS:
        text = pattern.sub(words, text)
    return text


def sentence(text: str) -> str:
    """Return `text` as one printable sentence, with a capital letter and a full stop."""
    text = printable(in_shell_words(text)).strip()
    if not text.endswith((".", "!", "?", "…")):
        text += "."
    # Host names, paths, and words with capitals inside, keep their first letter.
    first = text.split(" ", 1)[0].rstrip(":,")
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


class Output:
    """Standard output and standard error."""

    def __init__(self) -> None:
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Is standard output a terminal?"""
        return self.out.is_terminal

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line, however long."""
        _line(self.out, text, style)

    def success(self, text: str) -> None:
        """Print a success."""
        self._marked(self.out, "✓", "OK", text, "green")

    def problem(self, text: str) -> None:
        """Print a problem that is part of the result."""
        self._marked(self.out, "✗", "WRONG", text, "red")

    def failure(self, text: str) -> None:
        """Print on standard error why the command ends."""
        if self.err.is_terminal:
            self._marked(self.err, "✗", "smtp-async:", text, "red")
        else:
            _line(self.err, f"smtp-async: {text}")

    def remark(self, text: str) -> None:
        """Print a remark on standard error."""
        _line(self.err, text, "dim")

    def _marked(self, console: Console, mark: str, word: str, text: str, style: str) -> None:
        if not console.is_terminal or not (console.encoding or "").lower().startswith("utf"):
            _line(console, f"{word} {text}")
            return
        row = Table.grid(padding=(0, 1))
        row.add_row(Text(mark, style=f"bold {style}"), Text(text))
        console.print(row)

    @contextlib.contextmanager
    def errors_as_sentences(self) -> Iterator[None]:
        """Turn every exception inside into a sentence and an exit code."""
        try:
            yield
        except SMTPError as error:
            self.failure(sentence(str(error)))
            raise typer.Exit(exit_for_error(error)) from None
        except KeyboardInterrupt:
            self.failure("Interrupted.")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            if sys.flags.dev_mode:
                raise
            fault = f"{type(error).__name__}: {error}"
            self.failure(sentence(f"this is a bug in smtp-async (python -X dev shows where): {fault}"))
            raise typer.Exit(Exit.SETUP) from None

    def trail(self, event: PITrail) -> None:
        """Show one line of the dialogue, for `--verbose`; the library has masked the secrets."""
        mark = {Direction.CLIENT: ">", Direction.SERVER: "<", Direction.INFO: "="}[event.direction]
        self.remark(f"{mark} {printable(event.message)}")


def _line(console: Console, text: str, style: str = "") -> None:
    if console.is_terminal:
        console.print(Text(text, style=style), soft_wrap=True)
    else:
        # rich would expand the tabs that programs rely on.
        print(text, file=console.file)
