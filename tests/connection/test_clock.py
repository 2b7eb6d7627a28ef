"""clock.py: every stage has its time, and only the server's own turn counts. Time passes when a test says so."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from smtp_async import Outcome, SendOptions
from smtp_async.connection.clock import ReplyClock
from smtp_async.errors import Timeout
from smtp_async.events import Event, PITrail
from smtp_async.model.timeouts import Timeouts
from smtp_async.protocol.exchange import LIMITS as TIMED
from smtp_async.testing import ScriptedServer, default, delay
from tests.lab import PATIENCE, Clock, client_of, mail
from tests.protocol.talk import Talk

#: One for each stage, all different.
LIMITS = Timeouts(
    greeting=11,
    hello=12,
    auth=13,
    mail=14,
    rcpt=15,
    data=16,
    block=17,
    end_of_data=18,
    command=19,
    quit=20,
    probe=21,
)


class Watched:
    """A conversation whose clock is told of every read and write, as a channel does."""

    def __init__(
        self,
        offer: tuple[str, ...] | None = ("PIPELINING",),
        timeouts: Timeouts = LIMITS,
        *,
        proven: bool = True,
    ) -> None:
        self.talk = Talk() if offer is None else Talk.ready(offer=offer, proven=proven)
        self.machine = self.talk.machine
        self.time = Clock()
        self.errors: list[Timeout] = []
        loop: Any = self.time
        self.clock = ReplyClock(self.machine, timeouts, self.errors.append, loop)
        self.clock.resume()

    def says(self, *texts: str) -> None:
        self.talk.says(*texts)
        self.clock.restart(self.time.now)
        self.clock.resume()

    def flush(self) -> None:
        asks = not self.machine.awaiting_reply
        self.machine.data_to_send()
        if asks:
            self.clock.restart(self.time.now)

    def passes(self, seconds: float) -> list[Timeout]:
        """Let time pass; return the errors of this time."""
        self.errors.clear()
        self.time.advance(seconds)
        return list(self.errors)

    def limit(self) -> float | None:
        """How long the server has from now on."""
        return None if self.clock.due is None else self.clock.due - self.time.now

    def streamed(self, *, chunking: bool = False) -> Any:
        """A message whose caller may write its body."""
        transaction = self.talk.plan(chunking=chunking)
        transaction.set_payload(None)
        self.machine.pipeline.begin(transaction)
        self.flush()
        self.says("250 ok", "250 ok", *([] if chunking else ["354 go"]))
        assert transaction.turn
        return transaction

    def block(self, transaction: Any, data: bytes = b"x\r\n") -> None:
        """A block is handed to the transport, which has not taken it yet."""
        self.machine.pipeline.write_body(transaction, data)
        self.flush()
        self.clock.block_begins()


def greeted(timeouts: Timeouts) -> Watched:
    """A conversation whose greeting was read."""
    one = Watched(None, timeouts)
    one.says("220 mx.example.org")
    return one


def ready(timeouts: Timeouts, *, proven: bool = True) -> Watched:
    """A conversation after EHLO."""
    return Watched(("PIPELINING", "CHUNKING", "AUTH PLAIN"), timeouts, proven=proven)


def written(one: Watched, *replies: str) -> Watched:
    """Begin a message, and read these replies to it."""
    one.talk.begin()
    one.flush()
    for reply in replies:
        one.says(reply)
    one.flush()
    return one


def hello(timeouts: Timeouts) -> Watched:
    one = greeted(timeouts)
    one.machine.hello("me.example")
    return one


def auth(timeouts: Timeouts) -> Watched:
    one = ready(timeouts)
    one.machine.auth("PLAIN", b"x")
    return one


def command(timeouts: Timeouts) -> Watched:
    one = ready(timeouts)
    one.machine.noop()
    return one


def goodbye(timeouts: Timeouts) -> Watched:
    one = ready(timeouts)
    one.machine.quit()
    return one


def block(timeouts: Timeouts) -> Watched:
    one = ready(timeouts)
    one.block(one.streamed(chunking=True))
    one.clock.block_taken()
    return one


def probe(timeouts: Timeouts) -> Watched:
    """RSET alone behind an end of data, whose reply has come."""
    one = ready(timeouts, proven=False)
    written(one, "250 ok", "250 ok", "354 go")
    one.talk.begin()
    one.flush()
    one.says("250 queued")
    return one


#: Of each stage with a limit: a conversation in which its reply is owed next, and what an error calls it.
STAGES: dict[str, tuple[Callable[[Timeouts], Watched], str]] = {
    "greeting": (lambda timeouts: Watched(None, timeouts), "greeting"),
    "hello": (hello, "EHLO"),
    "auth": (auth, "AUTH"),
    "command": (command, "NOOP"),
    "mail": (lambda timeouts: written(ready(timeouts)), "MAIL"),
    "probe": (probe, "RSET"),
    "rcpt": (lambda timeouts: written(ready(timeouts), "250 ok"), "RCPT"),
    "data": (lambda timeouts: written(ready(timeouts), "250 ok", "250 ok"), "DATA"),
    "block": (block, "BDAT"),
    "end_of_data": (lambda timeouts: written(ready(timeouts), "250 ok", "250 ok", "354 go"), "end of data"),
    "quit": (goodbye, "QUIT"),
}


def begun(stage: str, timeouts: Timeouts = LIMITS) -> Watched:
    """A conversation in which the reply of `stage` is owed next."""
    one = STAGES[stage][0](timeouts)
    one.flush()
    return one


class TestStages:
    def test_every_stage_that_has_a_limit_is_tried(self) -> None:
        assert STAGES.keys() == TIMED

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_command_has_the_time_of_its_stage(self, stage: str) -> None:
        one, words = begun(stage), STAGES[stage][1]
        limit = getattr(LIMITS, stage)
        assert one.limit() == limit
        assert one.passes(limit - 0.001) == []
        (error,) = one.passes(0.001)
        assert error.stage == words
        what = "greeting" if words == "greeting" else f"reply to {words}"
        assert str(error).startswith(f"no {what} within {limit} s")
        assert one.passes(1000) == []

    def test_each_reply_of_a_group_has_its_own_time(self) -> None:
        one = Watched()
        one.machine.pipeline.begin(one.talk.plan())
        one.flush()
        for reply, stage in (("250 ok", "mail"), ("250 ok", "rcpt"), ("354 go", "data")):
            limit = getattr(LIMITS, stage)
            assert one.limit() == limit
            assert one.passes(limit - 1) == []
            one.says(reply)
        one.flush()
        assert one.limit() == LIMITS.end_of_data
        one.says("250 queued")
        assert one.limit() is None and one.passes(1000) == []

    def test_single_bytes_do_not_restart_the_clock(self) -> None:
        one = Watched(None)
        for octet in b"220 ":
            assert one.passes(2) == []
            one.machine.receive_data(bytes([octet]))
            one.clock.resume()
        assert one.limit() == 3
        assert len(one.passes(3)) == 1

    def test_more_that_is_written_does_not_restart_the_clock(self) -> None:
        one = Watched()
        one.machine.noop()
        one.flush()
        one.passes(10)
        one.machine.noop()
        one.flush()
        assert one.limit() == 9

    @pytest.mark.parametrize("stage", STAGES)
    def test_without_a_limit_nothing_ticks(self, stage: str) -> None:
        one = begun(stage, Timeouts(**dict.fromkeys(Timeouts.__slots__)))
        assert one.limit() is None and one.time.timers == []

    def test_after_a_421_the_end_has_to_come_soon(self) -> None:
        one = Watched()
        one.says("421 4.3.2 down")
        assert one.limit() == 5
        (error,) = one.passes(5)
        assert "did not close it within 5 s" in str(error)

    def test_a_message_costs_no_timer(self) -> None:
        one = Watched()
        for _ in range(100):
            one.machine.pipeline.begin(one.talk.plan())
            one.flush()
            one.says("250 ok", "250 ok", "354 go")
            one.flush()
            one.says("250 queued")
            one.machine.take_settled()
        assert one.time.made <= 3


class TestBodies:
    def test_a_block_has_to_be_taken_in_time(self) -> None:
        one = Watched()
        transaction = one.streamed()
        one.block(transaction)
        assert one.limit() == LIMITS.block
        (error,) = one.passes(17)
        assert "did not take the next block of the message within 17 s" in str(error)
        assert error.stage == "body"

    def test_a_slow_source_is_no_silent_server(self) -> None:
        one = Watched()
        transaction = one.streamed()
        for _ in range(3):
            assert one.limit() is None and one.passes(1000) == []
            one.block(transaction)
            assert one.limit() == 17 and one.passes(16) == []
            one.clock.block_taken()

    def test_the_end_of_a_streamed_body_has_the_time_of_the_end(self) -> None:
        one = Watched()
        transaction = one.streamed()
        one.block(transaction)
        one.clock.block_taken()
        one.passes(10)
        one.machine.pipeline.end_body(transaction)
        one.flush()
        assert one.limit() == LIMITS.end_of_data
        assert one.passes(17.9) == []
        (error,) = one.passes(0.1)
        assert error.stage == "end of data"

    def test_a_chunk_has_to_be_answered_even_while_the_source_is_slow(self) -> None:
        one = Watched(("PIPELINING", "CHUNKING"))
        transaction = one.streamed(chunking=True)
        one.block(transaction)
        assert one.limit() == 17
        one.passes(10)
        # The transport had to transmit it first.
        one.clock.block_taken()
        assert one.limit() == 17
        one.says("250 3 octets")
        assert one.limit() is None and one.passes(1000) == []
        one.block(transaction)
        one.clock.block_taken()
        (error,) = one.passes(17)
        assert error.stage == "BDAT"

    def test_a_pause_ends_with_the_next_look(self) -> None:
        one = Watched(None)
        one.passes(10)
        one.clock.pause()
        assert one.passes(1000) == []
        one.clock.resume()
        assert one.limit() == 11

    def test_a_stopped_clock_holds_no_timer(self) -> None:
        one = Watched(None)
        one.clock.stop()
        assert one.time.timers == []

    def test_a_stopped_clock_is_not_started_by_what_ends_later(self) -> None:
        """An upload that waits for the transport notices the end of its connection after the clock does."""
        one = Watched()
        transaction = one.streamed()
        one.block(transaction)
        one.clock.stop()
        one.clock.block_taken()
        one.clock.resume()
        assert one.time.timers == []

    @pytest.mark.parametrize("limits", [LIMITS, Timeouts(**dict.fromkeys(Timeouts.__slots__))])
    def test_a_pause_after_a_421_leaves_the_server_its_seconds(self, limits: Timeouts) -> None:
        one = Watched(timeouts=limits)
        one.says("421 4.3.2 down")
        one.clock.pause()
        assert one.passes(1000) == []
        one.clock.resume()
        assert one.limit() == 5
        assert len(one.passes(5)) == 1


async def test_a_streamed_body_without_a_gate_leaves_the_server_the_time_of_the_end() -> None:
    """A server that takes longer than a block may is no reason to send the message a second time."""
    late = asyncio.Event()
    limits = Timeouts(block=0.05)
    async with ScriptedServer() as server, client_of(server, timeouts=limits) as client:
        rule = server.on(".", delay(late), default())
        sending = asyncio.create_task(client.send(mail(text="0123456789\n" * 20_000)))
        await server.wait_fired(rule)
        done, _ = await asyncio.wait({sending}, timeout=0.2)
        assert not done
        late.set()
        assert (await sending).outcome is Outcome.ACCEPTED
    assert len(server.messages) == 1


@pytest.mark.parametrize("extensions", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_a_source_slower_than_a_block_may_be_is_waited_for(extensions: tuple[str, ...]) -> None:
    async def slow() -> Any:
        yield b"x" * 70_000
        await asyncio.sleep(0.2)
        yield b"y" * 70_000

    message = mail()
    message.attach(slow(), filename="f")
    async with (
        ScriptedServer(extensions=[*extensions]) as server,
        client_of(server, timeouts=Timeouts(block=0.05)) as client,
    ):
        receipt = await client.send(message, options=SendOptions(chunking="always"))
        assert receipt.outcome is Outcome.ACCEPTED


async def test_a_hook_slower_than_the_server_may_be_is_waited_for() -> None:
    """Its reply came in time, and lies unread while the hook runs."""
    heard: list[Event] = []

    async def hook(event: PITrail) -> None:
        heard.append(event)
        if "MAIL" in event.message:
            await asyncio.sleep(0.2)

    async with (
        ScriptedServer() as server,
        client_of(server, timeouts=Timeouts(mail=0.05, rcpt=0.05, data=0.05)) as client,
    ):
        client.on(PITrail, hook)
        async with asyncio.timeout(PATIENCE):
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
    assert heard
