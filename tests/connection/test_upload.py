"""upload.py and all that is written slice by slice: chunks, progress, events, cancellation, deadlines, pace."""

import asyncio
import email
import email.policy
import gc
import io
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal

import pytest

from smtp_async import (
    Attachment,
    Message,
    MessageRefused,
    NotSent,
    Outcome,
    PoolLimits,
    Raw,
    Receipt,
    SendOptions,
    SMTPClient,
    SMTPError,
    Timeouts,
)
from smtp_async.errors import ConnectionLost, ExtensionMissing, Interrupted, Timeout
from smtp_async.events import EndTransfer, Event, PITrail, StartTransfer, Transfer
from smtp_async.testing import (
    CancelledRun,
    CancelManner,
    CancelMoment,
    RecordingSink,
    ScriptedServer,
    default,
    delay,
    reply,
    reset,
    run_cancelled_at,
)
from tests.lab import (
    PATIENCE,
    Lateness,
    client_of,
    count_events,
    every_loop,
    gathered,
    longest_work,
    mail,
    mute,
    pool_of,
    sampled,
    speaking,
    until,
    until_cut,
)
from tests.sources.conftest import loops_have_run, no_open_files
from tests.sources.origins import AGAIN, EVERY, Awaited, path_of, random_octets

__all__ = ["loops_have_run", "no_open_files"]

pytestmark = pytest.mark.usefixtures("no_open_files", "no_leaks")

DATA = random_octets(400_001)
LARGE = "0123456789 0123456789\n" * 10_000
BARE = ["SIZE 104857600", "8BITMIME", "CHUNKING"]
PIPELINED = ["PIPELINING", *BARE]

Chunking = Literal["auto", "never", "always"]

one_connection = PoolLimits(max_connections=1)


async def pause() -> None:
    await asyncio.sleep(0)


def with_file(n: int | str, origin: Any, **how: Any) -> Message:
    return mail(n, attachments=[Attachment(origin, filename="big.bin", **how)])


async def endless(first: bytes = DATA) -> AsyncIterator[bytes]:
    """Gives something, and then nothing for ever."""
    yield first
    await asyncio.Event().wait()


# --- chunks --------------------------------------------------------------------------------------------------


def bdats(server: ScriptedServer) -> list[str]:
    return [line.line.decode() for line in server.commands if line.verb == "BDAT"]


@every_loop
@pytest.mark.parametrize("size", ["small", "large", "gated", "gated and large", "streamed"])
@pytest.mark.parametrize("chunking", ["auto", "never", "always"])
@pytest.mark.parametrize(
    "offer", [PIPELINED, BARE, BARE[:-1]], ids=["pipelining", "lock-step", "no chunking"]
)
async def test_how_a_body_is_written(offer: list[str], chunking: Chunking, size: str, tmp_path: Path) -> None:
    """In chunks if that was asked for and is offered; a large one only where nothing waits for its replies."""
    gate = pause if "gated" in size else None
    message = mail(1, text=LARGE if "large" in size else "Hello\n.\n..\n")
    if size == "streamed":
        message.attach(path_of(DATA, tmp_path), filename="big.bin")
    options = SendOptions(chunking=chunking, before_end_of_data=gate, chunk_size=50_000)
    async with speaking(extensions=offer) as server, client_of(server, pool=one_connection) as client:
        assert (await client.send(message, options=options)).outcome is Outcome.ACCEPTED
        assert (await client.send(mail(2), options=options)).outcome is Outcome.ACCEPTED
    one = server.messages[0]
    whole = size in ("small", "gated")
    possible = "CHUNKING" in offer and (whole or "PIPELINING" in offer)
    assert one.chunked is (chunking == "always" and possible)
    assert one.mail_parameters["SIZE"] == str(len(one.data))
    if one.chunked and not whole:
        sizes = [int(line.split()[1]) for line in bdats(server)]
        assert max(sizes) <= 50_000
        assert bdats(server).index("BDAT 0 LAST") >= 5
    elif one.chunked:
        assert bdats(server)[0] == f"BDAT {len(one.data)} LAST"


@pytest.mark.parametrize("chunking", ["auto", "always"])
async def test_a_client_may_do_without_chunks(chunking: Chunking, tmp_path: Path) -> None:
    options = SendOptions(chunking=chunking)
    message = with_file(1, path_of(DATA, tmp_path))
    async with (
        speaking() as server,
        client_of(server, chunking=False, pool=PoolLimits(max_connections=1, window=8)) as client,
    ):
        await client.send(message, options=options)
        await client.send(mail(2), options=options)
        assert [receipt.outcome async for _, receipt in client.send_all([mail(3)], options=options)]
        async with client.session() as session:
            await session.connect()
            await session.send(message, options=options)
    assert "BDAT" not in server.verbs()
    assert len(server.messages) == 4


