"""Encoded words, RFC 2047: text of any charset in a header that is ASCII.

Strategy. One pass over the text finds encoded words by their form; the octets of adjacent words in one charset are
joined before they are decoded, because a character may be split between them. A word in an unknown charset, or with
octets that are not valid in its encoding, stays undecoded, with the blanks around it: another reader may know more.

Only decoding is done here; `message/headers` writes encoded words. Time is linear in the length of the text.
"""

from __future__ import annotations

import binascii
import codecs
import re
from functools import cache, lru_cache
from typing import Final

__all__ = [
    "charset_name",
    "codec_of",
    "decoded_by",
    "decoded_words",
    "holds_unknown_words",
    "is_encoded_word",
]

# RFC 2231 section 5 adds a language behind the charset.
_WORD: Final = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([QqBb])\?([^?\s]*)\?=")
_HEXADECIMAL: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_BLANKS: Final = " \t\r\n"

# The form of registered labels; the length limits the size of cached unknown labels.
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+\-]{0,39}")

#: Labels in real mail that Python does not know, in lower case with hyphens, and the name of its codec.
_ALIASES: Final = {
    # RFC 1556: the direction of writing, implicit or explicit; the octets have the same meaning.
    **{f"iso-8859-{part}-{way}": f"iso8859-{part}" for part in (6, 8) for way in "ie"},
    "logical": "iso8859-8",
    # Labels that mail programs write without a hyphen or with one too many.
    "koi8r": "koi8-r",
    "koi8u": "koi8-u",
    "latin-1": "iso8859-1",
    "latin-9": "iso8859-15",
    # IANA's names of charsets for which Python has another name.
    "gb-2312-80": "gb2312",
    "csgb2312": "gb2312",
    "windows-31j": "cp932",
    "windows-949": "cp949",
    # Microsoft's name of ISO-2022-JP with half-width katakana.
    "iso-2022-jp-ms": "iso2022_jp_ext",
    "cp50220": "iso2022_jp_ext",
    "cp50221": "iso2022_jp_ext",
    # Apple's charsets, without the name of the firm.
    "mac-ce": "mac_latin2",
    "mac-icelandic": "mac_iceland",
    # Former names of UTF-8 and UTF-7 (RFC 1642, RFC 2044).
    "unicode-1-1-utf-7": "utf-7",
    "unicode-1-1-utf-8": "utf-8",
    "unicode-2-0-utf-7": "utf-7",
    "unicode-2-0-utf-8": "utf-8",
}
#: Halves of surrogate pairs, which are not characters.
_LONE: Final = re.compile("[\ud800-\udfff]")
# A code page under the names that vendors give it: cp-850, win-1251, ibm-00858.
_PAGE: Final = re.compile(r"(?:cp|win|windows|ibm|dos|ms)-?0*([1-9][0-9]{2,4})")

#: The larger charset that replaces a smaller one, because octets that the smaller one lacks are common.
_MEANT: Final = {
    # Windows has quotes and dashes in place of the control characters of ISO 8859, which do not occur in text.
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "iso8859-11": "cp874",
    # GBK extends GB 2312, and GB 18030 extends GBK.
    "gb2312": "gb18030",
    "gbk": "gb18030",
    # Outlook's names for its own code pages 949, 932 and 950.
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "cp950",
    # Half-width katakana are common, and missing in the smaller charset.
    "iso2022_jp": "iso2022_jp_ext",
    # Octets beyond ASCII under this label are most likely UTF-8.
    "ascii": "utf-8",
}

# Python has these codecs of text, but they are slow to decode, warn, or depend on the machine.
_NO_CHARSETS: Final = frozenset(
    ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "unicode_escape")
    + ("raw_unicode_escape", "mbcs", "oem")
)


def decoded_words(text: str) -> str:
    """Decode the encoded words in a text, RFC 2047 section 6; words in an unknown charset stay undecoded.

    Args:
        text: unfolded. The result may contain control characters, line endings included, and U+FFFD for octets that
            the charset does not have.
    """
    return _decoded(text, "replace") if "=?" in text else text


def _decoded(text: str, errors: str) -> str:
    found: list[str] = []
    position, octets, codec = 0, bytearray(), ""
    for match in _WORD.finditer(text):
        meant = codec_of(match[1])
        if meant is None:
            continue
        more = _octets(match[2], match[3])
        if more is None:
            continue
        meant = _MEANT.get(meant, meant)
        between = text[position : match.start()]
        neighbours = bool(codec) and not between.strip(_BLANKS)
        if not neighbours or meant != codec:
            found += (decoded_by(codec or "ascii", octets, errors), "" if neighbours else between)
            octets, codec = bytearray(), meant
        octets += more
        position = match.end()
    return "".join([*found, decoded_by(codec or "ascii", octets, errors), text[position:]])


def decoded_by(codec: str, octets: bytes | bytearray, errors: str = "strict") -> str:
    """Decode octets with one of Python's codecs; halves of surrogate pairs, which UTF-7 can encode, are errors, too.

    Raises:
        ValueError: the octets are not valid in this codec, and `errors` is strict.
    """
    text = octets.decode(codec, errors)
    if codec == "utf-7" and _LONE.search(text):
        if errors == "strict":
            raise ValueError("half of a surrogate pair")
        return _LONE.sub("\ufffd", text)
    return text


def is_encoded_word(text: str) -> bool:
    """Tell whether a text is one encoded word from its first to its last character, in any charset."""
    return _WORD.fullmatch(text) is not None


def holds_unknown_words(text: str) -> bool:
    """Tell whether a text contains an encoded word that `decoded_words` does not decode, or only in part."""
    if "=?" not in text:
        return False
    if any(
        [codec_of(match[1]) is None or _octets(match[2], match[3]) is None for match in _WORD.finditer(text)]
    ):
        return True
    try:
        _decoded(text, "strict")
    except ValueError:
        return True
    return False


def charset_name(label: str) -> str:
    """Return Python's name of a charset; a label without an alias here is returned unchanged."""
    plain = label.lower().replace("_", "-")
    plain = plain.removeprefix(
        "x-"
    )  # a private label of a charset that was registered later: x-gbk, x-sjis, x-mac-roman
    known = _ALIASES.get(plain)
    if known is not None:
        return known
    page = _PAGE.fullmatch(plain)
    if page is not None:
        return f"cp{page[1]}"
    return plain if label[:2] in ("x-", "X-") else label


@lru_cache(maxsize=256)
def codec_of(label: str) -> str | None:
    """Return Python's name of the codec for a charset label, None if there is no codec."""
    if _LABEL.fullmatch(label) is None:
        return None
    name = charset_name(label)
    if _normal(name) not in _known_codecs():
        return None
    try:
        codec = codecs.lookup(name).name
        "a".encode(codec)  # fails for a codec that transforms octets, which is not a charset
    except (LookupError, ValueError, TypeError):
        return None
    return None if codec in _NO_CHARSETS else codec


@cache
def _known_codecs() -> frozenset[str]:
    """Return all names of Python's codecs; other names must not be looked up, because Python caches them for good."""
    import encodings
    import pkgutil
    from encodings.aliases import aliases

    modules = [module.name for module in pkgutil.iter_modules(encodings.__path__)]
    return frozenset([*aliases, *aliases.values(), *modules])


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _octets(encoding: str, text: str) -> bytes | None:
    try:
        if encoding in "Qq":
            data = text.replace("_", " ").encode("ascii")
            return _HEXADECIMAL.sub(lambda match: bytes((int(match[1], 16),)), data)
        return binascii.a2b_base64(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return None
