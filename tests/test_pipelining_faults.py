"""What goes wrong while messages stand behind messages: cuts, stale connections, servers that lose count or hang up."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from smtp_async import (
    NOBODY,
    NotSent,
    Outcome,
    OutcomeUnknown,
    PoolLimits,
    Raw,
    Receipt,
    SendOptions,
    SMTPClient,
    SMTPError,
)
from smtp_async.errors import CommunicationError
from smtp_async.events import PITrail
from smtp_async.testing import (
    Cut,
    CutManner,
    CutProxy,
    Direction,
    RecordingSink,
    ScriptedServer,
    Step,
    close,
    default,
    delay,
    raw,
    reply,
    reset,
    swallow,
)
from smtp_async.testing.wire import Split
from tests.lab import (
    PATIENCE,
    client_of,
    every_loop,
    every_settable_loop,
    gathered,
    impatient,
    mail,
    pool_of,
    sampled,
    set_clock_forward,
    speaking,
    turns,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

WINDOWS = pytest.mark.parametrize("window", [1, 8], ids=["level 2", "window"])
LEAN = ["PIPELINING", "CHUNKING"]


def one(window: int = 1, **more: Any) -> PoolLimits:
    return PoolLimits(max_connections=1, window=window, **more)


def subjects(server: ScriptedServer) -> list[str]:
    return [message.subject for message in server.messages]


async def send_all(client: SMTPClient, messages: Any, **options: Any) -> list[tuple[Any, Receipt]]:
    async with asyncio.timeout(PATIENCE):
        return [pair async for pair in client.send_all(messages, **options)]


async def warm(client: SMTPClient, count: int = 8) -> None:
    """Open a connection and let its window grow."""
    for n in range(count):
        await client.send(mail(f"W{n}"))


# --- cuts after every byte ------------------------------------------------------------------------------------

TINY = [
    Raw(b"Subject: %d\r\n\r\nx\r\n" % n, sender=f"s{n}@a.test", recipients=[f"r{n}@b.test"]) for n in range(6)
]
#: What one of them takes on the wire: by DATA and by BDAT, without and with RSET.
WHOLE = (70, 76, 75, 81)
#: The offsets of one session are shared out among so many tests, each well below its limit.
SHARES = 2


class Ending(NamedTuple):
    """What the client says of one session, and whether the iteration raised."""

    receipts: dict[str, Receipt]
    raised: bool


async def session_through(proxy: CutProxy, window: int) -> Ending:
    receipts: dict[str, Receipt] = {}
    raised = False
    # A client that stops while no task uses its connection has nothing to wait for.
    async with client_of(proxy, pool=one(window), hello="c") as client:
        try:
            async with asyncio.timeout(PATIENCE):
                async for message, receipt in client.send_all(TINY):
                    receipts[str(message.sender)] = receipt
        except SMTPError:
            raised = True
    return Ending(receipts, raised)


async def idle(server: ScriptedServer) -> None:
    """The server has worked off everything that reached it."""
    async with asyncio.timeout(PATIENCE):
        await server.wait_for_disconnect()
        while server.tasks:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


def judge(ending: Ending, server: ScriptedServer, window: int) -> Counter[Outcome]:
    """Compare what the client says with what the server recorded."""
    recorded = Counter(message.mail_from for message in server.messages)
    for message in server.messages:
        assert message.rcpt_tos == [message.mail_from.replace("s", "r", 1).replace("@a", "@b")]
        assert message.subject == message.mail_from[1]
    assert max(recorded.values(), default=0) <= 1
    for sender, receipt in ending.receipts.items():
        if receipt.outcome is Outcome.ACCEPTED:
            assert recorded[sender] == 1
        elif receipt.outcome is Outcome.NOT_SENT:
            assert recorded[sender] == 0
        else:
            assert receipt.outcome is Outcome.UNKNOWN
            # All of it had been written: command lines, content and its end.
            assert receipt.bytes_sent in WHOLE
    assert set(recorded) <= set(ending.receipts)
    outcomes = Counter(receipt.outcome for receipt in ending.receipts.values())
    assert outcomes[Outcome.UNKNOWN] <= window
    assert ending.raised or outcomes.total() == len(TINY)
    if not ending.raised:
        assert outcomes[Outcome.NOT_SENT] == 0
    return outcomes


async def length_of_session(direction: Direction, window: int) -> int:
    async with ScriptedServer(extensions=LEAN) as server, CutProxy(server.host, server.port) as proxy:
        ending = await session_through(proxy, window)
        assert judge(ending, server, window) == {Outcome.ACCEPTED: 6}
        return proxy.links[0].counts[direction]


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("manner", [CutManner.FIN, CutManner.RST], ids=["FIN", "RST"])
@pytest.mark.parametrize("direction", Direction, ids=["to server", "to client"])
@WINDOWS
async def test_a_session_cut_after_any_byte(
    window: int, direction: Direction, manner: CutManner, share: int
) -> None:
    """Accepted means recorded once, not sent means not recorded, and unknown is only what was written to its end."""
    length = await length_of_session(direction, window)
    seen: Counter[Outcome] = Counter()
    async with (
        ScriptedServer(extensions=LEAN, keep_raw=False) as server,
        CutProxy(server.host, server.port) as proxy,
    ):
        for after in sampled(range(share, length + 1, SHARES), 3):
            proxy.cut = Cut(after, direction, manner, link=len(proxy.links))
            ending = await session_through(proxy, window)
            await idle(server)
            seen += judge(ending, server, window)
            server.messages.clear()
    assert server.violations == [] or manner is CutManner.RST
    assert set(seen) == {Outcome.ACCEPTED, Outcome.UNKNOWN, Outcome.NOT_SENT}


@WINDOWS
@pytest.mark.parametrize("goodbye", [False, True], ids=["EOF", "421"])
@every_loop
async def test_a_server_that_ends_at_any_command(window: int, goodbye: bool) -> None:
    """With a 421 nothing behind it is unknown: replies are in order."""
    words = (reply(421, "4.3.2 bye"),) if goodbye else ()
    seen: Counter[Outcome] = Counter()
    for point, count in (("MAIL", 6), ("RCPT", 6), ("DATA", 1), (".", 6), ("BDAT", 6)):
        for nth in range(1, count + 1):
            async with ScriptedServer(extensions=LEAN) as server:
                server.on(point, *words, close(), nth=nth, optional=True)
                async with client_of(server, pool=one(window), hello="c") as client:
                    pairs = await send_all(client, TINY)
                await idle(server)
                ending = Ending({str(message.sender): receipt for message, receipt in pairs}, False)
                outcomes = Counter(receipt.outcome for _, receipt in pairs)
                if goodbye:
                    assert outcomes[Outcome.UNKNOWN] == 0
                    refused = [m.sender for m, r in pairs if r.outcome is Outcome.REFUSED]
                    assert not set(refused) & {message.mail_from for message in server.messages}
                    assert len(refused) + len(server.messages) == 6 and len(refused) <= 1
                else:
                    judge(ending, server, window)
                seen += outcomes
    assert seen[Outcome.ACCEPTED] > 6


# --- how replies arrive --------------------------------------------------------------------------------------


@WINDOWS
@pytest.mark.parametrize("split", ["whole", "line", "byte"])
@every_loop
async def test_replies_may_arrive_in_any_pieces(window: int, split: Split) -> None:
    async with speaking(split=split) as server, client_of(server, pool=one(window)) as client:
        server.on("RCPT", reply(550, "5.1.1 no"), match="user(7|13)@")
        server.on("MAIL", reply(550, "5.7.1 no"), nth=20)
        pairs = await send_all(client, [mail(n) for n in range(30)])
        outcomes = [receipt.outcome for _, receipt in pairs]
    assert Counter(outcomes) == {Outcome.ACCEPTED: 27, Outcome.REFUSED: 3}
    assert Counter(subjects(server)) == {
        str(message.subject): 1 for message, receipt in pairs if receipt.outcome is Outcome.ACCEPTED
    }


# --- a server that does not read -----------------------------------------------------------------------------


def deaf(gate: asyncio.Event) -> Callable[[Step], Awaitable[None]]:
    """Read nothing until the gate opens: the client's bytes fill every buffer on the way."""

    async def action(step: Step) -> None:
        step.connection.transport.pause_reading()
        await gate.wait()
        if not step.connection.transport.is_closing():
            step.connection.transport.resume_reading()
        step.default()

    return action


