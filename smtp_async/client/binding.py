"""Where a client belongs: one event loop of one process, in which its pool lives.

A binding does not know its client. The event loop keeps the connections, they keep their pool, and the pool keeps the
binding, so a client that is no longer used can be collected while its connections are open.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from threading import get_ident
from typing import Final

from ..connection.connection import Connection
from ..connection.route import Route, SharedResources
from ..errors import UsageError
from ..hooks import Hooks
from ..pool.paced import make_pool
from ..pool.pool import Pool
from .drive import Drive
from .fork_count import fork_count
from .options import ClientOptions
from .telemetry import ClientTelemetry

__all__ = ["Binding"]

#: Pools of collected clients that are being closed: an event loop keeps its tasks only weakly.
_closing: Final[set[asyncio.Task[None]]] = set()


class Binding:
    """The pool of a client in the running event loop.

    Args:
        route, options, hooks, shared, telemetry: those of the client.
        numbers: the numbers of its connections.
        former: the binding to an event loop that is closed. What is not bound to that loop stays in use: TLS sessions,
            tokens, and what counts against the limits of messages.

    Attributes:
        pool: the connections.
        drive: takes jobs through their steps.
        thread: the thread of the event loop.
        made_at_fork: how often the process had forked.
    """

    __slots__ = (
        "_hooks",
        "_numbers",
        "_options",
        "_route",
        "_shared",
        "drive",
        "made_at_fork",
        "pool",
        "thread",
    )

    def __init__(
        self,
        route: Route,
        options: ClientOptions,
        hooks: Hooks,
        shared: SharedResources,
        telemetry: ClientTelemetry | None,
        numbers: Iterator[int],
        *,
        former: Binding | None = None,
    ) -> None:
        self.thread, self.made_at_fork = get_ident(), fork_count.count
        self._route = route
        self._options = options
        self._hooks = hooks
        self._shared = shared
        self._numbers = numbers
        if former is not None:
            shared.leave_loop()
        self.pool: Pool = make_pool(
            options.pool,
            options.timeouts,
            self._make,
            options.rates,
            observer=telemetry,
            former=None if former is None else former.pool,
        )
        self.drive = Drive(self.pool, self.pool.deadlines)
        if telemetry is not None:
            telemetry.watch(self.pool)

    def _make(self, pool: Pool) -> Connection:
        return Connection(
            self._route,
            number=next(self._numbers),
            timeouts=self._options.timeouts,
            hooks=self._hooks,
            shared=self._shared,
            pipelining_history=pool.pipelining_history,
            owner=pool,
        )

    @property
    def over(self) -> bool:
        """Whether the event loop is closed, and with it everything that belonged to it."""
        return self.pool.loop.is_closed()

    def demand_own_loop(self) -> None:
        """Raise if the caller is in another event loop or process.

        Raises:
            UsageError: it is so.
        """
        if self.made_at_fork != fork_count.count:
            raise UsageError(
                "this client was used before the process forked: make one in the child, or use BlockingClient"
            )
        if self.pool.loop is not asyncio.get_running_loop():
            raise UsageError(
                "this client belongs to another event loop, which is not closed: make one client for each loop, "
                "or use BlockingClient, which has a loop of its own"
            )

    async def close(self) -> None:
        """End the pool politely, and release what its connections shared."""
        try:
            await self.pool.close()
        finally:
            self._shared.close()

    def abandon(self, client: str) -> None:
        """Warn that a client was collected with open connections, and have them closed. Called in any thread.

        Args:
            client: the client's representation.
        """
        loop = self.pool.loop
        if not len(self.pool.connections) or loop.is_closed() or self.made_at_fork != fork_count.count:
            return
        # First, because a warning may be an error.
        loop.call_soon_threadsafe(self._close_later)
        warnings.warn(f"a client was not closed: {client}", ResourceWarning, stacklevel=2)

    def _close_later(self) -> None:
        task = self.pool.loop.create_task(self.close(), name="smtp_async closing")
        _closing.add(task)
        task.add_done_callback(_closing.discard)
