"""raw.py: a whole message as a stream is the same mail as its bytes."""

import asyncio
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    ExtensionMissing,
    FileError,
    InvalidArgument,
    InvalidHeader,
    MissingSender,
)
from smtp_async.mail import raw
from smtp_async.mail.raw import MOST_HEADER, RawMail, raw_mail
from smtp_async.message.foreign_mail import ForeignMail, mail_of_bytes
from smtp_async.sources import Body, read_all
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from tests.lab import every_loop, until
from tests.sources.conftest import loops_have_run, no_open_files
from tests.sources.origins import (
    AGAIN,
    AWAITED,
    EVERY,
    ONCE,
    Again,
    Awaited,
    ShortReads,
    async_generated,
    cut,
    generated,
    open_files,
    path_of,
    piped,
)

__all__ = ["loops_have_run", "no_open_files"]

pytestmark = pytest.mark.usefixtures("no_open_files")

HEAD = (
    b"From: Ann <ann@example.com>\r\nTo: bob@example.org,\r\n\tcy@example.org\r\n"
    b"Bcc: secret@example.net,\r\n hidden@example.net\r\nMessage-ID: <1@example.com>\r\n"
    b"Subject: Hello\r\nResent-bcc: gone@example.net\r\n\r\n"
)
SHOWN = (
    b"From: Ann <ann@example.com>\r\nTo: bob@example.org,\r\n\tcy@example.org\r\n"
    b"Message-ID: <1@example.com>\r\nSubject: Hello\r\n\r\n"
)
TEXT = b"0123456789 0123456789\r\n" * 10_000
MESSAGE = HEAD + TEXT


async def read(mail, **offer):
    """The octets of a message, and its flags."""
    content = mail.content(**offer)
    flags = [flag for flag in ("eightbit", "utf8", "binary") if getattr(content, flag)]
    body = Body(content)
    try:
        await body.open()
        return b"".join([piece.data async for piece in body.chunks()]), flags
    finally:
        await body.aclose()


async def closed(mail):
    if isinstance(mail, RawMail):
        await mail.aclose()


# --- the same as bytes ---------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("kind", EVERY)
async def test_every_kind_is_the_same_mail(tmp_path, kind):
    mail = await raw_mail(EVERY[kind](MESSAGE, tmp_path), close=True)
    assert isinstance(mail, RawMail)
    whole = mail_of_bytes(MESSAGE)
    given = ("ann@example.com", ["x@example.org"])
    assert mail.envelope(*given) == whole.envelope(*given)
    content = mail.content()
    assert content.message_id == "<1@example.com>"
    assert content.size == (len(SHOWN + TEXT) if kind in AGAIN else None)
    assert await read(mail) == (SHOWN + TEXT, [])
    await mail.aclose()


@pytest.mark.parametrize("kind", EVERY)
async def test_bcc_may_be_kept(tmp_path, kind):
    mail = await raw_mail(EVERY[kind](MESSAGE, tmp_path), remove_bcc=False, close=True)
    assert await read(mail) == (MESSAGE, [])
    await closed(mail)


@pytest.mark.parametrize("kind", AGAIN | {"bytes": lambda data, folder: data})
async def test_a_small_source_is_read_to_its_end(tmp_path, kind):
    small = HEAD + b"Hello\r\n"
    origin = (AGAIN | {"bytes": lambda data, folder: data})[kind](small, tmp_path)
    mail = await raw_mail(origin, close=True)
    # How long it is nobody can tell.
    assert isinstance(mail, ForeignMail) is (kind != "iterable")
    assert await read(mail) == (SHOWN + b"Hello\r\n", [])
    assert kind == "bytes" or getattr(origin, "closed", True)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("message", [b"", HEAD[:-2], b"From: a@b.example", b"From: a@b.example\r\n"])
async def test_without_an_empty_line_there_is_only_a_header(tmp_path, kind, message):
    origin = EVERY[kind](message, tmp_path)
    mail = await raw_mail(origin, close=True)
    assert isinstance(mail, ForeignMail)
    assert (await read(mail))[0] == mail_of_bytes(message).content().join()
    assert getattr(origin, "closed", True)


