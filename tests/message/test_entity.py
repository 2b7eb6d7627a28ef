"""entity.py: an entity in octets, the parts that are cut out of it, and how they are put together again."""

import base64
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.message.entity import MOST_PARTS, Entity, delimiters, entity_of_octets
from smtp_async.message.header_parser import BOM, Field
from smtp_async.model.octets import SLICE

LINES = st.lists(
    st.sampled_from(
        [
            b"a",
            b"",
            b"--b",
            b"--b--",
            b"--b ",
            b"--bb",
            b" --b",
            b"A: b",
            b" c",
            b"-",
            b"--",
            b"\xff",
            b"no field",
        ]
    ),
    max_size=12,
).map(b"\r\n".join)


def multipart(body, boundary="b"):
    return entity_of_octets(f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'.encode() + body)


def leaf(encoding, body):
    return entity_of_octets(b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body)


# --- header -------------------------------------------------------------------------------------------------


def test_fields_are_found_by_name():
    one = entity_of_octets(BOM + b"A: 1\r\nB: 2\r\n x\r\na: 3\r\n\r\nbody\r\n")
    assert one.all("a") == [Field("a", b"A: 1\r\n"), Field("a", b"a: 3\r\n")]
    assert (one.text("b"), one.text("c"), one.body) == ("2 x", None, b"body\r\n")


def test_a_field_is_put_in_the_place_of_the_first_of_its_name():
    one = entity_of_octets(b"A: 1\r\nB: 2\r\nA: 3\r\n\r\n")
    one.set(Field("a", b"A: 4\r\n"))
    one.set(Field("c", b"C: 5\r\n"))
    assert one.octets() == b"A: 4\r\nB: 2\r\nA: 3\r\nC: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("field", "value", "certain"),
    [
        (b"", "text/plain", True),
        (b"Content-Type: Text/HTML; charset=x\r\n", "text/html", True),
        (b"Content-Type:\r\n", "text/plain", False),
        (b"Content-Type: text\r\n", "text/plain", False),
        (b"Content-Type: /plain\r\n", "text/plain", False),
        (b"Content-Type: text/\r\n", "text/plain", False),
        (b"Content-Type: a/b/c\r\n", "text/plain", False),
    ],
)
def test_content_types(field, value, certain):
    found = entity_of_octets(field + b"\r\n").content_type
    assert (found.value, found.certain) == (value, certain)


def test_other_fields_of_mime():
    assert entity_of_octets(b"\r\n").disposition is None
    assert entity_of_octets(b"\r\n").encoding == "7bit"
    one = entity_of_octets(
        b"Content-Disposition: Inline; filename=a\r\nContent-Transfer-Encoding: Base64 (x)\r\n\r\n"
    )
    assert one.disposition is not None
    assert (one.disposition.value, one.disposition.get("filename"), one.encoding) == ("inline", "a", "base64")


# --- octets -------------------------------------------------------------------------------------------------


@given(LINES, LINES)
def test_what_was_parsed_stands_as_it_is(header, body):
    data = header + b"\r\n\r\n" + body
    assert entity_of_octets(data).octets() == data


@pytest.mark.parametrize(
    ("data", "octets"),
    [(b"", b"\r\n"), (b"A: b", b"A: b\r\n\r\n"), (b"A: b\r\n", b"A: b\r\n\r\n"), (b"\r\nbody", b"\r\nbody")],
)
def test_an_empty_line_ends_every_header(data, octets):
    assert entity_of_octets(data).octets() == octets


def test_a_header_may_be_joined_to_the_body():
    """As the standard library has it: what is no field is the first line of the body."""
    one = Entity([Field("a", b"A: b\r\n")], b"no field\r\nbody\r\n", joined=True)
    assert one.octets() == b"A: b\r\nno field\r\nbody\r\n"


# --- parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n", [b"one", b"two"]),
        (b"before\r\n--b\r\n\r\none\r\n--b--\r\nbehind\r\n--b\r\n\r\nx\r\n", [b"one"]),
        (b"--b \t\r\n\r\none\r\n--b-- \r\n", [b"one"]),
        (b"--b\r\n\r\none\r\n\r\n--b--", [b"one\r\n"]),
        (
            b"--b\r\n\r\none\r\n--bb\r\n--b-\r\n --b\r\nx--b\r\n--b--",
            [b"one\r\n--bb\r\n--b-\r\n --b\r\nx--b"],
        ),
        (b"--b\r\n--b\r\n\r\n--b--\r\n", [b"", b""]),
        (b"--b\r\n\r\ncut short", [b"cut short"]),
        (b"--b\r\n\r\none\r\n--b", [b"one", b""]),
        (b"--b", [b""]),
        (b"--b--\r\n", []),
        (b"nothing\r\n", []),
        (b"", []),
    ],
)
def test_a_multipart_is_cut_at_its_delimiters(body, parts):
    assert [part.body for part in multipart(body).parts] == parts


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain; boundary=b",
        "multipart/mixed",
        'multipart/mixed; boundary=""',
        'multipart/mixed; boundary=" "',
    ],
)
def test_what_has_no_parts(kind):
    one = entity_of_octets(f"Content-Type: {kind}\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n".encode())
    assert one.parts == []
    assert one.boundary in ("", "b")


def test_a_boundary_is_no_expression():
    assert [part.body for part in multipart(b"--.*\r\n\r\nx\r\n--ab\r\n--.*--", ".*").parts] == [b"x\r\n--ab"]
    assert [part.body for part in multipart("--ü\r\n\r\nx\r\n--ü--".encode(), "ü").parts] == [b"x"]


