"""reply.py: what a server says, judged by its class and shown without harm."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import CommandRefused
from smtp_async.model.reply import SHOWN, EnhancedCode, Reply, printable


def reply(text, code=250):
    return Reply(code, (text if isinstance(text, bytes) else text.encode(),))


@pytest.mark.parametrize(
    ("codes", "judged"),
    [
        ([200, 220, 250, 252, 299], "positive"),
        ([300, 334, 354, 399], "intermediate"),
        ([400, 421, 452, 499], "temporary"),
        ([500, 550, 599], "permanent"),
    ],
)
def test_a_reply_is_judged_by_its_first_digit(codes, judged):
    for code in codes:
        names = ["positive", "intermediate", "temporary", "permanent"]
        assert [name for name in names if getattr(Reply(code), name)] == [judged]


def test_lines_are_decoded_when_somebody_reads_them():
    answer = Reply(250, (b"caf\xc3\xa9", b"caf\xe9", b""))
    assert answer.lines == ("café", "caf\\xe9", "")
    assert answer.text == "café\ncaf\\xe9\n"
    assert str(answer) == "250 café caf\\xe9"
    assert Reply(250).lines == ("",)
    assert str(Reply(250)) == "250"


@pytest.mark.parametrize(
    ("code", "text", "enhanced"),
    [
        (250, b"2.1.0 Ok", (2, 1, 0)),
        (550, b"5.7.999\tno", (5, 7, 999)),
        (450, b"4.2.1", (4, 2, 1)),
        (550, b"4.2.1 class does not fit", None),
        (450, b"5.2.1 class does not fit", None),
        (250, b"4.2.1 class does not fit", None),
        (354, b"3.0.0 no such class", None),
        (550, b"5.1.1234 x", None),
        (550, b"5.1 x", None),
        (550, b"5.1.1x", None),
        (550, b" 5.1.1 x", None),
        (550, b"see 5.1.1 x", None),
        (550, b"5.1.-1 x", None),
        (550, "5.1.١ x".encode(), None),
        (550, b"", None),
    ],
)
def test_an_enhanced_code_counts_if_its_class_is_the_replys(code, text, enhanced):
    assert Reply(code, (text,)).enhanced == enhanced
    if enhanced is not None:
        assert str(Reply(code, (text, b"more")).enhanced) == text.split()[0].decode()
        assert isinstance(Reply(code, (text,)).enhanced, EnhancedCode)


def test_the_enhanced_code_stands_in_the_first_line():
    assert Reply(550, (b"no", b"5.1.1 x")).enhanced is None


@pytest.mark.parametrize(
    ("text", "many"),
    [
        ("452 too many recipients", True),
        ("552 too many recipients", True),
        ("452 4.5.3 too many recipients", True),
        ("452 4.2.2 mailbox full", False),
        ("452 5.5.3 class does not fit", True),
        ("552 5.2.2 mailbox full", False),
        ("451 4.5.3 too many recipients", True),
        ("550 5.5.3 too many recipients", True),
        ("451 too many recipients", False),
        ("451 4.3.0 later", False),
        ("250 2.5.3 ok", False),
        ("250 ok", False),
    ],
)
def test_too_many_recipients_are_told_from_a_full_mailbox(text, many):
    assert Reply(int(text[:3]), (text[4:].encode(),)).too_many_recipients is many


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[2Jhello", r"250 \x1b[2Jhello"),
        (b"a\rb", r"250 a\rb"),
        (b"a\x00\x07\x7f\x9b", r"250 a\x00\x07\x7f\x9b"),
        ("a\u202eb".encode(), r"250 a\u202eb"),
        ("a\u2066b\u200f\u2028\u2029\x85c".encode(), r"250 a\u2066b\u200f\u2028\u2029\x85c"),
        ("a\xa0b\u200b\ufeff".encode(), r"250 a\xa0b\u200b\ufeff"),
        ("\U000e0041".encode(), r"250 \U000e0041"),
        ("Grüße 例え 😀".encode(), "250 Grüße 例え 😀"),
    ],
)
def test_controls_and_directions_are_shown_as_escapes(raw, shown):
    assert str(reply(raw)) == shown
    error = CommandRefused("refused", reply=reply(raw))
    assert str(error) == f"refused: {shown}"


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"x" * 30_000),
        reply(b"\x1b" * 30_000),
        Reply(550, (b"line\r",) * 5_000),
        Reply(550, (b"\x1b[2J\rforged\xe2\x80\xae" * 2_000,)),
    ],
)
def test_a_hostile_reply_is_one_printable_line_of_at_most_1_kib(answer):
    for line in (str(answer), str(CommandRefused("refused", reply=answer))):
        assert line.isprintable()
        assert len(line.splitlines()) == 1
        assert len(line.encode()) <= 1024


@given(st.text(), st.integers(1, 50))
def test_any_text_is_shown_on_one_bounded_line(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert shown == text or not text.isprintable() or len(text) > limit


def test_what_fits_exactly_is_not_cut():
    assert printable("x" * SHOWN) == "x" * SHOWN
    assert printable("x" * (SHOWN + 1)) == "x" * (SHOWN - 1) + "…"


def test_a_lone_surrogate_is_shown_as_an_escape():
    assert printable("a\udcffb") == r"a\udcffb"


def test_replies_are_values():
    answer = Reply(250, (b"ok", b"\xff"))
    assert answer == (250, (b"ok", b"\xff"))
    assert pickle.loads(pickle.dumps(answer)) == answer
    assert hash(answer) == hash(Reply(250, (b"ok", b"\xff")))