LINES = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"\r\n", b"Bcc: x@example.org", b"A: b", b" c", b"\0", b"\xe4", b"y" * 999]
    ),
    max_size=12,
).map(b"".join)


@given(data=LINES, sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), exact=st.booleans())
def test_any_octets_in_any_chunks_are_the_same_mail(data, sizes, exact):
    async def check():
        try:
            whole = mail_of_bytes(data, exact=exact).content()
        except InvalidHeader:
            for origin in (
                Again(cut(data, sizes)),
                generated(cut(data, sizes)),
                async_generated(cut(data, sizes)),
            ):
                with pytest.raises(InvalidHeader, match="CR CR LF"):
                    await raw_mail(origin, exact=exact)
            return
        for origin in (Again(cut(data, sizes)), ShortReads(data, sizes)):
            content = (await raw_mail(origin, exact=exact)).content()
            octets = await read_all(content)
            assert octets == whole.join()
            assert content.size == whole.size
            assert (content.eightbit, content.binary) == (whole.eightbit, whole.binary)
            # Where the header is empty or has other line ends, bytes are taken for a header as a whole.
            if not exact and not whole.join().startswith(b"\r\n"):
                assert content.utf8 is whole.utf8
            assert content.canonical is whole.canonical
        offer = {"eightbit": True, "binary": exact}
        for once in (generated(cut(data, sizes)), async_generated(cut(data, sizes))):
            mail = await raw_mail(once, exact=exact)
            try:
                octets = await read_all(
                    mail.content(**offer) if isinstance(mail, RawMail) else mail.content()
                )
            except ExtensionMissing:
                assert whole.binary and not exact
            else:
                assert octets == whole.join()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw, "SMALL_BODY", -1)
        asyncio.run(check())


# --- what the body needs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "exact", "flags", "travels"),
    [
        (b"", False, [], b""),
        (b"\xe4\r\n", False, ["eightbit"], b"\xe4\r\n"),
        (b"\0\r\n", False, ["binary"], b"\0\r\n"),
        (b"x" * 999, False, ["binary"], b"x" * 999 + b"\r\n"),
        (b"\0\n", False, ["binary"], b"\0\r\n"),
        (b"a\nb\rc", False, [], b"a\r\nb\r\nc\r\n"),
        (b"a\nb\rc", True, ["binary"], b"a\nb\rc"),
        (b"a\r", True, ["binary"], b"a\r"),
        (b"a", True, [], b"a"),
    ],
)
async def test_a_rereadable_source_is_scanned_before_it_is_sent(tmp_path, tail, exact, flags, travels):
    mail = await raw_mail(path_of(HEAD + TEXT + tail, tmp_path), exact=exact)
    content = mail.content()
    assert content.size == len(SHOWN + TEXT + travels)
    assert await read(mail) == (SHOWN + TEXT + travels, flags)
    assert content.canonical is not exact


ONCE_OR_AWAITED = pytest.mark.parametrize("make", [generated, async_generated, Awaited])


@ONCE_OR_AWAITED
async def test_a_stream_may_be_eightbit_where_that_is_offered(make):
    message = cut(HEAD + TEXT + "Grüße\r\n".encode(), [5000])
    mail = await raw_mail(make(message))
    assert (await read(mail, eightbit=True))[1] == ["eightbit"]
    mail = await raw_mail(make(message))
    with pytest.raises(ExtensionMissing, match="8BITMIME"):
        await read(mail)
    await closed(mail)


@ONCE_OR_AWAITED
@pytest.mark.parametrize("odd", [b"\0", b"x" * 999, b"a\nb"])
async def test_an_exact_stream_is_binary_where_that_is_offered(make, odd):
    message = cut(HEAD + TEXT + odd + b"\r\n", [5000])
    mail = await raw_mail(make(message), exact=True)
    assert await read(mail, binary=True) == (SHOWN + TEXT + odd + b"\r\n", ["binary"])
    mail = await raw_mail(make(message), exact=True)
    with pytest.raises(ExtensionMissing, match="BINARYMIME"):
        await read(mail)
    await closed(mail)


