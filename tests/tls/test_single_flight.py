"""One task for all callers that want the same."""

import asyncio
import contextvars

import pytest

from smtp_async.tls.single_flight import SingleFlight
from tests.lab import every_loop, turns

pytestmark = pytest.mark.usefixtures("no_leaks")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of nobody")


class Work:
    """Work that a test lets end."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.let_go = asyncio.Event()

    async def run(self) -> str:
        self.begun += 1
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return variable.get()


@every_loop
async def test_callers_share_one_task_without_the_context_of_the_first() -> None:
    work, flights = Work(), SingleFlight[str, str]()
    variable.set("of a caller")
    callers = [asyncio.create_task(flights.join("key", work.run).result()) for _ in range(3)]
    await turns()
    work.let_go.set()
    assert await asyncio.gather(*callers) == ["of nobody"] * 3
    assert work.begun == 1


@every_loop
async def test_different_keys_have_tasks_of_their_own() -> None:
    work, flights = Work(), SingleFlight[str, str]()
    callers = [asyncio.create_task(flights.join(key, work.run).result()) for key in "ab"]
    await turns()
    assert work.begun == 2
    work.let_go.set()
    await asyncio.gather(*callers)


@every_loop
async def test_the_task_goes_on_for_those_who_stay() -> None:
    work, flights = Work(), SingleFlight[str, str]()
    first, second = (asyncio.create_task(flights.join("key", work.run).result()) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled() and not work.cancelled
    work.let_go.set()
    assert await second == "of nobody"


@every_loop
async def test_the_task_ends_with_the_last_caller_and_the_next_one_begins_anew() -> None:
    work, flights = Work(), SingleFlight[str, str]()
    caller = asyncio.create_task(flights.join("key", work.run).result())
    await turns()
    caller.cancel()
    await asyncio.wait([caller])
    # At once: the task that was cancelled may not have noticed yet.
    work.let_go.set()
    assert await flights.join("key", work.run).result() == "of nobody"
    assert (work.begun, work.cancelled) == (2, 1)


@every_loop
async def test_what_has_ended_begins_anew() -> None:
    work, flights = Work(), SingleFlight[str, str]()
    work.let_go.set()
    for _ in range(2):
        await flights.join("key", work.run).result()
    assert work.begun == 2


@every_loop
async def test_work_that_does_not_wait() -> None:
    async def at_once() -> str:
        return "done"

    flights = SingleFlight[str, str]()
    flight = flights.join("key", at_once)
    assert await flight.result() == "done"
    flight.leave()
    assert await flights.join("key", at_once).result() == "done"
