"""The end of all connections of a client: politely at first, then by force."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from ..connection.connection import Connection
from ..errors import Interrupted

__all__ = ["close_all"]

#: Seconds for hooks to hear of the end of a connection that did not end in time.
_LAST_WORD: Final = 1.0


async def close_all(sessions: Collection[Connection], limit: float | None) -> None:
    """Let what is on its way end and say QUIT; after `limit` seconds, or when this is cancelled, close at once.

    Args:
        sessions: those that are to end; none is left open when this returns.
        limit: seconds for the polite part, None as long as it takes.
    """
    for session in sessions:
        session.finish()
    tasks = [session.task for session in sessions if session.task is not None]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=limit)
    finally:
        # Also when cancelled: nothing stays open. The tasks end by themselves, in the loop's next turns.
        for session in sessions:
            session.abort(Interrupted("the client was closed"), force=True)
    while pending := [task for task in tasks if not task.done()]:
        await asyncio.wait(pending, timeout=_LAST_WORD)
        for task in pending:
            task.cancel()
