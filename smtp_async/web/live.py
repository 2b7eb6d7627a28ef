"""Server-sent events: tell the pages that look that something has changed, and what is new in short."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.responses import StreamingResponse

__all__ = ["Changes", "event_stream"]

#: Seconds between two events at least, so that a burst of mail is one event.
PACE: Final = 0.25
#: Seconds after which an event is sent although nothing has changed, so that a page that has gone is noticed.
HEARTBEAT: Final = 15.0


class Changes:
    """Counts changes, and wakes those who wait for one.

    Attributes:
        version: the number of changes so far.
        closed: no change follows.
    """

    def __init__(self) -> None:
        self.version = 0
        self.closed = False
        self._waiting: set[asyncio.Event] = set()

    def announce(self) -> None:
        """Count a change."""
        self.version += 1
        self._wake()

    def close(self) -> None:
        """End every wait."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def wait(self, seen: int, seconds: float) -> None:
        """Wait until there is a change after `seen`, until the end, or for `seconds`."""
        if self.version != seen or self.closed:
            return
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), seconds)
        finally:
            self._waiting.discard(event)


def event_stream(
    changes: Changes,
    news: Callable[[], Awaitable[dict[str, Any]]],
    *,
    pace: float = PACE,
    heartbeat: float = HEARTBEAT,
) -> StreamingResponse:
    """Return an answer that sends `news()` now, after each change, and after `heartbeat` seconds without one.

    Args:
        changes: tells when there are news.
        news: returns the data of an event.
        pace: seconds between two events at least.
        heartbeat: seconds between two events at most.
    """

    async def events() -> AsyncIterator[str]:
        while not changes.closed:
            seen = changes.version
            yield f"data: {json.dumps(await news())}\n\n"
            await asyncio.sleep(pace)
            await changes.wait(seen, heartbeat)

    return StreamingResponse(events(), media_type="text/event-stream")
