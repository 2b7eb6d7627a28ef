"""What goes into a spool and comes out of it: a message, rendered once for a server that offers nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import ExtensionMissing, InvalidArgument
from ..mail.coerce import PendingMail, Raw, to_mail
from ..model.address import Address
from ..model.content import Content, Mail
from ..model.envelope import Envelope, Recipient
from ..sources import read_all

__all__ = ["Adapt", "StoredMail", "Submission", "seconds", "submission"]

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
    message: Any,
    sender: str | Address | None = None,
    recipients: Sequence[str | Address | Recipient] | None = None,
    *,
    key: str | None = None,
    not_before: float | datetime | None = None,
    expires: float | datetime | None = None,
    adapt: Adapt | None = None,
) -> Submission:
    """Make of what `put` is given what a spool stores: rendered once, for a server that offers nothing.

    Args:
        message, sender, recipients, key, not_before, expires: see `Spool.put`.
        adapt: makes mail of the message; by default it is what `SMTPClient.send` takes, or a whole message.

    Raises:
        FileError: a part of it cannot be read.
        InvalidArgument: it cannot be sent, or the key or a time is not one.
    """
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY):
        raise InvalidArgument(f"a key is a text of 1 to {MAX_KEY} characters")
    if adapt is None:
        mail = await _to_mail(message, sender, recipients)
    else:
        mail = adapt(message, sender, recipients)
    envelope = mail.envelope()
    try:
        content = mail.content()
    except ExtensionMissing:
        # An address in its header: no server without SMTPUTF8 can take it, in whatever form.
        content = mail.content(utf8=True)
    data = await read_all(content, close_streams=True) if content.sources else content.join()
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


async def _to_mail(
    message: Any,
    sender: str | Address | None,
    recipients: Sequence[str | Address | Recipient] | None,
) -> Mail:
    """Return the message as mail, all of it read, since all of it will be on the disk before anything else is done."""
    mail = to_mail(Raw(message) if _is_source(message) else message, sender=sender, recipients=recipients)
    return await mail.read_whole() if isinstance(mail, PendingMail) else mail


def _is_source(message: Any) -> bool:
    """Tell whether `message` is a whole message in bytes, or a path or stream to read one from."""
    if isinstance(message, bytes | bytearray | memoryview | os.PathLike):
        return True
    return hasattr(message, "read") or hasattr(message, "__aiter__")
