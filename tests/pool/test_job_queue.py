"""job_queue.py: two lines, first come first served, and huge messages that do not starve small ones."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from smtp_async import Outcome, PoolLimits, SendOptions
from smtp_async.connection.send_job import SendJob
from smtp_async.model.content import Content
from smtp_async.model.envelope import Envelope
from smtp_async.pool.job_queue import JobQueue
from smtp_async.protocol.extensions import NO_EXTENSIONS
from smtp_async.testing import Step, delay
from tests.lab import client_of, every_loop, gathered, mail, speaking

HUGE = "0123456789 0123456789\n" * 100_000  # 2.2 MB
#: Its caller writes it, and it is rendered at once: what is rendered in a thread comes to the line later.
LARGE = "0123456789 0123456789\n" * 10_000  # 220 KB


class Planned:
    """A mail whose content is at hand."""

    def envelope(self) -> Envelope:
        return Envelope("ann@example.com", ["bob@example.org"])

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return Content.of_bytes(b"Subject: x\r\n\r\nx\r\n")


def job(number: int, *, streamed: bool = False, planned: bool = True) -> SendJob:
    made = SendJob(number, Planned(), SendOptions())
    if planned:
        made.server_offer = NO_EXTENSIONS
        made.prepare()
        assert made.transaction is not None
        if streamed:
            made.transaction.set_payload(None)
    return made


def line(*numbers: int) -> JobQueue:
    """Jobs by number; a negative one is streamed."""
    waiting = JobQueue()
    for number in numbers:
        waiting.append(job(number, streamed=number < 0))
    return waiting


def taken(waiting: JobQueue, *, may_stream: bool = True) -> list[int]:
    """The order in which a session that admits everything gets them."""
    numbers = []
    while (found := waiting.take(lambda _: True, lambda: may_stream)) is not None:
        numbers.append(found.number)
    return numbers


class TestOrder:
    def test_first_come_first_served_over_both_queues(self) -> None:
        assert taken(line(1, -2, 3, -4, -5, 6)) == [1, -2, 3, -4, -5, 6]

    def test_small_jobs_go_on_while_streamed_ones_must_wait(self) -> None:
        waiting = line(-1, 2, -3, 4)
        assert taken(waiting, may_stream=False) == [2, 4]
        assert taken(waiting) == [-1, -3]

    def test_jobs_that_return_go_to_the_head_the_last_one_first(self) -> None:
        waiting = line(1, -2, 3)
        waiting.push_front(job(-8, streamed=True))
        waiting.push_front(job(9))
        assert taken(waiting) == [9, -8, 1, -2, 3]

    def test_a_job_that_the_session_does_not_admit_stays_at_the_head(self) -> None:
        waiting = line(-1, 2)
        assert waiting.take(lambda t: t.payload is not None, lambda: True) is None
        assert taken(waiting) == [-1, 2]

    def test_whether_one_may_be_streamed_is_asked_only_if_one_waits(self) -> None:
        def never() -> bool:
            raise AssertionError("asked in vain")

        assert line(1).take(lambda _: True, never) is not None
        assert JobQueue().take(lambda _: True, never) is None

    def test_an_unplanned_job_is_given_to_any_session(self) -> None:
        waiting = JobQueue()
        waiting.append(job(1, planned=False))
        found = waiting.take(lambda _: False, lambda: False)
        assert found is not None and found.number == 1


class TestLeaving:
    def test_a_job_is_discarded_from_either_queue_and_only_once(self) -> None:
        waiting = JobQueue()
        jobs = [job(1), job(-2, streamed=True), job(3, planned=False)]
        for one in jobs:
            waiting.append(one)
        assert len(waiting) == 3 and bool(waiting)
        assert [waiting.discard(one) for one in jobs] == [True] * 3
        assert [waiting.discard(one) for one in jobs] == [False] * 3
        assert not waiting

    def test_a_job_that_was_planned_as_streamed_while_it_waited_is_discarded_too(self) -> None:
        waiting = JobQueue()
        one = job(1)
        waiting.append(one)
        assert one.transaction is not None
        one.transaction.set_payload(None)
        assert waiting.discard(one)
        assert not waiting

    def test_unplanned_jobs_are_taken_out_in_order(self) -> None:
        waiting = JobQueue()
        for one in (job(1), job(2, planned=False), job(-3, streamed=True), job(4, planned=False)):
            waiting.append(one)
        assert [one.number for one in waiting.take_unprepared()] == [2, 4]
        assert taken(waiting) == [1, -3]

    def test_all_are_taken_out_at_once(self) -> None:
        waiting = line(1, -2, 3)
        assert {one.number for one in waiting.take_all()} == {1, -2, 3}
        assert len(waiting) == 0 and list(waiting) == []


async def narrow(step: Step) -> None:
    """Let the system take little of what the server does not read: else it takes some megabytes."""
    step.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)


def opening(gate: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await gate.wait()

    return wait


@pytest.mark.usefixtures("no_leaks")
class TestStarving:
    @every_loop
    async def test_a_huge_message_leaves_a_connection_to_the_small_ones(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            server.on("CONNECT", narrow)
            server.on("BODY", delay(gate), after=50_000)
            huge = asyncio.create_task(client.send(mail("huge", text=HUGE * 4)))
            await server.wait_until(lambda: "DATA" in server.verbs())
            small = await gathered(*(client.send(mail(n)) for n in range(50)))
            assert {receipt.outcome for receipt in small} == {Outcome.ACCEPTED}
            assert not huge.done()
            gate.set()
            assert (await huge).outcome is Outcome.ACCEPTED

    @every_loop
    async def test_several_huge_ones_never_take_the_last_connection(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=3)) as client:
            options = SendOptions(before_end_of_data=opening(gate))
            huge = [client.send(mail(f"huge{n}", text=HUGE), options=options) for n in range(4)]
            tasks = [asyncio.create_task(one) for one in huge]
            await server.wait_until(lambda: server.verbs().count("DATA") == 2)
            small = await gathered(*(client.send(mail(n)) for n in range(50)))
            assert {receipt.outcome for receipt in small} == {Outcome.ACCEPTED}
            assert server.verbs().count("DATA") == 52
            assert client.statistics().waiting == 2
            gate.set()
            assert {receipt.outcome for receipt in await gathered(*tasks)} == {Outcome.ACCEPTED}
            assert client.statistics().waiting == 0

    async def test_the_only_connection_takes_them_in_turn(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
            await client.send(mail("first"))
            texts = ["x", LARGE, "x", LARGE, "x"]
            receipts = await gathered(*(client.send(mail(n, text=text)) for n, text in enumerate(texts)))
            assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
        order = [message.subject for message in server.messages]
        assert order == ["message first", *(f"message {n}" for n in range(5))]

    async def test_a_huge_message_that_waits_goes_on_where_another_has_ended(self) -> None:
        """The small ones' connection has no room for it: it is idle and nobody asks it again."""
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            options = SendOptions(before_end_of_data=opening(gate))
            tasks = [asyncio.create_task(client.send(mail(n), options=options)) for n in range(3)]
            await server.wait_until(lambda: "DATA" in server.verbs())
            await client.send(mail("small"))
            assert client.statistics().waiting == 2
            gate.set()
            assert {receipt.outcome for receipt in await gathered(*tasks)} == {Outcome.ACCEPTED}
            await client.send(mail("last"))
            assert len(server.messages) == 5
