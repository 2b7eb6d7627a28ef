"""A fast SMTP server that records what it has accepted, and kills its client on request."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from typing import Self

from tests.torture import letters

#: The moments at which it can kill: after MAIL, 354, a part of the body; accepted, and not answered; answered.
MOMENTS = ("mail", "rcpt", "data", "body", "dot", "reply")
_WISH = re.compile(rb"EHLO kill-([a-z]+)-([0-9]+)\.p([0-9]+)\.")


class Recorder:
    """A recording SMTP server.

    Args:
        kill: kills a process; returns False if the process may not be killed.

    Attributes:
        copies: number of times each (number, place) was accepted.
        spoilt: numbers of messages that did not arrive as they were put.
        refused: number of times each recipient was refused temporarily.
        kills: number of clients that were killed.
    """

    def __init__(self, kill: Callable[[int], bool] = lambda pid: False) -> None:
        self._kill = kill
        self.copies: Counter[tuple[int, int]] = Counter()
        self.refused: Counter[tuple[int, int]] = Counter()
        self.spoilt: list[int] = []
        self.kills = 0
        self.accepted = 0
        self.host = "127.0.0.1"
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._open: set[asyncio.Transport] = set()
        self._closing = False
        self._closed = asyncio.Event()
        self._server = await loop.create_server(lambda: _Conversation(self), self.host, 0, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *details: object) -> None:
        self._closing = True
        # A server that is closed forgets a connection that it has accepted and not yet handed over, which takes two
        # turns of the loop. So it takes no more, and is closed after that.
        asyncio.get_running_loop().remove_reader(self._server.sockets[0].fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        self._server.close()
        for transport in list(self._open):
            transport.abort()
        while self._open:
            self._closed.clear()
            await self._closed.wait()
        await self._server.wait_closed()

    def take_after(self, other: Recorder) -> None:
        """Start with the records of another recorder."""
        self.copies = other.copies.copy()
        self.refused = other.refused.copy()

    def answer(self, address: str) -> tuple[int, int] | bytes:
        """Return number and place of an accepted recipient, or the reply that refuses it."""
        number, place, fate = letters.read_address(address)
        if fate == letters.NEVER:
            return b"550 5.1.1 nobody of this name\r\n"
        if fate == letters.LATER and not self.refused[number, place]:
            self.refused[number, place] += 1
            return b"450 4.2.1 later\r\n"
        return number, place

    def accept(self, taken: list[tuple[int, int]], data: bytes) -> None:
        self.accepted += 1
        for number, place in taken:
            self.copies[number, place] += 1
        number = taken[0][0]
        if data != letters.body(number):
            self.spoilt.append(number)


class _Conversation(asyncio.Protocol):
    """One connection: a state machine that supports pipelining."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._buffer = bytearray()
        self._searched = 0
        self._in_body = False
        self._taken: list[tuple[int, int]] = []
        self._wish = b""
        self._count = 0
        self._pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._recorder._open.add(transport)
        if self._recorder._closing:
            transport.abort()
        else:
            transport.write(b"220 recorder.test\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self._recorder._open.discard(self._transport)
        self._recorder._closed.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Process one line or one body; return False if none is complete."""
        buffer = self._buffer
        if self._in_body:
            # The line end behind the DATA command counts as the one before the dot.
            end = 0 if buffer.startswith(b".\r\n") else buffer.find(b"\r\n.\r\n", max(0, self._searched - 4))
            if end < 0:
                self._searched = len(buffer)
                self._reach(b"body")
                return False
            text = bytes(buffer[: end + 2 if end else 0])
            del buffer[: end + 5 if end else 3]
            self._finish(text)
            return True
        end = buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        self._command(line)
        return True

    def _finish(self, text: bytes) -> None:
        self._in_body = False
        data = text[1:] if text.startswith(b".") else text
        self._recorder.accept(self._taken, data.replace(b"\r\n.", b"\r\n"))
        self._taken = []
        self._reach(b"dot")
        self._transport.write(b"250 2.0.0 queued\r\n")
        self._reach(b"reply")

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        reply = b"250 2.0.0 ok\r\n"
        if verb == b"EHLO":
            reply = b"250-recorder.test\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n"
            if match := _WISH.match(line):
                self._wish, self._count, self._pid = match[1], int(match[2]), int(match[3])
        elif verb == b"MAIL":
            self._taken = []
            self._reach(b"mail")
        elif verb == b"RCPT":
            answer = self._recorder.answer(line[line.index(b"<") + 1 : line.rindex(b">")].decode())
            self._reach(b"rcpt")
            if isinstance(answer, bytes):
                reply = answer
            else:
                self._taken.append(answer)
        elif verb == b"DATA":
            self._in_body, self._searched = bool(self._taken), 0
            reply = b"354 go\r\n" if self._taken else b"554 5.5.1 no valid recipients\r\n"
            self._reach(b"data")
        elif verb == b"RSET":
            self._taken = []
        elif verb == b"QUIT":
            self._transport.write(b"221 2.0.0 bye\r\n")
            self._transport.close()
            return
        self._transport.write(reply)

    def _reach(self, moment: bytes) -> None:
        if moment != self._wish:
            return
        self._count -= 1
        if not self._count:
            self._recorder.kills += self._recorder._kill(self._pid)
