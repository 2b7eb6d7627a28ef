"""headers.py: what is written reads back the same, in lines that are short enough, or is refused."""

import re
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ExtensionMissing, InvalidHeader
from smtp_async.message.headers import (
    address_field,
    check_name,
    message_id_text,
    parameter_field,
    text_field,
)
from smtp_async.model.address import Address, parse_list

from .reading import parsed

TEXT = st.text(st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters="\x7f"))
ENCODED_WORD = re.compile(r"=\?utf-8\?[qb]\?[^? ]*\?=")


def lines_of(field):
    """Check what holds for every field; return its lines."""
    field.encode("ascii")
    lines = field.split("\r\n")
    for line in lines:
        assert "\r" not in line
        assert "\n" not in line
        assert len(line) <= 998
        assert line.strip(" \t")
        for word in ENCODED_WORD.findall(line):
            assert len(word) <= 75
            assert len(line) <= 76
            make_header(decode_header(word))  # whole code points, or it could not be decoded alone
    assert all(line[0] in " \t" for line in lines[1:])
    return lines


def read(field):
    """Return the value; a fold right behind a long name leaves this reader the blank of the fold."""
    name = field.partition(":")[0]
    value = str(parsed(field.encode() + b"\r\n\r\n")[name])
    return value[1:] if field.startswith(name + ":\r\n ") else value


@given(TEXT)
def test_text_reads_back(value):
    field = text_field("Subject", value)
    lines_of(field)
    assert read(field) == value.strip(" \t")


@given(st.text("ab \tü=?", max_size=300), st.text("N", min_size=1, max_size=76))
def test_long_text_with_blanks_reads_back_under_any_name(value, name):
    field = text_field(name, value)
    lines_of(field)
    assert read(field) == value.strip(" \t")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "short",
        "Grüße aus Köln – März",
        "عنوان طويل " * 30,
        "👩‍👩‍👧‍👦 " * 40,
        "word " * 2000,
        "ä" * 10_000,
        "x" * 10_000,
        "x" * 900 + " y",
        "=?utf-8?q?not_encoded?=",
        "a =?b",
        "a" + " " * 2000 + "b",
        "tab\there " * 20,
    ],
)
def test_hard_texts(value):
    field = text_field("Subject", value)
    lines_of(field)
    assert read(field) == value.strip(" \t")


def test_ascii_text_is_folded_at_78():
    lines = lines_of(text_field("Subject", "word " * 100))
    assert max(map(len, lines)) <= 78
    assert len(lines) == 7
    assert text_field("X-Url", "https://example.com/" + "x" * 500).count("\r\n") == 0


@pytest.mark.parametrize("length", [20, 50, 51, 52, 53, 76])
def test_long_names_leave_room_for_encoded_words(length):
    field = text_field("N" * length, "ü" * 100)
    lines_of(field)
    assert read(field) == "ü" * 100


def test_the_shorter_encoding_is_taken():
    assert "?q?" in text_field("Subject", "mostly ascii, once ü")
    assert "?b?" in text_field("Subject", "日本語の件名")


@pytest.mark.parametrize("name", ["", " ", "A B", "A:", "A\r\nBcc", "A\n", "Ä", "A\0", "\tA", "A" * 77])
def test_names_are_checked(name):
    with pytest.raises(InvalidHeader):
        check_name(name)
    with pytest.raises(InvalidHeader):
        text_field(name, "x")


@pytest.mark.parametrize(
    "char", [chr(c) for c in range(0x20) if c != 9] + ["\x7f", "\ud800", "\udcff", "\r\n "]
)
def test_values_are_checked(char):
    for value in (f"a{char}", f"{char}b", f"ä{char}Bcc: x@y", char):
        with pytest.raises(InvalidHeader):
            text_field("X", value)
        with pytest.raises(InvalidHeader):
            parameter_field("X", "y", [("a", value)])


@pytest.mark.parametrize("value", [None, b"x", 7])
def test_values_are_texts(value):
    with pytest.raises(InvalidHeader, match="text"):
        text_field("X", value)


# --- addresses ----------------------------------------------------------------------------------------------


def addresses_in(field):
    value = field.partition(":")[2].replace("\r\n", "")
    return parse_list(value.strip(" "))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b", "To: a@b"),
        ("Ann Smith <a@b>", "To: Ann Smith <a@b>"),
        ("Ann B. <a@b>", 'To: "Ann B." <a@b>'),
        ('"N, M" <a@b>', 'To: "N, M" <a@b>'),
        ('"a \\"b\\" \\\\" <a@b>', 'To: "a \\"b\\" \\\\" <a@b>'),
        ("Änn <a@b>", "To: =?utf-8?q?=C3=84nn?= <a@b>"),
        ('"=?utf-8?q?x?=" <a@b>', "To: =?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <a@b>"),
        ("a@faß.de", "To: a@xn--fa-hia.de"),
        ('"a b"@c', 'To: "a b"@c'),
    ],
)
def test_mailboxes(text, expected):
    assert address_field("To", [Address.parse(text)], utf8=False) == expected


