"""Building a message and rendering it to content. No network, and no file is read."""

from __future__ import annotations

from .builder import Attachment, Message

__all__ = ["Attachment", "Message"]
