"""drive.py: one way for every message, and an end in time whatever a source does."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from smtp_async import Message, NotSent, Outcome, PoolLimits, Raw, Receipt, SendOptions, SMTPError, Timeouts
from smtp_async.errors import MessageRefused, Timeout
from smtp_async.model.content import Content
from smtp_async.sources.render_cost import HEAVY, LONG
from smtp_async.testing import ScriptedServer, reply
from tests.lab import PATIENCE, client_of, every_loop, gathered, mail, speaking, until

HEADER = b"Subject: x\r\nFrom: ann@example.com\r\nTo: bob@example.org\r\n\r\n"
#: What a call whose deadline is 0.2 s may take: the promise is 0.1 s more, and the machine may be busy.
LATE = 5.0


class Sources:
    """Sources that hold their reader, until the test is over."""

    def __init__(self, path: Path) -> None:
        self.over = asyncio.Event()
        self.thread = threading.Event()
        self.path = path
        self.left = 0

    async def silent(self, first: bytes = HEADER) -> AsyncIterator[bytes]:
        yield first
        await self.over.wait()

    async def slow_to_leave(self, first: bytes = HEADER) -> AsyncIterator[bytes]:
        try:
            yield first
            await self.over.wait()
        finally:
            self.left += 1
            await self.over.wait()

    async def takes_no_notice(self, first: bytes = HEADER) -> AsyncIterator[bytes]:
        yield first
        while not self.over.is_set():
            with suppress(asyncio.CancelledError):
                await self.over.wait()

    async def spins(self, first: bytes = HEADER) -> AsyncIterator[bytes]:
        yield first
        while not self.over.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    async def waits_for_another_task(self, first: bytes = HEADER) -> AsyncIterator[bytes]:
        yield first

        async def stubborn() -> None:
            while not self.over.is_set():
                with suppress(asyncio.CancelledError):
                    await self.over.wait()

        await asyncio.ensure_future(stubborn())

    def blocks(self, first: bytes = HEADER) -> Iterator[bytes]:
        yield first
        assert self.thread.wait(PATIENCE)

    def fifo(self, first: bytes = HEADER) -> Path:
        """A path whose opening blocks."""
        place = self.path / "fifo"
        os.mkfifo(place)
        return place

    def end(self) -> None:
        self.over.set()
        self.thread.set()
        for fifo in self.path.glob("fifo"):
            with suppress(OSError):
                os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


class Closing:
    """An async iterable that is long in closing.

    Args:
        over: set when it may end.
        fails: it cannot be read.
        stubborn: it goes on closing when it is cancelled.

    Attributes:
        begun: set when the closing has begun.
    """

    def __init__(self, over: asyncio.Event, *, fails: bool = False, stubborn: bool = False) -> None:
        self.begun = asyncio.Event()
        self._over = over
        self._fails = fails
        self._stubborn = stubborn
        self._chunks = [b"x" * 1000]

    def __aiter__(self) -> "Closing":
        return self

    async def __anext__(self) -> bytes:
        if self._fails:
            raise OSError("no")
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop()

    async def aclose(self) -> None:
        self.begun.set()
        try:
            await self._over.wait()
        finally:
            if self._stubborn:
                await self._over.wait()


KINDS = [
    "silent", "slow_to_leave", "takes_no_notice", "spins", "waits_for_another_task", "blocks",
]  # fmt: skip
if hasattr(os, "mkfifo"):
    KINDS.append("fifo")


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[Sources]:
    made = Sources(tmp_path)
    yield made
    made.end()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await until(lambda: all(task.done() for task in others))


def timely(client: Any, send: Callable[[], Any]) -> Any:
    """Await a call, and see that it ends soon after its deadline."""

    async def call() -> Any:
        loop = asyncio.get_running_loop()
        before = loop.time()
        (result,) = await gathered(send())
        assert loop.time() - before < LATE
        return result

    return call()


class TestDeadlines:
    """Whatever a source does, and at whatever place it holds the caller."""

    @pytest.mark.parametrize("kind", KINDS)
    async def test_while_a_header_is_read(self, kind: str, sources: Sources) -> None:
        async with speaking() as server, client_of(server) as client:
            source = getattr(sources, kind)(b"From: ann@example.com\r\n")
            error = await timely(client, lambda: client.send_raw(source, deadline=0.2))
            assert isinstance(error, NotSent) and isinstance(error.__cause__, Timeout)
            assert error.receipt is not None and error.receipt.outcome is Outcome.NOT_SENT
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [message.subject for message in server.messages] == ["message 2"]

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fifo"])
    async def test_while_the_beginning_of_the_body_is_read(self, kind: str, sources: Sources) -> None:
        async with speaking() as server, client_of(server) as client:
            source = getattr(sources, kind)(HEADER + b"x" * 1000 + b"\r\n")
            error = await timely(client, lambda: client.send_raw(source, deadline=0.2))
            assert isinstance(error, NotSent) and isinstance(error.__cause__, Timeout)
            assert error.receipt is not None and error.receipt.outcome is Outcome.NOT_SENT
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [message.subject for message in server.messages] == ["message 2"]

    @pytest.mark.parametrize("warm", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    async def test_while_sources_are_opened_and_read(self, kind: str, warm: bool, sources: Sources) -> None:
        async with speaking() as server, client_of(server) as client:
            if warm:
                await client.send(mail(0))
            message = mail(1)
            message.attach(getattr(sources, kind)(b"x" * 200_000), filename="f")
            error = await timely(client, lambda: client.send(message, deadline=0.2))
            assert isinstance(error, NotSent) and isinstance(error.__cause__, Timeout)
            assert error.receipt is not None and error.receipt.outcome is Outcome.NOT_SENT
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0
        assert [message.subject for message in server.messages][warm:] == ["message 2"]

    @pytest.mark.parametrize("kind", ["slow_to_leave", "takes_no_notice"])
    async def test_while_a_sent_message_is_closed(self, kind: str, sources: Sources) -> None:
        """The receipt is there; the source's clean-up is not the caller's time."""

        async with speaking() as server, client_of(server) as client:
            message = mail(1)
            closing = Closing(sources.over, stubborn=kind == "takes_no_notice")
            message.attach(closing, filename="f", close=True)
            receipt = await timely(client, lambda: client.send(message, deadline=0.5))
            assert isinstance(receipt, Receipt) and receipt.outcome is Outcome.ACCEPTED

    @pytest.mark.parametrize("code", [250, 550])
    async def test_a_caller_cancelled_while_its_message_is_closed_gets_the_receipt(
        self, code: int, sources: Sources
    ) -> None:
        closing = Closing(sources.over)
        async with speaking() as server, client_of(server) as client:
            server.on(".", reply(code, "so be it"))
            message = mail(1)
            message.attach(closing, filename="f", close=True)
            sending = asyncio.create_task(client.send(message))
            async with asyncio.timeout(PATIENCE):
                await closing.begun.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await sending
            receipt = vars(caught.value)["receipt"]
            assert receipt.outcome is (Outcome.ACCEPTED if code == 250 else Outcome.REFUSED)

    async def test_a_caller_cancelled_while_a_failed_message_is_closed_gets_the_failure(
        self, sources: Sources
    ) -> None:
        closing = Closing(sources.over, fails=True)
        async with speaking() as server, client_of(server) as client:
            message = mail(1)
            message.attach(closing, filename="f", close=True)
            sending = asyncio.create_task(client.send(message))
            async with asyncio.timeout(PATIENCE):
                await closing.begun.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await sending
            assert vars(caught.value)["receipt"].outcome is Outcome.NOT_SENT

    @pytest.mark.parametrize("kind", KINDS)
    async def test_in_send_all_the_others_are_sent(self, kind: str, sources: Sources) -> None:
        async with speaking() as server, client_of(server, timeouts=Timeouts(send=0.3)) as client:
            stuck = mail("stuck")
            stuck.attach(getattr(sources, kind)(b"x" * 200_000), filename="f")
            whole = Raw(getattr(sources, kind)(b"From: ann@example.com\r\n")) if kind != "fifo" else mail("x")
            errors: list[Any] = []
            async with asyncio.timeout(PATIENCE):
                async for _, receipt in client.send_all([stuck, whole, mail(1), mail(2)]):
                    errors.append(receipt.error)
            assert [type(error) for error in errors if error is not None] == [NotSent] * (
                1 + (kind != "fifo")
            )
        assert {"message 1", "message 2"} <= {message.subject for message in server.messages}

    async def test_the_outcome_is_the_servers_although_the_source_ends_late(self, sources: Sources) -> None:
        """Refused in mid-body: the caller waits for its source's clean-up, but not beyond its deadline."""
        async with speaking() as server, client_of(server) as client:
            server.on("BODY", reply(552, "5.3.4 enough"), after=100_000, nth=1)
            message = mail(1)
            message.attach(sources.slow_to_leave(b"x" * 200_000), filename="f")
            error = await timely(client, lambda: client.send(message, deadline=0.4))
            assert isinstance(error, MessageRefused)
            assert sources.left == 1


