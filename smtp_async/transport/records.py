"""Records of DNS answers, and the aliases (CNAME) that lead to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ..errors import ResolveError

__all__ = ["MX", "SRV", "Record", "canonical", "follow"]

#: The most aliases that lead from a name to its records.
_MOST_ALIASES: Final = 8


class MX(NamedTuple):
    """One mail exchanger of a domain, RFC 5321 section 5.1; `host` is empty in a null MX (RFC 7505)."""

    preference: int
    host: str


class SRV(NamedTuple):
    """One server of a service, RFC 2782; `host` is empty where the service is not offered."""

    priority: int
    weight: int
    port: int
    host: str


class Record(NamedTuple):
    """One record of an answer; the value of a CNAME is a name, those of other kinds are as the methods return them."""

    name: str
    kind: str
    value: Any


def follow(records: Iterable[Record], name: str, kind: str, seen: list[str]) -> tuple[str, list[Any]]:
    """Follow the aliases of an answer from `name`; return the name where they end and the records found there.

    Args:
        records: the answer.
        name: the name that was asked for.
        kind: the kind of record.
        seen: the names passed so far; those passed now are added.

    Raises:
        ResolveError: the aliases go in a circle, or are too many.
    """
    aliases: dict[str, str] = {}
    values: dict[str, list[Any]] = {}
    for record in records:
        owner = canonical(record.name)
        if record.kind == kind:
            values.setdefault(owner, []).append(record.value)
        elif record.kind == "CNAME":
            aliases[owner] = canonical(record.value)
    current = canonical(name)
    while current not in values and current in aliases:
        seen.append(current)
        current = aliases[current]
        if current in seen or len(seen) > _MOST_ALIASES:
            fault = "go in a circle" if current in seen else f"are more than {_MOST_ALIASES}"
            raise ResolveError(f"cannot resolve {seen[0]}: its aliases {fault}", code=11003)
    return current, values.get(current, [])


def canonical(name: str) -> str:
    return name.removesuffix(".").lower()
