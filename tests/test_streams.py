"""Messages that are read while they are sent: every kind of source, through a whole client.

The truth is what the server recorded. A message that could not be read to its end is never among it.
"""

import asyncio
import email
import email.policy
import io
import itertools
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from smtp_async import (
    Attachment,
    ClientOptions,
    Kind,
    Message,
    NotSent,
    Outcome,
    PoolLimits,
    Raw,
    Receipt,
    Recipient,
    SendOptions,
    SMTPClient,
    SMTPError,
)
from smtp_async.errors import (
    ExtensionMissing,
    FileError,
    InvalidArgument,
    InvalidHeader,
    MessageTooLarge,
    MissingRecipient,
    MissingSender,
)
from smtp_async.testing import RecordingSink, ScriptedServer, close, default, delay, reply, reset
from smtp_async.testing.records import ReceivedMessage
from tests.lab import SENDER, client_of, every_loop, gathered, impatient, mail, speaking, until, until_cut
from tests.servers.machine import needs_proc
from tests.sources.conftest import loops_have_run, no_open_files
from tests.sources.origins import (
    AGAIN,
    AWAITED,
    EVERY,
    ONCE,
    Awaited,
    Make,
    ShortReads,
    async_generated,
    cut,
    generated,
    open_files,
    opened_below,
    path_of,
    random_octets,
)

__all__ = ["loops_have_run", "no_open_files"]

pytestmark = pytest.mark.usefixtures("no_open_files", "no_leaks")

#: More than one slice, more than one trip to a thread, and no round number.
DATA = random_octets(700_001)
TEXT = "Grüße, 0123456789 äöü\r\n".encode() * 30_000
HEAD = (
    b"From: Ann <ann@example.com>\r\nTo: bob@example.org,\r\n\tcy@example.org\r\n"
    b"Bcc: secret@example.net,\r\n hidden@example.net\r\nSubject: message R\r\n\r\n"
)
SHOWN = (
    b"From: Ann <ann@example.com>\r\nTo: bob@example.org,\r\n\tcy@example.org\r\nSubject: message R\r\n\r\n"
)
LINES = b"0123456789 0123456789\r\n.\r\n..\r\n" * 20_000
PLAIN = ["PIPELINING", "SIZE 104857600", "8BITMIME"]

one_connection = PoolLimits(max_connections=1)


def read(message: ReceivedMessage) -> Any:
    """What arrived, for the standard library."""
    return email.message_from_bytes(message.data, policy=email.policy.default)


def attached(message: ReceivedMessage) -> dict[str, bytes]:
    """The attachments of what arrived, by name."""
    return {part.get_filename(): part.get_payload(decode=True) for part in read(message).iter_attachments()}


def verbs(server: ScriptedServer) -> list[str]:
    return [verb for verb in server.verbs() if verb not in ("EHLO", "QUIT")]


async def sent(client: SMTPClient, message: Any, **how: Any) -> Any:
    """What became of a message: its receipt, or the error."""
    (result,) = await gathered(client.send(message, **how))
    return result


async def all_sent(client: SMTPClient, messages: Any, **how: Any) -> list[Receipt]:
    return [receipt async for _, receipt in client.send_all(messages, **how)]


def is_closed(origin: Any) -> bool:
    """Was a stream closed? What cannot be closed counts as closed."""
    if isinstance(origin, Awaited | io.IOBase):
        return origin.closed
    return getattr(origin, "gi_frame", None) is None and getattr(origin, "ag_frame", None) is None


def put_away(origin: Any) -> None:
    """Close what the client leaves open."""
    if isinstance(origin, io.IOBase):
        origin.close()


# --- every kind of source ------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("kind", EVERY)
async def test_attachments_come_from_anywhere(kind: str, tmp_path: Path) -> None:
    origin = EVERY[kind](DATA, tmp_path)
    message = mail(1)
    message.attach(origin, filename="big.bin", close=True)
    message.attach(b"behind it", filename="last.bin")
    async with speaking() as server, client_of(server) as client:
        receipt = await client.send(message)
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
    assert receipt.outcome is Outcome.ACCEPTED
    first, _ = server.messages
    assert attached(first) == {"big.bin": DATA, "last.bin": b"behind it"}
    # What is known before is told.
    known = kind in AGAIN and kind != "iterable"
    assert first.mail_parameters.get("SIZE") == (str(len(first.data)) if known else None)
    assert is_closed(origin)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("field", ["text", "html"])
async def test_texts_come_from_anywhere(kind: str, field: str, tmp_path: Path) -> None:
    origin = EVERY[kind](TEXT, tmp_path)
    message = Message(sender=SENDER, to="bob@example.org", subject="s", **{field: origin})
    async with speaking() as server, client_of(server) as client:
        await client.send(message)
    (one,) = server.messages
    part = read(one).get_body()
    assert part.get_payload(decode=True) == TEXT
    assert part.get_content_type() == ("text/plain" if field == "text" else "text/html")
    put_away(origin)


@pytest.mark.parametrize("kind", EVERY)
async def test_a_whole_message_comes_from_anywhere(kind: str, tmp_path: Path) -> None:
    """`Message.raw`: nothing is changed but Bcc; who gets it is the message's to say."""
    origin = EVERY[kind](HEAD + LINES, tmp_path)
    message = Message(sender=SENDER, to="user7@example.org", raw=origin)
    async with speaking() as server, client_of(server) as client:
        await client.send(message)
    (one,) = server.messages
    assert (one.data, one.rcpt_tos) == (SHOWN + LINES, ["user7@example.org"])
    put_away(origin)