def test_there_are_only_so_many_parts():
    assert len(multipart(b"--b\r\n\r\n" * MOST_PARTS).parts) == MOST_PARTS
    with pytest.raises(InvalidArgument, match=f"more than {MOST_PARTS} parts"):
        multipart(b"--b\r\n\r\n" * (MOST_PARTS + 2)).parts  # noqa: B018  # reading it is the point


@given(st.lists(LINES, max_size=5))
def test_what_was_cut_is_framed_to_the_same_parts(bodies):
    found = multipart(b"--b\r\n" + b"\r\n--b\r\n".join(bodies)).parts
    parts = [part.octets() for part in found]
    again = multipart(b"".join(multipart(b"").framed([[octets] for octets in parts])))
    assert [part.octets() for part in again.parts] == parts


@given(st.binary(max_size=200), st.text(alphabet="ab. '()+_,-/:=?", min_size=1, max_size=70))
def test_any_octets_are_cut(body, boundary):
    one = multipart(body, boundary)
    for part in one.parts:
        part.octets()
        part.decoded()
    assert one.octets().endswith(body)


def test_what_stands_around_the_parts_is_framed_too():
    one = Entity(
        [Field("content-type", b"Content-Type: multipart/mixed; boundary=b\r\n")],
        parts=[entity_of_octets(b"\r\nx")],
    )
    one.preamble, one.epilogue = b"before\r\n", b"behind\r\n"
    assert one.octets().partition(b"\r\n\r\n")[2] == b"before\r\n--b\r\n\r\nx\r\n--b--\r\nbehind\r\n"
    assert one.framed([]) == []


# --- transfer encodings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "body", "octets"),
    [
        (b"7bit", b"x=41", b"x=41"),
        (b"8BIT", b"\xff", b"\xff"),
        (b"binary", b"\0", b"\0"),
        (b"quoted-printable", b"=C3=BC=\r\nx", b"\xc3\xbcx"),
        (b"Base64", b"w7w=\r\n", b"\xc3\xbc"),
        (b"base64", b"w7w", b"\xc3\xbc"),
        (b"base64", b"w7x4e", "üx".encode()),
        (b"base64", b" w7\tx4\r\n\r\n", "üx".encode()),
        (b"base64", b"", b""),
        (b"base64", b"YQ=\r\n=\r\n", b"a"),
        (b"base64", b"=", b""),
        (b"base64", b"YQ==YQ==", None),
        (b"base64", b"YQ===", None),
        (b"base64", b"Y!Q=", None),
        (b"x-uuencode", b"x", None),
        (b"", b"x", None),
    ],
)
def test_a_body_is_decoded(encoding, body, octets):
    assert leaf(encoding, body).decoded() == octets


@given(st.binary(max_size=200), st.integers(1, 76))
def test_base64_in_lines_of_any_length(data, length):
    text = base64.b64encode(data)
    body = b"\r\n".join([text[start : start + length] for start in range(0, len(text), length)])
    assert leaf(b"base64", body).decoded() == data
    assert leaf(b"base64", body.rstrip(b"=")).decoded() == data


@given(st.sampled_from([b"base64", b"quoted-printable"]), st.binary(max_size=80))
def test_any_body_is_decoded_or_not(encoding, body):
    decoded = leaf(encoding, body).decoded()
    assert decoded is None or len(decoded) <= 2 * len(body)


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        b"--b",
        b"--b\t",
        b"--b\r\nx",
        b"\r\n",
        b"\r\n--",
        b"\r\n--b ",
        b"-",
        b" ",
        b"A",
        b"=",
        b"A=",
        b"=\r\n",
        b"\xff",
    ],
)
def test_time_is_linear(pattern):
    body = pattern * (200_000 // len(pattern))
    begun = time.process_time()
    for one in (
        multipart(body),
        multipart(body + b"!"),
        leaf(b"base64", body),
        leaf(b"quoted-printable", body + b"!"),
    ):
        try:
            one.parts  # noqa: B018  # reading it is the point
        except InvalidArgument:
            assert body.count(b"--b") > MOST_PARTS
        one.decoded()
    assert time.process_time() - begun < 1.5


def test_the_last_delimiter_is_told_apart():
    found = list(delimiters("b", b"--b\r\n--b--\r\n--b--b\r\n--b"))
    assert [match[1] for match in found] == [None, b"--", None]


@given(LINES)
def test_delimiters_are_found_as_if_every_octet_was_looked_at(data):
    everywhere = re.compile(rb"(?:\r\n|(?<![^\n])|\A)--b(--)?[ \t]*(?:\r\n|\Z)")
    expected = [match.span() for match in everywhere.finditer(data)]
    assert [match.span() for match in delimiters("b", data)] == expected


@pytest.mark.parametrize("length", [*range(SLICE - 8, SLICE + 3), 3 * SLICE])
def test_the_parts_of_long_multiparts_are_whole(length):
    texts = [b"x" * length, b"y" * (2 * SLICE), b"\r\n" * SLICE]
    body = b"".join([b"--b\r\n\r\n" + text + b"\r\n" for text in texts]) + b"--b--\r\n"
    whole = multipart(body)
    assert [part.body for part in whole.parts] == texts
    assert whole.octets().endswith(body)


@pytest.mark.parametrize("blanks", [b"", b" ", b" \t  "])
@pytest.mark.parametrize("length", range(SLICE - 6, SLICE + 2))
def test_long_quoted_printable_is_decoded(length, blanks):
    body = b"x" * length + b"=3D" + blanks + b"\r\n" + b"y=\r\n=C3=BC\r\n" * 10_000
    assert leaf(b"quoted-printable", body).decoded() == b"x" * length + b"=\r\n" + "yü\r\n".encode() * 10_000