async def test_an_upload_that_ends_late_takes_no_deadline_from_the_next(sources: Sources) -> None:
    """Both over one connection: the second begins while the first still cleans up."""
    chunked = SendOptions(chunking="always")
    pool = PoolLimits(max_connections=1)
    leaving = asyncio.Event()

    async def first() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 100_000
            await sources.over.wait()
        finally:
            await leaving.wait()

    async with (
        ScriptedServer(extensions=["PIPELINING", "CHUNKING", "8BITMIME"]) as server,
        client_of(server, pool=pool) as client,
    ):
        await client.send(mail(0))
        rule = server.on("BDAT", reply(552, "5.3.4 no"), nth=1)
        one, two = mail(1), mail(2)
        one.attach(first(), filename="f")
        two.attach(sources.silent(b"y" * 100_000), filename="f")
        refused = asyncio.create_task(client.send(one, options=chunked))
        await server.wait_fired(rule)
        late = asyncio.create_task(client.send(two, options=chunked, deadline=0.5))
        await until(lambda: server.verbs().count("BDAT") > 3)
        leaving.set()
        done, _ = await asyncio.wait({late}, timeout=LATE)
        assert done and isinstance(late.exception(), NotSent)
        assert isinstance((await gathered(refused))[0], MessageRefused)


