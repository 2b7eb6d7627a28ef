"""session_waiters.py: callers who want a session to themselves get one in their order, and none is lost."""

import asyncio
from itertools import count

import pytest

from smtp_async.errors import NotConnected
from smtp_async.pool.session_waiters import SessionWaiters
from tests.lab import gathered, turns


class Lab:
    def __init__(self) -> None:
        self.queue: SessionWaiters[int] = SessionWaiters(asyncio.get_running_loop())
        self.returned: list[int] = []
        self.numbers = count(1)

    def call(self) -> asyncio.Task[int]:
        return asyncio.create_task(self.queue.wait(self.returned.append, lambda: None))

    def serve(self) -> None:
        self.queue.serve(lambda: next(self.numbers))


async def test_callers_are_served_in_their_order() -> None:
    lab = Lab()
    callers = [lab.call() for _ in range(3)]
    await turns(2)
    assert len(lab.queue) == 3
    for _ in callers:
        lab.serve()
    assert await gathered(*callers) == [1, 2, 3]
    assert len(lab.queue) == 0


async def test_a_caller_may_be_served_as_soon_as_it_has_joined() -> None:
    lab = Lab()
    assert await lab.queue.wait(lab.returned.append, lab.serve) == 1
    assert len(lab.queue) == 0


async def test_a_caller_that_is_cancelled_leaves_the_queue() -> None:
    lab = Lab()
    first, second = lab.call(), lab.call()
    await turns(2)
    first.cancel()
    await turns(2)
    assert len(lab.queue) == 1
    lab.serve()
    assert await second == 1
    assert lab.returned == []


async def test_a_caller_that_is_cancelled_before_it_has_left_gets_no_session() -> None:
    lab = Lab()
    caller = lab.call()
    await turns(2)
    caller.cancel()
    lab.serve()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert lab.returned == [] or lab.returned == [1]
    assert next(lab.numbers) == len(lab.returned) + 1, "a session that was made was given back"


async def test_a_caller_that_is_cancelled_with_its_session_gives_it_back() -> None:
    lab = Lab()
    caller = lab.call()
    await turns(2)
    lab.serve()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert lab.returned == [1]


async def test_all_callers_learn_that_there_will_be_no_session() -> None:
    lab = Lab()
    callers = [lab.call() for _ in range(3)]
    await turns(2)
    callers[0].cancel()
    lab.queue.fail(NotConnected("closed"))
    kinds = [type(result) for result in await gathered(*callers)]
    assert kinds == [asyncio.CancelledError, NotConnected, NotConnected]
    assert lab.returned == []
