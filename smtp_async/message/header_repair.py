"""Header fields of other software, rewritten where they could not be sent; valid fields are not changed.

A control character among tokens or addresses is refused, because a blank in its place would cut one in two; in a text,
a parameter or the name of a mailbox it is replaced by a blank.

A field is fit if it is ASCII, no line is blank or longer than 998 octets, and no encoded word or parameter hides a line
ending. Of any other field only the wrong part is rewritten: display names of mailboxes, parameters (in RFC 2231), text
(in encoded words). Addresses, message ids, URLs and signatures never become encoded words (RFC 2047 section 5): such
fields are folded at their blanks.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from ..errors import ExtensionMissing, InvalidAddress, InvalidHeader
from ..model.encoded_words import decoded_words, holds_unknown_words, is_encoded_word
from ..model.octets import MAX_LINE
from ..model.reply import printable
from .header_parser import MAILBOXES, Field, mailboxes_in
from .headers import (
    USUAL,
    WIDTH,
    address_field,
    check_lines,
    encoded_text,
    is_structured,
    items_field,
    parameter_field,
    structured_field,
    text_field,
)
from .mime_parameters import read_parameters

__all__ = ["checked_tokens", "cleaned", "encoded_structure", "fit", "rewritten"]

PARAMETRISED: Final = frozenset(("content-type", "content-disposition"))
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]+")
_BLANK_LINE: Final = re.compile(rb"\n(?:[ \t]*[\r\n]|[ \t]+\Z)")
_HIDING: Final = re.compile(r"%(?:0[0-9A-Fa-f]|1[0-9A-Fa-f]|7[Ff])")
_WORD: Final = re.compile(r"=\?[^?\s]+\?[^?\s]\?[^?\s]*\?=")
_URL: Final = re.compile(r"<[^<>]*>")
_SAFE: Final = "<>!#$%&'()*+,/:;=?@[]~"
# Quoted strings and angle brackets, blanks, words, and the separators of words. An alternative that has matched its
# first character never fails later, so no character is scanned twice.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|<[^<>]*+(?:>|(?=<)|\Z)|[ ]+|[^ "<>(),;:]+|.')
_NO_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.?)*+|<[^<>]*+')
_ESCAPED: Final = re.compile(r"\\(.)")
# A quoted string, with the @ that makes it a local part; and the control characters in it that are not folds.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.?)*+(?:"@?|\Z)', re.S)
_QUOTED_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+")
# Words of a text, which are separated by blanks only.
_TEXT_TOKEN: Final = re.compile(r"[ ]+|[^ ]+")


def cleaned(text: str) -> str:
    """Return decoded text with blanks in place of control characters, line endings included."""
    return _CONTROL.sub(" ", text)


def checked_tokens(label: str, text: str) -> str:
    """Return a value of tokens or addresses if it contains no control character.

    Raises:
        InvalidHeader: the value contains a control character.
    """
    found = _CONTROL.search(text)
    if found:
        raise InvalidHeader(f"{label} holds {found[0]!r} where only tokens or addresses are allowed")
    return text


def fit(field: Field) -> bool:
    """Tell whether a field may be sent unchanged."""
    octets = field.octets
    if not octets.isascii() or b"\0" in octets or not field.name:
        return False
    if len(octets) > MAX_LINE + 2 and max(map(len, octets.split(b"\r\n"))) > MAX_LINE:
        return False
    if b"\n" in octets[:-2] and _BLANK_LINE.search(octets[:-2]) is not None:
        return False
    return not _hides(field)


def _hides(field: Field) -> bool:
    """Tell whether decoding would yield a control character, which some readers treat as the end of the field."""
    octets = field.octets
    if b"=?" in octets and _CONTROL.search(decoded_words(field.text)):
        return True
    if b"%" in octets and field.name in PARAMETRISED and _HIDING.search(octets.decode("ascii")):
        return any(
            [_CONTROL.search(value) is not None for _, value in read_parameters(field.text).parameters]
        )
    return False


def rewritten(field: Field, *, utf8: bool = False) -> Field:
    """Return a field with the same meaning that may be sent.

    Args:
        field: one that is not `fit`.
        utf8: SMTPUTF8 may be used, so an address need not be ASCII.

    Raises:
        InvalidHeader: the field cannot be folded into lines of 998 octets, or is a line that is not a field.
        ExtensionMissing: an address in the field needs SMTPUTF8 and `utf8` is false.
    """
    if not field.name or not field.label.isascii() or " " in field.label:
        raise InvalidHeader(f"a line in the header is not a field: {field.octets[:60]!r}")
    written = _written(field, utf8=utf8)
    if not written.isascii() and not utf8:
        raise ExtensionMissing(f"{field.label} holds an address that needs SMTPUTF8 (RFC 6531)")
    octets = written.encode() + b"\r\n"
    check_lines(field.label, written)
    return Field(field.name, octets)


def _written(field: Field, *, utf8: bool) -> str:
    name, label = field.name, field.label
    if name in MAILBOXES:
        return _mailboxes(field, utf8=utf8)
    text = _shown(field.text)
    if name in PARAMETRISED:
        return _parameters(label, cleaned(text))
    if is_structured(name):
        text = checked_tokens(label, text)
        return structured_field(label, text) if text.isascii() else encoded_structure(label, text)
    if holds_unknown_words(text):
        return _by_words(label, cleaned(text), _TEXT_TOKEN)
    return text_field(label, cleaned(decoded_words(text)))


def _shown(text: str) -> str:
    """Return a value in which encoded words with control characters are encoded again, with blanks in their place."""
    return _WORD.sub(lambda match: _without_controls(match[0]), text) if "=?" in text else text


def _without_controls(word: str) -> str:
    decoded = decoded_words(word)
    return " ".join(encoded_text(cleaned(decoded), WIDTH)) if _CONTROL.search(decoded) else word


def _mailboxes(field: Field, *, utf8: bool) -> str:
    """Rewrite a list of mailboxes; a list that cannot be parsed, or that contains a group, word by word."""
    field = field._replace(octets=_QUOTED.sub(_without_controls_in_name, field.octets))
    text = checked_tokens(field.label, _shown(field.text))
    try:
        found = mailboxes_in(field)
    except InvalidAddress:
        found = []
    if not found or ":" in text or ";" in text:
        return _by_words(field.label, text)
    return address_field(field.label, found, utf8=utf8)


def _without_controls_in_name(match: re.Match[bytes]) -> bytes:
    return _QUOTED_CONTROL.sub(b" ", match[0]) if match[0].endswith(b'"') else match[0]


def _parameters(label: str, text: str) -> str:
    found = read_parameters(text)
    if not found.certain or not found.value.isascii():
        raise InvalidHeader(
            f"{label} is not a value with parameters (RFC 2045 section 5.1), so it cannot be written in ASCII: "
            f"“{printable(text, 80)}”"
        )
    return parameter_field(
        label, found.value, [(name, cleaned(decoded_words(value))) for name, value in found.parameters]
    )


def encoded_structure(label: str, text: str) -> str:
    """Write a field of tokens that are not all ASCII.

    In a URL of a List field, characters that are not ASCII become percent-encoded UTF-8 (RFC 3987 section 3.1). Any
    other word that is not ASCII was not a valid token, so an encoded word may replace it.

    Raises:
        InvalidHeader: a quote or a bracket is not closed, so that the separators cannot be told from text.
    """
    if label.lower().startswith(("list-", "archived-at")):
        text = _URL.sub(lambda match: urllib.parse.quote(match[0], safe=_SAFE), text)
    return _by_words(label, text)


def _by_words(label: str, text: str, divided: re.Pattern[str] = _TOKEN) -> str:
    """Write a field with each run of words that are not ASCII in encoded words, and the rest unchanged."""
    items: list[str] = [""]
    run: list[str] = []
    for token in [*divided.findall(text), ""]:
        if divided is _TOKEN and _NO_TOKEN.fullmatch(token):
            raise InvalidHeader(f"a quote or bracket in {label} is not closed: “{printable(text, 80)}”")
        if _is_encodable(token) or (run and token and not token.strip(" ")):
            run.append(token)
            continue
        if run:
            _add_run(items, run)
            run = []
        if token.strip(" "):
            items[-1] += token
        elif items[-1]:
            items.append("")
    return items_field(label, [item for item in items if item] or [""], USUAL)


def _is_encodable(token: str) -> bool:
    """Tell whether a word is not ASCII and not an address."""
    return not token.isascii() and not token.startswith("<") and (token[0] == '"' or "@" not in token)


def _add_run(items: list[str], run: list[str]) -> None:
    """Add a run of words as encoded words, with blanks around them."""
    text = "".join([_unquoted(word) for word in run]).rstrip(" ")
    if items[-1] and not items[-1].endswith("("):
        items.append("")
    # A blank between two encoded words is not shown.
    if len(items) > 1 and is_encoded_word(items[-2]):
        text = " " + text
    words = encoded_text(text, WIDTH)
    items[-1] += words[0]
    items += [*words[1:], ""]


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word.startswith('"') else word