@ONCE_OR_AWAITED
async def test_another_stream_is_never_binary(make):
    mail = await raw_mail(make(cut(HEAD + TEXT + b"a\nb\r\n", [5000])))
    assert await read(mail, binary=True) == (SHOWN + TEXT + b"a\r\nb\r\n", [])
    mail = await raw_mail(make(cut(HEAD + TEXT + b"\0", [5000])))
    with pytest.raises(ExtensionMissing, match="BINARYMIME"):
        await read(mail, binary=True)
    await closed(mail)


@ONCE_OR_AWAITED
@pytest.mark.parametrize(
    ("body", "flags"),
    [(b"plain\r\n", []), ("Grüße\r\n".encode(), ["eightbit"]), (b"x" * 999 + b"\r\n", ["binary"]), (b"", [])],
)
async def test_a_short_stream_is_scanned_before_it_is_sent(make, body, flags):
    """Whatever is offered, it asks for what it needs, and its size is known."""
    for offer in ({}, {"eightbit": True, "binary": True}):
        mail = await raw_mail(make(cut(HEAD + body, [50])))
        content = mail.content(**offer)
        assert not content.sources
        assert content.join() == SHOWN + body
        assert content.size == len(SHOWN + body)
        assert [name for name in ("eightbit", "binary") if getattr(content, name)] == flags


@ONCE_OR_AWAITED
async def test_the_beginning_of_a_long_stream_decides_which_extensions_it_needs(make):
    """So that a server without 8BITMIME is not told of a message that it cannot have."""
    mail = await raw_mail(make(cut(HEAD + "Grüße\r\n".encode() + TEXT, [5000])))
    assert mail.content().eightbit
    await closed(mail)
    mail = await raw_mail(make(cut(HEAD + b"a\nb" + TEXT, [5000])), exact=True)
    assert mail.content().binary
    await closed(mail)


@pytest.mark.parametrize("kind", ["path", "generator"])
async def test_a_header_may_need_more_than_the_body(tmp_path, kind):
    head = "From: ü@example.com\r\n\r\n".encode()
    mail = await raw_mail(EVERY[kind](head + TEXT, tmp_path))
    assert await read(mail) == (head + TEXT, ["eightbit", "utf8"])