def unwritten(client: SMTPClient) -> int:
    """How many bytes wait in this process for the kernel to take them."""
    streams = [connection.channel.stream for connection in pool_of(client).connections.open]
    return sum(stream._transport.get_write_buffer_size() for stream in streams if stream is not None)


@pytest.mark.timeout(60)
@WINDOWS
@every_loop
async def test_a_server_that_reads_nothing_until_all_buffers_are_full(window: int) -> None:
    gate = asyncio.Event()
    async with RecordingSink() as server, client_of(server, pool=one(window)) as client:
        await warm(client)
        server.on("RCPT", deaf(gate), nth=1)
        huge = mail("huge", text="0123456789 0123456789\n" * 700_000)
        sending = [client.send(mail(n, text="x" * 60 + "\n" * 20_000)) for n in range(12)]
        tasks = [asyncio.create_task(one) for one in [*sending, client.send(huge)]]
        if window > 1:
            await until(lambda: client.statistics().waiting < 13)
            await turns()
        gate.set()
        receipts = await gathered(*tasks)
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
    assert Counter(subjects(server))["message huge"] == 1


async def test_a_server_that_stops_reading_in_a_body_goes_on_later() -> None:
    gate = asyncio.Event()
    async with RecordingSink() as server, client_of(server, pool=one()) as client:
        rule = server.on("BODY", deaf(gate), after=10_000)
        huge = asyncio.create_task(client.send(mail("huge", text="0123456789 0123456789\n" * 700_000)))
        await server.wait_fired(rule)
        behind = asyncio.create_task(client.send(mail("behind")))
        await until(lambda: unwritten(client) > 0)
        assert not huge.done() and not behind.done()
        gate.set()
        assert [r.outcome for r in await gathered(huge, behind)] == [Outcome.ACCEPTED] * 2
        assert subjects(server) == ["message huge", "message behind"]