@pytest.mark.parametrize("kind", EVERY)
async def test_small_and_empty_sources(kind: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    message = mail(1)
    message.attach(EVERY[kind](b"", tmp_path / "1"), filename="empty", close=True)
    message.attach(EVERY[kind](b"x", tmp_path / "2"), filename="one", close=True)
    async with speaking() as server, client_of(server) as client:
        await client.send(message)
    assert attached(server.messages[0]) == {"empty": b"", "one": b"x"}


@pytest.mark.parametrize("kind", AGAIN)
async def test_what_can_be_read_again_is_sent_again(kind: str, tmp_path: Path) -> None:
    origin = AGAIN[kind](DATA, tmp_path)
    message = mail(1)
    message.attach(origin, filename="big.bin")
    async with speaking() as server, client_of(server) as client:
        await client.send(message)
        await client.send(message)
        results = await gathered(client.send(message), client.send(message))
    assert [type(one) for one in results] == [Receipt] * 2
    assert len({one.data for one in server.messages}) == 1
    assert len(server.messages) == 4
    if isinstance(origin, io.IOBase):
        # Put back where it stood.
        assert origin.tell() == 0
    put_away(origin)


# What nothing can refer to weakly (a `map`) is not known again.
@pytest.mark.parametrize("kind", [kind for kind in ONCE | AWAITED if kind != "iterator of views"])
async def test_what_can_be_read_once_is_not_sent_twice(kind: str, tmp_path: Path) -> None:
    origin = EVERY[kind](DATA, tmp_path)
    message = mail(1)
    message.attach(origin, filename="big.bin")
    async with speaking() as server, client_of(server, timeouts=impatient(5)) as client:
        await client.send(message)
        if kind != "named pipe":
            with pytest.raises(FileError):
                await client.send(message)
        assert len(server.messages) == 1
        assert server.verbs().count("MAIL") == 1
    put_away(origin)


# --- what cannot be read -------------------------------------------------------------------------------------


def shut(data: bytes, folder: Path) -> Any:
    file = path_of(data, folder).open("rb")
    file.close()
    return file


def write_only(data: bytes, folder: Path) -> Any:
    return (folder / "w").open("wb")


def forbidden(data: bytes, folder: Path) -> Any:
    class Refusing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise PermissionError(13, "not for you")

    return Refusing()


def ended(data: bytes, folder: Path) -> Any:
    generator = generated([data])
    assert list(generator)
    return generator


def of_text(data: bytes, folder: Path) -> Any:
    class TextReader:
        def read(self, size: int = -1) -> str:
            return "text"

    return TextReader()


UNREADABLE: dict[str, Make] = {
    "missing": lambda data, folder: folder / "missing",
    "folder": lambda data, folder: folder,
    "closed": shut,
    "for writing": write_only,
    "refusing": forbidden,
    "ended": ended,
    "of text": of_text,
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("where", ["attachment", "text", "raw", "send_raw"])
async def test_what_cannot_be_opened_or_read_is_told_before_mail(
    kind: str, where: str, tmp_path: Path
) -> None:
    async with speaking() as server, client_of(server) as client:
        for opened in (0, 1):
            origin = UNREADABLE[kind](b"data", tmp_path)
            with pytest.raises(FileError) as caught:
                if where == "attachment":
                    await client.send(mail(1, attachments=[Attachment(origin, filename="x")]))
                elif where == "text":
                    await client.send(Message(sender=SENDER, to="a@example.org", text=origin))
                elif where == "raw":
                    await client.send(Message(sender=SENDER, to="a@example.org", raw=origin))
                else:
                    await client.send_raw(origin, sender=SENDER, recipients=["a@example.org"])
            assert caught.value.code == 302
            assert server.verbs().count("MAIL") == opened
            # Nothing is wrong with the connection.
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            assert server.connections.opened == 1
            put_away(origin)


class Breaking(io.RawIOBase):
    """A file that cannot be read beyond a place, or ends there, or does not end."""

    def __init__(self, size: int, *, at: int, how: str, seekable: bool = True) -> None:
        self._size = size
        self._at = at
        self._how = how
        self._place = 0
        self._can_seek = seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._can_seek

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place if whence == 0 else self._size + place
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        limit = {"breaks": self._at, "shrinks": self._at, "grows": self._size + self._at}[self._how]
        if self._place >= limit:
            if self._how == "breaks":
                raise OSError(5, "the disk is gone")
            return 0
        count = min(len(buffer), limit - self._place)
        buffer[:count] = b"x" * count
        self._place += count
        return count


@every_loop
@pytest.mark.parametrize("chunking", ["never", "always"])
@pytest.mark.parametrize("how", ["breaks", "shrinks", "grows"])
async def test_a_source_that_changes_in_mid_body_costs_the_connection(
    how: str, chunking: Literal["never", "always"]
) -> None:
    """No cut message is accepted, and the next one goes on a new connection."""
    file = Breaking(3_000_000, at=2_000_000, how=how)
    message = mail(1, attachments=[Attachment(file, filename="x", close=True)])
    options = SendOptions(chunking=chunking)
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        with pytest.raises(NotSent) as caught:
            await client.send(message, options=options)
        assert isinstance(caught.value.__cause__, FileError)
        assert caught.value.receipt is not None
        assert caught.value.receipt.outcome is Outcome.NOT_SENT
        assert file.closed
        assert (await client.send(mail(2), options=options)).outcome is Outcome.ACCEPTED
        assert [one.subject for one in server.messages] == ["message 2"]
        # It was in its middle.
        assert verbs(server)[:3] in (["MAIL", "RCPT", "DATA"], ["MAIL", "RCPT", "BDAT"])
        assert server.connections.opened == 2


@pytest.mark.parametrize("how", ["shrinks", "grows", "goes"])
async def test_a_file_that_changes_while_its_message_waits(how: str, tmp_path: Path) -> None:
    """Its size was told, or is about to be: what leaves is the file as it was, or nothing."""
    path = path_of(DATA, tmp_path)

    async def change() -> None:
        if how == "goes":
            path.unlink()
        else:
            path.write_bytes(DATA[:-1] if how == "shrinks" else DATA + b"x")

    async with speaking() as server, client_of(server, pool=one_connection) as client:
        await client.send(mail(0))

        async def changing(step: Any) -> None:
            await change()

        server.on("RCPT", changing, default(), nth=1)
        with pytest.raises(NotSent) as caught:
            await client.send(mail(1, attachments=[Attachment(path)]))
        assert isinstance(caught.value.__cause__, FileError)
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [one.subject for one in server.messages] == ["message 0", "message 2"]


@pytest.mark.parametrize("kind", ["iterator", "async iterator", "stream"])
async def test_a_one_pass_source_that_raises_in_mid_body(kind: str) -> None:
    def blocks() -> Iterator[bytes]:
        yield DATA
        raise KeyError("no more rows")

    async def awaited() -> AsyncIterator[bytes]:
        yield DATA
        raise KeyError("no more rows")

    origin: Any = {
        "iterator": blocks,
        "async iterator": awaited,
        "stream": lambda: Breaking(0, at=500_000, how="breaks", seekable=False),
    }[kind]()
    async with speaking() as server, client_of(server) as client:
        with pytest.raises(NotSent) as caught:
            await client.send(mail(1, attachments=[Attachment(origin, filename="x", close=True)]))
        cause = caught.value.__cause__
        assert isinstance(cause, FileError)
        assert isinstance(cause.__cause__, OSError if kind == "stream" else KeyError)
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
    assert [one.subject for one in server.messages] == ["message 2"]
    assert is_closed(origin)


# --- closing -------------------------------------------------------------------------------------------------


def at(point: str, *actions: Any) -> Callable[[ScriptedServer], dict[str, Any]]:
    """The server does something wrong at a point of the conversation."""

    def arrange(server: ScriptedServer) -> dict[str, Any]:
        server.on(point, *actions)
        return {}

    return arrange


#: What to arrange at a server so that a message fails, and with which arguments it is sent.
FAILURES: dict[str, Callable[[ScriptedServer], dict[str, Any]]] = {
    "no connection": at("CONNECT", close()),
    "greeting": at("GREETING", reply(554, "no")),
    "EHLO": at("EHLO", close()),
    "MAIL": at("MAIL", reply(550, "no")),
    "RCPT": at("RCPT", reply(550, "no")),
    "DATA": at("DATA", reply(550, "no")),
    "BODY": at("BODY", reply(552, "no")),
    "lost in the body": at("BODY", reset()),
    "end of data": at(".", reply(550, "no")),
    "lost at the end": at(".", close()),
    "an option": lambda server: {"options": SendOptions(mt_priority=1)},
    "no To": lambda server: {
        "recipients": [Recipient("a@example.org", Kind.CC)],
        "options": SendOptions(require_to=True),
    },
    "recipients": lambda server: {"recipients": ["no address"]},
    "nobody": lambda server: {"recipients": []},
    "deadline": lambda server: {"deadline": 0.0},
    "no deadline": lambda server: {"deadline": float("nan")},
    "utf8": lambda server: {"recipients": ["ö@example.org"]},
}
#: They need a connection that is not open yet.
OPENING = ("no connection", "greeting", "EHLO")
#: Arguments that `send_all` does not have.
ALONE = ("no To", "recipients", "nobody", "deadline", "no deadline", "utf8")

CLOSING: dict[str, Make] = {
    "file": lambda data, folder: path_of(data, folder).open("rb"),
    "memory": lambda data, folder: io.BytesIO(data),
    "stream": lambda data, folder: ShortReads(data, [70_000], seekable=False),
    "async": lambda data, folder: Awaited(cut(data, [100_000])),
}


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("how", ["attachment", "send_raw", "raw in send_all", "attachment in send_all"])
async def test_a_stream_is_closed_when_its_message_fails(how: str, kind: str, tmp_path: Path) -> None:
    # One test for all of them: looking for leaks takes longer than sending.
    for place, (failure, warm) in enumerate(itertools.product(FAILURES, (False, True))):
        if how.endswith("send_all") and failure in ALONE:
            continue
        folder = tmp_path / str(place)
        folder.mkdir()
        origin = CLOSING[kind](HEAD + LINES, folder)
        error = await failing(how, origin, failure, warm=warm)
        assert isinstance(error, SMTPError), (failure, warm, error)
        assert is_closed(origin), (failure, warm)


async def failing(how: str, origin: Any, failure: str, *, warm: bool) -> Any:
    """Send a stream to where it cannot be sent; what came of it."""
    message = mail(1, attachments=[Attachment(origin, filename="x", close=True)])
    async with ScriptedServer(extensions=PLAIN) as server:
        async with client_of(server, pool=one_connection) as client:
            if warm:
                await client.send(mail(0))
                if failure in OPENING:
                    await server.act(reset())
                    await until(lambda: not client.statistics().open)
            given = FAILURES[failure](server)
            if how == "attachment":
                (result,) = await gathered(client.send(message, **given))
            elif how == "send_raw":
                given["options"] = replace(given.get("options") or SendOptions(), close_source=True)
                (result,) = await gathered(client.send_raw(origin, **given))
            else:
                one: Any = Raw(origin, close=True) if how == "raw in send_all" else message
                (result,) = await gathered(all_sent(client, [one], **given))
                if isinstance(result, list):
                    result = result[0].error
        assert len(server.messages) == warm
    return result


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("field", ["text", "html", "raw"])
@pytest.mark.parametrize("how", ["send", "send_all", "session", "cancelled", "refused"])
async def test_a_stream_that_is_the_text_or_the_whole_of_a_message_is_read_the_same_way(
    how: str, field: str, asked: bool, kind: str, tmp_path: Path
) -> None:
    origin: Any = CLOSING[kind](LINES if field != "raw" else HEAD + LINES, tmp_path)
    message = Message(sender=SENDER, to="bob@example.org", **{field: origin})
    options = SendOptions(close_source=asked)
    async with speaking() as server, client_of(server) as client:
        if how == "send":
            await client.send(message, options=options)
        elif how == "send_all":
            (receipt,) = await all_sent(client, [message], options=options)
            assert receipt.outcome is Outcome.ACCEPTED
        elif how == "session":
            async with client.session() as session:
                await session.connect()
                await session.send(message, options=options)
        elif how == "cancelled":
            rule = server.on("EHLO", delay(asyncio.Event()))
            sending = asyncio.create_task(client.send(message, options=options))
            await server.wait_fired(rule)
            sending.cancel()
            await asyncio.wait({sending})
        else:
            server.on("MAIL", reply(550, "5.7.1 no"))
            with pytest.raises(SMTPError):
                await client.send(message, options=options)
        # An async generator that was cancelled is the loop's to end.
        if how != "cancelled" or asked is False or not hasattr(origin, "__aiter__"):
            assert is_closed(origin) is asked
    put_away(origin)


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("how", ["attachment", "send_raw", "send_all", "session"])
async def test_a_stream_is_closed_after_its_transfer_only_if_that_was_asked_for(
    how: str, asked: bool, kind: str, tmp_path: Path
) -> None:
    origin: Any = CLOSING[kind](HEAD + LINES, tmp_path)
    message = mail(1, attachments=[Attachment(origin, filename="x", close=asked)])
    async with speaking() as server, client_of(server) as client:
        if how == "attachment":
            await client.send(message)
        elif how == "send_raw":
            await client.send_raw(origin, options=SendOptions(close_source=asked))
        elif how == "send_all":
            (receipt,) = await all_sent(client, [Raw(origin, close=asked)])
            assert receipt.outcome is Outcome.ACCEPTED
        else:
            async with client.session() as session:
                await session.connect()
                await session.send(message)
    assert len(server.messages) == 1
    assert is_closed(origin) is asked
    put_away(origin)


@pytest.mark.parametrize("kind", CLOSING)
@pytest.mark.parametrize("feed", ["iterable", "async iterable"])
async def test_streams_of_a_loop_that_was_left_are_closed(feed: str, kind: str, tmp_path: Path) -> None:
    """Those under way, those that wait, and those that were only pulled."""
    origins: list[Any] = []

    def some() -> Iterator[Any]:
        for n in range(30):
            folder = tmp_path / str(n)
            folder.mkdir()
            origins.append(CLOSING[kind](HEAD + LINES, folder))
            yield Raw(origins[-1]) if n % 2 else mail(n, attachments=[Attachment(origins[-1], close=True)])

    async def awaited() -> AsyncIterator[Any]:
        for message in some():
            yield message

    async with speaking() as server, client_of(server, pool=one_connection) as client:
        messages = some() if feed == "iterable" else awaited()
        loop = client.send_all(messages, options=SendOptions(close_source=True))
        async for _ in loop:
            break
        loop.cancel()
        assert 2 <= len(origins) < 30
        if kind != "async":
            await until(lambda: all(is_closed(origin) for origin in origins))
        await client.send(mail(2))


async def test_files_of_messages_that_wait_are_not_open(tmp_path: Path) -> None:
    """A thousand messages in the queue must not need a thousand files."""
    path = path_of(DATA, tmp_path)
    before = open_files()
    most = 0

    async def look(sent: int, total: int | None) -> None:
        nonlocal most
        most = max(most, open_files() - before)

    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=3)) as client:
        options = SendOptions(progress=look)
        results = await gathered(
            *(client.send(mail(n, attachments=[Attachment(path)]), options=options) for n in range(20))
        )
        assert [type(one) for one in results] == [Receipt] * 20
        assert len(server.messages) == 20
    # Those being written, and one being measured.
    assert 1 <= most <= 8


