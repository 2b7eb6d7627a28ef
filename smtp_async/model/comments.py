"""Comments in lists of mailboxes, RFC 5322 section 3.2.2: `root@host (Cron Daemon)`.

Strategy. Comments are removed before a list is parsed, because they nest and may contain every character that is a
separator elsewhere. Each run of comments, with the blanks around it, is replaced by one tab as its mark. The text
contains no other tab, because text with control characters is refused before.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MARK", "without_comments"]

#: Replaces a run of comments.
MARK: Final = "\t"

#: Limits of adjacent and of nested comments; a text beyond them is an attack.
MAX_RUN: Final = 100
MAX_DEPTH: Final = 100

# Text up to a comment; a parenthesis in a quoted string begins none. Callers refuse a quote that is not closed.
_OUTSIDE: Final = re.compile(r'(?:[^"()]++|"(?:[^"\\]|\\.?)*+(?:"|\Z))*+')
_INSIDE: Final = re.compile(r"(?:[^()\\]|\\.)*+([()])")
_ESCAPED: Final = re.compile(r"\\(.)")


def without_comments(text: str) -> tuple[str, list[str]]:
    """Return a text with a `MARK` for each run of comments, and the text of each run.

    Args:
        text: without control characters.

    Raises:
        ValueError: a parenthesis is not closed, or not opened, or there are too many.
    """
    if "(" not in text and ")" not in text:
        return text, []
    pieces: list[str] = []
    found: list[str] = []
    position = 0
    while True:
        match = _OUTSIDE.match(text, position)
        piece = match[0] if match else ""
        position += len(piece)
        if position == len(text):
            return "".join([*pieces, piece]), found
        run: list[str] = []
        while text.startswith("(", position):
            if len(run) == MAX_RUN:
                raise ValueError(f"there are more than {MAX_RUN} adjacent comments")
            end = _comment_end(text, position)
            run.append(_ESCAPED.sub(r"\1", text[position + 1 : end - 1]).strip(" "))
            position = end
            while text.startswith(" ", position):
                position += 1
        if not run:
            raise ValueError("a parenthesis is closed that was not opened")
        pieces += (piece.rstrip(" "), MARK)
        found.append(" ".join(run))


def _comment_end(text: str, start: int) -> int:
    """Return the end of the comment that opens at `start`."""
    depth, position = 0, start
    while True:
        match = _INSIDE.match(text, position)
        if match is None:
            raise ValueError("a comment is not closed: there are more opening parentheses than closing ones")
        position = match.end()
        depth += 1 if match[1] == "(" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"comments are nested more than {MAX_DEPTH} levels deep")
        if not depth:
            return position
