"""System calls that are counted, and of which one fails or kills the process.

Every system call of a `DirectorySpool` goes through `SystemCalls.call` with the name of its step of the protocol. A
call is identified by step and number: `("E4", 1)` is the first call of step E4 in this process.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

from smtp_async.spool.directory.syscalls import SystemCalls

#: errno values that disks cause.
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
#: A write of half the data.
SHORT = -1


class Call(NamedTuple):
    """A system call: its step, and its number among those of this step."""

    step: str
    number: int


class CountingFiles(SystemCalls):
    """Counts the calls of each step."""

    def __init__(self, root: int, *, durable: bool = True) -> None:
        super().__init__(root, durable=durable)
        self.counts: Counter[str] = Counter()
        self._counting = Lock()

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        with self._counting:
            self.counts[step] += 1
            here = Call(step, self.counts[step])
        return self.meet(here, function, *args, **named)

    def meet(self, here: Call, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """Make the call, or the fault instead."""
        return function(*args, **named)

    def calls(self) -> list[Call]:
        """Return every call that was made."""
        return [Call(step, number) for step, count in self.counts.items() for number in range(1, count + 1)]


class DeadlyFiles(CountingFiles):
    """System calls that kill the process before or after one call.

    Args:
        root, durable: as for `SystemCalls`.
        last: that call; None for none.
        after: make the call before the process dies.
    """

    def __init__(
        self, root: int, *, durable: bool = True, last: Call | None = None, after: bool = False
    ) -> None:
        super().__init__(root, durable=durable)
        self._last = last
        self._after = after

    def meet(self, here: Call, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        if here != self._last:
            return function(*args, **named)
        try:
            if self._after:
                function(*args, **named)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)


class FailingFiles(CountingFiles):
    """System calls of which chosen ones fail with an errno, or write less than they were given.

    Args:
        root, durable: as for `SystemCalls`.
        failing: returns the errno with which a call fails, None for none.

    Attributes:
        failed: the calls that failed.
    """

    def __init__(
        self, root: int, *, durable: bool = True, failing: Callable[[Call], int | None] = lambda call: None
    ) -> None:
        super().__init__(root, durable=durable)
        self.failing = failing
        self.failed: list[Call] = []

    def meet(self, here: Call, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        number = self.failing(here)
        if number is None:
            return function(*args, **named)
        if number == SHORT:
            if function is os.write and len(args[1]) > 1:
                self.failed.append(here)
                return os.write(args[0], bytes(args[1][: len(args[1]) // 2]))
            return function(*args, **named)
        self.failed.append(here)
        if function is os.close:
            # The file is closed even if close() fails.
            function(*args)
        raise OSError(number, os.strerror(number))


class WornFiles(FailingFiles):
    """System calls that fail at random. Only the last failures are kept, because these may be many."""

    KEPT = 100

    def __init__(self, root: int, *, durable: bool = True, odds: float = 0.01) -> None:
        super().__init__(
            root,
            durable=durable,
            failing=lambda call: random.choice(ERRORS) if random.random() < odds else None,
        )

    def meet(self, here: Call, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        del self.failed[: -self.KEPT]
        return super().meet(here, function, *args, **named)