async def test_async_generators_end_in_the_task_that_sends(tmp_path: Path) -> None:
    endings: list[Any] = []

    async def rows() -> AsyncIterator[bytes]:
        try:
            while True:
                yield DATA
        finally:
            endings.append(asyncio.current_task())

    async with speaking() as server, client_of(server) as client:
        server.on("BODY", reply(552, "5.3.4 enough"), close(), after=2_000_000)
        with pytest.raises(SMTPError):
            await client.send(mail(1, attachments=[Attachment(rows(), filename="x")]))
        assert endings == [asyncio.current_task()]


# --- retries on another connection ------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("chunking", ["never", "always"])
@pytest.mark.parametrize("kind", EVERY)
async def test_a_connection_that_dies_in_mid_body(
    kind: str, chunking: Literal["never", "always"], tmp_path: Path
) -> None:
    """What can be read again is sent again as a whole; what cannot is not sent."""
    origin = EVERY[kind](DATA, tmp_path)
    message = mail(1, attachments=[Attachment(origin, filename="big.bin", close=True)])
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        server.on("BODY", reset(), nth=1, after=100_000)
        progress = until_cut(client, 100_000)
        result = await sent(client, message, options=SendOptions(chunking=chunking, progress=progress))
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
    subjects = [one.subject for one in server.messages]
    if kind in AGAIN:
        assert isinstance(result, Receipt)
        assert subjects == ["message 1", "message 2"]
        assert attached(server.messages[0]) == {"big.bin": DATA}
    else:
        assert isinstance(result, NotSent | FileError), result
        assert result.receipt is not None
        assert result.receipt.outcome is Outcome.NOT_SENT
        assert subjects == ["message 2"]
    assert is_closed(origin)


