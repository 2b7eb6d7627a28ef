"""A message that was rendered before it is sent: an envelope, and content that is the same for every server."""

from __future__ import annotations

from ..model.content import Content
from ..model.envelope import Envelope
from ..sources import Body

__all__ = ["RenderedMail"]


class RenderedMail:
    """A `Mail` whose content does not depend on the extensions of the server.

    Args:
        envelope: the sender and the recipients.
        content: what is sent.
    """

    __slots__ = ("_content", "_envelope")

    def __init__(self, envelope: Envelope, content: Content) -> None:
        self._envelope = envelope
        self._content = content

    def envelope(self) -> Envelope:
        """Return the envelope."""
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content, whatever the server takes."""
        return self._content

    def close(self) -> None:
        """Close the sources of a message that is not sent, as far as that needs no waiting."""
        Body(self._content).close()

    async def aclose(self) -> None:
        """Close the sources, also those that have to be awaited."""
        await Body(self._content).aclose()
