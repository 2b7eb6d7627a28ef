"""comments.py: comments out of a text, whatever they hold, in linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.comments import MARK, without_comments


@pytest.mark.parametrize(
    ("text", "bare", "comments"),
    [
        ("a@b", "a@b", []),
        ("a@b (x)", "a@b\t", ["x"]),
        ("(x) a@b (y)", "\ta@b\t", ["x", "y"]),
        ("a (x)  (y) b", "a\tb", ["x y"]),
        ("a((b)c(d))e", "a\te", ["(b)c(d)"]),
        (r"(a\)b\\) c", "\tc", [r"a)b\ ".strip()]),
        ('"(a)" (b)', '"(a)"\t', ["b"]),
        (r'"\"(a)" (b)', r'"\"(a)"' + "\t", ["b"]),
        ('("a) b', "\tb", ['"a']),
        ("()", "\t", [""]),
        ("( x )", "\t", ["x"]),
        ('"open (a)', '"open (a)', []),
        ('"open\\ (\\', '"open\\ (\\', []),
        ("(" * 100 + ")" * 100, "\t", ["(" * 99 + ")" * 99]),
        ("()" * 100, "\t", [" " * 99]),
    ],
)
def test_what_is_left_and_what_was_said(text, bare, comments):
    assert without_comments(text) == (bare, comments)


@pytest.mark.parametrize("text", ["(", "a (b", "a)", "(a))", "((a)", "(a\\)", ")(", "(a) )"])
def test_a_parenthesis_without_its_other_half_is_refused(text):
    with pytest.raises(ValueError, match="parenthes"):
        without_comments(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("(" * 101 + ")" * 101, "more than 100 levels deep"), ("()" * 101, "more than 100 adjacent comments")],
    ids=["nested", "adjacent"],
)
def test_too_many_are_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        without_comments(text)


@given(st.text('()"\\ ax@,<>', max_size=30))
def test_a_mark_for_each_run_and_no_parenthesis_outside_quotes(text):
    try:
        bare, comments = without_comments(text)
    except ValueError:
        return
    assert bare.count(MARK) == len(comments)
    assert without_comments(bare) == (bare, [])


@pytest.mark.parametrize(
    "unit", ["(", "(a", "()", "() ", "()x", '"(', '("', "(\\", "\\(", '"\\', "( (", "  (x)  y"]
)
def test_hostile_text_takes_linear_time(unit):
    started = time.process_time()
    for text in (unit * (200_000 // len(unit)), "(" + unit * (200_000 // len(unit)) + ")"):
        try:
            without_comments(text)
        except ValueError:
            pass
    assert time.process_time() - started < 1
