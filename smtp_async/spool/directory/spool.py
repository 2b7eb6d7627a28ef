"""A spool that is a directory: safe against whatever kills a process, and shared by any number of them on one machine.

    spool = DirectorySpool("/var/spool/app", create=True)
    id = await spool.put(message)

What happens to the files, step by step, is in `job_files`. Here is what tasks see of it: put, claim and the ends of
leases are calls in a thread, which a cancelled task waits for, and which tasks that come together share.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

from ...errors import InvalidArgument, SMTPError, UsageError
from ..contract import KEY_RETENTION, Leases, Spool
from ..entry import Entry, Recovery, SpoolStatistics, State, Unreadable
from ..submission import Adapt, Submission, seconds
from .admin import Upkeep
from .batching import Threads, Together
from .claim import Delivery
from .due_queue import Lineup
from .enqueue import Intake, Stored
from .job_files import SMALL, Held, Shelf
from .lease import DirectoryLease, News
from .recovery import recover
from .syscalls import Files, open_directory, translated

__all__ = ["DirectorySpool"]

#: Calls that run at the same time. More do not make a disk faster.
THREADS: Final = 16
#: Callers that share a call, and large messages that are put at the same time.
TOGETHER: Final = 64
LARGE_PUTS: Final = 4
#: Small jobs that are claimed in the event loop, where nothing is durable: two milliseconds' work.
AT_ONCE: Final = 40
#: Jobs that are listed with one call.
LISTED: Final = 200

T = TypeVar("T")


class DirectorySpool(Spool):
    """Keep jobs in a directory, one file for each: `<id>.queued`, `.sending`, `.sent` or `.failed`.

    Any number of tasks, threads and processes of one machine may use the same directory. After a fork the child needs
    a spool of its own.

    Args:
        path: the directory. It belongs to this user, and nobody else may write to it.
        create: make it if it is not there.
        durable: `put` and the ends of leases wait until the disk has it. Without, a power failure or a crash of the
            system may lose the last seconds; a crash of the process may not. What is short then runs in the event loop:
            for a directory on this machine only.
        low_water: octets of the file system that are left free; None takes 64 MiB, or twice the largest message.
        poll: seconds after which jobs that other processes put are found, at the latest.
        adapt: makes mail of what `put` is given.
        key_retention: seconds for which a key is remembered when its job is gone; 100,000 of them in the directory, as
            empty files. All processes of a directory should be given the same.
        files: makes the system calls; for tests.

    Raises:
        FeatureUnavailable: this system has no file locks that a spool could rely on.
        FileError: the directory does not exist.
        SpoolUnsafe: somebody else owns it or may write to it, or it is a symbolic link.
        SpoolError: the system refused it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        durable: bool = True,
        low_water: int | None = None,
        poll: float = 1.0,
        adapt: Adapt | None = None,
        key_retention: float = KEY_RETENTION,
        files: Callable[..., Files] = Files,
    ) -> None:
        super().__init__(adapt=adapt, key_retention=key_retention)
        if not poll > 0:
            raise InvalidArgument("poll is a number of seconds above 0")
        self._path = os.fspath(path)
        self._closed = ""
        self._root = open_directory(path, create=create)
        try:
            self._files = files(self._root, durable=durable)
            self._lineup = Lineup(self._files, poll=poll)
            shelf = Shelf(self._files, self._lineup, key_retention=lambda: self.key_retention)
        except OSError as error:
            os.close(self._root)
            raise error if isinstance(error, SMTPError) else translated(error, "not a spool") from error
        self._shelf = shelf
        self._poll = poll
        self._durable = durable
        self._intake = Intake(shelf, low_water=low_water)
        self._delivery = delivery = Delivery(shelf)
        self._upkeep = Upkeep(shelf)
        self._threads = Threads(THREADS)
        # One call with many is faster than two, which wait for each other at every sync.
        self._notes: News = Together(
            self._threads, delivery.note, parallel=1, most=TOGETHER, afterwards=delivery.close_removed
        )
        put = self._intake.put
        self._puts: Together[Submission, Stored] = Together(self._threads, put, parallel=1, most=TOGETHER)
        # One of them must not hold up the small ones.
        self._large_puts: Together[Submission, Stored] = Together(
            self._threads, put, parallel=LARGE_PUTS, most=1
        )
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        _open_spools.add(self)

    def __repr__(self) -> str:
        return f"<DirectorySpool {self._path!r}{': ' if self._closed else ''}{self._closed}>"

    # --- the contract ----------------------------------------------------------------------------------------

    async def _store(self, job: Submission) -> str:
        if self._closed:
            self._refuse()
        puts = self._puts if len(job.body) <= SMALL else self._large_puts
        stored = await puts.run(job, undo=self._intake.withdraw)
        if self._news is not None:
            self._news.set()
        return stored.id

    async def claim(self, n: int = 1, *, now: float | None = None, marked: bool = False) -> Leases:
        if n < 1:
            return []
        now = time.time() if now is None else now
        held = None if self._durable else self._claim_at_once(n, now, marked=marked)
        if not held:
            held = await self._run(self._delivery.claim, n, now, marked=marked, undo=self._delivery.unclaim)
        return [DirectoryLease(one, self._delivery, self._notes) for one in held]

    async def get(self, id: str) -> Entry:
        return await self._run(self._upkeep.entry, id)

    async def list(self, state: State | None = None) -> AsyncIterator[Entry]:
        for directory in await self._run(self._lineup.directories):
            names = await self._run(self._upkeep.names, directory, state)
            for start in range(0, len(names), LISTED):
                for entry in await self._run(self._upkeep.entries, names[start : start + LISTED]):
                    yield entry

    async def read(self, id: str) -> bytes:
        return await self._run(self._upkeep.message, id)

    async def hold(self, id: str) -> None:
        await self._run(self._upkeep.hold, id)

    async def release(self, id: str) -> None:
        await self._run(self._upkeep.release, id)
        self._tell()

    async def requeue(
        self, id: str, *, not_before: float | datetime | None = None, expires: float | datetime | None = None
    ) -> None:
        when = None if not_before is None else seconds(not_before)
        await self._run(self._upkeep.requeue, id, when, None if expires is None else seconds(expires))
        self._tell()

    async def remove(self, id: str) -> None:
        await self._run(self._upkeep.remove, id)

    async def statistics(self) -> SpoolStatistics:
        return await self._run(self._upkeep.statistics)

    async def recover(self) -> Recovery:
        recovery: Recovery = await self._run(recover, self._shelf)
        self._tell()
        return recovery

    def unreadable(self) -> Sequence[Unreadable]:
        return self._shelf.unreadable()

    async def wait(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            news = self._bound()
            news.clear()
            due = await self._run(self._lineup.next_due, time.time())
            left = min(end - loop.time(), self._poll)
            if due is not None:
                left = min(left, due - time.time())
                if left <= 0 and due <= time.time():
                    return True
            if loop.time() >= end:
                return False
            # Not `wait_for`: on Python 3.11 it takes a cancellation that comes together with the news for none.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left, 0.001)):
                    await news.wait()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = "closed"
        # In the reverse order, whatever is cancelled meanwhile: what was begun is brought to its end, also what a lease
        # begins until it is given back.
        async with AsyncExitStack() as steps:
            steps.callback(self._let_go)
            steps.push_async_callback(self._threads.wait_idle)
            steps.push_async_callback(self._threads.run, self._delivery.close)
            steps.push_async_callback(self._threads.wait_idle)

    # --- the rest --------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        self._threads.end()
        os.close(self._root)
        _open_spools.discard(self)

    def _claim_at_once(self, n: int, now: float, *, marked: bool) -> builtins.list[Held]:
        """Claim what is known to be due, small, and not many: a thread would take thrice as long for it."""
        if self._closed or n > AT_ONCE:
            return []
        return self._delivery.claim(n, now, marked=marked, at_once=True)

    async def _run(
        self,
        function: Callable[..., T],
        *arguments: Any,
        undo: Callable[[T], bool] | None = None,
        **named: Any,
    ) -> T:
        if self._closed:
            self._refuse()
        try:
            return await self._threads.run(partial(function, *arguments, **named), undo=undo)
        except SMTPError:
            raise
        except OSError as error:
            raise translated(error, f"the spool {self._path} failed") from error

    def _refuse(self) -> NoReturn:
        raise UsageError(f"the spool {self._path} is {self._closed}")

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    def _bound(self) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        if self._news is None or self._loop is not loop:
            self._loop, self._news = loop, asyncio.Event()
        return self._news

    def _forked(self) -> None:
        """In the child: its copies of the files hold locks that are the parent's."""
        self._closed = "that of another process: make one after the fork"
        self._delivery.forked()
        os.close(self._root)


_open_spools: Final[weakref.WeakSet[DirectorySpool]] = weakref.WeakSet()


def _forked() -> None:
    for spool in list(_open_spools):
        with suppress(OSError):
            spool._forked()
    _open_spools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