@pytest.mark.parametrize("kind", EVERY)
async def test_a_raw_stream_whose_connection_dies_in_mid_body(kind: str, tmp_path: Path) -> None:
    origin = EVERY[kind](HEAD + LINES, tmp_path)
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        server.on("BODY", reset(), nth=1, after=100_000)
        progress = until_cut(client, 100_000)
        options = SendOptions(close_source=True, progress=progress)
        (result,) = await gathered(client.send_raw(origin, options=options))
    if kind in AGAIN:
        assert isinstance(result, Receipt)
        assert [one.data for one in server.messages] == [SHOWN + LINES]
    else:
        assert isinstance(result, NotSent | FileError), result
        assert server.messages == []
    assert is_closed(origin)


async def test_a_connection_that_always_dies_in_mid_body(tmp_path: Path) -> None:
    message = mail(1, attachments=[Attachment(path_of(DATA, tmp_path))])
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        server.on("BODY", reset(), after=100_000)

        async def cut_off(sent: int, total: int | None) -> None:
            before = client.statistics().reconnects
            if sent >= 100_000:
                await until(lambda: not client.statistics().open or client.statistics().reconnects > before)

        assert isinstance(await sent(client, message, options=SendOptions(progress=cut_off)), NotSent)
        assert server.connections.opened == 3
        assert server.messages == []


