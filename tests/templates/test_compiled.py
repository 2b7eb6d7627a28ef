"""compiled.py: what may stand in the files, and the errors that tell of what may not."""

import pytest

from smtp_async.errors import TemplateError

LAYOUT = "<h1>Shop</h1>{% block content %}{% endblock %}<p>{{ foot }}</p>"


def test_html_extends_a_layout_of_the_folder(write):
    files = {
        "layout.html": LAYOUT,
        "a.html": '{% extends "layout.html" %}{% block content %}<b>{{ x }}</b>{% endblock %}',
    }
    message = write(files).message("a", {"x": "<", "foot": ">"}, subject="s")
    assert "<h1>Shop</h1><b>&lt;</b><p>&gt;</p>" in str(message.html)


def test_the_block_of_a_whole_file_extends_a_layout(write):
    whole = (
        '{% from "macros.html" import button %}{% set greeting = "Hello" %}'
        "{% macro shout(x) %}{{ x | upper }}{% endmacro %}"
        "{% block subject %}{{ greeting }}{% endblock %}"
        '{% block html %}{% extends "layout.html" %}{% block content %}{{ button("<go>") }}{{ shout(greeting) }}'
        "{% endblock %}{% endblock %}"
    )
    macros = '{% macro button(label) %}<a href="https://x.test/">{{ label }}</a>{% endmacro %}'
    message = write({"a.jinja": whole, "layout.html": LAYOUT, "macros.html": macros}).message(
        "a", {"foot": "f"}
    )
    assert message.subject == "Hello"
    assert '<h1>Shop</h1><a href="https://x.test/">&lt;go&gt;</a>HELLO<p>f</p>' in str(message.html)


def test_lines_with_tags_leave_no_empty_lines_in_a_text(write):
    text = "Items:\n{% for item in items %}\n  - {{ item }}\n{% endfor %}\nend"
    assert (
        write({"a.txt": text}).message("a", {"items": "ab"}, subject="s").text
        == "Items:\n  - a\n  - b\nend\n"
    )


def test_only_the_part_that_is_wanted_is_rendered(write):
    whole = "{% block subject %}{{ count() }}{% endblock %}{% block text %}{{ count() }}{% endblock %}"
    calls = iter(range(10))
    message = write({"a.jinja": whole}).message("a", {"count": lambda: next(calls)})
    assert (message.subject, message.text) == ("0", "1\n")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"a.html": "x\n{% if %}"}, r"a\.html, line 2: Expected an expression"),
        ({"a.html": "x\n{% include 'b.html' %}"}, r"a: there is no file b\.html in "),
        (
            {"a.html": "{% include 'b.html' %}", "b.html": "\n\n{{ x | odd }}"},
            r"b\.html, line 3: No filter named 'odd'",
        ),
        ({"a.html": "{% extends '../b.html' %}"}, r"a: there is no file \.\./b\.html"),
        ({"a.txt": b"\xff"}, "a: a file of the template is not UTF-8"),
        (
            {"a.jinja": "{% block htm %}{% endblock %}"},
            r"a\.jinja, line 1: the block is called htm, but the parts",
        ),
        ({"a.jinja": "{% extends 'b' %}"}, "write it inside of the block html"),
        (
            {"a.jinja": "\nHello\n{% block text %}x{% endblock %}"},
            r"a\.jinja, line 1: this is in none of the blocks",
        ),
        ({"a.jinja": "{{ x }}"}, "in none of the blocks"),
        (
            {"a.html": "{{ x.y.z }}"},
            r"a\.html, line 1: .*has no attribute 'y'; every name that a template uses",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(write, files, text):
    with pytest.raises(TemplateError, match=text):
        write(files).message("a", {"x": "value"}, subject="s")
