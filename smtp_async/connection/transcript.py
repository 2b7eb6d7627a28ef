"""The events of one connection: recorded when they happen, and published to hooks by the connection's task.

Noting is synchronous, because most of what happens does so where nothing may be awaited. An event is made only if a
hook wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ..errors import CommandRefused, SMTPError, status_code
from ..events import (
    Abandoned,
    ConnectionKind,
    ConnectionStatus,
    Direction,
    Error,
    Event,
    Expand,
    Negotiated,
    Notification,
    PITrail,
    SSLStatus,
)
from ..hooks import Hooks, trail_events
from ..model.address import Address
from ..model.receipt import Receipt
from ..model.reply import printable
from ..protocol.line_recorder import RecordedLine
from ..protocol.pipelining_history import Breakdown

__all__ = ["Transcript"]

#: Name and text of the notification.
_NOTICES: Final[Mapping[Breakdown | None, tuple[str, str]]] = {
    Breakdown.MISMATCHED: (
        "pipelining-off",
        "the replies did not match the pipelined commands: for ten minutes one command at a time",
    ),
    Breakdown.NOT_FOLLOWED: (
        "pipelining-reduced",
        "the server does not answer what is written behind an end of data: for ten minutes nothing is",
    ),
}


def _ignore() -> None:
    """Do nothing, in place of what was to be called."""


class Transcript:
    """The events of one connection that hooks have not heard yet.

    Args:
        number: the connection's, for events.
        hooks: the registered observers.
        wake: has the connection's task look for events to tell.

    Attributes:
        events: noted and not told yet, in order.
    """

    __slots__ = ("_heard", "_hooks", "_number", "_via", "_wake", "_waits", "events")

    def __init__(self, number: int, hooks: Hooks, wake: Callable[[], None]) -> None:
        self.events: list[Event] = []
        self._number = number
        self._hooks = hooks
        self._wake = wake
        # Set when the events that an upload waits for were told; and whether uploads wait at all.
        self._heard: asyncio.Future[None] | None = None
        self._waits = True
        self._via = ""

    # --- telling ---------------------------------------------------------------------------------------------

    async def tell(self) -> None:
        """Call the hooks with what was noted, in order; what they cause to be noted follows."""
        try:
            while self.events:
                events, self.events = self.events, []
                await self._hooks.tell(events)
        finally:
            self._wake_uploads()

    async def wait_told(self) -> None:
        """Have the connection's task tell what was noted, and wait until it has: a slow hook slows its connection."""
        while self.events and self._waits:
            self._heard = asyncio.get_running_loop().create_future()
            self._wake()
            await self._heard

    def end_waiting(self) -> None:
        """Wake the uploads that wait for hooks, because the connection has ended."""
        self._waits = False
        # Breaks the reference cycle between the transcript and the channel, so that both are freed at once.
        self._wake = _ignore
        self._wake_uploads()

    def _wake_uploads(self) -> None:
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    # --- noting ----------------------------------------------------------------------------------------------

    def wants(self, event: type[Event]) -> bool:
        """Is a hook registered for `event`?"""
        return self._hooks.active and self._hooks.wants(event)

    def note(self, event: Event) -> None:
        """Keep `event` for the next `tell`; make it only if a hook `wants` it."""
        self.events.append(event)

    def note_lines(self, lines: Iterable[RecordedLine]) -> None:
        """Note what hooks want to know of `lines` of the dialogue."""
        wants = self._hooks.wants
        for line in lines:
            self.events += [event for event in trail_events(line, self._number) if wants(type(event))]

    def remark(self, message: str, *words: object) -> None:
        """Note a line that the library itself adds to the dialogue (`Direction.INFO`).

        Args:
            message: the line, never a secret; `%s` stands for one of `words`, put in only if a hook wants the line.
        """
        if self.wants(PITrail):
            text = printable(message % words)
            self.note(PITrail(session=self._number, direction=Direction.INFO, message=text))

    def status(
        self, kind: ConnectionKind, *, code: int = 0, description: str, info: Negotiated | None = None
    ) -> None:
        """Note that the connection or its TLS layer came up or went down."""
        if self.wants(ConnectionStatus):
            self.note(
                ConnectionStatus(
                    session=self._number, kind=kind, status_code=code, description=description, info=info
                )
            )

    def proxied(self, via: str) -> None:
        """Note that the proxies `via` have connected to the server."""
        self._via = via
        self.status(ConnectionKind.PROXY_UP, description=via)

    def notify(self, name: str, parameter: str, remark: str) -> None:
        """Note a step that has no event class of its own; `remark` is its line, with `%s` for the parameter."""
        self.remark(remark, parameter)
        if self.wants(Notification):
            self.note(Notification(session=self._number, name=name, parameter=parameter))

    def tls_step(self, message: str, *words: object) -> None:
        """Note a step of TLS: an event of its own, and a line among those of the dialogue."""
        self.remark(message, *words)
        if self.wants(SSLStatus):
            self.note(SSLStatus(session=self._number, message=message % words))

    def members(self, addresses: Iterable[Address]) -> None:
        """Note each member of a mailing list."""
        if self.wants(Expand):
            self.events += [Expand(session=self._number, address=address) for address in addresses]

    def breakdown(self, breakdown: Breakdown | None) -> None:
        """Note what the end of the connection means for the next ones, where that is certain."""
        notice = _NOTICES.get(breakdown)
        if notice is not None:
            self.notify(*notice, "%s")

    def error(self, error: SMTPError) -> None:
        """Note what failed."""
        if self.wants(Error):
            self.note(Error(session=self._number, code=error.code, description=str(error)))

    def closed(self, server: str, error: SMTPError | None) -> None:
        """Note that the connection to `server` has ended, or could not be opened; `error` is None if it was closed."""
        code, description = (0, "closed") if error is None else (status_code(error), str(error))
        if error is None:
            self.remark("the connection to %s is closed", server)
        else:
            self.remark("the connection to %s has ended: %s", server, error)
        self.status(ConnectionKind.DISCONNECTED, code=code, description=description)
        if self._via:
            self.status(ConnectionKind.PROXY_DOWN, code=code, description=self._via)

    def receipt(self, job: int, receipt: Receipt, *, abandoned: bool) -> None:
        """Note each refused recipient of a message, and the receipt itself where no caller waits for it any more."""
        if self.wants(Error):
            for verdict in receipt.refused:
                self.note(
                    Error(
                        session=self._number,
                        job=job,
                        code=CommandRefused.code,
                        description=str(verdict.reply),
                        recipient=verdict.recipient,
                    )
                )
        if abandoned and self.wants(Abandoned):
            self.note(Abandoned(session=self._number, job=job, receipt=receipt))
