"""channel.py: bytes between the machine and a real socket, the clock, the end, and how the reading task is woken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from smtp_async import Timeouts
from smtp_async.connection.channel import Channel
from smtp_async.errors import ConnectionLost, Interrupted, ProtocolViolation, Timeout
from smtp_async.events import Event, Notification, PITrail
from smtp_async.hooks import Hooks
from smtp_async.protocol.machine import ClientProtocol
from smtp_async.testing import ScriptedServer, close, default, delay, raw, reply, reset
from smtp_async.transport.dial import dial
from tests.lab import PATIENCE, every_loop, mute, turns

pytestmark = pytest.mark.usefixtures("no_leaks")


@asynccontextmanager
async def linked(
    server: ScriptedServer, timeouts: Timeouts | None = None, hooks: Hooks | None = None
) -> AsyncIterator[Channel]:
    """A channel to a server; nothing was read yet."""
    channel = Channel(1, ClientProtocol(), timeouts or Timeouts(), hooks or Hooks())
    channel.task = asyncio.current_task()
    channel.stream = await dial(server.host, server.port)
    try:
        yield channel
    finally:
        channel.abort(Interrupted("the test is over"))
        await turns(5)


@every_loop
async def test_a_conversation() -> None:
    async with ScriptedServer() as server, linked(server) as channel:
        assert (await channel.converse(channel.machine.greeting)).code == 220
        assert (await channel.converse(channel.machine.hello("me.test"))).code == 250
        assert channel.round_trips == 1
        assert channel.first_bytes.startswith(b"220 ")
        assert (await channel.converse(channel.machine.quit())).code == 221
        with pytest.raises(ConnectionLost, match="without a word"):
            await channel.receive()


async def test_an_end_names_the_command_whose_reply_is_missing() -> None:
    async with ScriptedServer() as server, linked(server) as channel:
        server.on("EHLO", close())
        await channel.converse(channel.machine.greeting)
        with pytest.raises(ConnectionLost, match="without a word") as caught:
            await channel.converse(channel.machine.hello("me.test"))
        assert caught.value.stage == "EHLO"


@pytest.mark.parametrize("end", [close(), reset()])
async def test_an_end_after_a_421_has_the_421_as_its_reply(end: Any) -> None:
    async with ScriptedServer() as server, linked(server) as channel:
        server.on("EHLO", reply(421, "4.3.2 down"), end)
        await channel.converse(channel.machine.greeting)
        await channel.converse(channel.machine.hello("me.test"))
        with pytest.raises(ConnectionLost) as caught:
            await channel.receive()
        assert caught.value.reply is not None and caught.value.reply.code == 421


async def test_an_end_after_a_421_names_the_command_whose_reply_is_missing() -> None:
    async with ScriptedServer() as server, linked(server) as channel:
        server.on("NOOP", reply(421, "4.3.2 down"), close())
        await channel.converse(channel.machine.greeting)
        await channel.converse(channel.machine.hello("me.test"))
        first, second = channel.machine.noop(), channel.machine.verify("me")
        assert (await channel.converse(first)).code == 421
        with pytest.raises(ConnectionLost) as caught:
            await channel.converse(second)
        assert caught.value.reply is first.reply and caught.value.stage == "VRFY"


async def test_bytes_that_are_no_reply_raise() -> None:
    async with ScriptedServer() as server:
        server.on("GREETING", raw(b"SSH-2.0-OpenSSH\r\n"))
        async with linked(server) as channel:
            with pytest.raises(ProtocolViolation, match="SSH"):
                await channel.converse(channel.machine.greeting)
            assert channel.first_bytes == b"SSH-2.0-OpenSSH\r"


class TestClock:
    @pytest.mark.parametrize(
        ("field", "point"),
        [("greeting", "GREETING"), ("hello", "EHLO"), ("command", "NOOP"), ("mail", "RSET")],
    )
    async def test_each_stage_has_its_limit(self, field: str, point: str) -> None:
        async with ScriptedServer() as server:
            server.on(point, mute)
            async with linked(server, Timeouts(**{field: 0.05})) as channel:
                with pytest.raises(Timeout, match="within 0.05 s") as caught:
                    await channel.converse(channel.machine.greeting)
                    await channel.converse(channel.machine.hello("me.test"))
                    await channel.converse(
                        channel.machine.reset() if point == "RSET" else channel.machine.noop()
                    )
            assert caught.value.stage == ("greeting" if point == "GREETING" else point)

    async def test_without_limits_nothing_ticks(self) -> None:
        names = Timeouts.__slots__
        async with ScriptedServer() as server, linked(server, Timeouts(**dict.fromkeys(names))) as channel:
            await channel.converse(channel.machine.greeting)
            await channel.converse(channel.machine.hello("me.test"))
            assert channel.clock.due is None

    async def test_an_idle_connection_has_no_limit(self) -> None:
        async with ScriptedServer() as server, linked(server, Timeouts(hello=0.05)) as channel:
            await channel.converse(channel.machine.greeting)
            await channel.converse(channel.machine.hello("me.test"))
            assert channel.stream is not None
            reading = asyncio.ensure_future(channel.stream.read())
            done, _ = await asyncio.wait({reading}, timeout=0.15)
            assert not done and channel.failure is None
            reading.cancel()
            await asyncio.wait({reading})


class TestEnd:
    async def test_the_first_reason_counts(self) -> None:
        async with ScriptedServer() as server, linked(server) as channel:
            first = Interrupted("first")
            channel.abort(first)
            channel.abort(Interrupted("second"))
            with pytest.raises(Interrupted, match="first"):
                await channel.receive()
            assert channel.failure is first

    async def test_an_upload_does_not_wait_for_the_hooks_of_a_connection_that_has_ended(self) -> None:
        hooks = Hooks()
        hooks.add(Notification, lambda event: None)
        async with ScriptedServer() as server, linked(server, hooks=hooks) as channel:
            channel.transcript.note(Notification(name="x"))
            waiting = asyncio.create_task(channel.transcript.wait_told())
            await turns(3)
            assert not waiting.done()
            channel.abort(Interrupted("over"))
            await asyncio.wait_for(waiting, PATIENCE)

    async def test_nothing_is_handed_to_a_closed_stream(self) -> None:
        async with ScriptedServer() as server, linked(server) as channel:
            await channel.converse(channel.machine.greeting)
            assert channel.stream is not None
            channel.stream.abort()
            with pytest.raises(ConnectionLost):
                await channel.converse(channel.machine.hello("me.test"))
            assert server.commands == []


class TestWaking:
    @every_loop
    async def test_a_reader_is_woken_and_loses_nothing(self) -> None:
        gate = asyncio.Event()
        async with ScriptedServer() as server:
            server.on("GREETING", delay(gate), default())
            async with linked(server) as channel:
                asyncio.get_running_loop().call_soon(channel.wake)
                await channel.receive()
                assert channel.machine.greeting.reply is None
                # Asked before it waits, too.
                channel.wake()
                channel.wake()
                await channel.receive()
                gate.set()
                assert (await channel.converse(channel.machine.greeting)).code == 220
                task = asyncio.current_task()
                assert task is not None and not task.cancelling()

    @pytest.mark.parametrize("both", [False, True])
    async def test_a_cancellation_is_not_taken_for_a_wake(self, both: bool) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", mute)
            async with linked(server) as channel:

                async def read() -> None:
                    channel.task = asyncio.current_task()
                    await channel.receive()

                reading = asyncio.create_task(read())
                await turns(3)
                if both:
                    channel.wake()
                reading.cancel()
                await asyncio.wait({reading})
                assert reading.cancelled()


class TestHooks:
    async def test_only_what_is_wanted_is_made(self) -> None:
        hooks = Hooks()
        heard: list[Any] = []
        async with ScriptedServer() as server, linked(server, hooks=hooks) as channel:
            assert not channel.transcript.wants(PITrail)
            await channel.converse(channel.machine.greeting)
            assert not channel.machine.recorder.recording
            hooks.add(PITrail, heard.append)
            channel.record_lines()
            assert channel.transcript.wants(PITrail) and not channel.transcript.wants(Notification)
            await channel.converse(channel.machine.hello("me.test"))
            assert [event.message for event in heard][0] == "EHLO me.test"
            hooks.remove(PITrail, heard.append)
            await channel.converse(channel.machine.noop())
            assert not channel.machine.recorder.recording and not channel.transcript.events

    async def test_events_noted_while_hooks_run_are_told_behind(self) -> None:
        hooks, heard = Hooks(), []
        async with ScriptedServer() as server, linked(server, hooks=hooks) as channel:

            def hook(event: Notification) -> None:
                heard.append(event.name)
                if event.name == "first":
                    channel.transcript.note(Notification(name="third"))

            hooks.add(Event, hook)
            channel.transcript.note(Notification(name="first"))
            channel.transcript.note(Notification(name="second"))
            await channel.transcript.tell()
            assert heard == ["first", "second", "third"]
            assert not channel.transcript.events


# --- waiting for others than the server ------------------------------------------------------------------------


class TestWaitingOutside:
    @every_loop
    async def test_what_is_waited_for_is_returned(self) -> None:
        async def outcome() -> int:
            await asyncio.sleep(0)
            return 7

        async with ScriptedServer() as server, linked(server) as channel:
            assert await channel.wait_outside(outcome()) == 7
            channel.abort(Interrupted("later"))
            await turns()

    @every_loop
    async def test_abort_ends_it_with_its_reason(self) -> None:
        async with ScriptedServer() as server, linked(server) as channel:
            loop = asyncio.get_running_loop()
            never: asyncio.Future[None] = loop.create_future()
            loop.call_soon(channel.abort, Interrupted("enough"))
            with pytest.raises(Interrupted, match="enough"):
                await channel.wait_outside(never)
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0

    @every_loop
    async def test_a_cancellation_from_elsewhere_stays_one(self) -> None:
        async with ScriptedServer() as server, linked(server) as channel:

            async def wait() -> None:
                channel.task = asyncio.current_task()
                await channel.wait_outside(asyncio.get_running_loop().create_future())

            for both in (False, True):
                task = asyncio.create_task(wait())
                await turns()
                task.cancel()
                if both:
                    channel.abort(Interrupted("too"))
                await asyncio.wait({task})
                assert task.cancelled()
            channel.task = None
