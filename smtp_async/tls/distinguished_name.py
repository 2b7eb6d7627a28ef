"""Distinguished names as people write them, compared with the subject of a certificate.

    CN=Ann, OU=Mail, O="Example, Inc.", L=Town, S=Land, C=DE, E=ann@example.com

Fields may be in any order, their names and values in any case. A value with a comma is in quotes, or the comma is
escaped as in RFC 4514.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from .certificate import Certificate

__all__ = ["is_part_of_subject", "is_subject"]

#: Sorted pairs of field and value, folded for comparison.
_Fields: TypeAlias = list[tuple[str, str]]

_NAMES: Final = {
    "2.5.4.3": "CN",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.7": "L",
    "2.5.4.8": "S",
    "2.5.4.6": "C",
    "1.2.840.113549.1.9.1": "E",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "2.5.4.9": "STREET",
    "2.5.4.5": "SERIALNUMBER",
    "2.5.4.4": "SN",
    "2.5.4.42": "GN",
    "2.5.4.12": "T",
}
_ALIASES: Final = {
    "ST": "S",
    "EMAIL": "E",
    "EMAILADDRESS": "E",
    "SURNAME": "SN",
    "GIVENNAME": "GN",
    "TITLE": "T",
    "USERID": "UID",
}
#: The name of a field and the equals sign behind it.
_FIELD: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)\s*=")
#: A piece of a value: a quoted text, an escaped octet or character, or a plain character.
_PIECE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|((?:\\[0-9A-Fa-f]{2})+)|\\(.)|(.)', re.DOTALL)


def is_subject(wanted: str, certificate: Certificate) -> bool:
    """Tell whether `wanted` has exactly the fields of the certificate's subject, in any order and case."""
    fields = _parsed(wanted)
    return fields is not None and fields == sorted(_fields_of(certificate))


def is_part_of_subject(wanted: str, certificate: Certificate) -> bool:
    """Tell whether `wanted` is part of a usual written form of the certificate's subject, in any case."""
    looked_for = _folded(wanted)
    return any(looked_for in _folded(text) for text in _written_forms(certificate))


def _fields_of(certificate: Certificate) -> Iterator[tuple[str, str]]:
    for oid, value in certificate.subject_rdn:
        yield _NAMES.get(oid, oid), _folded(value)


def _written_forms(certificate: Certificate) -> Iterator[str]:
    yield certificate.x509.subject.rfc4514_string()
    fields = [f"{_NAMES.get(oid, oid)}={_quoted(value)}" for oid, value in certificate.subject_rdn]
    # Most programs write the common name first, but in most certificates it is last.
    yield ", ".join(fields)
    yield ", ".join(reversed(fields))


def _quoted(value: str) -> str:
    return f'"{value}"' if "," in value else value


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _parsed(text: str) -> _Fields | None:
    """Return the fields of a written name, sorted; None if the text is not a distinguished name."""
    fields, at = [], 0
    while at < len(text):
        named = _FIELD.match(text, at)
        if named is None:
            return None
        value, at = _value(text, named.end())
        name = named[1].upper()
        fields.append((_NAMES.get(name, _ALIASES.get(name, name)), _folded(value)))
    return sorted(fields)


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins at `at`, and the position of the next field."""
    pieces: list[str] = []
    while at < len(text) and not _ends_field(text, at):
        piece = _PIECE.match(text, at)
        assert piece is not None, "the last alternative is any character"
        pieces.append(_unescaped(piece))
        at = piece.end()
    return "".join(pieces), at + 1


def _ends_field(text: str, at: int) -> bool:
    # A plus joins fields of one level (RFC 4514 section 2.2), but also occurs in values.
    return text[at] == "," or (text[at] == "+" and _FIELD.match(text, at + 1) is not None)


def _unescaped(piece: re.Match[str]) -> str:
    quoted, octets, escaped, plain = piece.groups()
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
    if octets is not None:
        return bytes.fromhex(octets.replace("\\", "")).decode("utf-8", "replace")
    return escaped or plain or ""
