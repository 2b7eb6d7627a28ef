"""attachment.py: what can be attached, and what it is called."""

import io
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import InvalidArgument, InvalidHeader, UsageError
from smtp_async.message import Attachment, Message

from .reading import parsed


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("a.pdf", "application/pdf"),
        ("A.PDF", "application/pdf"),
        ("a.tar.gz", "application/gzip"),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.png", "image/png"),
        ("a.eml", "message/rfc822"),
        ("a.nothing-known", "application/octet-stream"),
        ("noextension", "application/octet-stream"),
        ("", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_types_are_guessed_from_names(filename, expected):
    assert Attachment(b"", filename=filename).content_type == expected


def test_guessing_reads_no_file(monkeypatch):
    import mimetypes

    monkeypatch.setattr(mimetypes, "init", lambda *a, **k: pytest.fail("the tables of the system were read"))
    assert Attachment(b"", filename="a.png").content_type == "image/png"


def test_content_types():
    attachment = Attachment(b"", content_type='Text/CSV; charset=utf-8;header="a \\"b\\""')
    assert attachment.content_type == "text/csv"
    assert attachment.parameters == (("charset", "utf-8"), ("header", 'a "b"'))
    message = Message(sender="a@x", to="b@x", attachments=[attachment])
    found = next(parsed(message.as_bytes()).iter_attachments())
    assert found["Content-Type"].params["header"] == 'a "b"'


@pytest.mark.parametrize(
    "bad", ["", "text", "text/", "/plain", "a/b/c", "a b/c", "text/plain;;", "a/b; c", "a/b; c=d e"]
)
def test_bad_content_types(bad):
    with pytest.raises(InvalidArgument):
        Attachment(b"", content_type=bad or " ")


@pytest.mark.parametrize("bad", ["multipart/mixed", "Multipart/Alternative; boundary=x"])
def test_nobody_sets_a_boundary(bad):
    with pytest.raises(InvalidArgument, match="multipart"):
        Attachment(b"", content_type=bad)


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "https://x.example/", None, 7, io.StringIO("x"), {"path": "/etc/passwd"}]
)
def test_a_text_is_never_a_path(source):
    """Nothing is read from disk or fetched because a text or a mapping said so: a path is an `os.PathLike`."""
    with pytest.raises(InvalidArgument, match="bytes"):
        Message().attach(source)
    if source is not None:
        with pytest.raises(InvalidArgument, match="bytes"):
            Message(raw=source)


class Uploaded:
    """An uploaded file as web frameworks have it: nothing that `io` knows."""

    def read(self, size=-1):
        return b"x"


async def endless():
    while True:
        yield b"x"


@pytest.mark.parametrize(
    "source",
    [Path("/nowhere/a.pdf"), io.BytesIO(b"x"), Uploaded(), [b"x"], iter([b"x"]), endless()],
    ids=lambda source: type(source).__name__,
)
def test_what_is_not_in_memory_is_a_plan(source):
    """Nothing is opened or read when it is attached, nor when it is rendered."""
    message = Message(sender="a@x", to="b@x", text="t")
    attachment = message.attach(source, close=True)
    assert attachment.source is source
    with pytest.raises(UsageError, match="not in memory"):
        attachment.data  # noqa: B018  # reading it is the point
    (found,) = message.content().sources
    assert found.origin is source
    assert (found.encoding, found.name, found.close) == ("base64", attachment.filename or "attachment", True)
    assert repr(attachment).endswith(f"from {type(source).__name__}>")


def test_a_path_names_the_file():
    attachment = Attachment(Path("/nowhere/Übersicht.pdf"))
    assert (attachment.filename, attachment.content_type) == ("Übersicht.pdf", "application/pdf")
    assert Attachment(Path("/nowhere/a.pdf"), filename="b.txt").filename == "b.txt"


def test_bytes_are_taken_as_they_are_now():
    buffer: Any = bytearray(b"before")
    message = Message()
    attachment = message.attach(buffer, filename="a", cid="<x@y>")
    buffer[:] = b"after!"
    assert message.attachments == [attachment]
    assert attachment.data == b"before"
    assert attachment.cid == "x@y"
    assert attachment.filename == "a"
    with pytest.raises(AttributeError):
        attachment.filename = "b"  # type: ignore[misc]  # that is the point


def test_names_of_attachments_are_checked():
    bad: list[dict[str, Any]] = [{"filename": "a\tb"}, {"cid": "a b"}, {"cid": ""}, {"filename": "a\ud800"}]
    for arguments in bad:
        with pytest.raises(InvalidHeader):
            Attachment(b"", **arguments)
