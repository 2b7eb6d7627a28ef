"""Lines as the test server reads and writes them: strictly, because it judges clients."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.testing.grammar import (
    Command,
    ServerReply,
    chunk_size,
    decode_base64,
    is_last,
    parse_command,
    parse_path,
    size_limit,
    unstuff,
)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"noop", ("NOOP", "")),
        (b"MAIL FROM:<a@x.test> SIZE=5", ("MAIL", "FROM:<a@x.test> SIZE=5")),
        (b"", ("", "")),
        (b" QUIT", ("", "QUIT")),
        (b"X\xff y", ("X\udcff", "y")),
    ],
)
def test_a_line_is_split_at_its_first_blank(line: bytes, command: tuple[str, str]) -> None:
    assert parse_command(line) == Command(*command, line)


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("FROM:<a@x.test>", ("a@x.test", {})),
        ("from:<>", ("", {})),
        ("FROM:<a@x.test> size=5 SMTPUTF8", ("a@x.test", {"SIZE": "5", "SMTPUTF8": ""})),
        ('FROM:<"a > b"@x.test> BODY=8BITMIME', ('"a > b"@x.test', {"BODY": "8BITMIME"})),
        (r'FROM:<"a\"b"@x.test>', (r'"a\"b"@x.test', {})),
        # What a careless client writes.
        ("FROM: <a@x.test>", None),
        ("FROM:a@x.test", None),
        ("FROM:<a@x.test", None),
        ("FROM:<a b@x.test>", None),
        ("FROM:<a@x.test>SIZE=5", None),
        ("TO:<a@x.test>", None),
    ],
)
def test_a_path_is_read_strictly(argument: str, found: tuple[str, dict[str, str]] | None) -> None:
    assert parse_path(argument, "FROM:") == found


@pytest.mark.parametrize(
    ("argument", "size", "last"),
    [
        ("0", 0, False),
        ("12 LAST", 12, True),
        ("12 last", 12, True),
        ("", None, False),
        ("x", None, False),
        ("-1", None, False),
        ("12 13", None, False),
        ("1" * 13, None, False),
    ],
)
def test_the_size_of_a_chunk(argument: str, size: int | None, last: bool) -> None:
    assert chunk_size(argument) == size and is_last(argument) is last


@pytest.mark.parametrize(
    ("text", "octets"), [("=", b""), ("", b""), ("YQ==", b"a"), ("YQ", None), ("Y Q=", None)]
)
def test_responses_are_base64(text: str, octets: bytes | None) -> None:
    assert decode_base64(text) == octets


@given(st.binary())
def test_every_response_is_decoded(octets: bytes) -> None:
    assert decode_base64(base64.b64encode(octets).decode()) == octets


@pytest.mark.parametrize(
    ("extensions", "limit"), [([], 0), (["PIPELINING", "SIZE 1000"], 1000), (["size 5"], 5), (["SIZE"], 0)]
)
def test_the_limit_is_the_one_that_is_announced(extensions: list[str], limit: int) -> None:
    assert size_limit(extensions) == limit


def test_a_reply_has_one_code_on_every_line() -> None:
    assert ServerReply(250, ("a", "b", "c")).encode() == b"250-a\r\n250-b\r\n250 c\r\n"
    assert ServerReply(220, ("",)).encode() == b"220 \r\n"
    assert ServerReply(250, ("x\udcff",)).encode() == b"250 x\xff\r\n"


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a."]), max_size=6))
def test_what_was_stuffed_is_unstuffed(lines: list[bytes]) -> None:
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    assert unstuff(stuffed) == b"".join(line + b"\r\n" for line in lines)
