"""How many messages may be on their way unanswered: a slow-start window.

With CHUNKING a whole message is one write, and the next may follow before the first is answered. The window starts
at one message, doubles with each accepted one up to its bound, and falls to one after any refusal: servers count
refusals and hang up after some, and the messages behind that must be sent again. After a refusal the next message is
also sent envelope first, until one is accepted.

Two more bounds keep both sides from blocking each other: the octets on their way, and the replies owed, which must
fit into the buffers of this side, because the server would otherwise stop reading.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Window"]

#: Octets of messages that are written and not answered.
MAX_OCTETS: Final = 1024 * 1024
#: Replies owed: at 256 octets each they fit into 64 KiB.
MAX_REPLIES: Final = 256
#: Without CHUNKING a message waits for its 354, so one is being answered while the next is being written.
_WITHOUT_CHUNKING: Final = 2


class Window:
    """The messages on their way over one connection.

    Args:
        most: the most messages; with 1, a message in chunks waits until the one before it is answered.

    Attributes:
        size: how many may be on their way now.
        cautious: was the last answer a refusal?
        messages: how many are on their way.
    """

    __slots__ = ("_most", "_octets", "cautious", "messages", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._octets = 0
        self.size = 1
        self.cautious = False
        self.messages = 0

    def admits(self, octets: int | None, *, chunked: bool, replies: int) -> bool:
        """May one more message be begun?

        Args:
            octets: the size of the message; None if it is streamed, which needs an empty window.
            chunked: is it written with BDAT?
            replies: how many replies would be owed with it.
        """
        if not self.messages:
            return True
        if octets is None or self._octets + octets > MAX_OCTETS or replies > MAX_REPLIES:
            return False
        most = self.size
        if most < _WITHOUT_CHUNKING and not chunked:
            most = _WITHOUT_CHUNKING
        return self.messages < most

    def began(self, octets: int | None) -> None:
        """Count a message that is being written."""
        self.messages += 1
        self._octets += octets or 0

    def ended(self, octets: int | None, *, accepted: bool) -> None:
        """Count a message that has its outcome; `accepted`: did the server take it?"""
        self.messages -= 1
        self._octets -= octets or 0
        if accepted:
            self.cautious = False
            if self.size < self._most:
                self.size = min(self._most, self.size * 2)
        else:
            self.cautious = True
            self.size = 1