@pytest.mark.parametrize("chunk_size", [1, 999, 57 * 1024, 1 << 20])
@pytest.mark.parametrize("chunking", ["never", "always"])
async def test_the_size_of_a_slice_changes_nothing_else(chunking: Chunking, chunk_size: int) -> None:
    # Dots and line ends on both sides of every edge.
    data = b"\r\n.\r\n..\r\n" * (30 if chunk_size == 1 else 20_000)
    told: list[int] = []
    options = SendOptions(
        chunking=chunking, chunk_size=chunk_size, progress=lambda sent, total: told.append(sent)
    )
    async with speaking() as server, client_of(server) as client:
        await client.send_raw(io.BytesIO(b"From: a@x.test\r\nTo: b@x.test\r\n\r\n" + data), options=options)
    body = server.messages[0].data
    assert body.endswith(b"\r\n\r\n" + data)
    assert told[-1] == len(body)
    steps = [after - before for before, after in itertools.pairwise([0, *told])]
    assert max(steps) <= chunk_size


@pytest.mark.parametrize("chunking", ["never", "always"])
@pytest.mark.parametrize("given", ["in memory", "a path", "a stream"])
async def test_a_body_is_written_in_pieces_of_the_chosen_size(
    given: str, chunking: Chunking, tmp_path: Path
) -> None:
    data = b"From: a@x.test\r\nTo: b@x.test\r\n\r\n" + b"0123456789abcdef\r\n" * 200
    source: Any = {"in memory": data, "a path": path_of(data, tmp_path), "a stream": io.BytesIO(data)}[given]
    pieces: list[int] = []
    async with speaking() as server, client_of(server) as client:
        client.on(Transfer, lambda event: pieces.append(len(event.data)) if event.data else None)
        await client.send_raw(source, options=SendOptions(chunking=chunking, chunk_size=500))
    whole, rest = divmod(len(data), 500)
    assert pieces == [*[500] * whole, rest]
    assert server.messages[0].data == data
    if chunking == "always":
        chunks = [int(line.split()[1]) for line in bdats(server)]
        assert [size for size in chunks if size] == pieces


@pytest.mark.parametrize("at", [1, 2, 4])
@every_loop
async def test_a_refused_chunk_refuses_the_message_and_leaves_the_connection(at: int, tmp_path: Path) -> None:
    """RFC 3030 section 2: the rest is not sent, RSET comes before the next MAIL."""
    options = SendOptions(chunking="always", chunk_size=50_000)
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        server.on("BDAT", reply(552, "5.3.4 too big"), nth=at)
        with pytest.raises(MessageRefused) as caught:
            await client.send(with_file(1, path_of(DATA * 20, tmp_path)), options=options)
        assert caught.value.receipt is not None
        assert caught.value.receipt.outcome is Outcome.REFUSED
        assert caught.value.reply is not None
        assert caught.value.reply.code == 552
        assert (await client.send(mail(2), options=options)).outcome is Outcome.ACCEPTED
        assert server.connections.opened == 1
        verbs = server.verbs()
        assert verbs[verbs.index("RSET") + 1] == "MAIL"
        assert [one.subject for one in server.messages] == ["message 2"]
        # It stopped long before its end.
        assert len(bdats(server)) < 100


async def test_chunks_over_lmtp_are_answered_for_each_recipient(tmp_path: Path) -> None:
    message = Message(sender="ann@example.com", to=["a@example.org", "b@example.org"], subject="s", text="t")
    message.attach(path_of(DATA, tmp_path), filename="big.bin")
    options = SendOptions(chunking="always", chunk_size=50_000)
    async with speaking(lmtp=True) as server, client_of(server, lmtp=True, pool=one_connection) as client:
        server.on("BDAT", reply(552, "5.2.2 full"), match=r"LAST.*b@")
        receipt = await client.send(message, options=options)
        assert [one.outcome for one in receipt.verdicts] == [Outcome.ACCEPTED, Outcome.REFUSED]
        server.on("BDAT", reply(452, "4.3.1 no space"), match=r"BDAT \d+ ?$")
        with pytest.raises(MessageRefused) as caught:
            await client.send(message, options=options)
        assert caught.value.receipt is not None
        assert [one.outcome for one in caught.value.receipt.verdicts] == [Outcome.REFUSED] * 2
    assert [one.rcpt_tos for one in server.messages] == [["a@example.org"]]


