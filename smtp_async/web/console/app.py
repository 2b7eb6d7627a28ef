"""The program behind the queue console: its JSON interface."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...errors import NoSuchJob, SMTPError
from ...processor.processor import QueueProcessor
from ...spool.contract import Spool
from ..live import Changes, event_stream
from ..pages import ERRORS, number, page_routes
from ..serving import Address, serving
from .history import History
from .jobs import JobList, describe
from .watch import Watch

__all__ = ["console_app", "serving_console"]

#: The most jobs of one answer, and of one change.
MOST_LISTED: Final = 500
MOST_CHANGED: Final = 1000
#: Seconds between two looks at a spool whose processor runs elsewhere.
LOOK_INTERVAL: Final = 2.0

_ACTIONS: Final[dict[str, Callable[[Spool, str], Awaitable[None]]]] = {
    "hold": lambda spool, id: spool.hold(id),
    "release": lambda spool, id: spool.release(id),
    "requeue": lambda spool, id: spool.requeue(id),
    "remove": lambda spool, id: spool.remove(id),
}


@contextlib.asynccontextmanager
async def serving_console(
    spool: Spool,
    address: Address,
    *,
    name: str,
    processor: QueueProcessor | None = None,
    allow_changes: bool = False,
) -> AsyncIterator[str]:
    """Serve the console of a spool inside the context, which is given the URL to open.

    Args:
        spool: the spool.
        address: where the page is served.
        name: what the page calls the spool; no secret may be in it.
        processor: the processor that runs in this process.
        allow_changes: let visitors hold, release, requeue and remove jobs.

    Raises:
        InvalidArgument: the address cannot be listened on.
    """
    changes = Changes()
    app = console_app(spool, changes, name=name, processor=processor, allow_changes=allow_changes)
    async with serving(app, address, closing=changes.close) as url:
        yield url


def console_app(
    spool: Spool,
    changes: Changes,
    *,
    name: str,
    processor: QueueProcessor | None = None,
    allow_changes: bool = False,
) -> Starlette:
    """Return the program of the page; the arguments are those of `serving_console`.

    Args:
        changes: is told of each change.
    """
    history = None if processor is None else History(processor, changes.announce)
    queue = _Queue(spool, history, changes, allow_changes=allow_changes)
    watch = Watch(spool, processor)
    about = {"name": name, "changes_allowed": allow_changes}

    async def news() -> dict[str, Any]:
        recent = [] if history is None else history.recent()
        return about | await watch.snapshot() | {"recent": recent}

    async def status(request: Request) -> Response:
        return JSONResponse(await news())

    async def events(request: Request) -> Response:
        return event_stream(changes, news, pace=1.0, heartbeat=LOOK_INTERVAL)

    return Starlette(
        routes=[
            *page_routes("console.html", name=name),
            Route("/api/status", status),
            Route("/api/events", events),
            Route("/api/jobs", queue.list),
            Route("/api/jobs/{id}", queue.show),
            Route("/api/changes", queue.change, methods=["POST"]),
        ],
        exception_handlers=ERRORS,
    )


class _Queue:
    """Lists, shows and changes jobs."""

    def __init__(
        self, spool: Spool, history: History | None, changes: Changes, *, allow_changes: bool
    ) -> None:
        self._spool = spool
        self._history = history
        self._changes = changes
        self._allow_changes = allow_changes
        self._jobs = JobList(spool)

    async def list(self, request: Request) -> Response:
        """Return a slice of the jobs found."""
        query = request.query_params
        start, count = number(request, "offset", 0, 10**9), number(request, "limit", 50, MOST_LISTED)
        found = await self._jobs.find(
            state=query.get("state", ""),
            words=query.get("q", ""),
            oldest_first=query.get("order") == "oldest",
        )
        rows = [row._asdict() for row in found[start : start + count]]
        return JSONResponse(
            {
                "found": len(found),
                "complete": self._jobs.complete,
                "renewed_in": self._jobs.renewed_in,
                "jobs": rows,
            }
        )

    async def show(self, request: Request) -> Response:
        """Return what is known about a job."""
        id = request.path_params["id"]
        events = [] if self._history is None else self._history.of(id)
        try:
            known = describe(await self._spool.get(id))
        except NoSuchJob as error:
            if not events:
                raise HTTPException(404, str(error)) from error
            # It was delivered, or removed; this process still knows how.
            known = {"id": id, "state": "gone"}
        return JSONResponse(known | {"history": events})

    async def change(self, request: Request) -> Response:
        """Hold, release, requeue or remove jobs; the error of one does not keep the others from being changed."""
        if not self._allow_changes:
            raise HTTPException(403, "changes are not allowed: start the console with --allow-changes")
        action, ids = await _wanted_change(request)
        done, errors = [], {}
        for id in ids:
            try:
                await _ACTIONS[action](self._spool, id)
                done.append(id)
            except SMTPError as error:
                errors[id] = str(error)
        self._jobs.refresh()
        self._changes.announce()
        return JSONResponse({"done": done, "errors": errors})


async def _wanted_change(request: Request) -> tuple[str, list[str]]:
    try:
        given = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400, "the body is not JSON") from error
    action, ids = (given.get("action"), given.get("ids")) if isinstance(given, dict) else (None, None)
    if action not in _ACTIONS:
        raise HTTPException(400, f"action is one of {', '.join(_ACTIONS)}")
    if not (isinstance(ids, list) and len(ids) <= MOST_CHANGED and all(isinstance(one, str) for one in ids)):
        raise HTTPException(400, f"ids is a list of at most {MOST_CHANGED} ids")
    return action, ids
