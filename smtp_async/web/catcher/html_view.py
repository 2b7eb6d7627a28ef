"""Makes the HTML of a message fit for a frame: no network until it is wanted, images of the message inside.

What keeps the reader safe is the policy that goes with the page: a sandbox without scripts and without an origin, and
no source of anything but `data:`. Rewriting only does what a policy cannot: it takes out what the browser would fetch
or follow besides the policy (`<link rel=preconnect>`, `<meta http-equiv=refresh>`), sends links to windows of their
own, and puts files of the message in place of `cid:`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from html.parser import HTMLParser
from typing import Final
from urllib.parse import quote

from .parts import Part

__all__ = ["frame_policy", "framed", "refers_outside"]

#: The most octets of files that are put into the HTML.
MOST_INLINE: Final = 20 * 2**20
_SANDBOX: Final = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_LINK: Final = re.compile(r"\s*(?:https?:|mailto:|tel:|#)", re.IGNORECASE)
_NAME: Final = re.compile(r"[\w-]+", re.ASCII)
_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_OUTSIDE: Final = re.compile(
    r"""<(?!a\b|area\b)[a-z][^>]*?\b(?:src|srcset|background|poster|data|href)\s*=\s*["']?\s*(?:https?:)?//"""
    r"""|url\(\s*["']?\s*(?:https?:)?//|@import\b""",
    re.IGNORECASE,
)


def refers_outside(html: str) -> bool:
    """Return whether HTML would fetch something from the network."""
    return _OUTSIDE.search(html) is not None


def frame_policy(*, external: bool) -> str:
    """Return the Content-Security-Policy of a framed message.

    Args:
        external: images, styles and fonts from the network are wanted.
    """
    more = " http: https:" if external else ""
    return (
        f"default-src 'none'; img-src data:{more}; media-src data:{more}; font-src data:{more}; "
        f"style-src 'unsafe-inline'{more}; {_SANDBOX}"
    )


def framed(html: str, files: Iterable[Part]) -> str:
    """Return HTML for a frame, with the files of its message in it."""
    finder = _Finder(html)
    finder.feed(html)
    finder.close()
    pieces: list[str] = []
    end = 0
    for start, stop, instead in finder.changes:
        pieces += (html[end:start], instead)
        end = stop
    return _with_files("".join([*pieces, html[end:]]), files)


def _with_files(text: str, files: Iterable[Part]) -> str:
    room = MOST_INLINE
    for part in files:
        room -= len(part.data)
        if part.content_id and _TYPE.fullmatch(part.content_type) and room >= 0:
            data = f"data:{part.content_type};base64,{b64encode(part.data).decode()}"
            for name in {part.content_id, quote(part.content_id), escape(part.content_id)}:
                text = text.replace(f"cid:{name}", data)
    return text


class _Finder(HTMLParser):
    """Finds the tags that must change; all else stays as it is.

    Attributes:
        changes: start, end, and what comes there instead, in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self.changes: list[tuple[int, int, str]] = []
        self._lines = [0, *(match.end() for match in re.finditer("\n", html))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what comes in place of a tag."""
        instead = _instead(tag, attrs)
        if instead is not None:
            line, column = self.getpos()
            start = self._lines[line - 1] + column
            self.changes.append((start, start + len(self.get_starttag_text() or ""), instead))


def _instead(tag: str, attrs: list[tuple[str, str | None]]) -> str | None:
    """Return what comes in place of a tag; None if it stays."""
    # Of two attributes with one name, the first counts.
    found: dict[str, str | None] = {}
    for name, value in attrs:
        found.setdefault(name, value)
    if tag == "base" or (tag == "meta" and "http-equiv" in found):
        return ""
    if tag == "link" and (found.get("rel") or "").lower().split() != ["stylesheet"]:
        return ""
    if tag not in ("a", "area"):
        return None
    kept = {name: value for name, value in found.items() if name not in ("target", "rel", "ping", "download")}
    if not _LINK.match(kept.get("href") or "#"):
        del kept["href"]
    kept |= {"target": "_blank", "rel": "noopener noreferrer"}
    written = [f'{name}="{escape(value or "")}"' for name, value in kept.items() if _NAME.fullmatch(name)]
    return f"<{tag} {' '.join(written)}>"