@pytest.mark.parametrize("exact", [False, True])
async def test_a_large_binary_body_needs_pipelining(exact: bool) -> None:
    """Chunk after chunk leaves while its caller reads on: without PIPELINING that cannot be."""
    text = b"From: a@x.test\r\nTo: b@x.test\r\n\r\n" + b"\0" * 200_000
    async with RecordingSink(extensions=[*BARE, "BINARYMIME"]) as sink, client_of(sink) as client:
        with pytest.raises(ExtensionMissing):
            await client.send_raw(io.BytesIO(text), options=SendOptions(exact=exact))
        assert sink.verbs().count("MAIL") == 0


@pytest.mark.parametrize("chunking", ["never", "always"])
async def test_the_dialogue_shows_commands_and_no_octets(chunking: Chunking, tmp_path: Path) -> None:
    lines: list[str] = []
    async with speaking() as server, client_of(server) as client:
        client.on(PITrail, lambda event: lines.append(event.message))
        await client.send(with_file(1, path_of(DATA, tmp_path)), options=SendOptions(chunking=chunking))
    assert max(map(len, lines)) < 100
    assert ("BDAT 0 LAST" in lines) is (chunking == "always")


# --- progress ------------------------------------------------------------------------------------------------


class Progress:
    """Writes down what it is told, plain or async, and may end it.

    Args:
        awaited: be a coroutine.
        answer: what it says.
        at: at which call; before that it says nothing.
    """

    def __init__(self, *, awaited: bool = False, answer: Any = None, at: int = 1) -> None:
        self.told: list[tuple[int, int | None]] = []
        self._answer = answer
        self._at = at
        self.call: Any = self._later if awaited else self._now

    def _now(self, sent: int, total: int | None) -> bool | None:
        self.told.append((sent, total))
        if len(self.told) < self._at:
            return None
        if isinstance(self._answer, BaseException):
            raise self._answer
        answer: bool | None = self._answer
        return answer

    async def _later(self, sent: int, total: int | None) -> bool | None:
        await asyncio.sleep(0)
        return self._now(sent, total)


@every_loop
@pytest.mark.parametrize("answer", [None, True, 0])
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
async def test_progress_is_told_of_every_slice(awaited: bool, answer: Any, tmp_path: Path) -> None:
    progress = Progress(awaited=awaited, answer=answer)
    async with speaking() as server, client_of(server) as client:
        await client.send(with_file(1, path_of(DATA, tmp_path)), options=SendOptions(progress=progress.call))
    size = len(server.messages[0].data)
    sent = [sent for sent, _ in progress.told]
    assert {total for _, total in progress.told} == {size}
    assert sent[-1] == size
    assert sent == sorted(set(sent))
    assert max(after - before for before, after in itertools.pairwise([0, *sent])) <= 131072
    assert len(sent) >= size // 131072


@pytest.mark.parametrize("kind", EVERY)
async def test_progress_gets_the_total_where_it_is_known(kind: str, tmp_path: Path) -> None:
    progress = Progress()
    async with speaking() as server, client_of(server) as client:
        await client.send(
            with_file(1, EVERY[kind](DATA, tmp_path), close=True), options=SendOptions(progress=progress.call)
        )
    known = kind in AGAIN and kind != "iterable"
    size = len(server.messages[0].data)
    assert {total for _, total in progress.told} == {size if known else None}
    assert progress.told[-1][0] == size


STOPS = {"false": False, "exception": RuntimeError("no more"), "smtp error": Timeout("enough")}


@every_loop
@pytest.mark.parametrize("size", ["small", "large", "streamed"])
@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
async def test_progress_stops_a_message(awaited: bool, how: str, size: str, tmp_path: Path) -> None:
    """Also with its last slice: the end of data has not left then."""
    message = {
        "small": lambda: mail(1),
        "large": lambda: mail(1, text=LARGE),
        "streamed": lambda: with_file(1, path_of(DATA, tmp_path)),
    }[size]()
    calls = 1 if size == "small" else 2
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        for chunking in ("never", "always"):
            for at in {1, calls}:
                progress = Progress(awaited=awaited, answer=STOPS[how], at=at)
                options = SendOptions(progress=progress.call, chunking=chunking)
                with pytest.raises(NotSent) as caught:
                    await client.send(message, options=options)
                assert len(progress.told) == at
                assert caught.value.receipt is not None
                assert caught.value.receipt.outcome is Outcome.NOT_SENT
                if how != "false":
                    assert caught.value.__cause__ is STOPS[how]
        assert server.messages == []
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
    # Each time the connection went with it.
    assert server.connections.opened == 1 + 2 * len({1, calls})
    assert [one.subject for one in server.messages] == ["message 2"]


