"""Charsets of texts: Python's codecs by name, and code pages by number.

A text in a charset that contains ASCII unchanged can be sent as 7bit, 8bit or quoted-printable. In every other charset
(UTF-16, UTF-32, EBCDIC, escaping charsets in which an ASCII octet can mean another character) it is sent as base64,
because a line ending in it need not be the octets CR LF (RFC 2045 section 6.8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ..errors import TextNotEncodable
from ..model.encoded_words import charset_name
from ..model.octets import SLICE
from ..model.reply import printable

__all__ = ["PAGES", "UTF_8", "Charset", "charset_of", "crlf_text", "encoded", "octets_of"]

#: Codecs of code pages; those of other pages are found by their number, see `charset_of`.
PAGES: Final[dict[int, str]] = {
    37: "cp037",
    **{
        number: f"cp{number}"
        for number in (
            *(437, 500, 720, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 864, 865, 866, 869, 874),
            *(875, 932, 949, 950, 1026, 1140, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258),
        )
    },
    708: "iso8859_6",
    936: "gbk",
    1200: "utf_16_le",
    1201: "utf_16_be",
    1361: "johab",
    10000: "mac_roman",
    10004: "mac_arabic",
    10006: "mac_greek",
    10007: "mac_cyrillic",
    10010: "mac_romanian",
    10017: "mac_cyrillic",
    10029: "mac_latin2",
    10079: "mac_iceland",
    10081: "mac_turkish",
    10082: "mac_croatian",
    12000: "utf_32_le",
    12001: "utf_32_be",
    20105: "ascii",
    20127: "ascii",
    20273: "cp273",
    20424: "cp424",
    20866: "koi8_r",
    20932: "euc_jp",
    20936: "gb2312",
    21866: "koi8_u",
    **{28590 + part: f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    38598: "iso8859_8",
    50220: "iso2022_jp",
    50221: "iso2022_jp_ext",
    50222: "iso2022_jp_ext",
    50225: "iso2022_kr",
    51932: "euc_jp",
    51936: "gb2312",
    51949: "euc_kr",
    52936: "hz",
    54936: "gb18030",
    65000: "utf_7",
    65001: "utf_8",
}
#: This page has no half-width katakana; programs that write it use the full-width characters.
_WIDENING: Final = 50220
_HALF_WIDTH: Final = re.compile("[\uff61-\uff9f]+")

# Names in the IANA register that are not the codec's own name with hyphens.
_LABELS: Final = (
    (re.compile(r"ascii"), "us-ascii"),
    (re.compile(r"cp(125\d)"), r"windows-\1"),
    (re.compile(r"iso8859-(\d+)"), r"iso-8859-\1"),
    (re.compile(r"iso2022_(\w+)"), r"iso-2022-\1"),
    (re.compile(r"hz"), "hz-gb-2312"),
    (re.compile(r"utf-(16|32)-(le|be)"), r"utf-\1\2"),
    (re.compile(r"mac-roman"), "macintosh"),
)
_ASCII: Final = "".join(map(chr, range(32, 127))) + "\t\r\n"


class Charset(NamedTuple):
    """A way to turn text into octets.

    Attributes:
        label: as `charset=` names it.
        codec: Python's name.
        plain: ASCII characters are encoded as their ASCII octets, so a line ends with the octets CR LF.
        widen: half-width katakana are replaced by full-width characters first.
    """

    label: str
    codec: str
    plain: bool = True
    widen: bool = False


UTF_8: Final = Charset("utf-8", "utf-8")


@lru_cache(maxsize=128)
def charset_of(given: str | int) -> Charset:
    """Find a charset by a name that mail uses or Python knows, or by the number of a code page.

    A page that is not in the table is accepted if a codec with its number is registered (`cp870`).

    Raises:
        TextNotEncodable: there is no such charset.
    """
    name = charset_name(given) if isinstance(given, str) else PAGES.get(given, f"cp{given}")
    try:
        ascii_octets = _ASCII.encode(name, "replace")  # fails for a codec that is not a charset
        import codecs

        codec = codecs.lookup(name).name
    except (LookupError, ValueError, TypeError) as error:
        raise TextNotEncodable(f"“{printable(str(given), 80)}” is not a known charset") from error
    label = codec
    for pattern, replacement in _LABELS:
        if pattern.fullmatch(codec):
            label = pattern.sub(replacement, codec)
    return Charset(label.replace("_", "-"), codec, ascii_octets == _ASCII.encode(), given == _WIDENING)


def encoded(text: str, charset: Charset, what: str) -> bytes:
    """Return `text` in a charset.

    Args:
        what: the text's name, for the error.

    Raises:
        TextNotEncodable: the charset lacks one of the characters.
    """
    if charset.widen:
        import unicodedata  # imported here because only one code page needs the module

        text = _HALF_WIDTH.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    try:
        return octets_of(text, charset.codec)
    except UnicodeError as error:
        raise TextNotEncodable(f"{what} cannot be expressed in {charset.label}: {error}") from error


def octets_of(text: str, codec: str = "utf-8", errors: str = "strict") -> bytes:
    """Return `text.encode(codec, errors)`, a long text in slices (see `model/octets.py`).

    Raises:
        UnicodeEncodeError: the codec has no octets for one of the characters.
    """
    if len(text) <= SLICE:
        return text.encode(codec, errors)
    import codecs

    incremental: Any = codecs.lookup(codec).incrementalencoder
    if incremental is None:  # a codec that an application registered
        return text.encode(codec, errors)
    encoder = incremental(errors)
    pieces: list[bytes] = []
    for start in range(0, len(text), SLICE):
        try:
            pieces.append(encoder.encode(text[start : start + SLICE], start + SLICE >= len(text)))
        except UnicodeEncodeError as error:
            raise UnicodeEncodeError(
                error.encoding, text, start + error.start, start + error.end, error.reason
            ) from error
    return b"".join(pieces)


def crlf_text(text: str) -> str:
    """Return a text with CRLF at the end of each line, as `octets.crlf` does."""
    if len(text) > SLICE:
        return "".join([crlf_text(piece) for piece in _slices(text)])
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def _slices(text: str) -> Iterator[str]:
    """Yield a text in slices; CR and LF of one line end stay together."""
    start = 0
    while len(text) - start > SLICE:
        end = start + SLICE
        if text[end - 1] == "\r":
            end -= 1
        yield text[start:end]
        start = end
    yield text[start:]
