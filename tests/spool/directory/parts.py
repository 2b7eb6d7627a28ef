"""The parts of a spool directory as one process has them, for tests of a single part; and how such a process dies."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from smtp_async.spool.contract import KEY_RETENTION, Lease
from smtp_async.spool.directory.admin import Admin
from smtp_async.spool.directory.claim import Claims
from smtp_async.spool.directory.due_queue import DueQueue
from smtp_async.spool.directory.enqueue import Enqueuer, Stored
from smtp_async.spool.directory.job_files import JobFiles, LockedJob
from smtp_async.spool.directory.keys import KEYS, KeyMemory
from smtp_async.spool.directory.lease import DirectoryLease
from smtp_async.spool.directory.limits import DEFAULT_LIMITS, DirectoryLimits
from smtp_async.spool.directory.syscalls import SystemCalls, open_directory
from smtp_async.spool.submission import JobOptions, submission
from smtp_async.testing.contracts import TEXT
from tests.lab import until

_C = TypeVar("_C", bound=SystemCalls)


class Parts(Generic[_C]):
    """The parts of one spool directory, without the asyncio side.

    Args:
        path: the directory, which is created.
        make: makes the system calls.
        durable: sync what is written.
        limits: the sizes at which the directory changes how it works.
    """

    def __init__(
        self,
        path: Path,
        make: Callable[..., _C],
        *,
        durable: bool = True,
        limits: DirectoryLimits = DEFAULT_LIMITS,
    ) -> None:
        self.path = path
        self.root = open_directory(path, create=True)
        self.syscalls: _C = make(self.root, durable=durable)
        self.due_queue = DueQueue(self.syscalls, poll=1.0, most=limits.jobs_in_memory)
        self.keys = KeyMemory(self.syscalls, lambda: KEY_RETENTION, limits.keys)
        self.files = JobFiles(self.syscalls, self.due_queue, self.keys)
        self.enqueuer = Enqueuer(self.files, low_water=0, root_files=limits.root_files)
        self.claims = Claims(self.files)
        self.admin = Admin(self.files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.claims.close()
        os.close(self.root)

    async def put(self, body: bytes = TEXT, key: str | None = None, **options: Any) -> str:
        """Put a message, and return the id."""
        job = await submission(body, "a@x.test", ["b@x.test", "c@x.test"], options=JobOptions(key, **options))
        (stored,) = self.enqueuer.put([job])
        assert isinstance(stored, Stored), stored
        self.due_queue.push(job.not_before, stored.path or stored.id)
        return stored.id

    def claim(self, n: int = 1, *, now: float | None = None) -> list[LockedJob]:
        """Claim up to `n` jobs."""
        return self.claims.claim(n, time.time() if now is None else now, marked=False)


def die(lease: Lease) -> None:
    """Act as if the process that holds a lease had died."""
    assert isinstance(lease, DirectoryLease)
    lease.abandon()


async def until_closed(path: Path) -> None:
    """Wait until the files of jobs that are gone were closed, which happens after their caller was told."""
    await until(lambda: not open_files_of_gone_jobs(path))


def open_files_of_gone_jobs(path: Path) -> list[str]:
    """Return the files of jobs that are gone and that this process has open, where the system lists them."""
    found = []
    for fd in Path("/proc/self/fd").glob("*"):
        with suppress(FileNotFoundError):
            link = os.readlink(fd)
            if link.startswith(f"{path}/{KEYS}/") or (
                link.startswith(f"{path}/") and link.endswith(" (deleted)")
            ):
                found.append(link)
    return found
