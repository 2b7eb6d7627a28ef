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


def only(attachment):
    data = Message(sender="a@x", to="b@x", attachments=[attachment]).as_bytes()
    return next(iter(parsed(data).iter_attachments())), data


@pytest.mark.parametrize(
    "text", ["text/csv;", "text/csv ; ", "text/csv; charset=utf-8;", "text/csv; charset=utf-8 ;"]
)
def test_a_semicolon_may_end_a_content_type(text):
    assert Attachment(b"", content_type=text).content_type == "text/csv"


def test_a_disposition_with_parameters():
    attachment = Attachment(b"x", filename="a", disposition='Inline; size=1; x="a b"; ')
    assert (attachment.disposition, attachment.disposition_parameters) == (
        "inline",
        (("size", "1"), ("x", "a b")),
    )
    _, data = only(attachment)
    assert b'Content-Disposition: inline; filename=a; size=1; x="a b"\r\n' in data


def test_the_disposition_decides_whether_a_cid_is_a_file():
    assert Attachment(b"", cid="x").disposition == "inline"
    assert Attachment(b"").disposition == "attachment"
    message = Message(sender="a@x", to="b@x", html="<p>")
    message.attach(b"x", cid="i", disposition="attachment")
    assert parsed(message.as_bytes()).get_content_subtype() == "mixed"


@pytest.mark.parametrize(
    "bad", ["form-data", "", "attachment; filename=x", "inline; FileName=x", "inline; x", "inline;;"]
)
def test_bad_dispositions(bad):
    with pytest.raises(InvalidArgument):
        Attachment(b"", disposition=bad)


def test_a_description_is_any_text():
    part, data = only(Attachment(b"x", description="Übersicht " * 20))
    assert str(part["Content-Description"]).strip() == ("Übersicht " * 20).strip()
    assert data.isascii()
    with pytest.raises(InvalidHeader, match="a description"):
        Attachment(b"", description="a\r\nBcc: x")


@pytest.mark.parametrize(
    ("filename", "written"),
    [("a b.txt", b'name="a b.txt"'), ("ü.txt", b'name="=?utf-8?b?w7wudHh0?="')],
)
def test_the_file_name_may_stand_in_the_content_type_too(filename, written):
    attachment = Attachment(b"x", filename=filename, name_parameter=True)
    part, data = only(attachment)
    assert attachment.name_parameter
    assert written in data.replace(b"\r\n ", b" ")
    assert part.get_filename() == filename
    assert b"name=" not in only(Attachment(b"x", filename="a"))[1].replace(b"filename=", b"")


def test_a_name_in_encoded_words_stays_as_it_is_given():
    words = "=?utf-8?b?w7w=?= =?utf-8?q?x?="
    _, data = only(Attachment(b"x", content_type=f'image/png; name="{words}"'))
    assert f'name="{words}"'.encode() in data.replace(b"\r\n ", b" ")


@pytest.mark.parametrize(
    "content_type",
    ["a/" + "b" * 128, "a" * 128 + "/b", "a/b; " + "c" * 128 + "=d"],
    ids=["subtype", "type", "name"],
)
def test_names_that_do_not_fit_into_a_line(content_type: str) -> None:
    with pytest.raises(InvalidArgument):
        Attachment(b"x", content_type=content_type)
