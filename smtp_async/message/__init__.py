"""Building a message and rendering it to content, without a network; only `Message.as_bytes` reads files."""

from __future__ import annotations

from .attachment import Attachment
from .builder import Message
from .optional_fields import Importance, Priority, Sensitivity, XPriority

__all__ = ["Attachment", "Importance", "Message", "Priority", "Sensitivity", "XPriority"]
