"""A cancellation that came too late: the call of the cancelled task could not be undone."""

from __future__ import annotations

import asyncio

__all__ = ["cancel_again"]


def cancel_again(error: asyncio.CancelledError) -> None:
    """Cancel the current task at its next await, after it has got the result of its call.

    A time limit withdraws its request if its block ends with the call that could not be undone; the call was then made
    in time, and the task is not cancelled.

    Args:
        error: the cancellation that was caught. A scope of anyio repeats its cancellation while the task is in the
            scope, so nothing is done for one.
    """
    if error.args and str(error.args[0]).startswith("Cancelled via cancel scope "):
        return
    task = asyncio.current_task()
    if task is not None:
        task.get_loop().call_soon(_cancel_if_requested, task)


def _cancel_if_requested(task: asyncio.Task[object]) -> None:
    if task.cancelling():
        # The number of requests stays the same.
        task.uncancel()
        task.cancel()