async def test_a_server_that_answers_a_window_only_when_it_has_read_all_of_it() -> None:
    """Its replies, some kilobytes, wait in its own buffer until the client has stopped writing."""
    long = "2.0.0 " + "x" * 200
    async with RecordingSink() as server, client_of(server, pool=one(64)) as client:
        await warm(client)
        for verb in ("RSET", "MAIL", "RCPT"):
            server.on(verb, accepted_with(long))
        pairs = await send_all(client, [mail(n, text="x" * 70 + "\n" * 300) for n in range(300)])
        assert {receipt.outcome for _, receipt in pairs} == {Outcome.ACCEPTED}
        assert len(server.messages) == 308


def accepted_with(text: str) -> Callable[[Step], Awaitable[None]]:
    async def action(step: Step) -> None:
        step.reply(250, text)

    return action


# --- connections that were idle ------------------------------------------------------------------------------


class TestStale:
    @WINDOWS
    @every_settable_loop
    async def test_after_a_pause_the_envelope_is_asked_first(self, window: int) -> None:
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            await client.send(mail(1))
            before = server.connections[0].flights
            await client.send(mail(2))
            brisk = server.connections[0].flights - before
            set_clock_forward(10)
            before = server.connections[0].flights
            receipt = await client.send(mail(3))
            careful = server.connections[0].flights - before
            assert receipt.outcome is Outcome.ACCEPTED
            assert (brisk, careful) == ((2, 3) if window == 1 else (1, 2))
            # Now it is known to live.
            before = server.connections[0].flights
            await client.send(mail(4))
            assert server.connections[0].flights - before == brisk
        assert subjects(server) == [f"message {n}" for n in range(1, 5)]

    @WINDOWS
    @pytest.mark.parametrize("words", [(), (reply(421, "4.4.2 idle"),)], ids=["EOF", "421"])
    @pytest.mark.parametrize("end", [close(), reset()], ids=["FIN", "RST"])
    @every_settable_loop
    async def test_an_end_that_was_not_noticed_costs_a_silent_retry(
        self, window: int, words: tuple[Any, ...], end: Any
    ) -> None:
        """The server has gone, and the client writes before it hears of it: one copy, accepted."""
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            await client.send(mail(1))
            set_clock_forward(10)
            server.on("MAIL", *words, end, connection=0)
            receipts = await gathered(*(client.send(mail(n)) for n in range(2, 8)))
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 6
            assert client.statistics().unknown == 0
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(1, 8)}

    @WINDOWS
    @every_loop
    async def test_a_server_that_closed_it_meanwhile(self, window: int) -> None:
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            await client.send(mail(1))
            await server.act(close())
            if window > 1:
                # Within the first second a whole message is trusted to it; but its end is seen as soon as it is there.
                await until(lambda: client.statistics().open == 0)
            receipts = await gathered(*(client.send(mail(n)) for n in range(2, 8)))
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 6
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(1, 8)}

    async def test_a_message_that_came_back_goes_to_a_connection_that_is_idle(self) -> None:
        """No new one can be had: without the idle one it would wait for ever."""
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            rule = server.on("MAIL", delay(gate), close(), nth=2)
            first = asyncio.create_task(client.send(mail(1)))
            second = asyncio.create_task(client.send(mail(2)))
            await server.wait_fired(rule)
            await until(lambda: client.statistics().idle == 1)
            server.on("GREETING", close(), optional=True)
            gate.set()
            receipts = await gathered(first, second)
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 2
        assert sorted(subjects(server)) == ["message 1", "message 2"]