# --- the header ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "generator", "async generator"])
@pytest.mark.parametrize("line", [b"A: b\r\n", b"A" * 100])
async def test_a_header_is_bounded(tmp_path, kind, line):
    origin = EVERY[kind](line * (MOST_HEADER // len(line) + 1), tmp_path)
    with pytest.raises(InvalidHeader, match="no empty line within 1048576 octets"):
        await raw_mail(origin)


@pytest.mark.parametrize("size", [MOST_HEADER, MOST_HEADER + 1])
@pytest.mark.parametrize("chunk", [10**9, 100_000, MOST_HEADER, MOST_HEADER - 1])
async def test_a_header_may_have_a_whole_mebibyte(size, chunk):
    head = b"A: " + b"b" * (size - 7) + b"\r\n\r\n"
    stream = Awaited(cut(head + TEXT, [chunk]))
    if size > MOST_HEADER:
        with pytest.raises(InvalidHeader):
            await raw_mail(stream)
    else:
        mail = await raw_mail(stream)
        assert (await read(mail))[0] == head + TEXT


async def test_an_envelope_comes_from_the_header():
    head = HEAD.replace(b"Resent-bcc: gone@example.net\r\n", b"")
    mail = await raw_mail(Awaited([head + TEXT]))
    envelope = mail.envelope()
    assert str(envelope.sender) == "ann@example.com"
    assert [str(one.address) for one in envelope.recipients] == [
        "bob@example.org",
        "cy@example.org",
        "secret@example.net",
        "hidden@example.net",
    ]
    assert envelope == mail_of_bytes(head + TEXT).envelope()
    with pytest.raises(InvalidArgument, match="Resent"):
        (await raw_mail(Awaited([MESSAGE]))).envelope()
    with pytest.raises(MissingSender):
        (await raw_mail(Awaited([b"\r\n" + TEXT]))).envelope()


# --- opening and closing -------------------------------------------------------------------------------------


async def test_a_file_is_read_from_its_present_position(tmp_path):
    with path_of(b"skip this" + MESSAGE, tmp_path).open("rb") as file:
        file.seek(9)
        mail = await raw_mail(file)
        assert file.tell() == 9
        for _ in range(2):
            assert await read(mail) == (SHOWN + TEXT, [])
            assert file.tell() == 9


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("kind", ["file", "memory", "pipe", "short reads of a stream", "async iterator"])
async def test_closing_a_message_that_is_not_sent(tmp_path, kind, close):
    before = open_files()
    origin = EVERY[kind](MESSAGE, tmp_path)
    mail = await raw_mail(origin, close=close)
    assert not origin.closed
    mail.close()  # type: ignore[union-attr]
    await mail.aclose()  # type: ignore[union-attr]
    assert origin.closed is close
    getattr(origin, "close", int)()
    await until(lambda: open_files() <= before)


@pytest.mark.parametrize("kind", ["file", "pipe"])
async def test_a_stream_whose_content_was_taken_is_closed_with_the_content(tmp_path, kind):
    origin = EVERY[kind](MESSAGE, tmp_path)
    mail = await raw_mail(origin, close=True)
    body = Body(mail.content())
    await mail.aclose()  # type: ignore[union-attr]
    assert not origin.closed
    await body.open()
    await body.aclose()
    assert origin.closed


async def test_a_named_pipe_is_closed_in_any_case(tmp_path):
    before = open_files()
    mail = await raw_mail(ONCE["named pipe"](MESSAGE, tmp_path))
    assert open_files() > before
    await closed(mail)
    await until(lambda: open_files() == before)


@pytest.mark.parametrize("make", [io.BytesIO, lambda data: piped(data), lambda data: Awaited([data])])
async def test_a_stream_that_fails_is_closed(make):
    stream = make(b"x" * (MOST_HEADER + 1))
    with pytest.raises(InvalidHeader):
        await raw_mail(stream, close=True)
    assert stream.closed


async def test_a_source_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(FileError, match="nothing"):
        await raw_mail(tmp_path / "nothing")
    with pytest.raises(InvalidArgument, match="pathlib"):
        await raw_mail("a/path")  # type: ignore[arg-type]
    with pytest.raises(FileError, match="returned str"):
        await raw_mail(io.StringIO("text"))  # type: ignore[arg-type]


async def test_a_file_that_was_changed_since_its_scan_is_an_error(tmp_path):
    path = path_of(MESSAGE, tmp_path)
    mail = await raw_mail(path)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileError, match="octets now, and had"):
        await read(mail)


@pytest.mark.parametrize("kind", ["generator", "async generator", "pipe"])
async def test_a_stream_is_sent_once(tmp_path, kind):
    origin = EVERY[kind](MESSAGE, tmp_path)
    mail = await raw_mail(origin, close=True)
    await read(mail)
    with pytest.raises(FileError, match="was read already"):
        await read(mail)
    with pytest.raises(FileError, match="was read already|is closed"):
        await raw_mail(origin)
    await closed(mail)


@every_loop
@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
@pytest.mark.parametrize("kind", ["path", "file", "pipe", "async generator"])
async def test_cancelled_at_any_await_everything_is_closed(kind, moment, manner):
    with TemporaryDirectory() as folder:
        before = open_files()
        origins: list[Any] = []

        async def scenario():
            origins[:] = [(AGAIN | ONCE | AWAITED)[kind](MESSAGE * 10, Path(folder))]
            await closed(await raw_mail(origins[0], close=True))

        async for run in cancellations(scenario, manner=manner, moment=moment):
            assert run.error is None or run.cancelled
            await until(lambda: getattr(origins[0], "closed", True) and open_files() <= before)