async def test_another_server_may_need_another_encoding(tmp_path: Path) -> None:
    """The second connection offers no BINARYMIME: the same file goes as base64."""
    message = mail(1, attachments=[Attachment(path_of(DATA, tmp_path), filename="big.bin")])
    async with RecordingSink() as sink, client_of(sink, pool=one_connection) as client:
        await client.send(mail(0))

        async def poorer(step: Any) -> None:
            sink.settings = sink.settings.__class__(extensions=PLAIN)
            step.connection.reset()

        sink.on("BODY", poorer, nth=1, after=100_000)
        await client.send(message, options=SendOptions(progress=until_cut(client, 100_000)))
        assert "BODY" not in sink.last.mail_parameters
        assert attached(sink.last) == {"big.bin": DATA}
        assert sink.violations == []


# --- more recipients than one transaction takes --------------------------------------------------------------


@pytest.mark.parametrize("limit", ["announced", "452"])
@pytest.mark.parametrize("kind", EVERY)
async def test_a_stream_for_more_recipients_than_the_server_takes_at_once(
    kind: str, limit: str, tmp_path: Path
) -> None:
    origin = EVERY[kind](DATA, tmp_path)
    people = [f"user{n}@example.org" for n in range(5)]
    message = Message(sender=SENDER, to=people, subject="s", text="t")
    message.attach(origin, filename="big.bin", close=True)
    extensions = [*PLAIN, "LIMITS RCPTMAX=2"] if limit == "announced" else PLAIN
    async with speaking(extensions=extensions) as server, client_of(server, pool=one_connection) as client:
        if limit == "452":
            server.on("RCPT", reply(452, "4.5.3 too many"), nth=(3, 4, 5, 8))
        result = await sent(client, message)
    assert isinstance(result, Receipt), result
    got = [one.rcpt_tos for one in server.messages]
    assert is_closed(origin)
    if limit == "452" and kind not in AGAIN:
        # It was known too late: it has been read.
        assert got == [people[:2]]
        assert result.outcome is Outcome.PARTIAL
        assert [one.outcome for one in result.verdicts] == [Outcome.ACCEPTED] * 2 + [Outcome.NOT_SENT] * 3
        return
    assert sorted(sum(got, [])) == people
    assert len(got) >= 3
    assert result.outcome is Outcome.ACCEPTED
    assert len({one.data for one in server.messages}) == 1
    assert attached(server.messages[0]) == {"big.bin": DATA}


