"""plain_text.py: what a reader of the page would read."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_async.templates.plain_text import plain_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Hi", "Hi"),
        ("<p>Dear  Ann,\n<p>second", "Dear Ann,\n\nsecond"),
        ("<h1>Title</h1><div>a</div><div>b<br>c<br><br>d</div>", "Title\n\na\nb\nc\n\nd"),
        ("fish &amp; chips &lt;3 &euro;&nbsp;5", "fish & chips <3 €\xa05"),
        ("a <b>b</b> <i> c</i>d<b>e</b>", "a b cde"),
        ('<a href="https://x.test/?a=1&amp;b=2">See</a>.', "See <https://x.test/?a=1&b=2>."),
        ("<a href='https://x.test/'> https://x.test/ </a>", "https://x.test/"),
        ("<a href=mailto:a@x.test>write</a> <a href=#top>top</a> <a>none</a>", "write <a@x.test> top none"),
        (
            "<a href='https://x.test/'><img src=x.png alt='Our &quot;shop&quot;'></a>",
            'Our "shop" <https://x.test/>',
        ),
        ("<ul><li>one<li>two<ul><li>in</ul></ul>end", "- one\n- two\n  - in\n\nend"),
        ("<ol><li><p>one</p><li>two</ol>", "1. one\n2. two"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>x", "a b\n1 2\n\nx"),
        ("a<hr>b", "a\n\n" + "-" * 40 + "\n\nb"),
        ("<pre>a  b\n c</pre>", "a  b\n c"),
        ("<head><title>No</title></head><style>p{}</style><script>if (a<b) x</script>yes", "yes"),
        ("<!doctype html><!-- <p>no</p> -->yes", "yes"),
        ("<div style='color:red; display : none'>no<div>no</div></div>yes", "yes"),
        ("<img style='display:none' alt=''>yes", "yes"),
        ('<p title="a > b">yes', "yes"),
        ("1 < 2", "1 < 2"),
        ("", ""),
    ],
)
def test_it_reads_as_the_page_does(html, text):
    assert plain_text(html) == text + "\n"


@settings(max_examples=60)
@given(st.text(st.sampled_from("<>/\"'=a pbr-!&;\n"), max_size=60))
def test_any_text_is_read(html):
    made = plain_text(html)
    assert made.endswith("\n") and "\n\n\n" not in made


@pytest.mark.parametrize("piece", ["<", "<a ", "<!--", '<a "', "<p><a href=x>", "<ul><li>", "&"])
def test_time_grows_with_the_length(piece):
    # A quadratic step would take minutes.
    begin = time.process_time()
    plain_text(piece * 20_000)
    assert time.process_time() - begin < 5
