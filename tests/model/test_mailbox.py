"""mailbox.py: the grammar of one mailbox, apart from the values that `address` makes of it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidAddress
from smtp_async.model.mailbox import (
    MAX_TEXT,
    Mailbox,
    phrase,
    quoted,
    read_mailbox,
    refuse,
    shown,
    without_controls_and_comments,
    written_local,
)


def read(text: str, *, lenient: bool = False) -> Mailbox:
    return read_mailbox(*without_controls_and_comments(text), lenient=lenient)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ann@x.test", Mailbox("ann", "ann", "x.test", "")),
        ("Ann B. <ann@x.test>", Mailbox("ann", "ann", "x.test", "Ann B.")),
        ('"B, Ann" <ann@x.test>', Mailbox("ann", "ann", "x.test", "B, Ann")),
        ("<ann@x.test>", Mailbox("ann", "ann", "x.test", "")),
        # Quotes that are not needed are dropped, those that are stay.
        ('"ann"@x.test', Mailbox("ann", "ann", "x.test", "")),
        ('"a n"@x.test', Mailbox("a n", '"a n"', "x.test", "")),
        (r'"a\"n"@x.test', Mailbox('a"n', r'"a\"n"', "x.test", "")),
        ('"a@b"@x.test', Mailbox("a@b", '"a@b"', "x.test", "")),
        # A comment at the end is the name, as before RFC 822.
        ("ann@x.test (Ann)", Mailbox("ann", "ann", "x.test", "Ann")),
        ("Ann <ann@x.test> (home)", Mailbox("ann", "ann", "x.test", "Ann")),
        ("ann (a) @ (b) x.test", Mailbox("ann", "ann", "x.test", "")),
        # The domain is read elsewhere.
        ("ann@[192.0.2.1]", Mailbox("ann", "ann", "[192.0.2.1]", "")),
        ("jörg@bücher.test", Mailbox("jörg", "jörg", "bücher.test", "")),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.test>", Mailbox("j", "j", "x.test", "Jörg")),
    ],
)
def test_what_a_mailbox_says(text: str, found: Mailbox) -> None:
    assert read(text) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("ann", "it has no @"),
        ("@x.test:ann@x.test", "source routes are obsolete"),
        ("a b@x.test", "blanks and angle brackets need quotes"),
        ("a\N{IDEOGRAPHIC SPACE}b@x.test", "it holds a blank"),
        ("a\tb@x.test", "control character"),
        ("ann@x.test\r\nRCPT TO:<eve@x.test>", "control character"),
        ("a..b@x.test", "two dots in a row"),
        (".a@x.test", "begins or ends with a dot"),
        ("a@b@x.test", "more than one @"),
        ("a(b)c@x.test", "a comment is inside a word"),
        ("(ann@x.test", "parenthes"),
        ("B, Ann <ann@x.test>", "needs quotes"),
        ("x" * MAX_TEXT + "@x.test", "too long"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    with pytest.raises(InvalidAddress, match=reason):
        read(text)


def test_dots_anywhere_are_taken_by_those_who_ask_for_it() -> None:
    assert read(".a..b.@x.test", lenient=True).written == ".a..b.@x.test".partition("@")[0]
    with pytest.raises(InvalidAddress):
        read("...@x.test", lenient=True)


def test_a_refused_text_is_shown_without_its_control_characters() -> None:
    with pytest.raises(InvalidAddress) as caught:
        refuse("a\r\nb" + "x" * 500, "no")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann B.", "Ann B."),
        ('"Ann" B', "Ann B"),
        (r'"a \"b\""', 'a "b"'),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ('"=?utf-8?q?a?="', "=?utf-8?q?a?="),
        ("a,b", None),
        ("a[b]", None),
        ("", None),
    ],
)
def test_a_phrase(text: str, words: str | None) -> None:
    assert phrase(text) == words


def test_no_words_are_a_phrase_where_that_is_allowed() -> None:
    assert phrase("", empty=True) == ""


def test_what_encoded_words_hide_becomes_a_blank() -> None:
    assert shown("=?utf-8?q?a=0D=0ABcc:_b?=") == "a  Bcc: b"
    assert shown("a\tb") == "a\tb", "nothing was encoded"


@given(st.text(min_size=1, max_size=30))
def test_a_local_part_survives_its_quotes(local: str) -> None:
    """Whatever can be written is read as what it was."""
    written = written_local(local)
    try:
        found = read(f"{written}@x.test")
    except InvalidAddress:
        return
    assert found.local == local and found.written == written


def test_quotes_are_put_only_where_they_are_needed() -> None:
    assert written_local("a.b") == "a.b" and written_local("a b") == '"a b"' and written_local("a.") == '"a."'
    assert quoted('a"\\') == r'"a\"\\"'
    with pytest.raises(InvalidAddress, match="is empty"):
        written_local("")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read(text)
    except InvalidAddress:
        return
    assert found.local and "@" not in found.domain


@pytest.mark.parametrize("text", ['"' * 1000, "(" * 1000, "\\" * 1000, '"\\' * 500, "a." * 500, "<" * 1000])
def test_no_text_takes_long(text: str) -> None:
    begun = time.process_time()
    for tail in ("", "@", "@x.test", ">"):
        try:
            read(text + tail)
        except InvalidAddress:
            continue
    assert time.process_time() - begun < 1.0
