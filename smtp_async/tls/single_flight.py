"""One task for all callers that want the same at the same time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Flight", "SingleFlight"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flight(Generic[V]):
    """A task that several callers wait for. It ends early when the last of them has left."""

    def __init__(self, task: asyncio.Task[V], forget: Callable[[], object]) -> None:
        self.task = task
        self.waiters = 0
        self._forget = forget

    async def result(self) -> V:
        """Wait for the task and return its result; a caller that is cancelled leaves it to the others."""
        try:
            await asyncio.wait([self.task])
        except BaseException:
            self.leave()
            raise
        return self.task.result()

    def leave(self) -> None:
        """Wait no longer. The task is cancelled if no other caller waits, and its end is not waited for."""
        self.waiters -= 1
        if not self.waiters and not self.task.done():
            # A later caller must not join a task that is about to end without a result.
            self._forget()
            self.task.cancel()


class SingleFlight(Generic[K, V]):
    """Runs a coroutine function at most once at a time for each key.

    The coroutines must not raise: what went wrong is part of the result, for all that wait.
    """

    def __init__(self) -> None:
        self._flights: dict[K, Flight[V]] = {}

    def join(self, key: K, begin: Callable[[], Coroutine[Any, Any, V]]) -> Flight[V]:
        """Return the flight of `key`, a new one of `begin()` if there is none. The caller must wait or leave."""
        flight = self._flights.get(key)
        if flight is None:
            # The task serves several callers, so it does not run with the context variables of the first.
            task = asyncio.get_running_loop().create_task(begin(), context=contextvars.Context())
            flight = Flight(task, lambda: self._forget(key, task))
            if not task.done():  # as it may be under the eager task factory
                self._flights[key] = flight
                task.add_done_callback(lambda _: self._forget(key, task))
        flight.waiters += 1
        return flight

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
