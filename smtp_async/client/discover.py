"""Which server takes the mail of an address's owner: the settings of an account, found without its password.

Three sources, in this order: the domain's SRV records (RFC 6186, RFC 8314), the preset of the provider that has the
domain or its mail exchangers, and names that are in use for submission. All candidates are tried at once by the code
that `check` uses, as far as EHLO under verified TLS; no credential is sent. A candidate stands only if its certificate
is valid for its name, because records of the DNS are not protected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ..connection.route import Login
from ..errors import InvalidAddress, ResolveError, SMTPError
from ..model.address import Address
from ..model.timeouts import Timeouts
from ..tls.context import Security
from ..transport.mail_servers import resolve_mx, resolve_submission
from ..transport.names import host_name, is_address
from .client import SMTPClient
from .diagnose import ServerReport
from .options import ClientOptions
from .presets import Provider, provider_of_domain, provider_of_exchanger

__all__ = ["Discovery", "FoundServer", "discover"]

#: Ten seconds for each step, because most candidates do not exist, and some never answer.
_DEFAULTS: Final = ClientOptions(timeouts=Timeouts.all(10))
#: Names in use for submission, and the ports with the start of TLS, the first preferred (RFC 8314 section 3.3).
_NAMES: Final = ("smtp", "mail")
_PORTS: Final = ((465, Security.IMPLICIT), (587, Security.STARTTLS))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundServer:
    """A server that may take the mail of an account.

    Attributes:
        host, port, security: how to reach it.
        reason: where the settings come from, as a sentence.
        inside: whether the host is in the address's own domain, or the preset of this very domain names it. If not,
            ask the user before a password is sent there: without DNSSEC, the record that led to it could be forged
            (RFC 6186 section 6).
        report: what was seen there; None if it was not tried.
    """

    host: str
    port: int
    security: Security
    reason: str
    inside: bool = True
    report: ServerReport | None = None

    @property
    def works(self) -> bool:
        """Whether the server was reached over verified TLS and offers a login."""
        report = self.report
        if report is None or report.error is not None or report.info is None:
            return False
        return bool(report.info.encrypted and report.info.verified and report.auth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What was found for an address.

    Attributes:
        address: the address.
        servers: every candidate, in the order of preference.
        problems: what could not be asked, as sentences.
    """

    address: str
    servers: tuple[FoundServer, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def best(self) -> FoundServer | None:
        """The first server that works; None if there is none."""
        return next((server for server in self.servers if server.works), None)


async def discover(address: str | Address, *, options: ClientOptions = _DEFAULTS) -> Discovery:
    """Find the server through which the owner of an address submits mail.

    Nothing about the account is sent but the domain of the address, to DNS servers.

    Args:
        address: `user@example.org`.
        options: names are resolved, and servers tried, with these; credentials are never sent.

    Returns:
        The candidates, each with its reason and with what was seen there.

    Raises:
        InvalidAddress, InvalidHost: it is no address with a domain.
        ResolveError: no DNS server answers.
    """
    mailbox = Address.parse(address)
    domain = host_name(mailbox.domain).lower()
    if is_address(domain) or ":" in domain:
        raise InvalidAddress(f"{mailbox} has an address in place of a domain: there is nothing to look up")
    problems: list[str] = []
    named: list[FoundServer] = []
    try:
        named = await _named_by_dns(domain, options)
    except ResolveError as error:
        if error.code == 11002:
            raise
        problems.append(str(error))
    named += await _of_provider(domain, options, problems)
    candidates: dict[tuple[str, int], FoundServer] = {}
    for one in (*named, *_usual(domain)):
        candidates.setdefault((one.host, one.port), one)
    options = replace(options, login=Login.MANUAL, lmtp=False, tunnel=False)
    tried = await _tried(list(candidates.values()), options)
    return Discovery(address=str(mailbox), servers=tuple(tried), problems=tuple(problems))


async def _named_by_dns(domain: str, options: ClientOptions) -> list[FoundServer]:
    found = await resolve_submission(domain, resolver=options.dns)
    return [
        FoundServer(
            host=one.host,
            port=one.port,
            security=Security.IMPLICIT if one.implicit_tls else Security.STARTTLS,
            reason=f"the domain names it for submission (SRV, {'RFC 8314' if one.implicit_tls else 'RFC 6186'})",
            inside=_is_inside(one.host, domain),
        )
        for one in found
    ]


async def _of_provider(domain: str, options: ClientOptions, problems: list[str]) -> list[FoundServer]:
    """Return the server of the domain's provider, if there is a preset of it."""
    if (provider := provider_of_domain(domain)) is not None:
        return [_preset(provider, f"{provider.title} has the domain (a preset)", inside=True)]
    try:
        exchangers = await resolve_mx(domain, resolver=options.dns)
    except ResolveError as error:
        # Without the domain, or without mail there, the usual names may still be right.
        if error.code not in (11001, 11004):
            problems.append(str(error))
        return []
    for exchanger in exchangers:
        if (provider := provider_of_exchanger(exchanger)) is not None:
            reason = f"{exchanger}, which takes the domain's mail (MX), is one of {provider.title} (a preset)"
            return [_preset(provider, reason, inside=_is_inside(provider.host, domain))]
    return []


def _preset(provider: Provider, reason: str, *, inside: bool) -> FoundServer:
    return FoundServer(
        host=provider.host, port=provider.port, security=provider.security, reason=reason, inside=inside
    )


def _is_inside(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _usual(domain: str) -> Iterator[FoundServer]:
    for port, security in _PORTS:
        for name in _NAMES:
            host = f"{name}.{domain}"
            yield FoundServer(
                host=host, port=port, security=security, reason=f"{name} is a usual name for it"
            )


async def _tried(candidates: list[FoundServer], options: ClientOptions) -> list[FoundServer]:
    tasks = [asyncio.ensure_future(_try(one, options)) for one in candidates]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _try(server: FoundServer, options: ClientOptions) -> FoundServer:
    try:
        client = SMTPClient(server.host, server.port, security=server.security, options=options)
        async with client:
            return replace(server, report=await client.check())
    except SMTPError as error:
        report = ServerReport(server=f"{server.host}:{server.port}", security=server.security, error=error)
        return replace(server, report=report)
