"""Waits for the end of a connection's task."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Ending"]


class Ending:
    """The end of one task, and the callers that wait for it.

    The task sets `task` in its first step and calls `release` in its last one. The callbacks of a task run an
    iteration of the event loop later, so they only serve for a task that may be cancelled before its first step.

    Attributes:
        task: the task, None before its first step.
    """

    __slots__ = ("_waiters", "task")

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []
        self.task: asyncio.Task[Any] | None = None

    async def wait(self, task: asyncio.Task[Any]) -> None:
        """Wait until `task` has ended; cancelling this does not cancel it."""
        if task.done():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self.task is None:
            task.add_done_callback(self.release)
        await waiter

    def release(self, _: object = None) -> None:
        """Wake all callers that wait."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
