"""`RecordingSink`: a server that accepts everything and shows what it got.

    async with RecordingSink() as sink:
        await send_the_newsletter(sink.host, sink.port)
        first, *_ = await sink.wait_for_messages(3)
        assert first.subject == "News"
        assert [m.rcpt_tos for m in sink.to("bob@example.org")] == [["bob@example.org"]]
        print(sink.flights, "round trips for", len(sink.messages), "messages")

It is a `ScriptedServer` whose defaults suit watching instead of checking: it keeps no raw bytes, and offers
whatever extension a client may want to use. Everything else of the server works here too, `on` included.
"""

from __future__ import annotations

from typing import Any, Final

from .dialogue import STANDARD_EXTENSIONS
from .records import ReceivedMessage
from .server import ScriptedServer

GENEROUS_EXTENSIONS: Final = (*STANDARD_EXTENSIONS, "BINARYMIME")


class RecordingSink(ScriptedServer):
    """An always accepting server; see the module's documentation."""

    def __init__(self, **options: Any) -> None:
        """Prepare a sink; `async with` starts it.

        Args:
            options: Any of `ScriptedServer`'s.
        """
        super().__init__(**{"extensions": GENEROUS_EXTENSIONS, "keep_raw": False, **options})

    @property
    def last(self) -> ReceivedMessage:
        """The newest message.

        Raises:
            LookupError: There is none yet.
        """
        if not self.messages:
            raise LookupError("no message was received yet")
        return self.messages[-1]

    def to(self, address: str) -> list[ReceivedMessage]:
        """All messages for a recipient.

        Args:
            address: Compared without regard to case.
        """
        return [m for m in self.messages if address.lower() in (r.lower() for r in m.rcpt_tos)]

    def clear(self) -> None:
        """Forget messages, commands and violations; connections are kept."""
        self.messages.clear()
        self.commands.clear()
        self.violations.clear()
