"""Building a message and rendering it to content. No network, and no file is read but for `Message.as_bytes`."""

from __future__ import annotations

from .attachment import Attachment
from .builder import Message
from .optional_fields import Importance, Priority, Sensitivity, XPriority

__all__ = ["Attachment", "Importance", "Message", "Priority", "Sensitivity", "XPriority"]
