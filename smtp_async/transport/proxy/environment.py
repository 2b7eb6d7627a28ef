"""The proxy that the environment names, as other programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...model.secret import Secret

__all__ = ["proxy_settings"]

_VARIABLES: Final = ("SMTP_PROXY", "ALL_PROXY")
_EXCEPTIONS: Final = "NO_PROXY"


def proxy_settings(environ: Mapping[str, str]) -> tuple[str, Secret | None, dict[str, Any]]:
    """Return the variable, the URL, and the options beside it; the URL is None where no variable is set."""
    for variable in _VARIABLES:
        name, url = _lookup(environ, variable)
        if url:
            settings: dict[str, Any] = {"exceptions": _exceptions(environ)}
            scheme = url.reveal().partition("://")[0].lower() if "://" in url.reveal() else ""
            if not scheme:
                url = Secret("http://" + url.reveal())
            elif scheme in ("socks4", "socks5"):
                settings["remote_dns"] = False
            return name, url, settings
    return "", None, {}


def _lookup(environ: Mapping[str, str], variable: str) -> tuple[str, Secret]:
    """Return a variable's name as it is set, and its value; the lower case comes first, as in other programs."""
    for name in (variable.lower(), variable):
        if value := environ.get(name, "").strip():
            return name, Secret(value)
    return variable, Secret("")


def _exceptions(environ: Mapping[str, str]) -> list[str]:
    _, value = _lookup(environ, _EXCEPTIONS)
    return [_with_domain(entry) for entry in value.reveal().replace(",", " ").split()]


def _with_domain(entry: str) -> str:
    """Return `entry` as a domain with all below it, unless it is an address, a network, or has a wildcard."""
    plain = entry.lstrip(".")
    is_name = not any(character in plain for character in "*/:") and not plain.replace(".", "").isdigit()
    return f".{plain}" if is_name and plain else entry
