"""Runs one server for a test session and ends it with that session, however the session ends.

    guard.py DIRECTORY COMMAND...

The test session holds the other end of this process's standard input. When that end is closed, by a fixture's
finalizer or by the death of the session, everything that descends from the command is ended and DIRECTORY is
removed. If the server ends by itself, DIRECTORY/ended appears and everything else stays readable.

Mail servers leave their process group and their parent behind. As a "child subreaper" (Linux) this process
becomes the parent of whatever they orphan, so that none of it escapes.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 5.0


def parents() -> dict[int, int]:
    """The parent of every process on this machine."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        found[int(status.parent.name)] = int(fields[1])
    return found


def descendants(ancestor: int) -> set[int]:
    """All processes that come from this one."""
    parent_of = parents()
    found = {ancestor}
    while new := {child for child, parent in parent_of.items() if parent in found} - found:
        found |= new
    return found - {ancestor}


def end_descendants() -> None:
    """Asks everything that was started here to end, and after some patience ends it."""
    deadline = time.monotonic() + PATIENCE
    asked: set[int] = set()
    while running := descendants(os.getpid()):
        late = time.monotonic() > deadline
        for process in running if late else running - asked:
            try:
                os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
            except ProcessLookupError:
                pass
        asked |= running
        time.sleep(0.01)


def main(directory: str, *command: str) -> None:
    """Starts the command, waits for the end of standard input, ends what was started."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    session_over = threading.Event()
    server = 0

    def watch_input() -> None:
        while os.read(0, 1024):
            pass
        session_over.set()

    def reap(*_: object) -> None:
        try:
            while child := os.waitpid(-1, os.WNOHANG)[0]:
                if child == server:
                    Path(directory, "ended").touch()
        except ChildProcessError:
            pass

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: session_over.set())
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL).pid
    signal.signal(signal.SIGCHLD, reap)
    reap()  # it may have ended before anyone was listening
    threading.Thread(target=watch_input, daemon=True).start()
    session_over.wait()
    end_descendants()
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