class TestKeeping:
    """What can be read once only and has to be read twice is kept where the client was told."""

    @pytest.mark.parametrize("way", ["send", "send_all", "session"])
    @needs_proc
    async def test_it_is_kept_where_the_client_was_told(self, way: str, tmp_path: Path) -> None:
        files: set[tuple[int, int]] = set()

        async def look() -> None:
            files.update((stat.S_IMODE(one.st_mode), one.st_nlink) for one in opened_below(tmp_path))

        message = Message(sender=SENDER, to=[f"user{n}@example.org" for n in range(3)], text="t")
        message.attach(async_generated([DATA]), filename="big.bin")
        async with (
            speaking(extensions=[*PLAIN, "LIMITS RCPTMAX=2"]) as server,
            client_of(
                server, temp_dir=tmp_path, pool=one_connection, send=SendOptions(before_end_of_data=look)
            ) as client,
        ):
            if way == "send":
                await client.send(message)
            elif way == "send_all":
                await all_sent(client, [message])
            else:
                async with client.session() as session:
                    await session.connect()
                    await session.send(message)
            assert os.listdir(tmp_path) == []
        assert [attached(one) for one in server.messages] == [{"big.bin": DATA}] * 2
        assert files == {(0o600, 0)}

    async def test_a_place_that_is_not_there_is_found_out_before_mail(self, tmp_path: Path) -> None:
        message = Message(sender=SENDER, to=[f"user{n}@example.org" for n in range(3)], text="t")
        message.attach(async_generated([DATA]), filename="big.bin")
        async with (
            speaking(extensions=[*PLAIN, "LIMITS RCPTMAX=2"]) as server,
            client_of(server, temp_dir=tmp_path / "nothing") as client,
        ):
            assert isinstance(await sent(client, message), FileError)
            assert verbs(server) == []


# --- whole messages ------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("kind", EVERY)
async def test_send_raw_takes_its_envelope_from_the_header_and_cuts_bcc(kind: str, tmp_path: Path) -> None:
    origin = EVERY[kind](HEAD + LINES, tmp_path)
    async with speaking() as server, client_of(server) as client:
        await client.send_raw(origin, options=SendOptions(close_source=True))
    (one,) = server.messages
    assert one.data == SHOWN + LINES
    assert one.mail_from == "ann@example.com"
    assert one.rcpt_tos == [
        "bob@example.org", "cy@example.org", "secret@example.net", "hidden@example.net",
    ]  # fmt: skip
    assert one.mail_parameters.get("SIZE") == (str(len(one.data)) if kind in AGAIN else None)
    assert is_closed(origin)


@pytest.mark.parametrize("kind", EVERY)
async def test_a_session_of_ones_own_cuts_bcc_too(kind: str, tmp_path: Path) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
    first, second = (EVERY[kind](HEAD + LINES, folder) for folder in folders)
    async with speaking() as server, client_of(server) as client, client.session() as session:
        await session.connect()
        await session.send(Message(sender=SENDER, to="user7@example.org", raw=first))
        await session.send(Raw(second, close=True))
    assert [one.data for one in server.messages] == [SHOWN + LINES] * 2
    assert len(server.messages[1].rcpt_tos) == 4
    assert is_closed(second)
    put_away(first)


async def test_a_session_of_ones_own_does_as_the_options_say() -> None:
    """A `Raw` goes over a session as `send_raw` sends it."""
    file = io.BytesIO(HEAD + LINES)
    bare = HEAD + b"bare\n"
    async with RecordingSink() as sink, client_of(sink) as client, client.session() as session:
        await session.connect()
        await session.send(Raw(file), options=SendOptions(close_source=True, remove_bcc=False))
        await session.send(Raw(bare), options=SendOptions(exact=True))
    assert [one.data for one in sink.messages] == [HEAD + LINES, SHOWN + b"bare\n"]
    assert file.closed


async def test_only_a_raw_keeps_its_bcc() -> None:
    """`remove_bcc=False` is for `send_raw`: what is written here never names a Bcc recipient."""
    foreign = email.message_from_bytes(HEAD + b"text\r\n")
    options = SendOptions(remove_bcc=False)
    messages: list[Any] = [
        mail(1, bcc="secret@example.net"),
        Message(sender=SENDER, to="user7@example.org", raw=HEAD + b"text\r\n"),
        Message(sender=SENDER, to="user7@example.org", raw=io.BytesIO(HEAD + LINES)),
        foreign,
    ]
    async with speaking() as server, client_of(server) as client:
        for message in messages:
            await client.send(message, options=options)
        await all_sent(client, messages[:3], options=options)
    assert len(server.messages) == 7
    for one in server.messages:
        assert b"Bcc" not in one.data
        assert b"secret" not in one.data
    assert "Bcc" in foreign


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("kind", EVERY)
async def test_send_raw_keeps_bcc_if_told_so(kind: str, size: str, tmp_path: Path) -> None:
    text = HEAD + (LINES if size == "large" else b"Hello\r\n")
    origin = EVERY[kind](text, tmp_path)
    options = SendOptions(close_source=True, remove_bcc=False)
    async with speaking() as server, client_of(server) as client:
        await client.send_raw(origin, options=options)
        (receipt,) = await all_sent(client, [Raw(io.BytesIO(text))], options=options)
        assert receipt.outcome is Outcome.ACCEPTED
    assert [one.data for one in server.messages] == [text] * 2


