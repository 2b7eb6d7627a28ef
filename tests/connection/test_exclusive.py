"""exclusive.py: work that needs a connection to itself is done in order, refused at the end, and fails alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from smtp_async import Timeouts
from smtp_async.connection.channel import Channel
from smtp_async.connection.exclusive import ExclusiveWork
from smtp_async.errors import AuthenticationFailed, CommandRefused, ConnectionLost, Interrupted, NotConnected
from smtp_async.hooks import Hooks
from smtp_async.model.reply import Reply
from smtp_async.protocol.machine import ClientProtocol


def channel() -> Channel:
    return Channel(1, ClientProtocol(), Timeouts(), Hooks())


def queued(work: ExclusiveWork, do: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    work.add(do, done)
    return done


def giving(result: Any) -> Callable[[], Awaitable[Any]]:
    async def do() -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    return do


async def test_work_is_done_in_order_and_then_none_is_pending() -> None:
    work = ExclusiveWork()
    first, second = queued(work, giving(1)), queued(work, giving(2))
    assert work.pending
    await work.run(channel())
    assert (await first, await second) == (1, 2)
    assert not work.pending


async def test_work_whose_caller_was_cancelled_is_passed_over() -> None:
    work = ExclusiveWork()
    first, second = queued(work, giving(AssertionError("was run"))), queued(work, giving(2))
    first.cancel()
    await work.run(channel())
    assert await second == 2


async def test_a_refused_command_leaves_the_rest_to_be_done() -> None:
    work = ExclusiveWork()
    refusal = CommandRefused("no", reply=Reply(550, (b"no",)))
    first, second = queued(work, giving(refusal)), queued(work, giving(2))
    await work.run(channel())
    with pytest.raises(CommandRefused):
        await first
    assert await second == 2


async def test_a_failure_that_spoils_the_connection_ends_it() -> None:
    work = ExclusiveWork()
    failure = AuthenticationFailed("no", reply=Reply(535, (b"no",)))
    first, second = queued(work, giving(failure)), queued(work, giving(2))
    with pytest.raises(AuthenticationFailed):
        await work.run(channel())
    with pytest.raises(AuthenticationFailed):
        await first
    # So that no job is begun meanwhile.
    assert work.pending
    work.refuse(failure)
    with pytest.raises(NotConnected, match="535"):
        await second


async def test_when_the_task_is_cancelled_the_caller_learns_why_the_connection_ended() -> None:
    for failure in (None, ConnectionLost("reset")):
        work, one = ExclusiveWork(), channel()
        if failure is not None:
            one.abort(failure)
        done = queued(work, giving(asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await work.run(one)
        with pytest.raises(type(failure) if failure is not None else Interrupted):
            await done
