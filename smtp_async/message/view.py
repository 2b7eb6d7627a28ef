"""The frozen view of a message from which it is rendered, so that no other task can change it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..model.address import Address
from ..model.content import Origin
from ..model.envelope import Recipient
from .attachment import Attachment

__all__ = ["Identity", "MessageID", "View"]

#: None: drawn at random; a text; or what makes one. Empty: none.
MessageID = str | Callable[[], str] | None


class Identity(NamedTuple):
    """Values that are drawn once per message, so that every rendering of it has the same."""

    seconds: float
    random: str
    boundary: str
    #: A callable that made a Message-ID, and what it made.
    made: tuple[Callable[[], str], str] | None = None


class View(NamedTuple):
    """The attributes of a message at one moment; see `Message` for their meaning.

    Attributes:
        rare: the fields that few messages set, None if none is.
        identity: None if it was never rendered.
    """

    identity: Identity | None
    sender: Address | None
    authors: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    recipients: tuple[Recipient, ...]
    subject: str | None
    text: str | bytes | Origin | None
    html: str | bytes | Origin | None
    attachments: tuple[Attachment, ...]
    headers: tuple[tuple[str, str], ...]
    date: datetime | str | None
    message_id: MessageID
    rare: Mapping[str, Any] | None
