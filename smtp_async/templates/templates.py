"""`Templates`: a folder with the templates of an application's mail."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import FileError, InvalidArgument, InvalidHeader, TemplateError
from ..message.builder import Message
from ..model.reply import printable
from .compiled import CompiledTemplate, Compiler
from .files import files_of
from .pages import Pages
from .plain_text import plain_text

__all__ = ["Templates"]

#: The most templates, each in one locale, that are kept: a locale may come from a request.
_REMEMBERED: Final = 1024
#: Everything at which `str.splitlines` ends a line.
_LINE_END: Final = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")


class Templates:
    """Makes messages from the templates of a folder.

    A template is one file with the blocks `subject`, `text` and `html` (`welcome.jinja`), or one file for each
    (`welcome.subject.txt`, `welcome.txt`, `welcome.html`). A locale stands before the ending: `welcome.de.html`. Values
    are escaped in HTML only; the rules of style sheets are written into `style` attributes; images of the folder
    (`<img src="logo.png">`) become parts of the message; a message without a text gets the text of its HTML.

    Files are read and compiled when they are first used, and kept. An object may be used by any number of tasks and
    threads. Templates are programs: use none that you would not run.

    Args:
        folder: where the templates and their images are, in UTF-8. Templates include and extend files of it.
        filters: further filters by name.
        globals: further names that all templates may use.
        reload: look whether files have changed, for development.

    Raises:
        FileError: there is no such folder.
        FeatureUnavailable: the extra `smtp-async[templates]` is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        filters: Mapping[str, Callable[..., Any]] | None = None,
        globals: Mapping[str, Any] | None = None,
        reload: bool = False,
    ) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise FileError(f"there is no folder {self._folder}, which should hold templates")
        self._reload = reload
        self._compiler = Compiler(self._folder, filters=filters or {}, globals=globals or {}, reload=reload)
        self._pages = Pages(self._folder, reload=reload)
        self._compiled: dict[tuple[str, str | None], CompiledTemplate] = {}

    def __repr__(self) -> str:
        return f"<Templates of {self._folder}>"

    def message(
        self,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        locale: str | None = None,
        **fields: Any,
    ) -> Message:
        """Return a message made from a template.

        Args:
            name: the file name without its endings; "orders/shipped" is in a subfolder.
            context: the values that the template uses; a name that is missing is an error.
            locale: "de_AT" prefers files with `.de_AT` in their name, then those with `.de`, then those without.
            fields: sender, recipients and the other arguments of `Message`; a `subject` replaces the template's.

        Raises:
            TemplateError: a file is missing or not valid, or uses a name or an image that is not there.
            InvalidHeader: the subject has a line end.
            InvalidArgument: as `Message`, or a field that the template makes.
            Exception: what a filter or a value of the context raises.
        """
        return _last(self._render(name, context, locale, fields))

    async def render(
        self,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        locale: str | None = None,
        **fields: Any,
    ) -> Message:
        """Return a message made from a template, without blocking the event loop for long.

        A part of more than 16 KiB, and what follows it, is rendered in a thread: values of the context must allow that.

        Args:
            name, context, locale, fields: as for `message`.

        Raises:
            TemplateError, InvalidHeader, InvalidArgument, Exception: as `message`.
        """
        steps = self._render(name, context, locale, fields)
        try:
            next(steps)
        except StopIteration as end:
            made: Message = end.value
            return made
        return await asyncio.to_thread(_last, steps)

    def _render(
        self, name: str, context: Mapping[str, Any] | None, locale: str | None, fields: dict[str, Any]
    ) -> Generator[None, None, Message]:
        """Render a message; yield only from parts that are large."""
        if "text" in fields or "html" in fields:
            raise InvalidArgument("text and html are made by the template")
        if context is not None and not isinstance(context, Mapping):
            raise InvalidArgument(f"context is a mapping of names to values, not {type(context).__name__}")
        template = self._template(name, locale)
        values = self._compiler.values(context or {})
        if "subject" not in fields:
            if template.subject is None:
                raise TemplateError(
                    f"{name} has no subject: neither a file {name}.subject.txt nor a block, nor is one given"
                )
            subject = yield from self._compiler.rendered(template.subject, values, name)
            fields["subject"] = _one_line(subject, name)
        text = html = None
        if template.text is not None:
            text = (yield from self._compiler.rendered(template.text, values, name)).strip("\n") + "\n"
        if template.html is not None:
            page = yield from self._compiler.rendered(template.html, values, name)
            html, images = self._pages.finished(page, name)
            if images:
                fields["attachments"] = [*images, *fields.get("attachments", ())]
            if text is None:
                text = plain_text(page)
        return Message(text=text, html=html, **fields)

    def _template(self, name: str, locale: str | None) -> CompiledTemplate:
        key = (name, locale)
        found = self._compiled.get(key)
        if found is None or self._reload:
            found = self._compiler.compiled(name, files_of(self._folder, name, locale))
            if found.text is None and found.html is None:
                raise TemplateError(f"{name} has neither a block text nor a block html")
            if len(self._compiled) >= _REMEMBERED:
                self._compiled.clear()
            self._compiled[key] = found
        return found


def _last(steps: Generator[None, None, Message]) -> Message:
    """Take all steps and return the message."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: Message = end.value
            return made


def _one_line(subject: str, name: str) -> str:
    """Return a rendered subject without the blanks and the line end around it.

    Raises:
        InvalidHeader: it has a line end inside, by which a value could add header fields.
    """
    subject = subject.strip()
    found = _LINE_END.search(subject)
    if found is not None:
        raise InvalidHeader(
            f"the subject of {name} has a line end after “{printable(subject[: found.start()], 60)}”: "
            "a subject is one line, so take the line end out of the template, or out of the value in its context"
        )
    return subject
