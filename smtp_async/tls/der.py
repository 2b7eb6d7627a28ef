"""The outer structure of DER (X.690): enough to recognise the kind of a file and to find a part in it.

cryptography parses the contents. Values are read on demand, in the order of the bytes, so that hostile bytes cost no
more than their length. Of BER, which some programs write, only the beginning is supported: a value of indefinite length
extends to the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = [
    "BIT_STRING",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "DERError",
    "Element",
    "check_shape",
    "children",
    "elements",
]

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
SEQUENCE: Final = 0x30

#: A length takes up to so many bytes: nothing that is read here has 4 GiB.
_LENGTH_BYTES: Final = 4


class DERError(ValueError):
    """The bytes are not DER."""


class Element(NamedTuple):
    """One value: its tag, its content, and all of it with tag and length."""

    tag: int
    content: bytes
    whole: bytes


def elements(data: bytes) -> Iterator[Element]:
    """Yield the consecutive values in `data`.

    Raises:
        DERError: the values do not fill `data`, or have tags or lengths that are not supported here.
    """
    at = 0
    while at < len(data):
        begin, end = _content(data, at)
        yield Element(data[at], data[begin:end], data[at:end])
        at = end


def children(data: bytes) -> Iterator[Element]:
    """Yield the values in the first value of `data`; the bytes behind it are ignored.

    Raises:
        DERError: as `elements`.
    """
    begin, end = _content(data, 0)
    yield from elements(data[begin:end])


def check_shape(data: bytes, *, max_length: int, max_depth: int, max_values: int) -> None:
    """Refuse what is too large or too deep for a parser, at the cost of looking at each tag and length once.

    What an OCTET STRING holds is looked at, too, if it begins like a SEQUENCE: extensions of certificates are such.

    Args:
        data: one value, with all that is in it.
        max_length: most bytes of a value that holds no others.
        max_depth: how deeply values may be nested.
        max_values: how many there may be.

    Raises:
        DERError: it is too large or too deep, or no DER.
    """
    ends: list[int] = []
    at, left = 0, max_values
    while at < len(data):
        while ends and at >= ends[-1]:
            ends.pop()
        begin, end = _content(data, at)
        if ends and end > ends[-1]:
            raise DERError("a value reaches beyond the one around it")
        left -= 1
        if left < 0:
            raise DERError(f"more than {max_values} values")
        if _holds_values(data, at, begin, end):
            ends.append(end)
            if len(ends) > max_depth:
                raise DERError(f"values nested more than {max_depth} deep")
            at = begin
        elif end - begin > max_length:
            raise DERError(f"a value of {end - begin} bytes, of {max_length} at most")
        else:
            at = end


def _holds_values(data: bytes, at: int, begin: int, end: int) -> bool:
    if data[at] & 0x20:
        return begin < end
    return data[at] == OCTET_STRING and data[begin : begin + 1] == b"\x30" and _content(data, begin)[1] == end


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Return the begin and the end of the content of the value at `at`."""
    if len(data) < at + 2 or data[at] & 0x1F == 0x1F:
        raise DERError("no tag and length, or a tag of several bytes")
    begin, length = at + 2, data[at + 1]
    if length == 0x80:
        return begin, len(data)
    if length & 0x80:
        begin += length & 0x7F
        if begin - at - 2 > _LENGTH_BYTES:
            raise DERError("a length of more than 4 GiB")
        length = int.from_bytes(data[at + 2 : begin])
    if begin + length > len(data):
        raise DERError("the end is missing")
    return begin, begin + length
