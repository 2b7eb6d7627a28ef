"""A process that has imported everything and forks others: a hundred per second instead of two.

    async with Template() as template:
        child = await template.start(spec)
        status = await child.ended()

It reads specs as lines of JSON and writes `started NUMBER PID` and `ended NUMBER STATUS`; a status below 0 is the
signal that killed, as for `subprocess`. The template has one thread and no event loop, so that forking is safe. When
its input ends, it kills its children and exits, so that no process outlives a test.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from tests.torture.children import Spec, live

#: Imported within functions, by the package or its dependencies.
LATE = (
    "aiohappyeyeballs",
    "anyio._backends._asyncio",
    "anyio.to_thread",
    "asyncpg",
    "concurrent.futures.thread",
    "ctypes",
    "encodings.idna",
)
ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """A process that was forked.

    Attributes:
        pid: the process id.
        status: the exit status.
    """

    def __init__(self) -> None:
        self.pid = 0
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self.status: asyncio.Future[int] = loop.create_future()

    async def ended(self) -> int:
        """Wait until the process ends."""
        return await self.status

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the process a signal, if it is alive."""
        if not self.status.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Template:
    """The template process, as seen by a test."""

    async def __aenter__(self) -> Template:
        self._forked: dict[int, Forked] = {}
        self._count = 0
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.torture.template",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *details: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def start(self, spec: Spec) -> Forked:
        """Fork a process."""
        assert self._process.stdin is not None
        self._count += 1
        forked = self._forked[self._count] = Forked()
        self._process.stdin.write(json.dumps([self._count, spec._asdict()]).encode() + b"\n")
        await forked.started
        return forked

    async def run(self, spec: Spec) -> int:
        """Fork a process and wait until it ends."""
        return await (await self.start(spec)).ended()

    def kill(self, pid: int) -> bool:
        """Kill a living process that was forked here; return False if there is none with this pid."""
        for forked in self._forked.values():
            if forked.pid == pid:
                forked.kill()
                return True
        return False

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, number, value = line.decode().split()
            forked = self._forked[int(number)]
            if word == "started":
                forked.pid = int(value)
                forked.started.set_result(None)
            else:
                del self._forked[int(number)]
                forked.status.set_result(int(value))
        for forked in self._forked.values():
            for future in (forked.started, forked.status):
                if not future.done():
                    future.set_exception(RuntimeError("the template has gone"))


# --- the template process ------------------------------------------------------------------------------------


def _fork(spec: Spec) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(0)
        os.dup2(2, 1)
        live(spec)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _say("ended", children.pop(pid), os.waitstatus_to_exitcode(status))


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main() -> None:
    """Fork processes until the input ends."""
    # Modules that clients import late are imported here, once.
    for name in LATE:
        importlib.import_module(name)
    # Deaths of workers are expected here, so they are not logged.
    logging.getLogger("smtp_async").addHandler(logging.NullHandler())
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(read, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    gc.collect()
    gc.freeze()
    children: dict[int, int] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            os.read(read, 4096)
            _reap(children)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                number, fields = json.loads(line)
                pid = _fork(Spec(**fields))
                children[pid] = number
                _say("started", number, pid)
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