class TestTurns:
    """In `send_all` the time of a message is its own."""

    async def test_the_deadline_does_not_run_while_a_message_waits_for_the_consumer(self) -> None:
        async def slow() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * 60_000
                await asyncio.sleep(0.05)

        def messages() -> Iterator[Message]:
            for n in range(8):
                message = mail(n)
                message.attach(slow(), filename="f")
                yield message

        # Each takes 0.15 s, all of them 1.2 s.
        async with speaking() as server, client_of(server, timeouts=Timeouts(send=0.8)) as client:
            outcomes = [receipt.outcome async for _, receipt in client.send_all(messages())]
        assert outcomes == [Outcome.ACCEPTED] * 8

    async def test_a_consumer_may_take_longer_than_a_message_may(self) -> None:
        outcomes = []
        async with speaking() as server, client_of(server, timeouts=Timeouts(send=0.4)) as client:
            async for _, receipt in client.send_all(mail(n) for n in range(30)):
                outcomes.append(receipt.outcome)
                if len(outcomes) == 1:
                    await asyncio.sleep(0.6)
        assert outcomes == [Outcome.ACCEPTED] * 30


class TestThreads:
    """What is large is made in a thread."""

    @every_loop
    @pytest.mark.parametrize("how", ["send", "send_all", "session"])
    @pytest.mark.parametrize("kind", ["message", "email", "small"])
    async def test_a_large_message_is_rendered_in_a_thread(
        self, how: str, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from smtp_async.message import render_entity

        threads: set[int] = set()
        text = "0123456789\n" * (HEAVY // 11 + 1 if kind != "small" else 10)

        class Seen(Message):
            def content(self, **offer: Any) -> Any:
                threads.add(threading.get_ident())
                return super().content(**offer)

        message: Any
        if kind == "email":
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = (
                "ann@example.com",
                "b@example.org",
                "message 1",
            )
            message.set_content(text)
            written = render_entity.content_of_entity

            def seen(*args: Any, **options: Any) -> Content:
                threads.add(threading.get_ident())
                return written(*args, **options)

            monkeypatch.setattr(render_entity, "content_of_entity", seen)
        else:
            message = Seen(sender="ann@example.com", to="b@example.org", subject="message 1", text=text)
        async with speaking() as server, client_of(server) as client:
            if how == "send":
                await client.send(message)
            elif how == "send_all":
                assert [one.error async for _, one in client.send_all([message])] == [None]
            else:
                async with client.session() as session:
                    await session.connect()
                    await session.send(message)
        assert threads
        assert (threading.get_ident() in threads) is (kind == "small")
        assert [one.subject for one in server.messages] == ["message 1"]

    @pytest.mark.parametrize("how", ["send_raw", "send_all", "raw"])
    async def test_many_raw_octets_are_read_like_a_file(self, how: str) -> None:
        # What is `raw` in a message is not changed.
        end = b"\r\n" if how == "raw" else b"\n"
        header = HEADER.replace(b"From", b"Bcc: carol@example.org\r\nFrom")
        data = header + (b"0123456789" + end) * (LONG // 11 + 1)
        async with speaking() as server, client_of(server) as client:
            if how == "send_raw":
                receipt = await client.send_raw(data)
            elif how == "send_all":
                (receipt,) = [one async for _, one in client.send_all([Raw(data)])]
            else:
                receipt = await client.send(Message(sender="ann@example.com", to="bob@example.org", raw=data))
            assert receipt.outcome is Outcome.ACCEPTED
        (message,) = server.messages
        body = message.data.partition(b"\r\n\r\n")[2]
        assert body == b"0123456789\r\n" * (LONG // 11 + 1)
        assert b"Bcc" not in message.data

    async def test_a_fault_found_in_the_thread_has_its_receipt(self) -> None:
        class Faulty(Message):
            def content(self, **offer: Any) -> Any:
                raise SMTPError("no")

        message = Faulty(sender="ann@example.com", to="b@example.org", text="x" * (HEAVY + 1))
        async with speaking() as server, client_of(server) as client:
            (error,) = await gathered(client.send(message))
            assert str(error) == "no" and error.receipt.outcome is Outcome.NOT_SENT

    async def test_a_deadline_passes_while_a_message_is_rendered(self) -> None:
        go_on = threading.Event()

        class Slow(Message):
            def content(self, **offer: Any) -> Any:
                assert go_on.wait(PATIENCE)
                return super().content(**offer)

        message = Slow(sender="ann@example.com", to="b@example.org", text="x" * (HEAVY + 1))
        async with speaking() as server, client_of(server) as client:
            error = await timely(client, lambda: client.send(message, deadline=0.2))
            assert isinstance(error, NotSent)
            go_on.set()
        assert server.messages == []
