"""coerce.py: what may be sent, and under which envelope."""

import io
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest

from smtp_async import Attachment, Message, SendOptions
from smtp_async.errors import FileError, InvalidArgument, MissingRecipient, MissingSender
from smtp_async.mail.coerce import PendingMail, Raw, to_mail, unsent_sources
from smtp_async.model.content import Mail
from smtp_async.sources import Body, read_all
from smtp_async.sources.render_cost import HEAVY, LONG
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


def at_once(message: Any, *args: Any) -> Mail:
    mail = to_mail(message, *args)
    assert not isinstance(mail, PendingMail)
    return mail


async def read(message: Any, *args: Any, whole: bool = False) -> Mail:
    mail = to_mail(message, *args)
    if isinstance(mail, PendingMail):
        mail = await (mail.read_whole() if whole else mail.read())
    return mail


async def octets_of(mail: Mail) -> bytes:
    body = Body(mail.content())
    try:
        await body.open()
        return b"".join([piece.data async for piece in body.chunks()])
    finally:
        await body.aclose()


@pytest.mark.parametrize(
    "make",
    [lambda: Message(sender="ann@example.com", to="bob@example.org"), foreign, lambda: Raw(SHOWN)],
)
def test_a_small_message_in_memory_is_mail_at_once(make):
    mail = at_once(make())
    assert names(mail) == ("ann@example.com", ["bob@example.org"])
    assert mail.content().join()


def test_a_mail_of_another_kind_is_returned_as_it_is():
    class Prepared:
        def envelope(self): ...

        def content(self, *, eightbit=False, utf8=False, binary=False): ...

    mail = Prepared()
    assert to_mail(mail, SendOptions(exact=True, close_source=True)) is mail


@pytest.mark.parametrize("message", [b"bytes", "text", 3, None, io.BytesIO()])
def test_an_object_that_is_not_a_message_is_refused(message):
    with pytest.raises(InvalidArgument, match="cannot send"):
        to_mail(message)


@pytest.mark.parametrize("octets", [bytes, bytearray, memoryview])
def test_a_raw_of_octets_needs_no_reading(octets):
    assert at_once(Raw(octets(RAW))).content().join() == SHOWN


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", EVERY)
async def test_a_raw_of_a_stream_has_to_be_read(tmp_path, kind, whole):
    raw = Raw(EVERY[kind](RAW, tmp_path), recipients=["dan@example.org"], close=True)
    pending = to_mail(raw)
    assert isinstance(pending, PendingMail)
    mail = await (pending.read_whole() if whole else pending.read())
    assert names(mail) == ("ann@example.com", ["dan@example.org"])
    assert await octets_of(mail) == SHOWN


