"""send_all: any input, receipts as they come, constant memory, and an end that harms nobody."""

import asyncio
import gc
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from smtp_async import (
    Credentials,
    Message,
    NotSent,
    Outcome,
    PoolLimits,
    Raw,
    Receipt,
    RecipientsRefused,
    SendOptions,
    SMTPClient,
    SMTPError,
    Timeouts,
)
from smtp_async.connection.send_job import SendJob
from smtp_async.errors import (
    AuthenticationFailed,
    CommunicationError,
    InvalidArgument,
    MissingRecipient,
    NotConnected,
    QueueFull,
    UsageError,
)
from smtp_async.events import Abandoned
from smtp_async.protocol.transaction import Transaction
from smtp_async.testing import (
    CancelManner,
    CancelMoment,
    RecordingSink,
    ScriptedServer,
    cancellations,
    close,
    default,
    delay,
    reply,
    swallow,
)
from tests.lab import (
    PATIENCE,
    SENDER,
    client_of,
    demand_nothing_left,
    every_loop,
    gathered,
    mail,
    other_tasks,
    pool_of,
    sockets,
    speaking,
    turns,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

LARGE = "0123456789 0123456789\n" * 10_000
WINDOWS = pytest.mark.parametrize("window", [1, 8])


def one(window: int = 1, **more: Any) -> PoolLimits:
    return PoolLimits(max_connections=1, window=window, **more)


def subjects(server: ScriptedServer) -> list[str]:
    return [message.subject for message in server.messages]


def numbered(count: int) -> Iterator[Message]:
    return (mail(n) for n in range(count))


class Endless:
    """Numbered messages without an end.

    Attributes:
        pulled: how many were asked for.
    """

    def __init__(self) -> None:
        self.pulled = 0

    def __iter__(self) -> Iterator[Message]:
        for n in itertools.count():
            self.pulled += 1
            yield mail(n)


async def one_by_one(messages: Iterable[Any]) -> AsyncIterator[Any]:
    for message in messages:
        await asyncio.sleep(0)
        yield message


async def everything(client: SMTPClient, messages: Any, **options: Any) -> list[tuple[Any, Receipt]]:
    async with asyncio.timeout(PATIENCE):
        return [pair async for pair in client.send_all(messages, **options)]


def outcomes(pairs: list[tuple[Any, Receipt]]) -> Counter[Outcome]:
    return Counter(receipt.outcome for _, receipt in pairs)


class TestInput:
    @WINDOWS
    @every_loop
    async def test_an_iterator_a_list_and_an_async_generator(self, window: int) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(window=window)) as client:
            for messages in (numbered(30), list(numbered(30)), one_by_one(numbered(30))):
                pairs = await everything(client, messages)
                assert outcomes(pairs) == {Outcome.ACCEPTED: 30}
                assert {message.subject for message, _ in pairs} == {f"message {n}" for n in range(30)}
                assert all(str(r.verdicts[0].recipient.address) == m.to[0].addr_spec for m, r in pairs)
            assert Counter(subjects(server)) == {f"message {n}": 3 for n in range(30)}

    @every_loop
    async def test_nothing_to_send(self) -> None:
        async with speaking() as server, client_of(server) as client:
            assert await everything(client, []) == []
            assert await everything(client, one_by_one([])) == []
            assert server.connections.opened == 0

    async def test_every_kind_of_message(self) -> None:
        foreign = EmailMessage()
        foreign["From"], foreign["To"], foreign["Subject"] = SENDER, "bob@example.org", "foreign"
        foreign.set_content("x")
        raw = Raw(b"Subject: raw\r\n\r\nx\r\n", sender=SENDER, recipients=["carol@example.org"])
        headed = Raw(b"From: dave@example.com\r\nTo: erin@example.org\r\nSubject: headed\r\n\r\nx\r\n")
        kinds = [mail(1), foreign, raw, headed]
        async with speaking() as server, client_of(server, pool=one()) as client:
            pairs = await everything(client, kinds)
        assert [message for message, _ in pairs] == kinds
        assert [m.mail_from for m in server.messages] == [SENDER, SENDER, SENDER, "dave@example.com"]
        assert [m.rcpt_tos[0].split("@")[0] for m in server.messages] == ["user1", "bob", "carol", "erin"]

    @WINDOWS
    async def test_large_bodies_among_small_ones(self, window: int) -> None:
        messages = [mail(n, text=LARGE if n % 5 == 2 else "x") for n in range(20)]
        async with speaking() as server, client_of(server, pool=PoolLimits(window=window)) as client:
            pairs = await everything(client, messages)
            assert outcomes(pairs) == {Outcome.ACCEPTED: 20}
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(20)}
        assert sum(len(m.data) > 200_000 for m in server.messages) == 4

    async def test_the_options_of_the_call_apply(self) -> None:
        two = Message(sender=SENDER, to=["bob@example.org", "bad@example.org"], subject="two", text="x")
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(550, "5.1.1 no"), match="bad@")
            ((_, refused),) = await everything(client, [two])
            nobody = SendOptions(must_accept=frozenset())
            ((_, partial),) = await everything(client, [two], options=nobody)
        assert (refused.outcome, partial.outcome) == (Outcome.REFUSED, Outcome.PARTIAL)

    async def test_an_input_that_is_not_iterable_is_refused_at_once(self) -> None:
        async with speaking() as server, client_of(server) as client:
            with pytest.raises(TypeError):
                client.send_all(42)  # type: ignore[call-overload, arg-type, unused-ignore]


