"""The files of the pages: templates, and what they load."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import SMTPError

__all__ = ["ERRORS", "number", "page_routes"]

_HERE: Final = Path(__file__).parent
_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page_routes(template: str, **values: object) -> list[BaseRoute]:
    """Return the routes of a page: `/`, and the files that it loads.

    Args:
        template: its name, such as `catcher.html`.
        values: what the template is given.
    """
    text = _TEMPLATES.get_template(template).render(values)

    async def page(request: Request) -> Response:
        return HTMLResponse(text)

    return [Route("/", page), Mount("/static", StaticFiles(directory=_HERE / "static"))]


def number(request: Request, name: str, default: int, most: int) -> int:
    """Return a number from 0 to `most` of the query.

    Raises:
        HTTPException: it is no number.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"{name} is a number, not {text!r}")
    return min(int(text), most)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _library_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409)


#: How errors are answered: as JSON objects with a sentence.
ERRORS: Final = {HTTPException: _http_error, SMTPError: _library_error}
