"""Presets: servers, ports, security and limits of mail providers; the data is in `providers.toml`.

The file is read when the first preset is asked for.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any

from ..auth.credentials import Credentials, TokenProvider
from ..errors import InvalidArgument
from ..model.secret import Secret
from ..tls.context import Security
from .options import ClientOptions

__all__ = [
    "OAuthServer",
    "Provider",
    "find_provider",
    "provider_of_domain",
    "provider_of_exchanger",
    "providers",
    "with_limits",
]

#: How alike a suggested name is at least, from 0 to 1.
_ALIKE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthServer:
    """Where a provider's access tokens come from.

    Attributes:
        token: the token endpoint (RFC 6749 section 3.2).
        authorize: the authorization endpoint (section 3.1), None if the sources name none for mail.
        scopes: what permits sending.
    """

    token: str
    authorize: str | None = None
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A mail provider as its sources describe it. A limit of None is not stated there, and may exist.

    Attributes:
        name: its key.
        title: its name for people.
        host, port, security: its server.
        aliases: other names.
        domains: domains of its mail addresses.
        exchangers: domains of its mail exchangers, which the MX records of customers' domains name.
        logins: what it takes: "password", "app password", "API key", "oauth"; empty where the sources do not say.
        username: the user name where it is the same for all accounts.
        max_connections: connections at once.
        messages_per_connection: messages over one connection.
        messages_per_second, messages_per_minute, messages_per_hour, messages_per_day: messages in any such time.
        max_recipients: recipients of one message. Not applied: the server refuses what is above, and the recipients
            are sent in another transaction.
        max_size: bytes of one message. Not applied: the server states it itself (SIZE).
        idle_time: seconds after which it closes an idle connection.
        oauth: where access tokens come from.
        sources: where all this is written.
    """

    name: str
    title: str
    host: str
    port: int
    security: Security
    sources: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    exchangers: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    username: str | None = None
    max_connections: int | None = None
    messages_per_connection: int | None = None
    messages_per_second: int | None = None
    messages_per_minute: int | None = None
    messages_per_hour: int | None = None
    messages_per_day: int | None = None
    max_recipients: int | None = None
    max_size: int | None = None
    idle_time: float | None = None
    oauth: OAuthServer | None = None


def providers() -> tuple[Provider, ...]:
    """Return all presets, in the order of their names."""
    return tuple(_all().values())


@cache
def _all() -> dict[str, Provider]:
    text = files(__package__).joinpath("providers.toml").read_text("utf-8")
    return {name: _provider(name, record) for name, record in sorted(tomllib.loads(text).items())}


def _provider(name: str, record: dict[str, Any]) -> Provider:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
    }
    values["security"] = Security(values["security"])
    if (oauth := values.get("oauth")) is not None:
        values["oauth"] = OAuthServer(**{**oauth, "scopes": tuple(oauth["scopes"])})
    return Provider(name=name, **values)


def find_provider(name: str) -> Provider:
    """Return the provider of that name or alias, in any case.

    Raises:
        InvalidArgument: there is none; the message suggests similar names.
    """
    known = _names()
    wanted = name.strip().casefold()
    if (provider := known.get(wanted)) is not None:
        return provider
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=_ALIKE)
    names = list(dict.fromkeys(known[one].name for one in near))
    hint = f"; did you mean {' or '.join(names)}?" if names else ""
    raise InvalidArgument(f"no provider is called {name!r}{hint}")


@cache
def _names() -> dict[str, Provider]:
    """Every name in lower case; a provider's own name counts before the alias of another."""
    names: dict[str, Provider] = {}
    for provider in providers():
        for alias in provider.aliases:
            names.setdefault(alias.casefold(), provider)
    return {**names, **{provider.name.casefold(): provider for provider in providers()}}


def provider_of_domain(domain: str) -> Provider | None:
    """Return the provider whose addresses end in `@domain`, None if none is known."""
    wanted = domain.strip().rstrip(".").casefold()
    return next((provider for provider in providers() if wanted in provider.domains), None)


def provider_of_exchanger(host: str) -> Provider | None:
    """Return the provider that has the mail exchanger `host`, None if none is known."""
    name = f".{host.strip().rstrip('.').casefold()}"
    return next((one for one in providers() if any(name.endswith(f".{end}") for end in one.exchangers)), None)


def client_arguments(
    name: str,
    options: ClientOptions,
    username: str | None = None,
    password: Secret | None = None,
    token: Secret | TokenProvider | None = None,
    credentials: Credentials | None = None,
) -> dict[str, Any]:
    """Return the arguments of a client for the provider called `name`.

    A user name that all accounts of the provider share stands in for one that is not given.

    Raises:
        InvalidArgument: no provider has that name.
    """
    provider = find_provider(name)
    return {
        "host": provider.host,
        "port": provider.port,
        "username": provider.username if username is None and password is not None else username,
        "password": password,
        "token": token,
        "credentials": credentials,
        "security": provider.security,
        "options": with_limits(options, provider),
    }


def with_limits(options: ClientOptions, provider: Provider) -> ClientOptions:
    """Return `options` within the limits of `provider`.

    A number of connections, or of messages over one, above the provider's is lowered, and an idle time is kept below
    it. A rate that the caller has set stays, because an account may have limits of its own; the others are taken from
    the provider.
    """
    pool, rates = options.pool, options.rates
    changes: dict[str, Any] = {}
    for name, value, limit in (
        ("max_connections", pool.max_connections, provider.max_connections),
        ("max_messages", pool.max_messages, provider.messages_per_connection),
        ("idle_time", pool.idle_time, provider.idle_time),
    ):
        if limit is not None and (value is None or value > limit):
            changes[name] = limit
    stated = {
        field.name: getattr(provider, field.name)
        for field in fields(rates)
        if field.name.startswith("messages_per") and getattr(rates, field.name) is None
    }
    return replace(options, pool=replace(pool, **changes), rates=replace(rates, **stated))
