"""html_view.py: what a frame gets of a message, and what it may load."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.web.catcher.html_view import MOST_INLINE, frame_policy, framed, refers_outside
from smtp_async.web.catcher.parts import Part

LOGO = Part(0, "logo.png", "image/png", "logo@x", True, b"PIXEL")


def test_what_a_policy_cannot_stop_is_taken_out():
    html = (
        '<!doctype html><base href="//evil"><meta charset=utf-8><meta http-equiv=refresh content="0;url=//evil">'
        '<LINK rel="dns-prefetch" href="//evil"><link rel=preconnect href=//evil><link rel="stylesheet" href="a.css">'
    )
    assert framed(html, []) == '<!doctype html><meta charset=utf-8><link rel="stylesheet" href="a.css">'


def test_links_open_in_windows_of_their_own_and_tell_nothing():
    done = framed('<a href="https://x/?a=1&amp;b=2" target=_self ping="//evil" class=c>x</a>', [])
    assert done == (
        '<a href="https://x/?a=1&amp;b=2" class="c" target="_blank" rel="noopener noreferrer">x</a>'
    )


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", " JaVaScRiPt:x", "data:text/html,x", "vbscript:x", "file:///"]
)
def test_links_that_lead_to_no_place_in_the_net_lead_nowhere(link):
    assert "href" not in framed(f'<a href="{link}">x</a>', [])


def test_files_of_the_message_are_put_in():
    html = "<p>1 & 2 &copy < 3</p>\n<img src='cid:logo@x'><td background=cid:logo%40x style=\"x:url(cid:logo@x)\">"
    done = framed(html, [LOGO])
    assert done.count("data:image/png;base64,UElYRUw=") == 3 and "cid:" not in done
    assert done.startswith("<p>1 & 2 &copy < 3</p>\n<img src='data:")


def test_a_type_that_would_break_out_is_not_put_in():
    hostile = LOGO._replace(content_type='image/png"><script>')
    assert framed('<img src="cid:logo@x">', [hostile]) == '<img src="cid:logo@x">'


def test_files_that_are_too_large_together_stay_out():
    large = LOGO._replace(data=bytes(MOST_INLINE))
    done = framed('<img src="cid:a"><img src="cid:logo@x">', [large._replace(content_id="a"), LOGO])
    assert done.count("data:") == 1 and "cid:logo@x" in done


@pytest.mark.parametrize(
    ("html", "outside"),
    [
        ('<img src="http://x/1.png">', True),
        ("<img src=//x/1.png>", True),
        ('<img\nwidth=1\nSRC = "https://x">', True),
        ('<link rel=stylesheet href="https://x">', True),
        ("<style>@import 'x'</style>", True),
        ("<p style=\"background:url('https://x')\">", True),
        ('<a href="https://x">x</a>', False),
        ('<img src="cid:x"><img src="data:image/png;base64,">', False),
        ("<p>see https://x</p>", False),
    ],
)
def test_whether_a_message_needs_the_network(html, outside):
    assert refers_outside(html) is outside


def test_the_policy_has_no_scripts_no_origin_and_no_network():
    policy = frame_policy(external=False)
    assert "default-src 'none'" in policy and "http" not in policy and "script" not in policy
    sandbox = re.search(r"sandbox ([^;]*)", policy)
    assert sandbox is not None and sandbox[1].split() == ["allow-popups", "allow-popups-to-escape-sandbox"]
    more = frame_policy(external=True)
    assert "img-src data: http: https:" in more and "default-src 'none'" in more and "script" not in more


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


MARKUP = st.lists(
    st.sampled_from(
        [
            "<a href='javascript:x'",
            "<a href=https://x",
            ">",
            "<base href=x>",
            "<meta http-equiv=refresh>",
            "\n",
            '"',
            "'",
        ]
        + [
            "<link rel=preload>",
            "<!--",
            "-->",
            "<script>",
            "</script>",
            "&amp",
            "x",
            "<",
            "/>",
            " a=1",
            "<![CDATA[",
            "é",
        ]
    ),
    max_size=12,
).map("".join)


@given(st.one_of(MARKUP, st.text(max_size=200)))
def test_any_text_is_framed(html):
    done = framed(html, [LOGO])
    found = _Tags()
    found.feed(done)
    found.close()
    for tag, attributes in found.tags:
        assert tag != "base" and not (tag == "meta" and "http-equiv" in attributes)
        if tag == "a":
            assert not (attributes.get("href") or "").lower().strip().startswith("javascript")
    refers_outside(html)


@given(st.text(alphabet=st.characters(exclude_characters="<"), max_size=200))
def test_a_text_without_tags_stays_as_it_is(text):
    assert framed(text, []) == text
