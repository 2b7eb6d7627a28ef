"""What the page and the JSON interface tell of one message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...model.reply import printable
from .html_view import refers_outside
from .mailbox import Caught
from .parts import ReadMessage

__all__ = ["details"]

#: The most characters of a text that are told; the source has the rest.
MOST_TEXT: Final = 2_000_000


def details(message: Caught, read: ReadMessage) -> dict[str, Any]:
    """Return everything about a message but the content of its files and its HTML, for JSON."""
    received = message.received
    text = read.text
    return message.summary() | {
        "cc": read.field("Cc"),
        "reply_to": read.field("Reply-To"),
        "date": read.field("Date"),
        "message_id": read.field("Message-ID"),
        "headers": read.fields,
        "text": None if text is None else text[:MOST_TEXT],
        "has_html": read.html is not None,
        "refers_outside": read.html is not None and refers_outside(read.html),
        "files": [
            {
                "number": part.number,
                "filename": part.filename,
                "content_type": part.content_type,
                "size": len(part.data),
                "inline": part.inline,
            }
            for part in read.files
        ],
        "envelope": {
            "sender": printable(received.mail_from, 400),
            "parameters": _parameters(received.mail_parameters),
            "recipients": [
                {"address": printable(address, 400), "parameters": _parameters(parameters)}
                for address, parameters in zip(received.rcpt_tos, received.rcpt_parameters, strict=False)
            ],
            "tls": received.tls,
            "user": None if received.user is None else printable(received.user),
            "chunked": received.chunked,
        },
        "dialogue": [line._asdict() for line in message.dialogue],
    }


def _parameters(parameters: Mapping[str, str]) -> str:
    return printable(
        " ".join(f"{name}={value}" if value else name for name, value in parameters.items()), 400
    )
