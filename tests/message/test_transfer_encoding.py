"""transfer_encoding.py: 7bit, 8bit, quoted-printable or base64, for short texts and for long ones in slices."""

import binascii
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.message.transfer_encoding import (
    EIGHT,
    SEVEN,
    Capabilities,
    choose_encoding,
    fits_unencoded,
    quoted_or_base64,
)
from smtp_async.model.octets import SLICE, normalised

PLAIN = Capabilities(eightbit=False, utf8=False, binary=False)
EIGHTBIT = Capabilities(eightbit=True, utf8=False, binary=False)


@pytest.mark.parametrize(
    ("data", "can", "encoding", "need"),
    [
        (b"", PLAIN, "7bit", SEVEN),
        (b"text\r\n", EIGHTBIT, "7bit", SEVEN),
        (b"x" * 998 + b"\r\n", PLAIN, "7bit", SEVEN),
        (b"x" * 999 + b"\r\n", PLAIN, "quoted-printable", SEVEN),
        (b"a\0\r\n", EIGHTBIT, "quoted-printable", SEVEN),
        ("Grüße aus der großen Stadt am Rhein\r\n".encode(), PLAIN, "quoted-printable", SEVEN),
        ("Grüße aus der großen Stadt am Rhein\r\n".encode(), EIGHTBIT, "8bit", EIGHT),
        ("привет\r\n".encode(), PLAIN, "base64", SEVEN),
        (("ü" * 500 + "\r\n").encode(), EIGHTBIT, "base64", SEVEN),
    ],
)
def test_the_cheapest_encoding_that_the_server_takes_is_chosen(data, can, encoding, need):
    chosen, octets, needed = choose_encoding(data, can)
    assert (chosen, needed) == (encoding, need)
    assert fits_unencoded(octets)
    assert decoded(chosen, octets) == data


def decoded(encoding, octets):
    if encoding == "base64":
        return binascii.a2b_base64(octets)
    return quopri.decodestring(octets) if encoding == "quoted-printable" else octets


@pytest.mark.parametrize("length", [SLICE - 1, SLICE, SLICE + 1, 3 * SLICE])
@pytest.mark.parametrize("odd", [b"", b"\0", b"\xff", b"x" * 999])
def test_what_does_not_fit_is_found_anywhere_in_a_long_text(length, odd):
    lines = b"a line\r\n" * (length // 8) + odd + b"\r\n"
    encoding, octets, _ = choose_encoding(lines, PLAIN)
    assert encoding == ("quoted-printable" if odd else "7bit")
    assert decoded(encoding, octets) == lines


@given(
    before=st.sampled_from([b"x", b"a line\r\n", b"\r\n", b" "]),
    length=st.integers(SLICE - 12, SLICE),
    seam=st.lists(st.sampled_from([b"\r\n", b" ", b".", b"=", b"\xc3\xbc", b"a"]), max_size=8).map(b"".join),
    after=st.tuples(st.sampled_from([b"x", b"\r\n", b"a line\r\n"]), st.sampled_from([0, 1, 20_000])),
)
def test_long_text_is_quoted_as_if_in_one_call(before, length, seam, after):
    data = normalised((before * SLICE)[:length] + seam + after[0] * after[1])
    encoding, octets = quoted_or_base64(data)
    assert encoding == "quoted-printable"
    assert fits_unencoded(octets)
    assert quopri.decodestring(octets) == data
    if all(len(line) + 2 <= SLICE for line in data.split(b"\r\n")):
        assert octets == binascii.b2a_qp(data, istext=True)