# --- servers that lose count ---------------------------------------------------------------------------------


class TestLostCount:
    @pytest.mark.parametrize("point", ["MAIL", "RCPT"])
    @every_loop
    async def test_a_reply_that_never_comes_leads_to_lock_step(self, point: str) -> None:
        """The first connection answers one command of a group too few; the next one is asked one by one."""
        async with speaking() as server, client_of(server, pool=one(), timeouts=impatient(0.1)) as client:
            server.on(point, swallow(), connection=0)
            receipts = await gathered(*(client.send(mail(n)) for n in range(3)))
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 3
            # EHLO, then MAIL, RCPT, DATA and the dot, each in a flight of its own.
            assert server.connections[1].flights >= 1 + 3 * 4
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(3)}

    @every_loop
    async def test_a_reply_too_many_leads_to_lock_step(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", default(), raw(b"250 once more\r\n"), connection=0)
            results = await gathered(*(client.send(mail(n)) for n in range(3)))
            assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3
            assert server.connections.opened == 2
            assert server.connections[1].flights >= 1 + 3 * 4
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(3)}

    @every_loop
    async def test_503_to_a_mail_behind_rset_leads_to_lock_step(self) -> None:
        """Exim's way with a MAIL that it does not expect, here in spite of RSET: nothing is delivered twice or lost."""
        async with speaking() as server, client_of(server, pool=one(8)) as client:
            await warm(client)
            server.on("RSET", reply(250, "2.0.0 Ok"), connection=0)
            server.on("MAIL", reply(503, "5.5.1 sender already given"), nth=3, connection=0)
            server.on("BDAT", reply(503, "5.5.1 MAIL first"), nth=3, connection=0)
            pairs = await send_all(client, [mail(n) for n in range(12)])
            assert {receipt.outcome for _, receipt in pairs} == {Outcome.ACCEPTED}
            assert "lock-step" in repr(pool_of(client).pipelining_history)
            assert server.connections.opened == 2
            assert server.connections[1].flights >= 3 * server.verbs(1).count("MAIL")
        arrived = Counter(s for s in subjects(server) if "W" not in s)
        assert arrived == {f"message {n}": 1 for n in range(12)}

    async def test_lock_step_is_for_this_client_only(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", default(), raw(b"250 once more\r\n"), connection=0)
            await client.send(mail(1))
            async with client_of(server, pool=one()) as other:
                await other.send(mail(2))
                assert server.connections[2].flights <= 4


# --- refusals that a server counts ---------------------------------------------------------------------------


def strict(limit: int, refused: int, *words: Any) -> Callable[[Step], Awaitable[None]]:
    """Refuse; at the so-manieth error over a connection say 421 and hang up."""
    errors: Counter[int] = Counter()

    async def action(step: Step) -> None:
        number = step.connection.log.number
        errors[number] += 1
        if errors[number] < limit:
            return step.reply(refused, "5.1.1 no")
        step.reply(421, "4.7.0 too many errors")
        await step.connection.close()

    return action


@WINDOWS
@every_loop
async def test_five_good_messages_behind_twelve_refused_ones_arrive_once(window: int) -> None:
    async with speaking() as server, client_of(server, pool=one(window)) as client:
        server.on("RCPT", strict(10, 550), match="bad")
        messages = [mail(f"bad{n}") for n in range(12)] + [mail(f"good{n}") for n in range(5)]
        pairs = await send_all(client, messages, options=SendOptions(must_accept=NOBODY))
        receipts = {str(message.subject).split()[-1]: receipt.outcome for message, receipt in pairs}
        assert {receipts[f"good{n}"] for n in range(5)} == {Outcome.ACCEPTED}
        assert {receipts[f"bad{n}"] for n in range(12)} <= {Outcome.REFUSED, Outcome.NOT_SENT}
        assert client.statistics().unknown == 0
    assert Counter(subjects(server)) == {f"message good{n}": 1 for n in range(5)}


# --- many callers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 16], ids=["level 2", "window"])
@pytest.mark.parametrize("seed", range(2))
async def test_of_1000_callers_a_random_third_is_cancelled(window: int, seed: int) -> None:
    chance = random.Random(seed)
    pool = PoolLimits(max_connections=5, window=window)
    async with speaking(keep_raw=False) as server, client_of(server, pool=pool) as client:
        tasks = {n: asyncio.create_task(client.send(mail(n))) for n in range(1000)}
        victims = chance.sample(sorted(tasks), 333)
        for victim in victims:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            tasks[victim].cancel()
        results = dict(zip(tasks, await gathered(*tasks.values()), strict=True))
        await client.send(mail("B"))
        arrived = Counter(subjects(server))
        cancelled = {n for n, result in results.items() if isinstance(result, asyncio.CancelledError)}
        assert cancelled <= set(victims) and len(cancelled) > 20
        for n, result in results.items():
            if n in cancelled:
                assert arrived[f"message {n}"] <= 1
            else:
                assert result.outcome is Outcome.ACCEPTED and arrived[f"message {n}"] == 1
        assert arrived["message B"] == 1
        statistics = client.statistics()
        assert (statistics.waiting, statistics.opening, statistics.unknown) == (0, 0, 0)


# --- windows, end to end -------------------------------------------------------------------------------------


class TestWindow:
    @every_loop
    async def test_it_grows_and_saves_round_trips(self) -> None:
        async with speaking() as server, client_of(server, pool=one(64)) as client:
            pairs = await send_all(client, [mail(n) for n in range(500)])
            assert {receipt.outcome for _, receipt in pairs} == {Outcome.ACCEPTED}
            assert server.connections[0].flights < 40
            assert all(message.chunked for message in server.messages)
        assert subjects(server) == [f"message {n}" for n in range(500)]

    async def test_no_more_messages_are_unanswered_than_it_allows(self) -> None:
        most = 0
        async with speaking() as server, client_of(server, pool=one(4)) as client:
            await warm(client)
            server.on("BDAT", swallow(), close(), nth=5, connection=0)
            pairs = await send_all(client, [mail(n) for n in range(40)])
            unknown = [m.subject for m, r in pairs if r.outcome is Outcome.UNKNOWN]
            most = len(unknown)
            assert 1 <= most <= 4
        arrived = Counter(subjects(server))
        assert all(arrived[str(m.subject)] == 1 for m, r in pairs if r.outcome is Outcome.ACCEPTED)
        assert max(arrived.values()) == 1

    @every_loop
    async def test_a_refusal_is_followed_by_caution(self) -> None:
        """After a refused message the next one is sent envelope first, and alone."""
        async with speaking() as server, client_of(server, pool=one(64)) as client:
            await warm(client)
            server.on("RCPT", reply(550, "5.1.1 no"), match="bad")
            messages = [mail(n) for n in range(20)]
            messages.insert(10, mail("bad"))
            pairs = await send_all(client, messages)
            assert Counter(r.outcome for _, r in pairs) == {Outcome.ACCEPTED: 20, Outcome.REFUSED: 1}
            assert client.statistics().reconnects == 0
        assert subjects(server)[8:] == [f"message {n}" for n in range(20)]
        assert all(message.mail_from == "ann@example.com" for message in server.messages)

    async def test_a_server_without_chunking_gets_data(self) -> None:
        async with speaking(extensions=["PIPELINING"]) as server, client_of(server, pool=one(64)) as client:
            pairs = await send_all(client, [mail(n) for n in range(20)])
            assert {receipt.outcome for _, receipt in pairs} == {Outcome.ACCEPTED}
        assert "BDAT" not in server.verbs()

    async def test_a_server_without_pipelining_gets_one_at_a_time(self) -> None:
        async with speaking(extensions=["CHUNKING"]) as server, client_of(server, pool=one(64)) as client:
            pairs = await send_all(client, [mail(n) for n in range(5)])
            assert {receipt.outcome for _, receipt in pairs} == {Outcome.ACCEPTED}

    async def test_chunking_can_be_switched_off(self) -> None:
        async with speaking() as server, client_of(server, pool=one(64), chunking=False) as client:
            await send_all(client, [mail(n) for n in range(5)])
        assert "BDAT" not in server.verbs()

    async def test_without_rset_a_refusal_costs_a_connection(self) -> None:
        async with speaking() as server, client_of(server, pool=one(8), send_rset=False) as client:
            server.on("RCPT", reply(550, "5.1.1 no"), match="user[37]@")
            pairs = await send_all(client, [mail(n) for n in range(12)])
            assert Counter(r.outcome for _, r in pairs) == {Outcome.ACCEPTED: 10, Outcome.REFUSED: 2}
        assert "RSET" not in server.verbs()
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(12) if n not in (3, 7)}

    async def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        async with (
            speaking(lmtp=True) as server,
            client_of(server, pool=one(8), lmtp=True) as client,
        ):
            server.on("BDAT", reply(552, "5.2.2 full"), match="full@")
            messages = [mail(n, to=[f"user{n}@example.org", "full@example.org"]) for n in range(12)]
            pairs = await send_all(client, messages, options=SendOptions(must_accept=NOBODY))
            assert {receipt.outcome for _, receipt in pairs} == {Outcome.PARTIAL}
            assert all(len(r.accepted) == len(r.refused) == 1 for _, r in pairs)
        assert [m.rcpt_tos for m in server.messages] == [[f"user{n}@example.org"] for n in range(12)]

    async def test_hooks_see_the_command_of_a_chunk_and_never_its_octets(self) -> None:
        trail: list[PITrail] = []
        async with speaking() as server, client_of(server, pool=one(8)) as client:
            client.on(PITrail, trail.append)
            await send_all(client, [mail(n, text="s3cret") for n in range(3)])
        chunks = [event.message for event in trail if event.message.startswith("BDAT")]
        assert len(chunks) == 3 and all(line.endswith(" LAST") for line in chunks)
        assert not any("s3cret" in str(event) for event in trail)

    async def test_what_was_never_handed_over_is_sent_again(self) -> None:
        """A connection that dies with several messages on it: those behind a 421 come back in their order."""
        async with speaking() as server, client_of(server, pool=one(8)) as client:
            await warm(client)
            server.on("MAIL", reply(421, "4.3.2 bye"), close(), nth=4, connection=0)
            pairs = await send_all(client, [mail(n) for n in range(20)])
            assert {receipt.outcome for _, receipt in pairs} == {Outcome.ACCEPTED}
            assert client.statistics().reconnects >= 1
        assert subjects(server)[8:] == [f"message {n}" for n in range(20)]


