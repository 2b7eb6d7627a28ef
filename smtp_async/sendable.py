"""What can be sent: everything becomes a `Mail`, an envelope and a way to render content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .address import Address, Envelope, Recipient
from .content import Content, Mail
from .errors import InvalidArgument
from .message.foreign import ForeignMail, content_of, content_of_raw

__all__ = ["Raw", "Readdressed", "addressed", "as_mail"]


class Raw(NamedTuple):
    """A complete message for `SMTPClient.send_all`.

    Attributes:
        source: header, empty line, body.
        sender, recipients: the envelope; what is not given is read from the message's own header.
    """

    source: bytes
    sender: str | Address | None = None
    recipients: Sequence[str | Address | Recipient] | None = None


class Readdressed:
    """A mail under another envelope."""

    __slots__ = ("_envelope", "_mail")

    def __init__(self, mail: Mail, envelope: Envelope) -> None:
        self._mail = mail
        self._envelope = envelope

    def envelope(self) -> Envelope:
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return self._mail.content(eightbit=eightbit, utf8=utf8, binary=binary)


def as_mail(message: Any) -> Mail:
    """Return `message` as a `Mail`; raise InvalidArgument for what cannot be sent."""
    if isinstance(message, Raw):
        return addressed(content_of_raw(message.source), message.sender, message.recipients)
    if hasattr(message, "content") and hasattr(message, "envelope"):
        mail: Mail = message
        return mail
    if hasattr(message, "raw_items") and hasattr(message, "get_payload"):
        return content_of(message)
    raise InvalidArgument(
        f"cannot send {type(message).__name__}: a Message or email.message.Message is needed"
    )


def addressed(
    mail: Mail, sender: str | Address | None, recipients: Sequence[str | Address | Recipient] | None
) -> Mail:
    """Return `mail` under another envelope; what is not given stays as it is."""
    if sender is None and recipients is None:
        return mail
    if isinstance(recipients, str | bytes):
        raise InvalidArgument("recipients is a sequence of addresses, not one text")
    if isinstance(mail, ForeignMail):
        return Readdressed(mail, mail.envelope(sender, recipients))
    if sender is None:
        sender = mail.envelope().sender
        return Readdressed(mail, Envelope(sender, recipients or ()))
    return Readdressed(
        mail, Envelope(sender, mail.envelope().recipients if recipients is None else recipients)
    )
