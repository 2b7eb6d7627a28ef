"""A progress bar for large messages."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .output import Output

__all__ = ["LARGE", "TransferBar"]

#: The least bytes of a message that gets a bar; smaller ones are sent too fast.
LARGE: Final = 1 << 20


class TransferBar:
    """The progress of one message: a context manager, and the callback for `SendOptions.progress`.

    The bar appears once the message turns out to be large.

    Args:
        output: a terminal.
    """

    def __init__(self, output: Output) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=output.out,
            transient=True,
        )
        self._task: TaskID | None = None

    def __call__(self, sent: int, total: int | None) -> None:
        if self._task is None:
            if (sent if total is None else total) < LARGE:
                return
            self._bar.start()
            self._task = self._bar.add_task("Sending", total=total)
        # A message that is sent again over a second connection starts at 0.
        self._bar.update(self._task, completed=sent, total=total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
