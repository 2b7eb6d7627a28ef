"""What an event loop and a process's memory went through: for `attachment.py`. Standard library only."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Any, Self

_TICK = 0.001


class Watch:
    """An async context: a task that wants to run every millisecond, and the kernel's own mark of the most memory."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._before = 0
        self._due = 0.0

    async def __aenter__(self) -> Self:
        _forget_the_most()
        self._before = _memory("VmRSS")
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        # The one under way counts, too: it may be the only one.
        self._note()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def told(self) -> dict[str, Any]:
        """Return what happened.

        `growth` is the most memory less what there was before, in bytes; `stall` in seconds what 99.9 % of all stalls
        did not pass, `longest` the longest one, `ticks` how many were measured.
        """
        late = sorted(self._late)
        at = math.ceil(len(late) * 0.999) - 1
        growth = _memory("VmHWM") - self._before
        return {"growth": growth, "stall": late[at], "longest": late[-1], "ticks": len(late)}

    async def _tick(self) -> None:
        while True:
            self._due = time.perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            self._note()

    def _note(self) -> None:
        self._late.append(max(time.perf_counter() - self._due, 0.0))


def _forget_the_most() -> None:
    """Let the highest mark of memory start anew: proc(5), clear_refs."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _memory(name: str) -> int:
    with open("/proc/self/status") as file:
        (line,) = [one for one in file if one.startswith(name + ":")]
    return int(line.split()[1]) * 1024
