"""What a server offers: the EHLO reply as a value, RFC 5321 section 4.1.1.1.

The keyword is the first word of a line, compared as a whole and without regard to case: `NOSTARTTLS` and `X AUTH PLAIN`
do not offer STARTTLS or AUTH.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from ..model.reply import Reply

__all__ = ["Extensions", "FutureRelease"]

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# RFC 9422 section 3: limit-name=limit-value, all known values are numbers of up to six digits, never zero.
_LIMIT = re.compile(r"([A-Z0-9_-]+)=([1-9][0-9]{0,5})")
# RFC 3339 section 5.6. Python's parser takes more (week dates, no zone), which is not allowed here.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class FutureRelease(NamedTuple):
    """How long a server holds messages before it releases them, RFC 4865 section 3.

    Attributes:
        interval: the most seconds; None if the server gave no valid number.
        until: the latest moment, in UTC; None if the server gave no valid one.
    """

    interval: int | None = None
    until: datetime | None = None


class Extensions:
    """The service extensions of one server; immutable, and equal to the same offer of another server.

    `"DSN" in extensions` and `extensions["LIMITS"]` work for any keyword; those the library uses are attributes.

    Attributes:
        domain: the name the server gave itself.
        pipelining: RFC 2920. chunking, binarymime: RFC 3030. eightbitmime: RFC 6152. smtputf8: RFC 6531.
        dsn: RFC 3461. starttls: RFC 3207. enhancedstatuscodes: RFC 2034. requiretls: RFC 8689.
        size: RFC 1870, the server's limit in octets; 0 if it names none, None if it does not offer SIZE.
        auth: RFC 4954, the mechanisms in the server's order, in capitals.
        deliverby: RFC 2852, the shortest time in seconds within which it promises delivery; 0 if it names none, None if
            it does not offer DELIVERBY.
        futurerelease: RFC 4865, how long it holds messages; None if it does not offer FUTURERELEASE.
        mt_priority: RFC 6710, the name of its priority profile in capitals; empty if it names none, None if it does not
            offer MT-PRIORITY.
        limits: RFC 9422, for example `{"RCPTMAX": 100}`.
    """

    __slots__ = (
        "_keywords",
        "auth",
        "binarymime",
        "chunking",
        "deliverby",
        "domain",
        "dsn",
        "eightbitmime",
        "enhancedstatuscodes",
        "futurerelease",
        "limits",
        "mt_priority",
        "pipelining",
        "requiretls",
        "size",
        "smtputf8",
        "starttls",
    )

    def __init__(self, keywords: Mapping[str, str] = MappingProxyType({}), *, domain: str = "") -> None:
        offered = {keyword.upper(): value for keyword, value in keywords.items()}
        self._keywords = MappingProxyType(offered)
        self.domain = domain
        self.pipelining = "PIPELINING" in offered
        self.chunking = "CHUNKING" in offered
        # RFC 3030 section 3: BINARYMIME cannot be used without CHUNKING.
        self.binarymime = "BINARYMIME" in offered and self.chunking
        self.eightbitmime = "8BITMIME" in offered
        self.smtputf8 = "SMTPUTF8" in offered
        self.dsn = "DSN" in offered
        self.starttls = "STARTTLS" in offered
        self.enhancedstatuscodes = "ENHANCEDSTATUSCODES" in offered
        self.requiretls = "REQUIRETLS" in offered
        self.size = _number(offered.get("SIZE"), 20)
        self.auth = tuple(dict.fromkeys(offered.get("AUTH", "").upper().split()))
        self.deliverby = _number(offered.get("DELIVERBY"), 9)
        self.futurerelease = _future_release(offered.get("FUTURERELEASE"))
        priority = offered.get("MT-PRIORITY")
        self.mt_priority = None if priority is None else priority.upper()
        self.limits: Mapping[str, int] = MappingProxyType(_limits(offered.get("LIMITS", "")))

    @staticmethod
    def parse(reply: Reply) -> Extensions:
        """Read the positive reply to EHLO or LHLO; ignore lines without a keyword.

        Blanks before a keyword are ignored. `AUTH=PLAIN LOGIN`, from a draft before RFC 2554, counts if no line says
        `AUTH`, and Exchange's `X-EXPS NTLM LOGIN` if there is neither.
        """
        return _offered(reply)

    def without(self, *keywords: str) -> Extensions:
        """Return the same offer less `keywords`, for options that switch an extension off."""
        gone = {keyword.upper() for keyword in keywords}
        kept = {keyword: value for keyword, value in self._keywords.items() if keyword not in gone}
        return self if len(kept) == len(self._keywords) else Extensions(kept, domain=self.domain)

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and keyword.upper() in self._keywords

    def __getitem__(self, keyword: str) -> str:
        return self._keywords[keyword.upper()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __len__(self) -> int:
        return len(self._keywords)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extensions):
            return NotImplemented
        # Without the domain: many hosts may share one address, and a message planned for one suits them all.
        return self is other or self._keywords == other._keywords

    def __hash__(self) -> int:
        return hash(frozenset(self._keywords.items()))

    def __repr__(self) -> str:
        offer = ", ".join(f"{key} {value}".rstrip() for key, value in self._keywords.items())
        return f"<Extensions of {self.domain or '?'}: {offer or 'none'}>"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (dict(self._keywords), self.domain)


def _rebuild(keywords: dict[str, str], domain: str) -> Extensions:
    return Extensions(keywords, domain=domain)


@functools.lru_cache(maxsize=16)
def _offered(reply: Reply) -> Extensions:
    """Return what a reply offers. Remembered, because a server says the same to each connection."""
    first, *rest = reply.lines
    keywords: dict[str, str] = {}
    old_auth = exchange_auth = ""
    for line in rest:
        line = line.lstrip(" \t")
        match = _KEYWORD.match(line)
        if match is None:
            continue
        keyword, behind = match[0].upper(), line[match.end() :]
        if keyword == "AUTH" and behind.startswith("="):
            old_auth += " " + behind[1:]
        elif keyword == "X-EXPS" and behind.startswith("="):
            exchange_auth += " " + behind[1:]
        elif not behind or behind[0] in " \t":
            value = behind.strip()
            # A repeated keyword adds to the first, because some servers send two AUTH lines.
            keywords[keyword] = f"{keywords[keyword]} {value}" if keyword in keywords else value
    exchange_auth = f"{keywords.get('X-EXPS', '')}{exchange_auth}"
    if mechanisms := old_auth.strip() or exchange_auth.strip():
        keywords.setdefault("AUTH", mechanisms)
    return Extensions(keywords, domain=first.split(" ", 1)[0])


def _number(value: str | None, digits: int) -> int | None:
    """Return a number of at most `digits` digits (RFC 1870 section 4, RFC 2852 section 3); 0 for anything else."""
    if value is None:
        return None
    return int(value) if value.isascii() and value.isdigit() and len(value) <= digits else 0


def _future_release(value: str | None) -> FutureRelease | None:
    if value is None:
        return None
    interval, _, moment = value.partition(" ")
    return FutureRelease(_number(interval, 9) or None, _moment(moment.strip().upper()))


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if _MOMENT.fullmatch(text) else None
    except (ValueError, OverflowError):  # 31 February, a minute past the last year
        return None


def _limits(value: str) -> dict[str, int]:
    # Word by word: a word that only begins or ends like a limit is none.
    matches = map(_LIMIT.fullmatch, value.upper().split())
    return {match[1]: int(match[2]) for match in matches if match is not None}


#: The offer of a server that was greeted with HELO.
NO_EXTENSIONS: Final = Extensions()
