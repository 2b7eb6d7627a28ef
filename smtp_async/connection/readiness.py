"""The wait of the caller of `connect`, from the start of the task that opens the connection to its verdict."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ..errors import SMTPError
from .exclusive import reject

__all__ = ["Readiness"]


class Readiness:
    """Whether a connection can send mail, as one caller waits to know it.

    Attributes:
        awaited: does a caller wait?
    """

    __slots__ = ("_verdict", "awaited")

    def __init__(self) -> None:
        self.awaited = False
        self._verdict: asyncio.Future[None] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that the task begins; call this before anything else."""
        self._verdict = loop.create_future()

    @property
    def pending(self) -> bool:
        """Is the verdict open?"""
        return self._verdict is not None and not self._verdict.done()

    async def wait(self, admit: Callable[[], bool], failure: Callable[[], SMTPError | None]) -> None:
        """Wait until the connection can send mail.

        The task wakes the caller one iteration of the event loop before it looks itself whether the server has ended
        the connection meanwhile, because the caller is only woken in that iteration, too.

        Args:
            admit: lets the connection take jobs, and returns whether it does.
            failure: returns why it has ended, None if it has not.

        Raises:
            SMTPError: it cannot.
        """
        self.awaited = True
        while True:
            assert self._verdict is not None
            await self._verdict
            # A fault of the library, too, is left to the task, which finds the reason and logs it.
            with contextlib.suppress(Exception):
                if admit():
                    return
            if (reason := failure()) is not None:
                raise reason
            self._verdict = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Have the caller see whether the connection can be used."""
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(None)

    def refuse(self, error: SMTPError) -> None:
        """Raise `error` in the caller, unless it has been told already."""
        if self._verdict is not None:
            reject(self._verdict, error)
