"""templates.py: messages from templates."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from smtp_async import Attachment, Templates
from smtp_async.errors import (
    FeatureUnavailable,
    FileError,
    InvalidAddress,
    InvalidArgument,
    InvalidHeader,
    TemplateError,
)

THREE = {
    "welcome.subject.txt": "Welcome, {{ name }}\n",
    "welcome.txt": "Hello {{ name }},\n\nhere you are.\n",
    "welcome.html": "<p>Hello {{ name }}</p>",
}
ONE = {
    "welcome.jinja": "{# all parts #}\n{% block subject %}Welcome, {{ name }}{% endblock %}\n"
    "{% block text %}\nHello {{ name }},\n\nhere you are.\n{% endblock %}\n"
    "{% block html %}<p>Hello {{ name }}</p>{% endblock %}\n"
}


@pytest.mark.parametrize("files", [THREE, ONE], ids=["three files", "one file"])
def test_a_message_has_subject_text_and_html(write, files):
    message = write(files).message(
        "welcome", {"name": "Ann & Bob <3"}, to="bob@example.org", sender="Ann <ann@example.com>"
    )
    assert message.subject == "Welcome, Ann & Bob <3"
    assert message.text == "Hello Ann & Bob <3,\n\nhere you are.\n"
    # Only HTML is escaped.
    assert "<p>Hello Ann &amp; Bob &lt;3</p>" in str(message.html)
    assert [str(one) for one in message.to] == ["bob@example.org"]
    assert str(message.sender) == "ann@example.com"


def test_a_text_is_made_where_there_is_none(write):
    templates = write(
        {"note.subject.txt": "x", "note.html": "<h1>Hi</h1><p>See <a href='https://x.test/'>this</a>"}
    )
    assert templates.message("note").text == "Hi\n\nSee this <https://x.test/>\n"


def test_a_message_may_have_no_html(write):
    message = write({"note.subject.txt": "x", "note.txt": "Hi"}).message("note")
    assert (message.text, message.html) == ("Hi\n", None)


def test_fields_are_those_of_a_message(write):
    templates = write({**THREE, "logo.png": b"png", "welcome.html": "<img src=logo.png>"})
    own = Attachment(b"x", filename="terms.txt")
    message = templates.message(
        "welcome", {"name": "Ann"}, subject="Another", reply_to="help@example.com", attachments=[own]
    )
    assert message.subject == "Another"
    assert [str(one) for one in message.reply_to] == ["help@example.com"]
    assert [one.filename for one in message.attachments] == ["logo.png", "terms.txt"]
    with pytest.raises(InvalidAddress):
        templates.message("welcome", {"name": "Ann"}, to="not an address")
    with pytest.raises(InvalidArgument, match="made by the template"):
        templates.message("welcome", {"name": "Ann"}, text="mine")
    with pytest.raises(InvalidArgument, match="context is a mapping"):
        templates.message("welcome", "Ann")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"])
def test_a_subject_with_a_line_end_is_refused(write, end):
    templates = write(THREE)
    with pytest.raises(InvalidHeader, match=r"the subject of welcome has a line end after “Welcome, Ann”"):
        templates.message("welcome", {"name": f"Ann{end}Bcc: eve@example.net"})


def test_every_name_must_have_a_value(write):
    templates = write({**THREE, "welcome.html": "<p>\n{{ nmae }}</p>"})
    with pytest.raises(TemplateError, match=r"welcome\.html, line 2: 'nmae' is undefined; every name"):
        templates.message("welcome", {"name": "Ann"})


def test_what_a_value_raises_is_raised(write):
    templates = write({**THREE, "welcome.html": "{{ 1 / zero }}"})
    with pytest.raises(ZeroDivisionError):
        templates.message("welcome", {"name": "Ann", "zero": 0})


def test_a_subject_is_needed_somewhere(write):
    templates = write({"note.txt": "Hi", "odd.jinja": "{% block subject %}x{% endblock %}"})
    with pytest.raises(TemplateError, match=r"note has no subject: neither a file note\.subject\.txt"):
        templates.message("note")
    assert templates.message("note", subject="x").text == "Hi\n"
    with pytest.raises(TemplateError, match="odd has neither a block text nor a block html"):
        templates.message("odd")


def test_filters_and_globals_are_the_applications(write):
    files = {"a.txt": "{{ 3 | euro }} {{ shop }}"}
    templates = write(files, filters={"euro": "{} €".format}, globals={"shop": "Shop"})
    assert templates.message("a", subject="x").text == "3 € Shop\n"


def test_files_are_compiled_once_unless_reloaded(write, folder):
    once, again = write(THREE), Templates(folder, reload=True)
    for templates in (once, again):
        templates.message("welcome", {"name": "Ann"})
    (folder / "welcome.txt").write_text("other")
    # Jinja looks at the time of the file.
    import os

    os.utime(folder / "welcome.txt", (1, 1))
    assert once.message("welcome", {"name": "Ann"}).text != "other\n"
    assert again.message("welcome", {"name": "Ann"}).text == "other\n"


async def test_a_small_message_is_rendered_at_once(write):
    templates = write({"a.txt": "{{ thread() }}"})
    message = await templates.render("a", {"thread": threading.get_ident}, subject="x")
    assert message.text == f"{threading.get_ident()}\n"


async def test_the_rest_of_a_large_message_is_rendered_in_a_thread(write):
    templates = write(
        {"a.txt": "{{ thread() }}\n{% for n in range(3000) %}\nline {{ n }}\n{% endfor %}\n{{ thread() }}"}
    )
    context = {"thread": threading.get_ident}
    message = await templates.render("a", context, subject="x")
    first, *lines, last = str(message.text).split()
    assert int(first) == threading.get_ident() != int(last)
    assert len(lines) == 6000
    # In any case the whole message is the same.
    context["thread"] = lambda: 1
    assert (await templates.render("a", context, subject="x")).text == templates.message(
        "a", context, subject="x"
    ).text


async def test_render_raises_as_message_does(write):
    templates = write(
        {"a.txt": "{% for n in range(9000) %}line {% endfor %}{{ nothing }}", "b.txt": "{{ nothing }}"}
    )
    for name in ("a", "b"):
        with pytest.raises(TemplateError, match="'nothing' is undefined"):
            await templates.render(name, subject="x")


async def test_messages_are_made_by_many_tasks_and_threads(write):
    templates = write(THREE)

    async def one(number: int) -> str | None:
        made = await asyncio.to_thread(templates.message, "welcome", {"name": str(number)})
        return made.subject

    assert await asyncio.gather(*map(one, range(20))) == [f"Welcome, {n}" for n in range(20)]


def test_the_folder_must_exist(tmp_path: Path):
    with pytest.raises(FileError, match="there is no folder .*nowhere"):
        Templates(tmp_path / "nowhere")


@pytest.mark.parametrize("package", ["jinja2", "css_inline"])
def test_the_extra_is_named(monkeypatch, folder, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FeatureUnavailable) as caught:
        Templates(folder)
    assert caught.value.needs == "smtp-async[templates]"


def test_repr_names_the_folder(folder):
    assert repr(Templates(folder)) == f"<Templates of {folder}>"
