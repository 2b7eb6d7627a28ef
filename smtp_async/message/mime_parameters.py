"""Parser of `value; name=value; …`, the syntax of Content-Type and Content-Disposition.

It follows RFC 2045 section 5.1 and accepts what occurs in mail: blanks and comments anywhere, a semicolon at the end,
values with blanks but without quotes. Values that RFC 2231 splits or encodes are joined and decoded. Every expression
is linear.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..model.encoded_words import codec_of, decoded_by

__all__ = ["Parametrised", "read_parameters"]

_VALUE: Final = re.compile(r"[ ]*([^;\s()\"]*)")
_NAME: Final = re.compile(r"[; ]*([^=; ()\"]+)[ ]*(=?)[ ]*")
# The second group is not a quote if the closing quote is missing.
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)("|\\?\Z)', re.S)
_ESCAPED: Final = re.compile(r"\\(.)", re.S)
_SECTION: Final = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_OPENING: Final = re.compile(r'[("]')
_COMMENT_SIGN: Final = re.compile(r"\\.|[()]", re.S)
#: Parameters of one field; RFC 2231 splits a long value into several.
MOST_PARAMETERS: Final = 1000


class Parametrised(NamedTuple):
    """A value and its parameters.

    Attributes:
        value: in lower case, for example `text/plain`; empty if there is none.
        parameters: (name in lower case, decoded value) in their order; a name may come twice.
        certain: everything was parsed, so that rewriting the value loses nothing.
    """

    value: str
    parameters: tuple[tuple[str, str], ...]
    certain: bool

    def get(self, name: str) -> str | None:
        """Return the first parameter of a name."""
        for one, value in self.parameters:
            if one == name:
                return value
        return None


def read_parameters(text: str) -> Parametrised:
    """Read the value of a field with parameters.

    Args:
        text: unfolded and decoded.
    """
    bare, certain = _without_comments(text)
    match = _VALUE.match(bare)
    value = match[1].lower() if match else ""
    position = match.end() if match else 0
    rest = bare[position:].lstrip(" ")
    certain = certain and (not rest or rest.startswith(";"))
    pairs: list[tuple[str, str]] = []
    position = bare.find(";", position)
    while 0 <= position < len(bare):
        found = _NAME.match(bare, position)
        if found is None or not found[2] or len(pairs) == MOST_PARAMETERS:
            certain = certain and not bare[position:].strip("; ")
            break
        quoted = _QUOTED.match(bare, found.end())
        end = bare.find(";", quoted.end() if quoted else found.end())
        end = len(bare) if end < 0 else end
        if quoted:
            certain = certain and quoted[2] == '"' and not bare[quoted.end() : end].strip(" ")
            pairs.append((found[1].lower(), _ESCAPED.sub(r"\1", quoted[1])))
        else:
            pairs.append((found[1].lower(), bare[found.end() : end].strip(" ")))
        position = end
    joined, whole = _joined(pairs)
    whole = whole and len({name for name, _ in joined}) == len(joined)
    return Parametrised(value, tuple(joined), certain and whole)


def _without_comments(text: str) -> tuple[str, bool]:
    """Return the text without its comments, and whether each comment is closed."""
    if "(" not in text:
        return text, True
    kept: list[str] = []
    position = depth = 0
    while position < len(text):
        if depth == 0:
            opening = _OPENING.search(text, position)
            if opening is None:
                break
            quoted = _QUOTED.match(text, opening.start())
            if quoted:
                kept.append(text[position : quoted.end()])
                position = quoted.end()
                continue
            kept += (text[position : opening.start()], " ")
            position, depth = opening.end(), 1
        sign = _COMMENT_SIGN.search(text, position)
        if sign is None:
            return "".join(kept), False
        depth += {"(": 1, ")": -1}.get(sign[0], 0)
        position = sign.end()
    return "".join([*kept, text[position:]]), depth == 0


def _joined(pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], bool]:
    """Join and decode the values that RFC 2231 split or encoded, each in place of its first piece."""
    if not any(["*" in name for name, _ in pairs]):
        return pairs, True
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    order: list[tuple[str, str | None]] = []
    certain = True
    for name, value in pairs:
        match = _SECTION.fullmatch(name)
        if match is None or "*" not in name:
            certain = certain and match is not None
            order.append((name, value))
            continue
        known = sections.setdefault(match[1], {})
        if not known:
            order.append((match[1], None))
        number = int(match[2] or 0)
        certain = certain and number not in known
        known.setdefault(number, (value, bool(match[3])))
    extended = {name: _assembled(found) for name, found in sections.items()}
    certain = certain and all([whole for _, whole in extended.values()])
    joined = []
    for name, plain in order:
        if plain is None:
            joined.append((name, extended[name][0]))
        elif name not in extended:  # otherwise it is the value for readers without RFC 2231
            joined.append((name, plain))
    return joined, certain


def _assembled(sections: dict[int, tuple[str, bool]]) -> tuple[str, bool]:
    """Return a value from its numbered sections, and whether all sections were parsed."""
    numbers = sorted(sections)
    certain = numbers == list(range(len(numbers)))
    codec: str | None = "utf-8"
    first, encoded = sections[numbers[0]]
    if encoded and first.count("'") >= 2:
        label, _, first = first.split("'", 2)
        codec = codec_of(label) if label else "utf-8"
        certain = certain and codec is not None
    octets = b""
    for number in numbers:
        text, is_encoded = sections[number]
        data = (first if number == numbers[0] else text).encode("utf-8", "surrogatepass")
        octets += _PERCENT.sub(lambda match: bytes((int(match[1], 16),)), data) if is_encoded else data
    value = decoded_by(codec or "utf-8", octets, "replace")
    return value, certain and "\ufffd" not in value
