"""The options that describe a message, for `send` and `queue add`; and the message made of them."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import typer

from ..errors import FileError, InvalidArgument
from ..message import Message
from ..model.address import Address, parse_list
from ..model.envelope import Kind, Recipient
from .server import read_file

__all__ = ["MessageOptions"]

#: Standard input.
_STDIN = Path("-")

_Addresses = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="May be repeated, or a comma-separated list.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOptions:
    """The options that describe a message."""

    sender: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="The author, and where bounces go. With a complete message: the envelope sender.",
        ),
    ] = None
    to: _Addresses = None
    cc: _Addresses = None
    bcc: _Addresses = None
    subject: Annotated[str | None, typer.Option(metavar="TEXT", help="The subject, one line.")] = None
    text: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The text. Without any it is read from standard input."),
    ] = None
    text_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text, from a file in UTF-8; - is standard input.")
    ] = None
    html: Annotated[str | None, typer.Option(metavar="TEXT", help="The text in HTML.")] = None
    html_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The text in HTML, from a file.")] = (
        None
    )
    attach: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A file to attach. May be repeated.")
    ] = None

    def __bool__(self) -> bool:
        """Was any option given?"""
        return any(getattr(self, name) not in (None, []) for name in self.__slots__)

    def by(self, sender: str | None) -> Self:
        """Return the same options with `sender` for a `--from` that was not given."""
        return self if self.sender is not None or sender is None else replace(self, sender=sender)

    @property
    def recipients(self) -> list[Recipient]:
        """All recipients with their kinds; each option may hold a comma-separated list."""
        kinds = ((Kind.TO, self.to), (Kind.CC, self.cc), (Kind.BCC, self.bcc))
        return [
            Recipient(address, kind)
            for kind, texts in kinds
            for text in texts or ()
            for address in parse_list(text)
        ]

    def message(self) -> Message:
        """Return the message. Its texts are read now, its attachments while it is sent.

        Raises:
            SMTPError: an address is invalid, a file cannot be read, or two options contradict each other.
        """
        message = Message(
            sender=None if self.sender is None else Address.parse(self.sender),
            subject=self.subject,
            text=self._text(),
            html=_either(self.html, self.html_file, "--html"),
        )
        message.recipients += self.recipients
        for path in self.attach or ():
            message.attach(_readable(path, "the attachment"), filename=path.name)
        return message

    def _text(self) -> str | None:
        given = _either(self.text, self.text_file, "--text")
        if given is not None or self.html is not None or self.html_file is not None or self.attach:
            return given
        if sys.stdin is None or sys.stdin.isatty():
            raise InvalidArgument("there is no text: use --text, --text-file or --eml, or pipe it in")
        return _decoded(read_file(_STDIN, "the text from"), "standard input")

    def raw(self, path: Path) -> Path | bytes:
        """Return the file of a complete message, or its bytes if they come from a pipe.

        Raises:
            InvalidArgument: an option would change the message.
            FileError: the file cannot be read.
        """
        parts = ("subject", "text", "text_file", "html", "html_file")
        if self.attach or any(getattr(self, name) is not None for name in parts):
            raise InvalidArgument(
                "a complete message is sent as it is: no --subject, --text, --html or --attach"
            )
        return _readable(path, "the message")


def _readable(path: Path, what: str) -> Path | bytes:
    """Check, before the client connects, that a file can be read; a pipe is read now, because it gives its bytes once.

    Returns:
        The path of a file; the bytes of a pipe.

    Raises:
        FileError: the file cannot be read.
    """
    if path == _STDIN:
        return read_file(path, what)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return path.read_bytes()
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        raise FileError(f"cannot read {what} {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"cannot read {what} {path}: Is a directory")
    return path


def _either(text: str | None, file: Path | None, option: str) -> str | None:
    if text is not None and file is not None:
        raise InvalidArgument(f"either {option} or {option}-file, not both")
    if text is not None:
        # Python decodes argument bytes that are not UTF-8 as lone surrogates.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None if file is None else _decoded(read_file(file, "the text"), str(file))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not UTF-8 text: send it with --attach or as --eml") from None
