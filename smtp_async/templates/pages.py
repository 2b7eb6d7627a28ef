"""HTML for mail readers: rules of style sheets become `style` attributes, images of the folder parts of the message.

Many readers ignore style sheets, so css-inline applies them here. That is done for each message and not once for a
template, because what a rule applies to depends on what the values, conditions and loops of the template make. Rules
that have no place in an attribute (`@media`, for example) stay in a `<style>` element.

Nothing is fetched: css-inline is told to load no style sheet from anywhere, and a `<link>` to one is refused, because
a mail reader would not load it either.
"""

from __future__ import annotations

import hashlib
import re
from html import unescape
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from ..errors import FeatureUnavailable, TemplateError
from ..message.attachment import Attachment
from ..model.reply import printable

__all__ = ["Pages"]

# css-inline writes names in lower case and values in double quotes.
_ATTRIBUTES: Final = r"(?:[^>\"]|\"[^\"]*\")*?"
_PICTURE: Final = re.compile(rf"<img{_ATTRIBUTES}\ssrc=\"([^\"]*)\"")
_BACKGROUND: Final = re.compile(rf"<(?:body|table|t[rdh])\b{_ATTRIBUTES}\sbackground=\"([^\"]*)\"")
#: What has a scheme, or a host, or is empty, is not a file of the folder.
_ELSEWHERE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|#|$")
_LINKED_STYLES: Final = re.compile(rf"<link\b{_ATTRIBUTES}\srel=[\"']?stylesheet", re.IGNORECASE)
#: Only these, because a value of the context may be a part of the path, and templates stand in the same folder.
_TYPES: Final = frozenset({".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp"})
#: The most images that are kept in memory: a path that is a value of the context may be written in many ways.
_REMEMBERED: Final = 256


class Pages:
    """Makes the HTML of messages.

    Args:
        folder: where the images are.
        reload: read an image again for each message.

    Raises:
        FeatureUnavailable: css-inline is not installed.
    """

    def __init__(self, folder: Path, *, reload: bool) -> None:
        try:
            import css_inline
        except ImportError as error:
            raise FeatureUnavailable(
                "style sheets are inlined by css-inline", needs="smtp-async[templates]"
            ) from error
        self._inliner = css_inline.CSSInliner(
            load_remote_stylesheets=False, keep_at_rules=True, keep_link_tags=True
        )
        self._error: Any = css_inline.InlineError
        self._folder = folder.resolve()
        self._reload = reload
        self._images: dict[str, Attachment] = {}

    def finished(self, html: str, name: str) -> tuple[str, list[Attachment]]:
        """Return a rendered page as it is sent, and the images that it shows.

        Args:
            html: a document or the contents of its body.
            name: of the template, for errors.

        Raises:
            TemplateError: a style sheet is not valid or is linked, or an image cannot be used.
        """
        if _LINKED_STYLES.search(html):
            raise TemplateError(
                f"{name}: mail readers load no style sheet from a <link>: write "
                '<style>{% include "mail.css" %}</style>'
            )
        try:
            html = self._inliner.inline(html)
        except self._error as error:
            raise TemplateError(f"{name}: the style sheet cannot be applied: {error}") from error
        found = list(_PICTURE.finditer(html))
        if 'background="' in html:
            found = sorted([*found, *_BACKGROUND.finditer(html)], key=lambda match: match.start(1))
        shown: dict[str, Attachment] = {}
        pieces: list[str] = []
        end = 0
        for match in found:
            target = match[1]
            if _ELSEWHERE.match(target):
                continue
            image = shown.get(target)
            if image is None:
                image = shown[target] = self._image(target, name)
            pieces += (html[end : match.start(1)], f"cid:{image.cid}")
            end = match.end(1)
        if not pieces:
            return html, []
        return "".join([*pieces, html[end:]]), list({one.cid: one for one in shown.values()}.values())

    def _image(self, target: str, name: str) -> Attachment:
        """Return the inline part for an image of the folder."""
        image = self._images.get(target)
        if image is not None and not self._reload:
            return image
        what = f"{name}: the image “{printable(target, 80)}”"
        wanted = unquote(unescape(target))
        try:
            path = (self._folder / wanted).resolve()
        except (OSError, ValueError) as error:
            raise TemplateError(f"{what} is no path of a file") from error
        if not path.is_relative_to(self._folder):
            raise TemplateError(f"{what} is outside of {self._folder}; only files of this folder are sent")
        if path.suffix.lower() not in _TYPES:
            raise TemplateError(f"{what} is not an image file: {', '.join(sorted(_TYPES))}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TemplateError(f"{what} cannot be read: {error.strerror or error}") from error
        # The same for all messages, whose parts are made once.
        cid = f"{hashlib.sha256(data).hexdigest()[:24]}@images.invalid"
        image = Attachment(data, filename=path.name, cid=cid)
        if len(self._images) < _REMEMBERED:
            self._images[target] = image
        return image
