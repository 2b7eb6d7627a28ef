"""What the library logs, on standard error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from .output import Screen, sentence

__all__ = ["log_on"]


class _LogHandler(logging.Handler):
    """Shows each warning or error as one sentence, without a traceback."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        self._screen.remark(sentence(text))


@contextlib.contextmanager
def log_on(screen: Screen) -> Iterator[None]:
    """Show what the library logs inside the context."""
    handler, log = _LogHandler(screen), logging.getLogger("smtp_async")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