def test_utf8_local_parts():
    address = Address.parse("Jösé <jösé@bücher.example>")
    assert address_field("To", [address], utf8=True) == "To: =?utf-8?b?SsO2c8Op?= <jösé@bücher.example>"
    with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
        address_field("To", [address], utf8=False)


def test_a_list_is_folded_between_addresses():
    addresses = [Address.parse(f'"Name, {i}" <user{i}@example.com>') for i in range(500)]
    field = address_field("To", addresses, utf8=False)
    lines = lines_of(field)
    assert max(map(len, lines)) <= 78
    assert all(line.endswith(">,") for line in lines[:-1])
    assert addresses_in(field) == addresses
    assert [a.addr_spec for a in parsed(field.encode() + b"\r\n\r\n")["To"].addresses] == [
        str(a) for a in addresses
    ]


NAME = st.text(
    st.characters(min_codepoint=0x20, exclude_categories=("Cc", "Cs", "Zl", "Zp"), max_codepoint=0x1FFFF),
    max_size=120,
)
MAILBOX = st.builds(
    Address,
    st.text("ab.c x", min_size=1, max_size=60),
    st.sampled_from(["b", "faß.de", ".".join(["x" * 60] * 4), "[IPv6:2001:db8::1]"]),
    NAME,
)


@given(st.sampled_from(["To", "Disposition-Notification-To"]), st.lists(MAILBOX, min_size=1, max_size=6))
def test_lists_read_back(name, addresses):
    field = address_field(name, addresses, utf8=False)
    lines = lines_of(field)
    assert all(len(line) <= 78 or " " not in line.strip() or '"' in line for line in lines)
    assert addresses_in(field) == addresses
    for found, address in zip(addresses_in(field), addresses, strict=True):
        decoded = str(make_header(decode_header(found.name))) if "=?utf-8?" in found.name else found.name
        assert decoded == address.name


# --- parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.txt", "X: y; filename=a.txt"),
        ("a b.txt", 'X: y; filename="a b.txt"'),
        ('a"b\\.txt', 'X: y; filename="a\\"b\\\\.txt"'),
        ("ä.txt", "X: y; filename*=utf-8''%C3%A4.txt"),
        ("", 'X: y; filename=""'),
        ("%41'*", 'X: y; filename="%41\'*"'),
        (
            '"' * 40,
            "X: y;\r\n filename*0*=utf-8''"
            + "%22" * 18
            + ";\r\n filename*1*="
            + "%22" * 20
            + ";\r\n filename*2*=%22%22",
        ),
    ],
)
def test_parameters(value, expected):
    assert parameter_field("X", "y", [("filename", value)]) == expected


@given(TEXT)
def test_parameters_read_back(value):
    field = parameter_field("Content-Disposition", "attachment", [("x", "1"), ("filename", value)])
    lines = lines_of(field)
    assert max(map(len, lines)) <= 78
    message = parsed(field.encode() + b"\r\n\r\n")
    assert message["Content-Disposition"].params.get("x") == "1"
    if value.strip() == value and "\t" not in value:  # the reader strips what is in quotes
        assert message["Content-Disposition"].params["filename"] == value


@pytest.mark.parametrize("value", ["日本語" * 100 + ".txt", "x" * 5000, "a;b=c" * 100, "%41'x'" * 50])
def test_long_parameters_are_cut(value):
    field = parameter_field("Content-Disposition", "attachment", [("filename", value)])
    assert max(map(len, lines_of(field))) <= 78
    assert parsed(field.encode() + b"\r\n\r\n").get_filename() == value


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "a\r\n", "ä", '"'])
def test_parameter_names_are_tokens(name):
    with pytest.raises(InvalidHeader):
        parameter_field("X", "y", [(name, "z")])


# --- message ids -------------------------------------------------------------------------------------------


def test_message_ids():
    assert message_id_text("a@b") == message_id_text("<a@b>") == "<a@b>"
    for bad in ("", "<>", "a b", "<a@b", "a@b>", "<<a>>", "a\r\nBcc: x", "ä@b", "x" * 901, "<a> <b>"):
        with pytest.raises(InvalidHeader):
            message_id_text(bad)