async def test_a_resent_message_needs_its_envelope_given() -> None:
    resent = b"Resent-From: cy@example.net\r\nResent-Bcc: x@example.net\r\n" + HEAD + LINES
    async with speaking() as server, client_of(server) as client:
        with pytest.raises(InvalidArgument, match="Resent"):
            await client.send_raw(io.BytesIO(resent))
        with pytest.raises(InvalidArgument, match="Resent"):
            await client.send_raw(io.BytesIO(resent), sender=SENDER)
        await client.send_raw(io.BytesIO(resent), sender=SENDER, recipients=["z@example.org"])
    (one,) = server.messages
    assert (one.mail_from, one.rcpt_tos) == (SENDER, ["z@example.org"])
    assert one.data == b"Resent-From: cy@example.net\r\n" + SHOWN + LINES


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"To: a@example.org\r\n\r\n", MissingSender),
        (b"From: a@example.org\r\n\r\n", MissingRecipient),
        (b"From: a@example.org\r\nTo: ??\r\n\r\n", SMTPError),
        (b"X: " + b"y" * 2_000_000, InvalidHeader),
    ],
)
@pytest.mark.parametrize("kind", CLOSING)
async def test_a_stream_without_a_usable_header(
    kind: str, head: bytes, error: type[SMTPError], tmp_path: Path
) -> None:
    async with speaking() as server, client_of(server) as client:
        for place, send in enumerate(("send_raw", "send_all")):
            folder = tmp_path / str(place)
            folder.mkdir()
            origin = CLOSING[kind](head + LINES, folder)
            if send == "send_raw":
                with pytest.raises(error):
                    await client.send_raw(origin, options=SendOptions(close_source=True))
            else:
                (receipt,) = await all_sent(client, [Raw(origin, close=True)])
                assert isinstance(receipt.error, error)
            assert is_closed(origin)
    assert server.verbs() == []


ODD = b"bare\nand\rand\0" + b"x" * 1200 + b"\r\n"


@pytest.mark.parametrize("kind", EVERY)
async def test_an_exact_stream_leaves_as_it_is_where_the_server_takes_binary(
    kind: str, tmp_path: Path
) -> None:
    text = HEAD + ODD * 500
    origin = EVERY[kind](text, tmp_path)
    options = SendOptions(close_source=True, exact=True)
    async with RecordingSink() as sink, client_of(sink) as client:
        await client.send_raw(origin, options=options)
    assert sink.violations == []
    assert (sink.last.data, sink.last.mail_parameters["BODY"]) == (SHOWN + ODD * 500, "BINARYMIME")


@pytest.mark.parametrize("kind", EVERY)
async def test_an_exact_stream_that_needs_binary_is_stopped_where_it_is_not_offered(
    kind: str, tmp_path: Path
) -> None:
    """What is read before is refused before MAIL; a stream that is looked at on its way costs the connection."""
    origin = EVERY[kind](HEAD + LINES + ODD + LINES, tmp_path)
    async with speaking() as server, client_of(server) as client:
        (result,) = await gathered(
            client.send_raw(origin, options=SendOptions(close_source=True, exact=True))
        )
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
    assert isinstance(result, ExtensionMissing if kind in AGAIN else NotSent), result
    if kind not in AGAIN:
        assert isinstance(result.__cause__, ExtensionMissing)
    assert [one.subject for one in server.messages] == ["message 2"]
    assert server.verbs().count("MAIL") == (1 if kind in AGAIN else 2)
    assert is_closed(origin)


@pytest.mark.parametrize("kind", AGAIN | {"generator": EVERY["generator"]})
async def test_an_exact_stream_that_needs_nothing_goes_anywhere(kind: str, tmp_path: Path) -> None:
    origin = EVERY[kind](HEAD + LINES, tmp_path)
    async with speaking(extensions=PLAIN) as server, client_of(server) as client:
        await client.send_raw(origin, options=SendOptions(close_source=True, exact=True))
    assert server.messages[0].data == SHOWN + LINES


@pytest.mark.parametrize("chunking", ["never", "always"])
@pytest.mark.parametrize("kind", EVERY)
async def test_line_ends_of_a_stream_become_crlf_and_the_size_is_that_of_what_leaves(
    kind: str, chunking: Literal["never", "always"], tmp_path: Path
) -> None:
    body = b"unix\n.\nmac\r.\rlast" * 20_000
    origin = EVERY[kind](SHOWN.replace(b"\r\n", b"\n") + body, tmp_path)
    async with speaking() as server, client_of(server) as client:
        await client.send_raw(origin, options=SendOptions(close_source=True, chunking=chunking))
    (one,) = server.messages
    assert one.chunked is (chunking == "always")
    assert one.data == SHOWN + b"unix\r\n.\r\nmac\r\n.\r\nlast" * 20_000 + b"\r\n"
    if kind in AGAIN:
        assert one.mail_parameters["SIZE"] == str(len(one.data))


