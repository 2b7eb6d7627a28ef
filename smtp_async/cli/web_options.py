"""The options of a page for a browser, and the token that strangers need."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FeatureUnavailable
from .server import first_line

if TYPE_CHECKING:
    from ..web.serving import Address

__all__ = ["WebOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Where a page is served, and to whom."""

    web_host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The address on which the page is served. Where other machines can reach it, the URL that is printed "
            "has a token, without which nothing is shown.",
        ),
    ] = "127.0.0.1"
    web_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A host name by which browsers call the page; may be given several times. Other names than localhost, "
            "addresses and this machine's are refused without it.",
        ),
    ] = None
    web_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with the token in its first line; without it, a new one is made for each run that needs one.",
        ),
    ] = None

    def address(self, port: int) -> Address:
        """Return where the page is served.

        Raises:
            FeatureUnavailable: the extra is not installed.
            FileError: the file of the token cannot be read.
        """
        missing = [name for name in ("starlette", "uvicorn", "jinja2") if find_spec(name) is None]
        if missing:
            raise FeatureUnavailable(
                f"a page needs {' and '.join(missing)}: pip install 'smtp-async[web]'",
                needs="smtp-async[web]",
            )
        from ..web.serving import Address

        token = None if self.web_token_file is None else first_line(self.web_token_file, "the token")
        return Address(port=port, host=self.web_host, names=self.web_name or (), token=token)
