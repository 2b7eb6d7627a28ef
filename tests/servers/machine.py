"""What this machine offers to the tests: programs, root, free ports; and what a test does without them."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

HOST = "127.0.0.1"
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

#: Marks of tests that need what not every system has.
needs_modes = pytest.mark.skipif(os.name != "posix", reason="modes and owners of files are those of POSIX")
needs_named_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes in a directory")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the open files cannot be listed")


def unavailable(reason: str) -> NoReturn:
    """Skips the test that asked for a server; fails it where SMTP_ASYNC_REQUIRE_SERVERS=1."""
    if os.environ.get("SMTP_ASYNC_REQUIRE_SERVERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str) -> Path:
    """Where a program is; without it the test that asked is skipped."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        unavailable(f"{name} is not installed (tests/servers/install.sh installs it)")
    return Path(found)


def require_root(what: str) -> None:
    """Skips the test that asked when we are not root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        unavailable(f"{what} can only be started by root")


def lock(file: IO[Any], *, wait: bool = True) -> None:
    """Locks a file against other processes; without `wait`, one that is locked is an OSError."""
    # Windows has no such module, and runs tests that need no server.
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Free ports of 127.0.0.1, held for a server that is about to start.

    Held: nobody is given the same port before the block ends. A bound socket that does not listen keeps the
    port from the kernel's own choices, and lets through a server that sets SO_REUSEADDR, as they all do.
    """
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind((HOST, 0))
            # After bind: set before, two test sessions could be given the same port.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def wait_until(condition: Callable[[], bool], *, timeout: float, what: Callable[[], str]) -> None:
    """Returns as soon as the condition holds.

    Raises:
        TimeoutError: it did not within `timeout` seconds; `what` says what was missing.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s: {what()}")
        time.sleep(0.01)  # between two looks at something that cannot be waited for


def listening(port: int) -> bool:
    """Does a server accept connections on this port of 127.0.0.1?"""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
