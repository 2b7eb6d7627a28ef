"""What goes into a spool and comes out of it: a message, rendered once for a server that offers nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..address import Address, Envelope, Recipient
from ..bodies import read_all
from ..content import Content, Mail, Source
from ..errors import ExtensionMissing, InvalidArgument

__all__ = ["Adapt", "StoredMail", "Submission", "mail_of", "seconds", "submission"]

#: How long an idempotency key may be; what is kept is its digest.
MAX_KEY = 1000

#: Makes what can be sent of what the caller has, under another envelope if one is given.
Adapt = Callable[[Any, "str | Address | None", "Sequence[str | Address | Recipient] | None"], Mail]


class Submission(NamedTuple):
    """A message as a spool stores it: `put` makes one of whatever it was given."""

    envelope: Envelope
    body: bytes
    key: str | None
    created: float
    not_before: float
    expires: float | None
    eightbit: bool
    utf8: bool
    binary: bool
    message_id: str | None

    @property
    def needs_utf8(self) -> bool:
        """Only a server with SMTPUTF8 can take it."""
        return self.utf8 or self.envelope.needs_utf8


class StoredMail:
    """What a lease gives to `SMTPClient.send`: the stored bytes for the recipients that are left."""

    __slots__ = ("_content", "_envelope")

    def __init__(self, envelope: Envelope, content: Callable[[], Content]) -> None:
        self._envelope = envelope
        self._content = content

    def envelope(self) -> Envelope:
        """Return the envelope of the recipients that are pending."""
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the stored content; it is the same for every server."""
        return self._content()


async def submission(
    mail: Mail,
    *,
    key: str | None = None,
    not_before: float | datetime | None = None,
    expires: float | datetime | None = None,
) -> Submission:
    """Render `mail` for a server that offers nothing, once and for all.

    Raises:
        InvalidArgument: the key, a time or the message is not one.
    """
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY):
        raise InvalidArgument(f"a key is a text of 1 to {MAX_KEY} characters")
    envelope = mail.envelope()
    try:
        content = mail.content()
    except ExtensionMissing:
        # An address in its header: no server without SMTPUTF8 can take it, in whatever form.
        content = mail.content(utf8=True)
    data = await read_all(content) if content.sources else content.join()
    if not content.canonical:
        # Whoever made it does not vouch for its line ends; they are looked at now, once for all attempts.
        content = Content.of_bytes(data, exact=content.binary)
        data = content.join()
    now = time.time()
    return Submission(
        envelope,
        data,
        key,
        now,
        now if not_before is None else seconds(not_before),
        None if expires is None else seconds(expires),
        content.eightbit,
        content.utf8,
        content.binary,
        content.message_id,
    )


def seconds(moment: float | datetime) -> float:
    """Return a time as seconds since the epoch.

    Raises:
        InvalidArgument: no number, or a datetime without a time zone.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidArgument("a datetime needs a time zone")
        return moment.timestamp()
    # A year far enough; also what is not a number fails here.
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < 2**40:
        raise InvalidArgument(f"{moment!r} is not a time in seconds since the epoch")
    return float(moment)


async def mail_of(
    message: Any,
    sender: str | Address | None,
    recipients: Sequence[str | Address | Recipient] | None,
    adapt: Adapt | None,
) -> Mail:
    """Return what a spool was given as mail; of a file or stream, all of it is read.

    Raises:
        FileError: it cannot be read.
        InvalidArgument: it is nothing that could be sent.
    """
    if adapt is None:
        message = await _read(message)
    if isinstance(message, os.PathLike) or hasattr(message, "read") or hasattr(message, "__aiter__"):
        message = await read_all(Content((Source(message, encoding="identity"),)))
    return (adapted if adapt is None else adapt)(message, sender, recipients)


async def _read(message: Any) -> Any:
    """Return a whole message that is somewhere else with its octets in memory; anything else as it is."""
    from ..sendable import Raw, Readdressed, as_mail, is_stream, release

    if not is_stream(message):
        return message
    origin: Any = message.source if isinstance(message, Raw) else message.raw
    try:
        data = await read_all(Content((Source(origin, encoding="identity"),)))
    finally:
        release(message)
    if isinstance(message, Raw):
        return message._replace(source=data)
    # Nothing in it is changed but Bcc; who gets it is the message's to say.
    return Readdressed(as_mail(Raw(data), exact=True), message.envelope())


def adapted(
    message: Any, sender: str | Address | None, recipients: Sequence[str | Address | Recipient] | None
) -> Mail:
    """Return what a client could send, or a whole message as bytes, as mail under another envelope."""
    from ..sendable import Raw, addressed, as_mail

    if isinstance(message, bytes | bytearray | memoryview):
        return as_mail(Raw(bytes(message), sender, recipients))
    return addressed(as_mail(message), sender, recipients)
