"""The text of a message that has only HTML: what a reader of the page would read, without its looks.

The page is cut into tags and texts, and written in one pass. A paragraph, heading, list or table stands between empty
lines, a row or list item on a line of its own; a link is followed by its address in angle brackets, because those of
RFC 3986 appendix C keep what follows out of the address. Lines are as long as the paragraphs.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

__all__ = ["plain_text"]

# Code, a tag with its attributes, a text, a comment, a declaration, or a stray "<". No attempt goes beyond the next "<"
# unless it takes all that it passes, so that the time is proportional to the length.
_TOKEN: Final = re.compile(
    r"""<(?:script|style)\b.*?(?:</(?:script|style)\s*+>|\Z)"""
    r"""|<(/?)([a-z][a-z0-9:-]*+)([^<>"']*+(?:(?:"[^"<]*"|'[^'<]*')[^<>"']*+)*+)>|([^<]++)"""
    r"""|<!--.*?(?:-->|\Z)|<![^<>]*>|(<)""",
    re.DOTALL | re.IGNORECASE,
)
_SPACE: Final = re.compile(r"[ \t\r\n\f]+")
_ATTRIBUTE: Final = re.compile(r"([a-zA-Z-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_HIDDEN: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_EMPTY_LINES: Final = re.compile(r"\n{3,}")
#: Their contents are never shown.
_SKIPPED: Final = frozenset({"head", "title", "template", "svg"})
#: A line end before and after, one or two.
_BREAKS: Final = {
    **dict.fromkeys(("address", "article", "aside", "div", "dd", "dt", "figure", "footer", "form"), 1),
    **dict.fromkeys(("header", "li", "main", "nav", "section", "tbody", "thead", "tfoot", "tr"), 1),
    **dict.fromkeys(
        ("blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"), 2
    ),
}
_LINE: Final = "-" * 40
#: Lists within lists are indented so often.
_DEEPEST: Final = 8
#: What has no end tag, and so no contents.
_VOID: Final = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "wbr"})
#: The elements that change anything where they begin, and where they end.
_OPENED: Final = frozenset({*_BREAKS, "a", "br", "hr", "img", "td", "th"})
_CLOSED: Final = frozenset({*_BREAKS, "a"})


def plain_text(html: str) -> str:
    """Return the text of a page, ending with a line end."""
    writer = _Writer()
    skipped, depth = "", 0
    for closing, name, attributes, text, stray in _TOKEN.findall(html):
        if name:
            name = name.lower()
        if skipped:
            if name == skipped:
                depth += -1 if closing else 1
                skipped = skipped if depth else ""
        elif not name:
            writer.write(text or stray)
        elif closing:
            if name in _CLOSED:
                writer.close(name)
        elif name in _SKIPPED or (attributes and "style" in attributes and _is_hidden(name, attributes)):
            skipped, depth = name, 1
        elif name in _OPENED:
            writer.open(name, attributes)
    return writer.text()


class _Writer:
    """Collects the text."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        # Line ends, and a blank, that come before the next text.
        self._breaks = 0
        self._blank = False
        # For each list, the number of its last item; None for one without numbers.
        self._lists: list[int | None] = []
        # For each link, its address, and where its text begins.
        self._links: list[tuple[str, int]] = []
        self._verbatim = 0
        # Of an item whose text has not come yet.
        self._bullet = ""

    def write(self, text: str) -> None:
        """Add a text with entities."""
        if "&" in text:
            text = unescape(text)
        if self._verbatim:
            self._put(text)
            return
        words = _SPACE.sub(" ", text)
        inner = words.strip(" ")
        if inner:
            self._blank = self._blank or words[0] == " "
            self._put(inner)
            self._blank = words[-1] == " "
        elif words:
            self._blank = True

    def open(self, name: str, attributes: str) -> None:
        """Begin an element."""
        if name in _BREAKS:
            self._break(_BREAKS[name])
        if name == "br":
            # Several make empty lines.
            self._breaks = min(self._breaks + 1, 2)
        elif name == "a":
            self._links.append((_attribute(attributes, "href"), len(self._pieces)))
        elif name == "img":
            if shown := _attribute(attributes, "alt"):
                self._put(shown)
        elif name in ("td", "th"):
            self._blank = True
        elif name in ("ul", "ol"):
            self._lists.append(0 if name == "ol" else None)
        elif name == "li":
            self._bullet = self._next_bullet()
        elif name == "hr":
            self._break(2)
            self._put(_LINE)
            self._break(2)
        elif name == "pre":
            self._verbatim += 1

    def close(self, name: str) -> None:
        """End an element."""
        if name == "a" and self._links:
            self._end_link(*self._links.pop())
        elif name in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif name == "pre" and self._verbatim:
            self._verbatim -= 1
        if name in _BREAKS:
            self._break(_BREAKS[name])

    def text(self) -> str:
        """Return everything, without blanks at line ends."""
        lines = [line.rstrip(" ") for line in "".join(self._pieces).split("\n")]
        return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n") + "\n"

    def _break(self, lines: int) -> None:
        # A list has no empty lines inside.
        self._breaks = max(self._breaks, 1 if self._lists else lines)

    def _put(self, text: str) -> None:
        if self._breaks:
            if self._pieces:
                self._pieces.append("\n" * self._breaks)
        elif self._blank and self._pieces and not self._pieces[-1].endswith((" ", "\n")):
            self._pieces.append(" ")
        self._breaks, self._blank = 0, False
        self._pieces.append(self._bullet + text)
        self._bullet = ""

    def _next_bullet(self) -> str:
        indent = "  " * min(len(self._lists) - 1, _DEEPEST)
        number = self._lists[-1] if self._lists else None
        if number is None:
            return f"{indent}- "
        self._lists[-1] = number + 1
        return f"{indent}{number + 1}. "

    def _end_link(self, address: str, start: int) -> None:
        address = address.removeprefix("mailto:")
        text = "".join(self._pieces[start:]).strip()
        if address and not address.startswith("#") and text != address:
            self._blank = bool(text)
            self._put(f"<{address}>")


def _attribute(attributes: str, wanted: str) -> str:
    """Return the value of an attribute; empty if there is none."""
    for name, double, single, bare in _ATTRIBUTE.findall(attributes):
        if name.lower() == wanted:
            return _SPACE.sub(" ", unescape(double or single or bare)).strip()
    return ""


def _is_hidden(name: str, attributes: str) -> bool:
    """Tell whether the contents of an element are not shown, as the preview text of a newsletter is not."""
    return name not in _VOID and _HIDDEN.search(_attribute(attributes, "style")) is not None