async def test_progress_in_send_all_stops_one_message_only() -> None:
    def never(sent: int, total: int | None) -> bool:
        return total is None or total < 10_000

    messages = [mail(0), mail(1, text=LARGE), mail(2)]
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        pairs = [pair async for pair in client.send_all(messages, options=SendOptions(progress=never))]
    outcomes = {message.subject: receipt.outcome for message, receipt in pairs}
    assert outcomes == {
        "message 0": Outcome.ACCEPTED, "message 1": Outcome.NOT_SENT, "message 2": Outcome.ACCEPTED,
    }  # fmt: skip
    assert {one.subject for one in server.messages} == {"message 0", "message 2"}


async def test_progress_begins_anew_on_another_connection(tmp_path: Path) -> None:
    told: list[int] = []
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        server.on("BODY", reset(), nth=1, after=200_000)
        cut_off = until_cut(client, 200_000)

        async def progress(sent: int, total: int | None) -> None:
            told.append(sent)
            await cut_off(sent, total)

        await client.send(with_file(1, path_of(DATA, tmp_path)), options=SendOptions(progress=progress))
    again = told.index(told[0], 1)
    assert told[again:] == sorted(told[again:])
    assert told[-1] == len(server.messages[0].data)


# --- events --------------------------------------------------------------------------------------------------


