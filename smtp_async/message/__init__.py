"""Builds and renders messages, which is where they are written; `mail/` takes messages of any kind for sending.

There is no network here, and only `Message.as_bytes` reads files.
"""

from __future__ import annotations

from .attachment import Attachment
from .builder import Message
from .optional_fields import Importance, Priority, Sensitivity, XPriority

__all__ = ["Attachment", "Importance", "Message", "Priority", "Sensitivity", "XPriority"]
