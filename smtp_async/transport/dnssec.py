"""DNS answers that DNSSEC protects, as a validating resolver on this machine says.

The resolver validates, from the root or from its own trust anchors; this file asks it (DO and AD in the query, RFC 6840
section 5.7) and takes an answer only with the AD flag (RFC 4035 section 3.2.3). The flag is worth what the way to the
resolver is worth: only loopback addresses are asked. They are asked in a thread, as getaddrinfo is: a datagram endpoint
of uvloop whose making is cancelled keeps the loop from closing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from functools import partial
from typing import Any, Final

from ..errors import FeatureUnavailable, ResolveError
from .records import MX, SRV, Record

__all__ = ["CONFIGURATION", "ask", "local_servers"]

#: The system's list of DNS servers.
CONFIGURATION: Final = "/etc/resolv.conf"


async def ask(name: str, kind: str, servers: list[tuple[str, int]], *, limit: float) -> list[Record]:
    """Ask for records and return the protected answer.

    Args:
        name: the name.
        kind: the type of record.
        servers: validating resolvers, asked one after the other until one answers; empty takes the system's.
        limit: seconds for each.

    Raises:
        FeatureUnavailable: dnspython is not installed.
        ResolveError: no resolver answered, the name does not exist, or the answer is not protected.
    """
    try:
        import dns.exception
        import dns.flags
        import dns.message
        import dns.query
    except ImportError as error:
        raise FeatureUnavailable(
            "secure name resolution needs dnspython: pip install smtp-async[dnssec]",
            needs="smtp-async[dnssec]",
        ) from error
    try:
        query = dns.message.make_query(name, kind, want_dnssec=True)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ResolveError(f"cannot resolve {name}: {error}", code=11003) from error
    query.flags |= dns.flags.AD
    failure: Exception | None = None
    for host, port in servers or local_servers():
        try:
            fetch = partial(dns.query.udp_with_fallback, query, host, timeout=limit, port=port)
            answer, _ = await asyncio.get_running_loop().run_in_executor(None, fetch)
            return _protected(answer, name, kind)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            if isinstance(error, ResolveError):
                raise
            failure = error
    raise ResolveError(f"cannot resolve {name}: no validating resolver answers", code=11002) from failure


def _protected(answer: Any, name: str, kind: str) -> list[Record]:
    from dns import flags, rcode

    status = answer.rcode()
    if status == rcode.SERVFAIL:
        raise ResolveError(f"cannot resolve {name}: it is signed wrongly, or its servers fail", code=11003)
    if not answer.flags & flags.AD:
        raise ResolveError(f"cannot resolve {name}: the answer is not protected by DNSSEC", code=11003)
    if status == rcode.NXDOMAIN:
        raise ResolveError(f"cannot resolve {name}: the name does not exist", code=11001)
    if status != rcode.NOERROR:
        raise ResolveError(f"cannot resolve {name}: {rcode.to_text(status)}", code=11003)
    return [
        record for rrset in answer.answer for item in rrset if (record := _record(rrset, item)) is not None
    ]


def _record(rrset: Any, item: Any) -> Record | None:
    from dns.rdatatype import to_text

    owner, kind = rrset.name.to_text(omit_final_dot=True), to_text(rrset.rdtype)
    if kind in ("A", "AAAA"):
        return Record(owner, kind, item.address)
    if kind == "CNAME":
        return Record(owner, kind, _text(item.target))
    if kind == "MX":
        return Record(owner, kind, MX(item.preference, _text(item.exchange)))
    if kind == "SRV":
        return Record(owner, kind, SRV(item.priority, item.weight, item.port, _text(item.target)))
    return None


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower().removesuffix(".")


def local_servers(configuration: str = CONFIGURATION) -> list[tuple[str, int]]:
    """Return the resolvers on this machine that the system asks.

    Raises:
        ResolveError: it asks none.
    """
    try:
        with open(configuration, encoding="ascii", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        words = []
    named = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    local = [(host, 53) for host in named if _is_loopback(host)]
    if not local:
        raise ResolveError(
            "secure=True needs a validating resolver on this machine, and the system asks none: name it in servers",
            code=11003,
        )
    return local


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
