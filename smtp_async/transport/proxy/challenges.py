"""Parses Proxy-Authenticate: the ways in which a proxy lets a client log in (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["Challenge", "parse_challenges"]

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PARAMETER: Final = re.compile(
    rf'({_TOKEN})[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|({_TOKEN}))[ \t]*+(?=,|\Z)', re.DOTALL
)
_SCHEME: Final = re.compile(rf"({_TOKEN})[ \t]*+")
_TOKEN68: Final = re.compile(r"([A-Za-z0-9._~+/-]++=*+)[ \t]*+(?=,|\Z)")
_EMPTY: Final = re.compile(r"[ \t,]*+")
_QUOTED: Final = re.compile(r"\\(.)", re.DOTALL)


class Challenge(NamedTuple):
    """One way to log in.

    Attributes:
        scheme: in lower case, for example `"digest"`.
        token: what stands behind the scheme as one word, for NTLM the message in base64.
        parameters: names in lower case, and values without quotes.
    """

    scheme: str
    token: str
    parameters: dict[str, str]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all fields, in order; what cannot be read ends the field it stands in."""
    return [challenge for value in values for challenge in _challenges(value)]


def _challenges(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = _after(_EMPTY, value, 0)
    while at < len(value):
        parameter = _PARAMETER.match(value, at) if found else None
        if parameter is not None:
            name, quoted, token = parameter.groups()
            text = token if quoted is None else _QUOTED.sub(r"\1", quoted)
            found[-1].parameters.setdefault(name.lower(), text)
            at = parameter.end()
        else:
            scheme = _SCHEME.match(value, at)
            if scheme is None:
                break
            at = scheme.end()
            word = None if _PARAMETER.match(value, at) else _TOKEN68.match(value, at)
            found.append(Challenge(scheme[1].lower(), word[1] if word else "", {}))
            at = word.end() if word else at
        at = _after(_EMPTY, value, at)
    return found


def _after(pattern: re.Pattern[str], value: str, at: int) -> int:
    found = pattern.match(value, at)
    return found.end() if found else at
