"""A spool in a directory, safe against the death of any process and shared by any number of processes of one machine.

    spool = DirectorySpool("/var/spool/app", create=True)
    id = await spool.put(message)

The protocol of the files is described in `job_files`. This module is the asyncio side: put, claim and the ends of
leases are calls in a thread. A cancelled task waits for its call, and concurrent tasks share a call.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from ...errors import InvalidArgument, SMTPError, UsageError
from ...model.signing import MessageSigner
from ..contract import KEY_RETENTION, Leases, Spool, SpoolTelemetry
from ..entry import Entry, LeaseHolder, Recovery, SpoolStatistics, State, Unreadable
from ..submission import Adapt, JobOptions, Submission
from .admin import Admin
from .batching import ThreadBatcher, Threads
from .claim import Claims
from .due_queue import DueQueue
from .enqueue import Enqueuer, Stored
from .job_files import SMALL, JobFiles, LockedJob
from .keys import KeyMemory
from .lease import DirectoryLease, UpdateBatcher
from .limits import DEFAULT_LIMITS, DirectoryLimits
from .recovery import recover
from .syscalls import SystemCalls, open_directory, translated

__all__ = ["DirectorySpool"]

#: Maximum number of concurrent calls for single callers. More do not make a disk faster.
MAX_THREADS: Final = 16
#: Maximum number of callers that share a call, and of large messages that are put at the same time.
MAX_BATCH: Final = 64
MAX_LARGE_PUTS: Final = 4
#: Seconds for which marks and ends that were shared are followed by a call that waits for more of them.
GATHER: Final = 0.0005
#: Maximum number of small jobs that are claimed in the event loop without durability: two milliseconds of work.
MAX_INLINE_CLAIM: Final = 40
#: Number of jobs that `list` reads in one call.
LIST_BATCH: Final = 200

T = TypeVar("T")


class DirectorySpool(Spool):
    """Keep jobs in a directory, one file for each: `<id>.queued`, `.sending`, `.marked`, `.sent` or `.failed`.

    Any number of tasks, threads and processes of one machine may use the same directory. After a fork, the child needs
    a spool of its own.

    Args:
        path: the directory. It must belong to this user, and no other user may write to it.
        create: create the directory unless it exists.
        durable: wait until each `put` and each end of a lease is on disk. If False, a power failure or a crash of the
            operating system may lose the last seconds, while a crash of the process loses nothing. Short operations
            then run in the event loop, so the directory should be on a local disk.
        low_water: octets of the file system that are left free; by default 64 MiB, or twice the largest message.
        poll: maximum number of seconds until jobs that other processes put are found.
        adapt: converts the argument of `put` into a `Mail`.
        key_retention: number of seconds for which the key of a job that is gone is remembered, as an empty file. All
            processes that share a directory should use the same value.
        telemetry: tells of messages that are put, and has each job remember where it came from; a `Telemetry`.
        sign: how messages are signed when they are put: a `DKIM`, or several.
        limits: the sizes at which the directory changes its operation.
        syscalls: makes the object for the system calls; for tests.

    Raises:
        FeatureUnavailable: the operating system lacks flock() or the directory calls of POSIX.
        FileError: the directory does not exist.
        SpoolUnsafe: another user owns the directory or may write to it, or the path is a symbolic link.
        SpoolError: a system call failed.
    """

    # The open spools of this process, which a forked child must not use.
    _open: ClassVar[weakref.WeakSet[DirectorySpool]] = weakref.WeakSet()

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
        telemetry: SpoolTelemetry | None = None,
        sign: MessageSigner | Sequence[MessageSigner] = (),
        limits: DirectoryLimits = DEFAULT_LIMITS,
        syscalls: Callable[..., SystemCalls] = SystemCalls,
    ) -> None:
        super().__init__(adapt=adapt, key_retention=key_retention, telemetry=telemetry, sign=sign)
        if not poll > 0:
            raise InvalidArgument("poll is a number of seconds above 0")
        self._path = os.fspath(path)
        self._closed = ""
        self._root = open_directory(path, create=create)
        try:
            self._syscalls = syscalls(self._root, durable=durable)
            self._due_queue = DueQueue(self._syscalls, poll=poll, most=limits.jobs_in_memory)
            keys = KeyMemory(self._syscalls, lambda: self.key_retention, limits.keys)
            job_files = JobFiles(self._syscalls, self._due_queue, keys)
        except OSError as error:
            os.close(self._root)
            raise error if isinstance(error, SMTPError) else translated(error, "not a spool") from error
        self._job_files = job_files
        self._poll = poll
        self._durable = durable
        self._enqueuer = Enqueuer(job_files, low_water=low_water, root_files=limits.root_files)
        self._claims = claims = Claims(job_files)
        self._admin = Admin(job_files)
        self._threads = Threads(MAX_THREADS)
        # One call at a time, because two would wait for each other's syncs.
        self._updates: UpdateBatcher = ThreadBatcher(
            self._threads,
            claims.update,
            parallel=1,
            most=MAX_BATCH,
            afterwards=claims.close_removed,
            gather=GATHER,
        )
        put = self._enqueuer.put
        self._puts: ThreadBatcher[Submission, Stored] = ThreadBatcher(
            self._threads, put, parallel=1, most=MAX_BATCH
        )
        # Separate calls, so that a large message does not delay small ones.
        self._large_puts: ThreadBatcher[Submission, Stored] = ThreadBatcher(
            self._threads, put, parallel=MAX_LARGE_PUTS, most=1
        )
        self._wakeup: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open.add(self)

    def __repr__(self) -> str:
        return f"<DirectorySpool {self._path!r}{': ' if self._closed else ''}{self._closed}>"

    # --- the contract ----------------------------------------------------------------------------------------

    async def _store(self, job: Submission) -> str:
        if self._closed:
            self._refuse()
        puts = self._puts if len(job.body) <= SMALL else self._large_puts
        stored = await puts.run(job, undo=self._enqueuer.withdraw)
        self._wake()
        return stored.id

    async def claim(self, n: int = 1, *, now: float | None = None, marked: bool = False) -> Leases:
        if n < 1:
            return []
        now = self._syscalls.time() if now is None else now
        claimed = [] if self._durable else self._claim_inline(n, now, marked=marked)
        if not claimed:
            claimed = await self._run(self._claims.claim, n, now, marked=marked, undo=self._claims.unclaim)
        clock = self._syscalls.time
        return [DirectoryLease(locked, self._claims, self._updates, clock) for locked in claimed]

    async def get(self, id: str) -> Entry:
        return await self._run(self._admin.entry, id)

    async def list(self, state: State | None = None) -> AsyncIterator[Entry]:
        for directory in await self._run(self._due_queue.directories):
            names = await self._run(self._admin.names, directory, state)
            for start in range(0, len(names), LIST_BATCH):
                for entry in await self._run(self._admin.entries, names[start : start + LIST_BATCH]):
                    yield entry

    async def read(self, id: str) -> bytes:
        return await self._run(self._admin.message, id)

    async def hold(self, id: str) -> None:
        await self._run(self._admin.hold, id)

    async def release(self, id: str) -> None:
        await self._run(self._admin.release, id)
        self._wake()

    async def requeue(
        self, id: str, *, not_before: float | datetime | None = None, expires: float | datetime | None = None
    ) -> None:
        options = JobOptions.checked(None, not_before, expires)
        await self._run(self._admin.requeue, id, options.not_before, options.expires)
        self._wake()

    async def remove(self, id: str) -> None:
        await self._run(self._admin.remove, id)

    async def statistics(self) -> SpoolStatistics:
        return await self._run(self._admin.statistics)

    async def holders(self) -> builtins.list[LeaseHolder]:
        return await self._run(self._admin.holders)

    async def recover(self) -> Recovery:
        recovery: Recovery = await self._run(recover, self._job_files)
        self._wake()
        return recovery

    def unreadable(self) -> Sequence[Unreadable]:
        return self._job_files.unreadable()

    async def wait(self, seconds: float) -> bool:
        loop, clock = asyncio.get_running_loop(), self._syscalls.time
        end = loop.time() + seconds
        while True:
            wakeup = self._wakeup_of(loop)
            wakeup.clear()
            due = await self._run(self._due_queue.next_due, clock())
            remaining = min(end - loop.time(), self._poll)
            if due is not None:
                remaining = min(remaining, due - clock())
                if remaining <= 0 and due <= clock():
                    return True
            if loop.time() >= end:
                return False
            # Not `wait_for`, which on Python 3.11 loses a cancellation that arrives together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(remaining, 0.001)):
                    await wakeup.wait()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = "closed"
        # Called in reverse order, even after cancellation. Calls in progress are completed, before the leases are
        # released and again afterwards, because a lease may start a call until it is released.
        async with AsyncExitStack() as steps:
            steps.callback(self._free_resources)
            steps.push_async_callback(self._threads.wait_idle)
            steps.push_async_callback(self._threads.run, self._claims.close)
            steps.push_async_callback(self._threads.wait_idle)

    # --- internals -------------------------------------------------------------------------------------------

    def _free_resources(self) -> None:
        self._threads.stop()
        os.close(self._root)
        self._open.discard(self)

    def _claim_inline(self, n: int, now: float, *, marked: bool) -> builtins.list[LockedJob]:
        """Claim a few small jobs that are known to be due, because a thread would take three times as long."""
        if self._closed or n > MAX_INLINE_CLAIM:
            return []
        return self._claims.claim(n, now, marked=marked, inline=True)

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

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()

    def _wakeup_of(self, loop: asyncio.AbstractEventLoop) -> asyncio.Event:
        if self._wakeup is None or self._loop is not loop:
            self._loop, self._wakeup = loop, asyncio.Event()
        return self._wakeup

    @classmethod
    def _forked(cls) -> None:
        """Close the spools in a forked child, because its file descriptors hold the locks of its parent."""
        for spool in list(cls._open):
            spool._closed = "that of another process: create a spool after the fork"
            with suppress(OSError):
                spool._claims.close_files()
                os.close(spool._root)
        cls._open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=DirectorySpool._forked)
