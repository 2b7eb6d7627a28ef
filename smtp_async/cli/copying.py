"""`smtp-async queue copy`: moves the queued jobs of one spool to another."""

from __future__ import annotations

from ..errors import InvalidArgument
from ..spool.moving import move
from .output import Output
from .spools import name_of, open_spool

__all__ = ["copy_jobs"]


async def copy_jobs(output: Output, source: str, target: str) -> None:
    """Move the jobs, show each, and what is left.

    Args:
        output: where the result is shown.
        source, target: paths or URLs.
    """
    name = name_of(target)
    if name == name_of(source):
        raise InvalidArgument("FROM and TO are the same spool")
    moved = 0
    async with open_spool(source) as old, open_spool(target) as new:
        async for id in move(old, new, name):
            moved += 1
            if not output.is_terminal:
                output.line(f"moved\t{id}")
        left = await old.statistics()
    if output.is_terminal:
        output.success(f"Moved: {moved:,} {'job' if moved == 1 else 'jobs'}")
    for number, what in ((left.sending, "being sent"), (left.failed, "failed"), (left.sent, "sent")):
        if number:
            output.remark(f"{number:,} {what} stay in the old spool.")
