"""Invisible characters, which can be copied with an address and then name another mailbox.

There are two kinds: characters without a glyph (Unicode's format characters, category Cf, and others that are ignored
by default, such as variation selectors), and blanks other than the space.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BLANKS", "hidden_character", "named"]

#: Blanks other than the space, as a range for regular expressions.
BLANKS: Final = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

# Unicode's Default_Ignorable_Code_Point, and category Cf.
_HIDDEN: Final = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS: Final = "\u200c\u200d"


def hidden_character(text: str, *, joiners: bool = False) -> str | None:
    """Return the first invisible character, None if there is none.

    Args:
        text: any text.
        joiners: allow ZERO WIDTH JOINER and NON-JOINER everywhere; otherwise they are allowed between letters beyond
            ASCII, where several scripts need them.
    """
    if text.isascii():
        return None
    for match in _HIDDEN.finditer(text):
        char = match[0]
        if char not in _JOINERS:
            return char
        before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 1]
        if not joiners and not (_joins(before) and _joins(after)):
            return char
    return None


def named(char: str) -> str:
    """Return a character by its Unicode name and code point: `ZERO WIDTH SPACE (U+200B)`."""
    import unicodedata  # imported here because few addresses need the module

    return f"{unicodedata.name(char, 'a character without a name')} (U+{ord(char):04X})"


def _joins(char: str) -> bool:
    """Tell whether this is a letter beyond ASCII, or a mark of such a letter."""
    import unicodedata

    return bool(char) and not char.isascii() and unicodedata.category(char)[0] in "LM"