# --- cancelling in a window ----------------------------------------------------------------------------------


@every_loop
async def test_a_cancelled_caller_in_a_window_does_not_change_other_outcomes() -> None:
    gate = asyncio.Event()
    async with speaking() as server, client_of(server, pool=one(8)) as client:
        await warm(client)
        server.on("BDAT", delay(gate), default(), nth=1, connection=0)
        tasks = [asyncio.create_task(client.send(mail(n))) for n in range(30)]
        await server.wait_until(lambda: server.verbs().count("BDAT") > 8)
        for n in (0, 3, 15, 29):
            tasks[n].cancel()
        await turns()
        gate.set()
        results = await gathered(*tasks)
        assert [n for n, r in enumerate(results) if isinstance(r, BaseException)] == [0, 3, 15, 29]
        arrived = Counter(subjects(server))
        assert all(arrived[f"message {n}"] == 1 for n in range(30) if n not in (0, 3, 15, 29))
        assert arrived["message 29"] == 0
        assert max(arrived.values()) == 1


@pytest.mark.parametrize("window", [1, 8], ids=["level 2", "window"])
async def test_deadlines_in_a_window_tell_not_sent_from_unknown(window: int) -> None:
    gate = asyncio.Event()
    async with speaking() as server, client_of(server, pool=one(window)) as client:
        await warm(client)
        server.on("BDAT" if window > 1 else ".", delay(gate), default(), nth=1)
        results = await gathered(*(client.send(mail(n), deadline=0.2) for n in range(30)))
        kinds = Counter(type(result) for result in results)
        assert set(kinds) == {NotSent, OutcomeUnknown}
        assert 1 <= kinds[OutcomeUnknown] <= window
        gate.set()
        await client.send(mail("B"))
        arrived = Counter(subjects(server))
        for n, result in enumerate(results):
            assert arrived[f"message {n}"] <= isinstance(result, OutcomeUnknown)


async def test_a_client_survives_a_server_that_comes_back() -> None:
    async with ScriptedServer() as server:
        port = server.port
        client = client_of(server, pool=one())
        await send_all(client, [mail(n) for n in range(10)])
    with pytest.raises((CommunicationError, NotSent)):
        await client.send(mail(11))
    async with ScriptedServer(port=port) as server:
        async with asyncio.timeout(PATIENCE):
            assert (await client.send(mail(12))).outcome is Outcome.ACCEPTED
        await client.close()


@pytest.mark.parametrize("ending", [raw(b"nonsense\r\n"), reset()], ids=["nonsense", "reset"])
async def test_a_body_asked_for_by_a_connection_that_dies_at_once_goes_over_another(ending: Any) -> None:
    """The caller was told to write, and before its turn comes another connection has begun the message anew."""
    async with ScriptedServer() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
        await gathered(*(client.send(mail(n)) for n in range(6)))
        await until(lambda: client.statistics().idle == 2)
        server.on("DATA", default(), ending, nth=1)
        receipts = await gathered(client.send(mail("large", text="x" * 70 + "\n" * 100_000)))
        assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED], receipts
        assert subjects(server).count("message large") == 1
