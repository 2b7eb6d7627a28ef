"""line_endings.py: what octets need, however they are cut; and what does not pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import ExtensionMissing
from smtp_async.model.octets import MAX_LINE, normalised
from smtp_async.sources import LineGuard, LineMender, LineScan, RawSource

# Mostly what matters here.
TEXT = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b"\0", b"\xe4", b"x" * 500, b"y" * 998, b"z" * 999]),
    max_size=12,
).map(b"".join)


def scanned(data, cuts=()):
    scan = LineScan()
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    for start, end in zip(edges, edges[1:], strict=False):
        scan.feed(data[start:end])
    return scan


@given(TEXT, st.lists(st.integers(0, 4000), max_size=5))
def test_a_scan_in_pieces_finds_what_a_scan_of_the_whole_finds(data, cuts):
    scan = scanned(data, cuts)
    travels = normalised(data)
    assert scan.octets == len(data)
    assert scan.eightbit is not data.isascii()
    assert scan.nul is (b"\0" in data)
    assert scan.overlong is any(len(line) > MAX_LINE for line in travels.split(b"\r\n"))
    assert scan.normalised_size == len(travels)
    assert scan.ended is (not data or data.endswith((b"\r", b"\n")))
    bare = data.replace(b"\r\n", b"")
    assert scan.only_crlf is not (b"\r" in bare or b"\n" in bare)
    # A CR that comes last may still get its LF.
    bare = data.removesuffix(b"\r").replace(b"\r\n", b"")
    assert scan.bare is (b"\r" in bare or b"\n" in bare)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("length", [MAX_LINE, MAX_LINE + 1])
@pytest.mark.parametrize("lead", [b"", b"a", b"x" * 900])
def test_the_longest_line_at_every_cut(end, length, lead):
    data = lead + end + b"l" * length + end + b"b"
    for place in (0, 1, len(lead), len(lead) + 1, len(lead) + 2, len(data) - 3, len(data) - 2):
        assert scanned(data, [place]).overlong is (length > MAX_LINE)


def passes(guard, *chunks):
    for chunk in chunks:
        guard.check(chunk)
    guard.end()
    return True


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("eightbit", [False, True])
def test_what_is_plain_passes_every_guard(exact, eightbit):
    assert passes(LineGuard(eightbit=eightbit, exact=exact), b"a\r", b"\nb\r\n", b"c" * MAX_LINE)


def test_eightbit_passes_where_it_is_offered():
    assert passes(LineGuard(eightbit=True, exact=False), b"\xe4")
    with pytest.raises(ExtensionMissing, match="8BITMIME"):
        passes(LineGuard(eightbit=False, exact=False), b"a", b"\xe4")


@pytest.mark.parametrize("chunks", [[b"\0"], [b"x" * 500, b"x" * 500]])
@pytest.mark.parametrize("exact", [False, True])
def test_what_no_line_may_hold_passes_no_guard(chunks, exact):
    with pytest.raises(ExtensionMissing, match="BINARYMIME"):
        passes(LineGuard(eightbit=True, exact=exact), *chunks)


@pytest.mark.parametrize("chunks", [[b"a\nb"], [b"a\r", b"b"], [b"a\r"], [b"a\n"], [b"a\r\n", b"\n"]])
def test_bare_line_ends_pass_only_where_they_are_changed(chunks):
    assert passes(LineGuard(eightbit=False, exact=False), *chunks)
    with pytest.raises(ExtensionMissing, match="BINARYMIME"):
        passes(LineGuard(eightbit=False, exact=True), *chunks)


@given(TEXT, st.lists(st.integers(0, 4000), max_size=5))
def test_line_ends_mended_in_pieces_equal_those_of_the_whole(data, cuts):
    mender = LineMender()
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    pieces = [mender.mend(data[start:end]) for start, end in zip(edges, edges[1:], strict=False)]
    assert b"".join([*pieces, mender.end()]) == normalised(data)
    assert mender.end() == b""


def test_only_what_needs_it_is_mended():
    assert RawSource(()).mender() is not None
    assert RawSource((), found=3, travels=5).mender() is not None
    assert RawSource((), found=3, travels=3).mender() is None
    assert RawSource((), exact=True).mender() is None


def test_only_what_was_not_read_before_is_guarded():
    assert RawSource(()).guard() is not None
    assert RawSource((), binary=True).guard() is None
    assert RawSource((), found=3, travels=4).guard() is None


def test_each_reading_has_a_guard_of_its_own():
    source = RawSource((), exact=True)
    first, second = source.guard(), source.guard()
    assert first is not None and second is not None
    first.check(b"a\r")
    second.check(b"\r\n")
    second.end()


def test_a_raw_source_travels_as_it_was_found_to():
    source = RawSource((), found=3, travels=4)
    assert (source.length, source.size) == (3, 4)
    source.demand_unchanged(3)
    source.demand_unchanged(None)
    with pytest.raises(ValueError, match="2 octets now, and had 3"):
        source.demand_unchanged(2)
    assert RawSource(()).size is None
