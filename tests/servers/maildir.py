"""The mail that a server delivered, read from its Maildirs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.servers.machine import wait_until


class Mailbox:
    """Maildirs that a server fills and a test reads.

    Waiting is on a condition with a deadline, and blocks: in a coroutine whose event loop must go on
    meanwhile, call it through `asyncio.to_thread`.
    """

    def __init__(self, *maildirs: Path, in_flight: Callable[[], Sequence[Path]] = tuple) -> None:
        """Reads `maildirs`; `in_flight` tells what the server has accepted and not delivered yet."""
        self._maildirs = maildirs
        self._in_flight = in_flight

    def settle(self, timeout: float = 10) -> None:
        """Returns when everything that the server has accepted is delivered."""
        wait_until(
            lambda: not self._in_flight(),
            timeout=timeout,
            what=lambda: f"not delivered yet: {[path.name for path in self._in_flight()]}",
        )

    def messages(self, timeout: float = 10) -> list[bytes]:
        """All messages, oldest first, with LF line ends; what was accepted before the call is among them."""
        self.settle(timeout)
        return self._read()

    def wait_for(self, substring: str | bytes, count: int = 1, timeout: float = 10) -> list[bytes]:
        """The messages that hold a string, as soon as there are `count` of them.

        Raises:
            TimeoutError: there were fewer after `timeout` seconds.
        """
        wanted = substring.encode() if isinstance(substring, str) else substring
        found: list[bytes] = []

        def enough() -> bool:
            found[:] = [message for message in self._read() if wanted in message]
            return len(found) >= count

        wait_until(enough, timeout=timeout, what=lambda: f"{len(found)} of {count} messages hold {wanted!r}")
        return found

    def clear(self) -> None:
        """Forgets all messages, those on their way included."""
        self.settle()
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        found = [path for maildir in self._maildirs for path in maildir.glob("[nc][eu][wr]/*")]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _read(self) -> list[bytes]:
        return [path.read_bytes() for path in self._paths()]
