"""`smtp-async check --discover`: show which server takes the mail of an address's owner."""

from __future__ import annotations

import json
from typing import Any

from ..client.discover import Discovery, FoundServer, discover
from ..client.options import ClientOptions
from .exits import Exit
from .output import Output, sentence

__all__ = ["show_discovery"]


async def show_discovery(output: Output, address: str, options: ClientOptions, *, as_json: bool) -> Exit:
    """Look for the server, show what was found, and return the exit code."""
    found = await discover(address, options=options)
    if as_json:
        output.line(json.dumps(_as_object(found)))
    else:
        _show(output, found)
    return Exit.OK if found.best is not None else Exit.REFUSED


def _show(output: Output, found: Discovery) -> None:
    for problem in found.problems:
        output.problem(sentence(problem))
    for one in found.servers:
        (output.success if one.works else output.problem)(f"{_place(one)}: {sentence(_verdict(one))}")
    best = found.best
    if best is None:
        output.problem(f"No server was found for {found.address}.")
        return
    user = (
        ""
        if best.inside
        else " Its name is not in the domain of the address: make sure that it is the right one."
    )
    output.line(f"Use: --server {best.host}:{best.port} --security {best.security.value}{user}")


def _place(one: FoundServer) -> str:
    return f"{one.host}:{one.port} ({one.security.value})"


def _verdict(one: FoundServer) -> str:
    report = one.report
    if one.works and report is not None:
        return f"{one.reason}; it offers {', '.join(report.auth)}"
    if report is not None and report.error is not None:
        return f"{one.reason}; {report.error}"
    return f"{one.reason}; it offers no login"


def _as_object(found: Discovery) -> dict[str, Any]:
    return {
        "address": found.address,
        "best": None if found.best is None else _server(found.best),
        "servers": [_server(one) for one in found.servers],
        "problems": list(found.problems),
    }


def _server(one: FoundServer) -> dict[str, Any]:
    error = one.report.error if one.report is not None else None
    return {
        "host": one.host,
        "port": one.port,
        "security": one.security.value,
        "reason": one.reason,
        "inside": one.inside,
        "works": one.works,
        "auth": list(one.report.auth) if one.report is not None else [],
        "error": None if error is None else {"code": error.code, "text": str(error)},
    }
