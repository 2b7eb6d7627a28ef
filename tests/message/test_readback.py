"""readback.py: a message as bytes, its size, its header and its body as they were sent."""

import io
from typing import Any

import pytest

from smtp_async.errors import FileError, InvalidArgument, SMTPError, UsageError
from smtp_async.message import Message

from .reading import parsed


def made(**arguments: Any):
    return Message(**({"sender": "ann@example.com", "to": "bob@example.org"} | arguments))


def attached(data):
    return [part.get_content() for part in parsed(data).iter_attachments()]


class Pipe(io.RawIOBase):
    """A stream that cannot go back."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.data.readinto(buffer)


class Slow:
    """An async iterable."""

    def __init__(self, data=b"slow"):
        self.data = data

    async def __aiter__(self):
        yield self.data


OCTETS = bytes(range(256)) * 1000


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "data.bin"
    file.write_bytes(OCTETS)
    return file


@pytest.mark.parametrize("kind", ["path", "file", "moved file", "pipe", "list", "iterator", "bytes"])
def test_sources_are_read_on_the_spot(kind, path):
    source: Any = {
        "path": path,
        "file": io.BytesIO(OCTETS),
        "moved file": io.BytesIO(b"passed" + OCTETS),
        "pipe": Pipe(OCTETS),
        "list": [OCTETS[:7], b"", OCTETS[7:]],
        "iterator": iter([OCTETS[:7], OCTETS[7:]]),
        "bytes": OCTETS,
    }[kind]
    if kind == "moved file":
        source.seek(6)
    message = made(text="t")
    message.attach(source, filename="f")
    data = message.as_bytes()
    assert attached(data) == [OCTETS]
    # The same again, also from what can be read once only, since the message holds it now.
    assert message.as_bytes() == data
    assert message.size == len(data)
    if kind == "moved file":
        assert source.tell() == 6
    assert isinstance(message.attachments[0].source, bytes) is (kind in ("pipe", "iterator", "bytes"))


def test_the_texts_are_kept_too():
    message = made(text=iter([b"text\n"]), html=Pipe(b"<p>"))
    data = message.as_bytes()
    assert (message.text, message.html) == (b"text\n", b"<p>")
    assert [part.get_content() for part in parsed(data).iter_parts()] == ["text\n", "<p>"]


@pytest.mark.parametrize("kind", ["path", "file", "list", "iterator", "pipe", "async"])
def test_the_size_is_known_without_reading(kind, path):
    source: Any = {
        "path": path,
        "file": io.BytesIO(OCTETS),
        "list": [OCTETS],
        "iterator": iter([OCTETS]),
        "pipe": Pipe(OCTETS),
        "async": Slow(),
    }[kind]
    message = made(text="t")
    message.attach(source)
    if kind in ("path", "file", "list"):
        assert message.size == len(message.as_bytes())
    else:
        assert message.size is None


def test_an_async_source_is_refused_by_name():
    message = made()
    message.attach(Slow())
    for read in (message.as_bytes, lambda: message.body_text, message.to_email_message):
        with pytest.raises(UsageError, match=r"await message\.render\(\)"):
            read()
    assert message.headers_text.endswith("\r\n\r\n")


async def test_render_reads_everything(path):
    message = made(text="ü")
    for source in (Slow(), path, io.BytesIO(b"file"), iter([b"it", b"er"]), b"bytes"):
        message.attach(source, filename="f")
    assert attached(await message.render()) == [b"slow", OCTETS, b"file", b"iter", b"bytes"]


async def test_render_gives_what_as_bytes_gives():
    message = made(text="ü", html="h", subject="s")
    assert await message.render() == message.as_bytes()


@pytest.mark.parametrize("kind", ["missing", "directory", "closed", "text", "not bytes"])
def test_what_cannot_be_read_is_302(kind, tmp_path):
    closed = io.BytesIO(b"x")
    closed.close()

    class Texts:
        def read(self, size=-1):
            return "text"

    bad: Any = {
        "missing": tmp_path / "none",
        "directory": tmp_path,
        "closed": closed,
        "text": Texts(),
        "not bytes": ["text"],
    }[kind]
    message = made()
    message.attach(bad)
    with pytest.raises(FileError) as caught:
        message.as_bytes()
    assert caught.value.code == 302
    if kind in ("missing", "closed"):
        with pytest.raises(FileError):
            message.size  # noqa: B018  # reading it is the point


# --- as it was sent -----------------------------------------------------------------------------------------


def test_the_header_is_what_stands_before_the_empty_line():
    message = made(subject="Grüße", text="ü", headers={"X-Long": "word " * 40})
    header, end, _ = message.as_bytes().partition(b"\r\n\r\n")
    assert message.headers_text.encode() == header + end


def test_the_body_is_what_stands_behind_it():
    message = made(subject="Grüße", text="one\n.\n")
    assert message.body_text.encode() == message.as_bytes().partition(b"\r\n\r\n")[2]
    assert "\r\n.\r\n" in message.body_text


def test_the_fields_are_in_order_and_not_folded():
    message = made(subject="a" * 50 + " " + "b" * 50, date="", message_id="", headers=[("x-A", "word " * 40)])
    assert message.all_headers[:4] == (
        ("From", "ann@example.com"),
        ("To", "bob@example.org"),
        ("Subject", "a" * 50 + " " + "b" * 50),
        ("x-A", ("word " * 40).strip()),
    )
    assert "\r\n " in message.headers_text


def test_header_and_body_are_the_message():
    message = made(subject="Grüße", text="ü", headers={"X-Long": "word " * 40})
    data = message.as_bytes()
    assert (message.headers_text + message.body_text).encode() == data
    assert message.headers_text.endswith("\r\n\r\n")
    names = [name for name, _ in message.all_headers]
    assert names == [
        *["Date", "From", "To", "Subject", "Message-ID", "X-Long"],
        *["MIME-Version", "Content-Type", "Content-Transfer-Encoding"],
    ]
    assert dict(message.all_headers)["X-Long"] == ("word " * 40).strip()


@pytest.mark.parametrize(
    "abilities", [{}, {"eightbit": True}, {"eightbit": True, "utf8": True, "binary": True}]
)
def test_what_is_read_afterwards_is_what_was_sent(abilities):
    """Date, Message-ID and boundaries are fixed at the first rendering, encodings by the last one."""
    message = made(text="ü", html="h", header_charset="utf-8")
    message.attach(bytes(5000), filename="f")
    sent = message.content(**abilities).join()
    assert message.size == len(message.as_bytes())  # which changes nothing
    assert message.headers_text.encode() == sent.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert message.body_text.encode("utf-8", "surrogateescape") == sent.partition(b"\r\n\r\n")[2]


def test_octets_that_are_no_utf8_survive():
    message = made()
    message.attach(b"\xff" * 5000)
    sent = message.content(binary=True).join()
    assert (message.headers_text + message.body_text).encode("utf-8", "surrogateescape") == sent


# --- raw ----------------------------------------------------------------------------------------------------

RAW = b"From: x@y\nBcc: s@hidden,\n t@hidden\nSubject: \xfc\n\nbare\r and\n.\n long " + b"x" * 2000 + b" end"


LINED = b"From: x@y\r\nSubject: \xfc\r\n\r\nbare\r\n and\r\n.\r\n long " + b"x" * 2000 + b" end\r\n"


def test_raw_is_sent_as_it_is_but_for_bcc_and_its_line_ends():
    message = made(raw=RAW, subject="not used", text="not used")
    expected = LINED
    content = message.content()
    assert content.join() == expected == message.as_bytes()
    assert content.binary
    assert content.eightbit
    assert message.size == len(expected)
    assert [str(r.address) for r in message.envelope().recipients] == ["bob@example.org"]
    assert not made(raw=b"Subject: x\r\n\r\nx\r\n").content().binary


def test_raw_from_a_source_is_a_plan(tmp_path):
    path = tmp_path / "whole.eml"
    path.write_bytes(RAW)
    message = made(raw=path)
    (source,) = message.content(eightbit=True).sources
    assert (source.origin, source.encoding) == (path, "identity")
    assert message.size is None
    assert b"hidden" not in message.as_bytes()
    assert message.headers_text.encode("utf-8", "surrogateescape") == b"From: x@y\r\nSubject: \xfc\r\n\r\n"
    message.raw = iter([RAW])
    assert b"hidden" not in message.as_bytes()
    assert message.raw == RAW


def test_raw_needs_an_envelope():
    with pytest.raises(SMTPError):
        Message(raw=RAW).envelope()
    with pytest.raises(InvalidArgument):
        made(raw=7)


@pytest.mark.parametrize("kind", ["path", "file", "iterator", "awaited"])
async def test_bcc_of_a_raw_source_is_not_rendered(kind, tmp_path):
    path = tmp_path / "whole.eml"
    path.write_bytes(RAW)
    raw = {"path": path, "file": io.BytesIO(RAW), "iterator": iter([RAW]), "awaited": Slow(RAW)}[kind]
    assert await made(raw=raw).render() == made(raw=RAW).as_bytes()
    assert b"hidden" not in made(raw=RAW).as_bytes()
