"""The files of a template, for a locale.

A template is one file with blocks, `welcome.jinja`, or up to three files, `welcome.subject.txt`, `welcome.txt` and
`welcome.html`. A locale stands before the ending: `welcome.de_AT.html`, `welcome.de.html`.

The text and the HTML of a message are in one language: both come from the first locale that has one of them, and the
other is not taken from the next. The subject alone may come from further on, because a variant for one country often
differs from that of the language in its body only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import TemplateError
from ..model.reply import printable

__all__ = ["TemplateFiles", "files_of", "locale_names"]

_ALL_IN_ONE: Final = ".jinja"
_SUBJECT: Final = ".subject.txt"
_TEXT: Final = ".txt"
_HTML: Final = ".html"
#: A language, and what narrows it down: a script, a country, a variant (RFC 5646, or POSIX without a charset).
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{1,8})*")
_NAME: Final = re.compile(r"[^/\\.\0][^/\\\0]*(/[^/\\.\0][^/\\\0]*)*")
#: The most templates that an error lists.
_LISTED: Final = 10


class TemplateFiles(NamedTuple):
    """The files of one template, as names within the folder.

    Attributes:
        whole: the file with all parts as blocks; then the others are None.
        subject, text, html: the files of the parts.
    """

    whole: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None


def locale_names(locale: str | None) -> Iterator[str]:
    """Yield the middle part of the file names for a locale, the most special first, and at last the empty one.

    Raises:
        TemplateError: this is no locale.
    """
    if locale is not None:
        if _LOCALE.fullmatch(locale) is None:
            raise TemplateError(f"“{printable(locale, 40)}” is no locale: it is written de or de_AT")
        words = locale.replace("-", "_").split("_")
        for length in range(len(words), 0, -1):
            yield "." + "_".join(words[:length])
    yield ""


def files_of(folder: Path, name: str, locale: str | None) -> TemplateFiles:
    """Find the files of a template.

    Raises:
        TemplateError: there are none, or both of one file and of three, or the name leads out of the folder.
    """
    if _NAME.fullmatch(name) is None:
        raise TemplateError(f"“{printable(name, 80)}” is no name of a template in {folder}")

    def there(middle: str, ending: str) -> str | None:
        path = f"{name}{middle}{ending}"
        return path if (folder / path).is_file() else None

    body = None
    for middle in locale_names(locale):
        whole = there(middle, _ALL_IN_ONE)
        text, html, subject = there(middle, _TEXT), there(middle, _HTML), there(middle, _SUBJECT)
        if whole is not None:
            if text or html or subject:
                raise TemplateError(
                    f"there is {whole} and there is {text or html or subject}: a template is one file with blocks, "
                    "or one file for each part"
                )
            if body is None:
                return TemplateFiles(whole)
        if body is None and (text or html):
            body = TemplateFiles(text=text, html=html)
        if body is not None and subject is not None:
            return body._replace(subject=subject)
    if body is None:
        raise TemplateError(_missing(folder, name))
    return body


def _missing(folder: Path, name: str) -> str:
    found = sorted(_names(folder))
    there = ", ".join(found[:_LISTED]) + (", …" if len(found) > _LISTED else "") or "none"
    return (
        f"there is no template “{printable(name, 80)}” in {folder}, that is no {printable(name, 80)}{_ALL_IN_ONE}, "
        f"{_HTML} or {_TEXT}; there are: {there}"
    )


def _names(folder: Path) -> set[str]:
    """Return the names of the templates in a folder, without locales."""
    endings = (_ALL_IN_ONE, _SUBJECT, _TEXT, _HTML)
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return {path.split(".")[0] for path in paths if path.endswith(endings)}