@pytest.mark.parametrize("octets", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_raw_of_many_octets_is_read_in_a_thread(octets, whole):
    data = SHOWN + b"x" * 70 * 10 + b"\r\n" * LONG
    assert isinstance(to_mail(Raw(octets(data))), PendingMail)
    assert await octets_of(await read(Raw(octets(data)), whole=whole)) == data


async def test_a_large_raw_is_sent_from_where_it_is_in_memory():
    data = SHOWN + b"\r\n" * LONG
    mail = await read(Raw(data, sender="ann@example.com", recipients=["bob@example.org"]))
    (segment,) = mail.content().segments
    assert segment is data


@pytest.mark.parametrize(
    "data",
    [
        SHOWN + b"\r\n" * LONG + b"x\n",
        SHOWN + b"\r\n" * LONG + b"x",
        b"\r\n" + SHOWN + b"\r\n" * LONG,
        RAW + b"\r\n" * LONG,
    ],
    ids=["bare LF", "no last line end", "an empty line first", "Bcc"],
)
async def test_a_large_raw_that_has_to_change_is_read_like_a_file(data):
    raw = Raw(data, sender="ann@example.com", recipients=["bob@example.org"])
    mail = await read(raw)
    assert len(mail.content().sources) == 1
    assert await octets_of(mail) == await octets_of(await read(raw, whole=True)) != data


@pytest.mark.parametrize("whole", [False, True])
async def test_a_large_email_message_is_converted_in_a_thread(whole):
    message = foreign()
    message.set_content("x" * 70 + "\n" * HEAVY)
    mail = to_mail(message, SendOptions(), None, ["dan@example.org"])
    assert isinstance(mail, PendingMail)
    made = await read(message, SendOptions(), None, ["dan@example.org"], whole=whole)
    assert names(made) == ("ann@example.com", ["dan@example.org"])


async def test_a_raw_may_be_left_as_it_is():
    text = RAW + b"\n"
    mail = await read(Raw(io.BytesIO(text)), SendOptions(exact=True, remove_bcc=False))
    content = mail.content()
    assert (await read_all(content), content.binary) == (text, True)


@pytest.mark.parametrize(
    ("head", "sender", "error"),
    [(b"X: y\r\n", None, MissingSender), (b"From: a@example.com\r\n", "no address", InvalidArgument)],
)
@pytest.mark.parametrize("close", [False, True])
async def test_a_stream_without_an_envelope_is_closed_if_that_was_asked(head, sender, error, close):
    stream = io.BytesIO(head + b"\r\n" + RAW)
    with pytest.raises(error):
        await read(Raw(stream, sender, close=close))
    assert stream.closed is close


async def test_a_stream_that_cannot_be_read_is_an_error(tmp_path):
    for whole in (False, True):
        with pytest.raises(FileError):
            await read(Raw(tmp_path), whole=whole)


@pytest.mark.parametrize(
    ("sender", "recipients", "expected"),
    [
        (None, None, ("ann@example.com", ["bob@example.org", "cy@example.org"])),
        ("x@example.com", None, ("x@example.com", ["bob@example.org", "cy@example.org"])),
        (None, ["y@example.com"], ("ann@example.com", ["y@example.com"])),
        ("x@example.com", ["y@example.com"], ("x@example.com", ["y@example.com"])),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_another_envelope_replaces_what_is_given(sender, recipients, expected, whole):
    addresses: dict[str, Any] = {
        "sender": "ann@example.com",
        "to": "bob@example.org",
        "bcc": "cy@example.org",
    }
    for message in (
        Raw(io.BytesIO(RAW)),
        Raw(RAW),
        Message(**addresses),
        Message(**addresses, raw=RAW),
        Message(**addresses, raw=io.BytesIO(RAW)),
    ):
        assert names(await read(message, SendOptions(), sender, recipients, whole=whole)) == expected


def test_the_envelope_of_a_call_goes_before_that_of_a_raw():
    raw = Raw(RAW, "dan@example.org", ["eve@example.org"])
    assert names(at_once(raw, SendOptions(), "ann@example.com")) == ("ann@example.com", ["eve@example.org"])


def test_recipients_are_not_one_text():
    for message in (foreign(), Message(sender="ann@example.com", to="bob@example.org"), Raw(RAW)):
        with pytest.raises(InvalidArgument, match="not one text"):
            to_mail(message, SendOptions(), None, "bob@example.org")


def test_a_message_whose_envelope_is_incomplete_is_refused_before_its_stream_is_read():
    stream = io.BytesIO(RAW)
    with pytest.raises(MissingRecipient):
        to_mail(Message(sender="ann@example.com", raw=stream))
    assert stream.tell() == 0


# --- streams of messages that are not sent -------------------------------------------------------------------


def _attached(close: bool) -> tuple[Message, io.BytesIO]:
    stream = io.BytesIO(b"x")
    attachment = Attachment(stream, filename="x.bin", close=close)
    return Message(sender="ann@example.com", to="bob@example.org", attachments=[attachment]), stream


def _raw(close: bool) -> tuple[Raw, io.BytesIO]:
    stream = io.BytesIO(RAW)
    return Raw(stream, close=close), stream


def _text(_: bool) -> tuple[Message, io.BytesIO]:
    stream = io.BytesIO(b"text")
    return Message(sender="ann@example.com", to="bob@example.org", text=stream), stream


@pytest.mark.parametrize(
    ("make", "close", "close_source", "closed"),
    [
        (_attached, True, False, True),
        (_attached, False, True, False),
        (_raw, True, False, True),
        (_raw, False, True, True),
        (_raw, False, False, False),
        (_text, False, True, True),
        (_text, False, False, False),
    ],
)
@pytest.mark.parametrize("converted", [False, True])
async def test_streams_of_an_unsent_message_are_closed_if_that_was_asked(
    make, close, close_source, closed, converted
):
    message, stream = make(close)
    options = replace(SendOptions(), close_source=close_source)
    sources = unsent_sources(message, options)
    if converted and not isinstance(message, Raw):
        sources = unsent_sources(at_once(message, options, "eve@example.com"), options)
    sources.close()
    await sources.aclose()
    assert stream.closed is closed


def test_an_object_that_is_not_mail_is_not_closed():
    stream = io.BytesIO()
    unsent_sources(stream, SendOptions(close_source=True)).close()
    assert not stream.closed


# --- line ends ------------------------------------------------------------------------------------------------

LF = b"\xef\xbb\xbfBcc: eve@example.net\nFrom: ann@example.com\nTo: bob@example.org\n\nHello\nyou\n"
SENT = b"From: ann@example.com\r\nTo: bob@example.org\r\n\r\nHello\r\nyou\r\n"


@pytest.mark.parametrize("kind", [None, *EVERY])
async def test_a_byte_order_mark_hides_no_bcc(tmp_path, kind):
    source = LF if kind is None else EVERY[kind](LF, tmp_path)
    mail = await read(Raw(source, close=True))
    assert names(mail) == ("ann@example.com", ["bob@example.org", "eve@example.net"])
    assert await octets_of(mail) == SENT


@pytest.mark.parametrize("kind", [None, "short reads of a stream", "generator", "async iterator"])
async def test_the_raw_of_a_message_is_normalised_unless_it_is_to_be_exact(tmp_path, kind):
    def message():
        source = LF if kind is None else EVERY[kind](LF, tmp_path)
        return Message(sender="ann@example.com", to="bob@example.org", raw=source)

    assert await read_all((await read(message())).content()) == SENT
    exact = await read(message(), SendOptions(exact=True))
    assert await read_all(exact.content(binary=True)) == SENT.replace(b"\r\n", b"\n")
