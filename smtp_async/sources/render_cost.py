"""Estimates the work to render a message: a small one is rendered in the event loop, a large one in a thread."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["HEAVY", "LONG", "is_heavy"]

#: Octets from which a message is rendered in a thread, because it would block the event loop for milliseconds.
HEAVY: Final = 1 << 18
#: Octets from which a complete message is read like a file: in slices, in a thread.
LONG: Final = 1 << 20
#: Parts of an object that are counted; an object with more is heavy.
_PARTS: Final = 1000

# Made once, because making a union for each call would cost more than the rest of the call.
_IN_MEMORY: Final = (str, bytes, bytearray, memoryview)


def is_heavy(message: Any) -> bool:
    """Tell whether a `Message` or `email.message.Message` is too large in memory to be rendered in the event loop."""
    try:
        text, html, attachments = message.text, message.html, message.attachments
    except AttributeError:
        return hasattr(message, "get_payload") and _is_heavy_object(message)
    octets = len(text) if isinstance(text, _IN_MEMORY) else 0
    if html is not None:
        octets += _size(html)
    if attachments:
        octets += sum([_size(getattr(attachment, "source", None)) for attachment in attachments])
    return octets > HEAVY


def _is_heavy_object(message: Any) -> bool:
    """Add up the bodies of an `email.message.Message` up to a limit, because its parts may form a cycle."""
    octets, parts = 0, [message]
    for _ in range(_PARTS):
        if not parts or octets > HEAVY:
            return octets > HEAVY
        # Not `get_payload`, which would decode each body in the charset that it declares.
        payload = getattr(parts.pop(), "_payload", None)
        if isinstance(payload, list):
            parts += payload
        octets += _size(payload)
    return True


def _size(value: Any) -> int:
    return len(value) if isinstance(value, _IN_MEMORY) else 0
