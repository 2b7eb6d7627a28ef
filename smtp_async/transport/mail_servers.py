"""The mail servers of a domain: where its mail is delivered (MX), and where its users submit theirs (SRV)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..errors import ResolveError
from .names import host_name, is_address
from .records import MX, SRV
from .resolve import DNSOptions, DNSResolver, Resolver, resolver_of

__all__ = ["SubmissionServer", "by_preference", "by_weight", "resolve_mx", "resolve_submission"]

#: More mail exchangers than that are not tried.
_MOST_EXCHANGERS: Final = 20
#: The services of RFC 8314 section 5.1 and RFC 6186 section 3.1, and whether TLS comes first. The first is preferred.
_SERVICES: Final = (("_submissions._tcp", True), ("_submission._tcp", False))
#: What is asked where nothing else is named.
_SYSTEM: Final = DNSOptions()


class SubmissionServer(NamedTuple):
    """A server that takes mail from a domain's own users.

    Attributes:
        host, port: where it listens.
        implicit_tls: whether TLS comes first; otherwise STARTTLS.
    """

    host: str
    port: int
    implicit_tls: bool


async def resolve_mx(
    domain: str, *, resolver: Resolver | DNSOptions = _SYSTEM, rng: random.Random | None = None
) -> tuple[str, ...]:
    """Return the hosts that take mail for a domain, in the order in which they are to be tried (RFC 5321 section 5.1).

    Hosts of equal preference are shuffled. A domain without MX records takes its mail itself. An address in brackets
    stands for itself.

    Args:
        domain: international names may be given in Unicode.
        resolver: what is asked; options choose one.
        rng: shuffles.

    Raises:
        MissingHost, InvalidHost: it is not a domain.
        ResolveError: the domain does not exist, takes no mail (null MX, RFC 7505: code 11004), or cannot be resolved.
    """
    name = host_name(domain)
    if is_address(name):
        return (name,)
    try:
        with _asking(resolver) as asked:
            found = await asked.mx(name)
    except ResolveError as error:
        if error.code != 11004:
            raise
        return (name,)
    hosts = [one for one in found if one.host]
    if not hosts:
        raise ResolveError(f"{domain} takes no mail: it has a null MX record (RFC 7505)", code=11004)
    return tuple(one.host for one in by_preference(hosts, rng or random.SystemRandom()))[:_MOST_EXCHANGERS]


async def resolve_submission(
    domain: str, *, resolver: Resolver | DNSOptions = _SYSTEM, rng: random.Random | None = None
) -> tuple[SubmissionServer, ...]:
    """Return the servers that take mail from the users of a domain, as its SRV records say (RFC 6186, RFC 8314).

    The records are not protected unless the options are `secure`: a host outside the domain needs the user's consent
    (RFC 6186 section 6).

    Args:
        domain: international names may be given in Unicode.
        resolver: what is asked; options choose one.
        rng: orders servers of equal priority by their weights (RFC 2782).

    Returns:
        The servers in order, those where TLS comes first before the others; empty without such records.

    Raises:
        MissingHost, InvalidHost: it is not a domain.
        ResolveError: the records cannot be resolved.
    """
    name = host_name(domain)
    rng = rng or random.SystemRandom()
    found: list[SubmissionServer] = []
    with _asking(resolver) as asked:
        for service, implicit in _SERVICES:
            ranked = by_weight(await _services(asked, f"{service}.{name}"), rng)
            found += [SubmissionServer(one.host, one.port, implicit) for one in ranked]
    return tuple(found)


async def _services(resolver: Resolver, service: str) -> list[SRV]:
    try:
        records = await resolver.srv(service)
    except ResolveError as error:
        if error.code in (11001, 11004):
            return []
        raise
    # An empty host says that the service is not offered, and port 0 cannot be connected to.
    return [one for one in records if one.host and one.port]


@contextlib.contextmanager
def _asking(resolver: Resolver | DNSOptions) -> Iterator[Resolver]:
    """Give the resolver, and close it in the end if it was made here."""
    if not isinstance(resolver, DNSOptions):
        yield resolver
        return
    made = resolver_of(resolver)
    try:
        yield made
    finally:
        if isinstance(made, DNSResolver) and made is not resolver.resolver:
            made.close()


def by_preference(records: Iterable[MX], rng: random.Random) -> list[MX]:
    """Return mail exchangers with the lowest preference first, equal ones shuffled, and each host once."""
    shuffled = list(dict.fromkeys(records))
    rng.shuffle(shuffled)
    first: dict[str, MX] = {}
    for one in sorted(shuffled, key=lambda one: one.preference):
        first.setdefault(one.host, one)
    return list(first.values())


def by_weight(records: Iterable[SRV], rng: random.Random) -> Iterator[SRV]:
    """Yield servers with the lowest priority first, equal ones drawn by their weights (RFC 2782)."""
    left = sorted(set(records))
    while left:
        same = [one for one in left if one.priority == left[0].priority]
        # A weight of 0 has a small chance, not none.
        (drawn,) = rng.choices(same, [one.weight or 0.1 for one in same])
        yield drawn
        left.remove(drawn)
