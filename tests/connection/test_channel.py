"""Machine and stream joined: bytes, the one clock of a connection, how it ends and how a reader is woken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from smtp_async import Timeouts
from smtp_async.connection.channel import Link
from smtp_async.errors import ConnectionLost, Interrupted, ProtocolViolation, Timeout
from smtp_async.events import Event, Notification, PITrail
from smtp_async.hooks import Hooks
from smtp_async.protocol.machine import ClientProtocol
from smtp_async.testing import ScriptedServer, close, default, delay, raw, reply, reset
from smtp_async.transport.dial import dial
from tests.lab import every_loop, mute, turns

pytestmark = pytest.mark.usefixtures("no_leaks")


@asynccontextmanager
async def linked(
    server: ScriptedServer, timeouts: Timeouts | None = None, hooks: Hooks | None = None
) -> AsyncIterator[Link]:
    """A link to a server, nothing read yet."""
    link = Link(1, ClientProtocol(), timeouts or Timeouts(), hooks or Hooks())
    link.task = asyncio.current_task()
    link.stream = await dial(server.host, server.port)
    try:
        yield link
    finally:
        link.abort(Interrupted("the test is over"))
        await turns(5)


@every_loop
async def test_a_conversation() -> None:
    async with ScriptedServer() as server, linked(server) as link:
        assert (await link.converse(link.machine.greeting)).code == 220
        assert (await link.converse(link.machine.hello("me.test"))).code == 250
        assert link.round_trips == 1
        assert link.first.startswith(b"220 ")
        assert (await link.converse(link.machine.quit())).code == 221
        with pytest.raises(ConnectionLost, match="without a word"):
            await link.receive()


@pytest.mark.parametrize("end", [close(), reset()])
async def test_the_end_after_a_421_is_told_with_it(end: Any) -> None:
    async with ScriptedServer() as server, linked(server) as link:
        server.on("EHLO", reply(421, "4.3.2 down"), end)
        await link.converse(link.machine.greeting)
        await link.converse(link.machine.hello("me.test"))
        with pytest.raises(ConnectionLost) as caught:
            await link.receive()
        assert caught.value.reply is not None and caught.value.reply.code == 421


async def test_what_does_not_fit_the_protocol_raises() -> None:
    async with ScriptedServer() as server:
        server.on("GREETING", raw(b"SSH-2.0-OpenSSH\r\n"))
        async with linked(server) as link:
            with pytest.raises(ProtocolViolation, match="SSH"):
                await link.converse(link.machine.greeting)
            assert link.first == b"SSH-2.0-OpenSSH\r"


class TestClock:
    @pytest.mark.parametrize(
        ("field", "point"),
        [("greeting", "GREETING"), ("hello", "EHLO"), ("command", "NOOP"), ("mail", "RSET")],
    )
    async def test_each_stage_has_its_limit(self, field: str, point: str) -> None:
        async with ScriptedServer() as server:
            server.on(point, mute)
            async with linked(server, Timeouts(**{field: 0.05})) as link:
                with pytest.raises(Timeout, match="within 0.05 s") as caught:
                    await link.converse(link.machine.greeting)
                    await link.converse(link.machine.hello("me.test"))
                    await link.converse(link.machine.reset() if point == "RSET" else link.machine.noop())
            assert caught.value.stage == ("greeting" if point == "GREETING" else point)

    async def test_without_limits_nothing_ticks(self) -> None:
        names = Timeouts.__slots__
        async with ScriptedServer() as server, linked(server, Timeouts(**dict.fromkeys(names))) as link:
            await link.converse(link.machine.greeting)
            await link.converse(link.machine.hello("me.test"))
            assert link.clock.due is None

    async def test_an_idle_connection_has_no_limit(self) -> None:
        async with ScriptedServer() as server, linked(server, Timeouts(hello=0.05)) as link:
            await link.converse(link.machine.greeting)
            await link.converse(link.machine.hello("me.test"))
            reading = asyncio.ensure_future(link.stream.read())  # type: ignore[union-attr]
            done, _ = await asyncio.wait({reading}, timeout=0.15)
            assert not done and link.failure is None
            reading.cancel()
            await asyncio.wait({reading})


class TestEnd:
    async def test_the_first_reason_counts(self) -> None:
        async with ScriptedServer() as server, linked(server) as link:
            first = Interrupted("first")
            link.abort(first)
            link.abort(Interrupted("second"))
            with pytest.raises(Interrupted, match="first"):
                await link.receive()
            assert link.failure is first

    async def test_nothing_is_handed_to_a_closed_stream(self) -> None:
        async with ScriptedServer() as server, linked(server) as link:
            await link.converse(link.machine.greeting)
            assert link.stream is not None
            link.stream.abort()
            with pytest.raises(ConnectionLost):
                await link.converse(link.machine.hello("me.test"))
            assert server.commands == []


class TestWaking:
    @every_loop
    async def test_a_reader_is_woken_and_loses_nothing(self) -> None:
        gate = asyncio.Event()
        async with ScriptedServer() as server:
            server.on("GREETING", delay(gate), default())
            async with linked(server) as link:
                asyncio.get_running_loop().call_soon(link.wake)
                await link.receive()
                assert link.machine.greeting.reply is None
                # Asked before it waits, too.
                link.wake()
                link.wake()
                await link.receive()
                gate.set()
                assert (await link.converse(link.machine.greeting)).code == 220
                task = asyncio.current_task()
                assert task is not None and not task.cancelling()

    @pytest.mark.parametrize("both", [False, True])
    async def test_a_cancellation_is_not_taken_for_a_wake(self, both: bool) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", mute)
            async with linked(server) as link:

                async def read() -> None:
                    link.task = asyncio.current_task()
                    await link.receive()

                reading = asyncio.create_task(read())
                await turns(3)
                if both:
                    link.wake()
                reading.cancel()
                await asyncio.wait({reading})
                assert reading.cancelled()


class TestHooks:
    async def test_only_what_is_wanted_is_made(self) -> None:
        hooks = Hooks()
        heard: list[Any] = []
        async with ScriptedServer() as server, linked(server, hooks=hooks) as link:
            assert not link.wants(PITrail)
            await link.converse(link.machine.greeting)
            assert not link.machine.trail.recording
            hooks.add(PITrail, heard.append)
            link.watch()
            assert link.wants(PITrail) and not link.wants(Notification)
            await link.converse(link.machine.hello("me.test"))
            assert [event.message for event in heard][0] == "EHLO me.test"
            hooks.remove(PITrail, heard.append)
            await link.converse(link.machine.noop())
            assert not link.machine.trail.recording and not link.noted

    async def test_events_noted_while_hooks_run_are_told_behind(self) -> None:
        hooks, heard = Hooks(), []
        async with ScriptedServer() as server, linked(server, hooks=hooks) as link:

            def hook(event: Notification) -> None:
                heard.append(event.name)
                if event.name == "first":
                    link.note(Notification(name="third"))

            hooks.add(Event, hook)
            link.note(Notification(name="first"))
            link.note(Notification(name="second"))
            await link.tell()
            assert heard == ["first", "second", "third"]
            assert not link.noted
