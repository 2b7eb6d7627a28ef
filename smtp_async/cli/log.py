"""What the library logs, on standard error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from .output import Output, sentence

__all__ = ["log_on"]


class _LogHandler(logging.Handler):
    """Shows each warning or error as one sentence, without a traceback."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        self._output.remark(sentence(text))


@contextlib.contextmanager
def log_on(output: Output) -> Iterator[None]:
    """Show what the library logs inside the context."""
    handler, log = _LogHandler(output), logging.getLogger("smtp_async")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
