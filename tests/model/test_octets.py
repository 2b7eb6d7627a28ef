"""octets.py: line ends, the length of lines, searching and base64, at every seam between two slices."""

import base64
import binascii
import itertools
import re
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.octets import (
    BASE64_SLICE,
    MAX_LINE,
    SLICE,
    base64_decoded,
    base64_lines,
    base64_size,
    copied,
    crlf,
    dots_doubled,
    find,
    is_ascii,
    longest_line_exceeds,
    normalised,
    only_crlf,
    slices,
    survey,
)


class Seams(NamedTuple):
    """A recipe for long octets whose interesting places lie around the ends of the first two slices."""

    filler: bytes
    before: tuple[int, int]
    seams: tuple[bytes, bytes]
    behind: int

    def data(self) -> bytes:
        """Make the octets: a few arguments are easier to show than 200 KB."""
        data = bytearray()
        for end, before, seam in zip((SLICE, 2 * SLICE), self.before, self.seams, strict=True):
            data += (self.filler * SLICE)[: max(0, end - before - len(data))] + seam
        return bytes(data) + (self.filler * SLICE)[: self.behind]


def seams(alphabet: bytes = b"\r\n.a", size: int = 8) -> st.SearchStrategy[Seams]:
    near = st.integers(0, size)
    octets = st.lists(st.sampled_from(alphabet), min_size=1, max_size=size).map(bytes)
    fillers = st.sampled_from([b"x", b"\n", b"\r\n", b"\r"])
    return st.builds(Seams, fillers, st.tuples(near, near), st.tuples(octets, octets), st.integers(0, SLICE))


# --- slices -------------------------------------------------------------------------------------------------


@given(seams())
def test_slices_are_the_whole_and_part_no_line_end(recipe):
    data = recipe.data()
    pieces = list(slices(data))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= SLICE
    assert not any(a.endswith(b"\r") and b.startswith(b"\n") for a, b in itertools.pairwise(pieces))


@pytest.mark.parametrize("data", [b"", b"x", b"\r" * (SLICE + 1), b"x" * SLICE])
def test_slices_at_the_limit(data):
    assert b"".join(slices(data)) == data


@given(st.integers(0, 3 * SLICE), st.integers(0, 3 * SLICE))
def test_copied_octets(one, other):
    data = bytes(range(251)) * 784
    start, end = sorted((one, other))
    assert copied(data, start, end) == data[start:end]


@given(seams(), st.binary(min_size=1, max_size=4), st.integers(0, 2 * SLICE))
def test_a_search_looks_over_the_seam(recipe, sought, start):
    data = recipe.data()
    for wanted in (sought, b"\r\n.", b"\n\n", b"a"):
        assert find(data, wanted, start) == data.find(wanted, start)


@given(seams(alphabet=b"a\x7f\x80"))
def test_octets_above_127_are_noticed(recipe):
    data = recipe.data()
    assert is_ascii(data) is data.isascii()


# --- lines --------------------------------------------------------------------------------------------------


def by_hand(data):
    """The rule, octet by octet: CRLF, bare CR and bare LF each end a line."""
    out = bytearray()
    position = 0
    while position < len(data):
        if data[position : position + 2] == b"\r\n":
            position += 1
        out += b"\r\n" if data[position : position + 1] in (b"\r", b"\n") else data[position : position + 1]
        position += 1
    if out and not out.endswith(b"\r\n"):
        out += b"\r\n"
    return bytes(out)


def test_every_short_string_is_normalised():
    for length in range(7):
        for octets in itertools.product(b"\r\n.a", repeat=length):
            data = bytes(octets)
            assert normalised(data) == by_hand(data)


@given(st.binary(max_size=200))
def test_normalising_is_idempotent(data):
    once = normalised(data)
    assert once == by_hand(data)
    assert normalised(once) is once


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 25), st.booleans())
def test_longest_line(lengths, limit, ended):
    data = b"\r\n".join(b"x" * n for n in lengths) + (b"\r\n" if ended else b"")
    longest = max(map(len, data.split(b"\r\n")))
    assert longest_line_exceeds(data, limit) is (longest > limit)


