"""mime.py: what takes BINARYMIME, the calendar, texts and attachments that are not in memory, encodings declared."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.message import Message
from smtp_async.message.mime import calendar_method
from smtp_async.message.transfer_encoding import WORTH_BINARY

from .reading import check_wire_form, parsed, text_of


def made(**arguments: Any):
    return Message(**({"sender": "ann@example.com", "to": "bob@example.org"} | arguments))


def encodings(data):
    """The encoding of each part, the whole message first; what says nothing is 7bit."""
    return [str(part.get("Content-Transfer-Encoding", "7bit")) for part in parsed(data).walk()]


# --- binary -------------------------------------------------------------------------------------------------


def test_large_attachments_travel_as_they_are_where_that_is_taken():
    data = os.urandom(WORTH_BINARY - 4) + b"\r\n.\n"
    message = made(text="ü")
    message.attach(data, filename="a.bin")
    message.attach(b"\0small", filename="b.bin")
    content = message.content(eightbit=True, binary=True)
    assert content.binary
    whole = content.join()
    assert content.size == len(whole)
    assert data in whole
    assert encodings(whole) == ["binary", "8bit", "binary", "base64"]
    assert not message.content(eightbit=True).binary
    assert data not in message.content(eightbit=True).join()


@pytest.mark.parametrize("size", [0, WORTH_BINARY - 1])
def test_what_saves_nothing_asks_for_nothing(size):
    message = made(text="ü")
    message.attach(bytes(size))
    content = message.content(eightbit=True, binary=True)
    assert not content.binary
    assert content.join() == message.content(eightbit=True).join()


def test_texts_are_never_binary():
    content = made(text="nul\0 " * WORTH_BINARY, html="x" * 5000).content(eightbit=True, binary=True)
    assert not content.binary
    check_wire_form(content.join())


def test_a_boundary_in_a_binary_attachment_is_drawn_again():
    """Boundary injection: what is drawn must not occur in what travels as it is."""
    drawn = iter(["0" * 32 + "a" * 24, "b" * 24, "c" * 24])
    message = made(text="t")
    message.attach(b"--=_" + b"a" * 24 + b"--=_" + b"b" * 24 + bytes(WORTH_BINARY))
    data = message.content(binary=True, now=lambda: 0.0, token=lambda n: next(drawn)).join()
    assert parsed(data).get_boundary() == "=_" + "c" * 24 + "m"


def test_an_attached_message_is_binary_only_where_it_may_be():
    inner = b"Subject: x\r\n\r\n" + b"\xff" * WORTH_BINARY + b"\0"
    message = made(text="t")
    message.attach(inner, filename="old.eml")
    whole = message.content(eightbit=True, binary=True).join()
    assert inner in whole
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n" in whole
    plain = message.content(eightbit=True).join()
    check_wire_form(plain)
    part: Any = parsed(plain).get_payload(1)
    assert part.get_content_type() == "message/rfc822"
    attached = part.get_payload(0)
    assert (attached["Subject"], attached["Content-Transfer-Encoding"]) == ("x", "base64")
    assert attached.get_payload(decode=True).rstrip(b"\r\n") == inner.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "inner",
    [
        b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n",
        b"no field\r\n\r\n\xff\r\n",
    ],
)
def test_an_attached_message_that_must_not_be_written_anew_goes_as_a_file(inner):
    message = made(text="t")
    message.attach(inner, filename="old.eml")
    assert inner in message.content(eightbit=True).join()
    part = parsed(message.content().join()).get_payload(1)
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_content() == inner


# --- encodings ----------------------------------------------------------------------------------------------


def test_a_multipart_says_what_is_in_it():
    """RFC 2045 section 6.4: without a word it would be 7bit."""
    message = made(text="ü", html="plain")
    message.attach(b"x", filename="f")
    assert encodings(message.content(eightbit=True).join()) == ["8bit", "8bit", "8bit", "7bit", "base64"]
    assert encodings(message.content().join()) == ["7bit", "7bit", "base64", "7bit", "base64"]


def test_a_line_without_end_is_encoded():
    """5 MB in one line: relays wrap or refuse more than 998 octets, and a signature breaks."""
    for text in ("x" * 5_000_000, "ü" * 2_500_000):
        for charset in ("utf-8", "latin-1"):
            data = made(text=text, charset=charset).content(eightbit=True).join()
            check_wire_form(data)
            assert max(map(len, data.split(b"\r\n"))) <= 78


# --- calendar -----------------------------------------------------------------------------------------------

EVENT = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Grüße\nEND:VEVENT\nEND:VCALENDAR\n"


@pytest.mark.parametrize("texts", ["", "t", "h", "th", "thi", "f", "tf"])
def test_a_calendar_stands_behind_the_texts(texts):
    message = made(calendar=EVENT)
    if "t" in texts:
        message.text = "text"
    if "h" in texts:
        message.html = "<p>"
    if "i" in texts:
        message.attach(b"x", cid="i", content_type="image/png")
    if "f" in texts:
        message.attach(b"x", filename="f.pdf")
    for eightbit in (False, True):
        found = parsed(message.content(eightbit=eightbit).join())
        kinds = [part.get_content_type() for part in found.walk()]
        assert kinds.count("text/calendar") == 1
        assert ("text/plain" in kinds) == ("t" in texts)
        assert ("multipart/alternative" in kinds) == bool({"t", "h"} & set(texts))
        part = next(part for part in found.walk() if part.get_content_type() == "text/calendar")
        assert part["Content-Type"].params == {"charset": "utf-8", "method": "REQUEST"}
        assert text_of(part) == EVENT
        if "multipart/alternative" in kinds:
            whole = next(part for part in found.walk() if part.get_content_subtype() == "alternative")
            assert list(whole.iter_parts())[-1] is part


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("BEGIN:VCALENDAR\r\nmethod:publish\r\nEND:VCALENDAR", "PUBLISH"),
        ("BEGIN:VCALENDAR\rMETHOD:REPLY\r", "REPLY"),
        ("BEGIN:VCALENDAR\nX-METHOD:NO\nDESCRIPTION:METHOD:NO\n", None),
        ('METHOD:A"\r\nContent-Type: x\n', None),
        ("", None),
    ],
)
def test_the_method_of_the_calendar_is_a_parameter(text, method):
    data = made(calendar=text).as_bytes()
    check_wire_form(data)
    params = dict(parsed(data)["Content-Type"].params)
    assert params == {"charset": "utf-8", **({"method": method} if method else {})}


# --- sources ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_sources_are_plans(binary):
    path, stream = Path("/nowhere/a.txt"), io.BytesIO(b"x")
    message = made(text=path, html=stream)
    message.attach(iter([b"x"]), filename="f.bin", close=True)
    content = message.content(eightbit=True, binary=binary)
    assert content.size is None
    assert content.binary is binary
    assert [source.origin for source in content.sources][:2] == [path, stream]
    assert [source.encoding for source in content.sources] == [
        *["base64", "base64"],
        "identity" if binary else "base64",
    ]
    assert [(source.name, source.close) for source in content.sources] == [
        ("", False),
        ("", False),
        ("f.bin", True),
    ]


def test_the_plan_around_a_source_is_the_message():
    message = made(text="t")
    message.attach(Path("/nowhere/a.bin"))
    content = message.content()
    before, source, after = content.segments
    assert not isinstance(source, bytes)
    data = base64.encodebytes(b"data").replace(b"\n", b"\r\n")
    found = parsed(before + data + after)
    assert next(found.iter_attachments()).get_content() == b"data"


def test_an_attached_message_from_a_source_goes_as_a_file():
    """Nobody knows whether it can travel unencoded, and encoded it must not be (RFC 2046 section 5.2)."""
    message = made(text="t")
    message.attach(Path("/nowhere/old.eml"))
    segments = message.content(eightbit=True).segments
    assert b"Content-Type: application/octet-stream\r\n" in segments[0]
    assert b"message/rfc822" not in segments[0]


@pytest.mark.parametrize("bad", [7, object(), {"a": b"b"}])
def test_texts_are_texts_or_sources(bad):
    with pytest.raises(InvalidArgument):
        made(text=bad).content()


# --- flowed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a \nb\n", "ü \nb\n", "x" * 2000])
@pytest.mark.parametrize("delsp", [False, True])
def test_a_flowed_text_says_so(text, delsp):
    part = parsed(made(text=text, flowed=True, delsp=delsp).as_bytes())
    expected = {"charset": "utf-8", "format": "flowed", **({"delsp": "yes"} if delsp else {})}
    assert part["Content-Type"].params == expected
    assert text_of(part) == text + "\n" * (not text.endswith("\n"))


def test_only_the_plain_text_is_flowed():
    message = made(text="a", html="b", delsp=True)
    assert b"delsp" not in message.as_bytes()
    message.flowed = True
    data = message.as_bytes()
    assert data.count(b"format=flowed; delsp=yes\r\n") == 1


# --- what METHOD stands in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("MET\r\n HOD:REQ\r\n\tUEST\r\n", "REQUEST"),
        ("METHOD;X-A=b:REQUEST\n", "REQUEST"),
        ("METHOD;X-A=b;X-C=\n d:reply \n", "REPLY"),
        ("METHOD\r :PUBLISH\r", "PUBLISH"),
        ("METHOD;X=" + "y" * 300 + ":REQUEST\n", None),
        ("METHOD:" + "y" * 50 + "\n", None),
    ],
)
def test_a_method_is_found_folded_and_with_parameters(text, method):
    assert calendar_method(text) == method


# --- messages within ----------------------------------------------------------------------------------------


def test_an_attached_message_is_rewritten_inside_for_an_old_server():
    inner = "Subject: ü\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße und mehr\r\n".encode()
    message = made(text="t")
    message.attach(inner, filename="old.eml")
    assert inner in message.content(eightbit=True).join()
    data = message.content().join()
    check_wire_form(data)
    assert data.isascii()
    part: Any = parsed(data).get_payload(1)
    assert (part.get_content_type(), part["Content-Transfer-Encoding"]) == ("message/rfc822", "7bit")
    assert part.get_payload(0)["Subject"] == "ü"
    assert part.get_payload(0).get_content().rstrip() == "Grüße und mehr"


def test_an_internationalized_message_goes_in_base64():
    """RFC 6532 section 3.7: the one kind of message that may be encoded."""
    inner = "To: jörg@x.example\r\n\r\nü\r\n".encode()
    message = made(text="t")
    message.attach(inner, content_type="message/global", filename="a")
    data = message.content().join()
    assert b"Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n" in data
    assert base64.b64encode(inner) in data.replace(b"\r\n", b"")


def test_another_message_that_cannot_travel_goes_as_a_file():
    message = made(text="t")
    message.attach(b"\xff\r\n", content_type="message/partial")
    assert b"message/partial" not in message.content().join()
