"""How much there is to render: what is small is rendered at once, what is large in a thread, beside the event loop."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["HEAVY", "LONG", "is_heavy"]

#: Octets whose rendering is a thread's work: at once it would hold up the event loop for milliseconds.
HEAVY: Final = 1 << 18
#: Octets of a complete message that are read like a file: in slices, in a thread.
LONG: Final = 1 << 20

# Once: a union made for each question would cost more than all the rest.
_IN_MEMORY: Final = (str, bytes, bytearray, memoryview)


def is_heavy(message: Any) -> bool:
    """Is there more in memory, of a `Message` or an `email.message.Message`, than is rendered at once?"""
    if hasattr(message, "get_payload"):
        return sum([_size(part.get_payload()) for part in message.walk()]) > HEAVY
    octets = _size(getattr(message, "text", None)) + _size(getattr(message, "html", None))
    for attachment in getattr(message, "attachments", ()):
        octets += _size(getattr(attachment, "source", None))
    return octets > HEAVY


def _size(value: Any) -> int:
    return len(value) if isinstance(value, _IN_MEMORY) else 0
