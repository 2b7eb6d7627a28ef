"""A server process in a directory of its own, which never outlives the test session."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.servers import machine

GUARD = Path(__file__).with_name("guard.py")


def new_directory(name: str) -> Path:
    """A new temporary directory that servers may look into, whatever user they run as."""
    directory = Path(tempfile.mkdtemp(prefix=f"smtp-async-{name}-"))
    directory.chmod(0o755)
    return directory


class Daemon:
    """A server that runs in the foreground, under the eye of `guard.py`.

    Attributes:
        directory: Everything the server has and writes; removed when it is stopped.
        output: What the server printed.
    """

    def __init__(self, directory: Path, command: Sequence[str | Path]) -> None:
        self.directory = directory
        self.output = directory / "output"
        guarded = [sys.executable, "-E", "-S", GUARD, directory, *command]
        with self.output.open("wb") as output:
            self._guard = subprocess.Popen(
                [os.fspath(word) for word in guarded],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=directory,
            )

    @property
    def ended(self) -> bool:
        """Has the server ended by itself?"""
        return (self.directory / "ended").exists() or self._guard.poll() is not None

    def wait_ready(self, ready: Callable[[], bool], *, log: Path | None = None, timeout: float = 15) -> None:
        """Returns when the server is ready; stops it and shows what it said if it does not get there.

        Raises:
            RuntimeError: the server ended, or was not ready in time.
        """
        try:
            machine.wait_until(lambda: self.ended or ready(), timeout=timeout, what=lambda: "not ready")
            if not self.ended:
                return
            reason = "the server ended"
        except TimeoutError as error:
            reason = str(error)
        said = [file.read_text(errors="replace") for file in (self.output, log) if file and file.exists()]
        self.stop()
        raise RuntimeError("\n".join([reason, *said]))

    def stop(self) -> None:
        """Ends the server and removes its directory."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
