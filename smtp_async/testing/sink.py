"""`RecordingSink`: a server that accepts everything and shows what it received.

    async with RecordingSink() as sink:
        await send_the_newsletter(sink.host, sink.port)
        first, *_ = await sink.wait_for_messages(3)
        assert first.subject == "News"
        assert [m.rcpt_tos for m in sink.to("bob@example.org")] == [["bob@example.org"]]
        print(sink.flights, "round trips for", len(sink.messages), "messages")

It is a `ScriptedServer` with other defaults: it keeps no raw bytes, and offers every extension that a client may use.
All other methods of the server, `on` included, work as there.
"""

from __future__ import annotations

from typing import Any, Final

from .dialogue import STANDARD_EXTENSIONS
from .records import ReceivedMessage
from .server import ScriptedServer

GENEROUS_EXTENSIONS: Final = (*STANDARD_EXTENSIONS, "BINARYMIME")


class RecordingSink(ScriptedServer):
    """A server that accepts everything; see the module's documentation."""

    def __init__(self, **options: Any) -> None:
        """Prepare a sink; `async with` starts it.

        Args:
            options: Arguments of `ScriptedServer`.
        """
        super().__init__(**{"extensions": GENEROUS_EXTENSIONS, "keep_raw": False, **options})

    @property
    def last(self) -> ReceivedMessage:
        """The newest message.

        Raises:
            LookupError: No message was received yet.
        """
        if not self.messages:
            raise LookupError("no message was received yet")
        return self.messages[-1]

    def to(self, address: str) -> list[ReceivedMessage]:
        """Return all messages for a recipient.

        Args:
            address: The recipient, in upper or lower case.
        """
        return [m for m in self.messages if address.lower() in (r.lower() for r in m.rcpt_tos)]

    def clear(self) -> None:
        """Forget messages, commands and violations; connections are kept."""
        self.messages.clear()
        self.commands.clear()
        self.violations.clear()
