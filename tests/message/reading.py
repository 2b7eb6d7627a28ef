"""How tests read a rendered message: with the parser of the standard library, and strictly by line."""

import email
import email.policy
import re

FIELD = re.compile(rb"[!-9;-~]+:")


def parsed(data):
    return email.message_from_bytes(data, policy=email.policy.default)


def check_wire_form(data):
    """CRLF only, no line over 998, header lines that are fields or folds and never blank; return the lines."""
    text = data.replace(b"\r\n", b"")
    assert b"\r" not in text
    assert b"\n" not in text
    lines = data.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    header = lines[: lines.index(b"")]
    for line in header:
        assert FIELD.match(line) or line[:1] in (b" ", b"\t")
        assert line.strip(b" \t")
    return header


def names_of(data):
    """The names of the header fields, found by a reader that knows nothing but RFC 5322 section 2.2."""
    header = data.partition(b"\r\n\r\n")[0]
    return [line.partition(b":")[0].decode() for line in header.split(b"\r\n") if line[:1] not in b" \t"]


def text_of(part):
    return part.get_content().replace("\r\n", "\n")