def test_line_limits():
    for length, expected in ((998, False), (999, True)):
        for tail in (b"", b"\r\n", b"\r\nx\r\n"):
            assert longest_line_exceeds(b"a\r\n" + b"x" * length + tail, 998) is expected


@given(seams())
def test_line_ends_at_the_seams_of_slices(recipe):
    data = recipe.data()
    whole = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert crlf(data) == whole
    assert only_crlf(data) is (whole == data)
    assert only_crlf(whole)
    assert normalised(whole) is whole or not whole.endswith(b"\r\n")


@given(st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a"]), max_size=30).map(b"".join))
def test_dots_at_the_start_of_a_line_are_doubled(data):
    expected = b"\r\n".join(
        b"." + line if number and line.startswith(b".") else line
        for number, line in enumerate(data.split(b"\r\n"))
    )
    assert dots_doubled(data) == expected
    if expected == data:
        assert dots_doubled(data) is data


# --- base64 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 56, 57, 58, 114, 115, BASE64_SLICE - 1, BASE64_SLICE, BASE64_SLICE + 1]
)
def test_the_size_of_base64_is_told_before_it_is_made(length):
    made = base64_lines(bytes(length))
    assert base64_size(length) == len(made)
    assert base64.decodebytes(made) == bytes(length)
    assert max(map(len, made.split(b"\r\n")), default=0) <= 76


@given(st.binary(max_size=400), st.integers(1, 4))
def test_slices_of_base64_join(data, lines):
    step = 57 * lines
    slices = [base64_lines(data[start : start + step]) for start in range(0, len(data), step)]
    assert b"".join(slices) == base64_lines(data)


BASE64 = re.compile(rb"[A-Za-z0-9+/\s]*+(?:=\s*+){0,2}+")


def decoded_at_once(data):
    """The rule in one expression."""
    if BASE64.fullmatch(data) is None:
        return None
    signs = data.translate(None, b" \t\r\n\v\f=")
    if len(signs) % 4 == 1:
        signs = signs[:-1]
    return binascii.a2b_base64(signs + b"=" * (-len(signs) % 4))


@given(st.lists(st.sampled_from([b"YQ", b"Y", b"=", b"\r\n", b" ", b"\xff", b"-", b"AbCd"])).map(b"".join))
def test_base64_of_any_kind_is_decoded(data):
    assert base64_decoded(data) == decoded_at_once(data)


@given(seams(alphabet=b"aB+= \r\n", size=5), st.sampled_from([b"", b"=", b"==", b"a=", b"=\r\n"]))
def test_base64_is_decoded_at_the_seams_of_slices(recipe, end):
    data = recipe.data()
    assert base64_decoded(data + end) == decoded_at_once(data + end)


@given(st.binary(max_size=100), st.integers(1, 5))
def test_long_base64_comes_back(data, times):
    whole = data * (times * 1000)
    assert base64_decoded(base64_lines(whole)) == whole


# --- everything at once -------------------------------------------------------------------------------------


def separately(data: bytes) -> tuple[bool, bool, bool, bool]:
    return only_crlf(data), is_ascii(data), find(data, b"\0") >= 0, longest_line_exceeds(data, MAX_LINE)


@given(seams(alphabet=b"\r\n\0\x80a"))
def test_a_survey_answers_as_each_question_does(recipe):
    data = recipe.data()
    assert survey(data) == separately(data)
    assert survey(data, crlf_only=True) == (survey(data) if only_crlf(data) else None)


@given(
    st.lists(st.sampled_from([0, 1, 88, 89, 997, 998, 999, 1000, 1001]), min_size=1, max_size=5),
    st.integers(SLICE - 1100, SLICE + 3),
    st.sampled_from([b"\r\n", b"\n", b""]),
)
def test_a_survey_finds_long_lines_at_the_seam(lengths, before, end):
    data = (b"y" * 78 + b"\r\n") * (before // 80) + b"".join(b"x" * length + b"\r\n" for length in lengths)
    data += b"z" * (before % 80) + end
    assert survey(data) == separately(data)


def test_a_survey_of_nothing():
    assert survey(b"") == (True, True, False, False)
