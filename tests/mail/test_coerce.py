"""coerce.py: what may be sent, and under which envelope."""

import io
from email.message import EmailMessage

import pytest

from smtp_async import Message
from smtp_async.errors import FileError, InvalidArgument, MissingSender
from smtp_async.mail.coerce import Raw, addressed, as_mail, mail_of
from smtp_async.mail.raw import RawMail
from smtp_async.sources import Body, read_all
from tests.sources.origins import EVERY

RAW = b"From: ann@example.com\r\nTo: bob@example.org\r\nBcc: cy@example.org\r\n\r\n" + b"Hello\r\n" * 20_000
SHOWN = RAW.replace(b"Bcc: cy@example.org\r\n", b"")


def foreign():
    message = EmailMessage()
    message["From"] = "ann@example.com"
    message["To"] = "bob@example.org"
    return message


def names(mail):
    envelope = mail.envelope()
    return str(envelope.sender), [str(one.address) for one in envelope.recipients]


@pytest.mark.parametrize(
    "make",
    [lambda: Message(sender="ann@example.com", to="bob@example.org"), foreign, lambda: Raw(SHOWN)],
)
async def test_what_can_be_sent(make):
    message = make()
    for mail in (as_mail(message), await mail_of(message)):
        assert names(mail) == ("ann@example.com", ["bob@example.org"])
        assert mail.content().join()


@pytest.mark.parametrize("message", [b"bytes", "text", 3, None, io.BytesIO()])
async def test_what_cannot_be_sent(message):
    with pytest.raises(InvalidArgument, match="cannot send"):
        as_mail(message)
    with pytest.raises(InvalidArgument, match="cannot send"):
        await mail_of(message)


@pytest.mark.parametrize("octets", [bytes, bytearray, memoryview])
def test_a_raw_of_octets_needs_no_reading(octets):
    assert as_mail(Raw(octets(RAW))).content().join() == SHOWN


@pytest.mark.parametrize("kind", EVERY)
async def test_a_raw_of_a_stream_is_read_first(tmp_path, kind):
    raw = Raw(EVERY[kind](RAW, tmp_path), recipients=["dan@example.org"], close=True)
    with pytest.raises(InvalidArgument, match="has to be read first"):
        as_mail(raw)
    mail = await mail_of(raw)
    assert names(mail) == ("ann@example.com", ["dan@example.org"])
    body = Body(mail.content())
    await body.open()
    assert b"".join([piece.data async for piece in body.chunks()]) == SHOWN
    await body.aclose()


async def test_a_raw_may_be_left_as_it_is():
    text = RAW + b"\n"
    mail = await mail_of(Raw(io.BytesIO(text)), exact=True, remove_bcc=False)
    content = mail.content()
    assert (await read_all(content), content.binary) == (text, True)


@pytest.mark.parametrize(
    ("head", "sender", "error"),
    [(b"X: y\r\n", None, MissingSender), (b"From: a@example.com\r\n", "no address", InvalidArgument)],
)
@pytest.mark.parametrize("close", [False, True])
async def test_a_stream_without_an_envelope_is_closed(head, sender, error, close):
    stream = io.BytesIO(head + b"\r\n" + RAW)
    with pytest.raises(error):
        await mail_of(Raw(stream, sender, close=close))
    assert stream.closed is close


async def test_a_stream_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError):
        await mail_of(Raw(tmp_path))


@pytest.mark.parametrize(
    ("sender", "recipients", "expected"),
    [
        (None, None, ("ann@example.com", ["bob@example.org", "cy@example.org"])),
        ("x@example.com", None, ("x@example.com", ["bob@example.org", "cy@example.org"])),
        (None, ["y@example.com"], ("ann@example.com", ["y@example.com"])),
        ("x@example.com", ["y@example.com"], ("x@example.com", ["y@example.com"])),
    ],
)
async def test_another_envelope(sender, recipients, expected):
    raw = await mail_of(Raw(io.BytesIO(RAW)))
    assert isinstance(raw, RawMail)
    built = Message(sender="ann@example.com", to="bob@example.org", bcc="cy@example.org")
    for mail in (raw, as_mail(Raw(RAW)), built):
        assert names(addressed(mail, sender, recipients)) == expected


def test_recipients_are_no_text():
    with pytest.raises(InvalidArgument, match="not one text"):
        addressed(as_mail(foreign()), None, "bob@example.org")


LF = b"\xef\xbb\xbfBcc: eve@example.net\nFrom: ann@example.com\nTo: bob@example.org\n\nHello\nyou\n"
SENT = b"From: ann@example.com\r\nTo: bob@example.org\r\n\r\nHello\r\nyou\r\n"


@pytest.mark.parametrize("kind", [None, *EVERY])
async def test_a_byte_order_mark_hides_no_bcc(tmp_path, kind):
    source = LF if kind is None else EVERY[kind](LF, tmp_path)
    mail = await mail_of(Raw(source, close=True))
    assert names(mail) == ("ann@example.com", ["bob@example.org", "eve@example.net"])
    body = Body(mail.content())
    await body.open()
    assert b"".join([piece.data async for piece in body.chunks()]) == SENT
    await body.aclose()


@pytest.mark.parametrize("kind", [None, "short reads of a stream", "generator", "async iterator"])
async def test_the_raw_of_a_message_is_normalised_unless_it_is_to_be_exact(tmp_path, kind):
    def message():
        source = LF if kind is None else EVERY[kind](LF, tmp_path)
        return Message(sender="ann@example.com", to="bob@example.org", raw=source)

    assert await read_all((await mail_of(message())).content()) == SENT
    exact = await read_all((await mail_of(message(), exact=True)).content(binary=True))
    assert exact == SENT.replace(b"\r\n", b"\n")
