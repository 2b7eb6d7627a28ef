"""The grammar of one mailbox: RFC 5321 section 4.1.2 with the UTF-8 of RFC 6531 and the display names of RFC 5322.

The functions here return text, from which `address` makes values. Every expression is linear: alternatives exclude
each other and repetitions are possessive.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple, NoReturn

from ..errors import InvalidAddress
from .comments import MARK, without_comments
from .encoded_words import decoded_words
from .invisible import BLANKS, hidden_character, named
from .reply import printable

__all__ = [
    "ATEXT",
    "CFWS",
    "CONTROL",
    "MAX_ADDRESS",
    "MAX_LOCAL",
    "MAX_NAME",
    "MAX_TEXT",
    "QUOTED",
    "WIDE",
    "Mailbox",
    "dot_atom",
    "phrase",
    "quoted",
    "read_mailbox",
    "refuse",
    "shown",
    "without_controls_and_comments",
    "written_local",
]

# RFC 5321 section 4.5.3.1: octets of a local part, and of an address.
MAX_LOCAL: Final = 64
MAX_ADDRESS: Final = 320
#: Characters of a display name. No RFC limits the length; real names are not longer, but attacks are.
MAX_NAME: Final = 1000
#: Characters of a mailbox in the text, comments included.
MAX_TEXT: Final = MAX_NAME + MAX_ADDRESS + 80

# Control characters (C0, DEL, C1), line separators, and halves of surrogate pairs, which cannot be encoded.
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# RFC 6531 section 3.3 adds all of UTF-8 to atext. Its blanks are left out: outside quotes they are a mistake.
# Invisible characters are searched for separately, because a display name may contain them.
WIDE = (
    ATEXT + "\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e"
    "\u2060-\u2fff\u3001-\ud7ff\ue000-\U0010ffff"
)
QUOTED = r'"(?:[^"\\]|\\.)*+"'

# CFWS, which is allowed between tokens.
CFWS: Final = " " + MARK
_BLANK: Final = re.compile(f"[{BLANKS}]")
# Comments around the @, with the blanks around them.
_AROUND_AT: Final = re.compile(rf"[{CFWS}]*{MARK}[{CFWS}]*@[{CFWS}]*|@[{CFWS}]*{MARK}[{CFWS}]*")
_SPEC: Final = re.compile(rf'({QUOTED}|[^"@]++)@([^@]++)')
_ESCAPED: Final = re.compile(r"\\(.)")
_SPECIAL: Final = re.compile(r'(["\\])')
# A phrase also takes dots (RFC 5322 section 4.1, obs-phrase): "Ann B." without quotes is everywhere.
# And an @: "ann@example.com <ann@example.com>" is what many mail programs write.
_WORD: Final = re.compile(rf'({QUOTED})|([^ \t()<>,;:\\"\[\]]++)')
_NAMED: Final = re.compile(rf'((?:{QUOTED}|[^()<>,;:\\"\[\]]++)*+)<((?:{QUOTED}|[^"<>]++)*+)>')


# Compiled when they are needed first: the sets of all letters of Unicode take longer to compile than all other
# expressions of the package together, and most programs send to plain addresses.


@cache
def dot_atom() -> re.Pattern[str]:
    """Return the expression of a local part that needs no quotes, in any script."""
    return re.compile(rf"[{WIDE}]++(?:\.[{WIDE}]++)*+")


@cache
def _dotted() -> re.Pattern[str]:
    """Return the same with dots anywhere, but not of dots alone."""
    return re.compile(rf"\.*+[{WIDE}][{WIDE}.]*+")


class Mailbox(NamedTuple):
    """A parsed mailbox.

    Attributes:
        local: without quotes and escapes.
        written: the local part as it is sent.
        domain: not checked yet.
        name: the display name, decoded.
    """

    local: str
    written: str
    domain: str
    name: str


def refuse(text: str, reason: str) -> NoReturn:
    """Raise `InvalidAddress`."""
    raise InvalidAddress(f"“{printable(text, 80)}” is not a mail address that can be sent to: {reason}")


def without_controls_and_comments(text: str) -> tuple[str, list[str]]:
    """Refuse control characters; return a text without its comments, and the comments; see `without_comments`.

    Raises:
        InvalidAddress: a control character, or an unbalanced parenthesis.
    """
    if CONTROL.search(text):
        refuse(text, "it holds a control character")
    try:
        return without_comments(text)
    except ValueError as error:
        refuse(text, str(error))


def read_mailbox(bare: str, comments: list[str], *, lenient: bool) -> Mailbox:
    """Parse a mailbox with unusual syntax: comments, names, quotes, literals, other scripts.

    Args:
        bare: one mailbox, with marks in place of its comments.
        comments: the text of the comments.
        lenient: accept dots anywhere in the local part.

    Raises:
        InvalidAddress: `bare` is not one mailbox; the error says why.
    """
    text = bare.replace(MARK, " ").strip(" ")
    if len(text) > MAX_TEXT:
        refuse(text, "it is too long")
    spec, name = bare.strip(CFWS), ""
    if spec.endswith(">"):
        split = _NAMED.fullmatch(spec)
        name_read = None if split is None else phrase(split[1].strip(CFWS), empty=True)
        if split is None or name_read is None:
            refuse(text, "a display name with brackets, commas, colons or semicolons needs quotes")
        name, spec = name_read, split[2].strip(CFWS)
    # Comments are allowed only where RFC 5322 section 3.4.1 has them. A quoted string contains no mark.
    spec = _AROUND_AT.sub("@", spec)
    match = _SPEC.fullmatch(spec)
    if match is None or MARK in spec:
        refuse(text, _reason(spec))
    local, written = match[1], match[1]
    if local.startswith('"'):
        local = _ESCAPED.sub(r"\1", local[1:-1])
        written = written_local(local)
    elif (_dotted() if lenient else dot_atom()).fullmatch(local) is None:
        refuse(text, _reason(spec))
    if not name and bare.endswith(MARK):
        name = shown(comments[-1])
    return Mailbox(local, written, match[2], name)


def phrase(text: str, *, empty: bool = False) -> str | None:
    """Return the words of a phrase without their quotes and encodings, `None` if it is not one.

    Args:
        text: with marks in place of its comments.
        empty: accept a phrase without words, too.
    """
    words: list[str] = []
    plain: list[str] = []
    position = 0
    for match in _WORD.finditer(text):
        if text[position : match.start()].strip(CFWS):
            return None
        if match[1] is None:
            plain.append(match[2])
        else:
            words += (*_decoded(plain), _ESCAPED.sub(r"\1", match[1][1:-1]))
            plain.clear()
        position = match.end()
    if text[position:].strip(CFWS) or not (words or plain or empty):
        return None
    return " ".join([*words, *_decoded(plain)])


def _decoded(words: list[str]) -> list[str]:
    """Decode adjacent words that were not in quotes; in quotes there are no encoded words (RFC 2047 section 5)."""
    return [shown(" ".join(words))] if words else []


def shown(text: str) -> str:
    """Return a name as readers show it, with blanks for control characters and line endings from encoded words."""
    return CONTROL.sub(" ", decoded_words(text)).strip(" ") if "=?" in text else text


def _reason(spec: str) -> str:
    """Say what is wrong with an addr-spec that does not fit the grammar."""
    if not spec:
        return "it is empty"
    if MARK in spec:
        return "a comment is inside a word (RFC 5322 section 3.4.1)"
    hidden = hidden_character(spec)
    if hidden is not None:
        return f"it holds a character that cannot be seen: {named(hidden)}"
    blank = _BLANK.search(spec)
    if blank is not None:
        return f"it holds a blank: {named(blank[0])}"
    if spec.startswith("@"):
        return "source routes are obsolete (RFC 5321 appendix F.2)"
    if "@" not in spec:
        return "it has no @"
    if any(sign in spec for sign in "<> "):
        return "blanks and angle brackets need quotes"
    local = spec.rpartition("@")[0]
    if _dotted().fullmatch(local) and dot_atom().fullmatch(local) is None:
        return (
            "its local part begins or ends with a dot, or has two dots in a row; Recipient(…, lenient=True) and "
            "Address.parse(…, lenient=True) accept it, and it is sent unchanged"
        )
    return "the part before the @ needs quotes, or there is more than one @"


def written_local(local: str) -> str:
    """Return the local part as it is written, in quotes if necessary (RFC 5321 section 4.1.2)."""
    if not local:
        refuse("@", "the part before the @ is empty")
    return local if dot_atom().fullmatch(local) else quoted(local)


def quoted(text: str) -> str:
    """Return a quoted string, RFC 5322 section 3.2.4."""
    return '"' + _SPECIAL.sub(r"\\\1", text) + '"'
