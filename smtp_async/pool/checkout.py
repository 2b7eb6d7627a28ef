"""Users who wait for a session of their own, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Places"]

S = TypeVar("S")


class Places(Generic[S]):
    """A line of users; a session is put into the hands of the first, so that nobody else can take its place."""

    __slots__ = ("_line", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line: deque[asyncio.Future[S]] = deque()

    def __len__(self) -> int:
        return len(self._line)

    async def wait(self, unwanted: Callable[[S], None], waits: Callable[[], object]) -> S:
        """Wait for a session.

        Args:
            waits: called when the user is in line; may serve.
            unwanted: gets the session of a user who was cancelled with it in its hands already.
        """
        place: asyncio.Future[S] = self._loop.create_future()
        self._line.append(place)
        try:
            waits()
            return await place
        except asyncio.CancelledError:
            if not place.cancelled() and place.exception() is None:
                unwanted(place.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._line.remove(place)

    def serve(self, make: Callable[[], S]) -> None:
        """Give the first in line what `make` makes, if it still waits."""
        place = self._line.popleft()
        if not place.done():
            place.set_result(make())

    def fail(self, error: Exception) -> None:
        """Tell all that there will be none."""
        for place in self._line:
            if not place.done():
                place.set_exception(error)
