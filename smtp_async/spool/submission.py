"""Conversion of the message given to `put` into a `Submission`, rendered once for a server without extensions."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from ..errors import ExtensionMissing, InvalidArgument
from ..mail.coerce import PendingMail, Raw, to_mail
from ..model.address import Address
from ..model.content import Content, Mail, Source
from ..model.envelope import Envelope, Recipient
from ..model.signing import MessageSigner
from ..sources import read_all
from ..sources.render_cost import is_heavy
from .entry import Entry, State

__all__ = [
    "Adapt",
    "BodyNeeds",
    "JobOptions",
    "StoredMail",
    "Submission",
    "adopted",
    "checked_tag",
    "epoch_seconds",
    "job_id",
    "submission",
]

#: Maximum length of an idempotency key; only its digest is stored.
MAX_KEY = 1000
#: Maximum length of a tag.
MAX_TAG: Final = 64

#: Complete messages, as bytes or in a file; streams are recognised by their methods.
_SOURCES: Final = (bytes, bytearray, memoryview, os.PathLike)

_TAG: Final = re.compile(rf"[!-~]{{1,{MAX_TAG}}}")

#: Converts a message object of an application into a `Mail`, with another envelope if it is given.
Adapt = Callable[[Any, "str | Address | None", "Sequence[str | Address | Recipient] | None"], Mail]


class BodyNeeds(NamedTuple):
    """What a stored message requires of a server.

    Attributes:
        eightbit: 8BITMIME (RFC 6152).
        utf8: SMTPUTF8, because its header fields are not ASCII (RFC 6531).
        binary: BINARYMIME (RFC 3030).
    """

    eightbit: bool = False
    utf8: bool = False
    binary: bool = False

    def content(self, segment: bytes | Source, *, size: int, message_id: str | None) -> Content:
        """Return the content of a stored message of `size` octets."""
        return Content(
            (segment,),
            size=size,
            eightbit=self.eightbit,
            utf8=self.utf8,
            binary=self.binary,
            message_id=message_id,
            canonical=not self.binary,
            exact=self.binary,
        )


class JobOptions(NamedTuple):
    """The options of a job that do not depend on its message.

    Attributes:
        key: the idempotency key, if one was given.
        not_before: the earliest time to send the message, None for now.
        expires: the time after which sending is not tried again, None if the processor decides.
        tag: a word by which the processor may choose a route.
    """

    key: str | None = None
    not_before: float | None = None
    expires: float | None = None
    tag: str | None = None

    @classmethod
    def checked(
        cls,
        key: str | None,
        not_before: float | datetime | None,
        expires: float | datetime | None,
        tag: str | None = None,
    ) -> Self:
        """Check the arguments of `Spool.put` and return them as options.

        Raises:
            InvalidArgument: the key, a time or the tag is invalid.
        """
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY):
            raise InvalidArgument(f"a key is a string of 1 to {MAX_KEY} characters")
        return cls(
            key,
            None if not_before is None else epoch_seconds(not_before),
            None if expires is None else epoch_seconds(expires),
            None if tag is None else checked_tag(tag),
        )


NO_OPTIONS: Final = JobOptions()


class Submission(NamedTuple):
    """A message to be stored in a spool.

    Attributes:
        envelope: the envelope.
        body: the rendered message.
        needs: what the body requires of a server.
        message_id: the value of the Message-ID field, if known.
        created: when the message was put, in seconds since the epoch.
        not_before: the earliest time to send the message.
        expires: the time after which sending is not tried again, None if the processor decides.
        key: the idempotency key, if one was given.
        trace: the span that put it (`traceparent`, W3C Trace Context), if telemetry is on.
        tag: a word by which the processor may choose a route.
        history: the job in the spool that it comes from, whose id, results and attempts it keeps; None if it is new.
    """

    envelope: Envelope
    body: bytes
    needs: BodyNeeds
    message_id: str | None
    created: float
    not_before: float
    expires: float | None = None
    key: str | None = None
    trace: str | None = None
    tag: str | None = None
    history: Entry | None = None

    def entry(self, id: str) -> Entry:
        """Return the entry of the new job `id`."""
        if self.history is not None:
            return replace(self.history, key=id, state=State.QUEUED)
        return Entry(
            id=id,
            envelope=self.envelope,
            created=self.created,
            size=len(self.body),
            key=None if self.key is None else id,
            not_before=self.not_before,
            expires=self.expires,
            needs_utf8=self.needs.utf8 or self.envelope.needs_utf8,
            message_id=self.message_id,
            scheduled_at=self.created if self.not_before == self.created else 0.0,
            trace=self.trace,
            tag=self.tag,
        )


def job_id(job: Submission) -> str:
    """Return the id of a job: the one it had, or the beginning of its key's SHA-256, or time and a random number."""
    if job.history is not None:
        return job.history.id
    if job.key is not None:
        return hashlib.sha256(job.key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{time.time_ns():019d}-{os.urandom(16).hex()}"


class StoredMail:
    """The mail that a lease returns: the stored bytes, addressed to the pending recipients."""

    __slots__ = ("_content", "_envelope")

    def __init__(self, envelope: Envelope, content: Callable[[], Content]) -> None:
        self._envelope = envelope
        self._content = content

    def envelope(self) -> Envelope:
        """Return the envelope with the pending recipients."""
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the stored content, which is the same for every server."""
        return self._content()


async def submission(
    message: Any,
    sender: str | Address | None = None,
    recipients: Sequence[str | Address | Recipient] | None = None,
    *,
    options: JobOptions = NO_OPTIONS,
    adapt: Adapt | None = None,
    sign: Sequence[MessageSigner] = (),
) -> Submission:
    """Render a message for storage, for a server without extensions.

    Args:
        message, sender, recipients: see `Spool.put`.
        options: the checked options of the job.
        adapt: converts the message into a `Mail`; by default `put` accepts the messages that `SMTPClient.send` accepts,
            or a complete message.
        sign: how the message is signed.

    Raises:
        SigningError: the message cannot be signed.
        FileError: a part of the message cannot be read.
        InvalidArgument: the message cannot be sent.
    """
    if adapt is None:
        pending = to_mail(
            Raw(message) if _is_source(message) else message, sender=sender, recipients=recipients
        )
        # Read completely, because its bytes are stored first.
        mail = await pending.read_whole() if isinstance(pending, PendingMail) else pending
    else:
        mail = adapt(message, sender, recipients)
    if sign:
        from ..mail.signing import signed  # because few callers sign

        mail = await signed(mail, sign, heavy=is_heavy(message))
    envelope = mail.envelope()
    content = _rendered(mail)
    data = await read_all(content, close_streams=True) if content.sources else content.join()
    if not content.canonical:
        # Check the line endings once here rather than before each attempt.
        content = Content.of_bytes(data, exact=content.binary)
        data = content.join()
    now = time.time()
    return Submission(
        envelope,
        data,
        BodyNeeds(content.eightbit, content.utf8, content.binary),
        content.message_id,
        now,
        now if options.not_before is None else options.not_before,
        options.expires,
        options.key,
        tag=options.tag,
    )


def adopted(entry: Entry, message: bytes) -> Submission:
    """Return a job of another spool as a submission that keeps its history.

    The id is its key, so that a spool stores the job once, and remembers it when it is gone.
    """
    content = Content.of_bytes(message, exact=True)
    return Submission(
        entry.envelope,
        message,
        BodyNeeds(content.eightbit, entry.needs_utf8, content.binary),
        entry.message_id,
        entry.created,
        entry.not_before,
        entry.expires,
        key=entry.id,
        trace=entry.trace,
        tag=entry.tag,
        history=entry,
    )


def epoch_seconds(moment: float | datetime) -> float:
    """Return a time as seconds since the epoch.

    Raises:
        InvalidArgument: the time is not a number, out of range, or a datetime without a time zone.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidArgument("a datetime needs a time zone")
        return moment.timestamp()
    # The upper bound is in the distant future; NaN fails the comparison, too.
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < 2**40:
        raise InvalidArgument(f"{moment!r} is not a time in seconds since the epoch")
    return float(moment)


def checked_tag(tag: str) -> str:
    """Return a tag, if it is one.

    Raises:
        InvalidArgument: the tag is not a word of 1 to `MAX_TAG` visible ASCII characters.
    """
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise InvalidArgument(f"a tag is a word of 1 to {MAX_TAG} visible ASCII characters")
    return tag


# --- rendering -----------------------------------------------------------------------------------------------


def _rendered(mail: Mail) -> Content:
    try:
        return mail.content()
    except ExtensionMissing:
        # A header field contains an internationalised address, so a server without SMTPUTF8 cannot accept the message.
        return mail.content(utf8=True)


# --- conversion ----------------------------------------------------------------------------------------------


def _is_source(message: Any) -> bool:
    """Tell whether `message` is a complete message as bytes, or a path or stream that contains one."""
    if isinstance(message, _SOURCES):
        return True
    return hasattr(message, "read") or hasattr(message, "__aiter__")
