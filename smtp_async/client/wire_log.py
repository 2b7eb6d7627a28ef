"""The wire log: every line of the dialogue as a record of the module logging, secrets masked, bodies as their size.

The log is made from the events that hooks receive, so that it shows what they show and costs nothing while it is off.
What a record goes to is a matter of logging: a file, a stream, or a logger of the application with its handlers.
"""

from __future__ import annotations

import io
import logging
import os
from typing import Final, TextIO

from ..errors import FileError, InvalidArgument
from ..events import Direction, Error, Event, PITrail
from ..hooks import Hooks
from ..model.reply import printable

__all__ = ["WireLog", "WireLogTarget"]

#: A file by its name, an open text stream, or a logger.
WireLogTarget = str | os.PathLike[str] | TextIO | logging.Logger

#: What a line begins with, and its level.
_SIGNS: Final = {
    Direction.CLIENT: (">", logging.DEBUG),
    Direction.SERVER: ("<", logging.DEBUG),
    Direction.INFO: ("=", logging.INFO),
}
#: Characters of a line; a command may have 2,048 octets.
_LONGEST: Final = 4096
_FORMAT: Final = "%(asctime)s %(session)d %(message)s"


class WireLog:
    """Writes the dialogue of a client's connections.

    Args:
        target: a path is appended to, and opened anew after another program has renamed the file; a stream is written
            to and left open; a logger gets records with the attributes `session`, `job` and `command`.

    Raises:
        FileError: the file cannot be opened.
        InvalidArgument: the target is none of these.
    """

    def __init__(self, target: WireLogTarget) -> None:
        self._handler: logging.Handler | None = None
        if isinstance(target, logging.Logger):
            self._logger = target
            return
        self._handler = handler = _handler_for(target)
        handler.setFormatter(logging.Formatter(_FORMAT))
        # Of its own, so that neither the levels nor the handlers of the application decide what it shows.
        self._logger = logging.Logger("smtp_async.wire", logging.DEBUG)
        self._logger.addHandler(handler)

    def attach(self, hooks: Hooks) -> None:
        """Begin to write what `hooks` are told."""
        hooks.add(PITrail, self._line)
        hooks.add(Error, self._error)

    def close(self, hooks: Hooks) -> None:
        """Write no more, and close the file."""
        hooks.remove(PITrail, self._line)
        hooks.remove(Error, self._error)
        if self._handler is not None:
            self._handler.close()

    def _line(self, event: PITrail) -> None:
        sign, level = _SIGNS[event.direction]
        if event.size is not None:
            self._write(level, event, sign, f"[{event.size} octets]", event.command)
        self._write(level, event, sign, event.message, event.command)

    def _error(self, event: Error) -> None:
        text = event.description
        if event.recipient is not None:
            text = f"{event.recipient.address.addr_spec}: {text}"
        self._write(logging.WARNING, event, "!", text, None)

    def _write(self, level: int, event: Event, sign: str, text: str, command: str | None) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"session": event.session, "job": event.job, "command": command}
            self._logger.log(level, "%s %s", sign, printable(text, _LONGEST), extra=extra)


def _handler_for(target: str | os.PathLike[str] | TextIO) -> logging.Handler:
    if isinstance(target, str | os.PathLike):
        try:
            # Opened now, so that a wrong path shows when the client is made; and closed, because it may never be used.
            open(target, "a", encoding="utf-8").close()
        except (OSError, ValueError) as error:
            raise FileError(f"the wire log cannot be opened: {error}") from error
        from logging.handlers import WatchedFileHandler  # loads pickle and more, which few programs need

        return WatchedFileHandler(target, encoding="utf-8", delay=True)
    binary = isinstance(target, io.RawIOBase | io.BufferedIOBase)
    if binary or not callable(getattr(target, "write", None)):
        raise InvalidArgument(f"wire_log is a path, a text stream or a logger, not {type(target).__name__}")
    return logging.StreamHandler(target)
