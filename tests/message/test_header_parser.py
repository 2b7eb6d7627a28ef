"""header_parser.py: where a field begins and ends, what it is called, and what its octets say."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidAddress, InvalidHeader
from smtp_async.message.header_parser import (
    BOM,
    HEADER_END,
    Field,
    check_line_ends,
    decoded_octets,
    fields_of,
    mailboxes_in,
    unfolded,
    without_leading,
)

#: Octets of which headers are made, the odd ones often.
HEADERS = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"a", b"Bcc", b"\xef\xbb\xbf", b"\xfc", b">From ", b"\0"]
    ),
    max_size=40,
).map(b"".join)


def pairs(data):
    return [(field.name, field.octets) for field in fields_of(data)[0]]


def field(octets):
    ((one,), _) = fields_of(octets)
    return one


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_a_line_that_begins_with_a_blank_belongs_to_the_field_before(end):
    data = end.join([b"A: 1", b" 2", b"\t3", b"b : 4", b"", b"C: 5"])
    fields, position = fields_of(data)
    assert [one.name for one in fields] == ["a", "b"]
    assert b"".join([one.octets for one in fields]) == data[:position]
    assert data[position:] == end + b"C: 5"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"Subject : x", "subject"),
        (b"Bcc\t: x", "bcc"),
        (b" Bcc: x", "bcc"),
        (BOM + b"Bcc: x", "bcc"),
        (BOM + b" BCC :x", "bcc"),
        (b"Bcc\r\n : x", "bcc"),
        (b"X-\xfc: y", "x-ü"),
        (b">From ann", ""),
        (b"no colon", ""),
        (b": no name", ""),
        (b"a b: c", "a b"),
    ],
)
def test_names(line, name):
    one = fields_of(line + b"\r\n\r\n")[0][0]
    assert one.name == name


def test_a_line_that_is_no_field_does_not_end_the_header():
    data = b"A: 1\r\n>From x\r\nno field\r\nBcc: 2\r\n\r\nBody: 3\r\n"
    assert [name for name, _ in pairs(data)] == ["a", "", "", "bcc"]


def test_without_an_empty_line_the_header_ends_with_the_data():
    assert fields_of(b"") == ([], 0)
    assert fields_of(b"\r\nno field\r\n") == ([], 0)
    assert fields_of(b"A: b") == ([Field("a", b"A: b")], 4)
    assert fields_of(b"A: b\r\n c\r\n") == ([Field("a", b"A: b\r\n c\r\n")], 10)


def test_empty_lines_before_the_first_field_of_a_message_do_not_end_its_header():
    """Templates often begin so. In a part they end an empty header."""
    assert fields_of(b"\r\n\nA: b\r\n") == ([], 0)
    assert without_leading(b"\r\n\r\nA: b") == without_leading(BOM + b"\nA: b") == b"A: b"
    assert without_leading(b"\r\nno field") == b"\r\nno field"


@pytest.mark.parametrize("around", [b"\0", b"\x0b", "\u00a0".encode(), b"\x7f "])
def test_nothing_hides_a_field_that_is_not_to_leave(around):
    assert field(around + b"Bcc" + around + b": x").name == "bcc"
    assert field(b"Bcc\r\n " + around + b": x").label.startswith("Bcc ")
    assert field(around + b"Subject: x").name != "subject"


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"A: b\r\r\nBcc: c\r\n\r\n", True),
        (b"A: b\r\n\r\nx\r\r\n", False),
        (b"\r\r\nno field", False),
        (b"A: b\n\r\r\n", False),
    ],
)
def test_a_header_that_ends_where_others_go_on_is_refused(data, refused):
    with pytest.raises(InvalidHeader, match="CR CR LF") if refused else contextlib.nullcontext():
        check_line_ends(data)


def test_what_a_field_says():
    one = field(BOM + b"SubJect\t: J\xc3\xb6rg\r\n\t M\xfcller \r\n")
    assert (one.name, one.label) == ("subject", "SubJect")
    assert one.value == b" J\xc3\xb6rg\r\n\t M\xfcller "
    assert one.text == "Jörg  Müller"
    assert field(b"A:").text == ""


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"plain", "plain"),
        ("Grüße €".encode(), "Grüße €"),
        (b"Gr\xfc\xdfe \x80", "Grüße €"),
        (b"\xfc and \xc3\xbc", "ü and ü"),
        (b"\x81", "\x81"),
        (b"", ""),
    ],
)
def test_octets_are_utf_8_or_windows_1252(octets, text):
    assert decoded_octets(octets) == text


@given(st.binary(max_size=60))
def test_any_octets_decode(octets):
    text = decoded_octets(octets)
    text.encode()
    assert [char for char in text if char < "\x80"] == [chr(octet) for octet in octets if octet < 0x80]


@given(st.text(alphabet="a\r\n\t ü", max_size=30))
def test_what_is_unfolded_is_one_line(text):
    line = unfolded(text)
    assert not set(line) & set("\r\n\t")
    assert line.replace(" ", "") == "".join(text.split())


@given(HEADERS, st.binary(max_size=20))
def test_nothing_is_lost_or_moved(header, body):
    data = header + body
    fields, end = fields_of(data)
    assert b"".join([one.octets for one in fields]) == data[:end]
    assert data[end : end + 1] in (b"", b"\r", b"\n")
    for one in fields:
        assert one.octets
        assert one.name == one.name.strip(" \t\r\n")
        assert not set(one.label if one.name else "") & set("\r\n:")
        assert "\r" not in one.text
        assert "\n" not in one.text


@given(HEADERS)
def test_a_header_read_twice_is_the_same(header):
    fields, end = fields_of(header)
    assert fields_of(header[:end])[0] == fields


@given(HEADERS, st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\r", b"\r\n\n", b"\n\r\n"]))
def test_the_end_of_a_header_is_found_by_a_search_too(header, end):
    """Whoever searches for the end finds no more of the header than there is, and never less."""
    data = b"A: b" + header.replace(b"\r", b"").replace(b"\n", b"") + end + b"x: y"
    found = HEADER_END.search(data)
    assert found is not None
    assert found.start() < fields_of(data)[1] <= found.end()


# --- mailboxes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b'To: "A, b@c.example" <d@e.example>, f@g.example\r\n', ["d@e.example", "f@g.example"]),
        (b"To: team: a@x.example,\r\n b@x.example;\r\n", ["a@x.example", "b@x.example"]),
        (b"To: J\xf6rg <a@x.example>, J\xc3\xb6rg <b@x.example>\r\n", ["a@x.example", "b@x.example"]),
        ("To: jörg@x.example\r\n".encode(), ["jörg@x.example"]),
        (b"To: root@x.example (Cron Daemon)\r\n", ["root@x.example"]),
        (b"To:\r\n", []),
    ],
)
def test_mailboxes(octets, expected):
    assert [f"{one.local}@{one.domain}" for one in mailboxes_in(field(octets))] == expected


@pytest.mark.parametrize("octets", [b"To: j\xf6rg@x.example\r\n", b"To: nobody\r\n", b"To: <a@b\r\n"])
def test_which_mailbox_it_is_must_be_known(octets):
    with pytest.raises(InvalidAddress):
        mailboxes_in(field(octets))


@given(
    st.lists(
        st.sampled_from(
            [
                b"a",
                b"@",
                b".",
                b",",
                b"<",
                b">",
                b'"',
                b"(",
                b")",
                b":",
                b";",
                b"\xfc",
                b" ",
                b"\\",
                "é".encode(),
            ]
        ),
        max_size=25,
    ).map(b"".join)
)
def test_any_field_of_mailboxes_is_read_or_refused(value):
    try:
        found = mailboxes_in(Field("to", b"To: " + value + b"\r\n"))
    except InvalidAddress:
        return
    assert not any("\r" in str(one) or "\n" in str(one) for one in found)


@pytest.mark.parametrize(
    "pattern", [b"a", b":", b" ", b"\r\n ", b"\n", b"\r", b"a:\r\n", b"\xfc", b"\xc3\xbc\xfc", b"\n \n"]
)
def test_time_is_linear(pattern):
    data = b"A: b" + pattern * (200_000 // len(pattern))
    begun = time.process_time()
    for one in fields_of(data)[0]:
        one.text  # noqa: B018  # reading it is the point
    HEADER_END.search(data)
    assert time.process_time() - begun < 1
