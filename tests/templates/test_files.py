"""files.py: which files a template has."""

import pytest

from smtp_async.errors import TemplateError
from smtp_async.templates.files import TemplateFiles, files_of, locale_names


@pytest.fixture
def there(folder):
    def touch(*names):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()

    return touch


@pytest.mark.parametrize(
    ("locale", "names"),
    [
        (None, [""]),
        ("de", [".de", ""]),
        ("de_AT", [".de_AT", ".de", ""]),
        ("de-AT", [".de_AT", ".de", ""]),
        ("zh_Hant_TW", [".zh_Hant_TW", ".zh_Hant", ".zh", ""]),
    ],
)
def test_a_locale_falls_back_to_its_language(locale, names):
    assert list(locale_names(locale)) == names


@pytest.mark.parametrize("locale", ["", "../de", "de/AT", "d", "de_AT.UTF-8", "*"])
def test_anything_else_is_no_locale(locale):
    with pytest.raises(TemplateError, match="is no locale"):
        list(locale_names(locale))


@pytest.mark.parametrize(
    ("locale", "found"),
    [
        (None, TemplateFiles(subject="a.subject.txt", text="a.txt", html="a.html")),
        ("fr", TemplateFiles(subject="a.subject.txt", text="a.txt", html="a.html")),
        # The text is not taken from another language: it is made from the HTML.
        ("de", TemplateFiles(subject="a.de.subject.txt", html="a.de.html")),
        ("de_AT", TemplateFiles(subject="a.de.subject.txt", text="a.de_AT.txt")),
    ],
)
def test_text_and_html_are_of_one_locale(folder, there, locale, found):
    there("a.subject.txt", "a.txt", "a.html", "a.de.subject.txt", "a.de.html", "a.de_AT.txt")
    assert files_of(folder, "a", locale) == found


def test_a_whole_file_has_locales_too(folder, there):
    there("a.jinja", "a.de.jinja", "sub/b.jinja")
    assert files_of(folder, "a", "de_AT") == TemplateFiles("a.de.jinja")
    assert files_of(folder, "a", "fr") == TemplateFiles("a.jinja")
    assert files_of(folder, "sub/b", None) == TemplateFiles("sub/b.jinja")


def test_a_template_is_of_one_kind(folder, there):
    there("a.jinja", "a.html")
    with pytest.raises(TemplateError, match=r"there is a\.jinja and there is a\.html"):
        files_of(folder, "a", None)


def test_a_missing_template_is_told_with_those_that_are_there(folder, there):
    there("welcome.html", "welcome.de.html", "sub/invoice.jinja", "logo.png")
    with pytest.raises(TemplateError, match=r"no template “welcom” in .*; there are: sub/invoice, welcome$"):
        files_of(folder, "welcom", None)


@pytest.mark.parametrize(
    "name", ["", "../welcome", "/etc/passwd", "a/../b", "a\\b", ".hidden", "a/", "a\0b", "a//b"]
)
def test_a_name_stays_in_the_folder(folder, there, name):
    with pytest.raises(TemplateError, match="is no name of a template"):
        files_of(folder, name, None)
