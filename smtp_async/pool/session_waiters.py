"""Callers of `SMTPClient.session()` that wait until the bound allows one more connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["SessionWaiters"]

S = TypeVar("S")


class SessionWaiters(Generic[S]):
    """FIFO of callers waiting for a private session.

    A session is handed to the first caller directly, so that no other call can take the place that it fills.

    Attributes:
        callers: those that wait, in order.
    """

    __slots__ = ("_loop", "callers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.callers: deque[asyncio.Future[S]] = deque()

    def __len__(self) -> int:
        return len(self.callers)

    async def wait(self, give_back: Callable[[S], None], queued: Callable[[], object]) -> S:
        """Wait for a session.

        Args:
            give_back: called with the session of a caller that was cancelled when it had been given one already.
            queued: called when the caller has joined the queue; may call `serve`.
        """
        caller: asyncio.Future[S] = self._loop.create_future()
        self.callers.append(caller)
        try:
            queued()
            return await caller
        except asyncio.CancelledError:
            if not caller.cancelled() and caller.exception() is None:
                give_back(caller.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self.callers.remove(caller)

    def serve(self, make: Callable[[], S]) -> None:
        """Give the first caller the session that `make` makes, if the caller still waits."""
        caller = self.callers.popleft()
        if not caller.done():
            caller.set_result(make())

    def fail(self, error: Exception) -> None:
        """Raise `error` in all callers that wait."""
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(error)
