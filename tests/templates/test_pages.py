"""pages.py: style sheets become attributes, and images parts of the message."""

import socket

import pytest

from smtp_async.errors import TemplateError

STYLES = "<style>p { color: #222 } .a { margin: 0 } @media (max-width: 600px) { p { margin: 1px } }</style>"


@pytest.fixture
def page(write):
    """Write `a.html` and other files, and return the message of the template."""

    def made(html, files=None, **context):
        return write({"a.html": html, **(files or {})}).message("a", context, subject="s")

    return made


def test_rules_become_attributes_and_those_for_screens_stay(page):
    html = str(page(f"<html><head>{STYLES}</head><body><p class=a>Hi</p></body></html>").html)
    assert '<p class="a" style="color: #222;margin: 0;">Hi</p>' in html
    assert "@media (max-width: 600px)" in html and html.count("color") == 1


def test_rules_apply_to_what_values_and_loops_make(page):
    styles = "<style>li:nth-child(2) { color: red } .c { margin: 0 }</style>"
    made = str(page(styles + "{% for n in 'abc' %}<li class={{ n }}>{{ n }}</li>{% endfor %}").html)
    assert '<li class="b" style="color: red;">b</li><li class="c" style="margin: 0;">c</li>' in made
    assert made.count("style=") == 2


def test_a_style_sheet_is_included(page):
    html = str(
        page('<style>{% include "mail.css" %}</style><p>Hi', {"mail.css": "p > b, p { color: red }"}).html
    )
    assert '<p style="color: red;">Hi' in html


@pytest.mark.parametrize(
    "link", ['rel="stylesheet" href="mail.css"', "href=https://x.test/a.css rel=stylesheet"]
)
def test_a_linked_style_sheet_is_refused_with_the_way_to_write_it(page, link):
    with pytest.raises(TemplateError, match='include "mail.css"'):
        page(f"<link {link}><p>Hi", {"mail.css": "p { color: red }"})


def test_nothing_is_fetched_and_no_file_is_read(page, tmp_path, monkeypatch):
    secret = tmp_path / "secret.css"
    secret.write_text("p { color: red }")
    server = socket.create_server(("127.0.0.1", 0))
    with server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.css"
        styles = "".join(f'@import url("{where}");' for where in (url, secret.as_uri(), secret))
        links = f'<link rel="preload" as="style" href="{url}"><link rel="alternate" href="{secret.as_uri()}">'
        html = str(page(f"<style>{styles}</style>{links}<p>Hi <img src='{url}'>").html)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "red" not in html and f'src="{url}"' in html


def test_images_of_the_folder_become_inline_parts(page):
    files = {"logo.png": b"one", "img/two 2.GIF": b"two"}
    html = """<table background="img/two%202.GIF"><tr><td><img alt="a > b" src='./logo.png'>
    <img src=logo.png><img src="https://x.test/a.png"><img src="cid:own"><img src="//x.test/b.png">
    <img src="data:,x">"""
    message = page(html, files)
    two, one = message.attachments
    assert (one.data, one.filename, one.content_type, one.disposition) == (
        b"one",
        "logo.png",
        "image/png",
        "inline",
    )
    assert (two.data, two.content_type) == (b"two", "image/gif")
    made = str(message.html)
    assert made.count(f'src="cid:{one.cid}"') == 2 and f'background="cid:{two.cid}"' in made
    for kept in ("https://x.test/a.png", "cid:own", "//x.test/b.png", "data:,x"):
        assert f'src="{kept}"' in made
    # The parts are related to the HTML, and the HTML names what they are called.
    message.sender = "ann@example.com"
    parsed = message.to_email_message()
    body = parsed.get_body(("related",))
    assert body is not None
    assert [part["Content-ID"] for part in body.iter_parts()][1:] == [f"<{two.cid}>", f"<{one.cid}>"]


def test_images_of_other_messages_are_the_same_part(write):
    templates = write({"a.html": "<img src=logo.png>", "logo.png": b"one"})
    first, second = (templates.message("a", subject="s").attachments for _ in range(2))
    assert first[0] is second[0]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("../secret.png", "is outside of "),
        ("/etc/passwd.png", "is outside of "),
        ("%2e%2e/secret.png", "is outside of "),
        ("link.png", "is outside of "),
        ("img/../../secret.png", "is outside of "),
        ("missing.png", "cannot be read: No such file"),
        ("a.html", "is not an image file"),
        ("a%00.png", "is no path"),
    ],
)
def test_other_files_are_refused(page, folder, tmp_path, source, text):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(TemplateError, match=text):
        page("<p><img src='{{ source }}'>", source=source)


def test_an_image_is_read_again_where_files_are_reloaded(write, folder):
    templates = write({"a.html": "<img src=logo.png>", "logo.png": b"one"}, reload=True)
    templates.message("a", subject="s")
    (folder / "logo.png").write_bytes(b"two")
    assert templates.message("a", subject="s").attachments[0].data == b"two"
