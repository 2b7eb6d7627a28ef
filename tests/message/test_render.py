"""render.py: structure, encodings, boundaries, what never leaves; read back by the standard library."""

import base64
import itertools
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    ExtensionMissing,
    InvalidAddress,
    InvalidArgument,
    InvalidHeader,
    MissingSender,
    TextNotEncodable,
)
from smtp_async.message import Message
from smtp_async.model.octets import base64_lines

from .reading import check_wire_form, names_of, parsed, text_of

FIXED = {"now": lambda: 1_700_000_000.0, "token": lambda n: "0123456789abcdef" * 4}


def made(**arguments):
    return Message(**({"sender": "ann@example.com", "to": "bob@example.org"} | arguments))


def expected_text(text):
    """What a reader sees: line ends as LF, the last line ended."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") or not text else text + "\n"


def shape(part):
    if part.is_multipart():
        return part.get_content_subtype(), [shape(child) for child in part.iter_parts()]
    return part.get_content_type()


def test_a_plain_message_byte_for_byte():
    message = made(
        to="Bob <bob@example.org>",
        cc="carl@example.org",
        bcc="dora@example.org",
        reply_to="office@example.com",
        subject="Hello",
        text="Hi Bob,\nhow are you?",
        headers={"X-Mailer": "test"},
        message_id="1@example.com",
    )
    content = message.content(**FIXED)
    date, _, rest = content.join().partition(b"\r\n")
    assert date.startswith(b"Date: ")
    assert rest.decode() == (
        "From: ann@example.com\r\n"
        "Reply-To: office@example.com\r\n"
        "To: Bob <bob@example.org>\r\n"
        "Cc: carl@example.org\r\n"
        "Subject: Hello\r\n"
        "Message-ID: <1@example.com>\r\n"
        "X-Mailer: test\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 7bit\r\n"
        "\r\n"
        "Hi Bob,\r\nhow are you?\r\n"
    )
    assert content.message_id == "<1@example.com>"
    assert content.size == len(content.join())
    assert not (content.eightbit or content.utf8 or content.binary)


@pytest.mark.parametrize(
    ("attribute", "value", "written"),
    [
        ("cc", "carl@example.org, dora@example.org", b"Cc: carl@example.org, dora@example.org\r\n"),
        ("reply_to", "office@example.com", b"Reply-To: office@example.com\r\n"),
        ("subject", "Hello", b"Subject: Hello\r\n"),
        ("text", "one\n.two\n", b"\r\n\r\none\r\n.two\r\n"),
    ],
)
def test_each_is_written_if_it_is_set(attribute, value, written):
    assert written in made(**{attribute: value}).as_bytes()
    assert written not in made().as_bytes()


# --- structure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("", "text/plain"),
        ("t", "text/plain"),
        ("h", "text/html"),
        ("th", ("alternative", ["text/plain", "text/html"])),
        ("f", ("mixed", ["application/pdf"])),
        ("tf", ("mixed", ["text/plain", "application/pdf"])),
        ("hf", ("mixed", ["text/html", "application/pdf"])),
        ("hi", ("related", ["text/html", "image/png"])),
        ("ti", ("mixed", ["text/plain", "image/png"])),
        ("thi", ("alternative", ["text/plain", ("related", ["text/html", "image/png"])])),
        ("thf", ("mixed", [("alternative", ["text/plain", "text/html"]), "application/pdf"])),
        (
            "thfi",
            (
                "mixed",
                [
                    ("alternative", ["text/plain", ("related", ["text/html", "image/png"])]),
                    "application/pdf",
                ],
            ),
        ),
    ],
)
def test_structure(parts, expected):
    message = made(text="text" if "t" in parts else None, html="<p>html" if "h" in parts else None)
    if "f" in parts:
        message.attach(b"%PDF", filename="a.pdf")
    if "i" in parts:
        message.attach(b"\x89PNG", content_type="image/png", cid="logo")
    data = message.as_bytes()
    check_wire_form(data)
    found = parsed(data)
    assert shape(found) == expected
    leaves = {part.get_content_type(): part for part in found.walk() if not part.is_multipart()}
    for letter, kind, content in (("t", "text/plain", "text\n"), ("h", "text/html", "<p>html\n")):
        if letter in parts:
            assert text_of(leaves[kind]) == content
    if "f" in parts:
        assert leaves["application/pdf"].get_content() == b"%PDF"
        assert leaves["application/pdf"].get_filename() == "a.pdf"
        assert leaves["application/pdf"].get_content_disposition() == "attachment"
    if "i" in parts:
        assert leaves["image/png"]["Content-ID"] == "<logo>"
        assert leaves["image/png"].get_content_disposition() == "inline"


def test_nested_multiparts_close_in_order():
    message = made(text="t", html="h")
    message.attach(b"1", cid="one")
    message.attach(b"2", filename="two")
    delimiters = re.findall(rb"^--=_\w+(?:--)?\r$", message.as_bytes(), re.M)
    kinds = b"".join(d[-2:-1] if not d.endswith(b"--\r") else d[-4:-3].upper() for d in delimiters)
    assert kinds == b"maarrRAmM"


# --- text ---------------------------------------------------------------------------------------------------

HARD = [
    "",
    "\n",
    ".",
    "..\n.\n",
    "\n.\n",
    "a\r\n.\r\nb",
    "bare\rcr and\nlf\r\n",
    "From here\n",
    "nul\0\n",
    "trailing blanks   \nand\t\n",
    "ends with a blank ",
    "=3D=\n",
    "ünï\n",
    "日本語\n" * 50,
    "x" * 998,
    "x" * 999,
    "ü" * 600,
    "x" * 5_000_000,
    "\x85\u2028\u2029\x0b\x0c",
    "👩‍👩‍👧‍👦",
    "--=_boundary\r\n--=_boundary--",
    "a\n" * 100_000,
]


@pytest.mark.parametrize("eightbit", [False, True])
@pytest.mark.parametrize("text", HARD, ids=lambda text: ascii(text[:20]))
def test_hard_texts_read_back(text, eightbit):
    for arguments in ({"text": text}, {"text": "x", "html": text}):
        content = made(**arguments).content(eightbit=eightbit)
        data = content.join()
        check_wire_form(data)
        assert content.size == len(data)
        assert content.eightbit is not data.isascii()
        assert eightbit or data.isascii()
        assert b"\0" not in data
        part = parsed(data)
        if part.is_multipart():
            part = part.get_payload(1)
        assert text_of(part) == expected_text(text)


def octets_of(text):
    found = parsed(made(text=text).as_bytes())
    return found.get_payload(decode=True)


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_text_reads_back(text):
    data = made(text=text).as_bytes()
    check_wire_form(data)
    assert octets_of(text).decode() == expected_text(text).replace("\n", "\r\n")


@given(st.text("é=. \t\r\n\0", max_size=200))
def test_quoted_printable_corners(text):
    assert octets_of("a" * 400 + "\n" + text).decode() == expected_text("a" * 400 + "\n" + text).replace(
        "\n", "\r\n"
    )


def test_every_short_text_keeps_its_lines():
    """No bare line end leaves (SMTP smuggling): all strings over {CR, LF, `.`, `a`} up to length 5 keep their lines."""
    for length in range(6):
        for characters in itertools.product("\r\n.a", repeat=length):
            text = "".join(characters)
            body = made(text=text).as_bytes().partition(b"\r\n\r\n")[2]
            assert body.decode() == expected_text(text).replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("text", "seven", "eight"),
    [
        ("ascii", "7bit", "7bit"),
        ("x" * 999, "quoted-printable", "quoted-printable"),
        ("nul\0", "quoted-printable", "quoted-printable"),
        ("mostly ascii with one ü", "quoted-printable", "8bit"),
        ("日本語", "base64", "8bit"),
        ("日本語" * 400, "base64", "base64"),
    ],
)
def test_the_cheapest_encoding_is_taken(text, seven, eight):
    for eightbit, expected in ((False, seven), (True, eight)):
        content = made(text=text).content(eightbit=eightbit)
        assert parsed(content.join())["Content-Transfer-Encoding"] == expected
        assert content.eightbit is (expected == "8bit")


def test_encoded_lines_are_short():
    for text in ("ü" + "x" * 10_000, "日本語" * 1000):
        body = made(text=text).as_bytes().partition(b"\r\n\r\n")[2]
        assert max(map(len, body.split(b"\r\n"))) <= 76


def test_text_that_cannot_be_encoded():
    for arguments in ({"text": "a\ud800"}, {"html": "a\ud800"}):
        with pytest.raises(TextNotEncodable):
            made(**arguments).content()


# --- attachments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 58367, 58368, 58369, 200_000])
def test_base64(size):
    data = os.urandom(size)
    encoded = base64_lines(data)
    lines = encoded.split(b"\r\n")
    assert base64.b64decode(encoded) == data
    assert lines[-1] == b""
    assert all(len(line) == 76 for line in lines[:-2])
    message = made()
    message.attach(data)
    found = parsed(message.as_bytes())
    assert next(found.iter_attachments()).get_content() == data


def test_large_attachments_are_not_copied():
    message = made(text="x")
    message.attach(bytes(1_000_000))
    content = message.content()
    assert len(content.segments) == 3
    assert sum(map(len, content.segments)) == content.size


@pytest.mark.parametrize(
    "filename",
    ["a.txt", "Übersicht – März.pdf", "عربي.pdf", "日本語" * 40, 'q"uo\\te;.txt', "a b", "..", "%41'x"],
)
def test_file_names_read_back(filename):
    message = made(text="x")
    message.attach(b"data", filename=filename)
    data = message.as_bytes()
    check_wire_form(data)
    assert [part.get_filename() for part in parsed(data).iter_attachments()] == [filename]


@pytest.mark.parametrize(
    ("inner", "eightbit", "encoding", "kind"),
    [
        (b"Subject: x\n\nhi\n", False, "7bit", "message/rfc822"),
        ("Subject: x\n\nü\n".encode(), True, "8bit", "message/rfc822"),
        # Its own text is encoded instead.
        ("Subject: x\n\nü\n".encode(), False, "7bit", "message/rfc822"),
        (b"Subject: x\n\n" + b"x" * 999, True, "7bit", "message/rfc822"),
        (b"Subject: x\n\n\0", True, "7bit", "message/rfc822"),
        (b"no field\n\n\0", True, "base64", "application/octet-stream"),
    ],
)
def test_attached_messages_are_never_encoded(inner, eightbit, encoding, kind):
    message = made(text="x")
    message.attach(inner, filename="old.eml")
    content = message.content(eightbit=eightbit)
    check_wire_form(content.join())
    part = next(parsed(content.join()).iter_attachments())
    assert part["Content-Transfer-Encoding"] == encoding
    assert part.get_content_type() == kind
    assert content.eightbit is (encoding == "8bit")


# --- boundaries ---------------------------------------------------------------------------------------------


def test_boundaries_come_from_a_random_source():
    """Boundary injection: nobody can know the boundary before the body is written."""
    boundaries = {parsed(made(text="t", html="h").as_bytes()).get_boundary() for _ in range(50)}
    assert len(boundaries) == 50
    assert all(re.fullmatch("=_[0-9a-f]{24}a", boundary) for boundary in boundaries)


@pytest.mark.parametrize("place", ["text", "html", "message"])
def test_a_boundary_that_occurs_is_drawn_again(place):
    drawn = iter(["id", "aaaa", "bbbb", "cccc"])
    trap = "--=_aaaa\r\n--=_aaaaa--\n--=_bbbbm"
    message = made(text=trap if place == "text" else "t", html=trap if place == "html" else "h")
    if place == "message":
        message.attach(f"Subject: x\n\n{trap}".encode(), filename="a.eml")
    data = message.content(now=lambda: 0.0, token=lambda n: next(drawn)).join()
    assert parsed(data).get_boundary().startswith("=_cccc")
    assert message.content().join() == data


def test_a_body_written_for_the_boundary_of_before():
    message = made(text="t", html="h")
    boundary = parsed(message.as_bytes()).get_boundary()
    message.text = f"--{boundary}\r\nContent-Type: text/html\r\n\r\nevil\r\n--{boundary}--"
    again = parsed(message.as_bytes())
    assert again.get_boundary() != boundary
    assert shape(again) == ("alternative", ["text/plain", "text/html"])


def test_a_source_that_is_not_random_is_found_out():
    with pytest.raises(InvalidArgument, match="random"):
        made(text="=_same", html="x").content(token=lambda n: "same")


# --- identity -----------------------------------------------------------------------------------------------


def test_the_same_message_renders_to_the_same_bytes():
    message = made(text="t", html="ü", subject="x")
    first = message.content(**FIXED)
    again = message.content(now=lambda: 0.0, token=lambda n: "other")
    assert first.join() == again.join()
    assert first.message_id == again.message_id
    # Also for a server that offers something else: only the encoding of the parts differs.
    other = message.content(eightbit=True)
    assert other.message_id == first.message_id
    assert parsed(other.join())["Date"] == parsed(first.join())["Date"]


def test_two_messages_differ():
    assert made().content().message_id != made().content().message_id


def test_automatic_message_ids_are_under_the_senders_domain():
    assert re.fullmatch("<[0-9a-f]{32}@example.com>", made().content().message_id)
    message = made(sender="a@faß.de")
    assert message.content().message_id.endswith("@xn--fa-hia.de>")
    assert made(sender="a@[IPv6:::1]").content().message_id.endswith("@[IPv6:::1]>")


def test_no_message_id():
    content = made(message_id="").content()
    assert content.message_id is None
    assert "Message-ID" not in names_of(content.join())


# --- senders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected_from", "expected_sender"),
    [
        ({"sender": "a@x"}, "a@x", None),
        ({"sender": "a@x", "authors": "a@x"}, "a@x", None),
        ({"sender": "a@x", "authors": "b@x"}, "b@x", "a@x"),
        ({"sender": "a@x", "authors": "a@x, b@x"}, "a@x, b@x", "a@x"),
        ({"sender": None, "authors": "a@x, b@x"}, "a@x, b@x", "a@x"),
        ({"sender": None, "authors": "a@x"}, "a@x", None),
        ({"sender": "a@x", "return_path": "bounce@x"}, "a@x", None),
    ],
)
def test_from_and_sender(arguments, expected_from, expected_sender):
    found = parsed(made(**arguments).as_bytes())
    assert found["From"] == expected_from
    assert found["Sender"] == expected_sender


def test_a_message_needs_a_sender():
    with pytest.raises(MissingSender):
        Message(to="a@b").content()
    with pytest.raises(MissingSender):
        Message(to="a@b", return_path="<>").content()


def test_smtputf8_is_asked_for_only_when_an_address_needs_it():
    assert not made(subject="ü", text="ü").content(eightbit=True, utf8=True).utf8
    message = made(to="Jösé <jösé@bücher.example>", subject="ü", cc="a@faß.de")
    with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
        message.content()
    content = message.content(utf8=True)
    assert content.utf8
    assert content.eightbit
    head = content.join().partition(b"\r\n\r\n")[0].decode()
    assert "<jösé@bücher.example>" in head
    assert "a@xn--fa-hia.de" in head
    assert message.as_bytes() == content.join()
    # A recipient that is named nowhere asks nothing of the header.
    assert not made(bcc="jösé@x").content().utf8


# --- what never leaves --------------------------------------------------------------------------------------


def test_bcc_never_shows():
    """Neither the field nor the address leaves, whatever the server takes."""
    message = made(bcc=["Secret <secret@hidden.example>", "other@hidden.example"], text="t", html="h")
    message.attach(b"x", filename="x")
    for content in (message.content(), message.content(eightbit=True, utf8=True)):
        data = content.join().lower()
        assert b"\r\nbcc:" not in data
        assert b"hidden" not in data


@pytest.mark.parametrize(
    "name",
    [
        "Bcc",
        "bCC",
        "Resent-Bcc",
        "To",
        "Subject",
        "Date",
        "From",
        "Content-Type",
        "MIME-Version",
        "message-id",
    ],
)
def test_fields_with_an_owner_are_not_extra(name):
    with pytest.raises(InvalidHeader, match="headers="):
        made(headers={name: "x@y"}).content()


INJECTIONS = [
    "\r\nBcc: evil@x",
    "\nBcc: evil@x",
    "\rBcc: evil@x",
    "\r\n\r\nbody",
    "\r\n ",
    "\0",
    "\x0b",
    "\x1c",
]


@pytest.mark.parametrize("bad", INJECTIONS)
@pytest.mark.parametrize(
    "make",
    [
        lambda bad: made(subject="x" + bad),
        lambda bad: made(subject="ü" + bad),
        lambda bad: made(headers={"X" + bad: "y"}),
        lambda bad: made(headers=[("X", "y" + bad)]),
        lambda bad: made(message_id="<a@b>" + bad),
        lambda bad: made(message_id="a" + bad + "@b"),
        lambda bad: made(sender="Ann" + bad + " <a@b>"),
        lambda bad: made(to=f'"Ann{bad}" <a@b>'),
        lambda bad: made(cc=["a@b" + bad]),
        lambda bad: made(reply_to="a@b" + bad),
        lambda bad: made(bcc="a@b" + bad),
        lambda bad: made(return_path="a@b" + bad),
        lambda bad: made(authors=["a@b" + bad]),
        lambda bad: made().attach(b"", filename="a" + bad),
        lambda bad: made().attach(b"", filename="ü" + bad),
        lambda bad: made().attach(b"", content_type="text/plain" + bad),
        lambda bad: made().attach(b"", content_type=f'text/plain; name="a{bad}"'),
        lambda bad: made().attach(b"", cid="a" + bad),
    ],
)
def test_injection_is_refused(make, bad):
    """Header injection by name, value, parameter, file name, cid and display name."""
    with pytest.raises((InvalidHeader, InvalidAddress, InvalidArgument)):
        make(bad).content()


def test_what_is_appended_later_is_checked_too():
    message = made()
    message.headers.append(("X", "y\r\nBcc: evil@x"))
    with pytest.raises(InvalidHeader):
        message.content()


ANY = st.text(max_size=30)


@given(name=ANY, value=ANY, subject=ANY, filename=ANY, cid=ANY, display=ANY, parameter=ANY)
def test_the_header_is_exactly_what_was_set(name, value, subject, filename, cid, display, parameter):
    """Header injection: read back, there are the fields that were set, in their order, and no Bcc."""
    quoted = display.replace("\\", "\\\\").replace('"', '\\"')
    try:
        message = made(
            to=f'"{quoted}" <bob@example.org>', subject=subject, headers=[("X-Name", "1"), (name, value)]
        )
        message.attach(b"x", filename=filename, cid=cid, content_type=f'a/b; p="{parameter}"')
        data = message.as_bytes()
    except (InvalidHeader, InvalidAddress, InvalidArgument):
        # Then at least each of them alone, where it is valid.
        message = made(subject="".join(c for c in subject if c.isprintable()))
        message.attach(b"x", filename="".join(c for c in filename if c.isprintable()))
        data, name = message.as_bytes(), None
    check_wire_form(data)
    expected = ["Date", "From", "To", "Subject", "Message-ID"]
    expected += [] if name is None else ["X-Name", name]
    assert names_of(data) == [*expected, "MIME-Version", "Content-Type"]
    assert len(list(parsed(data).iter_parts())) == 1


def test_extra_headers_keep_order_and_case():
    pairs = [
        ("x-B", "1"),
        ("X-a", "2"),
        ("x-B", "3"),
        ("List-Unsubscribe", "<https://x.example/?a=b>, <mailto:u@x>"),
    ]
    found = parsed(made(headers=pairs).as_bytes())
    assert [(n, v) for n, v in found.items() if n.lower().startswith(("x-", "list"))] == pairs


# --- where attachments stand ---------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.sampled_from([0, 1, 57, 5000, 65_535, 65_536, 200_000]), min_size=1, max_size=6),
    streamed=st.sets(st.integers(0, 5)),
    inline=st.sets(st.integers(0, 5)),
    binary=st.booleans(),
)
def test_attachments_in_memory_can_be_found_in_the_content(sizes, streamed, inline, binary):
    """Events tell of them by name, so each has to be where it is said to be."""
    message = made(text="", html="<p>x</p>")
    expected = []
    for place in (*sorted(inline), *sorted(set(range(6)) - inline)):
        if place >= len(sizes):
            continue
        # The same octets again and again: places are told apart, not contents.
        data, name = b"x" * sizes[place], f"{place}.bin"
        cid = f"c{place}" if place in inline else None
        message.attach([data] if place in streamed else data, filename=name, cid=cid)
        if place not in streamed:
            raw = binary and len(data) >= 4096
            expected.append((name, data if raw else base64_lines(data)))
    content = message.content(binary=binary)
    memory = b"".join([segment for segment in content.segments if isinstance(segment, bytes)])
    assert [(one.name, memory[one.start : one.end]) for one in content.attached] == expected
    # Each begins behind its header.
    assert all(memory[: one.start].endswith(b"\r\n\r\n") for one in content.attached)


def test_what_has_no_name_is_called_something_all_the_same():
    assert made(text="t", html="<p>t</p>").content().attached == ()
    nameless = made()
    nameless.attach(b"x")
    nameless.attach(b"x", cid="here")
    assert [one.name for one in nameless.content().attached] == ["attachment", "here"]


# --- structured fields --------------------------------------------------------------------------------------

STRUCTURED = [
    "List-Post",
    "List-Any",
    "DKIM-Signature",
    "Received",
    "ARC-Seal",
    "Authentication-Results",
    "References",
]


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_field_of_tokens_is_folded_and_never_encoded(name):
    value = " ".join(f"<https://x.example/{number}?=?utf-8?q?x?=>" for number in range(40))
    data = made(headers={name: value}).as_bytes()
    header = check_wire_form(data)
    assert max(map(len, header)) <= 78
    assert f"{name}: {value}".encode() in b"".join(header)


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_token_too_long_for_a_line_is_refused(name):
    made(headers={name: "x" * (996 - len(name))}).as_bytes()
    with pytest.raises(InvalidHeader, match="998"):
        made(headers={name: "x" * 999}).as_bytes()


def test_tokens_that_are_not_ascii():
    data = made(headers={"List-Post": "<https://x.example/ü>", "Feedback-ID": "ü b"}).as_bytes()
    assert b"List-Post: <https://x.example/%C3%BC>\r\nFeedback-ID: =?utf-8?b?w7w=?= b\r\n" in data
    with pytest.raises(InvalidHeader):
        made(headers={"List-Post": "ü\r\nBcc: x"}).as_bytes()
