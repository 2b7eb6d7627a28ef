"""parts.py: every message can be read, whatever is wrong with it."""

from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.web.catcher.parts import ReadMessage
from tests.web.catcher.lab import HTML, PIXEL, letter


def test_texts_files_and_fields():
    message = letter("Grüße 🎉", html=HTML)
    message.add_attachment("a;b\n", subtype="csv", filename="Köstlichkeiten.csv")
    read = ReadMessage(message.as_bytes())
    assert read.field("Subject") == "Grüße 🎉" and read.field("None") == ""
    assert ("Subject", "Grüße 🎉") in read.fields
    assert read.text == "Hi Bob\n" and read.html is not None and "<b>Bob</b>" in read.html
    logo, csv = read.files
    assert (logo.content_id, logo.inline, logo.data) == ("logo@x", True, PIXEL)
    assert (csv.filename, csv.content_type, csv.inline) == ("Köstlichkeiten.csv", "text/csv", False)
    assert csv.data == b"a;b\n" and [one.number for one in read.files] == [0, 1]


def test_a_whole_message_as_an_attachment():
    outer = letter()
    outer.add_attachment(letter("inner"))
    [inner] = ReadMessage(outer.as_bytes()).files
    assert inner.content_type == "message/rfc822" and inner.filename == "part-1.eml"
    assert b"Subject: inner" in inner.data


def test_without_text():
    assert ReadMessage(b"Subject: x\r\n\r\n").text == ""
    pixel = EmailMessage()
    pixel.set_content(PIXEL, "image", "png")
    read = ReadMessage(pixel.as_bytes())
    assert read.text is None and read.html is None and read.files[0].filename == "part-1.png"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("../../etc/passwd", "_.._etc_passwd"), ("a\\b", "a_b"), ("..", "part-1.bin"), ("a\x1bb", "a_x1bb")],
    ids=["path", "backslash", "dots", "escape"],
)
def test_names_of_files_lead_nowhere(name, shown):
    head = f'Content-Type: application/bin\r\nContent-Disposition: attachment; filename="{name}"\r\n\r\nx'
    assert ReadMessage(head.encode()).files[0].filename == shown


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: text/plain; charset=none-such",
        "Content-Type: text/plain; charset*=bogus'x'%ff",
        'Content-Type: text/plain; charset="',
        "Content-Type: nonsense",
        "Content-Type: multipart/mixed",
        "Content-Type: multipart/mixed; boundary=",
        "Content-Transfer-Encoding: base64\r\nContent-Type: text/html",
        "Content-Transfer-Encoding: quoted-printable",
        "Content-Transfer-Encoding: x-uuencode",
        "Content-Disposition: attachment; filename*=utf-8''%",
        "Content-Disposition: attachment; filename*0*=bogus''x; filename*1*=%zz",
        "Subject: =?none-such?b?!!!?=",
        "Subject: =?utf-8?q?=ff=FE?=",
        "Subject: \xff\xfe",
        ": no name",
        "no colon",
    ],
)
def test_odd_messages_are_read(head):
    look_at(ReadMessage(head.encode("latin-1") + b"\r\n\r\n=A=ZZ\xff!!!\r\n"))


def look_at(read):
    """Everything that the page shows."""
    assert isinstance(read.field("Subject"), str)
    for name, text in read.fields:
        assert name.isprintable() and text.isprintable()
    for text in (read.text, read.html):
        assert text is None or isinstance(text, str)
    for part in read.files:
        assert part.filename and "/" not in part.filename and part.filename.isprintable()
        assert part.content_type.isprintable() and isinstance(part.data, bytes)


@given(st.binary(max_size=400))
def test_any_octets_are_read(data):
    look_at(ReadMessage(data))


FIELD = st.sampled_from(
    ["Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "Content-ID", "Subject", "From"]
)
VALUE = st.one_of(
    st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=40),
    st.sampled_from(
        ["multipart/mixed; boundary=b", "text/html; charset=utf-16", "message/rfc822", "attachment", "base64"]
        + ["inline; filename*=utf-7''%2Bx", "text/plain; charset=idna", "=?utf-8?b?4pyT?=", "message/partial"]
    ),
)


@given(st.lists(st.tuples(FIELD, VALUE), max_size=6), st.binary(max_size=200))
def test_any_header_is_read(fields, body):
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("utf-8", "replace")
    look_at(ReadMessage(head + b"\r\n" + body))
    look_at(ReadMessage(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + head + b"\r\n" + body))