class Ear:
    """Hears of transfers."""

    def __init__(self, client: SMTPClient, *kinds: type[Event]) -> None:
        self.heard: list[Any] = []
        for kind in kinds or (StartTransfer, Transfer, EndTransfer):
            client.on(kind, self.heard.append)

    @property
    def story(self) -> list[str]:
        """What was told of parts, repeated slices once."""
        steps = [f"{type(event).__name__} {event.part}" for event in self.heard if event.part != "message"]
        return [step for step, _ in itertools.groupby(steps)]

    def of(self, part: str) -> list[Any]:
        return [one for one in self.heard if type(one) is Transfer and one.part == part]

    def demand_complete(self, server: ScriptedServer, parts: dict[str, int | None]) -> None:
        """Fail unless the message and each part was told once, from its beginning to its end."""
        whole = self.of("message")
        assert b"".join(one.data for one in whole) == server.messages[-1].data
        assert whole[-1].sent == len(server.messages[-1].data)
        marks = Counter((type(one), one.part) for one in self.heard if type(one) is not Transfer)
        assert marks == dict.fromkeys(itertools.product((StartTransfer, EndTransfer), ("message", *parts)), 1)
        for part, total in parts.items():
            places = [place for place, one in enumerate(self.heard) if one.part == part]
            first, *slices, last = [self.heard[place] for place in places]
            assert (type(first), type(last)) == (StartTransfer, EndTransfer)
            sizes = [one.sent for one in slices]
            assert sizes == sorted(set(sizes))
            if total is not None and total:
                assert slices[-1].sent == total
                assert [one.percent for one in slices] == [one.sent * 100 // total for one in slices]
            else:
                assert {one.percent for one in slices} <= {-1}
        assert type(self.heard[0]) is StartTransfer
        assert self.heard[0].part == self.heard[-1].part == "message"
        assert type(self.heard[-1]) is EndTransfer


def travelling(count: int) -> int:
    """Octets as base64 in lines."""
    characters = (count + 2) // 3 * 4
    return characters + -(-characters // 76) * 2


@every_loop
@pytest.mark.parametrize("chunking", ["never", "always"])
@pytest.mark.parametrize("kind", EVERY)
async def test_the_message_and_each_attachment_are_told(
    kind: str, chunking: Chunking, tmp_path: Path
) -> None:
    message = mail(1, html="<p>t</p>")
    message.attach(b"PNG" * 100, filename="dot.png", cid="dot")
    message.attach(EVERY[kind](DATA, tmp_path), filename="big.bin", close=True)
    message.attach(b"last" * 50_000, content_type="text/plain")
    message.attach(b"", filename="empty")
    async with speaking() as server, client_of(server) as client:
        ear = Ear(client)
        await client.send(message, options=SendOptions(chunking=chunking))
    known = kind in AGAIN and kind != "iterable"
    parts = {
        "dot.png": travelling(300),
        "big.bin": travelling(len(DATA)) if known else None,
        "attachment": travelling(200_000),
        "empty": 0,
    }
    ear.demand_complete(server, parts)
    total = len(server.messages[0].data) if known else None
    assert {one.total for one in ear.of("message")} == {total}
    assert ear.of("message")[-1].percent == (100 if known else -1)
    assert ear.story == [
        f"{event} {part}"
        for part in parts
        for event in ("StartTransfer", "Transfer", "EndTransfer")
        if (event, part) != ("Transfer", "empty")
    ]


@pytest.mark.parametrize("way", ["one piece", "gated", "slices"])
@pytest.mark.parametrize("chunking", ["never", "always"])
async def test_attachments_of_a_small_message_are_told_too(chunking: Chunking, way: str) -> None:
    message = mail(1)
    message.attach(b"same", filename="one")
    message.attach(b"", filename="two")
    message.attach(b"same", filename="three")
    options = SendOptions(
        chunking=chunking,
        before_end_of_data=pause if way == "gated" else None,
        progress=(lambda sent, total: None) if way == "slices" else None,
    )
    async with speaking() as server, client_of(server) as client:
        ear = Ear(client)
        await client.send(message, options=options)
    ear.demand_complete(server, {"one": 10, "two": 0, "three": 10})


async def test_texts_and_whole_messages_are_the_message_and_no_part_of_it(tmp_path: Path) -> None:
    path = path_of(b"From: a@x.test\r\nTo: b@x.test\r\n\r\n" + LARGE.encode(), tmp_path)
    async with speaking() as server, client_of(server) as client:
        ear = Ear(client)
        await client.send(Message(sender="a@x.test", to="b@x.test", text=path))
        ear.demand_complete(server, {})
        ear.heard.clear()
        await client.send_raw(path)
        ear.demand_complete(server, {})


@pytest.mark.parametrize("kind", [StartTransfer, Transfer, EndTransfer])
async def test_no_event_is_made_without_a_hook_for_it(
    kind: type[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_events(monkeypatch, StartTransfer, Transfer, EndTransfer)
    message = with_file(1, path_of(DATA, tmp_path))
    async with speaking() as server, client_of(server) as client:
        await client.send(message)
        assert not made
        client.on(kind, lambda event: None)
        await client.send(message)
        assert made[kind] > 0
        # That of the message itself is made with the line that ends it, and dropped.
        assert set(made) <= {kind, EndTransfer}
        assert made[EndTransfer] == (2 if kind is EndTransfer else 1)
        assert len(server.messages) == 2


async def test_a_hook_registered_in_the_middle_hears_from_then_on(tmp_path: Path) -> None:
    async with speaking() as server, client_of(server) as client:
        ears: list[Ear] = []

        def listen(sent: int, total: int | None) -> None:
            if sent > 100_000 and not ears:
                ears.append(Ear(client))

        message = with_file(1, path_of(DATA, tmp_path))
        message.attach(b"behind", filename="last")
        await client.send(message, options=SendOptions(progress=listen))
        # What they missed is counted all the same.
        assert [one.part for one in ears[0].heard if type(one) is StartTransfer] == ["last"]
        assert ears[0].of("last")[-1].percent == 100
        for part in ("message", "big.bin"):
            assert ears[0].of(part)[0].sent > 70_000
            assert ears[0].of(part)[-1].percent == 100
        assert len(server.messages) == 1


# --- cancellation --------------------------------------------------------------------------------------------

MANNERS = pytest.mark.parametrize("manner", CancelManner)
MOMENTS = pytest.mark.parametrize("moment", CancelMoment)


@pytest.mark.parametrize(
    ("kind", "chunking", "manner", "moment"),
    sampled(
        itertools.product(
            ("path", "file", "generator", "async generator", "async iterator"),
            ("never", "always"),
            CancelManner,
            CancelMoment,
        ),
        3,
    ),
)
@every_loop
async def test_an_upload_cancelled_at_any_await(
    manner: CancelManner, moment: CancelMoment, chunking: Chunking, kind: str, tmp_path: Path
) -> None:
    """Nothing of it is accepted unless all of it had left; the next message is not touched."""
    data = DATA[:150_000]

    async def one(client: SMTPClient, at: int) -> CancelledRun:
        folder = tmp_path / str(at)
        folder.mkdir()
        origin = EVERY[kind](data, folder)
        message = with_file("A", origin, close=True)
        options = SendOptions(chunking=chunking, progress=lambda sent, total: None)
        run = await run_cancelled_at(
            at, lambda: client.send(message, options=options), manner=manner, moment=moment
        )
        if isinstance(origin, io.IOBase):
            await until(lambda: origin.closed)
        return run

    async with speaking() as server, client_of(server, pool=one_connection) as client:
        await client.send(mail("0"))
        for at in itertools.count(1):
            before = len(server.messages)
            run = await one(client, at)
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
            got = [one.subject for one in server.messages[before:]]
            assert got in (["message B"], ["message A", "message B"])
            if not run.injected:
                assert run.error is None
                assert got == ["message A", "message B"]
                break
        assert at > 3
    assert all(data_of(one) == data for one in server.messages if one.subject == "message A")


def data_of(message: Any) -> bytes:
    """The attachment of what arrived."""
    found: Any = email.message_from_bytes(message.data, policy=email.policy.default)
    (part,) = found.iter_attachments()
    data: bytes = part.get_payload(decode=True)
    return data


@MANNERS
@MOMENTS
async def test_a_loop_of_uploads_cancelled_at_any_await(
    manner: CancelManner, moment: CancelMoment, tmp_path: Path
) -> None:
    data = DATA[:100_000]
    path = path_of(data, tmp_path)
    raw = b"From: ann@example.com\r\nTo: user9@example.org\r\nSubject: message 9\r\n\r\n" + LARGE.encode()

    async def one(client: SMTPClient, at: int) -> CancelledRun:
        streams = [io.BytesIO(raw), io.BytesIO(data)]

        async def loop() -> None:
            messages = [with_file(1, path), Raw(streams[0], close=True), with_file(3, streams[1], close=True)]
            async for _ in client.send_all(messages):
                pass

        run = await run_cancelled_at(at, loop, manner=manner, moment=moment)
        await until(lambda: all(stream.closed for stream in streams))
        return run

    async with speaking() as server, client_of(server, pool=one_connection) as client:
        await client.send(mail("0"))
        for at in itertools.count(1):
            run = await one(client, at)
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
            if not run.injected:
                break
        assert at > 5
    files = [one for one in server.messages if one.subject in ("message 1", "message 3")]
    assert all(data_of(one) == data for one in files)


@every_loop
async def test_a_generator_of_a_cancelled_upload_ends(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        try:
            while True:
                yield DATA
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with speaking() as server, client_of(server) as client:
        rule = server.on("BODY", default(), after=1_000_000)
        sending = asyncio.create_task(client.send(with_file(1, rows())))
        await server.wait_fired(rule)
        sending.cancel()
        await asyncio.wait({sending})
        assert sending.cancelled()
        # Its traceback holds the generator.
        del sending
        gc.collect()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert server.messages == []


# --- deadlines, and servers that go --------------------------------------------------------------------------


def stuck(released: threading.Event) -> Callable[[], Iterator[bytes]]:
    """An iterable that holds up the thread that reads it."""

    def blocks() -> Iterator[bytes]:
        # More than a thread fetches at a time.
        yield DATA * 2
        released.wait(PATIENCE)

    return blocks


WAITS = ["source", "thread", "progress", "server"]


def waiting(what: str, server: ScriptedServer, released: threading.Event) -> tuple[Message, SendOptions]:
    """A message whose upload waits for something that does not come."""

    async def hang(sent: int, total: int | None) -> None:
        await asyncio.Event().wait()

    if what == "source":
        return with_file(1, endless()), SendOptions()
    if what == "thread":
        return with_file(1, stuck(released)()), SendOptions()
    if what == "progress":
        return with_file(1, io.BytesIO(DATA)), SendOptions(progress=hang)
    server.on("BODY", mute, after=50_000, nth=1)

    def more() -> Iterator[bytes]:
        while True:
            yield DATA

    return with_file(1, more()), SendOptions()


@every_loop
@pytest.mark.parametrize("how", ["send", "send_all"])
@pytest.mark.parametrize("what", WAITS)
async def test_a_deadline_in_the_middle_of_an_upload_is_kept(what: str, how: str) -> None:
    released = threading.Event()
    async with ScriptedServer() as server:
        timeouts = Timeouts(send=0.3)
        async with client_of(server, pool=one_connection, timeouts=timeouts) as client:
            message, options = waiting(what, server, released)
            async with asyncio.timeout(PATIENCE):
                if how == "send":
                    with pytest.raises(NotSent) as caught:
                        await client.send(message, options=options)
                    error: SMTPError | None = caught.value
                else:
                    (error,) = [
                        receipt.error async for _, receipt in client.send_all([message], options=options)
                    ]
            assert isinstance(error, NotSent)
            assert isinstance(error.__cause__, Timeout)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            released.set()
            assert (await client.send(mail(2), deadline=PATIENCE)).outcome is Outcome.ACCEPTED
        assert [one.subject for one in server.messages] == ["message 2"]


@every_loop
@pytest.mark.parametrize("what", ["source", "thread"])
@pytest.mark.parametrize("end", ["gone", "refused"])
async def test_a_source_that_waits_does_not_hide_what_the_server_did(what: str, end: str) -> None:
    """A stream that can be read once is not tried on another connection either."""
    released = threading.Event()
    async with speaking() as server, client_of(server, pool=one_connection) as client:
        actions = [reset()] if end == "gone" else [reply(552, "5.3.4 enough")]
        server.on("BODY", *actions, after=100_000, nth=1)
        message, options = waiting(what, server, released)
        async with asyncio.timeout(PATIENCE):
            (result,) = await gathered(client.send(message, options=options))
        released.set()
        if end == "gone":
            assert isinstance(result, NotSent)
            assert isinstance(result.__cause__, ConnectionLost)
        else:
            assert isinstance(result, MessageRefused)
        assert server.connections.opened == 1
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [one.subject for one in server.messages] == ["message 2"]


async def test_an_upload_of_a_task_that_was_cancelled_before_can_be_stopped() -> None:
    """Sending in the clean-up of a cancelled task: its own cancellation is not taken back."""
    results: list[Any] = []

    async def goodbye(client: SMTPClient) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            (result,) = await asyncio.gather(
                client.send(with_file(1, endless()), deadline=0.2), return_exceptions=True
            )
            try:
                await client.send(with_file(2, endless()), deadline=0.2)
            except NotSent as error:
                results.append(error)
            results.append(result)
            raise

    async with speaking() as server, client_of(server) as client:
        await client.send(mail(0))
        task = asyncio.create_task(goodbye(client))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({task})
        assert task.cancelled()
        assert [type(result) for result in results] == [NotSent, NotSent]
        assert len(server.messages) == 1


async def test_a_cancellation_beside_a_deadline_is_not_lost() -> None:
    """Both in one turn of the loop: the caller's own cancellation wins."""

    async with speaking() as server, client_of(server, pool=one_connection) as client:
        task: asyncio.Task[Any] | None = None

        def cut_off(event: Event) -> None:
            assert task is not None
            task.cancel()

        async def gone() -> None:
            await client.send(with_file(1, endless()))

        rule = server.on("BODY", delay(asyncio.Event()), after=100_000)
        task = asyncio.create_task(gone())
        await server.wait_fired(rule)
        # The upload is stopped, and its task cancelled for another reason, before it runs again.
        (connection,) = pool_of(client).connections.open
        connection.abort(Interrupted("stopped by the test"))
        (job,) = connection.deliveries.jobs
        assert job.caller_work is not None
        job.caller_work.stop()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


@pytest.mark.parametrize("kind", ["path", "async"])
async def test_closing_the_client_ends_an_upload(kind: str, tmp_path: Path) -> None:
    # More than the buffers between the two can hold: or its end might have left.
    origin = path_of(bytes(40 * 2**20), tmp_path) if kind == "path" else endless()
    async with ScriptedServer() as server:
        client = client_of(server, pool=one_connection, timeouts=Timeouts(close=0.1))
        rule = server.on("BODY", mute, after=100_000)
        sending = asyncio.create_task(client.send(with_file(1, origin)))
        await server.wait_fired(rule)
        async with asyncio.timeout(PATIENCE):
            await client.close()
            await asyncio.wait({sending})
        error = sending.exception()
        assert isinstance(error, NotSent)
        assert server.messages == []


async def test_closing_the_client_lets_an_upload_end_that_can(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with speaking() as server:
        client = client_of(server, pool=one_connection)
        rule = server.on("BODY", delay(gate), after=100_000)
        sending = asyncio.create_task(client.send(with_file(1, path_of(DATA * 20, tmp_path))))
        await server.wait_fired(rule)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        gate.set()
        assert (await sending).outcome is Outcome.ACCEPTED
        await closing
        assert data_of(server.messages[0]) == DATA * 20


# --- beside each other ---------------------------------------------------------------------------------------


async def test_small_messages_go_on_while_large_ones_are_uploaded(tmp_path: Path) -> None:
    """One connection is kept for them, however many large ones wait."""
    gate = asyncio.Event()
    under_way: set[int] = set()
    path = path_of(DATA, tmp_path)

    async def large(n: int) -> Receipt:
        async def hold(sent: int, total: int | None) -> None:
            under_way.add(n)
            await gate.wait()

        return await client.send(with_file(f"L{n}", path), options=SendOptions(progress=hold))

    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
        tasks = [asyncio.create_task(large(n)) for n in range(6)]
        await until(lambda: len(under_way) == 3)
        small = await gathered(*(client.send(mail(n)) for n in range(99)))
        assert [type(one) for one in small] == [Receipt] * 99
        assert (len(server.messages), len(under_way)) == (99, 3)
        gate.set()
        results = await gathered(*tasks)
        assert [type(one) for one in results] == [Receipt] * 6
        assert len(server.messages) == 105


MUCH = 50 << 20
WHOLE = b"From: a@x.test\nTo: b@x.test\n\n"


def as_object(attachment: bytes) -> EmailMessage:
    """Return a message of the email package."""
    message = EmailMessage()
    message["From"], message["To"] = "a@x.test", "b@x.test"
    message.set_content("Hello")
    message.add_attachment(attachment, maintype="application", subtype="pdf", filename="f.pdf")
    return message


#: 50 MiB in every form; all of it goes the way that `send_all` goes.
MUCH_FROM: dict[str, Callable[[Path], Any]] = {
    "file": lambda folder: with_file(1, path_of(random_octets(MUCH), folder)),
    "iterator": lambda folder: with_file(1, iter([random_octets(1 << 20)] * (MUCH >> 20))),
    "async": lambda folder: with_file(1, Awaited([random_octets(1 << 20)] * (MUCH >> 20))),
    "whole file": lambda folder: Raw(path_of(WHOLE + b"Hello\n" * (MUCH // 6), folder)),
    "bytes": lambda folder: Raw(WHOLE + b"Hello\r\n" * (MUCH // 7)),
    "attached bytes": lambda folder: with_file(1, random_octets(MUCH)),
    "text": lambda folder: mail(1, text="Hello\n" * (MUCH // 7)),
    "object": lambda folder: as_object(random_octets(MUCH)),
}


@pytest.mark.parametrize("source", MUCH_FROM)
async def test_the_event_loop_is_not_held_up(source: str, tmp_path: Path) -> None:
    """The figure is 10 ms; a test on a busy machine can only tell a body that is read or encoded in one go."""
    async with SwallowingServer() as server, client_of(server, pool=one_connection) as client:
        message = MUCH_FROM[source](tmp_path)
        await client.send(mail(0))
        async with Lateness() as lateness:
            async for _, receipt in client.send_all([message]):
                assert receipt.error is None
    worked = sorted(lateness.worked)
    assert len(worked) > 10
    assert server.octets > MUCH * 0.99
    # All but a few; and what is in memory as bytes is copied at once, to mend its line ends.
    assert worked[len(worked) * 95 // 100] < 0.05
    assert worked[-1] < 1.0


@pytest.mark.parametrize("source", ["file", "bytes", "attached bytes", "text", "object"])
async def test_a_thread_does_not_keep_the_event_loop_waiting(source: str, tmp_path: Path) -> None:
    """One call for all octets would keep the interpreter's lock for 50 to 300 ms; slices give way after 5 ms."""

    async def measured() -> Lateness:
        message = MUCH_FROM[source](tmp_path)
        async with Lateness() as lateness:
            async for _, receipt in client.send_all([message]):
                assert receipt.error is None
        return lateness

    async with SwallowingServer() as server, client_of(server, pool=one_connection) as client:
        await client.send(mail(0))
        assert await longest_work(measured) < 0.045


class SwallowingServer:
    """Takes any body as fast as it comes and keeps nothing: it shares the event loop with what is measured."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.octets = 0
        self.port = 0

    async def __aenter__(self) -> "SwallowingServer":
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 swallow\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            writer.write(
                b"354 go\r\n" if verb == b"DATA" else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
            )
            if verb == b"QUIT":
                break
            if verb == b"DATA":
                await self._swallow(reader)
                writer.write(b"250 ok\r\n")
        writer.close()

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        tail = b""
        while not tail.endswith(b"\r\n.\r\n"):
            data = await reader.read(65536)
            if not data:
                return
            self.octets += len(data)
            tail = (tail + data)[-5:]
