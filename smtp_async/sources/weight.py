"""How much there is to render: what is small is rendered at once, what is large in a thread, beside the event loop."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["HEAVY", "LONG", "is_heavy"]

#: Octets whose rendering is a thread's work: at once it would hold up the event loop for milliseconds.
HEAVY: Final = 1 << 18
#: Octets of a complete message that are read like a file: in slices, in a thread.
LONG: Final = 1 << 20
#: Parts of an object that are looked at; one that has more is heavy.
_PARTS: Final = 1000

# Once: a union made for each question would cost more than all the rest.
_IN_MEMORY: Final = (str, bytes, bytearray, memoryview)


def is_heavy(message: Any) -> bool:
    """Is there more in memory, of a `Message` or an `email.message.Message`, than is rendered at once?"""
    attachments = getattr(message, "attachments", None)
    if attachments is None:
        return hasattr(message, "get_payload") and _is_heavy_object(message)
    text, html = getattr(message, "text", None), getattr(message, "html", None)
    octets = len(text) if isinstance(text, _IN_MEMORY) else 0
    if html is not None:
        octets += _size(html)
    if attachments:
        octets += sum([_size(getattr(attachment, "source", None)) for attachment in attachments])
    return octets > HEAVY


def _is_heavy_object(message: Any) -> bool:
    """Add up the bodies of an `email.message.Message`, as far as needed: its parts may go round in a circle."""
    octets, parts = 0, [message]
    for _ in range(_PARTS):
        if not parts or octets > HEAVY:
            return octets > HEAVY
        # `get_payload` would decode each body, in whatever charset it declares.
        payload = getattr(parts.pop(), "_payload", None)
        if isinstance(payload, list):
            parts += payload
        octets += _size(payload)
    return True


def _size(value: Any) -> int:
    return len(value) if isinstance(value, _IN_MEMORY) else 0
