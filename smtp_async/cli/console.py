"""The queue console of `queue web` and `process --web`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from ..model.reply import printable
from ..processor import QueueProcessor
from ..spool.contract import Spool
from .catch import until_stopped
from .output import Output

if TYPE_CHECKING:
    from ..web.serving import Address

__all__ = ["AllowChanges", "console", "console_of"]

AllowChanges = Annotated[
    bool,
    typer.Option("--allow-changes", help="Let visitors of the page hold, release, requeue and remove jobs."),
]


async def console(output: Output, spool: Spool, name: str, address: Address, *, allow_changes: bool) -> None:
    """Show a spool on a page until the command is stopped."""
    async with spool:
        await spool.statistics()  # what is no spool is found out before a page is shown
        async with console_of(output, spool, name, address, allow_changes=allow_changes):
            await until_stopped()


@contextlib.asynccontextmanager
async def console_of(
    output: Output,
    spool: Spool,
    name: str,
    address: Address,
    *,
    processor: QueueProcessor | None = None,
    allow_changes: bool = False,
) -> AsyncIterator[None]:
    """Show a spool, and what its processor does, on a page inside the context."""
    from ..web.console.app import serving_console

    page = serving_console(
        spool, address, name=printable(name), processor=processor, allow_changes=allow_changes
    )
    async with page as url:
        output.remark(f"Page on {url}")
        yield
