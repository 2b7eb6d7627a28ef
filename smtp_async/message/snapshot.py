"""`Snapshot`: a frozen copy of a message's attributes for rendering, which no other task can change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..model.address import Address
from ..model.content import Origin
from ..model.envelope import Recipient
from .attachment import Attachment

__all__ = ["GeneratedValues", "MessageID", "Snapshot"]

#: A text, or a callable that returns one; None: random; empty: no Message-ID.
MessageID = str | Callable[[], str] | None


class GeneratedValues(NamedTuple):
    """Values that are made once per message, so that they are the same in every rendering."""

    seconds: float
    random: str
    boundary: str
    #: A callable that made a Message-ID, and the Message-ID.
    made: tuple[Callable[[], str], str] | None = None


class Snapshot:
    """The attributes of a message at one moment; see `Message` for their meaning.

    Attributes:
        rare: the fields that few messages set; None if there are none.
        generated: the values that are made once; None if the message was never rendered.
    """

    # A plain slotted class: its attributes are read about thirty times per message, and CPython reads a slot three
    # times as fast as a field of a named tuple.
    __slots__ = (
        "attachments",
        "authors",
        "date",
        "headers",
        "html",
        "generated",
        "message_id",
        "rare",
        "recipients",
        "reply_to",
        "sender",
        "subject",
        "text",
    )

    def __init__(
        self,
        generated: GeneratedValues | None,
        sender: Address | None,
        authors: tuple[Address, ...],
        reply_to: tuple[Address, ...],
        recipients: tuple[Recipient, ...],
        subject: str | None,
        text: str | bytes | Origin | None,
        html: str | bytes | Origin | None,
        attachments: tuple[Attachment, ...],
        headers: tuple[tuple[str, str], ...],
        date: datetime | str | None,
        message_id: MessageID,
        rare: Mapping[str, Any] | None,
    ) -> None:
        self.generated = generated
        self.sender = sender
        self.authors = authors
        self.reply_to = reply_to
        self.recipients = recipients
        self.subject = subject
        self.text = text
        self.html = html
        self.attachments = attachments
        self.headers = headers
        self.date = date
        self.message_id = message_id
        self.rare = rare
