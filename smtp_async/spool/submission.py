"""What goes into a spool and comes out of it: a message, rendered once for a server that offers nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from ..errors import ExtensionMissing, InvalidArgument
from ..model.address import Address
from ..model.content import Content, Mail, Source
from ..model.envelope import Envelope, Recipient
from ..sources import Body

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
        doors = _doors()
        if not isinstance(message, bytes) and doors.is_whole(message):
            message = await doors.read(message)
        mail = doors.mail(message, sender, recipients)
    else:
        mail = adapt(message, sender, recipients)
    envelope = mail.envelope()
    try:
        content = mail.content()
    except ExtensionMissing:
        # An address in its header: no server without SMTPUTF8 can take it, in whatever form.
        content = mail.content(utf8=True)
    data = await _read(content) if content.sources else content.join()
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


async def _read(content: Content) -> bytes:
    body = Body(content)
    try:
        await body.open()
        return b"".join([piece.data async for piece in body.chunks()])
    finally:
        await body.aclose()


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


class _Doors:
    """What a client takes, made mail: the modules for that are above this one, and are loaded when they are needed."""

    def __init__(self) -> None:
        from ..mail.coerce import Raw, Readdressed, addressed, as_mail, is_stream
        from ..mail.raw import raw_mail

        self._raw_mail = raw_mail
        self._raw = Raw
        self._readdressed = Readdressed
        self._addressed = addressed
        self._as_mail = as_mail
        self._is_stream = is_stream

    def is_whole(self, message: Any) -> bool:
        """Tell whether it is a whole message that has to be read from somewhere."""
        if isinstance(message, os.PathLike) or self._is_stream(message):
            return True
        return hasattr(message, "read") or hasattr(message, "__aiter__")

    async def read(self, message: Any) -> Any:
        """Read a whole message: all of it, since it will be on the disk before anything else is done with it."""
        if isinstance(message, self._raw) and not isinstance(message.source, bytes):
            source = Source(message.source, encoding="identity", close=message.close)
            return message._replace(source=await _read(Content((source,))))
        if not self._is_stream(message):
            return await _read(Content((Source(message, encoding="identity"),)))
        data = await _read(Content((Source(message.raw, encoding="identity"),)))
        return self._readdressed(await self._raw_mail(data), message.envelope())

    def mail(
        self,
        message: Any,
        sender: str | Address | None,
        recipients: Sequence[str | Address | Recipient] | None,
    ) -> Mail:
        """Return it as mail under another envelope, if one is given."""
        if isinstance(message, bytes | bytearray | memoryview):
            return self._as_mail(self._raw(bytes(message), sender, recipients))
        return self._addressed(self._as_mail(message), sender, recipients)


@cache
def _doors() -> _Doors:
    return _Doors()
