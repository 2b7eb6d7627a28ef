"""mime_parameters.py: values with parameters as mail has them, RFC 2045 section 5.1 and RFC 2231."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.message.header_parser import unfolded
from smtp_async.message.headers import parameter_field
from smtp_async.message.mime_parameters import MOST_PARAMETERS, read_parameters

# Everything that has a meaning, and a little that has none.
SIGNS = st.lists(
    st.sampled_from(
        [*";=\"()\\ *%'aü€\x00\t?", "\ud800", "0", "*0", "*0*=", "utf-8''", "%C3", "%", "name=", "\n"]
    ),
    max_size=40,
).map("".join)
NAMES = st.text(alphabet="abcXYZ-_.", min_size=1, max_size=20)
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200)


@pytest.mark.parametrize(
    ("text", "value", "parameters"),
    [
        ("text/plain", "text/plain", ()),
        ("TEXT/Plain", "text/plain", ()),
        ("", "", ()),
        ("   ", "", ()),
        ("text/plain;", "text/plain", ()),
        ("text/plain ; ; ", "text/plain", ()),
        ("text/plain; Charset=UTF-8", "text/plain", (("charset", "UTF-8"),)),
        (
            "text/plain;charset = utf-8 ;format=flowed;",
            "text/plain",
            (("charset", "utf-8"), ("format", "flowed")),
        ),
        ('a/b; name="x; y=\\"z\\" (w)"', "a/b", (("name", 'x; y="z" (w)'),)),
        ("a/b; name=two words", "a/b", (("name", "two words"),)),
        ("a/b; name=", "a/b", (("name", ""),)),
        ('a/b; name=""', "a/b", (("name", ""),)),
        ("a/b (comment (nested) \\) ) ; (x;y) c=d (e)", "a/b", (("c", "d"),)),
        ('a/b; c="(no comment)" (a "comment)', "a/b", (("c", "(no comment)"),)),
        ("a/b (x); c=d", "a/b", (("c", "d"),)),
        ("a/b; name==?utf-8?q?x?=", "a/b", (("name", "=?utf-8?q?x?="),)),
        ("a/b; f*=utf-8''%C3%BC%41", "a/b", (("f", "üA"),)),
        ("a/b; f*=utf-8'de'%C3%BC", "a/b", (("f", "ü"),)),
        ("a/b; f*=ISO-8859-1''%FC", "a/b", (("f", "ü"),)),
        ("a/b; f*=''%C3%BC", "a/b", (("f", "ü"),)),
        ("a/b; f*=%C3%BC", "a/b", (("f", "ü"),)),
        ("a/b; f*0=one; f*1=two", "a/b", (("f", "onetwo"),)),
        ("a/b; f*1=two; x=y; f*0=one", "a/b", (("f", "onetwo"), ("x", "y"))),
        ("a/b; f*0*=utf-8''%C3; f*1*=%BC; f*2=%41", "a/b", (("f", "ü%41"),)),
        ("a/b; f=old; f*=utf-8''new", "a/b", (("f", "new"),)),
        ("a/b; f*=utf-8''new; f=old", "a/b", (("f", "new"),)),
        ("a/b; f*=it's", "a/b", (("f", "it's"),)),
    ],
)
def test_what_is_understood(text, value, parameters):
    found = read_parameters(text)
    assert (found.value, found.parameters, found.certain) == (value, parameters, True)


@pytest.mark.parametrize(
    ("text", "value", "parameters"),
    [
        ("text plain; a=b", "text", (("a", "b"),)),
        ("a/b c", "a/b", ()),
        ("a/b; lone", "a/b", ()),
        ("a/b; a=1; lone; c=d", "a/b", (("a", "1"),)),
        ("a/b; =x", "a/b", ()),
        ('a/b; "a"=x', "a/b", ()),
        ('a/b; name="open', "a/b", (("name", "open"),)),
        ('a/b; name="open\\', "a/b", (("name", "open"),)),
        ('a/b; name="open\\"', "a/b", (("name", 'open"'),)),
        ('a/b; name="x"y', "a/b", (("name", "x"),)),
        ('a/b; name=x"y;z"; c=d', "a/b", (("name", 'x"y'),)),
        ("a/b (open; c=d", "a/b", ()),
        ("a/b; c=d (", "a/b", (("c", "d"),)),
        ('a/b; c="d\\(', "a/b", (("c", "d("),)),
        ("a/b; f*0=one; f*2=three", "a/b", (("f", "onethree"),)),
        ("a/b; f*0=one; f*0=two", "a/b", (("f", "one"),)),
        ("a/b; f*1=two", "a/b", (("f", "two"),)),
        ("a/b; f*x=y", "a/b", (("f*x", "y"),)),
        ("a/b; f*1234=y", "a/b", (("f*1234", "y"),)),
        ("a/b; f*=no-such''%FC", "a/b", (("f", "\ufffd"),)),
        ("a/b; f*=no-such''x", "a/b", (("f", "x"),)),
        ("a/b; f*=utf-8''%FC", "a/b", (("f", "\ufffd"),)),
    ],
)
def test_what_is_not_all_understood_is_not_certain(text, value, parameters):
    found = read_parameters(text)
    assert (found.value, found.parameters, found.certain) == (value, parameters, False)


def test_the_first_of_a_name_is_found():
    found = read_parameters("a/b; a=1; A=2; b=3")
    assert (found.get("a"), found.get("b"), found.get("c")) == ("1", "3", None)


def test_of_two_parameters_of_one_name_neither_is_certain():
    assert read_parameters("a/b; a=1; A=2") == ("a/b", (("a", "1"), ("a", "2")), False)


def test_there_is_a_bound():
    most = "a/b" + "".join([f"; a{number}=b" for number in range(MOST_PARAMETERS)])
    assert read_parameters(most + ";").certain
    more = read_parameters(most + "; a=b")
    assert (len(more.parameters), more.certain) == (MOST_PARAMETERS, False)


@given(SIGNS)
def test_any_text_is_read(text):
    found = read_parameters(text)
    assert found.value == found.value.strip(" ")
    assert len(found.parameters) <= text.count("=")


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8, unique_by=lambda pair: pair[0].lower()))
def test_what_we_write_is_read(pairs):
    field = parameter_field("Content-Type", "text/plain", pairs)
    found = read_parameters(unfolded(field.partition(":")[2]))
    assert found.value == "text/plain"
    assert found.certain == all("\ufffd" not in value for _, value in pairs)
    assert list(found.parameters) == [(name.lower(), value) for name, value in pairs]


@pytest.mark.parametrize("before", ["", "a/b; c=", 'a/b; c="', "a/b; c*=utf-8''"])
def test_time_is_linear(before):
    patterns = [
        "(",
        '"',
        '\\"',
        "\\",
        ";",
        "; ",
        "a=",
        ';a="',
        ";a=b",
        ";a*0=b",
        "*",
        "'",
        "%41",
        " ",
        "(\\",
        '"()"',
    ]
    for pattern in patterns:
        text = before + pattern * (200_000 // len(pattern))
        begun = time.process_time()
        read_parameters(text + "(")
        assert time.process_time() - begun < 1, pattern


@pytest.mark.parametrize("pattern", ["\u20ac()", '"\u20ac"'])
def test_comments_and_quotes_are_not_sought_to_the_end_for_each_of_the_other(pattern):
    text = pattern * (2_000_000 // len(pattern)) + "("
    begun = time.process_time()
    read_parameters(text)
    assert time.process_time() - begun < 4
