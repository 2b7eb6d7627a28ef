"""`smtp-async providers`: the presets, and what one of them says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..client.presets import Provider, find_provider
from ..client.presets import providers as all_providers
from .output import Output

__all__ = ["providers"]

#: The numbers that are shown, with their names for people.
_LIMITS = (
    ("max_connections", "Connections at once"),
    ("messages_per_connection", "Messages over one connection"),
    ("messages_per_second", "Messages per second"),
    ("messages_per_minute", "Messages per minute"),
    ("messages_per_hour", "Messages per hour"),
    ("messages_per_day", "Messages per day"),
    ("max_recipients", "Recipients of a message"),
    ("max_size", "Bytes of a message"),
    ("idle_time", "Seconds of idleness"),
)


def _names(incomplete: str) -> list[tuple[str, str]]:
    """Return the providers whose names begin so, with their titles, for completion."""
    return [(one.name, one.title) for one in all_providers() if one.name.startswith(incomplete)]


def providers(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", autocompletion=_names, help="Show what is known of this provider."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the mail providers that are known by name, or show one of them with its sources."""
    output = Output()
    with output.errors_as_sentences():
        shown = [find_provider(name)] if name is not None else list(all_providers())
    if as_json:
        objects = [_as_object(provider) for provider in shown]
        output.line(json.dumps(objects if name is None else objects[0], ensure_ascii=False))
    elif name is None:
        _list(output, shown)
    else:
        for label, text in _rows(shown[0]):
            output.line(f"{label}: {text}")


def _as_object(provider: Provider) -> dict[str, Any]:
    return {**asdict(provider), "security": provider.security.value}


def _list(output: Output, shown: list[Provider]) -> None:
    if not output.is_terminal:
        for provider in shown:
            output.line(f"{provider.name} {provider.host}:{provider.port} {provider.title}")
        return
    table = Table.grid(padding=(0, 2))
    for provider in shown:
        table.add_row(Text(provider.name, "bold"), provider.title, f"{provider.host}:{provider.port}")
    output.out.print(table)


def _rows(provider: Provider) -> Iterator[tuple[str, str]]:
    yield provider.title, f"{provider.host}:{provider.port}, {provider.security.value}"
    for label, values in (
        ("Also called", provider.aliases),
        ("Domains", provider.domains),
        ("Logs in with", provider.logins),
    ):
        if values:
            yield label, ", ".join(values)
    if provider.username is not None:
        yield "User name", provider.username
    for field, label in _LIMITS:
        if (value := getattr(provider, field)) is not None:
            yield label, f"{value:,}"
    if (oauth := provider.oauth) is not None:
        if oauth.authorize is not None:
            yield "Authorization", oauth.authorize
        yield "Tokens", oauth.token
        yield "Scopes", " ".join(oauth.scopes)
    for source in provider.sources:
        yield "Source", source
