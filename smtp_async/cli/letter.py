"""From what was typed to a message: that of `send`, and of `queue add`."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError, InvalidArgument
from ..message import Message
from ..model.address import Address, parse_list
from ..model.envelope import Kind, Recipient
from .server import read_file

__all__ = ["Letter"]

#: Where "-" means standard input.
_PIPE = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What was typed about the message."""

    sender: str | None = None
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str | None = None
    text: str | None = None
    text_file: Path | None = None
    html: str | None = None
    html_file: Path | None = None
    attach: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        """Was anything typed?"""
        return any(getattr(self, name) not in (None, ()) for name in self.__slots__)

    @property
    def recipients(self) -> list[Recipient]:
        """Everybody, by kind; each option may hold a comma list."""
        kinds = ((Kind.TO, self.to), (Kind.CC, self.cc), (Kind.BCC, self.bcc))
        return [
            Recipient(address, kind)
            for kind, texts in kinds
            for text in texts
            for address in parse_list(text)
        ]

    def message(self) -> Message:
        """Return the message; reads its texts, not its attachments.

        Raises:
            SMTPError: an address, a file or a combination of options that cannot be.
        """
        message = Message(
            sender=None if self.sender is None else Address.parse(self.sender),
            subject=self.subject,
            text=self._text(),
            html=_either(self.html, self.html_file, "--html"),
        )
        message.recipients += self.recipients
        for path in self.attach:
            message.attach(_readable(path, "the attachment"), filename=path.name)
        return message

    def _text(self) -> str | None:
        given = _either(self.text, self.text_file, "--text")
        if given is not None or self.html is not None or self.html_file is not None or self.attach:
            return given
        if sys.stdin is None or sys.stdin.isatty():
            raise InvalidArgument("there is no text: use --text, --text-file or --eml, or pipe it in")
        return _decoded(read_file(_PIPE, "the text from"), "standard input")

    def raw(self, path: Path) -> Path | bytes:
        """Return the file that holds a complete message; the bytes, if they come from a pipe.

        Raises:
            InvalidArgument: options that would change it.
            FileError: it cannot be read.
        """
        parts = ("subject", "text", "text_file", "html", "html_file")
        if self.attach or any(getattr(self, name) is not None for name in parts):
            raise InvalidArgument(
                "a complete message is sent as it is: no --subject, --text, --html or --attach"
            )
        return _readable(path, "the message")


def _readable(path: Path, what: str) -> Path | bytes:
    """Return a file that will be read while it is sent, before anybody connects for it; a pipe is read now.

    Raises:
        FileError: it cannot be read.
    """
    if path == _PIPE:
        return read_file(path, what)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # A pipe gives its bytes once.
            return path.read_bytes()
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        raise FileError(f"cannot read {what} {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"cannot read {what} {path}: Is a directory")
    return path


def _either(text: str | None, file: Path | None, option: str) -> str | None:
    if text is not None and file is not None:
        raise InvalidArgument(f"either {option} or {option}-file")
    if text is not None:
        # A shell leaves the bytes of an argument that are no UTF-8 as halves of surrogate pairs.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None if file is None else _decoded(read_file(file, "the text"), str(file))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not UTF-8 text: send it with --attach or as --eml") from None
