"""The program behind the catcher's page: its JSON interface, and the parts of messages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ...errors import InvalidArgument
from ..live import Changes, event_stream
from ..pages import ERRORS, number, page_routes
from .details import details
from .faults import STAGES, Fault, FaultKind, Faults
from .html_view import frame_policy, framed
from .mailbox import Caught, Mailbox
from .parts import ReadMessage

__all__ = ["Relay", "catcher_app"]

#: The most messages of one answer.
MOST_LISTED: Final = 500

#: Sends a message on: to the recipients given, or to those it came for; returns one sentence for each of them.
Relay = Callable[[Caught, list[str]], Awaitable[list[dict[str, Any]]]]


def catcher_app(
    mailbox: Mailbox, faults: Faults, changes: Changes, *, about: dict[str, Any], relay: Relay | None = None
) -> Starlette:
    """Return the program of the page.

    Args:
        mailbox: has the messages.
        faults: has the faults.
        changes: is told of each change.
        about: what the page says of the server.
        relay: sends a message on; None where that is not wanted.
    """
    messages, switches = _Messages(mailbox, relay), _Switches(faults, changes)

    async def news() -> dict[str, Any]:
        return {"total": len(mailbox), "faults": faults.as_json()}

    async def events(request: Request) -> Response:
        return event_stream(changes, news)

    async def status(request: Request) -> Response:
        stages = {name: {"refuse": refuses, "defer": defers} for name, (_, refuses, defers) in STAGES.items()}
        kinds = [one.value for one in FaultKind]
        more = {"relay": relay is not None, "stages": stages, "kinds": kinds}
        return JSONResponse(about | await news() | more)

    routes: list[BaseRoute] = [
        *page_routes("catcher.html"),
        Route("/api/status", status),
        Route("/api/events", events),
        *messages.routes(),
        *switches.routes(),
    ]
    return Starlette(routes=routes, exception_handlers=ERRORS)


class _Messages:
    """Lists, shows, deletes and relays messages."""

    def __init__(self, mailbox: Mailbox, relay: Relay | None) -> None:
        self._mailbox = mailbox
        self._relay = relay
        # The page asks for several parts of one message, which is read once for all of them.
        self._read: tuple[str, ReadMessage] | None = None

    def routes(self) -> list[BaseRoute]:
        one = "/api/messages/{id}"
        return [
            Route("/api/messages", self.list),
            Route("/api/messages", self.remove_found, methods=["DELETE"]),
            Route(one, self.show),
            Route(one, self.remove, methods=["DELETE"]),
            Route(f"{one}/raw", self.source),
            Route(f"{one}/html", self.html),
            Route(f"{one}/files/{{number:int}}", self.file),
            Route(f"{one}/relay", self.relay, methods=["POST"]),
        ]

    def _wanted(self, request: Request) -> tuple[Caught, ReadMessage]:
        message = self._mailbox.get(request.path_params["id"])
        if message is None:
            raise HTTPException(404, "there is no such message")
        if self._read is None or self._read[0] != message.id:
            self._read = (message.id, ReadMessage(message.received.data))
        return message, self._read[1]

    def _found(self, request: Request) -> list[Caught]:
        try:
            return self._mailbox.search(request.query_params.get("q", ""))
        except InvalidArgument as error:
            raise HTTPException(400, str(error)) from error

    async def list(self, request: Request) -> Response:
        """Return a slice of the messages found, the newest first."""
        start = number(request, "offset", 0, 10**9)
        count = number(request, "limit", 50, MOST_LISTED)
        found = self._found(request)
        shown = [one.summary() for one in found[start : start + count]]
        return JSONResponse({"total": len(self._mailbox), "found": len(found), "messages": shown})

    async def show(self, request: Request) -> Response:
        """Return what is known about a message."""
        return JSONResponse(details(*self._wanted(request)))

    async def source(self, request: Request) -> Response:
        """Return a message as it came."""
        message, _ = self._wanted(request)
        if "download" in request.query_params:
            return _download(message.received.data, "message/rfc822", f"{message.id}.eml")
        return Response(message.received.data, media_type="text/plain; charset=utf-8")

    async def html(self, request: Request) -> Response:
        """Return the HTML of a message, for a frame only."""
        _, read = self._wanted(request)
        if read.html is None:
            raise HTTPException(404, "the message has no HTML")
        # In a window of its own it could lead the reader elsewhere; the page's policy holds a frame here.
        if request.headers.get("sec-fetch-dest", "iframe") != "iframe":
            raise HTTPException(403, "the HTML of a message is shown in a frame only")
        policy = frame_policy(external=request.query_params.get("external") == "1")
        return Response(
            framed(read.html, read.files),
            media_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": policy},
        )

    async def file(self, request: Request) -> Response:
        """Return a file of a message, to be saved."""
        _, read = self._wanted(request)
        place = request.path_params["number"]
        if place >= len(read.files):
            raise HTTPException(404, "the message has no such file")
        part = read.files[place]
        return _download(part.data, "application/octet-stream", part.filename)

    async def remove(self, request: Request) -> Response:
        """Delete a message."""
        return JSONResponse({"removed": self._mailbox.remove([self._wanted(request)[0].id])})

    async def remove_found(self, request: Request) -> Response:
        """Delete the messages found."""
        return JSONResponse({"removed": self._mailbox.remove([one.id for one in self._found(request)])})

    async def relay(self, request: Request) -> Response:
        """Send a message on."""
        message, _ = self._wanted(request)
        if self._relay is None:
            raise HTTPException(403, "there is no server to relay to: start the catcher with --relay URL")
        given = await _body(request)
        people = given.get("to", []) if isinstance(given, dict) else None
        if not (isinstance(people, list) and all(isinstance(one, str) for one in people)):
            raise HTTPException(400, "to is a list of addresses")
        return JSONResponse({"recipients": await self._relay(message, people)})


class _Switches:
    """Lists, adds and removes faults."""

    def __init__(self, faults: Faults, changes: Changes) -> None:
        self._faults = faults
        self._changes = changes

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/faults", self.list),
            Route("/api/faults", self.add, methods=["POST"]),
            Route("/api/faults", self.clear, methods=["DELETE"]),
            Route("/api/faults/{number:int}", self.remove, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        """Return the faults."""
        return JSONResponse({"faults": self._faults.as_json()})

    async def add(self, request: Request) -> Response:
        """Add a fault."""
        try:
            added = self._faults.add(Fault.from_json(await _body(request)))
        except InvalidArgument as error:
            raise HTTPException(400, str(error)) from error
        self._changes.announce()
        return JSONResponse({"id": added}, 201)

    async def remove(self, request: Request) -> Response:
        """Remove a fault."""
        try:
            self._faults.remove(request.path_params["number"])
        except InvalidArgument as error:
            raise HTTPException(404, str(error)) from error
        self._changes.announce()
        return await self.list(request)

    async def clear(self, request: Request) -> Response:
        """Remove all faults."""
        self._faults.clear()
        self._changes.announce()
        return await self.list(request)


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise HTTPException(400, "the body is not JSON") from error


def _download(data: bytes, kind: str, filename: str) -> Response:
    name = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
    headers = {"Content-Disposition": name, "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(data, media_type=kind, headers=headers)