async def test_raw_streams_in_send_all_beside_others(tmp_path: Path) -> None:
    path = path_of(DATA, tmp_path)

    def some() -> Iterator[Any]:
        for place, kind in enumerate(EVERY):
            folder = tmp_path / str(place)
            folder.mkdir()
            yield mail(place)
            text = HEAD.replace(b"message R", b"message %d" % (100 + place)) + LINES
            yield Raw(EVERY[kind](text, folder), close=True)
            yield mail(50 + place, attachments=[Attachment(path)])

    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=3)) as client:
        receipts = await all_sent(client, some())
    assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
    assert len(receipts) == len(server.messages) == 3 * len(EVERY)
    assert len({one.subject for one in server.messages}) == 3 * len(EVERY)
    assert sum(one.data.endswith(b"\r\n\r\n" + LINES) for one in server.messages) == len(EVERY)


def header_and(file: io.RawIOBase) -> Iterator[bytes]:
    yield HEAD
    while block := file.read(100_000):
        yield (b"x" * 70 + b"\r\n") * (len(block) // 72)


@pytest.mark.parametrize(("text", "body"), [("plain", None), ("Grüße", "8BITMIME")])
async def test_mail_asks_for_eight_bits_only_where_a_stream_has_them(text: str, body: str | None) -> None:
    """A server that takes no 8BITMIME after all, though it offered it, gets what any server takes."""
    async with speaking() as server, client_of(server) as client:
        message = HEAD + text.encode() + b"\r\n"
        await client.send_raw(iter([message]), sender=SENDER, recipients=["bob@example.org"])
        (received,) = server.messages
    assert received.mail_parameters.get("BODY") == body
    assert received.mail_parameters["SIZE"] == str(len(received.data))


async def test_one_bad_stream_in_send_all_fails_alone(tmp_path: Path) -> None:
    messages = [
        mail(0),
        Raw(tmp_path / "missing"),
        mail(1, attachments=[Attachment(tmp_path / "missing")]),
        Raw(header_and(Breaking(3_000_000, at=2_000_000, how="breaks")), SENDER, ["user2@example.org"]),
        mail(3, attachments=[Attachment(Breaking(3_000_000, at=2_000_000, how="shrinks"), close=True)]),
        mail(4),
    ]
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        pairs = [pair async for pair in client.send_all(messages)]
    results = {id(message): receipt for message, receipt in pairs}
    assert [type(results[id(message)].error) for message in messages] == [
        type(None), FileError, FileError, NotSent, NotSent, type(None),
    ]  # fmt: skip
    assert sorted(one.subject for one in server.messages) == ["message 0", "message 4"]


# --- SIZE ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_a_file_over_the_servers_limit_is_refused_before_mail(warm: bool, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        # Nothing is written, and nothing is read.
        file.truncate(1 << 30)
    async with speaking(extensions=["PIPELINING", "SIZE 1000000"]) as server:
        async with client_of(server) as client:
            if warm:
                await client.send(mail(0))
            with pytest.raises(MessageTooLarge) as caught:
                await client.send(mail(1, attachments=[Attachment(path)]))
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert server.verbs().count("MAIL") == 1 + warm


async def test_a_whole_message_over_the_servers_limit_is_refused_before_mail() -> None:
    async with speaking(extensions=["PIPELINING", "SIZE 500000"]) as server, client_of(server) as client:
        stream = io.BytesIO(HEAD + LINES)
        with pytest.raises(MessageTooLarge):
            await client.send_raw(stream, options=SendOptions(close_source=True))
        assert stream.closed
    assert "MAIL" not in server.verbs()


async def test_the_limit_counts_octets_as_they_travel(tmp_path: Path) -> None:
    message = mail(1, attachments=[Attachment(path_of(DATA, tmp_path), filename="x")])
    async with speaking() as server, client_of(server) as client:
        await client.send(message)
    size = len(server.messages[0].data)
    assert size == int(server.messages[0].mail_parameters["SIZE"])
    async with speaking(extensions=["PIPELINING", f"SIZE {size}"]) as server, client_of(server) as client:
        await client.send(message)
        assert len(server.messages) == 1
    async with speaking(extensions=["PIPELINING", f"SIZE {size - 1}"]) as server, client_of(server) as client:
        with pytest.raises(MessageTooLarge):
            await client.send(message)


async def test_a_stream_of_unknown_size_is_the_servers_to_refuse() -> None:
    async with speaking() as server, client_of(server) as client:
        server.on("BODY", reply(552, "5.3.4 too big"), after=300_000, nth=1)
        result = await sent(
            client, mail(1, attachments=[Attachment(async_generated([DATA] * 10), filename="x")])
        )
        assert isinstance(result, SMTPError)
        assert result.receipt is not None
        assert result.receipt.outcome is Outcome.REFUSED
        assert result.receipt.reply is not None
        assert result.receipt.reply.code == 552
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
    assert [one.subject for one in server.messages] == ["message 2"]


async def test_options_of_a_client_hold_for_streams(tmp_path: Path) -> None:
    stream = io.BytesIO(HEAD + LINES)
    options = ClientOptions(hello="client.test", send=SendOptions(close_source=True, remove_bcc=False))
    async with speaking() as server:
        async with client_of(server, send=options.send) as client:
            await client.send_raw(stream)
    assert stream.closed
    assert server.messages[0].data == HEAD + LINES


def test_a_path_is_no_text() -> None:
    with pytest.raises(InvalidArgument):
        Attachment(os.fspath(Path("x")))  # type: ignore[arg-type]