class TestOrder:
    @WINDOWS
    @every_loop
    async def test_over_one_connection_messages_end_in_their_order(self, window: int) -> None:
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            pairs = await everything(client, numbered(60))
        assert [message.subject for message, _ in pairs] == subjects(server)
        assert subjects(server) == [f"message {n}" for n in range(60)]

    async def test_a_slow_message_is_overtaken(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            slow = server.on("RCPT", delay(gate), default(), match="user0@")
            order = []
            async with asyncio.timeout(PATIENCE):
                async for message, _ in client.send_all(numbered(10)):
                    order.append(message.subject)
                    if len(order) >= 5:
                        gate.set()
            assert slow.fired == 1
        assert set(order) == {f"message {n}" for n in range(10)} and len(order) == 10
        assert order[0] != "message 0"

    @WINDOWS
    async def test_level_2_costs_one_round_trip_each_and_a_window_less(self, window: int) -> None:
        count = 64
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            await everything(client, numbered(count))
            flights = server.connections[0].flights
            assert flights <= count + 4 if window == 1 else flights <= count // 4 + 8


class TestLookAhead:
    @pytest.mark.parametrize(("limits", "capacity"), [((1, 1), 2), ((3, 1), 6), ((2, 8), 16)])
    @pytest.mark.parametrize("wrap", [iter, one_by_one], ids=["plain", "async"])
    async def test_an_endless_input_is_pulled_so_far_and_no_further(
        self, limits: tuple[int, int], capacity: int, wrap: Callable[[Iterable[Any]], Any]
    ) -> None:
        pulled = ended = most = 0

        def endless() -> Iterator[Message]:
            nonlocal pulled, most
            for n in itertools.count():
                pulled += 1
                most = max(most, pulled - ended)
                yield mail(n)

        pool = PoolLimits(max_connections=limits[0], window=limits[1])
        async with speaking() as server, client_of(server, pool=pool) as client:
            async for _, receipt in client.send_all(wrap(endless())):
                assert receipt.outcome is Outcome.ACCEPTED
                ended += 1
                if ended == 200:
                    break
        # The one that is being shown has given its place away.
        assert capacity < most <= 2 * capacity + 1

    async def test_while_nothing_ends_nothing_more_is_pulled(self) -> None:
        gate = asyncio.Event()
        endless = Endless()
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("MAIL", delay(gate), default())
            sending = client.send_all(endless)
            first = asyncio.ensure_future(anext(sending))
            await server.wait_until(lambda: "MAIL" in server.verbs())
            await turns()
            assert endless.pulled == 4
            gate.set()
            await first
            sending.cancel()

    async def test_a_slow_consumer_slows_the_input(self) -> None:
        endless = Endless()
        async with speaking() as server, client_of(server, pool=one()) as client:
            shown = 0
            async for _ in client.send_all(endless):
                shown += 1
                await turns(30)
                assert endless.pulled <= shown + 4
                if shown == 30:
                    break

    async def test_memory_is_constant(self) -> None:
        """6,000 messages, with the collector off: nothing may even wait for it."""

        def alive(kind: type) -> int:
            return sum(isinstance(found, kind) for found in gc.get_objects())

        async with RecordingSink() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
            before = alive(SendJob), alive(Transaction), alive(Receipt)
            message = Raw(b"Subject: x\r\n\r\nx\r\n", sender=SENDER, recipients=["bob@example.org"])
            seen = []
            gc.collect()
            gc.disable()
            try:
                async with asyncio.timeout(15):
                    count = 0
                    async for _ in client.send_all(itertools.repeat(message, 6_000)):
                        count += 1
                        if count % 1000 == 0:
                            server.clear()
                            if count % 2000 == 0:
                                seen.append((alive(SendJob), alive(Transaction), alive(Receipt)))
            finally:
                gc.enable()
            assert count == client.statistics().sent == 6_000
        bound = 2 * 8 + 20
        for numbers in seen:
            assert all(now - was <= bound for now, was in zip(numbers, before, strict=True)), seen


class TestBadMessages:
    @WINDOWS
    @every_loop
    async def test_one_bad_message_is_a_receipt_with_its_error(self, window: int) -> None:
        nowhere = Message(sender=SENDER, subject="nowhere", text="x")
        messages = [mail(1), nowhere, mail("refused"), mail(2), object(), mail(3)]
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            server.on("RCPT", reply(550, "5.1.1 no"), match="refused@")
            pairs = await everything(client, messages)
        by = {id(message): receipt for message, receipt in pairs}
        receipts = [by[id(message)] for message in messages]
        assert [r.outcome for r in receipts] == [
            Outcome.ACCEPTED,
            Outcome.NOT_SENT,
            Outcome.REFUSED,
            Outcome.ACCEPTED,
            Outcome.NOT_SENT,
            Outcome.ACCEPTED,
        ]
        assert isinstance(receipts[1].error, MissingRecipient)
        assert isinstance(receipts[2].error, RecipientsRefused)
        assert isinstance(receipts[4].error, InvalidArgument)
        assert sorted(subjects(server)) == ["message 1", "message 2", "message 3"]

    async def test_a_message_that_is_too_large_for_the_server(self) -> None:
        async with (
            speaking(extensions=["PIPELINING", "SIZE 5000"]) as server,
            client_of(server, pool=one()) as client,
        ):
            pairs = await everything(client, [mail(1), mail(2, text="x\n" * 5000), mail(3)])
            assert outcomes(pairs) == {Outcome.ACCEPTED: 2, Outcome.NOT_SENT: 1}
        assert subjects(server) == ["message 1", "message 3"]

    async def test_nothing_but_bad_messages_does_not_stop(self) -> None:
        async with speaking() as server, client_of(server) as client:
            pairs = await everything(client, [object() for _ in range(1000)])
            assert len(pairs) == 1000
            assert server.connections.opened == 0

    async def test_a_message_with_unknown_outcome_has_a_receipt_and_is_not_sent_again(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on(".", swallow(), close(), nth=3)
            pairs = await everything(client, numbered(6))
        assert outcomes(pairs) == {Outcome.ACCEPTED: 5, Outcome.UNKNOWN: 1}
        assert Counter(subjects(server)) == {f"message {n}": 1 for n in range(6)}


class TestFailure:
    @every_loop
    async def test_a_dead_server_raises_and_does_not_spin(self) -> None:
        async with ScriptedServer() as server:
            port = server.port
        endless = Endless()
        async with client_of(server, port=port, pool=one()) as client:
            receipts = []
            with pytest.raises(CommunicationError):
                async with asyncio.timeout(PATIENCE):
                    async for _, receipt in client.send_all(endless):
                        receipts.append(receipt)
            assert {receipt.outcome for receipt in receipts} == {Outcome.NOT_SENT}
            # With eager tasks the refused connection is known before a second message is taken.
            assert 1 <= len(receipts) == endless.pulled <= 4

    async def test_a_server_that_dies_on_the_way_raises_after_the_receipts(self) -> None:
        patience = Timeouts(queue=0.3)
        async with speaking() as server, client_of(server, pool=one(), timeouts=patience) as client:
            server.on("MAIL", close(), nth=range(11, 100))
            server.on("GREETING", close(), nth=range(2, 100))
            receipts = []
            with pytest.raises(SMTPError):
                async with asyncio.timeout(PATIENCE):
                    async for _, receipt in client.send_all(numbered(1000)):
                        receipts.append(receipt.outcome)
            assert receipts == [Outcome.ACCEPTED] * 10 + [Outcome.NOT_SENT] * 4
            assert len(server.messages) == 10

    async def test_after_a_failure_the_iteration_is_over(self) -> None:
        async with ScriptedServer() as server:
            port = server.port
        async with client_of(server, port=port, pool=one()) as client:
            sending = client.send_all(numbered(1))
            assert (await anext(sending))[1].outcome is Outcome.NOT_SENT
            with pytest.raises(CommunicationError):
                await anext(sending)
            with pytest.raises(StopAsyncIteration):
                await anext(sending)

    @every_loop
    async def test_a_wrong_password_raises(self) -> None:
        async with speaking(users={"ann": "right"}) as server:
            credentials = Credentials(username="ann", password="wrong", allow_cleartext=True)
            async with client_of(server, credentials=credentials) as client:
                receipts = []
                with pytest.raises(AuthenticationFailed):
                    async for _, receipt in client.send_all(numbered(1000)):
                        receipts.append(receipt.outcome)
                assert set(receipts) == {Outcome.NOT_SENT}
                assert len(receipts) <= 2 * 20
                with pytest.raises(AuthenticationFailed):
                    await everything(client, numbered(5))
        assert server.verbs().count("AUTH") <= 10

    @pytest.mark.parametrize("wrap", [iter, one_by_one], ids=["plain", "async"])
    @WINDOWS
    async def test_an_input_that_raises_does_so_after_the_receipts(
        self, wrap: Callable[[Iterable[Any]], Any], window: int
    ) -> None:
        def broken() -> Iterator[Message]:
            yield from numbered(7)
            raise ZeroDivisionError("mine")

        async with speaking() as server, client_of(server, pool=one(window)) as client:
            receipts = []
            with pytest.raises(ZeroDivisionError, match="mine"):
                async for _, receipt in client.send_all(wrap(broken())):
                    receipts.append(receipt.outcome)
            assert receipts == [Outcome.ACCEPTED] * 7
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED

    async def test_the_client_closed_meanwhile_raises_after_the_receipts(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server:
            client = client_of(server, pool=one())
            server.on(".", delay(gate), default(), nth=2)
            sending = client.send_all(itertools.cycle([mail(1)]))
            assert (await anext(sending))[1].outcome is Outcome.ACCEPTED
            closing = asyncio.create_task(client.close())
            await turns()
            gate.set()
            receipts = []
            with pytest.raises((NotConnected, CommunicationError)):
                async with asyncio.timeout(PATIENCE):
                    async for _, receipt in sending:
                        receipts.append(receipt.outcome)
            await closing
            assert len(server.messages) == 1 + receipts.count(Outcome.ACCEPTED)

    async def test_of_a_closed_client_there_is_none(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            await client.close()
            with pytest.raises(NotConnected):
                client.send_all([])


class TestLeaving:
    @WINDOWS
    @every_loop
    async def test_a_break_sends_no_more_and_leaves_nothing_behind(self, window: int) -> None:
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            async for _ in client.send_all(numbered(1000)):
                break
            gc.collect()
            await until(lambda: client.statistics().busy == 0)
            after = len(server.messages)
            assert after <= 4 * window
            assert client.statistics().waiting == 0
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
            assert subjects(server) == [f"message {n}" for n in range(after)] + ["message B"]
            pooled = {session.task for session in pool_of(client).connections.open}
            assert other_tasks() == pooled | server_tasks(server)

    async def test_messages_on_the_wire_run_to_their_end_and_are_reported_as_abandoned(self) -> None:
        abandoned: list[Abandoned] = []
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=one()) as client:
            client.on(Abandoned, abandoned.append)
            server.on(".", delay(gate), default(), nth=2)
            async for _ in client.send_all(numbered(100)):
                await server.wait_until(lambda: server.verbs().count(".") == 2)
                break
            gc.collect()
            gate.set()
            await until(lambda: client.statistics().busy == 0)
            assert [event.receipt.outcome for event in abandoned][:1] == [Outcome.ACCEPTED]
            assert len(server.messages) == 1 + sum(e.receipt.outcome is Outcome.ACCEPTED for e in abandoned)

    async def test_an_iterator_that_was_never_begun_or_is_kept_does_nothing(self) -> None:
        async with speaking() as server, client_of(server) as client:
            client.send_all(numbered(10))
            kept = client.send_all(numbered(10))
            await turns()
            assert server.connections.opened == 0
            kept.cancel()
            with pytest.raises(StopAsyncIteration):
                await anext(kept)

    async def test_cancel_is_final_and_may_come_twice(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            sending = client.send_all(numbered(100))
            await anext(sending)
            sending.cancel()
            sending.cancel()
            rest = [pair async for pair in sending]
            assert len(rest) <= 4
            await until(lambda: client.statistics().busy == 0)
            assert len(server.messages) <= 6

    async def test_an_exception_in_the_loop_is_safe_too(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            with pytest.raises(ZeroDivisionError):
                async for _ in client.send_all(numbered(1000)):
                    raise ZeroDivisionError
            gc.collect()
            await until(lambda: client.statistics().busy == 0)
            assert len(server.messages) <= 4

    async def test_a_second_task_is_refused(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("MAIL", delay(gate), default(), nth=1)
            sending = client.send_all(numbered(5))
            first = asyncio.ensure_future(anext(sending))
            await turns()
            with pytest.raises(UsageError, match="one task"):
                await anext(sending)
            gate.set()
            await first
            assert len([pair async for pair in sending]) == 4


class Watched:
    """An async generator that tells how far it was pulled and how it ended; it waits before each message.

    Args:
        count: how many messages; None: without end.
        stop: before which message to wait for ever, and to say so in `stands`.
    """

    def __init__(self, count: int | None = None, *, stop: int | None = None) -> None:
        self.count = count
        self.stop = stop
        self.stands = asyncio.Event()
        self.pulled = 0
        self.begun = False
        self.closed = False
        self.task: asyncio.Task[Any] | None = None
        self.closed_in: asyncio.Task[Any] | None = None

    async def __call__(self) -> AsyncIterator[Message]:
        self.begun, self.task = True, asyncio.current_task()
        try:
            for n in itertools.count() if self.count is None else range(self.count):
                await asyncio.sleep(0)
                if n == self.stop:
                    self.stands.set()
                    await asyncio.Event().wait()
                self.pulled += 1
                yield mail(f"A{n}")
        finally:
            self.closed_in = asyncio.current_task()
            try:
                await asyncio.sleep(0)
            finally:
                self.closed = True

    async def demand_closed(self, before: set[asyncio.Task[Any]]) -> None:
        """Its own task closed it, and no source's task is left."""
        await until(lambda: self.closed or not self.begun)
        assert self.closed_in is self.task
        await until(lambda: not source_tasks() - before)


def source_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in other_tasks() if task.get_name() == "smtp_async source"}


class TestAsyncSource:
    """One that waits holds back nothing."""

    @WINDOWS
    @every_loop
    async def test_the_first_receipt_comes_while_a_queue_waits(self, window: int) -> None:
        queue: asyncio.Queue[Message | None] = asyncio.Queue()

        async def drain() -> AsyncIterator[Message]:
            while (message := await queue.get()) is not None:
                yield message

        async with speaking() as server, client_of(server, pool=one(window)) as client:
            sending = client.send_all(drain())
            async with asyncio.timeout(PATIENCE):
                for n in range(5):
                    queue.put_nowait(mail(n))
                    message, receipt = await anext(sending)
                    assert (message.subject, receipt.outcome) == (f"message {n}", Outcome.ACCEPTED)
                    assert len(source_tasks()) == 1
                queue.put_nowait(None)
                with pytest.raises(StopAsyncIteration):
                    await anext(sending)
            assert source_tasks() == set()

    @every_loop
    async def test_a_large_body_is_written_while_the_source_waits(self) -> None:
        never = asyncio.Event()

        async def source() -> AsyncIterator[Message]:
            yield mail(1, text=LARGE)
            await never.wait()

        async with speaking() as server, client_of(server, pool=one()) as client:
            sending = client.send_all(source())
            async with asyncio.timeout(PATIENCE):
                assert (await anext(sending))[1].outcome is Outcome.ACCEPTED
            sending.cancel()
            await until(lambda: not source_tasks())

    @WINDOWS
    @every_loop
    async def test_one_that_waits_for_receipts_of_earlier_messages_goes_on(self, window: int) -> None:
        shown: asyncio.Queue[Message] = asyncio.Queue()

        async def source() -> AsyncIterator[Message]:
            for n in range(20):
                message = mail(n)
                yield message
                assert await shown.get() is message

        async with speaking() as server, client_of(server, pool=one(window)) as client:
            async with asyncio.timeout(PATIENCE):
                async for message, receipt in client.send_all(source()):
                    assert receipt.outcome is Outcome.ACCEPTED
                    shown.put_nowait(message)
            assert subjects(server) == [f"message {n}" for n in range(20)]

    @every_loop
    async def test_an_endless_one_is_pulled_as_far_as_there_is_room(self) -> None:
        gate = asyncio.Event()
        source = Watched()
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("MAIL", delay(gate), default(), nth=1)
            sending = client.send_all(source())
            first = asyncio.ensure_future(anext(sending))
            await until(lambda: source.pulled == 4)
            await turns(50)
            assert source.pulled == 4
            gate.set()
            await first
            # Receipts that nobody takes keep their places.
            await until(lambda: len(server.messages) == 4)
            await turns(50)
            assert source.pulled == 4
            for shown in range(2, 30):
                await anext(sending)
                await turns()
                assert source.pulled <= shown + 4
            sending.cancel()
            await source.demand_closed(set())

    @every_loop
    async def test_one_that_never_waits_is_pulled_as_far_as_there_is_room(self) -> None:
        pulled = shown = 0

        async def endless() -> AsyncIterator[Message]:
            nonlocal pulled
            for n in itertools.count():
                pulled += 1
                assert pulled <= shown + 4
                yield mail(n)

        async with speaking() as server, client_of(server, pool=one()) as client:
            async for _ in client.send_all(endless()):
                shown += 1
                if shown == 50:
                    break
            await until(lambda: not source_tasks())

    @pytest.mark.parametrize("stop", [None, 6], ids=["at its yield", "at its await"])
    @every_loop
    async def test_a_break_closes_the_source_in_its_task(self, stop: int | None) -> None:
        source = Watched(stop=stop)
        async with speaking() as server, client_of(server, pool=one()) as client:
            async for message, _ in client.send_all(source()):
                if message.subject == "message A3":
                    break
            await source.demand_closed(set())

    @pytest.mark.parametrize("stop", [None, 6], ids=["at its yield", "at its await"])
    @every_loop
    async def test_an_exception_in_the_loop_closes_it(self, stop: int | None) -> None:
        source = Watched(stop=stop)
        async with speaking() as server, client_of(server, pool=one()) as client:
            with pytest.raises(ZeroDivisionError):
                async for message, _ in client.send_all(source()):
                    if message.subject == "message A3":
                        raise ZeroDivisionError
            await source.demand_closed(set())

    @every_loop
    async def test_a_cancel_by_the_source_itself_closes_it(self) -> None:
        async def source() -> AsyncIterator[Message]:
            yield mail(1)
            sending.cancel()
            await asyncio.Event().wait()

        watched = Watched(stop=2)
        async with speaking() as server, client_of(server, pool=one()) as client:
            sending = client.send_all(watched())
            await anext(sending)
            await watched.stands.wait()
            sending.cancel()
            sending.cancel()
            await watched.demand_closed(set())
            sending = client.send_all(source())
            async with asyncio.timeout(PATIENCE):
                assert len([pair async for pair in sending]) <= 1
            await until(lambda: not source_tasks())

    @every_loop
    async def test_one_that_was_never_begun_has_no_task(self) -> None:
        source = Watched()
        async with speaking() as server, client_of(server) as client:
            client.send_all(source())
            kept = client.send_all(source())
            await turns()
            assert not source_tasks()
            kept.cancel()
            assert [pair async for pair in kept] == []
            assert not source.begun

    @every_loop
    async def test_a_source_that_is_not_a_generator_is_left_open(self) -> None:
        class Stream:
            closed = False

            def __aiter__(self) -> "Stream":
                return self

            async def __anext__(self) -> Message:
                return mail()

            async def aclose(self) -> None:
                self.closed = True

        stream = Stream()
        async with speaking() as server, client_of(server, pool=one()) as client:
            async for _ in client.send_all(stream):
                break
            await until(lambda: not source_tasks())
            assert not stream.closed

    @WINDOWS
    @every_loop
    async def test_an_error_of_the_source_comes_after_the_receipts(self, window: int) -> None:
        gate = asyncio.Event()

        async def broken() -> AsyncIterator[Message]:
            for n in range(3):
                yield mail(n)
            gate.set()
            raise ZeroDivisionError("mine")

        async with speaking() as server, client_of(server, pool=one(window)) as client:
            server.on("MAIL", delay(gate), default(), nth=1)
            receipts = []
            with pytest.raises(ZeroDivisionError, match="mine"):
                async with asyncio.timeout(PATIENCE):
                    async for _, receipt in client.send_all(broken()):
                        receipts.append(receipt.outcome)
            assert receipts == [Outcome.ACCEPTED] * 3
            assert not source_tasks()

    @every_loop
    async def test_a_dead_server_ends_the_input_and_each_message_has_its_receipt(self) -> None:
        async with ScriptedServer() as server:
            port = server.port
        source = Watched()
        async with client_of(server, port=port, pool=one()) as client:
            receipts = []
            with pytest.raises(CommunicationError):
                async with asyncio.timeout(PATIENCE):
                    async for _, receipt in client.send_all(source()):
                        receipts.append(receipt.outcome)
            assert receipts == [Outcome.NOT_SENT] * source.pulled
            await source.demand_closed(set())

    @every_loop
    async def test_messages_pulled_before_the_connection_failed_have_their_receipts(self) -> None:
        """Both happen while the consumer is elsewhere."""
        go, stands = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[Message]:
            yield mail(0)
            await go.wait()
            yield mail(1)
            yield mail(2)
            stands.set()
            await asyncio.Event().wait()

        async with speaking() as server, client_of(server, pool=one()) as client:
            sending = client.send_all(source())
            async with asyncio.timeout(PATIENCE):
                assert (await anext(sending))[1].outcome is Outcome.ACCEPTED
                go.set()
                await stands.wait()
                sending._connection_failed(NotConnected("gone"))
                assert [(await anext(sending))[1].outcome for _ in "12"] == [Outcome.NOT_SENT] * 2
                with pytest.raises(NotConnected, match="gone"):
                    await anext(sending)
            await until(lambda: not source_tasks())
            assert subjects(server) == ["message 0"]

    @pytest.mark.parametrize("manner", CancelManner)
    @every_loop
    async def test_a_source_whose_task_is_cancelled_at_any_await_ends_the_iteration(
        self, manner: CancelManner
    ) -> None:
        """By somebody else, as the end of a program does it: the consumer does not wait for ever."""
        for at in itertools.count(1):
            awaits = 0

            async def pause(at: int = at) -> None:
                nonlocal awaits
                awaits += 1
                if awaits == at or (awaits > at and manner is CancelManner.UNTIL_DONE):
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                await asyncio.sleep(0)

            async def source() -> AsyncIterator[Message]:
                try:
                    for n in range(3):
                        await pause()  # noqa: B023 - called in this round only
                        yield mail(n)
                finally:
                    await pause()  # noqa: B023 - called in this round only

            async with speaking() as server, client_of(server, pool=one()) as client:
                receipts = []
                try:
                    async with asyncio.timeout(PATIENCE):
                        async for _, receipt in client.send_all(source()):
                            receipts.append(receipt.outcome)
                except asyncio.CancelledError:
                    assert awaits >= at
                else:
                    assert awaits < at
                assert receipts == [Outcome.ACCEPTED] * min(at - 1, 3)
                await until(lambda: not source_tasks())
            if awaits < at:
                return


def server_tasks(server: ScriptedServer) -> set[asyncio.Task[None]]:
    return set(server.tasks)


class TestGates:
    """`before_end_of_data`, in `send_all`."""

    @WINDOWS
    @every_loop
    async def test_one_that_waits_holds_only_its_own_message(self, window: int) -> None:
        gate = asyncio.Event()
        pool = PoolLimits(max_connections=2, window=window)

        async def wait() -> None:
            await gate.wait()

        async with speaking() as server, client_of(server, pool=pool) as client:
            held = asyncio.create_task(
                client.send(mail("held"), options=SendOptions(before_end_of_data=wait))
            )
            await server.wait_until(lambda: "RCPT" in server.verbs())
            pairs = await everything(client, numbered(30))
            assert outcomes(pairs) == {Outcome.ACCEPTED: 30}
            assert not held.done()
            assert "message held" not in subjects(server)
            gate.set()
            assert (await held).outcome is Outcome.ACCEPTED
            assert "message held" in subjects(server)

    @WINDOWS
    async def test_each_message_passes_its_gate_before_it_is_accepted(self, window: int) -> None:
        passed = 0
        async with speaking() as server, client_of(server, pool=PoolLimits(window=window)) as client:

            async def count() -> None:
                nonlocal passed
                await asyncio.sleep(0)
                passed += 1
                assert len(server.messages) < passed

            pairs = await everything(client, numbered(20), options=SendOptions(before_end_of_data=count))
            assert outcomes(pairs) == {Outcome.ACCEPTED: 20}
            assert passed == 20

    @WINDOWS
    @every_loop
    async def test_one_that_raises_means_not_sent_and_the_next_message_is_fine(self, window: int) -> None:
        turn = 0

        async def refuse() -> None:
            nonlocal turn
            turn += 1
            if turn == 2:
                raise LookupError("no lease")

        async with speaking() as server, client_of(server, pool=one(window)) as client:
            options = SendOptions(before_end_of_data=refuse)
            pairs = await everything(client, numbered(4), options=options)
            assert [r.outcome for _, r in pairs] == [
                Outcome.ACCEPTED,
                Outcome.NOT_SENT,
                Outcome.ACCEPTED,
                Outcome.ACCEPTED,
            ]
            error = pairs[1][1].error
            assert isinstance(error, NotSent)
            assert isinstance(error.__cause__, LookupError)
            with pytest.raises(NotSent) as caught:
                turn = 1
                await client.send(mail("B"), options=options)
            assert isinstance(caught.value.__cause__, LookupError)
        assert subjects(server) == ["message 0", "message 2", "message 3"]

    async def test_large_bodies_pass_their_gates_too(self) -> None:
        passed = []

        async def note() -> None:
            passed.append(1)

        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=3)) as client:
            pairs = await everything(
                client, (mail(n, text=LARGE) for n in range(6)), options=SendOptions(before_end_of_data=note)
            )
            assert outcomes(pairs) == {Outcome.ACCEPTED: 6}
        assert len(passed) == 6


# --- cancelling ----------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "small": {},
    "large": {"text": LARGE},
    "window": {"window": 8},
    "gated": {"gated": True},
    "async": {"asynchronous": True},
}


async def gate() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
@every_loop
async def test_cancelled_at_any_await(kind: str, manner: CancelManner, moment: CancelMoment) -> None:
    """The next message is right, each of the others arrived at most once, and nothing is left."""
    what = KINDS[kind]
    fields = {"text": what["text"]} if "text" in what else {}
    options = SendOptions(before_end_of_data=gate) if what.get("gated") else None
    pool = PoolLimits(max_connections=2, window=what.get("window", 1))
    current: SMTPClient

    async def scenario() -> None:
        messages: Any = [mail(f"A{n}", **fields) for n in range(4)]
        if what.get("asynchronous"):
            messages = one_by_one(messages)
        async for _ in current.send_all(messages, options=options):
            await asyncio.sleep(0)

    before = other_tasks(), sockets()
    async with speaking() as server:
        current = client_of(server, pool=pool)
        runs = 0
        async for run in cancellations(scenario, manner=manner, moment=moment):
            runs = run.at
            assert run.error is None or run.cancelled, run.error
            await demand_whole(current, server)
            current = client_of(server, pool=pool)
        await current.close()
        assert runs > 4
    await demand_nothing_left(*before)


@pytest.mark.parametrize("stop", [None, 2], ids=["ends", "stands"])
@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
@every_loop
async def test_cancelled_at_any_await_an_async_source_is_closed(
    stop: int | None, manner: CancelManner, moment: CancelMoment
) -> None:
    """Whether it waits for room, for its next message, or in its cleanup."""
    pool = PoolLimits(max_connections=1)
    current: SMTPClient
    source = Watched(4)

    async def scenario() -> None:
        sending = current.send_all(source())
        if stop is None:
            assert len([pair async for pair in sending]) == 4
            return
        for _ in range(stop):
            await anext(sending)
        await source.stands.wait()
        sending.cancel()

    before = other_tasks(), sockets()
    async with speaking() as server:
        runs = 0
        current = client_of(server, pool=pool)
        source = Watched(4, stop=stop)
        async for run in cancellations(scenario, manner=manner, moment=moment):
            runs = run.at
            assert run.error is None or run.cancelled, run.error
            await source.demand_closed(before[0])
            await demand_whole(current, server)
            current = client_of(server, pool=pool)
            source = Watched(4, stop=stop)
        await current.close()
        assert runs > 3
    await demand_nothing_left(*before)


async def demand_whole(client: SMTPClient, server: ScriptedServer) -> None:
    """After the cancellation one more message arrives, those before it at most once, and the client comes to rest."""
    async with asyncio.timeout(PATIENCE):
        assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
        await until(lambda: client.statistics().busy == client.statistics().opening == 0)
        assert client.statistics().waiting == 0
        await client.close()
        await server.wait_for_disconnect()
    arrived = Counter(subjects(server))
    assert arrived.pop("message B") == 1
    assert all(count == 1 for count in arrived.values()), arrived
    for message in server.messages:
        assert message.rcpt_tos == [f"user{message.subject.split()[-1]}@example.org"]
    server.messages.clear()


@every_loop
async def test_a_cancelled_iteration_sends_nothing_that_waits(no_leaks: None) -> None:
    hold = asyncio.Event()
    async with (
        speaking() as server,
        client_of(server, pool=one(), timeouts=Timeouts(close=2)) as client,
    ):
        server.on(".", delay(hold), default(), nth=1)
        task = asyncio.create_task(everything(client, numbered(100)))
        await server.wait_until(lambda: "." in server.verbs())
        task.cancel()
        (result,) = await gathered(task)
        assert isinstance(result, asyncio.CancelledError)
        assert client.statistics().waiting == 0
        hold.set()
        assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
        assert subjects(server)[-1] == "message B"
        assert len(server.messages) <= 3


class TestBounds:
    async def test_a_bounded_queue_is_not_filled_beyond_its_bound(self) -> None:
        async with speaking() as server, client_of(server, pool=one(max_waiting=2)) as client:
            pairs = await everything(client, numbered(20))
        assert outcomes(pairs) == {Outcome.ACCEPTED: 20}

    async def test_a_queue_that_others_fill_refuses_messages_not_the_connection(self) -> None:
        async with speaking() as server, client_of(server, pool=one(max_waiting=1)) as client:
            gate = asyncio.Event()
            server.on("GREETING", delay(gate), default())
            other = asyncio.create_task(client.send(mail("other")))
            await turns(2)
            whole = client.send_all(numbered(3))
            _, refused = await anext(whole)
            assert isinstance(refused.error, QueueFull)
            gate.set()
            await other
            assert outcomes([pair async for pair in whole])[Outcome.ACCEPTED] == 2

    async def test_a_job_that_was_to_be_prepared_is_not_sent_after_a_cancel(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            whole = client.send_all(numbered(4))
            pulling = asyncio.ensure_future(anext(whole))
            await until(lambda: whole._work)
            pulling.cancel()
            await asyncio.wait({pulling})
            assert [pair async for pair in whole] == []
            await turns(50)
        assert server.messages == []

    async def test_a_foreign_exception_of_a_mail_is_raised_and_the_mail_forgotten(self) -> None:
        class Broken(Message):
            def content(self, **abilities: Any) -> Any:
                raise ZeroDivisionError

        async with speaking() as server, client_of(server, pool=one()) as client:
            await client.send(mail("first"))
            whole = client.send_all([Broken(sender="ann@example.com", to="bob@example.org"), mail(2)])
            with pytest.raises(ZeroDivisionError):
                await anext(whole)
            async with asyncio.timeout(PATIENCE):
                assert outcomes([pair async for pair in whole]) == {Outcome.ACCEPTED: 1}
